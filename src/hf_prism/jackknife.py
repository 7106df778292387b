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
    # Pseudo-values for groups of unequal size (Busing, Meijer and van der Leeden, 1999).
    ratio = n / counts
    pseudo = ratio * value - (ratio - 1) * np.array(without)
    variance = np.mean((pseudo - np.sum(pseudo / ratio)) ** 2 / (ratio - 1))
    of_pairs = _pair_variance(eigenvalues, partials, counts, order)
    if n >= DENSE_ROWS * math.exp(value):
        variance -= of_pairs
    deviation = T_QUANTILE[groups - 2] * math.sqrt(max(variance, of_pairs))
    return _around(value, deviation)


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
