"""Skeletons read back from text: compared with the generator's own record, and with text that others wrote."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from hf_prism.tasks import families, recognition
from hf_prism.tasks.procedural import LONGER_SKELETONS, SKELETONS, generate
from hf_prism.tasks.recognition import skeleton_of


DATA = Path(os.environ.get("HF_PRISM_DATA", Path(__file__).parents[2] / "shared" / "data"))
ALL = (*SKELETONS, *LONGER_SKELETONS)
ROWS = [row for seed in range(10) for row in generate(1000, seed=seed)]
ROWS += [row for seed in range(10, 20) for row in generate(1000, seed=seed, skeletons=ALL)]


def test_the_skeleton_read_from_the_text_is_the_one_on_record():
    assert {row["skeleton"] for row in ROWS} == set(ALL)
    assert [row for row in ROWS if skeleton_of(row["prompt"]) != row["skeleton"]] == []


def test_the_rows_above_speak_in_every_wording():
    prompts = "\n".join(row["prompt"] for row in ROWS)
    spoken = [families.HAVE, families.GAIN, families.LOSE, families.HOW_MANY, families.GROUPS, families.SHARE]
    spoken += [families.IN_ALL, *families.COMPARED.values(), families.OTHER_HAS, families.BOTH_HAVE, families.NEXT]
    spoken += [
        families.LIST,
        *families.WANTED.values(),
        families.WEEKDAY,
        families.HOUR,
        families.CONVERT,
        families.ASK,
    ]
    for wording in [wording for wordings in spoken for wording in wordings]:
        pattern = ".+?".join(re.escape(text) for text in re.split(r"{\w+}", wording))
        assert re.search(pattern, prompts), wording


def test_no_text_fits_two_skeletons():
    for row in ROWS[::7]:
        fitting = [skeleton for skeleton, each in recognition._patterns().items() if each.fullmatch(row["prompt"])]
        in_these_words = [each for each in ALL if each.startswith("sequence/")]  # their numbers say how they grow
        assert fitting == (in_these_words if row["family"] == "sequence" else [row["skeleton"]]), row


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "What is 12 + 5?",
        "Mary has 12 cups.",
        "Mary has 12 cups. What is the final number of cups?",
        "Mary has 12 cups. Mary buys 5 more. What is the final number of cups? ",
        "Mary has twelve cups. Mary buys 5 more. What is the final number of cups?",
        "Mary has 12 cups. Mary buys 5 more. It rains. What is the final number of cups?",
        "Mary has 12 cups. Tom has 5 more than Mary.",
        "What number comes next: 1, 4, 9, 16, ?",
        "Find the next number of the sequence 5, 5, 8, 8.",
        "Convert 3 yards into inches.",
        "Convert 3 feet and 2 feet into inches.",
        "Today is Someday. What day of the week is it 3 days later?",
        "Premise: Every dog is happy. Tom is a dog.\nHypothesis: Tom barks.\nEntailment, contradiction or neutral?",
    ],
)
def test_other_text_has_no_skeleton(prompt):
    assert skeleton_of(prompt) is None


@pytest.mark.parametrize("file", ["gsm8k_train", "svamp", "math_test_rest", "snli_dev"])
def test_problems_of_others_have_no_skeleton(file):
    path = DATA / f"{file}.jsonl"
    if not path.exists():
        pytest.skip(f"needs {path}; HF_PRISM_DATA names the folder")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    prompts = [row.get("prompt") or f"{row['premise']} {row['hypothesis']}" for row in rows]
    assert [prompt for prompt in prompts if skeleton_of(prompt)] == []


def test_a_new_wording_needs_no_code(monkeypatch):
    monkeypatch.setattr(recognition, "_patterns", recognition._patterns.__wrapped__)  # made anew for each call
    with monkeypatch.context() as patched:
        patched.setitem(families.EVENTS, "+", (*families.GAIN, "Hurrah, {who} wins {b} {things} (at last)!"))
        rows = [row for row in generate(100, families=["story", "groups"], seed=3) if "Hurrah" in row["prompt"]]
        assert len(rows) > 5
        assert all(skeleton_of(row["prompt"]) == row["skeleton"] for row in rows)
    assert skeleton_of(rows[0]["prompt"]) is None
