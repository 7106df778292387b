"""Does the interval of a score cover what it says: the expected score of a fresh sample of the same n?

Run as:
    python examples/benchmarks/vendi_intervals.py                              # every cell: ten minutes on 1 core
    python examples/benchmarks/vendi_intervals.py --sizes 50 100                 # a minute
    python examples/benchmarks/vendi_intervals.py --pool vectors.npy           # rows drawn from your own gradients

The expected score is the mean over 600 other samples. `width` is the interval's length over that of the ideal one,
2 x 1.96 standard deviations of the score: above 1 is caution.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from hf_prism.vendi import Covariance, vendi


DIM = 64
FRESH = 600  # samples that the expected score is the mean of
Draw = Callable[[int, np.random.Generator], np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[20, 50, 100, 300, 1000, 3000])
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--order", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pool", type=Path, help=".npy of (N, d) vectors to draw rows from, without replacement")
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    populations = from_pool(np.load(options.pool)) if options.pool else made_up(rng)
    print(f"order {options.order:g}, {options.repeats} repeats, seed {options.seed}\n")
    print(
        "| rows | n | score | n / score | covered % | too high % | too low % | width |\n|---|---|---|---|---|---|---|---|"
    )
    for name, draw in populations.items():
        for n in options.sizes:
            print(f"| {name} | {n} | {measure(draw, n, options.order, options.repeats, rng)} |", flush=True)


def measure(draw: Draw, n: int, order: float, repeats: int, rng: np.random.Generator) -> str:
    """One line of the table. Too high: the whole interval lies above the expected score."""
    dim = draw(1, rng).shape[1]
    fresh = [vendi(Covariance(dim).update(draw(n, rng)).spectrum(), order) for _ in range(FRESH)]
    expected, ideal = np.mean(fresh), 2 * 1.96 * np.std(fresh)
    scores = [Covariance(dim).update(draw(n, rng)).score(order).interval for _ in range(repeats)]
    low, high = np.array([score for score in scores if score]).T
    slack = 1e-9 * expected
    above, below = np.mean(low > expected + slack), np.mean(high < expected - slack)
    covered = 1 - above - below
    error = math.sqrt(covered * (1 - covered) / repeats)
    width = f"{np.mean(high - low) / ideal:.2f}" if ideal > 1e-9 else "-"
    shares = f"{100 * covered:.1f} ± {100 * error:.1f} | {100 * above:.1f} | {100 * below:.1f}"
    return f"{expected:.2f} | {n / expected:.1f} | {shares} | {width}"


def made_up(rng: np.random.Generator) -> dict[str, Draw]:
    """Row distributions in 64 dimensions, from spread out to nearly constant."""
    ranks = np.arange(1, DIM + 1)
    mixing = rng.standard_normal((8, DIM))

    def centers(count: int) -> np.ndarray:
        return math.sqrt(DIM) * unit(rng.standard_normal((count, DIM)))

    def clusters(weights: np.ndarray, noise: float) -> Draw:
        middle, weights = centers(len(weights)), weights / weights.sum()
        return lambda n, r: middle[r.choice(len(weights), n, p=weights)] + noise * r.standard_normal((n, DIM))

    return {
        "isotropic, 64 directions": lambda n, r: r.standard_normal((n, DIM)),
        "isotropic, 16 directions": lambda n, r: np.pad(r.standard_normal((n, 16)), ((0, 0), (0, DIM - 16))),
        "8 directions and noise": lambda n, r: r.standard_normal((n, 8)) @ mixing + 0.3 * r.standard_normal((n, DIM)),
        "power law": lambda n, r: r.standard_normal((n, DIM)) * ranks**-0.5,
        "power law, steep": lambda n, r: r.standard_normal((n, DIM)) / ranks,
        "power law and a common part": lambda n, r: 0.8 + 2 * r.standard_normal((n, DIM)) * ranks**-0.6,
        "10 equal clusters": clusters(np.ones(10), 0.4),
        "50 clusters, sizes ~ 1/rank^1.5": clusters(np.arange(1.0, 51) ** -1.5, 0.2),
        "one of 90 %, twenty of 0.5 %": clusters(np.r_[0.9, np.full(20, 0.005)], 0.1),
        "100 near duplicates": clusters(np.ones(100), 0.02),
        "5 unequal groups of equal rows": clusters(np.array([0.5, 0.2, 0.15, 0.1, 0.05]), 0.0),
        "2 equal groups of equal rows": clusters(np.ones(2), 0.0),
    }


def from_pool(pool: np.ndarray) -> dict[str, Draw]:
    return {"pool": lambda n, r: pool[r.choice(len(pool), n, replace=False)]}


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


if __name__ == "__main__":
    main()
