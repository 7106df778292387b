# /// script
# requires-python = ">=3.11"
# dependencies = ["hf-prism"]
# ///
"""Writes procedural seeds for `examples/recipes/embedded.yaml`: a few kinds of problems are frequent, most are rare.

python examples/procedural_seeds.py --output examples/recipes/embedded_seeds.jsonl

With `--chains`, problems and answers of three and four steps instead, every kind alike: the benchmark of `sft_embedded.yaml`.

python examples/procedural_seeds.py --chains --rows 200 --seed 2026 --output examples/recipes/embedded_chains.jsonl
"""

import argparse

from hf_prism.tasks.procedural import LONGER_SKELETONS, generate
from hf_prism.tasks.simulation import skewed_rows, write_rows


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--rows", type=int, default=100)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--chains", action="store_true")
parser.add_argument("--output", required=True)
options = parser.parse_args()
if options.chains:
    columns = ("id", "prompt", "answer")
    rows = generate(options.rows, families=["story", "groups"], skeletons=LONGER_SKELETONS, seed=options.seed)
else:
    columns = ("id", "prompt", "completion", "answer", "level")
    rows = skewed_rows(options.rows, seed=options.seed)
write_rows(options.output, [{name: row[name] for name in columns} for row in rows])
