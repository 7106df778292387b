"""Which of several students is better: their evaluations compared item by item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .accuracy import difference, mean_of
from .evaluation import read_evaluation
from .rows import load_rows


@dataclass(frozen=True)
class ModelComparison:
    """Several students on the same benchmarks.

    Attributes:
        models: By short name, what `result.json` of each says.
        differences: For each student after the first, by benchmark and "mean", the accuracy less that of the first, as
            `accuracy.Difference.as_dict`.
    """

    models: Mapping[str, Mapping[str, Any]]
    differences: Mapping[str, Mapping[str, Mapping[str, Any]]]

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"models": dict(self.models), "differences": dict(self.differences)}


def compare_models(directories: Mapping[str, str | Path], *, seed: int = 0) -> ModelComparison:
    """Compare the evaluations of students with that of the first, item by item.

    Args:
        directories: By a short name for the student, the directory of its evaluation.
        seed: Of the flipped signs of the tests.

    Raises:
        ValueError: Fewer than two, no finished evaluation in one of them, no benchmark that all have, or one with other
            items or another prompt.

    Example:
        >>> compare_models({"base": "runs/base", "student": "runs/student"}).differences  # doctest: +SKIP
        {'student': {'math500': {'difference': 0.12, ...}}}
    """
    if len(directories) < 2:
        raise ValueError("nothing to compare with: give the directories of two evaluations or more.")
    found = {name: read_evaluation(path).as_dict() for name, path in directories.items()}
    (first, theirs), *others = found.items()
    shared = [name for name in theirs["benchmarks"] if all(name in each["benchmarks"] for each in found.values())]
    if not shared:
        told = "; ".join(f"{name}: {', '.join(each['benchmarks'])}" for name, each in found.items())
        raise ValueError(f"there is no benchmark that all have. {told}.")
    differences: dict[str, dict[str, Any]] = {}
    base = {name: _verdicts(directories[first], name) for name in shared}
    for other, result in others:
        _check_same(first, theirs, other, result, shared)
        pairs = {
            name: difference(_verdicts(directories[other], name, base[name][0])[1], base[name][1], seed=seed)
            for name in shared
        }
        mean, error = mean_of(
            [each.difference for each in pairs.values()], [each.standard_error for each in pairs.values()]
        )
        differences[other] = {name: each.as_dict() for name, each in pairs.items()}
        if len(shared) > 1:
            half = None if error is None else 1.96 * error
            differences[other]["mean"] = {
                "difference": mean,
                "standard_error": error,
                "interval": None if half is None else (mean - half, mean + half),
            }
    return ModelComparison(found, differences)


def _check_same(first: str, theirs: Mapping[str, Any], other: str, ours: Mapping[str, Any], shared: list[str]) -> None:
    for what, one, other_one in (
        ("system prompts", theirs["setting"]["system_prompt"], ours["setting"]["system_prompt"]),
        ("versions of the grading", theirs["versions"].get("grading"), ours["versions"].get("grading")),
    ):
        if one != other_one:
            raise ValueError(
                f"{first} and {other} do not compare: their {what} differ, {one!r} and {other_one!r}. Evaluate both alike."
            )
    for name in shared:
        for field in ("items_digest", "prompt"):
            there, here = theirs["benchmarks"][name][field], ours["benchmarks"][name][field]
            if there != here:
                raise ValueError(
                    f"{first} and {other} do not compare on {name}: their {field} differ, {there!r} and {here!r}. Evaluate "
                    "both on the same items with the same prompt."
                )


def _verdicts(path: str | Path, name: str, order: Sequence[str] | None = None) -> tuple[list[str], np.ndarray]:
    """The ids of the items, and their verdicts (n, k), in the order of these ids."""
    rows = load_rows(str(Path(path).expanduser() / "verdicts" / f"{name}.parquet"))
    by_id: dict[str, list[float]] = {}
    for each in rows.select_columns(["id", "verdict"]).with_format(None):
        row: dict[str, Any] = dict(each)  # type: ignore[arg-type]
        by_id.setdefault(row["id"], []).append(float(row["verdict"] == "right"))
    ids = list(order or by_id)
    return ids, np.array([by_id[each] for each in ids])
