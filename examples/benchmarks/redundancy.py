# /// script
# dependencies = ["hf-prism"]
# ///
"""Does the report find the redundancy that was planted, and does it find any where none was?

Run as (GSM8K is read from ../shared/data or HF_PRISM_DATA):

    python examples/benchmarks/redundancy.py                                    # four polluted pools: two minutes
    python examples/benchmarks/redundancy.py --draws 10                         # ten more, each with another GSM8K row
    python examples/benchmarks/redundancy.py --features runs/math runs/snli     # files as they are, featurized before

The first table has what was planted and what `examine` says; "right" is how many of the rows of the largest group were
planted. The second has, for the first 3,000 rows of each run directory, the share of rows with another row at least so
near, and the isolated families.
"""

import argparse
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from hf_prism import GradientFeaturizer, featurize, load_features
from hf_prism.families import isolated_families
from hf_prism.findings import examine
from hf_prism.near_duplicates import nearest_cosines
from hf_prism.rows import load_rows
from hf_prism.selection import cluster
from hf_prism.tasks.procedural import generate
from hf_prism.vectors import unit_rows


DATA = Path(os.environ.get("HF_PRISM_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
THREE_NAMES = {"names": ["Ann", "Ben", "Tom"], "objects": ["apples"], "wordings": 1}
Rows = list[dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", nargs="+", default=[], help="run directories of files that nobody polluted")
    parser.add_argument(
        "--output", type=Path, default=Path("out/benchmarks/redundancy"), help="gradients are kept here"
    )
    parser.add_argument(
        "--draws", type=int, default=0, help="pools of 300 rows with 40 copies of another, new numbers"
    )
    options = parser.parse_args()
    if options.features:
        return as_they_are(options.features)
    print("| pool | rows | planted | said to be redundant | largest groups | right |\n|---|---|---|---|---|---|")
    for name, (ordinary, *planted) in (drawn(options.draws) if options.draws else pools()).items():
        rows = [*ordinary, *(row for part in planted for row in part)]
        Random(0).shuffle(rows)
        dataset = load_rows([{"prompt": row["prompt"], "completion": row["completion"]} for row in rows])
        features = featurize(dataset, GradientFeaturizer("embedded"), options.output / name, progress=False)
        found = examine(features, [(row["prompt"], row["completion"]) for row in rows])
        told = " + ".join(str(len(part)) for part in planted)
        groups = ", ".join(str(len(group)) for group in found.groups[:4])
        texts = [{row["prompt"] for row in part} for part in planted]
        right = max(sum(rows[i]["prompt"] in prompts for i in found.groups[0]) for prompts in texts)
        print(f"| {name} | {len(rows)} | {told} | {found.num_redundant} | {groups} | {right} |", flush=True)


def pools() -> dict[str, list[Rows]]:
    """Ordinary rows, and what is planted among them."""
    problems = generate(280)
    copies = Random(0).sample(problems, 20)
    other_numbers = [generate(1, skeletons=["comparison/more"], number_seed=i)[0] for i in range(100)]
    three_names = generate(100, seed=9, skeletons=["story/+-"], **THREE_NAMES)
    made = {"procedural": [problems, other_numbers, copies], "procedural-names": [problems, three_names, copies]}
    if not (DATA / "gsm8k_train.jsonl").exists():
        print(f"(no {DATA / 'gsm8k_train.jsonl'}: procedural pools only)")
        return made
    draw = Random(0)
    real = gsm8k(draw)
    one, other, third = (real[400 + i] for i in range(3))
    made["gsm8k"] = [real[:280], [numbered(one, draw) for _ in range(100)], draw.sample(real[:280], 20)]
    two = [[numbered(row, draw) for _ in range(count)] for row, count in ((other, 45), (third, 25))]
    made["gsm8k-two"] = [real[:310], *two, [real[7]] * 12]
    return made


def gsm8k(draw: Random) -> Rows:
    rows = [json.loads(line) for line in (DATA / "gsm8k_train.jsonl").open()]
    draw.shuffle(rows)
    return rows


def drawn(count: int) -> dict[str, list[Rows]]:
    """Pools with rows that no threshold was chosen on."""
    draw = Random(1)
    real = gsm8k(draw)
    return {f"draw-{i}": [real[:300], [numbered(real[1000 + i], draw) for _ in range(40)]] for i in range(count)}


def numbered(row: dict[str, Any], draw: Random) -> dict[str, Any]:
    """The row with other numbers, the same ones in the same places; the sums are no longer right."""
    new: dict[str, str] = {}
    return {
        key: re.sub(r"\d+", lambda found: new.setdefault(found[0], str(draw.randint(2, 99))), row[key])
        for key in ("prompt", "completion")
    }


def as_they_are(directories: Sequence[str]) -> None:
    steps = (0.8, 0.9, 0.95, 0.98, 0.999)
    print("| rows | n | " + " | ".join(map(str, steps)) + " | families | rows in them |")
    print("|---|---|" + "---|" * (len(steps) + 2))
    for directory in directories:
        features = load_features(directory)
        vectors = unit_rows(features.select(range(min(3000, len(features)))))
        near = nearest_cosines(vectors)
        families = isolated_families(vectors, cluster(vectors, None, 0).labels_)
        shares = " | ".join(f"{np.mean(near >= step):.1%}" for step in steps)
        told = f"{len(families)} | {sum(map(len, families))}"
        print(f"| {Path(directory).name} | {len(vectors):,} | {shares} | {told} |", flush=True)


if __name__ == "__main__":
    main()
