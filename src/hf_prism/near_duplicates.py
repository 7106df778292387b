"""Near-duplicates in gradient space: rows that push the proxy in nearly the same direction.

Exact, without an n x n matrix: products find the pairs that can reach the threshold, and those are decided in float64 in
a fixed order of summation, see `nearest`. So neither the size of a block nor the number of threads changes a group.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .nearest import Centers, Nearest, float32_sums, pair_scores
from .vectors import content_hashes, id_hashes, number_blocks, unit


THRESHOLD = 0.95
"""Cosine from which on two rows count as near-duplicates; docs/report.md says what it was chosen on."""

BLOCK = 512
"""Rows looked at in one step. It changes no group."""


def near_duplicates(
    vectors: Any, *, threshold: float = THRESHOLD, ids: Sequence[Any] | None = None
) -> list[np.ndarray]:
    """Groups of rows that are near-duplicates of one row, the leader of the group.

    Leaders are found first: in the order of the rows' hashes, a row becomes one where its cosine with every leader before it
    is below the threshold. Then every other row joins the leader with which its cosine is the greatest. So

    - a row's cosine with the leader of its group is at least the threshold, and two leaders' is below it: what is left
      of the data without the other rows has no near-duplicates, and still has one for each row that went;
    - two rows of a group have a cosine of at least 2 threshold^2 - 1 (0.81 at 0.95), which may be below the threshold;
    - near-duplicates of each other may be in two groups, or one of them alone.

    The groups are the same for any order of the rows, except that without ids equal rows may change places. Time is
    O(n^2 d) at worst, where there are no near-duplicates, and O(n groups d) else; memory a few times n d float32.

    Args:
        vectors: (n, d) numbers in any container of `number_blocks`; None rows are in no group.
        threshold: cosine, above 0 and below 1. Exact copies reach 0.9999; 1 itself is a matter of rounding.
        ids: one id a row, which decides its hash. Without ids the row's content does.

    Returns:
        The positions in `vectors` of each group of at least two rows, int64, the leader first, then by falling cosine
        with it; the largest group first.

    Raises:
        ValueError: a threshold outside (0, 1); ids repeated or not one a row; and as `number_blocks`.

    Example:
        >>> [group.tolist() for group in near_duplicates([[1.0, 0.0], [0.0, 1.0], [2.0, 0.1]], ids=["a", "b", "c"])]
        [[2, 0]]
    """
    if not 0 < threshold < 1:
        raise ValueError(
            f"threshold {threshold!r} is not a cosine above 0 and below 1: give a number such as {THRESHOLD}, or 0.9999 "
            "for exact copies only."
        )
    rows, positions = _in_hash_order(vectors, ids)
    limit = float(np.nextafter(threshold, -1))  # what is greater than this is at least the threshold
    with float32_sums():
        leads = _leaders(rows, limit)
        leaders, others = leads.nonzero().flatten(), (~leads).nonzero().flatten()
        if not len(others):
            return []
        nearest = _nearest_above(rows[others], Centers(rows[leaders]), limit)
    order = np.lexsort((others, -nearest.scores, nearest.labels))
    labels, counts = np.unique(nearest.labels.numpy(), return_counts=True)
    members = np.split(others.numpy()[order], counts.cumsum()[:-1])
    groups = [np.append(leader, group) for leader, group in zip(leaders[labels].tolist(), members, strict=True)]
    # Stable: equally large groups stay in the order of their leaders' hashes.
    return [positions[group] for group in sorted(groups, key=len, reverse=True)]


def nearest_cosines(vectors: Any) -> np.ndarray:
    """The cosine of each row with the row nearest to it: 1 for an exact copy, and low for a row like no other.

    The share of the rows whose value reaches a threshold is the share that has a near-duplicate.

    Args:
        vectors: (n, d) numbers in any container of `number_blocks`, without None rows; at least two rows. Time is
            O(n^2 d): give a sample of what is large.

    Returns:
        (n,) float64. A nearest row that another one beats by less than float32 can tell may stand in for it.

    Raises:
        ValueError: fewer than two rows, and as `number_blocks`.

    Example:
        >>> nearest_cosines([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]]).round(6)
        array([1., 0., 1.])
    """
    rows = _unit_floats(vectors)[0]
    if len(rows) < 2:
        raise ValueError(f"the nearest other row needs at least two rows, and there is {len(rows)}: add rows.")
    found = np.empty(len(rows))
    for start in range(0, len(rows), BLOCK):
        chosen = torch.arange(start, min(start + BLOCK, len(rows)))
        products = rows[chosen] @ rows.T
        products[chosen - start, chosen] = -torch.inf
        found[start : start + BLOCK] = pair_scores(rows, chosen, rows, products.argmax(1)).numpy()
    return found.clip(-1, 1)


def _leaders(rows: Tensor, limit: float) -> Tensor:
    """Which rows have no score above `limit` with a leader before them: (n,) bool."""
    leads, before = torch.zeros(len(rows), dtype=torch.bool), []
    for start in range(0, len(rows), BLOCK):
        left = torch.arange(start, min(start + BLOCK, len(rows)))
        for centers in before:
            left = left[_nearest_above(rows[left], centers, limit).labels < 0]
        new = left[_lead_within(rows[left], limit)]
        leads[new] = True
        if len(new):
            before.append(Centers(rows[new]))
    return leads


def _nearest_above(rows: Tensor, centers: Centers, limit: float) -> Nearest:
    """The nearest centre of each row, and the label -1 where no score is above `limit`."""
    nearest = Nearest(rows)
    nearest.scores.fill_(limit)
    if len(rows):
        nearest.add(centers)
    return nearest


def _lead_within(rows: Tensor, limit: float) -> Tensor:
    """As `_leaders`, for the rows of one block: all pairs at once, then row by row."""
    if not len(rows):
        return torch.zeros(0, dtype=torch.bool)
    nearest = Nearest(rows)
    nearest.scores.fill_(limit)
    row, place, _ = nearest.better(Centers(rows))
    near = torch.zeros(len(rows), len(rows), dtype=torch.bool)
    near[row, place] = True
    leads = torch.zeros(len(rows), dtype=torch.bool)
    for number, line in enumerate(near.tril(-1)):
        leads[number] = not (line & leads).any()
    return leads


def _in_hash_order(vectors: Any, ids: Sequence[Any] | None) -> tuple[Tensor, np.ndarray]:
    """Unit rows in the order of their hashes, and where in `vectors` each of them is."""
    rows, positions = _unit_floats(vectors, ids)
    hashes = content_hashes(rows.numpy(), {}) if ids is None else id_hashes(ids, len(vectors))[positions]
    order = np.argsort(hashes, kind="stable")
    return rows[torch.from_numpy(order)], positions[order]


def _unit_floats(vectors: Any, ids: Sequence[Any] | None = None) -> tuple[Tensor, np.ndarray]:
    """The rows that are not None, as float32 of unit length, and their positions."""
    rows, positions, done = torch.empty(0, 0), np.empty(len(vectors), dtype=np.int64), 0
    for kept, block in number_blocks(vectors, ids):
        if not done:
            rows = torch.empty(len(vectors), block.shape[1])
        span = slice(done, done := done + len(block))
        rows[span], positions[span] = torch.from_numpy(unit(block).astype(np.float32)), kept
    if not done:
        raise ValueError(f"no gradient vectors among {len(vectors)} rows: at least one row is needed.")
    return rows[:done], positions[:done]
