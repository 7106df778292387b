# /// script
# dependencies = ["hf-prism"]
# ///
"""Score all of GSM8K-train with the embedded proxy: time, memory, score; and one problem repeated with other numbers.

Run as (two cores, some minutes):

    python examples/benchmarks/gsm8k.py
    python examples/benchmarks/gsm8k.py --rows 500    # a quick look

Each file is scored by the command line, in a process of its own and an empty cache.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path


DATA = Path(os.environ.get("HF_PRISM_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


def one_problem(count: int) -> list[dict[str, str]]:
    """The same problem over and over, with other numbers each time."""
    draw, rows = random.Random(0), {}
    while len(rows) < count:
        a, b, c = draw.randint(20, 99), draw.randint(10, 99), draw.randint(2, 19)
        prompt = f"Tom has {a} marbles and wins {b} more. Then he gives {c} of them to his sister. How many are left?"
        completion = (
            f"Tom has {a} + {b} = {a + b} marbles.\nThen {a + b} - {c} = {a + b - c} are left.\n#### {a + b - c}"
        )
        rows[prompt] = {"prompt": prompt, "completion": completion}
    return list(rows.values())


def score(path: Path, rows: int | None, home: str) -> dict:
    """Run `hf-prism score`, and return its JSON with the wall time and the peak memory."""
    command = [sys.executable, "-m", "hf_prism", "score", str(path), "--model", "embedded", "--json"]
    command += ["--max-samples", str(rows)] if rows else []
    started = time.perf_counter()
    out = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, "HF_HOME": home})
    seconds = time.perf_counter() - started
    # Largest process so far: the first file's figure stands, a smaller second one cannot lower it.
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    return {**json.loads(out.stdout.splitlines()[-1]), "seconds": round(seconds), "peak_gib": round(peak, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, help="score that many rows of each file (default: all)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        gsm8k = DATA / "gsm8k_train.jsonl"
        count = sum(1 for _ in gsm8k.open())
        repeated = Path(home) / "one_problem.jsonl"
        repeated.write_text("".join(json.dumps(row) + "\n" for row in one_problem(count)))
        print("| rows | n | G-Vendi | 95 % interval | without the sketch's bias | wall seconds | peak GiB |")
        print("|---|---|---|---|---|---|---|")
        for name, path in {"GSM8K-train": gsm8k, "one problem, other numbers": repeated}.items():
            result = score(path, options.rows, home)
            low, high = result["interval"]
            debiased = result["g_vendi_debiased"]
            print(
                f"| {name} | {result['n']:,} | {result['g_vendi']:.1f} | {low:.1f} to {high:.1f} | "
                f"{f'{debiased:.1f}' if debiased else 'not offered'} | {result['seconds']} | {result['peak_gib']} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
