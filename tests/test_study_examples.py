"""The pool and the benchmarks of the studies have in common what they should, and nothing else; the base is trained."""

from __future__ import annotations

import importlib
import re
import sys
from itertools import islice

import pytest
from test_deductions import label_of, read, sentences
from transformers import AutoModelForCausalLM, AutoTokenizer

from hf_prism.benchmarks import find
from hf_prism.benchmarks import read as read_items
from hf_prism.rows import load_rows, row_ids
from hf_prism.tasks import chains, deductions
from hf_prism.tasks.styles import KEPT_BACK


ROWS, POOLED, PROBLEMS = 4, 12, 60
SLOTS = {"a": r"\d+", "b": r"\d+", "things": "[a-z ]+", "t": r"[A-Za-z]+", "u": r"[A-Za-z]+"}
LISTS = {
    "math": [chains.HAVE, *chains.EVENTS.values(), chains.HOW_MANY, *chains.TOLD.values(), chains.LAST_HAS],
    "nli": [listed for each in deductions.FAMILIES.values() for listed in (*each.says.values(), *each.rules.values())],
}


@pytest.fixture(scope="module")
def make_pool(study_script):
    return study_script("make_pool")


def small(make_pool, study):
    """The split of a study, of fewer rows; deductions of two rules only, to be quick."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"ROWS": ROWS, "POOLED": POOLED, "PROBLEMS": PROBLEMS}.items():
            patch.setattr(make_pool, name, value)
        patch.setattr(make_pool, "STEPS", (2, 3) if study == "math" else (2,))
        split = make_pool.Split(study, 0)
        return split, list(split.pool()), split.benchmarks()


@pytest.fixture(scope="module", params=["math", "nli"])
def made(make_pool, request):
    return request.param, *small(make_pool, request.param)


def operations(row):
    """The steps of a skeleton, and whether they are all of one kind."""
    family, _, letters = row["skeleton"].partition("/")
    letters = letters if family in chains.FAMILIES else letters[1:]
    return len(letters), len(set(letters)) == 1


def test_the_pool_has_as_many_different_rows_of_every_skeleton_in_every_style(made):
    _, split, pool, _ = made
    cells = {(row["skeleton"], row["style"]): [] for row in pool}
    for row in pool:
        cells[row["skeleton"], row["style"]].append(row["prompt"])
    assert len(cells) == POOLED * 16 and set(split.styles) == {number for _, number in cells}
    assert all(len(prompts) == len(set(prompts)) == ROWS for prompts in cells.values())
    assert len(row_ids(load_rows(pool)).ids) == len(pool)  # and no id repeats


def test_no_problem_of_a_benchmark_is_in_the_pool(made):
    _, _, pool, benchmarks = made
    prompts = {row["prompt"] for row in pool}
    for rows in benchmarks.values():
        assert len(rows) == len({row["prompt"] for row in rows}) == PROBLEMS
        assert not prompts & {row["prompt"] for row in rows}
        assert not {row["style"] for row in rows} & {row["style"] for row in pool}


def test_skeletons_of_benchmarks_are_those_that_their_names_promise(made):
    _, _, pool, benchmarks = made
    trained = {row["skeleton"] for row in pool}
    asked = {name: {row["skeleton"] for row in rows} for name, rows in benchmarks.items()}
    assert asked["in_distribution"] <= trained and asked["rephrased"] <= trained
    assert not trained & (asked["held_out"] | asked["longer"] | asked["other_family"])
    families = {name: {kind.partition("/")[0] for kind in kinds} for name, kinds in asked.items()}
    (family,) = {kind.partition("/")[0] for kind in trained}
    assert all(families[name] == {family} for name in ("in_distribution", "held_out", "longer", "rephrased"))
    assert len(families["other_family"]) == 1 and family not in families["other_family"]


def test_steps_are_as_many_as_told_and_never_of_one_kind_alone(made):
    _, _, pool, benchmarks = made
    assert {operations(row)[0] for row in benchmarks["longer"]} == {4}
    known = {operations(row)[0] for row in pool}
    for name in ("in_distribution", "held_out", "other_family", "rephrased"):
        assert {operations(row)[0] for row in benchmarks[name]} == known
    assert not any(operations(row)[1] for rows in (pool, *benchmarks.values()) for row in rows)


def wordings(study, prompt):
    """For each sentence of a prompt, whether it can be a usual wording, and whether one that is kept back."""
    text = prompt.replace("\nHypothesis: ", " ")
    for sentence in re.findall(r"[^.?]+[.?]", text.replace(". ", ".")):
        found = set()
        for listed in LISTS[study]:
            for place, wording in enumerate(listed):
                pattern = re.sub(
                    r"\\\{(\w+)\\\}", lambda slot: f"(?:{SLOTS.get(slot[1], '[A-Z][a-z]+')})", re.escape(wording)
                )
                if re.fullmatch(pattern, sentence):
                    found.add(place >= len(listed) - KEPT_BACK)
        assert found, sentence
        yield found


def test_the_rephrased_benchmark_has_no_wording_of_the_pool_and_no_other_has_one_of_it(made):
    study, _, pool, benchmarks = made
    for name, rows in {"pool": pool[:: len(pool) // 60], **benchmarks}.items():
        kept_back = {True} if name == "rephrased" else {False}
        assert all(found == kept_back for row in rows for found in wordings(study, row["prompt"])), name


def test_answers_are_right(made):
    """Sums done again from the numbers of the text; labels from all possible worlds."""
    study, _, pool, benchmarks = made
    for row in [*pool[::19], *(row for rows in benchmarks.values() for row in rows[::4])]:
        if study == "nli":
            assert row["label"] == row["answer"] == label_of(row["premise"], row["hypothesis"]) != "neutral"
        else:
            first, *others = map(int, re.findall(r"\d+", row["prompt"]))
            total = first
            for sign, number in zip(row["skeleton"].partition("/")[2], others, strict=True):
                assert sign != "/" or total % number == 0
                total = {"+": total + number, "-": total - number, "*": total * number, "/": total // number}[sign]
            assert row["answer"] == str(total)
        assert re.findall(r"\\boxed\{([^{}]*)\}", row["completion"]) == [row["answer"]]


def test_the_same_seed_makes_the_same_and_another_one_other_skeletons_and_styles(make_pool):
    first, again, other = (make_pool.Split("math", seed) for seed in (0, 0, 1))
    assert first.pooled == again.pooled and first.held_out == again.held_out
    rows = [list(islice(split.pool(), 30)) for split in (first, again)]
    assert rows[0] == rows[1]
    assert set(other.pooled) != set(first.pooled)
    assert not {*other.styles, *other.new_styles} & {*first.styles, *first.new_styles}


def test_the_script_writes_what_a_study_reads(make_pool, tmp_path, monkeypatch, capsys):
    for name, value in {"ROWS": 2, "PROBLEMS": 5, "STYLES": 3}.items():
        monkeypatch.setattr(make_pool, name, value)
    monkeypatch.setattr(sys, "argv", ["make_pool.py", "math", "--output", str(tmp_path / "math")])
    make_pool.main()
    assert "240 rows of 40 skeletons in 3 styles; 21 held out" in capsys.readouterr().out
    pool = load_rows(tmp_path / "math" / "pool.parquet")
    assert len(pool) == 240 and {"id", "prompt", "completion", "skeleton", "style", "skills"} <= set(pool.column_names)
    for name in ("in_distribution", "held_out", "longer", "other_family", "rephrased"):
        items = read_items(find(str(tmp_path / "math" / f"{name}.jsonl"))).items
        assert len(items) == 5 and all(item.gold.isdigit() for item in items)


@pytest.mark.parametrize("study", ["math", "nli"])
def test_the_base_sees_problems_of_one_operation_only(make_pool, study):
    train_base = importlib.import_module("train_base")
    rows = list(islice(train_base.problems(make_pool.GRAMMARS[study], 0), 300))
    assert all(operations(row)[1] for row in rows) and {operations(row)[0] for row in rows} == {1, 2, 3, 4}
    if study == "nli":
        assert all(len({read(rule)[0] for rule in sentences(row["premise"])[1:]}) == 1 for row in rows)
    texts = list(islice(train_base.pairs(make_pool.GRAMMARS[study], 0), 300))
    repeated = [(prompt, text) for prompt, text in texts if prompt.startswith("Repeat: ")]
    assert 60 < len(repeated) < 150 and all(prompt == f"Repeat: {text}" for prompt, text in repeated)


def test_the_base_is_trained_and_read_back(make_pool, tmp_path, monkeypatch, capsys):
    train_base = importlib.import_module("train_base")
    monkeypatch.setattr(train_base, "islice", lambda rows, number: islice(rows, number // 100))  # fewer of all
    base = tmp_path / "base"
    options = ["--steps", "3", "--width", "16", "--float32", "--output", str(base)]
    monkeypatch.setattr(sys, "argv", ["train_base.py", "math", *options])
    train_base.main()
    assert re.search(r"^\d+\.\d% of 4 new problems of one operation$", capsys.readouterr().out, re.MULTILINE)
    tokenizer = AutoTokenizer.from_pretrained(base)
    assert AutoModelForCausalLM.from_pretrained(base).config.hidden_size == 16
    chat = [{"role": "user", "content": "Tom has 3 pens."}]
    assert "Tom has 3 pens." in tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
