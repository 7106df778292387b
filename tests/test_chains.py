"""Chains of arithmetic: a reader of the text finds the skeleton, the numbers and the answer, in every wording."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from random import Random

import pytest

from hf_prism.tasks import chains
from hf_prism.tasks.chains import FAMILIES, LARGEST, pose, skeletons
from hf_prism.tasks.families import Voice
from hf_prism.tasks.lexicon import NAMES, OBJECTS
from hf_prism.tasks.styles import KEPT_BACK, style


# What sentences mean, read here.
W, V, N, T = "(?P<w>[A-Z][a-z]+)", "(?P<v>[A-Z][a-z]+)", "(?P<n>[0-9]+)", "(?P<t>[a-z]+)"
START = {
    f"{W} has {N} {T}",
    f"At first {W} has {N} {T}",
    f"{W} starts with {N} {T}",
    f"In the morning {W} counts {N} {T}",
    f"There are {N} {T} in the house of {W}",
    f"To begin with, {W} owns {N} {T}",
}
EVENTS = {
    "+": {
        f"{W} buys {N} more",
        f"Then {W} gets {N} new {T}",
        f"{W} finds {N} other {T}",
        f"A friend gives {W} {N} more",
        f"Another {N} {T} arrive",
        f"{W} takes {N} extra {T}",
    },
    "-": {
        f"{W} loses {N} of them",
        f"Then {W} sells {N} {T}",
        f"{W} gives {N} {T} away",
        f"Later {N} of the {T} break",
        f"Somebody takes {N} {T} from {W}",
        f"{W} throws {N} of them out",
    },
    "*": {
        f"A fairy makes them {N} times as many",
        f"Then the {T} become {N} times as many",
        f"{W} multiplies them by {N}",
        f"Magic turns each of them into {N}",
        f"Every one of the {T} becomes {N}",
        f"Soon there are {N} times as many {T}",
    },
    "/": {
        f"{W} keeps one part of {N} equal parts",
        f"Then they are divided by {N}",
        f"{W} shares them among {N} and keeps one share",
        f"Only one out of every {N} stays",
        f"{W} splits them into {N} equal piles and takes one",
        f"Of every {N} {T} one is left",
    },
}
END = {
    f"How many {T} are left",
    f"How many {T} does {W} have now",
    f"Find the final number of {T}",
    "How many are there in the end",
    f"What is the number of {T} at last",
    f"Count the {T} of {W} now",
}
# Of W, through V.
TOLD = {
    "+": {
        f"{W} has {N} more than {V}",
        f"{W} owns {N} {T} more than {V}",
        f"{W} beats {V} by {N}",
        f"Add {N} to those of {V} for {W}",
    },
    "-": {
        f"{W} has {N} fewer than {V}",
        f"{W} owns {N} {T} fewer than {V}",
        f"{W} is {N} behind {V}",
        f"Take {N} from those of {V} for {W}",
    },
    "*": {
        f"{W} has {N} times as many as {V}",
        f"{W} owns {N} times the {T} of {V}",
        f"{W} has the number of {V} {N} times",
        f"Multiply those of {V} by {N} for {W}",
    },
    "/": {
        f"{W} has one of {N} equal parts of what {V} has",
        f"{W} owns what {V} has, divided by {N}",
        f"{W} has the number of {V} over {N}",
        f"Split those of {V} by {N} for {W}",
    },
}
ASKED = {
    f"How many {T} does {W} have",
    f"Find the number of {W}",
    f"How many {T} has {W}",
    f"What is the number of {W}",
}


@dataclass(frozen=True)
class Wording(Voice):
    """Says every sentence in the wording of one number."""

    number: int

    def say(self, wordings, **slots):
        return wordings[self.number % len(wordings)].format(**slots)


def wording(number: int, seed: int = 0) -> Wording:
    return Wording(Random(seed), NAMES, OBJECTS, None, number)


def match(patterns, sentence: str) -> dict[str, str]:
    """The words in the slots of the one pattern that fits."""
    found = [each for pattern in patterns if (each := re.fullmatch(pattern, sentence))]
    assert len(found) == 1, (sentence, found)
    return found[0].groupdict()


def fits(patterns, sentence: str) -> bool:
    return any(re.fullmatch(pattern, sentence) for pattern in patterns)


def apply(sign: str, value: Fraction, number: int) -> Fraction:
    return {"+": value + number, "-": value - number, "*": value * number, "/": value / number}[sign]


def read_events(told: list[str]) -> tuple[str, list[int], Fraction]:
    """The operations, the numbers and the answer."""
    start = match(START, told[0])
    numbers, signs, subjects, things = [int(start["n"])], "", {start["w"]}, {start["t"]}
    value = Fraction(numbers[0])
    for sentence in told[1:-1]:
        (sign,) = (sign for sign in EVENTS if fits(EVENTS[sign], sentence))
        slots = match(EVENTS[sign], sentence)
        signs += sign
        numbers.append(int(slots["n"]))
        value = apply(sign, value, numbers[-1])
        subjects |= {slots["w"]} if "w" in slots else set()
        things |= {slots["t"]} if "t" in slots else set()
    asked = match(END, told[-1])
    assert subjects | {asked.get("w", start["w"])} == {start["w"]}, told
    assert things | {asked.get("t", start["t"])} == {start["t"]}, told
    return signs, numbers, value


def read_people(told: list[str]) -> tuple[str, list[int], Fraction]:
    """The same; every sentence tells of a new person through the one before."""
    start = match(START, told[0])
    numbers, signs, people, value = [int(start["n"])], "", [start["w"]], Fraction(start["n"])
    for sentence in told[1:-1]:
        (sign,) = (sign for sign in TOLD if fits(TOLD[sign], sentence))
        slots = match(TOLD[sign], sentence)
        assert slots["v"] == people[-1] and slots["w"] not in people, told
        assert slots.get("t", start["t"]) == start["t"], told
        people.append(slots["w"])
        signs += sign
        numbers.append(int(slots["n"]))
        value = apply(sign, value, numbers[-1])
    asked = match(ASKED, told[-1])
    assert asked["w"] == people[-1] and asked.get("t", start["t"]) == start["t"], told
    return signs, numbers, value


READERS = {"events": read_events, "people": read_people}


def told_in(prompt: str) -> list[str]:
    return [each.strip() for each in re.split("[.?]", prompt) if each.strip()]


def all_skeletons(family: str, longest: int = 4) -> list[str]:
    return [skeleton for steps in range(1, longest + 1) for skeleton in skeletons(family, steps)]


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("family", FAMILIES)
def test_a_problem_says_what_its_skeleton_says_in_every_wording(family, number):
    for seed, skeleton in enumerate(all_skeletons(family)):
        problem = pose(skeleton, Random(seed), wording(number, seed))
        signs, numbers, value = READERS[family](told_in(problem["prompt"]))
        assert f"{family}/{signs}" == problem["skeleton"] == skeleton, problem
        assert numbers == problem["numbers"]
        assert str(value) == problem["answer"]


@pytest.mark.parametrize("rephrased", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_so_does_a_problem_of_any_style(family, rephrased):
    for seed, skeleton in enumerate(all_skeletons(family)):
        problem = pose(skeleton, Random(seed), style(seed, Random(seed), rephrased=rephrased))
        signs, numbers, value = READERS[family](told_in(problem["prompt"]))
        assert (f"{family}/{signs}", numbers, str(value)) == (skeleton, problem["numbers"], problem["answer"])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_solution_is_a_true_equation_for_every_operation(family):
    for seed, skeleton in enumerate(all_skeletons(family)):
        problem = pose(skeleton, Random(seed), wording(seed))
        *steps, last = problem["completion"].split("\n")
        total = str(problem["numbers"][0])
        for sign, step in zip(skeleton.partition("/")[2], steps, strict=True):
            left, told, right, result = re.findall(r"(\d+) ([-+*/]) (\d+) = (\d+)\.$", step)[0]
            assert (left, told) == (total, sign)
            assert apply(sign, Fraction(left), int(right)) == int(result)
            assert 1 <= int(result) <= LARGEST
            total = result
        assert re.findall(r"\\boxed{(\d+)}", problem["completion"]) == [total] == [problem["answer"]]
        assert f"\\boxed{{{total}}}" in last


def test_numbers_do_not_depend_on_the_voice():
    for skeleton in all_skeletons("events", 3) + all_skeletons("people", 3):
        voices = [wording(1, 1), wording(4, 2), style(0, Random(3)), style(1, Random(4), rephrased=True)]
        posed = [pose(skeleton, Random(9), voice) for voice in voices]
        assert len({tuple(problem["numbers"]) for problem in posed}) == 1


def test_words_do_not_depend_on_the_draw():
    for skeleton in all_skeletons("events", 3) + all_skeletons("people", 3):
        for voice in (lambda: Voice(Random(5), NAMES, OBJECTS, None), lambda: style(2, Random(5))):
            posed = [pose(skeleton, Random(draw), voice()) for draw in range(4)]
            assert len({re.sub("[0-9]+", "_", problem["prompt"] + problem["completion"]) for problem in posed}) == 1
            assert len({tuple(problem["numbers"]) for problem in posed}) > 1


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_skeletons_are_all_chains(steps):
    for family in FAMILIES:
        known = skeletons(family, steps)
        assert len(set(known)) == len(known) == 4**steps
        assert all(re.fullmatch(rf"{family}/[-+*/]{{{steps}}}", skeleton) for skeleton in known)


@pytest.mark.parametrize("wrong", ["events/", "events", "events/+%", "events/+++++", "other/+", ""])
def test_what_is_no_skeleton_is_named(wrong):
    with pytest.raises(ValueError, match=re.escape(repr(wrong))):
        pose(wrong, Random(0), wording(0))


# -- styles -----------------------------------------------------------------------------------------------------------

LISTS = [
    chains.HAVE,
    chains.HOW_MANY,
    chains.LAST_HAS,
    *chains.EVENTS.values(),
    *chains.TOLD.values(),
]
SLOTS = {"who": "Tom", "other": "Ann", "a": 3, "b": 4, "things": "pens"}


@pytest.mark.parametrize("wordings", LISTS, ids=lambda wordings: wordings[0])
def test_styles_say_all_wordings_but_the_last_two_and_rephrased_ones_those(wordings):
    plain = {style(number, Random(0)).say(wordings, **SLOTS) for number in range(60)}
    rephrased = {style(number, Random(0), rephrased=True).say(wordings, **SLOTS) for number in range(60)}
    sentences = [wording.format(**SLOTS) for wording in wordings]
    assert plain == set(sentences[:-KEPT_BACK]) and rephrased == set(sentences[-KEPT_BACK:])
    assert not plain & rephrased


def test_a_style_says_a_sentence_the_same_way_every_time():
    for number in range(20):
        voices = [style(number, Random(seed)) for seed in range(5)]
        for wordings in LISTS:
            assert len({voice.say(wordings, **SLOTS) for voice in voices for _ in range(2)}) == 1


def test_a_style_has_few_names_and_objects_which_its_number_alone_decides():
    prompts = [pose("people/++", Random(seed), style(7, Random(seed)))["prompt"] for seed in range(200)]
    known = style(7, Random(0))
    words = {word for prompt in prompts for word in re.findall(r"\w+", prompt)}
    assert words & set(NAMES) == set(known.names) and words & set(OBJECTS) == set(known.objects)
    rephrased = style(7, Random(1), rephrased=True)
    assert (known.names, known.objects) == (rephrased.names, rephrased.objects)


def test_styles_differ():
    voices = [style(number, Random(0)) for number in range(300)]
    assert len({(voice.names, voice.objects) for voice in voices}) == 300
    assert {name for voice in voices for name in voice.names} == set(NAMES)
    assert {thing for voice in voices for thing in voice.objects} == set(OBJECTS)
