"""What a study says: how well each measure of datasets orders students by their accuracy, and what each follows.

A study trains many students on datasets of one size whose composition varies by factors, and measures every dataset
before. Here its runs become numbers; `study_report` draws them.

- Signs: a measure that is lower for more diverse data is turned round before anything else, so that a correlation or
  effect above zero always means that more diversity goes with more of the other. A measure that is no measure of
  diversity keeps its sign, but is set against G-Vendi with the sign that favours it, as if one had known.
- Intervals are from a bootstrap over compositions: runs with the same values of all factors are drawn together.
- Effects are of a count's logarithm to base 2, so that doubling is a unit, and of an exponent as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np

from .baselines import LESS, MEASURES, MORE, NEITHER
from .correlation import Correlation, Difference, correlate, difference
from .effects import Effect, effects_with_intervals, ratio
from .study_runs import Factor, StudyRuns, study_runs


FEW = 10
"""Compositions below which no interval is to be trusted."""

OURS = {"g_vendi": "G-Vendi", "g_vendi_debiased": "G-Vendi, debiased"}
CEILING = {"oracle": "entropy of the true skeletons"}
"""What nobody has in reality: the best that any measure could be, and never a baseline."""

Found = TypeVar("Found")


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How values lie: their number, the extremes, and the quartiles."""

    runs: int
    least: float
    lower_quartile: float
    median: float
    upper_quartile: float
    most: float


@dataclass(frozen=True, kw_only=True)
class MeasureFindings:
    """What there is to say of one measure.

    Attributes:
        key: As in the column, without `measure.`.
        name: For people.
        role: "ours", "baseline", or "ceiling".
        reads_as: What a higher or lower value means.
        ood: Its rank correlation with the accuracy out of distribution.
        in_distribution: And in distribution; None where that is the same in all runs.
        benchmarks: And with that of each benchmark, with the same exception.
        given: The covariates of `partial`.
        partial: The rank correlation with the accuracy out of distribution between datasets alike in the covariates;
            None where they leave nothing.
        g_vendi_leads_by: By how much G-Vendi's correlation out of distribution is higher; None for itself.
        effects: Of each factor that varied, on the measure.
        ratio: The size of the first factor's effect over that of the second; None unless both varied.
    """

    key: str
    name: str
    role: str
    reads_as: str
    ood: Correlation
    in_distribution: Correlation | None
    benchmarks: dict[str, Correlation | None]
    given: list[str]
    partial: Correlation | None
    g_vendi_leads_by: Difference | None
    effects: dict[str, Effect]
    ratio: Effect | None

    @property
    def turned(self) -> bool:
        """Whether its sign was changed, so that higher is more diverse."""
        return self.reads_as == LESS


@dataclass(frozen=True, kw_only=True)
class StudyFindings:
    """What `study_findings` found.

    Attributes:
        study: Its name, and with which base and gradients; empty where the runs do not say.
        base: See `study`.
        feature_id: See `study`.
        runs: How many.
        compositions: Different combinations of the factors' levels.
        rows: The sizes of the datasets, each once.
        factors: All, in the order of their columns. The first is reasoning, the second surface.
        ood: Accuracy out of distribution of all runs.
        in_distribution: And in distribution.
        benchmarks: And on each benchmark.
        by_level: The runs at each level of the first factor: the level, and both accuracies.
        effects: Of the factors on both accuracies, as of `MeasureFindings`.
        ratios: Of the first two effects on both accuracies.
        measures: The best rank correlation out of distribution first.
        left_out: Measures that say nothing here, with the reason. No run is ever left out.
        notes: Other things that could not be computed, with the reason, and what limits the rest.
        draws: Of the bootstrap.
        seed: Of the draws.
    """

    study: str
    base: str
    feature_id: str
    runs: int
    compositions: int
    rows: list[int]
    factors: list[Factor]
    ood: Spread
    in_distribution: Spread
    benchmarks: dict[str, Spread]
    by_level: list[tuple[float, Spread, Spread]]
    effects: dict[str, dict[str, Effect]]
    ratios: dict[str, Effect | None]
    measures: list[MeasureFindings]
    left_out: dict[str, str]
    notes: list[str]
    draws: int
    seed: int

    @property
    def g_vendi(self) -> MeasureFindings:
        """The measure that the others are set against."""
        return next(each for each in self.measures if each.key == "g_vendi")

    @property
    def baselines(self) -> list[MeasureFindings]:
        """The measures that are neither ours nor a ceiling; the closest rival of G-Vendi first."""
        others = (each for each in self.measures if each.role == "baseline" and each.g_vendi_leads_by)
        return sorted(others, key=lambda each: each.g_vendi_leads_by.difference if each.g_vendi_leads_by else 0.0)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values. Levels of factors become pairs: JSON has no keys that are numbers."""
        plain = asdict(self)
        for factor in plain["factors"]:
            factor["levels"] = [[level, count] for level, count in factor["levels"].items()]
        return plain | {"runs_left_out": 0}


def study_findings(runs: Mapping[str, Sequence[Any]], *, seed: int = 0, draws: int = 2000) -> StudyFindings:
    """Set every measure of a study beside the accuracy of its students.

    Args:
        runs: Columns by name, one value a run each; a data frame will do. `run` is its name; `n` and `tokens` are rows
            and tokens of its dataset; `factor.NAME` is what varied, reasoning first and surface second; `measure.KEY`
            has `measure.g_vendi` among it, and keys of `baselines.MEASURES`; `accuracy.BENCHMARK`, `ood` and
            `in_distribution` are accuracies. `study`, `base` and `feature_id` may be there too.
        seed: Of the bootstrap.
        draws: Of the bootstrap.

    Raises:
        ValueError: A column is missing; there are fewer than 10 runs, or two of one name; they are of more than one
            study, base or feature_id; a value is no finite number; or all runs have the same G-Vendi or the same
            accuracy out of distribution.

    Example:
        >>> counts = [1, 2, 4, 8, 16, 32] * 2
        >>> found = study_findings({
        ...     "run": [f"run-{number}" for number in range(12)], "n": [100] * 12, "tokens": [5000] * 12,
        ...     "factor.reasoning": counts, "factor.surface": [1] * 6 + [8] * 6,
        ...     "measure.g_vendi": [10 + count for count in counts], "measure.distinct_2": [0.1, 0.2] * 6,
        ...     "accuracy.new": counts, "ood": counts, "in_distribution": counts,
        ... })
        >>> [(each.name, round(each.ood.rho, 2)) for each in found.measures]
        [('G-Vendi', 1.0), ('distinct-2', 0.29)]
    """
    checked = study_runs(runs)
    study = _Study(checked, draws, seed)
    left_out: dict[str, str] = {}
    measures = [found for key in checked.measures if (found := study.measure(key, left_out))]
    accuracies = {name: checked.columns[name] for name in ("ood", "in_distribution")}
    return StudyFindings(
        **checked.origin,
        runs=len(checked.names),
        compositions=len(set(study.groups)),
        rows=np.unique(checked.columns["n"]).astype(int).tolist(),
        factors=checked.factors,
        ood=_spread(accuracies["ood"]),
        in_distribution=_spread(accuracies["in_distribution"]),
        benchmarks={name: _spread(checked.columns[f"accuracy.{name}"]) for name in checked.benchmarks},
        by_level=_by_level(checked),
        effects={name: study.effects(name, values) for name, values in accuracies.items()},
        ratios={name: study.ratio(name, values) for name, values in accuracies.items()},
        measures=sorted(measures, key=lambda each: -_strength(each)),
        left_out=left_out,
        notes=study.all_notes(),
        draws=draws,
        seed=seed,
    )


class _Study:
    """What is computed from the runs, with the same draws."""

    def __init__(self, runs: StudyRuns, draws: int, seed: int) -> None:
        self.columns, self.benchmarks, self.groups = runs.columns, runs.benchmarks, runs.compositions
        self.draws, self.seed = draws, seed
        self.factors = {each.name: runs.scaled(each) for each in runs.factors if each.varied}
        self.first_two = [each.name for each in runs.factors[:2] if each.varied]
        self.notes: list[str] = []

    def measure(self, key: str, left_out: dict[str, str]) -> MeasureFindings | None:
        name, role, reads_as = _known(key)
        values = self.columns[f"measure.{key}"] * (-1 if reads_as == LESS else 1)
        if values.min() == values.max():
            left_out[name] = f"it is {abs(values[0]):g} in all runs"
            return None
        ood = self.correlated(values, "ood", name)
        if ood is None:
            left_out[name] = self.notes.pop()
            return None
        given = self.covariates(key)
        return MeasureFindings(
            key=key,
            name=name,
            role=role,
            reads_as=reads_as,
            ood=ood,
            in_distribution=self.correlated(values, "in_distribution", name),
            benchmarks={each: self.correlated(values, f"accuracy.{each}", name) for each in self.benchmarks},
            given=list(given),
            partial=self.correlated(values, "ood", name, given) if given else ood,
            g_vendi_leads_by=None if key == "g_vendi" else self.lead(values, reads_as, ood.rho),
            effects=self.effects(name, values),
            ratio=self.ratio(name, values),
        )

    def correlated(
        self, values: np.ndarray, outcome: str, name: str = "", given: Mapping[str, np.ndarray] | None = None
    ) -> Correlation | None:
        told = f"{name} and {outcome}" + (f", given {', '.join(given)}" if given else "")
        return self.attempt(
            told,
            lambda: correlate(
                values, self.columns[outcome], given=given, groups=self.groups, draws=self.draws, seed=self.seed
            ),
        )

    def lead(self, values: np.ndarray, reads_as: str, rho: float) -> Difference:
        """How far G-Vendi is ahead of a measure; one without a direction has the one that favours it."""
        favoured = -values if reads_as == NEITHER and rho < 0 else values
        g_vendi, ood = self.columns["measure.g_vendi"], self.columns["ood"]
        return difference(g_vendi, favoured, ood, groups=self.groups, draws=self.draws, seed=self.seed)

    def covariates(self, key: str) -> dict[str, np.ndarray]:
        """What varied between datasets besides their composition, without the measure itself."""
        rows = self.columns["n"]
        found = {"rows": rows, "mean tokens a row": self.columns["tokens"] / rows}
        if key != "mean_perplexity" and "measure.mean_perplexity" in self.columns:
            found["mean perplexity"] = self.columns["measure.mean_perplexity"]
        return {name: column for name, column in found.items() if column.min() < column.max()}

    def effects(self, name: str, values: np.ndarray) -> dict[str, Effect]:
        if not self.factors:
            return {}
        found = self.attempt(
            f"effects on {name}",
            lambda: effects_with_intervals(values, self.factors, groups=self.groups, draws=self.draws, seed=self.seed),
        )
        return found or {}

    def ratio(self, name: str, values: np.ndarray) -> Effect | None:
        if len(self.first_two) < 2:
            return None
        first, second = self.first_two
        return self.attempt(
            f"ratio of the effects on {name}",
            lambda: ratio(values, self.factors, first, second, groups=self.groups, draws=self.draws, seed=self.seed),
        )

    def attempt(self, what: str, compute: Callable[[], Found]) -> Found | None:
        """What is computed, or None and a note: one number that cannot be had must not cost all others."""
        try:
            return compute()
        except ValueError as error:
            self.notes.append(f"{what}: {error}")
            return None

    def all_notes(self) -> list[str]:
        count = len(set(self.groups))
        few = [f"{count} compositions are few: trust no interval."] if count < FEW else []
        return few + self.notes


def _known(key: str) -> tuple[str, str, str]:
    """Name, role and reading of a measure."""
    for measure in MEASURES:
        if measure.key == key:
            return measure.name, "baseline", measure.reads_as
    if key in CEILING:
        return CEILING[key], "ceiling", MORE
    return OURS.get(key, key), "ours" if key in OURS else "baseline", MORE


def _strength(measure: MeasureFindings) -> float:
    return abs(measure.ood.rho) if measure.reads_as == NEITHER else measure.ood.rho


def _spread(values: np.ndarray) -> Spread:
    least, lower, median, upper, most = np.quantile(values, [0, 0.25, 0.5, 0.75, 1]).tolist()
    return Spread(runs=len(values), least=least, lower_quartile=lower, median=median, upper_quartile=upper, most=most)


def _by_level(runs: StudyRuns) -> list[tuple[float, Spread, Spread]]:
    values = runs.levels_of(runs.factors[0])
    ood, in_distribution = runs.columns["ood"], runs.columns["in_distribution"]
    levels = runs.factors[0].levels
    return [(level, _spread(ood[values == level]), _spread(in_distribution[values == level])) for level in levels]
