# /// script
# requires-python = ">=3.11"
# dependencies = ["hf-prism"]
# ///
"""How well does one student stand for its data? Subsets of a finished study, each learned again in another order.

Run as:

    python examples/study/reliability.py examples/recipes/study_math.yaml --every 10 --output runs/reliability_math.json

The rows are the same, and so are base, recipe and benchmarks: only the seed of the training is another. The correlation of
two such students' accuracies over the subsets is the reliability of the outcome. No measure of the data can be expected to
correlate with one student's accuracy by more than its square root, since the rest is chance of the training.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
from datasets import Dataset
from subsets import each_subset

from hf_prism.correlation import correlate
from hf_prism.study_recipe import PlannedRun, StudyRecipe
from hf_prism.study_run import judge


def again(recipe: StudyRecipe, run: PlannedRun, rows: Dataset) -> dict[str, float]:
    """The accuracies of another student on the rows of a run."""
    with tempfile.TemporaryDirectory() as work:
        record = judge(recipe, rows, run.composition.seed + 1, Path(work))
    return {name: record[name] for name in ("ood", "in_distribution")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="of a study that is finished")
    parser.add_argument("--every", type=int, default=10, help="take every N-th of its runs")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--runs", help="runs.parquet of the study; by default that of its output")
    parser.add_argument("--output", type=Path, required=True, help="JSON file")
    args = parser.parse_args()
    recipe = StudyRecipe.load(args.recipe, {"every": args.every})
    known = {row["run"]: row for row in parquet.read_table(args.runs or recipe.output / "runs.parquet").to_pylist()}
    plan = recipe.plan()
    with each_subset(recipe, args.workers) as every:
        others = every(again, plan)
    result: dict[str, Any] = {"runs": [run.name for run in plan], "again": others}
    for name in ("ood", "in_distribution"):
        first, second = [known[run.name][name] for run in plan], [other[name] for other in others]
        found = correlate(first, second)
        spread = statistics.stdev(a - b for a, b in zip(first, second, strict=True)) / math.sqrt(2)
        result[name] = {"reliability": found.rho, "interval": found.interval, "spread": spread, "n": found.n}
        low, high = found.interval
        print(f"{name}: reliability {found.rho:.3f} ({low:.3f} to {high:.3f}) over {found.n} subsets; at most rho")
        print(f"  {math.sqrt(max(found.rho, 0)):.3f} for any measure; a student's chance is {100 * spread:.1f} points")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
