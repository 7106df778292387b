"""Two samples of equal size: the ratio of their scores, and what mixtures of them score, with intervals.

The interval is from a paired jackknife: 20 groups of rows, each left out of both samples at once, with a row that both hold
in the same group of both. What the data have in common then cancels, as it does in the ratio itself.

An interval that excludes 1 is put to a second test, which no assumption enters: the two samples exchange half of their rows
at random, many times. If the difference comes from which sample a row is in, it is seldom as large after that. Where it is,
the interval is widened to 1. So two random halves of one dataset are called different in at most 5 % of all cases, whatever
the rows and however few.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from .jackknife import T_QUANTILE, SubsetScores, jackknife_variance
from .vendi import GROUPS


EXCHANGES = 39  # with the data as they are 40 cases, of which the 2 most extreme are 5 %
LEAST_ROOM = 0.1  # share of log 2 that must lie between nothing and everything in common
DUST = 1e-9


@dataclass(frozen=True)
class Ratio:
    """A score over another at the same n."""

    value: float
    "the ratio"
    interval: tuple[float, float] | None
    "covers the ratio of the expected scores of fresh samples of the same n in 95 % of cases; None for n < 20"

    def widened(self) -> Ratio:
        """With an interval that holds 1."""
        if self.interval is None:
            return self
        return replace(self, interval=(min(self.interval[0], 1.0), max(self.interval[1], 1.0)))

    @property
    def direction(self) -> int:
        """1 if the interval lies above 1, -1 if below, 0 if it holds 1 or there is none."""
        if self.interval is None:
            return 0
        return int(self.interval[0] > 1 + DUST) - int(self.interval[1] < 1 - DUST)


@dataclass(frozen=True)
class Mixture:
    """n rows, half from each of two datasets; a row that both hold is in it once."""

    g_vendi: float
    "geometric mean of the scores of two mixtures that together use every row"
    over_a: Ratio
    "against n rows of a alone"
    over_b: Ratio
    "against n rows of b alone"
    overlap: float | None
    "1: a mixture is as diverse as one dataset, as if both were the same; 0: no direction in common; None, see notes"
    overlap_interval: tuple[float, float] | None
    "95 % interval of it"


class PairedScores:
    """Two samples of n rows, and what a jackknife of both at once and exchanges between them say of their scores.

    The rows at one position of the two belong together: the same row, the same id, or any two. A group is every
    twentieth position. A mixture takes each position from either of the two, so that all have n rows and equal groups.

    Args:
        rows: (m, d) float64 unit rows.
        a: (n,) places in `rows` of the first sample.
        b: (n,) of the second.
        order: q > 0.
        seed: of the exchanges.

    Example:
        >>> rows = np.concatenate([np.eye(4)[np.arange(40) % 4], np.eye(4)[np.arange(40) % 2]])
        >>> round(PairedScores(rows, np.arange(40), np.arange(40, 80)).ratio().value, 6)
        2.0
    """

    def __init__(self, rows: np.ndarray, a: np.ndarray, b: np.ndarray, order: float = 1.0, seed: int = 0) -> None:
        self._scores = SubsetScores(rows, len(a), order)
        self._places_a, self._places_b = a, b
        self._order, self._seed = order, seed
        self._grouped = len(a) >= GROUPS
        self._positions = np.arange(len(a))
        self._labels = self._positions % GROUPS
        self._a, self._b = self._replicates(a, self._labels), self._replicates(b, self._labels)

    def ratio(self) -> Ratio:
        """Score of a over score of b. Where exchanges make as large a difference in 5 % of the cases, it holds 1."""
        ratio = self.unchecked_ratio()
        if ratio.direction:
            one, other = self._exchanged.T
            as_large = np.abs(one - other) >= abs(self._a[0] - self._b[0]) - DUST
            if 1 + as_large.sum() > 0.05 * (1 + EXCHANGES):
                return ratio.widened()
        return ratio

    def unchecked_ratio(self) -> Ratio:
        """The same by the jackknife alone."""
        return self._ratio(self._a - self._b)

    def mixture(self) -> tuple[Mixture, str | None]:
        """What the samples add to each other, and a note where their overlap cannot be told."""
        from_a = (self._positions // GROUPS + self._positions) % 2 == 0  # half of the rows of each group
        mixed = [
            self._replicates(np.where(taken, self._places_a, self._places_b), self._labels)
            for taken in (from_a, ~from_a)
        ]
        mean = (mixed[0] + mixed[1]) / 2
        overlap, interval, note = self._overlap(mean, from_a)
        over_a, over_b = self._over(mean, self._a), self._over(mean, self._b)
        return Mixture(math.exp(mean[0]), over_a, over_b, overlap, interval), note

    def _over(self, mixed: np.ndarray, alone: np.ndarray) -> Ratio:
        """A mixture's score over that of one sample. It holds 1 unless all that exchanges make lie on one side of it."""
        ratio = self._ratio(mixed - alone)
        beyond = ratio.direction and (self._exchanged[:, 0] - alone[0]) * ratio.direction > DUST
        return ratio if np.all(beyond) else ratio.widened()

    def _overlap(
        self, mixed: np.ndarray, from_a: np.ndarray
    ) -> tuple[float | None, tuple[float, float] | None, str | None]:
        if self._order != 1:
            return None, None, "the overlap is defined for order 1 only"
        if not self._grouped:
            return None, None, f"the overlap needs {GROUPS} rows of each dataset"
        halves = [
            self._replicates(places[taken], self._labels[taken])
            for places in (self._places_a, self._places_b)
            for taken in (from_a, ~from_a)
        ]
        alone = (self._a + self._b) / 2
        # A mixture of two datasets without a common direction has the entropy of its halves, and log 2.
        room = math.log(2) + sum(halves) / 4 - alone
        if min(room) < LEAST_ROOM * math.log(2):
            return None, None, "too few rows to tell how far the two overlap: nearly every row is its own direction"
        overlap = 1 - (mixed - alone) / room
        low, high = np.clip(self._interval(overlap), 0, 1).tolist()
        return float(np.clip(overlap[0], 0, 1)), (low, high), None

    def _replicates(self, places: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """The log score of the rows at these places, then those without each group, if there are enough rows."""
        whole = [self._scores.of(places)]
        return np.append(whole, self._scores.without_each(places, labels, GROUPS) if self._grouped else [])

    def _ratio(self, logs: np.ndarray) -> Ratio:
        if not self._grouped:
            return Ratio(math.exp(logs[0]), None)
        low, high = self._interval(logs)
        return Ratio(math.exp(logs[0]), (math.exp(low), math.exp(high)))

    def _interval(self, replicates: np.ndarray) -> tuple[float, float]:
        value = float(replicates[0])
        variance = jackknife_variance(value, replicates[1:], np.bincount(self._labels))
        half = T_QUANTILE[GROUPS - 2] * math.sqrt(variance)
        return value - half, value + half

    @cached_property
    def _exchanged(self) -> np.ndarray:
        """(EXCHANGES, 2) log scores of the two after the rows at each position changed places, or not, at random."""
        generator = np.random.Philox(key=self._seed)
        scores = []
        for _ in range(EXCHANGES):
            change = generator.random_raw(len(self._positions)) >> np.uint64(63) == 1
            one = np.where(change, self._places_b, self._places_a)
            other = np.where(change, self._places_a, self._places_b)
            scores.append((self._scores.of(one), self._scores.of(other)))
        return np.array(scores)
