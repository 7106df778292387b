# /// script
# dependencies = ["hf-prism"]
# ///
"""Choose the most diverse k rows of a pool, and save them.

Run as:

    python examples/select_subset.py                                    # 30 of 300 built-in problems, half a minute
    python examples/select_subset.py pool.jsonl -k 1000 --model Qwen/Qwen2.5-0.5B-Instruct
"""

import argparse
from pathlib import Path

import hf_prism
from hf_prism.rows import load_rows
from hf_prism.tasks.procedural import generate


parser = argparse.ArgumentParser()
parser.add_argument("data", nargs="?", help="Hub id, file or folder with prompt and completion (default: built in)")
parser.add_argument("-k", type=int, default=30, help="how many rows")
parser.add_argument("--model", default="embedded", help="the proxy whose gradients are taken")
parser.add_argument("--output", default="out/select", help="run directory, and the chosen rows")
options = parser.parse_args()

pool = load_rows(options.data or generate(150, skeletons=["story/+-"]) + generate(150, seed=1))
features = hf_prism.featurize(pool, hf_prism.GradientFeaturizer(options.model), options.output)

chosen = hf_prism.select(features, options.k)
rows = pool.select(sorted(chosen.indices.tolist()))  # features are in the order of the rows, if none was skipped
rows.to_parquet(Path(options.output) / "selected.parquet")

found = chosen.metadata
print(f"{len(rows)} of {found['n']} rows: G-Vendi {found['g_vendi']:.1f}, random rows {found['g_vendi_random']:.1f}")
print(f"clusters reached: {sum(n > 0 for n in found['cluster_chosen'])} of {len(found['cluster_sizes'])}")
# rows.push_to_hub("user/my-subset")
