"""Skeletons read back from text: compared with the generator's own record, and with text that others wrote."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from random import Random

import pytest

from hf_prism.tasks import chains, families, recognition
from hf_prism.tasks.families import Voice
from hf_prism.tasks.lexicon import NAMES, OBJECTS
from hf_prism.tasks.procedural import LONGER_SKELETONS, SKELETONS, generate
from hf_prism.tasks.recognition import chain_of, skeleton_of
from hf_prism.tasks.styles import style


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
    assert skeleton_of(prompt) is None and chain_of(prompt) is None


@pytest.mark.parametrize("file", ["gsm8k_train", "svamp", "math_test_rest", "snli_dev"])
def test_problems_of_others_have_no_skeleton(file):
    path = DATA / f"{file}.jsonl"
    if not path.exists():
        pytest.skip(f"needs {path}; HF_PRISM_DATA names the folder")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    prompts = [row.get("prompt") or f"{row['premise']} {row['hypothesis']}" for row in rows]
    assert [prompt for prompt in prompts if skeleton_of(prompt) or chain_of(prompt)] == []


def test_a_new_wording_needs_no_code(monkeypatch):
    monkeypatch.setattr(recognition, "_patterns", recognition._patterns.__wrapped__)  # made anew for each call
    with monkeypatch.context() as patched:
        patched.setitem(families.EVENTS, "+", (*families.GAIN, "Hurrah, {who} wins {b} {things} (at last)!"))
        rows = [row for row in generate(100, families=["story", "groups"], seed=3) if "Hurrah" in row["prompt"]]
        assert len(rows) > 5
        assert all(skeleton_of(row["prompt"]) == row["skeleton"] for row in rows)
    assert skeleton_of(rows[0]["prompt"]) is None


# -- chains of arithmetic ---------------------------------------------------------------------------------------------


def chain(skeleton: str, seed: int, voice: Voice) -> str:
    return chains.pose(skeleton, Random(seed), voice)["prompt"]


@pytest.mark.parametrize("rephrased", [False, True])
def test_the_chain_read_from_the_text_is_the_one_on_record_in_every_style(rephrased):
    for seed, skeleton in enumerate(chains.SKELETONS):
        for number in (seed, seed + 1, seed + 2):
            prompt = chain(skeleton, seed, style(number, Random(seed), rephrased=rephrased))
            assert chain_of(prompt) == skeleton, prompt


def test_so_is_one_that_mixes_the_wordings():
    for seed, skeleton in enumerate(chains.SKELETONS):
        prompt = chain(skeleton, seed, Voice(Random(seed), NAMES, OBJECTS, None))
        assert chain_of(prompt) == skeleton, prompt


def test_what_reads_as_a_chain_and_as_another_problem_has_the_same_operations():
    signs = {"more": "+", "fewer": "-", "times": "*"}
    both = [(found, row["skeleton"]) for row in ROWS if (found := chain_of(row["prompt"]))]
    assert {family.partition("/")[0] for _, family in both} == {"story", "comparison"}
    for found, skeleton in both:
        name = skeleton.partition("/")[2]
        assert found.partition("/")[2] == signs.get(name, name)


@pytest.mark.parametrize(
    "prompt",
    [
        "Tom has 12 cups. How many cups are left?",
        "Tom has 12 cups. " + "Tom finds 2 other cups. " * 5 + "How many cups are left?",
        "Tom has 12 cups. Tom finds 2 other cups. How many cups are left? How many cups are left?",
        "Tom has 12 cups. Tom has 12 cups. Tom finds 2 other cups. How many cups are left?",
        "Tom has 12 cups. Tom finds 2 other cups. Find the number of Tom.",
        "Tom has 12 cups. Ann beats Tom by 5. How many cups are left?",
        "Tom has 12 cups. Ann beats Tom by 5. Ann finds 2 other cups. Find the number of Ann.",
        "Tom has 12 cups. Ann beats Tom by five. Find the number of Ann.",
        "Tom finds 2 other cups. How many cups are left?",
        "Tom has 12 cups. Tom finds 2 other cups.",
    ],
)
def test_sentences_in_another_order_are_no_chain(prompt):
    assert chain_of(prompt) is None


def test_no_sentence_of_a_chain_is_of_two_kinds():
    slots = {"who": "Tom", "other": "Ann", "a": 12, "b": 3, "things": "cups"}
    spoken = [chains.HAVE, chains.HOW_MANY, chains.LAST_HAS, *chains.EVENTS.values(), *chains.TOLD.values()]
    for kinds in recognition._kinds_of_sentences().values():
        for sentence in [wording.format(**slots) for wordings in spoken for wording in wordings]:
            assert sum(bool(known.fullmatch(sentence)) for known in kinds.values()) <= 1, sentence


def test_a_new_wording_of_a_chain_needs_no_code(monkeypatch):
    monkeypatch.setattr(recognition, "_kinds_of_sentences", recognition._kinds_of_sentences.__wrapped__)
    monkeypatch.setitem(chains.TOLD, "+", ("Hurrah, {other} has {b} {things} (or so) on top of {who}!",))
    prompt = "Tom has 12 cups. Hurrah, Ann has 2 cups (or so) on top of Tom! Find the number of Ann."
    assert chain_of(prompt) is None  # a sentence ends in a full stop or a question mark
    monkeypatch.setitem(chains.TOLD, "+", ("Hurrah, {other} has {b} {things} (or so) on top of {who}.",))
    assert chain_of(prompt.replace("!", ".")) == "people/+"
