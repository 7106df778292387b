"""Styles: a few names, a few objects and one wording of every sentence, the surface of a problem as one number.

A controlled study varies the surface by the number of styles it draws from, and leaves the reasoning as it is. Any
whole number is a style; two styles share what chance lets them share. The last two wordings of every sentence are kept
from them, so that a benchmark can say the same things in words that no training row has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from .families import Voice
from .favourites import ranked
from .lexicon import NAMES, OBJECTS


NAMES_OF_A_STYLE, OBJECTS_OF_A_STYLE = 5, 3
KEPT_BACK = 2
"""How many wordings at the end of every list styles leave to a benchmark."""


@dataclass(frozen=True)
class Style(Voice):
    """A voice that says a sentence in the same of its wordings every time; `taste` decides in which."""

    taste: str
    rephrased: bool

    def say(self, wordings: Sequence[str], **slots: object) -> str:
        known = wordings[-KEPT_BACK:] if self.rephrased else wordings[:-KEPT_BACK]
        return ranked(self.taste, tuple(known))[0].format(**slots)


def style(number: int, random: Random, *, rephrased: bool = False) -> Style:
    """The voice of a style.

    Args:
        number: Of the style.
        random: Draws which of its names and objects come up.
        rephrased: Speak in the wordings that are kept back.

    Example:
        >>> style(0, Random(0)).names == style(0, Random(1)).names
        True
    """
    taste = f"style {number}"
    names, objects = ranked(taste, NAMES)[:NAMES_OF_A_STYLE], ranked(taste, OBJECTS)[:OBJECTS_OF_A_STYLE]
    return Style(random, names, objects, None, taste, rephrased)
