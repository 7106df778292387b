# /// script
# dependencies = ["hf-prism[synthesis]"]
# ///
"""Students of prismatic and of naive data of the same size, evaluated out of distribution: what the filter is worth.

    python examples/benchmarks/students.py --seeds 6 --figure docs/images/students.png

For every seed and strategy `examples/distill_and_evaluate.py` is run: 100 seeds grow to a pool, the embedded model is
trained on 500 of its rows for four epochs, and evaluated on problems like the seeds (in distribution) and on longer chains, every kind
alike (out of distribution). A seed draws seeds, favourites, requests, the order of training and the problems; the two
strategies share all of that, so that differences are paired by seed. Intervals are Student's t, 95 %; `--jobs` runs at a
time, each on one core. A simulation: the problems are written by a program that has favourites.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hf_prism import figures
from hf_prism.accuracy import student_t


EXAMPLE = Path(__file__).parents[1] / "distill_and_evaluate.py"
STRATEGIES = ("prismatic", "naive")
BENCHMARKS = {"alike": "as the seeds", "chains": "longer chains, all kinds alike"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--output", type=Path, default=Path("out/benchmarks/students"), help="runs are kept, resumed")
    parser.add_argument("--figure", type=Path, help="where the plot goes")
    options = parser.parse_args()
    runs = [(seed, strategy) for seed in range(options.seeds) for strategy in STRATEGIES]
    with ThreadPoolExecutor(options.jobs) as threads:
        found = list(threads.map(lambda run: one(options.output, *run), runs))
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "results.json").write_text(json.dumps(found, indent=1))
    print("\n".join(report(found)))
    if options.figure:
        draw(found, options.figure)


def one(output: Path, seed: int, strategy: str) -> dict:
    """A run of the example in a process of its own; what is finished is read."""
    place = output / f"{strategy}-{seed}"
    command = [sys.executable, str(EXAMPLE), "--output", str(place), "--seed", str(seed), "--strategy", strategy]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr[-2000:]}")
    result = json.loads((place / "student" / "result.json").read_text())
    row = {"seed": seed, "strategy": strategy, "rows": result["rows"], "g_vendi": result["g_vendi"]["g_vendi"]}
    for name in BENCHMARKS:
        row[name] = result["evaluation"][name]["accuracy"]
        row[f"{name}_error"] = result["evaluation"][name]["standard_error"]
        row[f"{name}_base"] = result["base_evaluation"][name]["accuracy"]
    print(json.dumps(row), file=sys.stderr, flush=True)
    return row


def report(found: list[dict]) -> list[str]:
    """A line a strategy, and a line a difference."""
    by_run = {(row["seed"], row["strategy"]): row for row in found}
    seeds = sorted({row["seed"] for row in found})
    lines = ["| | " + " | ".join(("rows", "G-Vendi", *BENCHMARKS.values())) + " |", "|---|---|---|---|---|"]
    base = [f"{100 * statistics.mean(row[f'{name}_base'] for row in found):.1f}" for name in BENCHMARKS]
    lines.append(f"| base | | | {' | '.join(base)} |")
    for strategy in STRATEGIES:
        rows = [by_run[seed, strategy] for seed in seeds]
        cells = [f"{statistics.mean(row['rows'] for row in rows):.0f}", told([row["g_vendi"] for row in rows], 1)]
        cells += [told([100 * row[name] for row in rows], 1) for name in BENCHMARKS]
        lines.append(f"| {strategy} | {' | '.join(cells)} |")
    for name, what in (("g_vendi", "G-Vendi"), *BENCHMARKS.items()):
        scale = 1 if name == "g_vendi" else 100
        gaps = [scale * (by_run[seed, "prismatic"][name] - by_run[seed, "naive"][name]) for seed in seeds]
        half = student_t(len(gaps) - 1) * statistics.stdev(gaps) / math.sqrt(len(gaps))
        mean = statistics.mean(gaps)
        lines.append(
            f"prismatic less naive, {what}: {mean:+.1f} ({mean - half:+.1f} to {mean + half:+.1f}), "
            f"{sum(gap > 0 for gap in gaps)} of {len(gaps)} seeds above"
        )
    return lines


def told(values: list[float], digits: int) -> str:
    """Mean and standard error over the seeds."""
    return f"{statistics.mean(values):.{digits}f} ± {statistics.stdev(values) / math.sqrt(len(values)):.{digits}f}"


def draw(found: list[dict], path: Path) -> None:
    """Accuracy of each pair of students, by seed."""
    figure = figures.new_figure((7.4, 3.2))
    for ax, (name, what) in zip(figure.subplots(1, 2), BENCHMARKS.items(), strict=True):
        for number, strategy in enumerate(STRATEGIES):
            rows = sorted((row for row in found if row["strategy"] == strategy), key=lambda row: row["seed"])
            places = [row["seed"] + (number - 0.5) * 0.2 for row in rows]
            ax.errorbar(
                places,
                [100 * row[name] for row in rows],
                [100 * row[f"{name}_error"] for row in rows],
                fmt="o",
                ms=5,
                color=figures.COLORS[number],
                label=strategy,
            )
        ax.set_xticks(sorted({row["seed"] for row in found}))
        ax.set_ylim(0, 120 * max(row[name] for row in found))
        ax.set(xlabel="seed", ylabel="accuracy, %, and its standard error", title=what)
        figures.finish_axes(ax)
    figure.axes[0].legend(frameon=False, fontsize=8, labelcolor=figures.INK)
    figures.save_figure(figure, path)


if __name__ == "__main__":
    main()
