"""What the sketch takes away from a Vendi score, and how to put it back.

A sketch of d numbers adds noise of about 1/sqrt(d) to every cosine. That spreads the spectrum and lowers the score, at
n = 768 and d = 1024 by a fifth. The sketched Gram matrix is a sample covariance with d samples whose population is the
exact Gram matrix K, so the Marchenko-Pastur equation ties the two spectra together. With the d eigenvalues l of the
sketched Gram (zeros included), the n eigenvalues t of K, and any x > 0,

    v(x) = mean_j 1 / (l_j + x),        G(v) := mean_i t_i v / (1 + t_i v) = (d/n) (1 - x v(x)).

So G is known for v < v(0) without fitting anything, and scores are integrals of G:

    mean t log t = int (v / (1+v) - G) dv / v^2,        mean t^q = sin(pi q)/pi int G dv / v^(1+q)   for 0 < q < 1.

For n <= d, v(0) is infinite and that is all. For n > d the sketch has lost G beyond v(0), where it is between
g = d/n and 1: it is continued with its slope, and an estimate is offered only where that choice cannot matter much.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .jackknife import log_vendi
from .vectors import unit_rows


MIN_DIM = 64  # the equation holds up to terms of order 1/d
MAX_OPEN = (
    0.10  # largest half-width, in log score, that the lost part may leave open; the error measured is far smaller
)
STEP = 0.125
X = np.exp(np.arange(-46, 46, STEP))  # the integrands are analytic in log x: here the trapezoid rule is all but exact


def debiased_vendi(eigenvalues: Any, n: int, dim: int, order: float = 1.0) -> tuple[float | None, str | None]:
    """Estimates the Vendi score that the rows had before they were sketched, from the spectrum of their sketches.

    Meaningful only for vectors that are random sketches of much longer ones. Measured errors: docs/vendi.md.

    Args:
        eigenvalues: the eigenvalues of the sketched covariance, at most min(n, dim) of them positive.
        n: rows.
        dim: numbers in a sketch.
        order: 1, 2, or anything between 0 and 1; no estimate is offered for others.

    Returns:
        (estimate, None), or (None, the reason why there is none).

    Example:
        >>> rows = np.random.default_rng(0).standard_normal((512, 1024))  # sketches of 512 orthogonal gradients
        >>> spectrum = np.linalg.eigvalsh(rows @ rows.T / np.trace(rows @ rows.T))
        >>> round(math.exp(-sum(spectrum * np.log(spectrum)))), round(debiased_vendi(spectrum, 512, 1024)[0])
        (398, 511)
    """
    shares = np.sort(np.clip(np.asarray(eigenvalues, dtype=np.float64), 0, None))[::-1]
    shares = shares / shares.sum()
    if not (0 < order <= 1 or order == 2):
        return None, f"no debiased estimate is offered for order {order:g}, only up to order 1 and for order 2"
    if dim < MIN_DIM:
        return None, f"no debiased estimate is offered for vectors under {MIN_DIM} numbers"
    if order == 2:
        # The mean squared cosine of unequal rows is raised by 1/d, that of equal rows not at all.
        mean_square = (np.sum(shares**2) - 1 / dim) / (1 - 1 / dim)
        return float(1 / max(mean_square, 1 / n)), None
    log_score, half_width = _log_score(shares, n, dim, order)
    if half_width > MAX_OPEN:
        return None, (
            f"no debiased estimate: sketches of {dim} numbers leave the score of {n} rows open by "
            f"{math.expm1(half_width):.0%} either way; a larger dim would give one"
        )
    return math.exp(min(max(log_score, 0.0), math.log(n))), None


def fold_noise(vectors: Any) -> float:
    """Measures the standard error that the sketch puts on a cosine between two rows, from the sketches alone.

    Folding a sketch gives two independent sketches of half the size, y1 + y2 and y1 - y2 of its two halves. Half the
    difference of their cosines has the error of the full sketch. For nearly orthogonal rows a dense sketch shows
    1 / sqrt(d); a larger value means a sketch that is noisier than its size promises.

    Args:
        vectors: (n, d) sketches in any container of `number_blocks`; n at least 2, d even.

    Raises:
        ValueError: fewer than two rows, or an odd width.

    Example:
        >>> rows = np.random.default_rng(0).standard_normal((200, 1024))
        >>> abs(fold_noise(rows) * 32 - 1) < 0.05
        True
    """
    rows = unit_rows(vectors)
    if len(rows) < 2 or rows.shape[1] % 2:
        raise ValueError(f"fold_noise needs at least 2 rows of even width, got shape {rows.shape}.")
    plus, minus = _folds(rows, 1)
    difference = plus @ plus.T - minus @ minus.T
    return float(np.sqrt(np.sum(difference**2) / (len(rows) * (len(rows) - 1))) / 2)


def score_noise(vectors: Any, order: float = 1.0) -> float:
    """Measures the relative standard error that the choice of one sketch puts on a Vendi score, raw or debiased.

    From the spread of the scores of eight folds, each an independent sketch of an eighth of the size. An interval says
    nothing about this error: all samples share one sketch. It falls with 1 / sqrt(d), and is large where rows share a
    direction, whose length the sketch gets wrong by sqrt(2 / d). Good to a factor of two: 128 numbers say little more.

    Args:
        vectors: (n, d) sketches in any container of `number_blocks`; n at least 2, d a multiple of 8.
        order: q > 0.

    Raises:
        ValueError: fewer than two rows, or a width that does not fold three times.

    Example:
        >>> rows = np.random.default_rng(0).standard_normal((100, 1024))
        >>> score_noise(rows) < 0.01 < score_noise(rows + 2 * rows[0])  # these share a direction
        True
    """
    rows = unit_rows(vectors)
    if len(rows) < 2 or rows.shape[1] % 8:
        raise ValueError(f"score_noise needs at least 2 rows whose width is a multiple of 8, got shape {rows.shape}.")
    logs = []
    for fold in _folds(rows, 3):
        matrix = fold @ fold.T if len(fold) <= fold.shape[1] else fold.T @ fold
        logs.append(log_vendi(np.linalg.eigvalsh(matrix).clip(0), order))
    return float(np.std(logs, ddof=1) / math.sqrt(len(logs)))


def _folds(rows: np.ndarray, times: int) -> list[np.ndarray]:
    """The 2^times sketches that Hadamard folds make of one: unit rows, zero where a fold leaves nothing."""
    folds = [rows]
    for _ in range(times):
        halves = [np.split(fold, 2, axis=1) for fold in folds]
        folds = [fold for left, right in halves for fold in (left + right, left - right)]
    lengths = [np.linalg.norm(fold, axis=1, keepdims=True) for fold in folds]
    return [fold / np.where(length > 0, length, 1) for fold, length in zip(folds, lengths, strict=True)]


def _log_score(shares: np.ndarray, n: int, dim: int, order: float) -> tuple[float, float]:
    """(log of the debiased score of order 0 < q <= 1, half the width that the part lost for n > d leaves open)."""
    gram = np.zeros(dim)
    gram[: min(len(shares), dim)] = n * shares[:dim]
    inverse = 1 / (gram + X[:, None])
    v = inverse.mean(axis=1)
    g = (dim / n) * np.mean(gram * inverse, axis=1)
    dv = np.mean(inverse**2, axis=1) * X * STEP
    slope = (dim / n) * v[0] ** 2 / np.mean(inverse[0] ** 2)  # dG / dlog v at v(0)
    tail, low, high = _tail(float(g[0]), float(slope), order) * v[0] ** -order
    if order == 1:
        known = math.log(n) - np.sum((v / (1 + v) - g) * dv / v**2) - math.log1p(1 / v[0])
        return known + tail, (high - low) / 2
    scale = math.sin(math.pi * order) / math.pi
    known = np.sum(g * dv / v ** (1 + order))
    log_score = math.log(n) + math.log(scale * (known + tail)) / (1 - order)
    return log_score, math.log((known + high) / (known + low)) / (1 - order) / 2


def _tail(g: float, slope: float, order: float) -> np.ndarray:
    """int_1^inf G dy / y^(1+q) for y = v / v(0): continued with the slope at 1, and its least and greatest value.

    1 - G is continued as (1 - g) (1 + g (y - 1))^-beta, which is exact (beta = 1) for equal eigenvalues.
    """
    beta = min(slope / (g * (1 - g)), 1.0) if g < 1 - 1e-9 else 1.0
    w = (np.arange(2000) + 0.5) / 2000  # w = y^-q
    y = w ** (-1 / order)
    tail = np.mean(1 - (1 - g) * (1 + g * (y - 1)) ** -beta) / order
    rising = -g * math.log(g) if order == 1 else (g**order - g) / (1 - order)
    return np.array([tail, g / order, rising + g**order / order])  # G stays at g; G = g y up to 1
