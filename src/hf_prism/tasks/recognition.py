"""The skeleton of a problem, read back from its text: of a procedural one by one regular expression for each skeleton,
of a chain of arithmetic by one for each kind of sentence.

The expressions are made of the same wordings that the families speak in, so a new wording needs nothing here. Some
problems read as both, such as "Mary has 12 cups. Mary buys 5 more. How many cups does Mary have now?"
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache

from . import chains
from .families import (
    ASK,
    BOTH_HAVE,
    CLAIM,
    COMPARED,
    CONVERT,
    DAYS,
    EVENTS,
    GROUPS,
    HAVE,
    HOUR,
    HOW_MANY,
    IN_ALL,
    LIST,
    MEMBER,
    NEXT,
    OTHER_HAS,
    RELATIONS,
    RULES,
    SHARE,
    TELL,
    UNITS,
    WANTED,
    WEEKDAY,
)
from .procedural import LONGER_SKELETONS, SKELETONS


WORD = r"[\w'-]+"  # a name, an object, a unit
NUMBER = r"\d+"


def skeleton_of(prompt: str) -> str | None:
    """The skeleton of a problem in the words of the families, None for any other text.

    It reads wordings, not meaning: whether it is one person all along is not checked. Names and objects are single
    words.

    Args:
        prompt: The text of the problem.

    Returns:
        One of `SKELETONS` and `LONGER_SKELETONS`, or None.

    Example:
        >>> skeleton_of("Mary has 12 cups. Mary buys 5 more. What is the final number of cups?")
        'story/+'
        >>> skeleton_of("What is 12 + 5?") is None
        True
    """
    for skeleton, pattern in _patterns().items():
        if pattern.fullmatch(prompt) and (not skeleton.startswith("sequence/") or _growth(prompt) == skeleton):
            return skeleton
    return None


@cache
def _patterns() -> dict[str, re.Pattern[str]]:
    return {skeleton: re.compile(_expression(skeleton)) for skeleton in (*SKELETONS, *LONGER_SKELETONS)}


def _expression(skeleton: str) -> str:
    family, _, name = skeleton.partition("/")
    match family:
        case "story":
            return _each([HAVE, *(EVENTS[sign] for sign in name), HOW_MANY])
        case "groups":
            chain = [GROUPS, *(EVENTS[sign] for sign in name[1:]), IN_ALL]
            return _each([SHARE] if name == "/" else chain)
        case "comparison":
            relation, _, total = name.partition(" ")
            return _each([HAVE, COMPARED[relation], BOTH_HAVE if total else OTHER_HAS])
        case "sequence":
            return _any(NEXT)  # its numbers tell how it grows
        case "ordering":
            return _each([LIST, WANTED[name]])
        case "calendar":
            return _any(HOUR) if name == "clock" else _any(WEEKDAY, when=name)
        case "units":
            return _union(_any(CONVERT, amount=amount, to=to) for amount, to in _conversions(name))
        case "entailment":
            return _any(ASK, **(_order() if name == "order" else _kind(name)))
    raise AssertionError(f"no expression for {skeleton}")


def chain_of(prompt: str) -> str | None:
    """The skeleton of a chain of arithmetic in the words of `chains`, kept back or not; None for any other text.

    It reads as `skeleton_of` does.

    Returns:
        One of `chains.SKELETONS`, or None.

    Example:
        >>> chain_of("Tom has 12 cups. Ann beats Tom by 5. Joe is 3 behind Ann. Find the number of Joe.")
        'people/+-'
    """
    sentences = re.split("(?<=[.?]) ", prompt)
    for family, kinds in _kinds_of_sentences().items():
        read = [next((kind for kind, known in kinds.items() if known.fullmatch(each)), None) for each in sentences]
        skeleton = f"{family}/{''.join(map(str, read[1:-1]))}"
        if (read[0], read[-1]) == ("first", "last") and skeleton in chains.SKELETONS:
            return skeleton
    return None


@cache
def _kinds_of_sentences() -> dict[str, dict[str, re.Pattern[str]]]:
    """Of each family: how a chain begins and ends, and its operations."""
    families = {
        "events": {"first": chains.HAVE, **chains.EVENTS, "last": chains.HOW_MANY},
        "people": {"first": chains.HAVE, **chains.TOLD, "last": chains.LAST_HAS},
    }
    return {
        family: {kind: re.compile(_any(wordings)) for kind, wordings in kinds.items()}
        for family, kinds in families.items()
    }


def _conversions(name: str) -> list[tuple[str, str]]:
    units = [(big, small) for units in UNITS.values() for _, big, small in units]
    if name == "/":
        return [(f"{NUMBER} {small}", big) for big, small in units]
    return [(f"{NUMBER} {big}" + f" and {NUMBER} {small}" * (name == "*+"), small) for big, small in units]


def _order() -> dict[str, str]:
    comparative = _union(word for pair in RELATIONS for word in pair)
    fact = _any(TELL, more=comparative, less=comparative)
    return {"premise": f"{fact} {fact}", "hypothesis": fact}


def _kind(name: str) -> dict[str, str]:
    rule, member = _any([RULES[name]]), _any([MEMBER])
    return {"premise": f"(?:{rule} {member}|{member} {rule})", "hypothesis": _any([CLAIM], has="is(?: not)?")}


def _growth(prompt: str) -> str | None:
    terms = [int(number) for number in re.findall(NUMBER, prompt)]
    steps = {after - before for before, after in zip(terms, terms[1:], strict=False)}
    if len(steps) == 1:
        return "sequence/up" if steps.pop() > 0 else "sequence/down"
    doubles = all(after == 2 * before for before, after in zip(terms, terms[1:], strict=False))
    return "sequence/double" if doubles else None


# Expressions for one of several wordings, and for one wording each of several sentences.

SLOTS = dict.fromkeys("abhn", NUMBER) | {"terms": rf"{NUMBER}(?:, {NUMBER})*", "day": "|".join(DAYS)}


def _any(wordings: Sequence[str], **slots: str) -> str:
    return _union(_filled(wording, {**SLOTS, **slots}) for wording in wordings)


def _filled(wording: str, slots: dict[str, str]) -> str:
    literal, *rest = re.split(r"{(\w+)}", wording)
    pairs = zip(rest[::2], rest[1::2], strict=True)
    return re.escape(literal) + "".join(f"(?:{slots.get(slot, WORD)}){re.escape(text)}" for slot, text in pairs)


def _each(sentences: Iterable[Sequence[str]]) -> str:
    return " ".join(map(_any, sentences))


def _union(expressions: Iterable[str]) -> str:
    return f"(?:{'|'.join(expressions)})"
