"""Deductions: a reader of the text and a table of all possible worlds give the label, for every kind of chain."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from itertools import count
from random import Random

import numpy as np
import pytest
from scipy.stats import chisquare

from hf_prism.tasks.deductions import FAMILIES, NOTHING, TO_ANOTHER, WORDS_OF_A_STYLE, pose, skeletons
from hf_prism.tasks.families import LABELS, Voice
from hf_prism.tasks.lexicon import NAMES, OBJECTS
from hf_prism.tasks.styles import style


# What sentences mean, read here. A sentence speaks of one person X, of X and Y, or of everybody, and of A and maybe B;
# its meaning is a condition on who is what.
X, Y, A, B = "(?P<x>[A-Z][a-z]+)", "(?P<y>[A-Z][a-z]+)", "(?P<a>[A-Za-z]+)", "(?P<b>[A-Za-z]+)"
YES = {
    f"{X} is {A}",
    f"It is true that {X} is {A}",
    f"It is a fact that {X} is {A}",
    f"Certainly {X} is {A}",
    f"{X} is indeed {A}",
    f"To be sure, {X} is {A}",
    f"{X} has been to {A}",
    f"{X} went to {A} once",
    f"{X} has visited {A}",
    f"{A} has been visited by {X}",
}
NOT = {
    f"{X} is not {A}",
    f"It is not true that {X} is {A}",
    f"It is false that {X} is {A}",
    f"Certainly {X} is not {A}",
    f"{X} is in no way {A}",
    f"To be sure, {X} is not {A}",
    f"{X} has never been to {A}",
    f"{X} has not been to {A}",
    f"{X} never went to {A}",
    f"{X} has not visited {A}",
    f"{A} has not been visited by {X}",
}
EVERYBODY_A_IS_B = {
    f"(Every|Each) {A} person is {B}",
    f"All {A} people are {B}",
    f"(Everyone|Each person) who is {A} is {B}",
    f"Whoever is {A} is also {B}",
    f"If a person is {A}, that person is {B}",
    f"All visitors of {A} have been to {B}",
    f"The people who went to {A} have all been to {B}",
    f"All who have visited {A} have visited {B}",
    f"{A} has been visited by nobody who has not visited {B}",
    f"Only {B} people are {A}",
    f"Only those who are {B} are {A}",
    f"Nobody is {A} without being {B}",
    f"Whoever is not {B} is not {A}",
    f"To be {A}, a person must be {B}",
    f"A person is {A} only if that person is {B}",
    f"Those who have never been to {B} have never been to {A}",
    f"Nobody ever went to {A} without going to {B}",
    f"Only visitors of {B} have visited {A}",
    f"{A} has been visited only by people who have visited {B}",
}
NOBODY_IS_A_AND_B = {
    f"No {A} person is {B}",
    f"Nobody who is {A} is {B}",
    f"Whoever is {A} is never {B}",
    f"No one is both {A} and {B}",
    f"There is no {A} person who is {B}",
    f"Nobody is {A} and {B} at the same time",
    f"None of the visitors of {A} has been to {B}",
    f"The people who went to {A} have never been to {B}",
    f"Not a single person has visited both {A} and {B}",
    f"{A} has been visited by nobody who has visited {B}",
}
EVERYBODY_IS_A_OR_B = {
    f"(Everyone|Each person) who is not {A} is {B}",
    f"All people who are not {A} are {B}",
    f"Whoever is not {A} is {B}",
    f"Everybody is {A} or {B}, or both",
    f"If a person is not {A}, that person is {B}",
    f"Those who have never been to {A} have all been to {B}",
    f"The people who never went to {A} all went to {B}",
    f"All who have not visited {A} have visited {B}",
    f"{B} has been visited by everybody who has not visited {A}",
}
IF_X_A_THEN_B = {
    f"If {X} is {A}, then (?P=x) is {B}",
    f"{X} is {B} if (?P=x) is {A}",
    f"{X} is not {A} without being {B}",
    f"Whenever {X} is {A}, (?P=x) is {B}",
    f"(Assuming|Provided) that {X} is {A}, (?P=x) is {B}",
    f"If {X} went to {A}, (?P=x) went to {B} as well",
    f"{X} has been to {B} in case (?P=x) has been to {A}",
    f"{X} has not visited {A} without having visited {B}",
    f"Supposing that {X} has visited {A}, (?P=x) has visited {B}",
}
X_IS_A_OR_B = {
    f"{X} is {A} or {B}",
    f"{X} is {A} or {B}, or both",
    f"If {X} is not {A}, then (?P=x) is {B}",
    f"{X} is {A}, or else (?P=x) is {B}",
    f"{X} is at least one of {A} and {B}",
    f"Assuming that {X} is not {A}, (?P=x) is {B}",
    f"{X} has been to {A} or to {B} or to both",
    f"{X} went to at least one of {A} and {B}",
    f"Supposing that {X} has not visited {A}, (?P=x) has visited {B}",
    f"One or both of {A} and {B} have been visited by {X}",
}
X_IS_NOT_A_AND_B = {
    f"{X} (is not|cannot be) both {A} and {B}",
    f"If {X} is {A}, then (?P=x) is not {B}",
    f"{X} is never {A} and {B} at once",
    f"{X} is at most one of {A} and {B}",
    f"Assuming that {X} is {A}, (?P=x) is not {B}",
    f"{X} has not been to both {A} and {B}",
    f"{X} went to at most one of {A} and {B}",
    f"Supposing that {X} has visited {A}, (?P=x) has not visited {B}",
    f"No more than one of {A} and {B} has been visited by {X}",
}
X_AND_Y_ALIKE = {
    f"{X} is {A} (exactly if|if and only if) {Y} is",
    f"{X} and {Y} are both {A} or both not (?P=a)",
    f"Either both {X} and {Y} are {A}, or neither is",
    f"{X} and {Y} are alike: both are {A} or neither is",
    f"If one of {X} and {Y} is {A}, so is the other",
    f"{X} and {Y} have both been to {A}, or neither has",
    f"Both of {X} and {Y} went to {A} or neither of them",
    f"Supposing that one of {X} and {Y} has visited {A}, both have",
    f"{A} has been visited by both {X} and {Y} or by neither",
}
X_AND_Y_DIFFER = {
    f"{X} and {Y} differ: just one of them is {A}",
    f"Exactly one of {X} and {Y} is {A}",
    f"Either {X} or {Y} is {A}, but not both",
    f"{X} is {A} exactly if {Y} is not",
    f"One of {X} and {Y} is {A}, and the other is not",
    f"There is one {A} person among {X} and {Y}, not two",
    f"{X} or {Y} has been to {A}, but not both",
    f"Just one of {X} and {Y} went to {A}",
    f"Of {X} and {Y}, only one has visited {A}",
    f"{A} has been visited by one of {X} and {Y}, not by both",
}
MEANINGS = {
    "yes": YES,
    "not": NOT,
    "all: a -> b": EVERYBODY_A_IS_B,
    "all: not (a and b)": NOBODY_IS_A_AND_B,
    "all: a or b": EVERYBODY_IS_A_OR_B,
    "a -> b": IF_X_A_THEN_B,
    "a or b": X_IS_A_OR_B,
    "not (a and b)": X_IS_NOT_A_AND_B,
    "alike": X_AND_Y_ALIKE,
    "differ": X_AND_Y_DIFFER,
}
PATTERNS = [(re.compile(pattern), kind) for kind, patterns in MEANINGS.items() for pattern in sorted(patterns)]
LAWS = {
    "yes": lambda a: a,
    "not": lambda a: ~a,
    "a -> b": lambda a, b: ~a | b,
    "not (a and b)": lambda a, b: ~(a & b),
    "a or b": lambda a, b: a | b,
    "alike": lambda a, b: a == b,
    "differ": lambda a, b: a != b,
}
# Of the codes of rules, in the same words.
CODES = {
    "a": "all: a -> b",
    "n": "all: not (a and b)",
    "o": "all: a -> b",
    "u": "all: a or b",
    "i": "a -> b",
    "r": "a or b",
    "b": "not (a and b)",
    "s": "alike",
    "d": "differ",
}
KNOWN = {word for family in FAMILIES.values() for word in family.words}


@cache
def read(sentence: str) -> tuple[str, dict[str, str]]:
    """The one meaning of a sentence."""
    found = []
    for pattern, kind in PATTERNS:
        match = pattern.fullmatch(sentence.removesuffix("."))
        slots = {slot: word for slot, word in match.groupdict().items() if word} if match else {}
        if slots and all(word in (NAMES if slot in "xy" else KNOWN) for slot, word in slots.items()):
            found.append((kind, slots))
    assert len(found) == 1, (sentence, found)
    return found[0]


def masked(sentence: str) -> str:
    return re.sub(rf"\b({'|'.join(read(sentence)[1].values())})\b", "_", sentence)


def sentences(text: str) -> list[str]:
    return re.findall(r"[^.]+\.", text.replace(". ", "."))


@cache
def worlds(atoms: int) -> np.ndarray:
    """(atoms, 2**atoms): the truth of each in every world."""
    return (np.arange(2**atoms) >> np.arange(atoms)[:, None] & 1).astype(bool)


def truth(*texts: str) -> list[np.ndarray]:
    """In which worlds each text holds; an atom is what one person is or is not."""
    meanings = [[read(sentence) for sentence in sentences(text)] for text in texts]
    slots = [slot for text in meanings for _, each in text for slot in each.items()]
    people = sorted({word for slot, word in slots if slot in "xy"})
    traits = sorted({word for slot, word in slots if slot in "ab"})
    table = worlds(len(people) * len(traits))

    def of(who: str, what: str) -> np.ndarray:
        return table[people.index(who) * len(traits) + traits.index(what)]

    def holds(kind: str, x: str = "", y: str = "", a: str = "", b: str = "") -> np.ndarray:
        law = kind.removeprefix("all: ")
        if kind.startswith("all: "):
            return np.logical_and.reduce([LAWS[law](of(who, a), of(who, b)) for who in people])
        second = [of(y, a)] if y else [of(x, b)] if b else []
        return LAWS[law](of(x, a), *second)

    return [np.logical_and.reduce([holds(kind, **each) for kind, each in text]) for text in meanings]


def label_of(premise: str, hypothesis: str) -> str:
    """By all worlds in which the premise holds; there must be some."""
    possible, claimed = truth(premise, hypothesis)
    assert possible.any(), premise
    held = set(claimed[possible].tolist())
    return "neutral" if len(held) == 2 else "entailment" if held == {True} else "contradiction"


def any_voice(seed: int) -> Voice:
    """Whatever is known, kept back or not."""
    return Voice(Random(seed), NAMES, OBJECTS, None)


def all_skeletons(family: str, *steps: int) -> list[str]:
    return [skeleton for each in steps for skeleton in skeletons(family, each)]


def problems(family: str, draws: int, *, longest: int = 3) -> list[dict]:
    """Of every skeleton, and of some with four steps; every draw in a voice of its own."""
    chosen = all_skeletons(family, *range(1, longest + 1)) + list(skeletons(family, 4)[::25])
    return [
        pose(skeleton, Random(f"{skeleton}/{draw}"), any_voice(number * draws + draw))
        for number, skeleton in enumerate(chosen)
        for draw in range(draws)
    ]


POSED = {family: problems(family, 5) for family in FAMILIES}


def pattern_of(problem: dict) -> list[tuple]:
    """What a problem says, with people and words numbered as they come up."""
    numbers: dict[str, int] = {}
    fresh = count()
    told = []
    for sentence in sentences(f"{problem['premise']} {problem['hypothesis']}"):
        kind, slots = read(sentence)
        if kind in ("alike", "differ", "not (a and b)", "all: not (a and b)"):  # order means nothing
            a_b = sorted({slots[slot] for slot in slots if slot in "ab"}, key=lambda word: numbers.get(word, 99))
            x_y = sorted({slots[slot] for slot in slots if slot in "xy"}, key=lambda word: numbers.get(word, 99))
            ordered = a_b + x_y
        else:
            ordered = [slots[slot] for slot in sorted(slots)]
        told.append((kind, *(numbers.setdefault(word, next(fresh)) for word in ordered)))
    return told


# -- labels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_the_label_is_that_of_all_possible_worlds(family):
    for problem in POSED[family]:
        assert label_of(problem["premise"], problem["hypothesis"]) == problem["label"], problem
    assert {problem["label"] for problem in POSED[family]} == set(LABELS)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_sentence_is_needed(family):
    """A settled problem without one of its sentences is settled no more."""
    for problem in POSED[family][::3]:
        if problem["label"] != "neutral":
            told = sentences(problem["premise"])
            for left_out in range(len(told)):
                rest = " ".join(told[:left_out] + told[left_out + 1 :])
                assert label_of(rest, problem["hypothesis"]) == "neutral", problem


def kinds_of(problem: dict) -> list[str]:
    return [read(sentence)[0] for sentence in sentences(problem["premise"])]


def kinds_named(skeleton: str) -> list[str]:
    start, *codes = skeleton.partition("/")[2]
    return [{"+": "yes", "-": "not"}[start], *(CODES[code] for code in codes)]


@pytest.mark.parametrize("family", FAMILIES)
def test_one_sentence_of_a_neutral_premise_is_turned_and_none_of_another(family):
    """The solution goes as far as that sentence, and says that nothing follows."""
    for problem in POSED[family]:
        pairs = enumerate(zip(kinds_of(problem), kinds_named(problem["skeleton"]), strict=True))
        turned = [position for position, (said, named) in pairs if said != named]
        assert len(turned) == (problem["label"] == "neutral"), problem
        lines = problem["completion"].split("\n")
        assert [line for line in lines if line == NOTHING] == ([NOTHING] if turned else [])
        if turned:
            assert lines.index(NOTHING) == turned[0] + 1, problem


def test_a_chain_of_rules_that_always_apply_is_never_neutral():
    codes = {"claims/+s", "claims/-sd", "places/+dds"}
    labels = {pose(each, Random(seed), any_voice(seed))["label"] for each in codes for seed in range(60)}
    assert labels == set(LABELS) - {"neutral"}
    every = [each for each in skeletons("claims", 2) if not set(each[-2:]) <= TO_ANOTHER]
    assert all("neutral" in {pose(each, Random(s), any_voice(s))["label"] for s in range(60)} for each in every)


def test_labels_come_alike_often_and_so_do_the_rules_that_do_not_apply():
    posed = [pose("claims/+ia", Random(seed), style(0, Random(0))) for seed in range(3000)]
    labels = Counter(problem["label"] for problem in posed)
    broken = Counter(problem["completion"].count("\n") for problem in posed if problem["label"] == "neutral")
    assert set(labels) == set(LABELS) and chisquare(list(labels.values())).pvalue > 0.001
    assert set(broken) == {3, 4} and chisquare(list(broken.values())).pvalue > 0.001


def test_a_neutral_hypothesis_is_negated_as_often_as_not():
    posed = [pose("places/-u", Random(seed), style(0, Random(0))) for seed in range(1500)]
    kinds = Counter(read(problem["hypothesis"])[0] for problem in posed if problem["label"] == "neutral")
    assert chisquare([kinds["yes"], kinds["not"]]).pvalue > 0.001


# -- skeletons --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_skeletons_are_the_chains_whose_polarities_fit(steps):
    """Counted by hand: from + go three rules to + and three to -, from - three to + and two to -."""
    moves = np.array([[3, 3], [3, 2]])
    for family in FAMILIES:
        known = skeletons(family, steps)
        assert len(known) == len(set(known)) == np.linalg.matrix_power(moves, steps).sum()
        assert all(pose(skeleton, Random(0), any_voice(0))["skeleton"] == skeleton for skeleton in known)


def test_no_two_skeletons_pose_the_same_chain():
    """Every entailment tells its skeleton: `all t are u` and `only u are t` by what is known of t."""
    seen = {
        problem["skeleton"]: tuple(pattern_of(problem)) for problem in POSED["claims"] if problem["label"] == LABELS[0]
    }
    assert len(set(seen.values())) == len(seen)


@pytest.mark.parametrize(
    "wrong", ["claims/+", "claims/a", "claims/+o", "claims/-a", "claims/+nn", "other/+a", "claims/+z"]
)
def test_what_is_no_skeleton_is_named(wrong):
    with pytest.raises(ValueError, match=re.escape(repr(wrong))):
        pose(wrong, Random(0), any_voice(0))


# -- solutions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_every_step_of_a_solution_follows_and_the_last_one_settles_the_claim(family):
    for problem in POSED[family]:
        *lines, asked, last = problem["completion"].split("\n")
        assert re.findall(r"\\boxed{(\w+)}", problem["completion"]) == [problem["answer"]] == [problem["label"]]
        assert problem["answer"] in last
        steps, claim = [line for line in lines if line != NOTHING], asked.removeprefix("Claim: ")
        assert read(claim) == read(problem["hypothesis"])
        assert label_of(steps[-1], claim) == problem["label"], problem
        for step in steps:
            assert label_of(problem["premise"], step) == "entailment", problem
        assert len(set(steps)) == len(steps)
        assert problem["label"] == "neutral" or len(steps) == len(problem["skeleton"].partition("/")[2])


# -- the surface ------------------------------------------------------------------------------------------------------


def test_what_is_drawn_does_not_depend_on_the_voice():
    for skeleton in skeletons("claims", 3)[::9]:
        for draw in range(4):
            posed = [pose(skeleton, Random(draw), any_voice(seed)) for seed in range(3)]
            posed += [pose(skeleton, Random(draw), style(seed, Random(seed), rephrased=seed > 1)) for seed in range(4)]
            assert len({problem["label"] for problem in posed}) == 1
            assert len({str(pattern_of(problem)) for problem in posed}) == 1, posed


@pytest.mark.parametrize("family", FAMILIES)
def test_words_do_not_depend_on_the_draw(family):
    """The settled problems of a voice have one premise, whatever is drawn, and the fact is the same in all."""
    for skeleton in skeletons(family, 3)[::9]:
        posed = [pose(skeleton, Random(draw), any_voice(5)) for draw in range(12)]
        assert len({problem["premise"] for problem in posed if problem["label"] != "neutral"}) <= 1
        facts = [read(sentences(problem["premise"])[0])[1] for problem in posed]
        assert all(fact == facts[0] for fact in facts)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_style_has_one_wording_and_few_words(family):
    said: dict[str, set[str]] = {}
    words, names = set(), set()
    for number, skeleton in enumerate(all_skeletons(family, 2, 3)):
        problem = pose(skeleton, Random(number), style(3, Random(number)))
        if problem["label"] == "neutral":
            continue
        for sentence, code in zip(sentences(problem["premise"]), skeleton.partition("/")[2], strict=True):
            slots = read(sentence)[1]
            names |= {word for slot, word in slots.items() if slot in "xy"}
            words |= {word for slot, word in slots.items() if slot in "ab"}
            said.setdefault(code, set()).add(masked(sentence))
    assert {code: len(each) for code, each in said.items()} == dict.fromkeys(CODES | {"+": "", "-": ""}, 1)
    assert len(words) == WORDS_OF_A_STYLE and len(names) == 5


@pytest.mark.parametrize("family", FAMILIES)
def test_no_rephrased_sentence_is_one_of_a_style(family):
    """Also where names and words change places, and where another rule is said."""
    forms: dict[bool, set[str]] = {True: set(), False: set()}
    for rephrased in forms:
        for number, skeleton in enumerate(all_skeletons(family, 2) * 12):
            problem = pose(skeleton, Random(number), style(number // 9, Random(number), rephrased=rephrased))
            for sentence in sentences(f"{problem['premise']} {problem['hypothesis']}"):
                forms[rephrased].add(masked(sentence))
    wordings = [each for lists in (FAMILIES[family].says, FAMILIES[family].rules) for each in lists.values()]
    assert len(forms[True]) == 2 * len(wordings)
    assert len(forms[False]) == sum(len(each) - 2 for each in wordings)
    assert not forms[True] & forms[False]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_wording_is_read(family):
    known = {
        re.sub("{.}", "_", wording)
        for lists in (FAMILIES[family].says, FAMILIES[family].rules)
        for each in lists.values()
        for wording in each
    }
    read_here = {
        masked(sentence)
        for problem in POSED[family]
        for sentence in sentences(f"{problem['premise']} {problem['hypothesis']}")
    }
    assert read_here == known


def test_names_traits_and_places_are_different_words():
    words = [word for family in FAMILIES.values() for word in family.words]
    assert len(words) == len(set(words)) and not set(words) & set(NAMES)


def test_a_problem_of_three_steps_is_short():
    lengths = [len(pose(skeleton, Random(0), any_voice(0))["prompt"].split()) for skeleton in skeletons("claims", 3)]
    assert np.mean(lengths) < 45 and max(lengths) <= 60
