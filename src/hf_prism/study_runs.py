"""The runs of a study as columns: what must be there for anything to be said of them, and what is said if it is not.

A run is a student trained on one dataset. Its row has what was varied, what was measured, and how accurate it became.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .resampling import require_varied


LEAST_RUNS = 10

EXPONENTS = ("skew",)
"""Factors that are no counts, even where their levels are whole numbers."""


@dataclass(frozen=True, kw_only=True)
class Factor:
    """What was varied between datasets.

    Attributes:
        name: As in the column, without `factor.`.
        levels: The number of runs at each value, in order.
        doubles: Whether a doubling is a unit of its effects.
    """

    name: str
    levels: dict[float, int]
    doubles: bool

    @property
    def varied(self) -> bool:
        """Whether it has more than one level."""
        return len(self.levels) > 1


@dataclass(frozen=True, kw_only=True)
class StudyRuns:
    """Runs that can be set beside each other.

    Attributes:
        names: One a run.
        columns: (n,) finite numbers by the name of the column: of rows, tokens, factors, measures and accuracies.
        factors: In the order of their columns.
        origin: The study, base and feature_id that all runs share; empty where they do not say.
    """

    names: list[str]
    columns: dict[str, np.ndarray]
    factors: list[Factor]
    origin: dict[str, str]

    @property
    def measures(self) -> list[str]:
        """The keys of the measures."""
        return _after("measure.", self.columns)

    @property
    def benchmarks(self) -> list[str]:
        """Their names."""
        return _after("accuracy.", self.columns)

    @property
    def compositions(self) -> list[tuple[float, ...]]:
        """The levels of all factors, one a run: runs with the same ones belong together."""
        return list(zip(*(self.levels_of(factor).tolist() for factor in self.factors), strict=True))

    def levels_of(self, factor: Factor) -> np.ndarray:
        """(n,) the level of a factor in each run."""
        return self.columns[f"factor.{factor.name}"]

    def scaled(self, factor: Factor) -> np.ndarray:
        """(n,) the same in units of its effects."""
        return np.log2(self.levels_of(factor)) if factor.doubles else self.levels_of(factor)


def study_runs(runs: Mapping[str, Sequence[Any]]) -> StudyRuns:
    """Check the runs of a study. The columns are told of in `study_findings`.

    Raises:
        ValueError: As `study_findings`.

    Example:
        >>> study_runs({"run": ["one"], "ood": [0.5]})
        Traceback (most recent call last):
        ...
        ValueError: The runs have no column 'n', 'tokens', 'in_distribution', 'measure.g_vendi', 'factor.*', ...
    """
    names = _checked(runs)
    columns = {name: _numbers(name, runs[name], names) for name in runs if _is_number(name)}
    require_varied({name: columns[name] for name in ("ood", "measure.g_vendi")})
    factors = [_factor(name, columns[name]) for name in columns if name.startswith("factor.")]
    origin = {name: _the_one(name, runs) for name in ("study", "base", "feature_id")}
    return StudyRuns(names=names, columns=columns, factors=factors, origin=origin)


def _checked(runs: Mapping[str, Sequence[Any]]) -> list[str]:
    """The names of the runs, if all that is needed is there."""
    found = list(runs)
    needed = ["run", "n", "tokens", "in_distribution", "ood", "measure.g_vendi"]
    absent = [repr(name) for name in needed if name not in found]
    absent += [repr(f"{kind}*") for kind in ("factor.", "accuracy.") if not _after(kind, found)]
    if absent:
        raise ValueError(
            f"The runs have no column {', '.join(absent)}. Found: {', '.join(map(str, found)) or 'none'}. "
            "Is this the file of runs that the study wrote?"
        )
    names = [str(name) for name in runs["run"]]
    if not names:
        raise ValueError("There are no runs: the table has columns, but no row. Did the study finish any?")
    if len(names) < LEAST_RUNS:
        raise ValueError(f"{len(names)} runs are too few to correlate anything: {LEAST_RUNS} are needed.")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"Run {twice[0]!r} is there more than once, and so {len(twice)} names: keep one row of each.")
    return names


def _is_number(name: str) -> bool:
    return name in ("n", "tokens", "ood", "in_distribution") or name.startswith(("factor.", "measure.", "accuracy."))


def _numbers(name: str, values: Sequence[Any], names: list[str]) -> np.ndarray:
    try:
        column = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Column {name!r} must hold numbers: {error}") from error
    if len(bad := np.flatnonzero(~np.isfinite(column))):
        raise ValueError(
            f"{name!r} of run {names[bad[0]]!r} is {column[bad[0]]}, and so {len(bad)} of {len(column)}. Did the run "
            "fail, or could the measure not be computed? Repeat the run, or drop the column from all runs."
        )
    return column


def _the_one(name: str, runs: Mapping[str, Sequence[Any]]) -> str:
    """What all runs have in common, or they cannot be compared."""
    found = sorted({str(value) for value in runs[name]}) if name in list(runs) else [""]
    if len(found) > 1:
        raise ValueError(
            f"The runs have {len(found)} values of {name!r}: {', '.join(found[:5])}. Measures compare only within "
            "one: give the runs of one at a time."
        )
    return found[0]


def _after(start: str, names: Iterable[str]) -> list[str]:
    return [name.removeprefix(start) for name in names if name.startswith(start)]


def _factor(column: str, values: np.ndarray) -> Factor:
    name = column.removeprefix("factor.")
    levels, counts = np.unique(values, return_counts=True)
    is_count = name not in EXPONENTS and bool(np.all((levels >= 1) & (levels == np.round(levels))))
    return Factor(name=name, levels=dict(zip(levels.tolist(), counts.tolist(), strict=True)), doubles=is_count)
