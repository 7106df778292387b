# /// script
# dependencies = ["hf-prism"]
# ///
"""How diverse is a dataset, and which of its rows carry the diversity?

Run as:

    python examples/score_dataset.py                                    # 200 built-in problems, half a minute
    python examples/score_dataset.py data.jsonl --model Qwen/Qwen2.5-0.5B-Instruct
"""

import argparse

import numpy as np

import hf_prism
from hf_prism.rows import load_rows
from hf_prism.tasks.procedural import generate
from hf_prism.vendi import contribution


parser = argparse.ArgumentParser()
parser.add_argument("data", nargs="?", help="Hub id, file or folder with prompt and completion (default: built in)")
parser.add_argument("--model", default="embedded", help="the proxy whose gradients are taken")
parser.add_argument("--output", default="out/score", help="run directory; the same command goes on where it stopped")
options = parser.parse_args()

dataset = load_rows(options.data or generate(200))
features = hf_prism.featurize(dataset, hf_prism.GradientFeaturizer(options.model), options.output)

score = hf_prism.g_vendi(features, ids=features["id"])
low, high = score.interval or (score.g_vendi, score.g_vendi)
print(f"G-Vendi {score.g_vendi:.1f} (95 % interval {low:.1f} to {high:.1f}) of {score.n} rows")
for note in score.notes:
    print(f"  note: {note}")

shares = contribution(features)  # their mean is the logarithm of the score
for title, order in {"contribute most": np.argsort(-shares), "contribute least": np.argsort(shares)}.items():
    print(f"\nRows that {title}:")
    for i in order[:3].tolist():
        print(f"  {shares[i]:.2f}  {str(dataset[i]['prompt'])[:90]}")
