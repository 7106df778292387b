"""Bootstraps over runs: what correlations and effects share.

Runs are a sample of the runs that could have been made, so every interval is from a bootstrap over runs; where runs
belong together (seeds of one dataset, datasets of one pool), it is over groups of them, since then they say less than
their number suggests.

A draw is not a copy of the data but a count of each run in it. Ranks, correlations and regressions all follow from
such counts, so that groups of any size cost nothing more, and a few thousand draws take a tenth of a second.

The intervals are 95 %, between expanded percentiles (Hesterberg, arXiv 1411.5279): as far out as Student's t is, for
the number of runs or groups. Measured coverage of a true Spearman correlation from 0 to .95: 95 to 96 % with 60 runs,
96 to 98 % with 20, with ties or without. With 10 groups of 8 runs that are alike it is 95 to 98 %; plain percentiles
have 92 to 94 % there, and an interval that ignores the groups 73 to 78 %. Those of differences, partial correlations,
effects and ratios cover 94 to 99 %, with 20 runs and with 60. Below about 10 runs trust none; where all ranks agree
the interval has no width.

The same seed draws the same runs for every measure. Another order of the runs changes the draws, and so the ends of
an interval a little, but no estimate.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np

from .accuracy import student_t


Values: TypeAlias = np.ndarray | Sequence[float]
Groups: TypeAlias = np.ndarray | Sequence[Hashable]

LEAST = 3
"""Runs, or groups of them, below which nothing can be said."""

DUST = 1e-9
"""A share of the variance that is rounding."""


@dataclass(frozen=True, kw_only=True)
class Resampled:
    """What every estimate from a bootstrap has.

    Attributes:
        interval: 95 %.
        n: Runs.
        units: What was resampled: groups, or runs.
        left_out: Draws without a value: an input was constant in them, or determined by others.
    """

    interval: tuple[float, float]
    n: int
    units: int
    left_out: int

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def run_column(name: str, values: Values) -> np.ndarray:
    """(n,) finite numbers, or an error that says which is none."""
    try:
        column = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be a list of numbers, one a run: {error}") from error
    if column.ndim != 1:
        raise ValueError(f"{name} must be a list of numbers, one a run, got the shape {column.shape}.")
    if len(bad := np.flatnonzero(~np.isfinite(column))):
        raise ValueError(
            f"{name} of run {bad[0]} (counted from 0) is {column[bad[0]]}, and so {len(bad)} of {len(column)}. "
            "Did a run fail? Leave it out of all inputs."
        )
    return column


def run_columns(named: Mapping[str, Values], least: int = LEAST) -> dict[str, np.ndarray]:
    """Columns of the same runs, `least` at least."""
    columns = {name: run_column(name, values) for name, values in named.items()}
    sizes = {name: len(column) for name, column in columns.items()}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise ValueError(f"Each input needs one value a run, got different numbers: {listed}.")
    if (n := next(iter(sizes.values()))) < least:
        raise ValueError(f"{n} runs are too few: {', '.join(columns)} need {least} at least.")
    return columns


def require_varied(columns: Mapping[str, np.ndarray]) -> None:
    """An error that names a constant column, if there is one."""
    for name, column in columns.items():
        if column.min() == column.max():
            raise ValueError(f"{name} is {column[0]} in all {len(column)} runs: a constant correlates with nothing.")


def drawn_counts(n: int, groups: Groups | None, draws: int, seed: int) -> tuple[np.ndarray, int]:
    """(draws, n): how often each run is in each draw. And the number of what was drawn, runs or groups."""
    if draws < 100:
        raise ValueError(f"draws must be 100 at least for the ends of an interval, got {draws}.")
    labels = list(range(n)) if groups is None else list(groups)
    if len(labels) != n:
        raise ValueError(f"groups has {len(labels)} labels for {n} runs; it needs one a run.")
    places = {label: place for place, label in enumerate(dict.fromkeys(labels))}
    if (units := len(places)) < LEAST:
        raise ValueError(
            f"{units} groups are too few to resample, {LEAST} are needed: {', '.join(map(repr, places))}."
        )
    random = np.random.Generator(np.random.Philox(key=seed))
    drawn = random.multinomial(units, np.full(units, 1 / units), size=draws)
    return drawn[:, [places[label] for label in labels]].astype(np.float64), units


def correlation_matrices(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """(draws, k, k) correlations of (draws or 1, k, n) values. A constant has none: zeros, on the diagonal too."""
    shares = (counts / counts.sum(axis=1, keepdims=True))[:, None]
    centred = values - values @ shares.swapaxes(1, 2)
    covariance = (centred * shares) @ centred.swapaxes(1, 2)
    scale = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    scale = np.where(scale > DUST, scale, np.inf)
    return covariance / (scale[:, :, None] * scale[:, None, :])


def with_values(drawn: np.ndarray) -> np.ndarray:
    """The draws that have a value."""
    found = drawn[~np.isnan(drawn.reshape(len(drawn), -1)[:, 0])]
    if 2 * len(found) < len(drawn):
        raise ValueError(
            f"{len(drawn) - len(found)} of {len(drawn)} draws leave an input constant, or determined by others: "
            "too few runs or groups differ in it for an interval."
        )
    return found


def interval_of(drawn: np.ndarray, units: int) -> tuple[float, float]:
    """Percentiles of the draws, as far out as t is for this number of units: draws vary less than samples do."""
    t = math.sqrt(units / (units - 1)) * student_t(units - 1)
    tail = math.erfc(t / math.sqrt(2)) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail]).tolist()
    return low, high
