"""How good are the debiased G-Vendi estimates? Measured against the exact Gram matrix of real gradients.

Run as:
    python examples/benchmarks/vendi_debias.py                      # 1,200 rows, 3 sketch seeds: a quarter of an hour on 1 core
    python examples/benchmarks/vendi_debias.py --rows 300           # a few minutes
    python examples/benchmarks/vendi_debias.py --synthetic          # Gram matrices of six made-up structures, 10 minutes

The rows are GSM8K problems and natural language inference pairs, half and half, from HF_PRISM_DATA (default
../shared/data beside the checkout); the proxy is the embedded one. The exact gradients (3.9 M numbers a row, from
autograd, float16 on disk: 9 GB at 1,200 rows) and the sketches are independent of each other.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from hf_prism.debiasing import debiased_vendi, fold_noise, score_noise
from hf_prism.vendi import Covariance, vendi


DATA = Path(os.environ.get("HF_PRISM_DATA", Path(__file__).parents[3] / "shared" / "data"))
NLI_FILES = ("snli_dev.jsonl", "conjnli_dev.jsonl", "hans_regenerated.jsonl", "mnli_taxinli_dev.jsonl")
SIZES = (50, 100, 300, 768, 1000, 1200, 2000)
SLICES = 16  # parts of the gradient on disk
HEADER = "| n | order | exact | raw | debiased | folds | score_noise % |\n|---|---|---|---|---|---|---|"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1200, help="rows of real data, an even number")
    parser.add_argument("--seeds", type=int, default=3, help="sketches of every row")
    parser.add_argument("--dim", type=int, default=1024, help="numbers in a sketch")
    parser.add_argument("--cache", type=Path, default=Path("vendi_debias"), help="folder for Gram matrix and sketches")
    parser.add_argument("--part", choices=["gram", "sketches", "all"], default="all", help="compute one and stop")
    parser.add_argument("--synthetic", action="store_true", help="made-up Gram matrices and dense sketches instead")
    options = parser.parse_args()
    if options.synthetic:
        return synthetic(options.dim, options.seeds)
    options.cache.mkdir(parents=True, exist_ok=True)
    if options.part != "sketches":
        gram = cached(options.cache / f"gram-{options.rows}.npy", lambda: exact_gram(real_rows(options.rows)))
    if options.part != "gram":
        sketches = [
            cached(
                options.cache / f"sketch-{options.rows}-{options.dim}-{seed}.npy",
                lambda seed=seed: sketched(real_rows(options.rows), options.dim, seed),
            )
            for seed in range(options.seeds)
        ]
    if options.part == "all":
        report(gram, sketches)


def real_rows(count: int) -> list[dict[str, str]]:
    """GSM8K and NLI rows in turn, so that every prefix holds half of each."""
    with open(DATA / "gsm8k_train.jsonl", encoding="utf-8") as lines:
        math_rows = [json.loads(line) for line in itertools.islice(lines, count // 2)]
    nli_rows: list[dict[str, Any]] = []
    for name in NLI_FILES:
        with open(DATA / name, encoding="utf-8") as lines:
            nli_rows += map(json.loads, itertools.islice(lines, count // 2 // len(NLI_FILES) + 1))
    rows = []
    # The files of NLI are taken in turn too.
    step = count // 2 // len(NLI_FILES) + 1
    order = [start + i for i in range(step) for start in range(0, len(nli_rows), step)]
    for problem, pair in zip(math_rows, [nli_rows[i] for i in order], strict=False):
        rows.append({"prompt": problem["prompt"], "completion": problem["completion"]})
        question = f"Premise: {pair['premise']}\nHypothesis: {pair['hypothesis']}\nLabel?"
        rows.append({"prompt": question, "completion": pair["label"]})
    return rows


def exact_gram(rows: list[dict[str, str]]) -> np.ndarray:
    """Cosines of the full gradients, by plain autograd, (n, n) float64."""
    from hf_prism.featurizer import GradientFeaturizer
    from hf_prism.gradients import Batch, autograd_gradients

    featurizer = GradientFeaturizer("embedded")
    model, structure = featurizer.engine.model, featurizer.engine.structure
    with tempfile.TemporaryDirectory() as folder:
        parts: list[np.memmap] = []
        for i, row in enumerate(featurizer.proxy.encode_rows(rows)):
            batch = Batch.collate([row.input_ids], [row.completion_mask], "cpu")
            _, gradient = next(iter(autograd_gradients(model, batch, structure)))
            flat = np.concatenate([tensor.reshape(-1).numpy() for tensor in gradient.values()])
            flat /= np.abs(flat).max() / 1000  # within float16, whose error of 5e-4 is independent between numbers
            pieces = np.array_split(flat.astype(np.float16), SLICES)
            if i == 0:
                shapes = [(len(rows), len(piece)) for piece in pieces]
                parts = [np.memmap(f"{folder}/{s}", np.float16, "w+", shape=shape) for s, shape in enumerate(shapes)]
            for part, piece in zip(parts, pieces, strict=True):
                part[i] = piece
        gram = np.zeros((len(rows), len(rows)))
        for part in parts:
            block = part.astype(np.float32)
            gram += block @ block.T
    lengths = np.sqrt(np.diag(gram))
    return gram / np.outer(lengths, lengths)


def sketched(rows: list[dict[str, str]], dim: int, seed: int) -> np.ndarray:
    """The gradients as the featurizer gives them, (n, dim) float32."""
    from hf_prism.featurizer import GradientFeaturizer

    featurizer = GradientFeaturizer("embedded", dim=dim, seed=seed)
    return np.stack(featurizer.featurize_rows(featurizer.proxy.encode_rows(rows))["gradient"])


def cached(path: Path, compute: Any) -> np.ndarray:
    if not path.exists():
        np.save(path, compute())
    return np.load(path)


def report(gram: np.ndarray, sketches: list[np.ndarray]) -> None:
    """Error in percent, mean and root mean square over the sketch seeds, raw and debiased."""
    n, dim = len(gram), sketches[0].shape[1]
    upper = np.triu_indices(n, 1)
    for seed, vectors in enumerate(sketches):
        errors = (vectors @ vectors.T)[upper] - gram[upper]
        print(f"seed {seed}: cosine error {np.sqrt(np.mean(errors**2)):.5f}, by folds {fold_noise(vectors):.5f}")
    print(f"\nd = {dim}, {len(sketches)} sketches; error in % as mean (rms), — where no estimate is offered")
    for name, chosen in {
        "both": slice(None),
        "GSM8K alone": slice(0, None, 2),
        "NLI alone": slice(1, None, 2),
    }.items():
        exact, drawn = gram[chosen, chosen], [vectors[chosen] for vectors in sketches]
        print(f"\n{name}\n\n{HEADER}")
        for size in [s for s in SIZES if s <= len(exact)]:
            print_rows(size, exact[:size, :size], [vectors[:size] for vectors in drawn])
    print(
        "\n100 dense Gaussian sketches of the exact Gram matrix, mean ± its standard error, and spread of one sketch\n"
    )
    print("| d | n | order | exact | raw | debiased | spread |\n|---|---|---|---|---|---|---|")
    for wide, size in itertools.product((dim, 4 * dim), [s for s in SIZES if s <= min(n, 300)]):
        print_dense(gram[:size, :size], wide)


def print_rows(size: int, gram: np.ndarray, sketches: list[np.ndarray]) -> None:
    exact = np.linalg.eigvalsh(gram).clip(0)
    dim = sketches[0].shape[1]
    spectra = [Covariance(dim).update(vectors).spectrum() for vectors in sketches]
    for order in (0.5, 1.0, 2.0):
        truth = vendi(exact, order)
        raw = [vendi(spectrum, order) for spectrum in spectra]
        debiased = [debiased_vendi(spectrum, size, dim, order)[0] for spectrum in spectra]
        folded = [fold_extrapolation(vectors) for vectors in sketches] if order == 1 and size <= 1000 else []
        cells = [relative(values, truth) for values in (raw, debiased, folded)]
        noise = 100 * np.mean([score_noise(vectors, order) for vectors in sketches])
        print(f"| {size} | {order:g} | {truth:.1f} | {' | '.join(cells)} | {noise:.2f} |", flush=True)


def print_dense(gram: np.ndarray, dim: int, repeats: int = 100) -> None:
    """Bias and noise apart, from many sketches that cost nothing: a dense sketch needs the Gram matrix only."""
    rng, n = np.random.default_rng(0), len(gram)
    eigenvalues, basis = np.linalg.eigh(gram)
    root = basis * np.sqrt(eigenvalues.clip(0))
    spectra = [Covariance(dim).update(root @ rng.standard_normal((n, dim))).spectrum() for _ in range(repeats)]
    for order in (0.5, 1.0, 2.0):
        truth = vendi(eigenvalues.clip(0), order)
        raw = np.mean([100 * (vendi(spectrum, order) / truth - 1) for spectrum in spectra])
        errors = [100 * ((debiased_vendi(spectrum, n, dim, order)[0] or np.nan) / truth - 1) for spectrum in spectra]
        mean, spread = np.mean(errors), np.std(errors)
        debiased = f"{mean:+.2f} ± {spread / math.sqrt(repeats):.2f}"
        print(f"| {dim} | {n} | {order:g} | {truth:.1f} | {raw:+.2f} | {debiased} | {spread:.2f} |", flush=True)


def relative(values: list[float | None], truth: float) -> str:
    errors = [100 * (value / truth - 1) for value in values if value is not None]
    return f"{np.mean(errors):+.2f} ({np.sqrt(np.mean(np.square(errors))):.2f})" if errors else "—"


def fold_extrapolation(vectors: np.ndarray) -> float:
    """The estimate of DESIGN 4 for comparison: log G-Vendi at d, d/2, d/4 by folds, a quadratic in 1/d read at 0."""
    folds, levels = [vectors], []
    for _ in range(3):
        levels.append(np.mean([math.log(vendi(Covariance(f.shape[1]).update(f).spectrum())) for f in folds]))
        halves = [np.split(fold, 2, axis=1) for fold in folds]
        folds = [fold for left, right in halves for fold in (left + right, left - right)]
    return math.exp(np.polyval(np.polyfit([1, 2, 4], levels, 2), 0))


def synthetic(dim: int, seeds: int) -> None:
    """Exact Gram matrices of known structure and dense Gaussian sketches of them."""
    rng = np.random.default_rng(0)
    length = 20_000
    ranks = np.arange(1, length + 1)
    structures = {
        "orthogonal": lambda n: np.eye(n),
        "power law, slow": lambda n: rng.standard_normal((n, length)) * ranks**-0.35,
        "power law": lambda n: rng.standard_normal((n, length)) * ranks**-0.5,
        "power law, fast": lambda n: rng.standard_normal((n, length)) / ranks,
        "40 clusters": lambda n: (
            rng.standard_normal((40, length))[rng.integers(0, 40, n)] + 0.7 * rng.standard_normal((n, length))
        ),
        "near duplicates": lambda n: (
            rng.standard_normal((n // 3, length))[rng.integers(0, n // 3, n)] + 0.1 * rng.standard_normal((n, length))
        ),
    }
    for name, draw in structures.items():
        print(f"\n{name}\n\n{HEADER}")
        for size in (100, 300, 1000, 1300, 2000):
            rows = draw(size)
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            gram = rows @ rows.T
            eigenvalues, basis = np.linalg.eigh(gram)
            root = basis * np.sqrt(eigenvalues.clip(0))
            print_rows(size, gram, [root @ rng.standard_normal((size, dim)) for _ in range(seeds)])


if __name__ == "__main__":
    main()
