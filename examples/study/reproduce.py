# /// script
# requires-python = ">=3.11"
# dependencies = ["hf-prism"]
# ///
"""Makes every tenth run of the published studies again, and compares each with the published row.

Run as:

    python examples/study/reproduce.py --output runs/study_small

What no machine may change must be equal: the rows, their number of tokens, the composition, the benchmarks. Measures must
agree within `MEASURES`. Training amplifies the last bit of a sum into another student, so accuracies must agree within
`ACCURACY` on a machine that adds in another order; on the machine of the published runs they are equal. How much two such
students differ, `reliability.py` measures; until it has, the two bounds are guesses.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet

from hf_prism.study import study
from hf_prism.study_recipe import StudyRecipe


HERE = Path(__file__).parent
PUBLISHED = HERE.parents[1] / "docs" / "evidence" / "runs.parquet"
MAIN = ("math", "nli")
EXACT = ("study", "run", "repeat", "seed", "n", "tokens", "learned_tokens", "student.steps")
MEASURES = 1e-3  # relative
ACCURACY = 0.12  # of the mean of a role, in a single run
MEAN_ACCURACY = 0.03  # of all runs of a study together


def compare(mine: dict[str, Any], published: dict[str, Any]) -> list[str]:
    """What of a run differs by more than it may."""
    wrong = [
        f"{name} is {mine[name]!r}, published {published[name]!r}" for name in EXACT if mine[name] != published[name]
    ]
    for name, value in published.items():
        if name.startswith("factor.") and mine[name] != value:
            wrong.append(f"{name} is {mine[name]!r}, published {value!r}")
        if name.startswith("measure.") and abs(mine[name] - value) > MEASURES * max(abs(value), 1e-3):
            wrong.append(f"{name} is {mine[name]:.6g}, published {value:.6g}")
    for name in ("in_distribution", "ood"):
        if abs(mine[name] - published[name]) > ACCURACY:
            wrong.append(f"{name} is {mine[name]:.3f}, published {published[name]:.3f}")
    return wrong


def reproduce(name: str, output: Path, workers: int) -> bool:
    """Make the runs of a study again; whether all agree."""
    recipe = StudyRecipe.load(HERE.parent / "recipes" / f"study_{name}.yaml", {"every": 10, "workers": workers})
    if not Path(recipe.place(recipe.content["data"])).exists():
        folder = Path(recipe.content["data"]).parent
        subprocess.run([sys.executable, HERE / "make_pool.py", name, "--output", folder], check=True)
    recipe.content["output"] = str(output / name)
    mine = {row["run"]: row for row in parquet.read_table(study(recipe)).to_pylist()}
    rows = [row for row in parquet.read_table(PUBLISHED).to_pylist() if row["study"] == name and row["run"] in mine]
    faults = {row["run"]: found for row in rows if (found := compare(mine[row["run"]], row))}
    equal = sum(mine[row["run"]]["ood"] == row["ood"] for row in rows)
    gaps = [mine[row["run"]]["ood"] - row["ood"] for row in rows]
    mean = sum(gaps) / len(gaps)
    print(
        f"{name}: {len(rows)} runs made again, {len(rows) - len(faults)} agree with the published rows; OOD accuracy"
    )
    print(
        f"  equal to the last digit in {equal}; it differs by {mean:+.4f} on average, {max(map(abs, gaps)):.4f} at most"
    )
    for run, found in faults.items():
        print(f"  run {run}: {'; '.join(found)}")
    return not faults and abs(mean) <= MEAN_ACCURACY and len(rows) == len(mine)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/study_small"))
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    published = set(parquet.read_table(PUBLISHED, columns=["study"])["study"].to_pylist())
    agreed = [reproduce(name, args.output, args.workers) for name in MAIN if name in published]
    return 0 if all(agreed) else 1


if __name__ == "__main__":
    sys.exit(main())
