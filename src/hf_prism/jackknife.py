"""Confidence interval of a Vendi score by a delete-a-group jackknife.

It covers the expected score of a fresh sample of the same n. It is not for the population: the score itself grows
with n.

Why more than the plain jackknife: the score is a smooth function of the covariance, and to second order its variance
is a + b, a from single rows and b from pairs. The jackknife measures a + 2b (Efron and Stein, 1981). Where all rows
are about equally typical, a vanishes: the plain interval is then 1.4 times too wide, and for a handful of groups it
collapses by chance. So b is measured from the pairs of groups, through the second derivative of the score.
"""

from __future__ import annotations

import math

import numpy as np


# 97.5 % quantile of Student's t with 1, 2, ... degrees of freedom
T_QUANTILE = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093),
)
DENSE_ROWS = 20  # rows per effective direction from which on the second-order expansion is trusted to narrow


def log_vendi(eigenvalues: np.ndarray, order: float) -> float:
    """Renyi entropy of order q > 0 of a spectrum, in nats; eigenvalues need not sum to 1, zeros count as nothing."""
    shares = eigenvalues[eigenvalues > 0]
    shares = shares / shares.sum()
    if order == 1:
        return float(-np.sum(shares * np.log(shares)))
    log_top = math.log(shares.max())
    if math.isinf(order):
        return -log_top
    # Relative to the largest share the sum of powers cannot underflow.
    return float((order * log_top + math.log(np.sum((shares / shares.max()) ** order))) / (1 - order))


def jackknife_interval(
    eigenvalues: np.ndarray, partials: np.ndarray, counts: np.ndarray, order: float
) -> tuple[float, float]:
    """95 % interval of a Vendi score.

    Args:
        eigenvalues: (r,) positive eigenvalues of the covariance, sum 1.
        partials: (G, r, r) second moments summed over the rows of each group, in the basis of the eigenvectors. They
            are overwritten: at dim = 1024 a copy would take 168 MB.
        counts: (G,) rows in each group, G from 2 to 20, none empty.
        order: q > 0.
    """
    n, groups = counts.sum(), len(counts)
    value = log_vendi(eigenvalues, order)
    total = np.diag(eigenvalues * n)
    without = [log_vendi(np.linalg.eigvalsh(total - part).clip(0), order) for part in partials]
    variance = jackknife_variance(value, np.array(without), counts)
    of_pairs = _pair_variance(eigenvalues, partials, counts, order)
    if n >= DENSE_ROWS * math.exp(value):
        variance -= of_pairs
    deviation = T_QUANTILE[groups - 2] * math.sqrt(max(variance, of_pairs))
    return _around(value, deviation)


def jackknife_variance(value: float, without: np.ndarray, counts: np.ndarray) -> float:
    """Variance of any statistic of grouped rows, from pseudo-values for groups of unequal size (Busing, Meijer and van
    der Leeden, 1999).

    Args:
        value: the statistic of all rows.
        without: (G,) the statistic without each group in turn.
        counts: (G,) rows in each group.
    """
    ratio = counts.sum() / counts
    pseudo = ratio * value - (ratio - 1) * without
    return np.mean((pseudo - np.sum(pseudo / ratio)) ** 2 / (ratio - 1))


class SubsetScores:
    """Log Vendi scores of many subsets of the same rows, and of a subset without each of its groups in turn.

    Subsets of up to d rows are parts of one Gram matrix, of which every product is computed once; larger ones go through
    their second moment. No second moment but the one at hand is kept.

    Args:
        rows: (m, d) float64 unit rows.
        size: rows of the largest subset.
        order: q > 0.

    Example:
        >>> scores = SubsetScores(np.eye(4), size=4, order=1.0)
        >>> np.exp(scores.without_each(np.arange(4), np.array([0, 1, 1, 1]), groups=2)).round(6)
        array([3., 1.])
    """

    def __init__(self, rows: np.ndarray, size: int, order: float) -> None:
        self._rows, self._order = rows, order
        self._gram = rows @ rows.T if size <= rows.shape[1] else None

    def of(self, chosen: np.ndarray) -> float:
        """Log score of the rows at these places, (k,) whole numbers."""
        return self._log_score(self._matrix(chosen))

    def without_each(self, chosen: np.ndarray, labels: np.ndarray, groups: int) -> np.ndarray:
        """(groups,) log scores of the chosen rows without those of label 0, 1, ...; `labels` (k,) says whose each is."""
        if self._gram is not None:
            return np.array([self.of(chosen[labels != group]) for group in range(groups)])
        total = self._matrix(chosen)
        return np.array([self._log_score(total - self._matrix(chosen[labels == group])) for group in range(groups)])

    def _matrix(self, chosen: np.ndarray) -> np.ndarray:
        """Gram matrix or second moment: the positive eigenvalues are the same."""
        if self._gram is not None:
            return self._gram[np.ix_(chosen, chosen)]
        rows = self._rows[chosen]
        return rows.T @ rows

    def _log_score(self, matrix: np.ndarray) -> float:
        eigenvalues = np.linalg.eigvalsh(matrix)
        dust = len(eigenvalues) * np.finfo(float).eps * eigenvalues.max()
        return log_vendi(np.where(eigenvalues > dust, eigenvalues, 0.0), self._order)


def _around(value: float, deviation: float) -> tuple[float, float]:
    """Interval on the scale of the root of the entropy, on which rare kinds of rows spread evenly."""
    root = math.sqrt(max(value, 0.0))
    half = deviation / (2 * root) if root > 0 else 0.0
    return math.exp(max(root - half, 0.0) ** 2), math.exp((root + half) ** 2)


def _pair_variance(eigenvalues: np.ndarray, partials: np.ndarray, counts: np.ndarray, order: float) -> float:
    """The part of the variance of log score that comes from pairs of rows; 0 for q = inf, which has no such term."""
    if math.isinf(order):
        return 0.0
    slope, curvature = _derivatives(eigenvalues, order)
    means = partials
    means /= counts[:, None, None]
    means -= np.diag(eigenvalues)
    linear = np.einsum("gaa,a->g", means, slope)
    means *= np.sqrt(curvature)
    flat = means.reshape(len(counts), -1)
    pairs = -(flat @ flat.T) - (1 - order) * np.outer(linear, linear)
    return pairs[~np.eye(len(counts), dtype=bool)].var() / (2 * len(counts) ** 2)


def _derivatives(eigenvalues: np.ndarray, order: float) -> tuple[np.ndarray, np.ndarray]:
    """First derivative of log score, f(l) at each eigenvalue, and minus its divided differences, (r, r), positive."""
    if order == 1:
        slope, second = -np.log(eigenvalues), -1 / eigenvalues
    else:
        power = np.sum(eigenvalues**order)
        slope = order / (1 - order) * eigenvalues ** (order - 1) / power
        second = -order * eigenvalues ** (order - 2) / power
    gap = eigenvalues[:, None] - eigenvalues
    near = np.abs(gap) <= 1e-6 * np.maximum(eigenvalues[:, None], eigenvalues)
    rise = slope[:, None] - slope
    return slope, -np.where(near, (second[:, None] + second) / 2, rise / np.where(near, 1.0, gap))
