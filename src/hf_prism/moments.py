"""Second moments of unit rows, summed for each group of rows in matrix products large enough to run at full speed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .vectors import BLOCK_ROWS, unit


BATCH_ROWS = 4096  # of one group in one product; from 2,048 on a product runs within 5 % of its full speed
Batch = tuple[int, np.ndarray]  # a group, and unit rows of it in float64


class GroupMoments:
    """Sum of x x^T over the rows x of each of some groups: groups dim^2 float64.

    Rows wait, as they came, until their group has a batch. The groups start out of step, lest all be full at once: half
    of the rows for one batch of each are waiting at any time, and products and reading alternate.

    Example:
        >>> moments = GroupMoments(3, groups=2)
        >>> for group, rows in moments.batches(np.array([[0.0, 2.0, 0.0], [3.0, 0.0, 0.0]]), np.array([1, 1])):
        ...     moments.multiply(group, rows)
        >>> counts, sums = moments.finish()
        >>> counts, np.diag(sums[1])
        (array([0, 2]), array([1., 1., 0.]))
    """

    def __init__(self, dim: int, groups: int) -> None:
        self._sums = np.zeros((groups, dim, dim))
        self._counts = np.zeros(groups, dtype=np.int64)
        self._waiting: list[list[np.ndarray]] = [[] for _ in range(groups)]
        self._num_waiting = [0] * groups
        self._limits = [(group + 1) * BATCH_ROWS // groups for group in range(groups)]
        self._scratch: list[np.ndarray] = []

    def batches(self, rows: np.ndarray, groups: np.ndarray) -> Iterator[Batch]:
        """Takes (n, dim) finite nonzero rows and the group of each; yields the batches that this fills.

        Multiply one before asking for the one after the next: by then its memory is used again.
        """
        for group in np.unique(groups).tolist():
            yield from self._take(group, [rows[groups == group]])

    def multiply(self, group: int, rows: np.ndarray) -> None:
        """Adds a batch to the sum of its group."""
        self._sums[group] += rows.T @ rows  # one argument twice: NumPy computes half of the product and mirrors it
        self._counts[group] += len(rows)

    def merge(self, other: GroupMoments) -> None:
        """Adds the rows of another."""
        self._sums += other._sums
        self._counts += other._counts
        for group, parts in enumerate(other._waiting):
            for batch in self._take(group, list(parts)):
                self.multiply(*batch)

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows and sum of each group: (groups,) and (groups, dim, dim). More may be added afterwards."""
        for group, count in enumerate(self._num_waiting):
            if count:
                self.multiply(group, self._batch(group))
        self._scratch = []
        return self._counts, self._sums

    def _take(self, group: int, parts: list[np.ndarray]) -> Iterator[Batch]:
        self._waiting[group] += parts
        self._num_waiting[group] += sum(map(len, parts))
        if self._num_waiting[group] >= self._limits[group]:
            self._limits[group] = BATCH_ROWS
            yield group, self._batch(group)

    def _batch(self, group: int) -> np.ndarray:
        """All rows of a group that wait, in one of two places by turns: fresh memory costs a tenth of the product."""
        parts, count = self._waiting[group], self._num_waiting[group]
        self._waiting[group], self._num_waiting[group] = [], 0
        scratch = self._scratch.pop(0) if len(self._scratch) == 2 else np.empty((0, 0))
        if len(scratch) < count:
            scratch = np.empty((max(count, BATCH_ROWS + BLOCK_ROWS), self._sums.shape[1]))
        self._scratch.append(scratch)
        end = 0
        for part in parts:
            unit(part, out=scratch[end : end + len(part)])
            end += len(part)
        return scratch[:count]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_scratch": []}
