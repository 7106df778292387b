# /// script
# requires-python = ">=3.11"
# dependencies = ["hf-prism[synthesis]"]
# ///
"""From 100 seeds to a student and its accuracy, in one go: synthesize, distil, evaluate. Two cores, no network.

    python examples/distill_and_evaluate.py --output out/distill_and_evaluate

A simulation writes the problems (`examples/recipes/embedded.yaml`), and the small model that ships with the package is
trained on them. It is evaluated on other problems of the kinds that the seeds favour (in distribution), and on longer
chains, every kind alike (out of distribution). `--strategy naive` is the control; run again, it goes on where it stopped.
"""

import argparse
import json
from pathlib import Path

from hf_prism.model_comparison import compare_models
from hf_prism.recipe import Recipe
from hf_prism.student_recipe import StudentRecipe
from hf_prism.student_run import run
from hf_prism.student_verbs import comparison_lines
from hf_prism.tasks.procedural import LONGER_SKELETONS, generate
from hf_prism.tasks.simulation import skewed_rows, write_rows


RECIPES = Path(__file__).parent / "recipes"
COLUMNS = ("id", "prompt", "completion", "answer", "level")
SPARE = 20  # rows of the pool that may turn out to be problems of the benchmarks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--strategy", default="prismatic", choices=["prismatic", "naive", "persona"])
    parser.add_argument("--size", type=int, default=500, help="rows that the student is trained on")
    parser.add_argument("--items", type=int, default=300, help="problems of each benchmark")
    parser.add_argument("--epochs", type=float, default=4)
    parser.add_argument(
        "--seed", type=int, default=0, help="draws seeds, favourites, requests and the order of training"
    )
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)

    seeds = skewed_rows(100, seed=options.seed, favourite_seed=options.seed)
    alike = skewed_rows(options.items, seed=10_000 + options.seed, favourite_seed=options.seed)
    chains = generate(
        options.items, families=["story", "groups"], skeletons=LONGER_SKELETONS, seed=20_000 + options.seed
    )
    for name, rows in {"seeds": seeds, "alike": alike, "chains": chains}.items():
        columns = COLUMNS if name == "seeds" else ("id", "prompt", "answer")
        write_rows(options.output / f"{name}.jsonl", [{column: row[column] for column in columns} for row in rows])

    changes = {
        "seeds": str(options.output / "seeds.jsonl"),
        "output": str(options.output / "pool"),
        "strategy": options.strategy,
        "seed": options.seed,
        "generator.favourite_seed": options.seed,
        "target_size": options.size + SPARE,
    }
    recipe = Recipe.load(RECIPES / "embedded.yaml", changes)
    pool = recipe.synthesizer().run(
        recipe.seeds(), options.output / "pool", target_size=options.size + SPARE, progress=False, **recipe.limits()
    )
    asked = {row["prompt"] for row in (*alike, *chains)}
    unseen = [dict(row) for row in pool.dataset if row["prompt"] not in asked]  # chance makes a few problems twice
    kept = [{column: row[column] for column in COLUMNS[:-1]} for row in unseen[: options.size]]
    write_rows(options.output / "train.jsonl", kept)

    student = {
        "data": str(options.output / "train.jsonl"),
        "output": str(options.output / "student"),
        "training.num_train_epochs": options.epochs,
        "training.seed": options.seed,
        "evaluation.benchmarks": [str(options.output / f"{name}.jsonl") for name in ("alike", "chains")],
    }
    result = run(StudentRecipe.load(RECIPES / "sft_embedded.yaml", student))
    assert result is not None  # there is one process
    evaluations = {"base": "base_evaluation", "student": "evaluation"}
    found = compare_models({name: options.output / "student" / folder for name, folder in evaluations.items()})
    print("\n".join(comparison_lines(found.models, found.differences)))
    print(json.dumps({"strategy": options.strategy, "seed": options.seed, "g_vendi": result["g_vendi"]["g_vendi"]}))


if __name__ == "__main__":
    main()
