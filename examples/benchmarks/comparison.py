"""Does `compare` call equal datasets different, and does it find planted differences?

Run as:

    python examples/benchmarks/comparison.py                                    # made-up rows: five minutes on 1 core
    python examples/benchmarks/comparison.py --sizes 100 --repeats 100          # a minute
    python examples/benchmarks/comparison.py --features RUN_DIRECTORY ...       # rows drawn from your own gradients

The first table draws both datasets from the same rows, without overlap: whatever is called different is a false alarm.
The second replaces a share of one of the two: by near-copies of one row (cosine .995), or by rows of half of the kinds (of
the clusters, or the half of the pool that is nearest to one row). There the true ratio is that of the mean log scores of
fresh samples. --fold 256 adds columns up to a sketch of that dim, which makes many repeats of many rows cheap.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import table, write
from vendi_intervals import made_up

from hf_prism.paired import PairedScores
from hf_prism.run_directory import load_features
from hf_prism.vectors import unit_rows
from hf_prism.vendi import Covariance, vendi


SHARES = (0.05, 0.1, 0.2, 0.5)
FRESH = 100  # samples of each population that a true ratio is made from
COPY_NOISE = 0.1  # length of the noise of a near-copy, over the row's own
Draw = Callable[[int, np.random.Generator], np.ndarray]  # n unit rows, of a pool without replacement
Plant = Callable[[int, np.random.Generator], np.ndarray]  # n unit rows of a planted kind


def main() -> None:
    options = parse()
    rng = np.random.default_rng(options.seed)
    pools = {path.name: _folded(unit_rows(load_features(path)), options.fold) for path in options.features}
    result: dict[str, Any] = {"options": {name: str(value) for name, value in vars(options).items()}}
    print(
        f"seed {options.seed}, {options.repeats} repeats of equal and {options.planted} of planted pairs", flush=True
    )
    populations = {name: _from_pool(pool) for name, pool in pools.items()} or _made_up(rng)
    started = time.perf_counter()
    result["equal"] = false_alarms(populations, options, rng)
    _show_equal(result["equal"], options.repeats, options.mixtures)
    plants = {name: _plants_in_pool(pool, rng) for name, pool in pools.items()} or _made_up_plants(rng)
    result["planted"] = power(plants, options, rng)
    _show_planted(result["planted"], options.planted)
    result["seconds"] = time.perf_counter() - started
    write(options.output or Path("out/benchmarks/comparison.json"), result)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 300, 1000])
    parser.add_argument("--repeats", type=int, default=400, help="of every cell of the first table")
    parser.add_argument("--mixtures", type=int, default=100, help="of these repeats, those that mix the two as well")
    parser.add_argument("--planted", type=int, default=50, help="repeats of every cell of the second table")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--features", type=Path, nargs="+", default=[], help="run directories to draw rows from")
    parser.add_argument("--fold", type=int, help="dim to fold real rows to")
    parser.add_argument("--output", type=Path, help="JSON file (default: out/benchmarks/comparison.json)")
    return parser.parse_args()


# ---- equal datasets -------------------------------------------------------------------------------------------------


def false_alarms(
    populations: dict[str, Draw], options: argparse.Namespace, rng: np.random.Generator
) -> list[dict[str, Any]]:
    """For every population and size, how often (0 to 1) a claim is made of two samples of it."""
    cells = []
    for name, draw in populations.items():
        for n in options.sizes:
            claims = [
                _claims_of_equals(draw(2 * n, rng), number, mixed=number < options.mixtures)
                for number in range(options.repeats)
            ]
            cells.append({"rows": name, "n": n} | _means(claims))
            print(cells[-1], flush=True)
    return cells


def _claims_of_equals(rows: np.ndarray, seed: int, *, mixed: bool) -> dict[str, float]:
    n = len(rows) // 2
    paired = PairedScores(rows, np.arange(n), np.arange(n, 2 * n), seed=seed)
    claims = {
        "jackknife alone": float(paired.unchecked_ratio().direction != 0),
        "different": float(paired.ratio().direction != 0),
    }
    if not mixed:
        return claims | dict.fromkeys(("mixture", "overlap told", "overlap below 1"), math.nan)
    mixture, _ = paired.mixture()
    interval = mixture.overlap_interval
    return claims | {
        "mixture": float(mixture.over_a.direction != 0),
        "overlap told": float(interval is not None),
        "overlap below 1": math.nan if interval is None else float(interval[1] < 1),
    }


def _show_equal(cells: list[dict[str, Any]], repeats: int, mixtures: int) -> None:
    sizes = sorted({cell["n"] for cell in cells})
    print(f"\nCalled different, in %, {repeats} repeats (binomial error {_error(0.05, repeats)} at 5 %)\n")
    print(table(["rows", *(f"n = {n:,}" for n in sizes)], _grid(cells, _alarm_cell)))
    print(
        f"\nin brackets: by the jackknife alone; then, {mixtures} repeats (binomial error {_error(0.05, mixtures)}),"
    )
    print("a mixture called different from a dataset; an overlap called less than 1\n")


def _alarm_cell(cell: dict[str, Any]) -> str:
    names = ("jackknife alone", "mixture", "overlap below 1")
    return f"{100 * cell['different']:.1f} ({'; '.join(_percent(cell[name]) for name in names)})"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"


# ---- planted differences --------------------------------------------------------------------------------------------


def power(
    plants: dict[str, tuple[Draw, dict[str, Plant]]], options: argparse.Namespace, rng: np.random.Generator
) -> list[dict[str, Any]]:
    """For every planted difference and size, how often (0 to 1) it is found, and how often the true ratio is covered."""
    cells = []
    for name, (draw, kinds) in plants.items():
        for n in options.sizes:
            fresh = float(np.mean([_log_score(draw(n, rng)) for _ in range(FRESH)]))
            for kind, plant in kinds.items():
                for share in SHARES:
                    cell = _planted_cell(draw, plant, share, n, fresh, options.planted, rng)
                    cells.append({"rows": name, "kind": kind, "share": share, "n": n} | cell)
                    print(cells[-1], flush=True)
    return cells


def _planted_cell(
    draw: Draw, plant: Plant, share: float, n: int, fresh: float, repeats: int, rng: np.random.Generator
) -> dict[str, float | None]:
    def sample() -> np.ndarray:
        rows = draw(2 * n, rng)
        replaced = round(share * n)
        rows[2 * n - replaced :] = plant(replaced, rng)
        return rows

    true = fresh - float(np.mean([_log_score(sample()[n:]) for _ in range(FRESH)]))
    results = []
    for number in range(repeats):
        paired = PairedScores(_shuffled_half(sample(), n, rng), np.arange(n), np.arange(n, 2 * n), seed=number)
        plain, ratio = paired.unchecked_ratio(), paired.ratio()
        low, high = np.log(plain.interval or (1.0, 1.0))
        found = {"found": ratio.direction > 0, "wrong way": ratio.direction < 0}
        results.append(found | {"covered": low <= true <= high})
    return {"true ratio": math.exp(true)} | _means(results)


def _shuffled_half(rows: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """The second half in random order, as hashes have it: what was planted is not to stand at its end."""
    return np.concatenate([rows[:n], rows[n:][rng.permutation(n)]])


def _show_planted(cells: list[dict[str, Any]], repeats: int) -> None:
    print(f"\nFound, in %, {repeats} repeats (binomial error up to {_error(0.5, repeats)})\n")
    for cell in cells:
        cell["line"] = f"{cell['rows']}; {cell['kind']}, {100 * cell['share']:g} %"
    sizes = sorted({cell["n"] for cell in cells})
    print(table(["rows; replaced", *(f"n = {n:,}" for n in sizes)], _grid(cells, _power_cell, "line")))
    print("\nin brackets: the true ratio, and in how many % of the repeats the interval covers it")


def _power_cell(cell: dict[str, Any]) -> str:
    return f"{100 * cell['found']:.0f} ({cell['true ratio']:.2f}, {100 * cell['covered']:.0f})"


# ---- populations ----------------------------------------------------------------------------------------------------


def _made_up(rng: np.random.Generator) -> dict[str, Draw]:
    def unit_draw(draw: Draw) -> Draw:
        return lambda n, r: unit_rows(draw(n, r))

    return {name: unit_draw(draw) for name, draw in made_up(rng).items()}


def _made_up_plants(rng: np.random.Generator) -> dict[str, tuple[Draw, dict[str, Plant]]]:
    power_law = _made_up(rng)["power law"]
    centers = unit_rows(rng.standard_normal((50, 64)))

    def clusters(count: int) -> Draw:
        return lambda n, r: unit_rows(
            centers[r.integers(0, count, n)] + 0.4 / math.sqrt(64) * r.standard_normal((n, 64))
        )

    return {
        "power law": (power_law, {"near-copies": _near_copies(power_law)}),
        "50 clusters": (
            clusters(50),
            {"near-copies": _near_copies(clusters(50)), "half of the clusters": clusters(25)},
        ),
    }


def _near_copies(draw: Draw) -> Plant:
    """Of a row that is another in every sample."""

    def plant(n: int, rng: np.random.Generator) -> np.ndarray:
        row = draw(1, rng)
        noise = rng.standard_normal((n, row.shape[1])) * COPY_NOISE / math.sqrt(row.shape[1])
        return unit_rows(row + noise)

    return plant


def _from_pool(pool: np.ndarray) -> Draw:
    return lambda n, rng: pool[rng.choice(len(pool), n, replace=False)]


def _plants_in_pool(pool: np.ndarray, rng: np.random.Generator) -> tuple[Draw, dict[str, Plant]]:
    nearest = np.argsort(pool @ pool[rng.integers(len(pool))])[len(pool) // 2 :]
    draw = _from_pool(pool)
    return draw, {"near-copies": _near_copies(draw), "nearest half": _from_pool(pool[nearest])}


def _folded(rows: np.ndarray, dim: int | None) -> np.ndarray:
    """Columns that are `dim` apart are added: again a sketch, of the same hashes modulo `dim`."""
    return rows if dim is None else unit_rows(rows.reshape(len(rows), -1, dim).sum(axis=1))


# ---- words ----------------------------------------------------------------------------------------------------------


def _log_score(rows: np.ndarray) -> float:
    return math.log(vendi(Covariance(rows.shape[1]).update(rows).spectrum()))


def _means(results: list[dict[str, float]]) -> dict[str, float | None]:
    """Of what was measured; None where nothing was."""
    columns = {name: [result[name] for result in results if not math.isnan(result[name])] for name in results[0]}
    return {name: float(np.mean(values)) if values else None for name, values in columns.items()}


def _grid(cells: list[dict[str, Any]], show: Callable[[dict[str, Any]], str], key: str = "rows") -> list[list[str]]:
    lines: dict[str, list[str]] = {}
    for cell in cells:
        lines.setdefault(cell[key], []).append(show(cell))
    return [[name, *shown] for name, shown in lines.items()]


def _error(share: float, repeats: int) -> str:
    return f"{100 * math.sqrt(share * (1 - share) / repeats):.1f}"


if __name__ == "__main__":
    main()
