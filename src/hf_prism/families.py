"""Isolated families: rows much nearer to each other than to any others, such as one problem with other numbers.

A fixed cosine cannot tell them: the rows of one file are all alike to a degree that differs from file to file. So a family
is told by its gap. Clusters are merged by average linkage. A set of rows is looked at if (c - b) / (1 - b) is at least HELD:
b is the mean cosine with the nearest other set, to which it would be joined next, and c what holds the set itself together,
the mean cosine of the last two parts that were joined, or of the rows of a cluster. Rows that k-means put there without
being like the others are left out: those nearer to b than to c. The rest is a family if, with c now the mean cosine of its
rows, the same quotient, which is a silhouette (Rousseeuw, 1987), is at least ISOLATION.
"""

from __future__ import annotations

import numpy as np


HELD, ISOLATION = 0.35, 0.45
"""Least gaps of a set that is looked at, and of a family: chosen on the files and pools of docs/report.md."""

LEAST = 5
"""Fewest rows of a family; fewer may be near each other by chance."""


def isolated_families(vectors: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
    """Sets of rows that stand apart from all others.

    Args:
        vectors: (n, d) rows of unit length.
        labels: (n,) cluster of each row, from 0; families are clusters or several, without strays. Memory O(k^2) for k
            clusters, and k passes over that.

    Returns:
        The positions of each family, ascending, none within another; the largest first.

    Example:
        >>> far = np.eye(8)
        >>> rows = np.concatenate([np.repeat(far[:1], 6, axis=0), far])
        >>> [family.tolist() for family in isolated_families(rows, np.r_[np.zeros(6, int), np.arange(8)])]
        [[0, 1, 2, 3, 4, 5, 6]]
    """
    count = int(labels.max(initial=-1)) + 1
    sizes = np.bincount(labels, minlength=count).astype(np.float64)
    sums = np.zeros((count, vectors.shape[1]))
    np.add.at(sums, labels, vectors)
    members = [np.flatnonzero(labels == cluster) for cluster in range(count)]
    found: list[np.ndarray] = []
    for one, other, near in _merges(sums @ sums.T, sizes):
        for node, held in (one, other):
            if len(members[node]) >= LEAST and held - near >= HELD * (1 - near):
                family = _without_strays(vectors, members[node], (held + near) / 2)
                if _mean_cosines(vectors[family]).mean() - near >= ISOLATION * (1 - near):
                    found.append(family)
        members[one[0]] = np.concatenate([members[one[0]], members[other[0]]])
    kept: list[np.ndarray] = []
    taken = np.zeros(len(labels), dtype=bool)
    for family in reversed(found):  # a set before those that it was merged from
        if not taken[family].any():
            taken[family] = True
            kept.append(np.sort(family))
    return sorted(kept, key=len, reverse=True)


def _without_strays(vectors: np.ndarray, rows: np.ndarray, least: float) -> np.ndarray:
    """The rows that have at least this mean cosine with the others; all, where too few would be left."""
    family = rows[_mean_cosines(vectors[rows]) >= least]
    return family if len(family) >= LEAST else rows


def _mean_cosines(rows: np.ndarray) -> np.ndarray:
    """Of each of (n, d) unit rows with the n - 1 others."""
    rows = rows.astype(np.float64)
    return (rows @ rows.sum(axis=0) - 1) / (len(rows) - 1)


Node = tuple[int, float]  # its number, and what holds it together: a mean cosine, of its last two parts or of its rows


def _merges(products: np.ndarray, sizes: np.ndarray) -> list[tuple[Node, Node, float]]:
    """The merges of average linkage, and the mean cosine at which each is made: the second node becomes part of the first.

    Args:
        products: (k, k) sums of the cosines of all rows of one cluster with all of another; used up.
        sizes: (k,) rows of each; used up.
    """
    live = sizes > 0
    means = np.full(products.shape, -np.inf)
    means[np.ix_(live, live)] = products[np.ix_(live, live)] / np.outer(sizes, sizes)[np.ix_(live, live)]
    np.fill_diagonal(means, -np.inf)
    held = [_cohesion(product, size) for product, size in zip(np.diag(products), sizes, strict=True)]
    merges = []
    for _ in range(int(live.sum()) - 1):
        one, other = sorted(map(int, np.unravel_index(means.argmax(), means.shape)))
        near = float(means[one, other])
        merges.append(((one, held[one]), (other, held[other]), near))
        held[one] = near
        products[one] += products[other]
        products[:, one] += products[:, other]
        sizes[one] += sizes[other]
        live[other] = False
        means[other] = means[:, other] = -np.inf
        means[one, live] = means[live, one] = products[one, live] / (sizes[one] * sizes[live])
        means[one, one] = -np.inf
    return merges


def _cohesion(product: float, size: float) -> float:
    return float((product - size) / (size * (size - 1))) if size > 1 else 1.0
