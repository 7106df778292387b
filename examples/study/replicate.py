# /// script
# requires-python = ">=3.11"
# dependencies = ["hf-prism"]
# ///
"""The held-out replication of a study: other skeletons, other styles, other numbers, other seeds, made once at the end.

Run as:

    python examples/study/replicate.py math --output runs/replication

The recipe is that of the study; only its pool, its benchmarks and its seed are others, and each composition is drawn once.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from hf_prism.study import study
from hf_prism.study_page import verdict
from hf_prism.study_recipe import StudyRecipe
from hf_prism.study_report import write_study_report


HERE = Path(__file__).parent
SEED = 1


def replication(name: str, output: Path) -> StudyRecipe:
    """The recipe of a study with everything that is drawn drawn anew."""
    pool = output / f"{name}_pool"
    path = HERE.parent / "recipes" / f"study_{name}.yaml"
    asked = StudyRecipe.load(path).section("evaluation")
    changes = {
        f"evaluation.{role}": [str(pool / Path(each).name) for each in asked[role]]
        for role in ("in_distribution", "ood")
    }
    changes |= {"name": f"{name}-replication", "output": str(output / name), "data": str(pool / "pool.parquet")}
    return StudyRecipe.load(path, {**changes, "seed": SEED, "design.repeats": 1})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=("math", "nli"))
    parser.add_argument("--output", type=Path, default=Path("runs/replication"))
    args = parser.parse_args()
    recipe = replication(args.study, args.output)
    pool = Path(recipe.content["data"])
    if not pool.exists():
        command = [sys.executable, HERE / "make_pool.py", args.study, "--replication", "--output", pool.parent]
        subprocess.run(command, check=True)
    runs = study(recipe)
    assert runs is not None  # it is no dry run
    _, findings = write_study_report(runs, recipe.output)
    print(verdict(findings))


if __name__ == "__main__":
    main()
