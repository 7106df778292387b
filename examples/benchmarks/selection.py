# /// script
# dependencies = ["hf-prism"]
# ///
"""How diverse are k rows chosen from a redundant pool, how near is greedy to the best, and what does it cost?

Run as (two cores):

    python examples/benchmarks/selection.py                    # all three parts: most of an hour
    python examples/benchmarks/selection.py --part diversity   # 20 minutes, most of it for gradients, which are kept
    python examples/benchmarks/selection.py --part optimum     # a minute
    python examples/benchmarks/selection.py --part cost        # half an hour

diversity: pools with known redundancy. `skewed` is procedural problems of 32 kinds of reasoning, drawn as 1 / rank^1.5;
`copies` is the same with half of the rows one problem in other numbers, and exact copies; `real` is GSM8K, MATH by
subject and four NLI files, the shares falling as 1 / rank, with 15 % of the rows one GSM8K problem in other numbers.
Rows are chosen by gradients under sketch seed 0. The score reported is that of the chosen rows under sketch seed 1,
whose errors the choice has not seen. Every repeat draws another pool and uses another seed; the interval is Student's t
over the repeats. k-center is farthest-first traversal, written here.

optimum: small pools of real gradients, every subset tried; and pools of 200 rows, against a greedy choice of the entropy
itself.

cost: rows made as in clustering.py (a mixture), k a tenth of them: seconds of the greedy choice alone and of `select` with
its clusters, and what doubling the rows multiplies them by.
"""

import argparse
import itertools
import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from clustering import mixture
from common import describe, machine, table, write

from hf_prism import GradientFeaturizer, featurize, select
from hf_prism.greedy import choose_greedily
from hf_prism.rows import load_rows
from hf_prism.tasks.procedural import generate
from hf_prism.vendi import Covariance, vendi


DATA = Path(os.environ.get("HF_PRISM_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
METHODS = ("greedy", "round_robin", "inverse_cluster_size", "k-center", "random")
T_975 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)
NLI = ("cad_snli_train", "snli_dev", "conjnli_adv_train", "folio_train")
Rows = list[dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["diversity", "optimum", "cost"], action="append", help="default: all")
    parser.add_argument("--repeats", type=int, default=5, help="pools a row of the table (2 to 10)")
    parser.add_argument("--rows", type=int, default=600, help="rows of a pool")
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 200], help="k")
    parser.add_argument("--cases", type=int, default=300, help="small pools of the optimum")
    parser.add_argument("--cost-rows", type=int, nargs="+", default=[12_500, 25_000, 50_000, 100_000])
    parser.add_argument("--cost-k", type=int, help="rows chosen there (default: a tenth)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--features", type=Path, default=Path("out/benchmarks/selection"), help="gradients are kept here"
    )
    parser.add_argument("--output", type=Path, default=Path("out/benchmarks/selection.json"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found = machine()
    print(f"{describe(found)}\n", flush=True)
    result: dict[str, Any] = {"machine": found, "options": {key: str(value) for key, value in vars(options).items()}}
    for part in options.part or ("diversity", "optimum", "cost"):
        result[part] = {"diversity": diversity, "optimum": optimum, "cost": cost}[part](options)
    write(options.output, result)


# ---- pools ----------------------------------------------------------------------------------------------------------


def problems(count: int, skeleton: str | None = None, **options: Any) -> Rows:
    rows = generate(count, skeletons=[skeleton] if skeleton else None, **options)
    return [{**row, "id": f"{options.get('seed', 0)}-{row['id']}", "family": row["skeleton"]} for row in rows]


def one_problem(count: int) -> Rows:
    """A problem of GSM8K's kind with other numbers each time."""
    draw, rows = Random(0), {}
    while len(rows) < count:
        a, b, c = draw.randint(20, 99), draw.randint(10, 99), draw.randint(2, 19)
        prompt = f"Tom has {a} marbles and wins {b} more. Then he gives {c} of them to his sister. How many are left?"
        answer = f"Tom has {a} + {b} = {a + b} marbles.\nThen {a + b} - {c} = {a + b - c} are left.\n#### {a + b - c}"
        row = {"prompt": prompt, "completion": answer, "family": "one problem", "id": f"one-{len(rows)}"}
        rows.setdefault(prompt, row)
    return list(rows.values())


def from_file(name: str, count: int) -> Rows:
    rows = [json.loads(line) for line in (DATA / f"{name}.jsonl").open()]
    rows = [row for row in Random(0).sample(rows, len(rows)) if len(str(row)) < 1200][:count]
    if "premise" not in rows[0]:
        return [{**row, "family": f"MATH {row['subject']}" if "subject" in row else name} for row in rows]
    prompt = "Premise: {premise}\nHypothesis: {hypothesis}"
    return [
        {"id": row["id"], "prompt": prompt.format(**row), "completion": row["label"], "family": name} for row in rows
    ]


def supply(kind: str) -> Rows:
    """All rows that pools of a kind are drawn from."""
    if kind == "procedural":
        numbers = {"names": ["Ann", "Ben", "Tom"], "objects": ["apples"], "wordings": 1}
        redundant = [{**row, "family": "one problem"} for row in problems(400, "story/+-", seed=9, **numbers)]
        return problems(1500, seed=1) + redundant
    return [*from_file("gsm8k_train", 350), *from_file("math_test_rest", 400), *one_problem(150)] + [
        row for name in NLI for row in from_file(name, 125)
    ]


def gradients(kind: str, folder: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Families, and gradients under two sketch seeds; computed once and kept."""
    rows = supply(kind)
    dataset = load_rows([{name: row[name] for name in ("id", "prompt", "completion")} for row in rows])
    both = [
        featurize(dataset, GradientFeaturizer("embedded", seed=seed), folder / f"{kind}-{seed}") for seed in (0, 1)
    ]
    return [row["family"] for row in rows], *(features.with_format("numpy")[:]["gradient"] for features in both)


def draw_pool(name: str, families: list[str], n: int, seed: int) -> np.ndarray:
    """Positions of the rows of a pool; `copies` names some of them twice and more."""
    rng = np.random.default_rng([seed, len(name)])
    redundant = np.array([family == "one problem" for family in families])
    kinds = np.unique(np.array(families)[~redundant])
    exponent = 1.0 if name == "real" else 1.5
    share = np.zeros(len(families))
    for rank, kind in enumerate(rng.permutation(kinds)):
        members = np.array([family == kind for family in families])
        share[members] = (rank + 1.0) ** -exponent / members.sum()
    count = {"skewed": 0, "copies": n // 2, "real": 3 * n // 20}[name]
    copies = n // 10 if name == "copies" else 0
    chosen = rng.choice(
        len(families), min(n - count - copies, (share > 0).sum()), replace=False, p=share / share.sum()
    )
    of_one = rng.choice(np.flatnonzero(redundant), count, replace=False)
    return rng.permutation(np.concatenate([chosen, of_one, rng.choice(chosen[:5], copies)]))


# ---- diversity ------------------------------------------------------------------------------------------------------


def diversity(options: argparse.Namespace) -> list[dict[str, Any]]:
    lines, told = [], []
    for kind, names in {"procedural": ("skewed", "copies"), "real": ("real",)}.items():
        families, seen, unseen = gradients(kind, options.features)
        for name, k in itertools.product(names, options.sizes):
            scores: dict[str, list[tuple[float, float, float]]] = {method: [] for method in METHODS}
            for seed in range(options.repeats):
                pool = draw_pool(name, families, options.rows, seed)
                for method in METHODS:
                    places = pool[choose(method, seen[pool], k, seed)]
                    labels = [families[place] for place in places]
                    reached = len(set(labels) - {"one problem"}) / len({families[p] for p in pool} - {"one problem"})
                    scores[method].append((score_of(unseen[places]), reached, labels.count("one problem") / k))
            for method, values in scores.items():
                ratios = np.array(values)[:, 0] / np.array(scores["random"])[:, 0]
                line = {"pool": name, "k": k, "method": method, "values": values}
                line["over_random"] = interval(ratios)
                lines.append(line)
                g, f, r = (interval([value[i] for value in values]) for i in range(3))
                over = "1" if method == "random" else "{:.2f} ({:.2f} to {:.2f})".format(*line["over_random"])
                told.append(
                    [name, k, method, f"{g[0]:.1f} ({g[1]:.1f} to {g[2]:.1f})", over, f"{f[0]:.0%}", f"{r[0]:.0%}"]
                )
    header = ["pool", "k", "method", "G-Vendi, unseen sketch", "over random", "families reached", "one problem"]
    print(table(header, told) + "\n", flush=True)
    return lines


def choose(method: str, rows: np.ndarray, k: int, seed: int) -> np.ndarray:
    return k_center(rows, k, seed) if method == "k-center" else select(rows, k, method=method, seed=seed).indices


def k_center(rows: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Farthest-first traversal: each time the row whose nearest chosen row is farthest (Gonzalez, 1985)."""
    chosen = [int(np.random.default_rng(seed).integers(len(rows)))]
    nearest = rows @ rows[chosen[0]]
    while len(chosen) < k:
        nearest[chosen] = np.inf
        chosen.append(int(nearest.argmin()))
        nearest = np.maximum(nearest, rows @ rows[chosen[-1]])
    return np.array(chosen)


def score_of(rows: np.ndarray) -> float:
    return vendi(Covariance(rows.shape[1]).update(rows, ids=range(len(rows))).spectrum())


def interval(values: Any) -> tuple[float, float, float]:
    """Mean, and its 95 % interval by Student's t."""
    mean, error = float(np.mean(values)), float(np.std(values, ddof=1) / math.sqrt(len(values)))
    return mean, mean - T_975[len(values) - 2] * error, mean + T_975[len(values) - 2] * error


# ---- optimum --------------------------------------------------------------------------------------------------------


def optimum(options: argparse.Namespace) -> dict[str, Any]:
    """Greedy against the best of all subsets, of small pools drawn from real and procedural gradients."""
    n, k = 16, 5
    subsets = np.array(list(itertools.combinations(range(n), k)))
    ratios: dict[str, list[float]] = {"log-determinant": [], "G-Vendi": []}
    for kind in ("procedural", "real"):
        _, seen, _ = gradients(kind, options.features)
        for case in range(options.cases // 2):
            rng = np.random.default_rng([case, 7])
            rows = seen[rng.choice(len(seen), n, replace=False)].astype(np.float64)
            grams = (rows @ rows.T)[subsets[:, :, None], subsets[:, None, :]]
            spectra = np.linalg.eigvalsh(grams).clip(1e-12)
            shares = spectra / k
            values = {
                "log-determinant": np.log1p(spectra).sum(1),
                "G-Vendi": np.exp(-(shares * np.log(shares)).sum(1)),
            }
            mine = np.flatnonzero((subsets == np.sort(choose_greedily(rows, k))).all(1))[0]
            for name, value in values.items():
                ratios[name].append(float(value[mine] / value.max()))
    lines = [
        [name, len(r), f"{min(r):.4f}", f"{np.mean(r):.4f}", f"{np.mean(np.array(r) > 1 - 1e-9):.0%}"]
        for name, r in ratios.items()
    ]
    print(f"{k} of {n} rows, all {len(subsets):,} subsets tried\n")
    print(table(["greedy over the best", "pools", "least", "mean", "equal to the best"], lines) + "\n", flush=True)
    return {**ratios, "entropy": against_entropy(options)}


def against_entropy(options: argparse.Namespace) -> dict[str, list[float]]:
    """G-Vendi of the greedy choice over that of a greedy choice of G-Vendi itself, pools of 200 rows."""
    sizes, ratios = (20, 50, 100), {}
    for kind, k in itertools.product(("procedural", "real"), sizes):
        _, seen, _ = gradients(kind, options.features)
        pools = [np.random.default_rng([case, 8]).choice(len(seen), 200, replace=False) for case in range(10)]
        values = [
            score_of(rows[choose_greedily(rows, k)]) / score_of(rows[greedy_entropy(rows, k)])
            for rows in (seen[pool] for pool in pools)
        ]
        ratios[f"{kind}, {k} of 200"] = values
    lines = [[name, len(r), f"{min(r):.4f}", f"{np.mean(r):.4f}", f"{max(r):.4f}"] for name, r in ratios.items()]
    print(table(["log-determinant over entropy, G-Vendi", "pools", "least", "mean", "most"], lines) + "\n", flush=True)
    return ratios


def greedy_entropy(rows: np.ndarray, k: int) -> np.ndarray:
    """Each time the row after which the trace of -M log M is greatest, for M the sum of the chosen rows' squares.

    A row x adds the integral over s of log(1 + x^T (M + s)^-1 x) - 1 / (1 + s), less 1.
    """
    basis, small = np.linalg.qr(rows.T.astype(np.float64))  # as many numbers a row as there are rows
    assert basis.shape[1] == len(rows)
    rows, moment, chosen = small.T, np.zeros((len(small), len(small))), []
    steps = np.exp(np.linspace(-12, 12, 97))
    for _ in range(k):
        values, vectors = np.linalg.eigh(moment)
        inside = (rows @ vectors) ** 2 @ (1 / (values.clip(0)[:, None] + steps))
        gains = ((np.log1p(inside) - 1 / (1 + steps)) * steps).sum(axis=1)
        gains[chosen] = -np.inf
        chosen.append(int(gains.argmax()))
        moment += np.outer(rows[chosen[-1]], rows[chosen[-1]])
    return np.array(chosen)


# ---- cost -----------------------------------------------------------------------------------------------------------


def cost(options: argparse.Namespace) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    for n in options.cost_rows:
        rows, k = mixture(n, 1024, n // 10), options.cost_k or n // 10
        greedy = seconds(lambda rows=rows, k=k: choose_greedily(rows, k))
        whole = seconds(lambda rows=rows, k=k: select(rows, k, ids=range(len(rows))))
        lines.append({"rows": n, "k": k, "greedy": greedy, "select": whole})
        print(f"{n:,} rows: greedy {greedy:.1f} s, select {whole:.1f} s", flush=True)
    told = []
    for before, line in zip([None, *lines], lines, strict=False):
        grown = "" if before is None else f"{line['greedy'] / before['greedy']:.2f}"
        told.append([f"{line['rows']:,}", f"{line['k']:,}", f"{line['greedy']:.1f}", grown, f"{line['select']:.1f}"])
    print("\n" + table(["rows", "k", "greedy, s", "times the line above", "select with clusters, s"], told) + "\n")
    return lines


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
