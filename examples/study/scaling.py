# /// script
# requires-python = ">=3.11"
# dependencies = ["hf-prism[synthesis]"]
# ///
"""Does prismatic data keep improving where naive data stops? And is a small diverse set better than one ten times larger?

Run as, after `make_pool.py math`:

    python examples/study/scaling.py --output runs/scaling

For every seed, 100 rows of a few favourite skeletons grow by each strategy to the largest size, in the same loop and with
the same simulated generator, which has favourites among the 40 skeletons of the study's pool. The first rows of each pool,
at every size, train a student: from the base of the math study, by its recipe, for the same number of steps at every size,
so that a larger set is not trained on for longer. Benchmarks are those of the study.

The second question: of the whole naive pool, a tenth is chosen by `select` (greedy), and another tenth at random; three
students are trained, on these and on the whole.

A simulation: the problems are written by a program that has favourites. Differences are paired by seed, intervals are
Student's t, 95 %.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from make_pool import Split

from hf_prism import GradientFeaturizer, PrismaticSynthesizer, figures, files, runner, select
from hf_prism.accuracy import student_t
from hf_prism.rows import load_rows
from hf_prism.study_recipe import StudyRecipe
from hf_prism.study_run import judge
from hf_prism.synthesis import Synthesis
from hf_prism.tasks.chains import SKELETONS
from hf_prism.tasks.math import MathTask
from hf_prism.tasks.simulation import SimulatedGenerator, kind_of, skewed_rows


RECIPE = Path(__file__).parents[1] / "recipes" / "study_math.yaml"
STRATEGIES = ("prismatic", "naive", "persona")
TENTHS = ("chosen tenth", "random tenth", "whole")
COLUMNS = ("id", "prompt", "completion", "answer", "level")
SKEW = 1.5
STEPS = 256


def recipe() -> StudyRecipe:
    return StudyRecipe.load(RECIPE, {"student.training.max_steps": STEPS})


def grown(seed: int, strategy: str, size: int, place: Path, **setting: float) -> Synthesis:
    """A pool of at least so many rows; what of it is there is not made again."""
    kinds = Split("math", 0).pooled
    seeds = skewed_rows(100, skew=SKEW, skeletons=kinds, seed=seed, favourite_seed=seed)
    generator = SimulatedGenerator(["events"], skew=SKEW, surface_skew=0.0, favourite_seed=seed, skeletons=kinds)
    synthesizer = PrismaticSynthesizer(
        MathTask(),
        generator,
        None,
        GradientFeaturizer(**recipe().proxy()),
        strategy=strategy,
        requests=200,
        seed=seed,
        **setting,
    )
    rows = [{column: row[column] for column in COLUMNS} for row in seeds]
    return synthesizer.run(rows, place, target_size=size, progress=False)


def rows_of(synthesis: Synthesis) -> Dataset:
    """In the order in which they came."""
    return synthesis.dataset.select_columns(list(COLUMNS[:-1]))


def one(job: tuple[str, int, str, int, Path]) -> list[dict[str, Any]]:
    """The students of one seed and strategy at every size, or of the tenths; what is done is read."""
    torch.set_num_threads(1)
    kind, seed, strategy, largest, output = job
    rows = rows_of(grown(seed, strategy, largest, output / f"{strategy}-{seed}"))
    if kind == "sizes":
        subsets = {size: rows.select(range(size)) for size in sizes(largest)}
    else:
        subsets = dict(zip(TENTHS, tenths(rows, seed, output / f"naive-{seed}"), strict=True))
    found = []
    for name, subset in subsets.items():
        work = output / f"{strategy}-{seed}-{str(name).replace(' ', '-')}"
        record = files.read_json(work / "record.json")
        if record is None:
            record = {"seed": seed, "strategy": strategy, "part": name, "n": len(subset)}
            record |= judge(recipe(), load_rows(subset), seed, work)
            kinds = Counter(kind_of(prompt, SKELETONS) for prompt in subset["prompt"])
            record["skeletons"] = len(kinds)
            files.write_json(work / "record.json", record)
        print(f"{kind}: seed {seed}, {strategy}, {name}: OOD {record['ood']:.3f}", file=sys.stderr, flush=True)
        found.append(record)
    return found


def sizes(largest: int) -> list[int]:
    """Five sizes, each twice the one before."""
    return [largest // 2**halvings for halvings in (4, 3, 2, 1, 0)]


def tenths(rows: Dataset, seed: int, place: Path) -> Iterable[Dataset]:
    """A tenth that is chosen, a tenth at random, and all."""
    features = runner.run(
        rows, GradientFeaturizer(**recipe().proxy()), place / "all-features", progress=False
    ).features
    for method in ("greedy", "random"):
        yield rows.select(sorted(select(features, len(rows) // 10, method=method, seed=seed).indices.tolist()))
    yield rows


def gap(found: Sequence[dict], first: Any, second: Any, key: str, outcome: str) -> dict[str, Any]:
    """The difference of two groups, paired by seed, with Student's interval."""
    groups = [{row["seed"]: row[outcome] for row in found if row[key] == name} for name in (first, second)]
    gaps = [groups[0][seed] - groups[1][seed] for seed in sorted(groups[0])]
    half = student_t(len(gaps) - 1) * statistics.stdev(gaps) / math.sqrt(len(gaps)) if len(gaps) > 1 else math.nan
    mean = statistics.fmean(gaps)
    return {"difference": mean, "interval": [mean - half, mean + half], "seeds": len(gaps)}


def told(found: Sequence[dict], outcome: str, scale: float = 100) -> str:
    values = [scale * row[outcome] for row in found]
    return f"{statistics.fmean(values):.1f} ± {statistics.stdev(values) / math.sqrt(len(values)):.1f}"


def report(by_size: Sequence[dict], by_tenth: Sequence[dict]) -> str:
    lines = ["| rows | strategy | skeletons | G-Vendi | in distribution, % | OOD, % | OOD less naive, points |"]
    lines.append("|---|---|---|---|---|---|---|")
    for size in sorted({row["part"] for row in by_size}):
        at = [row for row in by_size if row["part"] == size]
        for strategy in STRATEGIES:
            rows = [row for row in at if row["strategy"] == strategy]
            less = gap(at, strategy, "naive", "strategy", "ood")
            low, high = (100 * each for each in less["interval"])
            cells = [told(rows, "skeletons", 1), told(rows, "measure.g_vendi", 1)]
            cells += [told(rows, "in_distribution"), told(rows, "ood")]
            cells += ["" if strategy == "naive" else f"{100 * less['difference']:+.1f} ({low:+.1f} to {high:+.1f})"]
            lines.append(f"| {size:,} | {strategy} | {' | '.join(cells)} |")
    lines += ["", "| part of the naive pool | rows | skeletons | G-Vendi | in distribution, % | OOD, % |"]
    lines.append("|---|---|---|---|---|---|")
    for name in TENTHS:
        rows = [row for row in by_tenth if row["part"] == name]
        cells = [f"{rows[0]['n']:,}", told(rows, "skeletons", 1), told(rows, "measure.g_vendi", 1)]
        lines.append(f"| {name} | {' | '.join([*cells, told(rows, 'in_distribution'), told(rows, 'ood')])} |")
    for outcome in ("in_distribution", "ood"):
        less = gap(by_tenth, TENTHS[0], "whole", "part", outcome)
        low, high = (100 * each for each in less["interval"])
        lines.append(
            f"chosen tenth less whole, {outcome}: {100 * less['difference']:+.1f} ({low:+.1f} to {high:+.1f})"
        )
    return "\n".join(lines)


def draw(found: Sequence[dict], path: Path) -> None:
    """G-Vendi and both accuracies against size."""
    figure = figures.new_figure((9.6, 3.2))
    panels = {
        "measure.g_vendi": ("G-Vendi", 1),
        "in_distribution": ("in distribution, %", 100),
        "ood": ("OOD, %", 100),
    }
    for ax, (outcome, (what, scale)) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        for number, strategy in enumerate(STRATEGIES):
            mine = [row for row in found if row["strategy"] == strategy]
            parts = sorted({row["part"] for row in mine})
            values = [[scale * row[outcome] for row in mine if row["part"] == part] for part in parts]
            errors = [statistics.stdev(each) / math.sqrt(len(each)) for each in values]
            means = [statistics.fmean(each) for each in values]
            color = figures.COLORS[number]
            ax.errorbar(parts, means, errors, fmt="o-", ms=4, lw=1.4, color=color, label=strategy)
        ax.set_xscale("log", base=2)
        ax.set_xticks(parts, [f"{part:,}" for part in parts])
        ax.set_ylim(bottom=0)
        ax.set(xlabel="rows", title=what)
        figures.finish_axes(ax)
    figure.axes[0].legend(frameon=False, fontsize=8, labelcolor=figures.INK)
    figures.save_figure(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/scaling"), help="runs are kept, resumed")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--largest", type=int, default=4000, help="rows; four smaller sizes are halves of each other")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--figure", type=Path, help="where the plot goes")
    args = parser.parse_args()
    every = [
        ("sizes", seed, strategy, args.largest, args.output) for seed in range(args.seeds) for strategy in STRATEGIES
    ]
    tenth = [("tenths", seed, "naive", args.largest, args.output) for seed in range(args.seeds)]
    with ProcessPoolExecutor(args.workers, get_context("spawn")) as processes:
        by_size = [row for rows in processes.map(one, every) for row in rows]
        by_tenth = [row for rows in processes.map(one, tenth) for row in rows]
    (args.output / "results.json").write_text(json.dumps({"sizes": by_size, "tenths": by_tenth}, indent=1))
    print(report(by_size, by_tenth))
    if args.figure:
        draw(by_size, args.figure)


if __name__ == "__main__":
    main()
