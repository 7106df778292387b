"""Deductions: a fact and a chain of rules, and a hypothesis that follows from them, is refuted by them, or neither.

The twin of `chains` for natural language inference. What is known at any point is one state: of a person and a trait,
whether the person has it. A rule takes one such state into the next, so a skeleton is a family, the polarity of the fact
and a letter for each rule: `claims/+an` says that x is t, that every t person is u, and that no u person is v. Only
chains in which every rule applies are skeletons. `claims` speaks of traits; `places`, in other sentences, of visits.

Of a neutral problem exactly one polarity is turned: the fact, or what a rule makes of it, is the opposite, so that the
next rule says nothing of it. All the rest is as in a problem that is settled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, product
from random import Random
from typing import Any

from .chains import CLOSING
from .families import LABELS, TRAITS, Voice
from .favourites import ranked
from .styles import Style


# What a rule makes of a polarity; it says nothing about the one that is missing.
RULES: dict[str, dict[str, str]] = {
    "a": {"+": "+"},  # all t are u
    "n": {"+": "-"},  # no t is u
    "o": {"-": "-"},  # only t are u
    "u": {"-": "+"},  # all are u unless they are t
    "i": {"+": "+"},  # if x is t, x is u
    "r": {"-": "+"},  # x is t or u
    "b": {"+": "-"},  # x is not both t and u
    "s": {"+": "+", "-": "-"},  # y and x are the same in t
    "d": {"+": "-", "-": "+"},  # y and x differ in t
}
TURNED = {"a": "n", "n": "a", "i": "b", "b": "i", "o": "u", "u": "o", "r": "o", "s": "d", "d": "s"}
"""A rule that makes the opposite of the same polarity."""
OPPOSITE = {"+": "-", "-": "+"}
TO_ANOTHER = frozenset("sd")
NOTHING = "Nothing follows."
MOST_STEPS = 4
PEOPLE, WORDS = MOST_STEPS + 1, MOST_STEPS + 2
WORDS_OF_A_STYLE = 8
SETTLED = tuple(label for label in LABELS if label != "neutral")
State = tuple[int, int, str]
"""Number of a person, number of a trait, polarity."""


@dataclass(frozen=True)
class Family:
    """What a family speaks of, and how; of each list of wordings the last two are kept back: see `styles`."""

    words: tuple[str, ...]
    state: dict[str, str]
    says: dict[str, tuple[str, ...]]
    rules: dict[str, tuple[str, ...]]


CLAIMS = Family(
    words=(*TRAITS, *"tall young honest funny busy polite tidy healthy musical lucky patient curious".split()),
    state={"+": "{x} is {t}", "-": "{x} is not {t}"},
    says={
        "+": (
            "{x} is {t}.",
            "It is true that {x} is {t}.",
            "It is a fact that {x} is {t}.",
            "Certainly {x} is {t}.",
            "{x} is indeed {t}.",
            "To be sure, {x} is {t}.",
        ),
        "-": (
            "{x} is not {t}.",
            "It is not true that {x} is {t}.",
            "It is false that {x} is {t}.",
            "Certainly {x} is not {t}.",
            "{x} is in no way {t}.",
            "To be sure, {x} is not {t}.",
        ),
    },
    rules={
        "a": (
            "Every {t} person is {u}.",
            "All {t} people are {u}.",
            "Everyone who is {t} is {u}.",
            "Whoever is {t} is also {u}.",
            "Each person who is {t} is {u}.",
            "If a person is {t}, that person is {u}.",
        ),
        "n": (
            "No {t} person is {u}.",
            "Nobody who is {t} is {u}.",
            "Whoever is {t} is never {u}.",
            "No one is both {t} and {u}.",
            "There is no {t} person who is {u}.",
            "Nobody is {t} and {u} at the same time.",
        ),
        "o": (
            "Only {t} people are {u}.",
            "Only those who are {t} are {u}.",
            "Nobody is {u} without being {t}.",
            "Whoever is not {t} is not {u}.",
            "To be {u}, a person must be {t}.",
            "A person is {u} only if that person is {t}.",
        ),
        "u": (
            "Everyone who is not {t} is {u}.",
            "All people who are not {t} are {u}.",
            "Whoever is not {t} is {u}.",
            "Everybody is {t} or {u}, or both.",
            "Each person who is not {t} is {u}.",
            "If a person is not {t}, that person is {u}.",
        ),
        "i": (
            "If {x} is {t}, then {x} is {u}.",
            "{x} is {u} if {x} is {t}.",
            "{x} is not {t} without being {u}.",
            "Whenever {x} is {t}, {x} is {u}.",
            "Assuming that {x} is {t}, {x} is {u}.",
            "Provided that {x} is {t}, {x} is {u}.",
        ),
        "r": (
            "{x} is {t} or {u}.",
            "{x} is {t} or {u}, or both.",
            "If {x} is not {t}, then {x} is {u}.",
            "{x} is {t}, or else {x} is {u}.",
            "{x} is at least one of {t} and {u}.",
            "Assuming that {x} is not {t}, {x} is {u}.",
        ),
        "b": (
            "{x} is not both {t} and {u}.",
            "{x} cannot be both {t} and {u}.",
            "If {x} is {t}, then {x} is not {u}.",
            "{x} is never {t} and {u} at once.",
            "{x} is at most one of {t} and {u}.",
            "Assuming that {x} is {t}, {x} is not {u}.",
        ),
        "s": (
            "{y} is {t} exactly if {x} is.",
            "{y} is {t} if and only if {x} is.",
            "{x} and {y} are both {t} or both not {t}.",
            "Either both {x} and {y} are {t}, or neither is.",
            "{y} and {x} are alike: both are {t} or neither is.",
            "If one of {x} and {y} is {t}, so is the other.",
        ),
        "d": (
            "{y} and {x} differ: just one of them is {t}.",
            "Exactly one of {x} and {y} is {t}.",
            "Either {x} or {y} is {t}, but not both.",
            "{y} is {t} exactly if {x} is not.",
            "One of {x} and {y} is {t}, and the other is not.",
            "There is one {t} person among {x} and {y}, not two.",
        ),
    },
)

PLACES = Family(
    words=tuple(
        "Rome Oslo Cairo Lima Tokyo Dublin Madrid Prague Athens Boston Delhi Havana Lisbon Moscow "
        "Berlin Munich Geneva Warsaw Seoul London".split()
    ),
    state={"+": "{x} has been to {t}", "-": "{x} has not been to {t}"},
    says={
        "+": (
            "{x} has been to {t}.",
            "{x} went to {t} once.",
            "{x} has visited {t}.",
            "{t} has been visited by {x}.",
        ),
        "-": (
            "{x} has never been to {t}.",
            "{x} never went to {t}.",
            "{x} has not visited {t}.",
            "{t} has not been visited by {x}.",
        ),
    },
    rules={
        "a": (
            "All visitors of {t} have been to {u}.",
            "The people who went to {t} have all been to {u}.",
            "All who have visited {t} have visited {u}.",
            "{t} has been visited by nobody who has not visited {u}.",
        ),
        "n": (
            "None of the visitors of {t} has been to {u}.",
            "The people who went to {t} have never been to {u}.",
            "Not a single person has visited both {t} and {u}.",
            "{t} has been visited by nobody who has visited {u}.",
        ),
        "o": (
            "Those who have never been to {t} have never been to {u}.",
            "Nobody ever went to {u} without going to {t}.",
            "Only visitors of {t} have visited {u}.",
            "{u} has been visited only by people who have visited {t}.",
        ),
        "u": (
            "Those who have never been to {t} have all been to {u}.",
            "The people who never went to {t} all went to {u}.",
            "All who have not visited {t} have visited {u}.",
            "{u} has been visited by everybody who has not visited {t}.",
        ),
        "i": (
            "If {x} went to {t}, {x} went to {u} as well.",
            "{x} has been to {u} in case {x} has been to {t}.",
            "{x} has not visited {t} without having visited {u}.",
            "Supposing that {x} has visited {t}, {x} has visited {u}.",
        ),
        "r": (
            "{x} has been to {t} or to {u} or to both.",
            "{x} went to at least one of {t} and {u}.",
            "Supposing that {x} has not visited {t}, {x} has visited {u}.",
            "One or both of {t} and {u} have been visited by {x}.",
        ),
        "b": (
            "{x} has not been to both {t} and {u}.",
            "{x} went to at most one of {t} and {u}.",
            "Supposing that {x} has visited {t}, {x} has not visited {u}.",
            "No more than one of {t} and {u} has been visited by {x}.",
        ),
        "s": (
            "{x} and {y} have both been to {t}, or neither has.",
            "Both of {x} and {y} went to {t} or neither of them.",
            "Supposing that one of {x} and {y} has visited {t}, both have.",
            "{t} has been visited by both {x} and {y} or by neither.",
        ),
        "d": (
            "{x} or {y} has been to {t}, but not both.",
            "Just one of {x} and {y} went to {t}.",
            "Of {x} and {y}, only one has visited {t}.",
            "{t} has been visited by one of {x} and {y}, not by both.",
        ),
    },
)
FAMILIES = {"claims": CLAIMS, "places": PLACES}


def skeletons(family: str, steps: int) -> tuple[str, ...]:
    """All chains of so many rules in which every rule applies to what the one before it yields.

    Example:
        >>> skeletons("claims", 1)[:6], len(skeletons("claims", 2))
        (('claims/+a', 'claims/+n', 'claims/+i', 'claims/+b', 'claims/+s', 'claims/+d'), 61)
    """
    chains = product("+-", product(RULES, repeat=steps))
    return tuple(f"{family}/{start}{''.join(codes)}" for start, codes in chains if _fits(start, codes))


def pose(skeleton: str, draw: Random, voice: Voice) -> dict[str, Any]:
    """One problem of a skeleton, with its solution.

    Args:
        skeleton: One of `skeletons`, of one to four steps.
        draw: Draws the label, and which polarity of a neutral problem is turned.
        voice: Draws five names and six traits or places, and knows the wordings.

    Returns:
        The strings `prompt`, `premise`, `hypothesis`, `label`, `answer` (the label), `completion` (the fact, what each
        rule makes of it until nothing follows, and the hypothesis, all in the same plain words; ends in one
        `\\boxed{answer}`) and `skeleton`.

    Raises:
        ValueError: No such skeleton.

    Example:
        >>> from hf_prism.tasks.styles import style
        >>> problem = pose("claims/+a", Random(0), style(1, Random(0)))
        >>> print(problem["prompt"])
        It is a fact that Jenny is lucky. Whoever is lucky is also honest.
        Hypothesis: It is not true that Jenny is honest.
        >>> problem["label"]
        'contradiction'
    """
    family, start, codes = _read(skeleton)
    ends = [link for link, code in enumerate(codes) if code not in TO_ANOTHER]
    label = draw.choice(LABELS if ends else SETTLED)
    end = draw.choice(ends) if label == "neutral" else len(codes)
    negated = draw.random() < 0.5 if label == "neutral" else label == "contradiction"

    names, words = voice.people(PEOPLE), voice.pick_different(_words(family, voice), WORDS)
    rules, states = _chain(start, codes)
    x, t, polarity = states[-1]
    claimed = (x, t, OPPOSITE[polarity] if negated else polarity)
    if label == "neutral":
        start, codes = _turned(start, codes, end)
        states = _chain(start, codes)[1]
    told = [voice.say(family.says[start], x=names[0], t=words[0])]
    for code, rule in zip(codes, rules, strict=True):
        told.append(voice.say(family.rules[code], **_named(rule, names, words)))
    premise, hypothesis = " ".join(told), voice.say(family.says[claimed[2]], x=names[x], t=words[t])
    *known, claim = (
        family.state[sign].format(x=names[who], t=words[what]) for who, what, sign in (*states[: end + 1], claimed)
    )
    steps = [*(f"{state}." for state in known), *([NOTHING] if label == "neutral" else []), f"Claim: {claim}."]
    return {
        "prompt": f"{premise}\nHypothesis: {hypothesis}",
        "premise": premise,
        "hypothesis": hypothesis,
        "label": label,
        "answer": label,
        "completion": "\n".join([*steps, CLOSING.format(answer=label)]),
        "skeleton": skeleton,
    }


def _chain(start: str, codes: str) -> tuple[list[dict[str, int]], list[State]]:
    """Whom and what every rule speaks of, and the states: of the fact, and after every rule that applies."""
    people, traits = count(1), count(1)
    x, t, polarity = 0, 0, start
    rules, states = [], [(x, t, polarity)]
    for code in codes:
        y, u = (next(people), t) if code in TO_ANOTHER else (x, next(traits))
        rules.append({"x": x, "t": t, "y": y, "u": u})
        x, t, polarity = y, u, RULES[code].get(polarity, "")
        states.append((x, t, polarity))
    return rules, states


def _turned(start: str, codes: str, link: int) -> tuple[str, str]:
    """The fact and the rules, where the one before a link is turned, so that the rule of that link does not apply."""
    if link == 0:
        return OPPOSITE[start], codes
    return start, f"{codes[: link - 1]}{TURNED[codes[link - 1]]}{codes[link:]}"


def _named(rule: dict[str, int], names: Sequence[str], words: Sequence[str]) -> dict[str, str]:
    return {slot: (names if slot in "xy" else words)[number] for slot, number in rule.items()}


def _words(family: Family, voice: Voice) -> tuple[str, ...]:
    """A style knows few of them, as it knows few names."""
    return ranked(voice.taste, family.words)[:WORDS_OF_A_STYLE] if isinstance(voice, Style) else family.words


def _read(skeleton: str) -> tuple[Family, str, str]:
    family, _, chain = skeleton.partition("/")
    start, codes = chain[:1], chain[1:]
    if (
        family not in FAMILIES
        or start not in ("+", "-")
        or not 1 <= len(codes) <= MOST_STEPS
        or not _fits(start, codes)
    ):
        raise ValueError(
            f"deductions: {skeleton!r} is no skeleton; write claims/ or places/, + or -, and one to {MOST_STEPS} rules "
            f"of {''.join(RULES)}, each of which applies to the polarity before it, as in claims/+an"
        )
    return FAMILIES[family], start, codes


def _fits(polarity: str, codes: Sequence[str]) -> bool:
    for code in codes:
        after = RULES.get(code, {}).get(polarity)
        if after is None:
            return False
        polarity = after
    return True
