# /// script
# requires-python = ">=3.11"
# dependencies = ["hf-prism[synthesis]"]
# ///
"""What the loop owes to its two ratios: clusters over rows, and the share of the clusters that count as sparse.

Run as:

    python examples/study/loop_ratios.py --output runs/loop_ratios

The loop of the scaling study (`scaling.py`: 100 rows of a few favourite skeletons, a simulated generator that has
favourites), grown to one size with one ratio changed at a time, at several seeds. Of each pool: its skeletons, the entropy of
its skeletons, its G-Vendi, and the requests that it took, since a filter that keeps less asks for more.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scaling import grown, recipe, rows_of, told

from hf_prism import GradientFeaturizer, runner
from hf_prism.synthesis_round import CLUSTER_RATIO, SPARSE_RATIO
from hf_prism.tasks.chains import SKELETONS
from hf_prism.tasks.simulation import kind_of
from hf_prism.vendi import Covariance, vendi


CLUSTER_RATIOS = (0.01, 0.02, 0.05, 0.1, 0.2)
SPARSE_RATIOS = (0.1, 0.25, 0.5, 0.75, 1.0)


def settings() -> list[dict[str, float]]:
    """The paper's two ratios, and each of them changed alone."""
    asked = [{"cluster_ratio": ratio, "sparse_ratio": SPARSE_RATIO} for ratio in CLUSTER_RATIOS]
    asked += [{"cluster_ratio": CLUSTER_RATIO, "sparse_ratio": ratio} for ratio in SPARSE_RATIOS]
    return [each for place, each in enumerate(asked) if each not in asked[:place]]


def one(job: tuple[dict[str, float], int, int, Path]) -> dict[str, Any]:
    """What came of one loop; a loop that was cut off goes on, and one that is done is read."""
    torch.set_num_threads(1)
    ratios, seed, size, output = job
    place = output / f"{ratios['cluster_ratio']}-{ratios['sparse_ratio']}-{seed}"
    synthesis = grown(seed, "prismatic", size, place, **ratios)
    rows = rows_of(synthesis).select(range(size))
    features = runner.run(
        rows, GradientFeaturizer(**recipe().proxy()), place / "all-features", progress=False
    ).features
    shares = np.array(list(Counter(kind_of(prompt, SKELETONS) for prompt in rows["prompt"]).values())) / len(rows)
    spectrum = Covariance(features.dim).update(features, features["id"]).spectrum()
    found = {**ratios, "seed": seed, "n": len(rows), "skeletons": len(shares), "g_vendi": vendi(spectrum)}
    found["entropy"] = float(-(shares * np.log(shares)).sum())
    found["requests"] = synthesis.as_dict()["requests"]
    print(f"{ratios}, seed {seed}: {len(shares)} skeletons", file=sys.stderr, flush=True)
    return found


def report(found: Sequence[dict[str, Any]]) -> str:
    lines = [
        "| clusters over rows | sparse | skeletons | their entropy | G-Vendi | requests |",
        "|---|---|---|---|---|---|",
    ]
    for ratios in settings():
        rows = [row for row in found if all(row[name] == value for name, value in ratios.items())]
        cells = [told(rows, name, 1) for name in ("skeletons", "entropy", "g_vendi", "requests")]
        lines.append(f"| {ratios['cluster_ratio']} | {ratios['sparse_ratio']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/loop_ratios"), help="loops are kept, resumed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--size", type=int, default=1000, help="rows of a pool")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    jobs = [(ratios, seed, args.size, args.output) for seed, ratios in product(range(args.seeds), settings())]
    with ProcessPoolExecutor(args.workers, get_context("spawn")) as processes:
        found = list(processes.map(one, jobs))
    (args.output / "results.json").write_text(json.dumps(found, indent=1))
    print(report(found))


if __name__ == "__main__":
    main()
