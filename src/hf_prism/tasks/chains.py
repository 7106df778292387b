"""Chains of arithmetic: problems whose reasoning is a string of operations and nothing else, for controlled studies.

A skeleton is a family and the operations in their order. In `events` one person's things come and go: `events/+*-` is
a gain, a multiplication and a loss. In `people` each person is told through the one before, and the last is asked for.
Every chain of one to four of the four operations is a skeleton, so that some can be trained on and others held out.
"""

from __future__ import annotations

from itertools import product
from random import Random
from typing import Any

from .families import Voice


OPERATIONS = "+-*/"
FAMILIES = ("events", "people")
MOST_STEPS = 4
"""A chain of as many people as a style has names."""

LARGEST = 60
MOST_DRAWS = 10_000


def skeletons(family: str, steps: int) -> tuple[str, ...]:
    """All chains of so many operations.

    Example:
        >>> skeletons("events", 1)
        ('events/+', 'events/-', 'events/*', 'events//')
    """
    return tuple(f"{family}/{''.join(signs)}" for signs in product(OPERATIONS, repeat=steps))


SKELETONS = tuple(
    kind for family in FAMILIES for steps in range(1, MOST_STEPS + 1) for kind in skeletons(family, steps)
)

# The last two wordings of each are kept back: see `styles`.
HAVE = (
    "{who} has {a} {things}.",
    "At first {who} has {a} {things}.",
    "{who} starts with {a} {things}.",
    "In the morning {who} counts {a} {things}.",
    "There are {a} {things} in the house of {who}.",
    "To begin with, {who} owns {a} {things}.",
)
EVENTS = {
    "+": (
        "{who} buys {b} more.",
        "Then {who} gets {b} new {things}.",
        "{who} finds {b} other {things}.",
        "A friend gives {who} {b} more.",
        "Another {b} {things} arrive.",
        "{who} takes {b} extra {things}.",
    ),
    "-": (
        "{who} loses {b} of them.",
        "Then {who} sells {b} {things}.",
        "{who} gives {b} {things} away.",
        "Later {b} of the {things} break.",
        "Somebody takes {b} {things} from {who}.",
        "{who} throws {b} of them out.",
    ),
    "*": (
        "A fairy makes them {b} times as many.",
        "Then the {things} become {b} times as many.",
        "{who} multiplies them by {b}.",
        "Magic turns each of them into {b}.",
        "Every one of the {things} becomes {b}.",
        "Soon there are {b} times as many {things}.",
    ),
    "/": (
        "{who} keeps one part of {b} equal parts.",
        "Then they are divided by {b}.",
        "{who} shares them among {b} and keeps one share.",
        "Only one out of every {b} stays.",
        "{who} splits them into {b} equal piles and takes one.",
        "Of every {b} {things} one is left.",
    ),
}
HOW_MANY = (
    "How many {things} are left?",
    "How many {things} does {who} have now?",
    "Find the final number of {things}.",
    "How many are there in the end?",
    "What is the number of {things} at last?",
    "Count the {things} of {who} now.",
)
TOLD = {
    "+": (
        "{other} has {b} more than {who}.",
        "{other} owns {b} {things} more than {who}.",
        "{other} beats {who} by {b}.",
        "Add {b} to those of {who} for {other}.",
    ),
    "-": (
        "{other} has {b} fewer than {who}.",
        "{other} owns {b} {things} fewer than {who}.",
        "{other} is {b} behind {who}.",
        "Take {b} from those of {who} for {other}.",
    ),
    "*": (
        "{other} has {b} times as many as {who}.",
        "{other} owns {b} times the {things} of {who}.",
        "{other} has the number of {who} {b} times.",
        "Multiply those of {who} by {b} for {other}.",
    ),
    "/": (
        "{other} has one of {b} equal parts of what {who} has.",
        "{other} owns what {who} has, divided by {b}.",
        "{other} has the number of {who} over {b}.",
        "Split those of {who} by {b} for {other}.",
    ),
}
LAST_HAS = (
    "How many {things} does {other} have?",
    "Find the number of {other}.",
    "How many {things} has {other}?",
    "What is the number of {other}?",
)
CLOSING = "The answer is \\boxed{{{answer}}}."
"""Of every solution: one teacher writes them all, in one voice. A student could not foretell its wording from the problem,
and learning to guess it would be most of what a gradient says."""


def pose(skeleton: str, draw: Random, voice: Voice) -> dict[str, Any]:
    """One problem of a skeleton, with its solution.

    Args:
        skeleton: One of `SKELETONS`.
        draw: Draws the numbers, and nothing else.
        voice: Draws names and objects, and knows the wordings.

    Returns:
        The strings `prompt`, `completion` (ends in one `\\boxed{answer}`), `answer` and `skeleton`, and `numbers`.

    Raises:
        ValueError: No such skeleton.

    Example:
        >>> from hf_prism.tasks.styles import style
        >>> problem = pose("events/+*", Random(1), style(1, Random(1)))
        >>> print(problem["completion"])
        We get 6 + 3 = 9.
        We get 9 * 3 = 27.
        The answer is \\boxed{27}.
    """
    family, _, signs = skeleton.partition("/")
    if family not in FAMILIES or not 1 <= len(signs) <= MOST_STEPS or set(signs) - set(OPERATIONS):
        raise ValueError(
            f"chains: {skeleton!r} is no skeleton; write events/ or people/, and one to {MOST_STEPS} operations of "
            f"{OPERATIONS}, as in events/+*-"
        )
    numbers = _numbers(signs, draw)
    totals = [numbers[0]]
    sums = []
    for sign, number in zip(signs, numbers[1:], strict=True):
        totals.append(_apply(sign, totals[-1], number))
        sums.append(f"{totals[-2]} {sign} {number} = {totals[-1]}.")
    told = (_events if family == "events" else _people)(signs, numbers, voice)
    return {
        "prompt": " ".join(told),
        "completion": "\n".join([*sums, CLOSING.format(answer=totals[-1])]),
        "answer": str(totals[-1]),
        "skeleton": skeleton,
        "numbers": numbers,
    }


def _events(signs: str, numbers: list[int], voice: Voice) -> list[str]:
    (who,), things = voice.people(1), voice.thing()
    told = [voice.say(HAVE, who=who, a=numbers[0], things=things)]
    for sign, number in zip(signs, numbers[1:], strict=True):
        told.append(voice.say(EVENTS[sign], who=who, b=number, things=things))
    return [*told, voice.say(HOW_MANY, who=who, things=things)]


def _people(signs: str, numbers: list[int], voice: Voice) -> list[str]:
    people, things = voice.people(len(signs) + 1), voice.thing()
    told = [voice.say(HAVE, who=people[0], a=numbers[0], things=things)]
    for sign, number, who, other in zip(signs, numbers[1:], people[:-1], people[1:], strict=True):
        told.append(voice.say(TOLD[sign], who=who, other=other, b=number, things=things))
    return [*told, voice.say(LAST_HAS, other=people[-1], things=things)]


def _numbers(signs: str, draw: Random) -> list[int]:
    """Such that every total is a whole number from 1 to `LARGEST`: drawn until it is so."""
    for _ in range(MOST_DRAWS):
        total = draw.randint(2, 24)
        numbers = [total]
        for sign in signs:
            numbers.append(draw.randint(2, 3) if sign in "*/" else draw.randint(2, 9))
            total = _apply(sign, total, numbers[-1])
            if not 1 <= total <= LARGEST:
                break
        else:
            return numbers
    raise AssertionError(f"no numbers for {signs}")


def _apply(sign: str, total: int, number: int) -> int:
    """The next total; 0 where there is none."""
    if sign == "/":
        return 0 if total % number else total // number
    return {"+": total + number, "-": total - number, "*": total * number}[sign]
