"""Greedy choice of rows that raise the log-determinant of their second moment most: exact, and near-linear in the rows.

With M = I + sum over the chosen rows of w x x^T (x of unit length, w the row's weight), the next row is the one of the
greatest gain log(1 + w x^T M^-1 x). log det M is monotone and submodular in the chosen rows, so that the greedy choice
reaches at least 1 - 1/e of the best possible value, and 1/2 where groups have quotas (Nemhauser, Wolsey and Fisher, 1978).
The identity is one row's worth
of every direction: a direction that many chosen rows share is worth little more, one that none has is worth log 2.

Gains only fall as rows are chosen (submodularity), so an old gain bounds the present one (Minoux, 1978). A block of the
rows with the greatest bounds is evaluated at once, by a matrix product, and rows are chosen from it until its best could
be beaten by a row outside. The choice is that of evaluating every row at every step, for any size of the block. Gains
within 1e-9 of the best count as equal, and the first row wins: rounding decides nothing.
"""

from __future__ import annotations

import numpy as np
from tqdm.auto import tqdm

from .vectors import unit


BLOCK_ROWS = 1024
"""Rows evaluated at once. It changes no choice."""

TIE = 1e-9
"""Relative difference under which two gains are equal."""


def choose_greedily(
    rows: np.ndarray,
    k: int,
    *,
    weights: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    room: np.ndarray | None = None,
) -> np.ndarray:
    """Choose k rows, each the one that raises log det(I + sum w x x^T) most.

    Args:
        rows: (n, d) float32 or float64, of any length but 0: only the direction counts. Of equal gains the first row wins.
        k: how many; there must be as many that can be chosen.
        weights: (n,) at or above 0, by default 1. A row of weight 0 is never chosen.
        groups: (n,) int, the group of each row.
        room: (number of groups,) int, the most rows that each group may give.

    Returns:
        (k,) int64 positions, in the order of choice.

    Example:
        >>> choose_greedily(np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), 2)
        array([0, 2])
    """
    greedy = _Greedy(rows, np.ones(len(rows)) if weights is None else weights, groups, room)
    with tqdm(total=k, desc="Choosing", unit=" rows", delay=2, leave=False) as bar:
        while len(greedy.chosen) < k:
            before = len(greedy.chosen)
            if not greedy.advance(k):
                raise ValueError(f"only {before} of the {len(rows)} rows can be chosen, not {k}.")
            bar.update(len(greedy.chosen) - before)
    return np.array(greedy.chosen, dtype=np.int64)


class _Greedy:
    """Rows chosen so far, M^-1, and what is known of every row's w x^T M^-1 x.

    Attributes:
        gains: (n,) never below the present values; -1 for a row that cannot be chosen any more.
        is_fresh: (n,) whether the gain is the present value.
    """

    def __init__(
        self, rows: np.ndarray, weights: np.ndarray, groups: np.ndarray | None, room: np.ndarray | None
    ) -> None:
        self.rows, self.scales = rows, np.sqrt(weights)
        self.groups = np.zeros(len(rows), dtype=np.int64) if groups is None else groups
        self.room = np.array([len(rows)]) if room is None else room.copy()
        self.inverse = np.eye(rows.shape[1])
        self.gains = np.where((weights > 0) & (self.room[self.groups] > 0), weights, -1.0)
        self.is_fresh = np.ones(len(rows), dtype=bool)
        self.chosen: list[int] = []

    def advance(self, k: int) -> bool:
        """Evaluate one block, and choose from it what can be chosen, until there are k. False if no row is left."""
        best = self.gains.max(where=self.is_fresh, initial=-1.0)
        waiting = np.flatnonzero(~self.is_fresh & (self.gains > 0) & (self.gains >= best * (1 - TIE)))
        if decided := not len(waiting):  # no row can be better than the best of those whose gain is known
            ties = np.flatnonzero(self.is_fresh & (self.gains >= best * (1 - TIE)))
            # With them, what may be chosen after them.
            block = ties[:BLOCK_ROWS] if len(ties) >= BLOCK_ROWS else self._foremost(np.flatnonzero(self.gains > 0))
        else:
            block = self._foremost(waiting)
        before = len(self.chosen)
        self._choose_from(block, k, decided)
        return not decided or len(self.chosen) > before

    def _foremost(self, rows: np.ndarray) -> np.ndarray:
        """A block of those with the greatest gains, of nearly equal ones the first, in their order."""
        if len(rows) <= BLOCK_ROWS:
            return rows
        gains = self.gains[rows]
        gains = np.round(gains / gains.max(), 9)
        least = np.partition(gains, -BLOCK_ROWS)[-BLOCK_ROWS]
        above = rows[gains > least]
        return np.sort(np.concatenate([above, rows[gains == least][: BLOCK_ROWS - len(above)]]))

    def _choose_from(self, block: np.ndarray, k: int, decided: bool) -> None:
        vectors = unit(self.rows[block])  # of float32 rows the length is 1 to seven digits only
        vectors *= self.scales[block, None]
        solved = vectors @ self.inverse
        gains = np.einsum("ij,ij->i", solved, vectors)
        outside = self._outside(block)
        greatest = outside.max()
        factors = np.empty((min(k - len(self.chosen), len(block)), vectors.shape[1]))
        count = 0
        while count < len(factors):
            best = gains.max()
            if best <= 0:
                break
            row = int(np.argmax(gains >= best * (1 - TIE)))
            if count or not decided:
                if greatest > best * (1 + TIE):
                    break  # a row outside may be better
                if greatest >= best * (1 - TIE) and np.argmax(outside >= best * (1 - TIE)) < block[row]:
                    break  # or as good, and before it
            # Sherman and Morrison: M^-1 loses f f^T with f = M^-1 x / sqrt(1 + gain), for the M^-1 of this moment.
            factor = solved[row] - (factors[:count] @ vectors[row]) @ factors[:count]
            factor /= np.sqrt(1 + gains[row])
            factors[count] = factor
            gains -= (vectors @ factor) ** 2
            count += 1
            gains[self._take(block, row)] = -1.0
        self.gains[block] = gains
        if count:
            self.inverse -= factors[:count].T @ factors[:count]
            self.is_fresh[:] = False
        self.is_fresh[block] = True

    def _outside(self, block: np.ndarray) -> np.ndarray:
        """The gains without those of the block."""
        outside = self.gains.copy()
        outside[block] = -1.0
        return outside

    def _take(self, block: np.ndarray, row: int) -> np.ndarray:
        """Choose a row of the block. Returns which rows of the block cannot be chosen any more."""
        position = int(block[row])
        self.chosen.append(position)
        group = self.groups[position]
        self.room[group] -= 1
        taken = np.zeros(len(block), dtype=bool)
        taken[row] = True
        if self.room[group] == 0:
            self.gains[self.groups == group] = -1.0
            taken |= self.groups[block] == group
        return taken
