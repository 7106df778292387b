# /// script
# dependencies = ["hf-prism"]
# ///
"""Prismatic synthesis against its controls, at equal size, judged by a proxy and a sketch that the filter has not seen.

    OMP_NUM_THREADS=1 python examples/train_embedded.py --seed 1 --minutes 12 --output out/second_proxy
    python examples/benchmarks/synthesis.py --second-proxy out/second_proxy --seeds 6

A simulation: the generator of `examples/recipes/embedded.yaml` has favourite kinds of problems, and every seed draws other
favourites, other seeds and other requests. For each strategy the recipe grows a pool to the same size. Judged are the
first `--size` rows of each pool: G-Vendi under the second proxy (trained on other text, with its own tokenizer) with
another sketch seed, the skeletons that occur, those that occur 5 times or more, their
effective number (the exponential of the entropy of their shares), and
what a row cost. Differences are paired by seed; intervals are Student's t, 95 %.
"""

import argparse
import json
import math
import statistics
from collections import Counter
from pathlib import Path

import numpy as np

from hf_prism import GradientFeaturizer, featurize, g_vendi
from hf_prism.recipe import Recipe
from hf_prism.rows import load_rows
from hf_prism.synthesis_directory import Clusters
from hf_prism.tasks.simulation import kind_of, skewed_rows


RECIPE = Path(__file__).parents[1] / "recipes" / "embedded.yaml"
OFTEN = 5  # rows of a skeleton, a hundredth of the pool
STRATEGIES = ("prismatic", "naive", "persona")
T95 = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--second-proxy", required=True, help="a model that the loop does not use")
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--size", type=int, default=500, help="rows of each pool that are judged")
    parser.add_argument("--surface-skew", type=float, default=0.0, help="favourite names, objects and wordings too")
    parser.add_argument("--first", type=int, default=0, help="the first seed; another process may do the others")
    parser.add_argument("--output", type=Path, default=Path("out/benchmarks/synthesis"), help="runs are kept, resumed")
    parser.add_argument("--figure", type=Path, help="where the plot goes")
    options = parser.parse_args()
    judge = GradientFeaturizer(options.second_proxy, seed=1)
    found = [
        run(seed, strategy, options, judge)
        for seed in range(options.first, options.first + options.seeds)
        for strategy in STRATEGIES
    ]
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "results.json").write_text(json.dumps(found, indent=1))
    report(found, options)
    if options.figure:
        draw(found, options.figure)


def run(seed: int, strategy: str, options: argparse.Namespace, judge: GradientFeaturizer) -> dict:
    """Grow one pool, and judge it."""
    place = options.output / f"surface-{options.surface_skew}" / f"{strategy}-{seed}"
    changes = {"strategy": strategy, "seed": seed, "generator.favourite_seed": seed, "target_size": options.size}
    changes["generator.surface_skew"] = options.surface_skew
    recipe = Recipe.load(RECIPE, changes)
    columns = ("id", "prompt", "completion", "answer", "level")
    seeds = [{name: row[name] for name in columns} for row in skewed_rows(100, seed=seed, favourite_seed=seed)]
    done = recipe.synthesizer().run(seeds, place, target_size=options.size, progress=False, **recipe.limits())
    rows = done.dataset.select(range(options.size))
    features = featurize(load_rows(rows), judge, place / "judged", progress=False)
    curve = [g_vendi(features.select(range(n))).g_vendi for n in (100, 200, 300, 400, options.size)]
    kinds = Counter(kind_of(prompt) for prompt in rows["prompt"])
    shares = np.array(list(kinds.values())) / len(rows)
    accepted = sum(each.verdicts["accepted"] for each in done.rounds[1:])
    clusters = [Clusters.read(path) for path in sorted(place.glob("rounds/*/clusters.parquet"))]
    result = {
        "seed": seed,
        "strategy": strategy,
        "rounds": len(done.rounds) - 1,
        "g_vendi": curve[-1],
        "curve": curve,
        "skeletons": len(kinds),
        "frequent_skeletons": sum(count >= OFTEN for count in kinds.values()),
        "effective_skeletons": float(np.exp(-(shares * np.log(shares)).sum())),
        "requests_per_row": sum(each.requests for each in done.rounds) / accepted,
        "seconds_per_row": sum(each.seconds for each in done.rounds[1:]) / accepted,
        "pool_sizes": [each.pool_size for each in done.rounds],
        "sparse_sizes": [float(each.sizes[each.sparse].mean()) for each in clusters],
        "sparse_over_mean": [float(each.sizes[each.sparse].mean() / each.sizes.mean()) for each in clusters],
    }
    print(
        f"seed {seed}, {strategy}: " + ", ".join(f"{k} {v:.3g}" for k, v in result.items() if isinstance(v, float)),
        flush=True,
    )
    return result


def interval(values: list[float]) -> tuple[float, float]:
    """Mean and half width of the 95 % interval."""
    n = len(values)
    return statistics.fmean(values), T95.get(n - 1, 2.0) * statistics.stdev(values) / math.sqrt(n)


def report(found: list[dict], options: argparse.Namespace) -> None:
    by = {name: [each for each in found if each["strategy"] == name] for name in STRATEGIES}
    print(f"\nn = {options.size} rows, {options.seeds} seeds, mean +- 95 % interval\n")
    print(
        "| strategy | G-Vendi, second proxy | skeletons | of 5 rows or more | effective number | requests a row | seconds a row |"
    )
    print("|---|---|---|---|---|---|---|")
    names = (
        "g_vendi",
        "skeletons",
        "frequent_skeletons",
        "effective_skeletons",
        "requests_per_row",
        "seconds_per_row",
    )
    for strategy, runs in by.items():
        cells = ["{:.2f} +- {:.2f}".format(*interval([each[name] for each in runs])) for name in names]
        print(f"| {strategy} | " + " | ".join(cells) + " |")
    print(
        "\n| prismatic over | G-Vendi, times | skeletons, more | of 5 rows or more, more | effective number, times |\n|---|---|---|---|---|"
    )
    for control in STRATEGIES[1:]:
        pairs = list(zip(by["prismatic"], by[control], strict=True))
        cells = []
        for name in ("g_vendi", "effective_skeletons"):
            mean, half = interval([math.log(a[name] / b[name]) for a, b in pairs])
            cells.append(f"{math.exp(mean):.3f} ({math.exp(mean - half):.3f} to {math.exp(mean + half):.3f})")
        more = []
        for name in ("skeletons", "frequent_skeletons"):
            mean, half = interval([float(a[name] - b[name]) for a, b in pairs])
            more.append(f"{mean:.1f} ({mean - half:.1f} to {mean + half:.1f})")
        print(f"| {control} | {cells[0]} | {more[0]} | {more[1]} | {cells[1]} |")
    print("\n| round | rows a sparse cluster, prismatic | over the mean cluster |\n|---|---|---|")
    shortest = min(len(each["sparse_sizes"]) for each in by["prismatic"])
    for i in range(shortest):
        sizes, ratios = (
            interval([each[name][i] for each in by["prismatic"]]) for name in ("sparse_sizes", "sparse_over_mean")
        )
        print(f"| {i + 1} | {sizes[0]:.2f} +- {sizes[1]:.2f} | {ratios[0]:.2f} +- {ratios[1]:.2f} |")


def draw(found: list[dict], path: Path) -> None:
    """G-Vendi by size, and the skeletons, of each strategy; a thin line is a seed."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    colors = dict(zip(STRATEGIES, ("#3b6fd4", "#c2702b", "#7a7a7a"), strict=True))
    for strategy, color in colors.items():
        runs = [each for each in found if each["strategy"] == strategy]
        last = len(runs[0]["curve"])
        sizes = [*range(100, 100 * last, 100), runs[0]["pool_sizes"][0] + 100 * (last - 1)][:last]
        for each in runs:
            left.plot(sizes, each["curve"], color=color, alpha=0.25, linewidth=0.8)
        left.plot(sizes, np.mean([each["curve"] for each in runs], axis=0), color=color, linewidth=2, label=strategy)
        x = STRATEGIES.index(strategy)
        values = [each["effective_skeletons"] for each in runs]
        right.plot(np.linspace(x - 0.15, x + 0.15, len(values)), values, "o", color=color, alpha=0.6)
        right.plot([x - 0.25, x + 0.25], [np.mean(values)] * 2, color=color, linewidth=2)
    left.set(xlabel="rows of the pool", ylabel="G-Vendi, second proxy and sketch", title="Diversity at equal size")
    left.legend(frameon=False)
    right.set(
        xticks=range(len(STRATEGIES)),
        xticklabels=STRATEGIES,
        ylabel="effective number of skeletons",
        title="Kinds of reasoning, simulated generator",
    )
    right.set_ylim(bottom=0)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    print(f"\nplot: {path}")


if __name__ == "__main__":
    main()
