# /// script
# requires-python = ">=3.11"
# dependencies = ["hf-prism"]
# ///
"""Writes procedural seeds for `examples/recipes/embedded.yaml`: a few kinds of problems are frequent, most are rare.

python examples/procedural_seeds.py --output examples/recipes/embedded_seeds.jsonl
"""

import argparse

from hf_prism.tasks.simulation import skewed_rows, write_rows


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--rows", type=int, default=100)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--output", required=True)
options = parser.parse_args()
rows = skewed_rows(options.rows, seed=options.seed)
write_rows(
    options.output, [{name: row[name] for name in ("id", "prompt", "completion", "answer", "level")} for row in rows]
)
