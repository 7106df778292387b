"""Tasks: what is asked of a model, and what is read back, however untidy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_prism.samples import RowError
from hf_prism.tasks.blocks import read_blocks, write_block
from hf_prism.tasks.math import MathTask
from hf_prism.tasks.nli import NLITask, label_of
from hf_prism.verification import after_thinking


PROBLEM = "A set $\\{x : x^{2} < 4\\}$ has how many integers?"

# What a model wrote -> the problems that are in it; None is a block that cannot be read.
RESPONSES = {
    "as asked": ("---\n[[Problem]]\nOne?\n---\n[[Problem]]\nTwo?\n---", ["One?", "Two?"]),
    "no delimiters at all": ("[[Problem]]\nOne?\n\n[[Problem]]\nTwo?", ["One?", "Two?"]),
    "text around": ("Sure, here you go!\n\n---\n[[Problem]]\nOne?\n---\nI hope these help!", ["One?"]),
    "numbered and bold tags": ("**[[Problem 1]]**\nOne?\n---\n### [[problem #2]]: Two?", ["One?", "Two?"]),
    "on one line": ("[[Problem]] One? \n---\n[[ Problem ]] Two?", ["One?", "Two?"]),
    "other rules": ("***\n[[Problem]]\nOne?\n=====\n[[Problem]]\nTwo?\n___", ["One?", "Two?"]),
    "several lines, nested braces": (f"[[Problem]]\nLet $a_{{b_{{c}}}}$ be.\n\n{PROBLEM}\n---", [f"Let $a_{{b_{{c}}}}$ be.\n\n{PROBLEM}"]),
    "double brackets in the mathematics": ("[[Problem]]\nWhat is the trace of [[1, 2], [3, 4]]?\n---", ["What is the trace of [[1, 2], [3, 4]]?"]),
    "a minus in the text": ("[[Problem]]\nWhat is 5 --- 3, or 5 - 3?\n---", ["What is 5 --- 3, or 5 - 3?"]),
    "a solution too": ("[[Problem]]\nOne?\n[[Solution]]\n\\boxed{1}\n---\n[[Problem]]\nTwo?", ["One?", "Two?"]),
    "an empty block": ("[[Problem]]\n\n---\n[[Problem]]\nTwo?", [None, "Two?"]),
    "only a solution": ("[[Solution]]\n\\boxed{1}", []),
    "thinks first": ("<think>Maybe [[Problem]] of apples?</think>\n[[Problem]]\nOne?", ["One?"]),
    "thinks for ever": ("<think>Maybe [[Problem]]\nOne?\n---", []),
    "refuses": ("I cannot do that.", []),
    "nothing": ("", []),
    "Windows lines": ("---\r\n[[Problem]]\r\nOne?\r\n---\r\n[[Problem]]\r\nTwo?\r\n---\r\n", ["One?", "Two?"]),
}  # fmt: skip


@pytest.mark.parametrize(("text", "problems"), RESPONSES.values(), ids=RESPONSES)
def test_every_problem_of_an_untidy_response_is_read(text, problems):
    read = MathTask().parse(text)
    assert [block and block["problem"] for block in read] == problems


def test_a_solution_in_a_block_is_kept_apart_from_the_problem():
    block = MathTask().parse("[[Problem]]\nOne?\n[[Solution]]\nIt is \\boxed{1}.\n---")[0]
    assert block == {"problem": "One?", "solution": "It is \\boxed{1}."}


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("[[Problem]]\nOne?\n---\n[[Problem]]\nTwo is cut o", ["One?", None]),
        ("[[Problem]]\nOne?\n---\n[[Problem]]\nTwo?\n---", ["One?", "Two?"]),
    ],
)
def test_of_a_response_that_was_cut_off_the_unfinished_block_does_not_count(text, problems):
    assert [block and block["problem"] for block in MathTask().parse(text, cut=True)] == problems


PLAIN = st.text(st.characters(codec="ascii", exclude_characters="[]<>-*=_"), min_size=1).filter(str.strip)


@given(st.lists(st.tuples(PLAIN, PLAIN), max_size=5))
def test_what_is_written_as_blocks_is_read_back(pairs):
    text = "\n---\n".join(write_block({"Premise": p, "Hypothesis": h}) for p, h in pairs)
    lines = [{"Premise": p.strip(), "Hypothesis": h.strip()} for p, h in pairs]
    assert read_blocks(text, ["Premise", "Hypothesis"]) == lines


@given(st.text())
def test_no_response_breaks_the_reader(text):
    for task in (MathTask(), NLITask()):
        for cut in (False, True):
            assert all(block is None or all(block.values()) for block in task.parse(text, cut=cut))


def test_the_request_shows_the_examples_and_asks_for_the_count():
    rows = [{"prompt": f"Problem {i}?", "completion": "", "answer": "1"} for i in range(5)]
    (message,) = MathTask().generation_messages(rows, 2, persona="a pilot")
    assert message["role"] == "user"
    shown = MathTask().parse(message["content"])
    assert [block["problem"] for block in shown if block] == [f"Problem {i}?" for i in range(5)]
    assert "Write 2 new problems" in message["content"] and "\nPersona: a pilot" in message["content"]
    (plain,) = MathTask().generation_messages(rows, 3)
    assert "Write 3 new" in plain["content"] and "Persona" not in plain["content"]


def test_the_nli_request_shows_both_parts_of_each_pair_and_no_label():
    rows = [{"premise": f"It rains {i}.", "hypothesis": f"Wet {i}.", "label": "neutral"} for i in range(3)]
    (message,) = NLITask().generation_messages(rows, 2)
    shown = [block for block in NLITask().parse(message["content"]) if block]
    assert shown == [{"premise": f"It rains {i}.", "hypothesis": f"Wet {i}."} for i in range(3)]


def test_mathematical_votes_count_equal_answers_together_and_leave_out_unfinished_reasoning():
    task = MathTask()
    solutions = ["\\boxed{\\frac{1}{2}}", "<think>\\boxed{3}", None, "so \\boxed{0.5}", "<think>7</think> \\boxed{3}"]
    vote = task.vote({"problem": "?"}, solutions)
    task.close()
    assert (vote.votes, vote.num_valid, vote.answer, vote.winners) == (2, 3, "0.5", (3, 0))


LABELLED = {
    "Label: entailment": "entailment",
    "It follows.\n**Label:** Entailment.": "entailment",
    "label is contradiction": "contradiction",
    "\\boxed{neutral}": "neutral",
    "neutral": "neutral",
    "The premise contradicts it. Answer: contradicts": "contradiction",
    "Not an entailment, but it may be. Label: neutral": "neutral",
    "<think>entailment?</think>Label: neutral": "neutral",
    "<think>Label: neutral": None,
    "entailment or neutral": None,
    "Label: entailment or neutral": "entailment",
    "I do not know": None,
    "": None,
}


@pytest.mark.parametrize(("text", "label"), LABELLED.items())
def test_the_label_that_an_answer_ends_with_is_read(text, label):
    assert label_of(text) == label


def test_an_nli_row_serves_encoders_and_causal_models():
    row = NLITask().row(
        {"premise": "It rains.", "hypothesis": "It is wet."}, "So it is. Label: entailment", "entailment"
    )
    assert {row["premise"], row["hypothesis"]} == {"It rains.", "It is wet."}
    assert row["label"] == row["completion"] == row["answer"] == "entailment"
    assert "It rains." in row["prompt"] and "It is wet." in row["prompt"] and "entailment" not in row["prompt"]


SEEDS = {
    "an answer of its own": ({"prompt": "1+1?", "completion": "2", "answer": "2"}, "2"),
    "a boxed answer": ({"prompt": "1+1?", "completion": "It is \\boxed{2}."}, "2"),
    "GSM8K": ({"question": "1+1?", "solution": "1+1=2\n#### 2"}, "2"),
    "a boxed answer in its column": ({"prompt": "1+1?", "completion": "2", "answer": "\\boxed{2}"}, "2"),
    "a number": ({"prompt": "1+1?", "completion": "2", "answer": 2}, "2"),
}


@pytest.mark.parametrize(("row", "answer"), SEEDS.values(), ids=SEEDS)
def test_the_answer_of_a_seed_is_found(row, answer):
    read = MathTask().seed_row(row, "row 0")
    assert (read["prompt"], read["answer"]) == ("1+1?", answer)


BAD = {
    "no answer": (MathTask, {"prompt": "1+1?", "completion": "two"}, "row 3: no answer"),
    "an empty answer": (MathTask, {"prompt": "1+1?", "completion": "2", "answer": " "}, "'answer' is ' '"),
    "a null problem": (MathTask, {"prompt": None, "completion": "2", "answer": "2"}, "'prompt' is None"),
    "no problem": (MathTask, {"text": "1+1?", "answer": "2"}, "no column 'prompt' or 'problem' or 'question'"),
    "a numbered label": (NLITask, {"premise": "a", "hypothesis": "b", "label": 1}, "the number 1"),
    "another label": (NLITask, {"premise": "a", "hypothesis": "b", "label": "entails"}, "did you mean 'entailment'"),
    "no hypothesis": (NLITask, {"premise": "a", "label": "neutral"}, "no column 'hypothesis'"),
}


@pytest.mark.parametrize(("task", "row", "message"), BAD.values(), ids=BAD)
def test_a_seed_that_cannot_be_used_is_named(task, row, message):
    with pytest.raises(RowError) as error:
        task().seed_row(row, "row 3")
    assert message in str(error.value) and "row 3" in str(error.value)


def test_thinking_that_is_closed_twice_ends_at_the_last():
    assert after_thinking("<think>a</think>b</think>c") == "c"


@pytest.mark.parametrize("task", [MathTask, NLITask])
@pytest.mark.parametrize(
    "options", [{"min_agreement": 1.5}, {"min_agreement": "0.6"}, {"min_votes": 0}, {"min_votes": 1.5}]
)
def test_a_task_with_impossible_thresholds_is_refused_when_it_is_made(task, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        task(**options)
