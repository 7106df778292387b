"""How well a measure of datasets orders what comes of training on them: rank correlations over runs, with intervals.

A run is a row: the measure of its dataset, and its outcome. See `resampling` for the intervals.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .resampling import (
    DUST,
    LEAST,
    Groups,
    Resampled,
    Values,
    correlation_matrices,
    drawn_counts,
    interval_of,
    require_varied,
    run_column,
    run_columns,
    with_values,
)


@dataclass(frozen=True, kw_only=True)
class Correlation(Resampled):
    """A rank correlation over runs: `rho`, Spearman's or its partial form."""

    rho: float


@dataclass(frozen=True, kw_only=True)
class Difference(Resampled):
    """How much better one measure orders the same runs than another does.

    Attributes:
        difference: Of the correlations, the first minus the second.
        below_zero: The share of draws in which the second has the larger correlation; a tie counts half.
    """

    difference: float
    below_zero: float


def ranks(values: Values) -> np.ndarray:
    """Ranks from 1 on; equal values share the mean of theirs.

    Raises:
        ValueError: A value that is no finite number.

    Example:
        >>> ranks([0.3, 0.1, 0.3, 0.9]).tolist()
        [2.5, 1.0, 2.5, 4.0]
    """
    column = run_column("values", values)
    return _ranked(column, np.ones((1, len(column))))[0] if len(column) else column


def spearman(measure: Values, outcome: Values) -> float:
    """Spearman's rank correlation of a measure and an outcome.

    Args:
        measure: One value a run.
        outcome: One value a run, in the same order.

    Raises:
        ValueError: Fewer than 3 runs, different numbers of them, a value that is no finite number, or a constant
            input.

    Example:
        >>> round(spearman([1, 2, 3, 4], [0.2, 0.5, 0.4, 0.9]), 6)
        0.8
    """
    return partial_spearman(measure, outcome, {})


def partial_spearman(measure: Values, outcome: Values, given: Mapping[str, Values]) -> float:
    """The rank correlation that is left between runs alike in what is given, such as their number of rows.

    It is the correlation of the residuals that least squares leave of both ranks, on the ranks of the covariates and
    an intercept. A covariate that is constant over all runs explains nothing and is ignored.

    Args:
        measure: One value a run.
        outcome: One value a run, in the same order.
        given: Covariates by name, one value a run each.

    Raises:
        ValueError: As `spearman`; or fewer than 3 runs more than covariates; or the covariates determine an input, so
            that nothing of it is left.

    Example:
        >>> rows = [1, 1, 2, 2, 3, 3]
        >>> round(partial_spearman([1, 2, 3, 4, 5, 6], [2, 1, 4, 3, 6, 5], {"rows": rows}), 6)
        -1.0
    """
    return _partial_over_all(_correlated(measure, outcome, given))


def correlate(
    measure: Values,
    outcome: Values,
    *,
    given: Mapping[str, Values] | None = None,
    groups: Groups | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> Correlation:
    """A rank correlation with its bootstrap interval.

    Args:
        measure: One value a run.
        outcome: One value a run, in the same order.
        given: Covariates by name, as of `partial_spearman`.
        groups: A label a run; runs with the same one are drawn together.
        draws: Of the bootstrap.
        seed: Of the draws.

    Raises:
        ValueError: As `partial_spearman`; fewer than 3 groups or 100 draws; or most draws have no correlation.

    Example:
        >>> found = correlate([1, 2, 3, 4, 5, 6, 7, 8], [1, 3, 2, 5, 4, 7, 8, 6])
        >>> round(found.rho, 3), found.interval[0] > 0, found.left_out
        (0.881, True, 0)
    """
    columns = _correlated(measure, outcome, given or {})
    rho = _partial_over_all(columns)
    counts, units = drawn_counts(len(columns["measure"]), groups, draws, seed)
    drawn = with_values(_partial(correlation_matrices(_all_ranked(columns, counts), counts)))
    left_out = draws - len(drawn)
    return Correlation(rho=rho, interval=interval_of(drawn, units), n=counts.shape[1], units=units, left_out=left_out)


def difference(
    first: Values,
    second: Values,
    outcome: Values,
    *,
    groups: Groups | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> Difference:
    """How much higher the first measure's rank correlation with the outcome is than the second's, on the same runs.

    Signs count: negate a measure that is lower for more diverse data.

    Args:
        first: One value a run.
        second: Another measure of the same runs.
        outcome: One value a run, in the same order.
        groups: A label a run; runs with the same one are drawn together.
        draws: Of the bootstrap.
        seed: Of the draws.

    Raises:
        ValueError: As `correlate`.

    Example:
        >>> found = difference([1, 2, 3, 4, 5, 6], [4, 1, 6, 2, 5, 3], [1, 2, 3, 5, 4, 6])
        >>> round(found.difference, 3), found.below_zero < 0.05
        (1.029, True)
    """
    columns = run_columns({"first": first, "second": second, "outcome": outcome})
    require_varied(columns)
    gap = spearman(first, outcome) - spearman(second, outcome)
    counts, units = drawn_counts(len(columns["outcome"]), groups, draws, seed)
    found = correlation_matrices(_all_ranked(columns, counts), counts)
    constant = np.diagonal(found, axis1=1, axis2=2).min(axis=1) == 0
    drawn = with_values(np.where(constant, np.nan, found[:, 0, 2] - found[:, 1, 2]))
    below = float((drawn < -DUST).mean() + (np.abs(drawn) <= DUST).mean() / 2)
    rest = {"n": counts.shape[1], "units": units, "left_out": draws - len(drawn)}
    return Difference(difference=gap, interval=interval_of(drawn, units), below_zero=below, **rest)


def _correlated(measure: Values, outcome: Values, given: Mapping[str, Values]) -> dict[str, np.ndarray]:
    covariates = {f"given[{name!r}]": values for name, values in given.items()}
    columns = run_columns({"measure": measure, "outcome": outcome, **covariates})
    require_varied({name: columns[name] for name in ("measure", "outcome")})
    # A constant covariate is no column of the regression, here and in every draw.
    columns = {name: column for name, column in columns.items() if column.min() < column.max()}
    return run_columns(columns, len(columns) - 2 + LEAST)


def _ranked(column: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """(draws, n): the mean rank of each run's value in each draw, in which a run counts as often as `counts` says."""
    _, level, sizes = np.unique(column, return_inverse=True, return_counts=True)
    starts = np.cumsum(sizes) - sizes
    tied = np.add.reduceat(counts[:, np.argsort(level, kind="stable")], starts, axis=1)
    return (np.cumsum(tied, axis=1) - tied / 2 + 0.5)[:, level]


def _all_ranked(columns: Mapping[str, np.ndarray], counts: np.ndarray) -> np.ndarray:
    return np.stack([_ranked(column, counts) for column in columns.values()], axis=1)


def _residual(correlations: np.ndarray) -> np.ndarray:
    """(draws, 2, 2) covariances of what the other columns leave of the first two."""
    cross, others = correlations[:, :2, 2:], correlations[:, 2:, 2:]
    inverse = np.linalg.pinv(others, rcond=DUST, hermitian=True)
    return correlations[:, :2, :2] - cross @ inverse @ cross.swapaxes(1, 2)


def _partial(correlations: np.ndarray) -> np.ndarray:
    """(draws,) correlations of the first two columns given the others; NaN where nothing is left of one."""
    left = _residual(correlations)
    one, other = left[:, 0, 0], left[:, 1, 1]
    size = np.sqrt(np.where(np.minimum(one, other) > DUST, one * other, np.nan))
    return np.clip(left[:, 0, 1] / size, -1, 1)


def _partial_over_all(columns: Mapping[str, np.ndarray]) -> float:
    once = np.ones((1, len(columns["measure"])))
    correlations = correlation_matrices(_all_ranked(columns, once), once)
    for name, left in zip(columns, np.diagonal(_residual(correlations)[0]), strict=False):
        if left <= DUST:
            raise ValueError(
                f"The ranks of {', '.join(list(columns)[2:])} determine those of {name}: nothing is left of it."
            )
    return float(_partial(correlations)[0])
