"""Benchmarks as data: what is read is what the source says, what is asked is what the prompt says, and verdicts are known."""

import json
from collections import Counter

import pytest
from helpers import data_file

from hf_prism.benchmarks import BENCHMARKS, Benchmark, Item, Items, find, names_of, read
from hf_prism.generation import Response
from hf_prism.grading import grade, judge, judge_math, majority, summarise
from hf_prism.verification import MathVerifier, Verdict


@pytest.fixture(scope="module")
def verifier():
    with MathVerifier() as made:
        yield made


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


LOCAL = {  # by benchmark: the file with a copy of it, its items, and how many have which gold, where that is known
    "math500": ("math500.jsonl", 500, None),
    "aime24": ("aime24.jsonl", 30, None),
    "amc23": ("amc23.jsonl", 40, None),
    "olympiadbench": ("olympiadbench_math_en.jsonl", 675, None),
    "gsm8k": ("gsm8k_test.jsonl", 1319, None),
    "gsm8k_platinum": ("gsm8k_platinum.jsonl", 1209, None),
    "snli": ("snli_test.jsonl", 9824, None),
    "snli_hard": ("snli_hard.jsonl", 3261, None),
    "hans": ("hans_regenerated.jsonl", 30000, {"entailment": 15000, "not_entailment": 15000}),
    "folio": ("folio_validation.jsonl", 204, None),
    "conjnli": ("conjnli_dev.jsonl", 623, None),
}


@pytest.mark.parametrize("name", LOCAL)
def test_a_local_copy_of_a_benchmark_is_read_whole(name):
    file, size, golds = LOCAL[name]
    path = data_file(file)
    items = read(find(f"{name}={path}"))
    rows = [json.loads(line) for line in path.open()]
    assert len(items.items) == size == len(rows)
    for item, row in zip(items.items, rows, strict=True):
        assert item.id == row["id"]
        if items.benchmark.kind == "math":
            assert item.fields["problem"] == row["prompt"] and item.fields["problem"] in items.prompt(item)
        else:
            assert (
                item.fields == {"premise": row["premise"], "hypothesis": row["hypothesis"]}
                and item.gold == row["label"]
            )
    if golds:
        assert Counter(item.gold for item in items.items) == golds and len(items.labels) == 2


def test_every_graded_solution_of_gsm8k_gets_the_verdict_it_has(verifier):
    rows = [json.loads(line) for line in data_file("gsm8k_model_solutions.jsonl").open()]
    items = tuple(Item(str(i), {"problem": row["prompt"]}, row["answer"]) for i, row in enumerate(rows))
    benchmark = Items(BENCHMARKS["gsm8k"], items)
    graded = grade(benchmark, [[Response(row["completion"])] for row in rows], verifier)
    verdicts = [each[0].verdict == "right" for each in graded]
    assert len(rows) == 5276 and verdicts == [row["is_correct"] for row in rows]


def test_the_solutions_of_benchmarks_are_right_by_their_own_answers(verifier):
    for name, file in {"math500": "math500.jsonl", "gsm8k": "gsm8k_test.jsonl"}.items():
        items = read(find(f"{name}={data_file(file)}"))
        rows = [json.loads(line) for line in data_file(file).open()][:300]
        items = Items(items.benchmark, items.items[:300])
        graded = grade(items, [[Response(row["completion"])] for row in rows], verifier)
        assert all(each[0].verdict == "right" for each in graded)
        shifted = [[Response(row["completion"])] for row in rows[1:] + rows[:1]]  # the solution of another problem
        chance = sum(each[0].verdict == "right" for each in grade(items, shifted, verifier)) / len(rows)
        assert chance < 0.06


# The columns and labels that Hub datasets have, as files; what is read of them is known.
HUB_LIKE = {
    "gsm8k": ({"question": "1 + 1?", "answer": "One and one.\n#### 1,002"}, "1002"),
    "math500": ({"problem": "1 + 1?", "answer": "\\frac{1}{2}", "unique_id": "x"}, "\\frac{1}{2}"),
    "olympiadbench": ({"question": "Solve.", "final_answer": ["$1$", "$2$"], "error": None}, "1, 2"),
    "amc23": ({"question": "How many?", "answer": 27.0}, "27"),
    "wanli": ({"premise": "P", "hypothesis": "H", "gold": "neutral"}, "neutral"),
    "snli_hard": ({"sentence1": "P", "sentence2": "H", "gold_label": "contradiction"}, "contradiction"),
    "anli_r1": ({"premise": "P", "hypothesis": "H", "label": 2}, "contradiction"),
    "hans": ({"premise": "P", "hypothesis": "H", "label": 1}, "not_entailment"),
    "folio": ({"premises": "P", "conclusion": "H", "label": "Uncertain"}, "neutral"),
}


@pytest.mark.parametrize("name", HUB_LIKE)
def test_columns_and_labels_of_the_table_are_read(tmp_path, name):
    from dataclasses import replace

    row, gold = HUB_LIKE[name]
    items = read(replace(BENCHMARKS[name], source=write(tmp_path / "rows.jsonl", [row])))
    assert [item.gold for item in items.items] == [gold]
    shown = items.prompt(items.items[0])
    assert all(text in shown for text in (("P", "H") if "H" in row.values() else (next(iter(row.values())),)))


def test_pairs_without_a_label_are_left_out_and_counted(tmp_path):
    from dataclasses import replace

    rows = [{"premise": "P", "hypothesis": f"H{i}", "label": label} for i, label in enumerate((0, -1, 2, -1))]
    items = read(replace(BENCHMARKS["snli"], source=write(tmp_path / "rows.jsonl", rows)))
    assert [item.gold for item in items.items] == ["entailment", "contradiction"] and items.without_label == 2


SAID = {  # response: verdict where the gold is (entailment, neutral, not_entailment)
    "Label: entailment": "right wrong wrong",
    "It follows.\nLabel: **Neutral**.": "wrong right right",
    "contradiction": "wrong wrong right",
    "not_entailment": "invalid invalid right",
    r"\boxed{\text{not\_entailment}}": "invalid invalid right",
    "Label: non-entailment": "invalid invalid right",
    "It could be entailment, but no. Label: not entailment.": "invalid invalid right",
    "**not** entailment": "invalid invalid right",
    "The hypothesis is not entailed.": "invalid invalid right",
    "It is not entailment. Label: neutral": "wrong right right",
    "It is not entailed, it is a contradiction.": "wrong wrong right",
    "<think>it is not entailment": "invalid invalid invalid",
    "<think>entailment?</think> neutral": "wrong right right",
    "<think>entailment": "invalid invalid invalid",
    "neutral or entailment": "invalid invalid invalid",
    "": "invalid invalid invalid",
}


@pytest.mark.parametrize("text", SAID)
def test_labels_are_read_and_three_are_mapped_to_two(verifier, text):
    found = []
    for gold in ("entailment", "neutral", "not_entailment"):
        item = Item("1", {"premise": "P", "hypothesis": "H"}, gold)
        found.append(judge(Items(Benchmark("b", "nli", "b.jsonl"), (item,)), item, text, verifier).verdict)
    assert " ".join(found) == SAID[text]


def test_a_tolerance_holds_for_numbers_only(verifier):
    cases = {("4.2", "4.29"): True, ("4.2", "4.31"): False, ("4.2", "4.2\\%"): True, ("4.2", "\\frac{21}{5}"): True}
    cases |= {("1,000", "1000.1"): True, ("4.2", "4.3"): True, ("4.2", "\\frac{43}{10}"): False}
    for (gold, answer), right in cases.items():
        assert (judge_math(gold, answer, 0.1, verifier) is Verdict.EQUAL) == right
    assert judge_math("4.2", "4.29", None, verifier) is not Verdict.EQUAL


def test_the_unit_of_an_answer_counts_where_the_data_name_one(tmp_path, verifier):
    row = {"id": "1", "prompt": "How long?", "answer": "45", "unit": "minute", "tolerance": None}
    items = read(find(f"olympiadbench={write(tmp_path / 'rows.jsonl', [row, {**row, 'id': '2', 'unit': '%'}])}"))
    said = {r"45 \text{ seconds}": "wrong", r"\frac{3}{4} \text{ hour}": "right", "45": "right"}
    for answer, verdict in said.items():
        assert judge(items, items.items[0], rf"\boxed{{{answer}}}", verifier).verdict == verdict
    assert judge(items, items.items[1], r"\boxed{45\%}", verifier).verdict == "right"


def test_a_box_is_asked_for_where_a_number_alone_may_be_anything(verifier):
    item = Item("1", {"problem": "?"}, "7")
    texts = {
        "The answer is 7.": ("invalid", "right"),
        r"\boxed{7}": ("right", "right"),
        "no idea": ("invalid", "invalid"),
    }
    for text, verdicts in texts.items():
        found = [
            judge(Items(BENCHMARKS[name], (item,)), item, text, verifier).verdict for name in ("math500", "gsm8k")
        ]
        assert tuple(found) == verdicts


# ---- numbers ---------------------------------------------------------------------------------------------------------


VOTES = {  # the answers to a problem whose answer is 2: what the majority is worth
    "most are right": (["2", "2.0", "3"], 1.0),
    "most are wrong": (["3", "3.0", "2"], 0.0),
    "spellings of one wrong answer count together": (["\\frac{1}{2}", "0.5", "2", "2", "1/2"], 0.0),
    "a tie of two": (["2", "3"], 0.5),
    "a tie of three": (["2", "3", "4"], 1 / 3),
    "who says nothing does not vote": ([None, None, None, "2"], 1.0),
    "nobody says anything": ([None, None], 0.0),
    "a tie of wrong answers": (["3", "4"], 0.0),
}


@pytest.mark.parametrize(("answers", "worth"), VOTES.values(), ids=VOTES)
def test_the_majority_is_what_most_samples_say(verifier, answers, worth):
    item = Item("1", {"problem": "?"}, "2")
    items = Items(Benchmark("b", "math", "b.jsonl"), (item,))
    texts = ["I do not know." if answer is None else rf"\boxed{{{answer}}}" for answer in answers]
    assert majority([judge(items, item, text, verifier) for text in texts], verifier) == pytest.approx(worth)


def test_the_numbers_are_those_counted_by_hand(verifier):
    items = Items(Benchmark("b", "math", "b.jsonl"), tuple(Item(str(i), {"problem": "?"}, "2") for i in range(3)))
    right, wrong, cut = Response(r"\boxed{2}"), Response(r"\boxed{3}"), Response("Hm", finish_reason="length")
    refused = Response("", finish_reason="error", error="too long")
    responses = [[right, right], [wrong, cut], [right, refused]]
    told = summarise(items, responses, grade(items, responses, verifier), verifier)
    assert told["accuracy"] == pytest.approx(3 / 6) and told["problems"] == 3 and told["samples"] == 2
    assert (
        told["invalid"] == pytest.approx(2 / 6) and told["truncated"] == pytest.approx(1 / 6) and told["errors"] == 1
    )
    assert told["majority"]["accuracy"] == pytest.approx(2 / 3)  # 2; 3; 2, the only vote
    assert told["standard_error"] == pytest.approx((1 / 4 / 3) ** 0.5)  # of 1, 0, 1/2


# ---- what is wrong ---------------------------------------------------------------------------------------------------

ROW = {"id": "a", "prompt": "1 + 1?", "answer": "2"}
PAIR = {"id": "a", "premise": "P", "hypothesis": "H", "label": "neutral"}
BAD_FILES = {
    "no answer column": (
        [{"prompt": "1 + 1?", "anwser": "2"}],
        "no column 'answer' (did you mean 'anwser'?); columns found",
    ),
    "no problem column": ([{"problems": "1 + 1?", "answer": "2"}], "no column 'problem' (did you mean 'problems'?)"),
    "an empty answer": ([ROW, {**ROW, "id": "b", "answer": " "}], "row 1 (id 'b'): answer is ' ', not a text"),
    "a null problem": ([{**ROW, "prompt": None}, ROW], "row 0 (id 'a'): prompt is None"),
    "an id twice": ([ROW, ROW], "the id 'a' is there twice"),
    "no label column": ([{"premise": "P", "hypothesis": "H"}], "no column 'label'"),
    "a label that is a number": ([{**PAIR, "label": 1}], "labels are entailment, neutral, contradiction"),
    "two labels and three": (
        [{**PAIR, "id": "b", "label": "not_entailment"}, PAIR],
        "items of two labels and of three",
    ),
    "no number": ([{**ROW, "answer": float("nan")}], "answer is nan, which answers nothing"),
    "a tolerance that is none": (
        [{**ROW, "tolerance": "0.1,0.1"}],
        "tolerance is '0.1,0.1'; a tolerance is one number",
    ),
    "a tolerance below zero": ([{**ROW, "tolerance": -1}], "tolerance is -1"),
    "a label that is none": ([{**PAIR, "label": "maybe"}], "label is 'maybe'"),
}


@pytest.mark.parametrize(("rows", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_is_an_error_that_says_where(tmp_path, rows, message):
    path = write(tmp_path / "mine.jsonl", rows)
    with pytest.raises(ValueError) as error:
        read(find(path))
    assert message in str(error.value) and "mine.jsonl" in str(error.value)


def test_an_unknown_benchmark_is_an_error_that_lists_all():
    with pytest.raises(ValueError) as error:
        find("math50")
    assert "did you mean 'math500'?" in str(error.value) and all(name in str(error.value) for name in BENCHMARKS)


@pytest.mark.parametrize(
    ("prompt", "message"),
    {
        "{question}": "asks for 'question'",
        "Solve it.": "has no {problem}",
        "{problem": "is no format string",
        "{problem.__class__}": "asks for 'problem.__class__'",
        "{problem:.2}": "formats a field",
        "{problem!r}": "formats a field",
        "{problem:{answer}}": "formats a field",
    }.items(),
)
def test_a_prompt_that_does_not_fit_is_an_error(prompt, message):
    with pytest.raises(ValueError) as error:
        find("math500", prompt=prompt)
    assert message in str(error.value)


def test_two_benchmarks_of_one_name_are_an_error():
    with pytest.raises(ValueError, match="'gsm8k' is named twice"):
        names_of([find("gsm8k"), find("gsm8k@main")])


def test_a_subset_is_the_same_everywhere_and_grows(tmp_path):
    path = write(tmp_path / "rows.jsonl", [{"id": str(i), "prompt": f"{i}?", "answer": str(i)} for i in range(100)])
    few, more = (read(find(path), max_items=n) for n in (10, 30))
    assert len(few.items) == 10 and {item.id for item in few.items} < {item.id for item in more.items}
    assert few.digest == read(find(path), max_items=10).digest != read(find(path), max_items=10, seed=1).digest


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_of_the_table_has_a_prompt_with_its_fields(name):
    benchmark = BENCHMARKS[name]
    fields = ("problem",) if benchmark.kind == "math" else ("premise", "hypothesis")
    item = Item("1", {field: f"<{field}>" for field in fields}, "2")
    shown = Items(benchmark, (item,)).prompt(item)
    assert all(f"<{field}>" in shown for field in fields)
    assert ("\\boxed{}" in shown) == (benchmark.kind == "math")


def test_a_column_that_is_called_error_is_no_tolerance(tmp_path, verifier):
    items = read(find(write(tmp_path / "rows.jsonl", [{**ROW, "answer": "1", "error": 3}])))
    assert judge(items, items.items[0], r"\boxed{4}", verifier).verdict == "wrong"


def test_a_copy_of_gsm8k_may_hold_solutions_or_answers(tmp_path):
    rows = [{"id": "a", "problem": "?", "answer": "So 70 + 2.\n#### 72"}, {"id": "b", "problem": "?", "answer": "72"}]
    items = read(find(f"gsm8k={write(tmp_path / 'copy.jsonl', rows)}"))
    assert [item.gold for item in items.items] == ["72", "72"]


@pytest.mark.parametrize("name", ["../escaped", "a/b", "..", "a\0b"])
def test_a_name_that_would_be_a_path_is_refused(name):
    with pytest.raises(ValueError, match="cannot be the name of a benchmark"):
        Benchmark(name, "math", "b.jsonl")


@pytest.mark.parametrize("spec", ["x" * 300, "~nobody-of-this-name/x", "\0"])
def test_a_spec_that_cannot_be_a_path_is_an_unknown_benchmark(spec):
    with pytest.raises(ValueError, match="there is no benchmark"):
        find(spec)


def test_whole_numbers_are_written_whole(tmp_path):
    rows = [{"id": str(i), "prompt": "?", "answer": value} for i, value in enumerate((1234567.0, 1e22, 0.25))]
    items = read(find(write(tmp_path / "rows.jsonl", rows)))
    assert [item.gold for item in items.items] == ["1234567", "10000000000000000000000", "0.25"]
