# /// script
# dependencies = ["hf-prism"]
# ///
"""Which of two datasets is more diverse, and what does one add to the other?

Run as:

    python examples/compare_datasets.py                        # two built-in sets, half a minute
    python examples/compare_datasets.py a.jsonl b.jsonl --model Qwen/Qwen2.5-0.5B-Instruct
"""

import argparse
from pathlib import Path

import hf_prism
from hf_prism.rows import load_rows
from hf_prism.tasks.procedural import generate


parser = argparse.ArgumentParser()
parser.add_argument("data", nargs="*", help="two or more Hub ids, files or folders (default: built in)")
parser.add_argument("--model", default="embedded", help="the proxy whose gradients are taken")
parser.add_argument("--output", default="out/compare", help="a run directory for each dataset goes here")
options = parser.parse_args()

datasets = {f"{i}-{Path(name).stem}": load_rows(name) for i, name in enumerate(options.data, 1)} or {
    "one kind": load_rows(generate(150, skeletons=["story/+-"])),
    "many kinds": load_rows(generate(150, seed=1)),
}
featurizer = hf_prism.GradientFeaturizer(options.model)
features = {name: hf_prism.featurize(rows, featurizer, Path(options.output) / name) for name, rows in datasets.items()}

result = hf_prism.compare(features)
for name, score in result.scores.items():
    print(f"{name}: G-Vendi {score.g_vendi:.1f} at {result.n} of {result.sizes[name]} rows")
for pair in result.pairs:
    print(pair.verdict)
    print(pair.mixture_verdict)
for note in result.notes:
    print(f"note: {note}")
