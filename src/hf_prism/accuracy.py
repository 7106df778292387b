"""How accurate a student is, and how sure that is: problems are a sample of all problems, and answers of all answers.

Verdicts come as a matrix, a row a problem and a column a sample. Two things vary: which problems a benchmark happens to hold,
and what the student happened to answer. The error over both says how far the accuracy on other problems of the same kind
may be; the error over samples alone, how far another run on the same problems may be.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


Z_95 = 1.959963984540054
FLIPS = 10_000
"""Random sign patterns of a test; of up to `EXACT` problems that differ, all patterns."""

EXACT = 12


@dataclass(frozen=True)
class Accuracy:
    """The accuracy on a benchmark.

    Attributes:
        accuracy: The mean verdict, between 0 and 1: pass@1.
        standard_error: Over problems and samples together; None for a single problem.
        standard_error_samples: Over samples alone, the problems being these; None for a single sample a problem.
        interval: 95 %, over problems and samples; None for a single problem.
        problems: How many.
        samples: Of each problem.
    """

    accuracy: float
    standard_error: float | None
    standard_error_samples: float | None
    interval: tuple[float, float] | None
    problems: int
    samples: int

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Difference:
    """How much more accurate one student is than another on the same problems.

    Attributes:
        difference: Of the accuracies, the first minus the second.
        standard_error: Of it, over problems and samples, problem by problem; None for a single problem.
        interval: 95 %; None for a single problem.
        p_value: Of the hypothesis that for every problem the two are alike; from flipped signs.
        better: Problems at which the first is better.
        worse: Problems at which it is worse.
        problems: How many.
    """

    difference: float
    standard_error: float | None
    interval: tuple[float, float] | None
    p_value: float
    better: int
    worse: int
    problems: int

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def accuracy(verdicts: np.ndarray | Sequence[Sequence[float]]) -> Accuracy:
    """Accuracy with its errors.

    The standard error is that of the mean of n problems' shares, which holds both kinds of variation (Miller,
    arXiv 2411.00640). The interval is Wilson's, for as many independent answers as have the same standard error; it stays
    within 0 and 1, and has a width where every answer is right.

    Args:
        verdicts: (n, k), 1 for right and 0 for wrong; shares in between count as such.

    Raises:
        ValueError: No verdicts, or some beyond 0 and 1.

    Example:
        >>> found = accuracy([[1, 1], [1, 0], [0, 0], [1, 1]])
        >>> found.accuracy, round(found.standard_error, 3), round(found.standard_error_samples, 3)
        (0.625, 0.239, 0.125)
    """
    values = _matrix(verdicts)
    n, k = values.shape
    means = values.mean(axis=1)
    mean = float(means.mean())
    within = math.sqrt(float(values.var(axis=1, ddof=1).sum()) / k) / n if k > 1 else None
    if n == 1:
        return Accuracy(mean, None, within, None, n, k)
    error = float(means.std(ddof=1)) / math.sqrt(n)
    return Accuracy(mean, error, within, _wilson(mean, error, n, k), n, k)


def difference(
    one: np.ndarray | Sequence[Sequence[float]], other: np.ndarray | Sequence[Sequence[float]], *, seed: int = 0
) -> Difference:
    """Compare two students on the same problems, problem by problem.

    What makes a problem hard for both cancels, so that the interval is narrower than that of two separate accuracies. The
    p-value is exact for any number of problems: under the hypothesis every difference could as well have the other sign.

    Args:
        one: (n, k) verdicts.
        other: (n, m) verdicts on the same problems in the same order.
        seed: Draws the signs, where there are too many patterns to try all.

    Raises:
        ValueError: Different numbers of problems, no verdicts, or some beyond 0 and 1.

    Example:
        >>> found = difference([[1], [1], [0], [1]], [[0], [1], [0], [1]])
        >>> found.difference, found.better, found.worse, found.p_value
        (0.25, 1, 0, 1.0)
    """
    first, second = _matrix(one), _matrix(other)
    if len(first) != len(second):
        raise ValueError(f"{len(first)} problems of one student and {len(second)} of the other cannot be paired.")
    gaps = first.mean(axis=1) - second.mean(axis=1)
    n, mean = len(gaps), float(gaps.mean())
    counts = {"better": int((gaps > 0).sum()), "worse": int((gaps < 0).sum()), "problems": n}
    p_value = _flipped(gaps, seed)
    if n == 1:
        return Difference(mean, None, None, p_value, **counts)
    error = float(gaps.std(ddof=1)) / math.sqrt(n)
    half = student_t(n - 1) * error
    if error == 0:  # all gaps are alike: of other problems about 3 / n at most would have another one
        half = 1 - 0.025 ** (1 / n)
    return Difference(mean, error, (max(-1.0, mean - half), min(1.0, mean + half)), p_value, **counts)


def mean_of(values: Sequence[float], errors: Sequence[float | None]) -> tuple[float, float | None]:
    """The mean over benchmarks and its standard error, each benchmark counting the same; None if one is unknown.

    Example:
        >>> mean_of([0.5, 0.7], [0.03, 0.04])
        (0.6, 0.025)
    """
    known = [error for error in errors if error is not None]
    error = math.sqrt(math.fsum(each**2 for each in known)) / len(values) if len(known) == len(values) else None
    return math.fsum(values) / len(values), error


def student_t(freedom: int) -> float:
    """The 97.5 % quantile of Student's t, to three digits from three degrees of freedom on.

    Example:
        >>> round(student_t(29), 3)
        2.045
    """
    exact = {1: 12.7062, 2: 4.30265, 3: 3.18245, 4: 2.77645}
    if freedom in exact:
        return exact[freedom]
    z, v = Z_95, float(freedom)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / v ** (i + 1) for i, term in enumerate(terms))  # Abramowitz and Stegun 26.7.5


def _matrix(verdicts: np.ndarray | Sequence[Sequence[float]]) -> np.ndarray:
    values = np.asarray(verdicts, dtype=np.float64)
    if values.ndim != 2 or not values.size:
        raise ValueError(f"verdicts must be a row a problem and a column a sample, got the shape {values.shape}.")
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
        raise ValueError(f"verdicts lie between 0 and 1, got {values.min()} to {values.max()}.")
    return values


def _wilson(mean: float, error: float, n: int, k: int) -> tuple[float, float]:
    """Wilson's interval for as many answers as would have this error; for `n` where the error cannot be told."""
    size = min(mean * (1 - mean) / error**2, float(n * k)) if error > 0 else float(n)
    t = student_t(n - 1)
    centre = (mean + t**2 / (2 * size)) / (1 + t**2 / size)
    half = t / (1 + t**2 / size) * math.sqrt(mean * (1 - mean) / size + t**2 / (4 * size**2))
    # Without the rounding at an end that the mean itself reaches.
    return (0.0 if mean == 0 else max(0.0, centre - half)), (1.0 if mean == 1 else min(1.0, centre + half))


def _flipped(gaps: np.ndarray, seed: int) -> float:
    """The share of sign patterns whose mean is at least as far from zero as that of the data."""
    gaps = gaps[gaps != 0]
    if not len(gaps):
        return 1.0
    # Equal sums that rounding tells apart count as equal.
    reached = abs(gaps.sum()) * (1 - 1e-9)
    if len(gaps) <= EXACT:
        signs = np.array(list(itertools.product((-1.0, 1.0), repeat=len(gaps))))
        return float((np.abs(signs @ gaps) >= reached).mean())
    random = np.random.Generator(np.random.Philox(key=seed))
    far = 0
    for _ in range(10):
        signs = random.integers(0, 2, size=(FLIPS // 10, len(gaps)), dtype=np.int8) * np.int8(2) - np.int8(1)
        far += int((np.abs(signs @ gaps) >= reached).sum())
    return (far + 1) / (FLIPS + 1)
