"""How strongly an outcome follows each of several factors that were varied at once: reasoning and surface, say.

An outcome may be an accuracy, or a measure of the datasets: a measure that follows the factors as the accuracy does is
one to choose data by. See `resampling` for the intervals.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .resampling import (
    DUST,
    Groups,
    Resampled,
    Values,
    correlation_matrices,
    drawn_counts,
    interval_of,
    require_varied,
    run_columns,
    with_values,
)


@dataclass(frozen=True, kw_only=True)
class Effect(Resampled):
    """A standardised regression coefficient, or the ratio of two: `value`."""

    value: float


def effects(outcome: Values, factors: Mapping[str, Values]) -> dict[str, float]:
    """How strongly an outcome follows each of several factors: coefficients of a regression on all of them at once.

    The values themselves count here, not their ranks. All are standardised, so that a coefficient says by how many
    standard deviations the outcome rises with one of the factor, the others held; least squares with an intercept.

    Args:
        outcome: One value a run; a measure, for instance.
        factors: By name, one value a run each: of reasoning and of surface, for instance.

    Raises:
        ValueError: No factor, fewer than 2 runs more than factors, different numbers of runs, a value that is no
            finite number, a constant input, or factors that determine each other.

    Example:
        >>> found = effects([0, 1, 4, 5], {"reasoning": [0, 0, 1, 1], "surface": [0, 1, 0, 1]})
        >>> {name: round(value, 3) for name, value in found.items()}
        {'reasoning': 0.97, 'surface': 0.243}
    """
    columns = _regressed(outcome, factors)
    return dict(zip(factors, _coefficients_over_all(columns).tolist(), strict=True))


def effects_with_intervals(
    outcome: Values,
    factors: Mapping[str, Values],
    *,
    groups: Groups | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> dict[str, Effect]:
    """The coefficients of `effects` with their bootstrap intervals.

    Args:
        outcome: One value a run.
        factors: By name, one value a run each.
        groups: A label a run; runs with the same one are drawn together.
        draws: Of the bootstrap.
        seed: Of the draws.

    Raises:
        ValueError: As `effects`; fewer than 3 groups or 100 draws; or most draws have no such regression.

    Example:
        >>> reasoning, surface = [0, 0, 0, 0, 1, 1, 1, 1], [0, 1, 0, 1, 0, 1, 0, 1]
        >>> found = effects_with_intervals([0, 1, 1, 2, 5, 5, 4, 6], {"reasoning": reasoning, "surface": surface})
        >>> found["reasoning"].interval[0] > found["surface"].value
        True
    """
    values, drawn, units = _regressions(outcome, factors, groups, draws, seed)
    rest = {"n": len(outcome), "units": units, "left_out": draws - len(drawn)}
    found = zip(factors, values.tolist(), drawn.T, strict=True)
    return {name: Effect(value=value, interval=interval_of(each, units), **rest) for name, value, each in found}


def ratio(
    outcome: Values,
    factors: Mapping[str, Values],
    first: str,
    second: str,
    *,
    groups: Groups | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> Effect:
    """How many times as strongly the outcome follows one factor as another: the ratio of the sizes of their `effects`.

    Look at the coefficients first. Where the interval of one holds zero, that of the ratio is not to be trusted: a
    size is never found to be zero, and over a factor that may have no effect, the ratio has no upper end.

    Args:
        outcome: One value a run.
        factors: By name, one value a run each.
        first: The name of one factor.
        second: The name of the factor that it is set against.
        groups: A label a run; runs with the same one are drawn together.
        draws: Of the bootstrap.
        seed: Of the draws.

    Raises:
        ValueError: As `effects_with_intervals`; an unknown name; or a second factor without any effect.

    Example:
        >>> reasoning, surface = [0, 0, 0, 0, 1, 1, 1, 1], [0, 1, 0, 1, 0, 1, 0, 1]
        >>> factors = {"reasoning": reasoning, "surface": surface}
        >>> round(ratio([0, 1, 1, 2, 5, 5, 4, 6], factors, "reasoning", "surface").value, 3)
        4.0
    """
    names = list(factors)
    if unknown := [name for name in (first, second) if name not in names]:
        raise ValueError(f"{unknown[0]!r} is not among the factors {', '.join(map(repr, names))}.")
    values, drawn, units = _regressions(outcome, factors, groups, draws, seed)
    one, other = names.index(first), names.index(second)
    if abs(values[other]) <= DUST:
        raise ValueError(f"The outcome does not follow {second!r} at all, so nothing can be set against it.")
    sizes = np.abs(drawn)
    ratios = sizes[:, one] / np.maximum(sizes[:, other], DUST)
    rest = {"n": len(outcome), "units": units, "left_out": draws - len(drawn)}
    return Effect(value=float(abs(values[one] / values[other])), interval=interval_of(ratios, units), **rest)


def _regressed(outcome: Values, factors: Mapping[str, Values]) -> dict[str, np.ndarray]:
    if not factors:
        raise ValueError("effects need a factor at least.")
    named = {f"factors[{name!r}]": values for name, values in factors.items()}
    columns = run_columns({"outcome": outcome, **named}, len(factors) + 2)
    require_varied(columns)
    return columns


def _coefficients(correlations: np.ndarray) -> np.ndarray:
    """(draws, k - 1) of the first column on the others; NaN where one is constant or factors determine each other."""
    factors = correlations[:, 1:, 1:]
    sound = (np.linalg.eigvalsh(factors)[:, 0] > DUST) & (correlations[:, 0, 0] > 0)
    found = np.linalg.pinv(factors, rcond=DUST, hermitian=True) @ correlations[:, 1:, :1]
    return np.where(sound[:, None], found[:, :, 0], np.nan)


def _standardised(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """(1, k, n), so that what counts as constant in a draw does not depend on units."""
    values = np.stack(list(columns.values()))
    return ((values - values.mean(axis=1, keepdims=True)) / values.std(axis=1, keepdims=True))[None]


def _coefficients_over_all(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    correlations = correlation_matrices(_standardised(columns), np.ones((1, len(columns["outcome"]))))
    sizes, directions = np.linalg.eigh(correlations[0, 1:, 1:])
    if sizes[0] <= DUST:
        involved = np.abs(directions[:, 0]) > 1e-6
        names = [name for name, part in zip(list(columns)[1:], involved, strict=True) if part]
        raise ValueError(
            f"{', '.join(names)} determine each other, so their effects cannot be told apart. Leave one out."
        )
    return _coefficients(correlations)[0]


def _regressions(
    outcome: Values, factors: Mapping[str, Values], groups: Groups | None, draws: int, seed: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """The coefficients over all runs, those of each draw that has any, and the number of units."""
    columns = _regressed(outcome, factors)
    values = _coefficients_over_all(columns)
    counts, units = drawn_counts(len(columns["outcome"]), groups, draws, seed)
    return values, with_values(_coefficients(correlation_matrices(_standardised(columns), counts))), units
