"""Favourites: an order of preference that depends on taste alone, and Zipf's law for how often each one is picked."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from itertools import accumulate
from typing import TypeVar

from .families import Voice


Option = TypeVar("Option")


@dataclass(frozen=True)
class FondVoice(Voice):
    """A voice with favourites among whatever it picks from; `taste` says which, `skew` how much it likes them."""

    taste: str
    skew: float

    def pick(self, options: Sequence[Option]) -> Option:
        return self.pick_different(options, 1)[0]

    def pick_different(self, options: Sequence[Option], count: int) -> list[Option]:
        left = list(ranked(self.taste, tuple(options)))
        return [left.pop(zipf_rank(self.random.random(), len(left), self.skew)) for _ in range(count)]


@lru_cache(maxsize=10_000)
def ranked(taste: str, options: tuple[Option, ...]) -> tuple[Option, ...]:
    """The options in an order of preference that depends on taste alone, for any two of them."""
    return tuple(sorted(options, key=lambda option: sha256(f"{taste}/{option}".encode()).digest()))


def zipf_rank(uniform: float, count: int, skew: float) -> int:
    """The rank, from 0, that a uniform number in [0, 1) stands for when rank r has weight 1/(r + 1)**skew.

    Example:
        >>> [zipf_rank(uniform, 2, 1.0) for uniform in (0.0, 0.66, 0.67)]  # weights 1 and 1/2
        [0, 0, 1]
    """
    cumulated = _cumulated(count, skew)
    return min(bisect(cumulated, uniform * cumulated[-1]), count - 1)


@lru_cache(maxsize=1000)
def _cumulated(count: int, skew: float) -> tuple[float, ...]:
    return tuple(accumulate(rank**-skew for rank in range(1, count + 1)))
