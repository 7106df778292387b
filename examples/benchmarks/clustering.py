# /// script
# dependencies = ["hf-prism", "faiss-cpu", "scikit-learn"]
# ///
"""How long does spherical k-means of 100,000 gradients take, and how good is it, beside faiss and scikit-learn?

Run as:

    python examples/benchmarks/clustering.py                               # 100,000 x 1,024, k = 10,000: most of an hour
    python examples/benchmarks/clustering.py --rows 5000 --dim 256 --seeds 3 --rounds 2     # a minute
    python examples/benchmarks/clustering.py --blocks                      # also: do other block sizes change any bit?

Two kinds of data, both seeded: a mixture, one and a half times as many directions as clusters with shares as 1 / rank and
noise as strong as the direction, which is how real pools look; and isotropic noise, in which there is nothing to find.
Every contender gets unit rows in float32, makes at most --iterations updates and labels every row. faiss uses all rows and
scikit-learn is too slow for the full size, so that it runs on a stated smaller one, where the initialisations are compared
too. Rounds are interleaved, ratios are taken within a round. "Cosine" is the mean cosine of a row and the centre it is
labelled with: what spherical k-means maximises.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import describe, machine, number, one_line, table, write

from hf_prism import SphericalKMeans, clustering, nearest


SMALL = 5000  # rows for scikit-learn
Clusters = tuple[np.ndarray, np.ndarray, int]  # labels, centres, updates
Contender = Callable[[np.ndarray, int, int, int], Clusters]  # of rows, k, updates, seed


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    found = machine() | {"products_in": str(nearest.fast_dtype("cpu")).removeprefix("torch.")}
    print(f"{describe(found)}; products in {found['products_in']}\n", flush=True)
    result: dict[str, Any] = {key: value for key, value in vars(options).items() if key != "output"}
    result |= {"machine": found, "data": {}}
    for name, make in {"mixture": mixture, "isotropic": isotropic}.items():
        result["data"][name] = benchmark(name, make, options)
    write(options.output or Path("out/benchmarks/clustering.json"), result)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--clusters", type=int, help="default: a tenth of the rows")
    parser.add_argument("--iterations", type=int, default=20, help="updates of the centres at most")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=5, help="runs of each initialisation at the small size")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--blocks", action="store_true", help="cluster once more with other block sizes, and compare")
    parser.add_argument("--output", type=Path, help="JSON file (default: out/benchmarks/clustering.json)")
    options = parser.parse_args()
    options.clusters = options.clusters or max(1, options.rows // 10)
    if min(options.rows, options.dim, options.clusters, options.iterations, options.rounds, options.threads) < 1:
        raise SystemExit("every size must be at least 1")
    if options.clusters > options.rows:
        raise SystemExit(f"--clusters {options.clusters} is more than --rows {options.rows}")
    return options


# ---- the data -------------------------------------------------------------------------------------------------------


def mixture(rows: int, dim: int, clusters: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    kinds = max(1, 3 * clusters // 2)
    shares = 1 / np.arange(1, kinds + 1)
    directions = rng.standard_normal((kinds, dim), dtype=np.float32)
    made = rng.standard_normal((rows, dim), dtype=np.float32)
    made += directions[rng.choice(kinds, rows, p=shares / shares.sum())]
    return unit(made)


def isotropic(rows: int, dim: int, clusters: int) -> np.ndarray:
    return unit(np.random.default_rng(0).standard_normal((rows, dim), dtype=np.float32))


def unit(rows: np.ndarray) -> np.ndarray:
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


# ---- the contenders -------------------------------------------------------------------------------------------------


def ours(rows: np.ndarray, clusters: int, iterations: int, seed: int) -> Clusters:
    kmeans = SphericalKMeans(clusters, max_iter=iterations, seed=seed, device="cpu").fit(rows)
    return kmeans.labels_, kmeans.cluster_centers_, kmeans.n_iter_


def faiss(rows: np.ndarray, clusters: int, iterations: int, seed: int) -> Clusters:
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    every = {"min_points_per_centroid": 1, "max_points_per_centroid": len(rows)}  # else it samples the rows
    kmeans = faiss.Kmeans(rows.shape[1], clusters, niter=iterations, spherical=True, seed=seed, **every)
    kmeans.train(rows)
    return kmeans.index.search(rows, 1)[1][:, 0], kmeans.centroids, len(kmeans.obj)


def sklearn(rows: np.ndarray, clusters: int, iterations: int, seed: int) -> Clusters:
    from sklearn.cluster import KMeans

    kmeans = KMeans(clusters, n_init=1, max_iter=iterations, tol=0, random_state=seed)
    return fitted(kmeans, rows)


def sklearn_minibatch(rows: np.ndarray, clusters: int, iterations: int, seed: int) -> Clusters:
    from sklearn.cluster import MiniBatchKMeans

    return fitted(MiniBatchKMeans(clusters, n_init=1, max_iter=iterations, random_state=seed), rows)


def fitted(kmeans: Any, rows: np.ndarray) -> Clusters:
    from threadpoolctl import threadpool_limits

    with threadpool_limits(torch.get_num_threads()):
        kmeans.fit(rows)
    return kmeans.labels_, unit(kmeans.cluster_centers_), kmeans.n_iter_


LARGE: dict[str, Contender] = {"hf_prism": ours, "faiss": faiss}
PEERS: dict[str, Contender] = LARGE | {
    "scikit-learn KMeans": sklearn,
    "scikit-learn MiniBatchKMeans": sklearn_minibatch,
}


# ---- the measurement ------------------------------------------------------------------------------------------------


def benchmark(name: str, make: Callable[[int, int, int], np.ndarray], options: argparse.Namespace) -> dict[str, Any]:
    share = min(1.0, SMALL / options.rows)
    small = make(int(share * options.rows), options.dim, max(1, int(share * options.clusters)))
    clusters = max(1, int(share * options.clusters))
    for contender in PEERS.values():  # imports, threads
        attempt(contender, small[: max(100, clusters)], 10, 2, 0)
    found: dict[str, Any] = {}
    if share < 1:
        rows = make(options.rows, options.dim, options.clusters)
        found["large"] = race(name, LARGE, rows, options.clusters, options)
        if options.blocks:
            found["blocks"] = blocks(rows, options.clusters, options.iterations)
        del rows
    elif options.blocks:
        found["blocks"] = blocks(small, clusters, options.iterations)
    found["small"] = race(name, PEERS, small, clusters, options)
    found["initialisation"] = initialisations(name, small, clusters, options)
    return found


def race(
    name: str, contenders: dict[str, Contender], rows: np.ndarray, clusters: int, options: argparse.Namespace
) -> dict[str, Any]:
    """Time the contenders in interleaved rounds, the seed of a round being its number."""
    runs: dict[str, list[dict[str, float]]] = {contender: [] for contender in contenders}
    errors: dict[str, str] = {}
    for round_ in range(options.rounds):
        names = list(contenders)
        for contender in names[round_ % len(names) :] + names[: round_ % len(names)]:
            if contender in errors:
                continue
            run = attempt(contenders[contender], rows, clusters, options.iterations, round_)
            if isinstance(run, str):
                errors[contender] = run
            else:
                runs[contender].append(run)
        print(f"{name}, {len(rows):,} rows: round {round_ + 1} of {options.rounds} done", flush=True)
    lines, body = {}, []
    for contender in contenders:
        if contender in errors:
            body.append([contender, errors[contender], "", "", ""])
            continue
        pairs = zip(runs["hf_prism"], runs[contender], strict=True) if "hf_prism" not in errors else ()
        ratios = [other["seconds"] / own["seconds"] for own, other in pairs]
        line: dict[str, Any] = {
            key: statistics.median(run[key] for run in runs[contender]) for key in runs[contender][0]
        }
        line["times_ours"] = (
            {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)} if ratios else None
        )
        lines[contender] = line | {"runs": runs[contender]}
        span = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if ratios else ""
        body.append([contender, number(line["seconds"]), span, f"{line['cosine']:.5f}", f"{line['updates']:.0f}"])
    title = f"{name}, {len(rows):,} x {rows.shape[1]:,}, k = {clusters:,}, medians of {options.rounds} rounds"
    print(f"\n{title}\n\n{table(['', 'seconds', 'times ours', 'cosine', 'updates'], body)}\n", flush=True)
    return {"rows": len(rows), "clusters": clusters, "lines": lines, "errors": errors}


def attempt(
    contender: Contender, rows: np.ndarray, clusters: int, iterations: int, seed: int
) -> dict[str, float] | str:
    """Seconds, cosine and updates of one run, or the error."""
    started = time.perf_counter()
    try:
        labels, centers, updates = contender(rows, clusters, iterations, seed)
    except Exception as error:  # whatever a peer raises is its result
        return one_line(error)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "cosine": mean_cosine(rows, centers, labels), "updates": updates}


def mean_cosine(rows: np.ndarray, centers: np.ndarray, labels: np.ndarray) -> float:
    parts = [slice(start, start + 1024) for start in range(0, len(rows), 1024)]
    return sum(float(np.einsum("ij,ij->", rows[part], centers[labels[part]], dtype=float)) for part in parts) / len(
        rows
    )


def initialisations(name: str, rows: np.ndarray, clusters: int, options: argparse.Namespace) -> dict[str, Any]:
    """The mean cosine at the start and after Lloyd's algorithm, for several ways to choose the first centres."""
    ways = {
        "k-means++ in rounds (hf_prism)": in_rounds,
        "k-means++ one by one": one_by_one,
        "greedy k-means++ (scikit-learn)": greedy,
        "random rows": at_random,
    }
    found, body = {}, []
    for way, choose in ways.items():
        starts, ends, seconds = [], [], []
        try:
            for seed in range(options.seeds):
                started = time.perf_counter()
                centers = choose(rows, clusters, seed)
                seconds.append(time.perf_counter() - started)
                state = lloyd(rows)
                state.centers = torch.from_numpy(centers)
                state.nearest.add(nearest.Centers(state.centers))
                starts.append(state.mean_cosine())
                state.run(options.iterations, 0.0)
                ends.append(state.mean_cosine())
        except ImportError as error:
            found[way] = {"error": one_line(error)}
            body.append([way, one_line(error), "", ""])
            continue
        found[way] = {
            "start": statistics.mean(starts),
            "end": statistics.mean(ends),
            "seconds": statistics.median(seconds),
        }
        spread = f" ± {statistics.stdev(ends) / len(ends) ** 0.5:.5f}" if len(ends) > 1 else ""
        body.append(
            [way, number(found[way]["seconds"]), f"{found[way]['start']:.5f}", f"{found[way]['end']:.5f}{spread}"]
        )
    title = f"{name}, {len(rows):,} rows, k = {clusters:,}: first centres, means of {options.seeds} seeds"
    print(f"{title}\n\n{table(['', 'seconds', 'cosine at the start', 'after Lloyd'], body)}\n", flush=True)
    return found


def lloyd(rows: np.ndarray) -> clustering._Lloyd:
    ranks = clustering._Ranks(None, torch.device("cpu"))
    return clustering._Lloyd(torch.from_numpy(rows), np.arange(len(rows)), len(rows), ranks)


def in_rounds(rows: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    state = lloyd(rows)
    state.draw(clusters, seed)
    return state.centers.numpy()


def one_by_one(rows: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    """k-means++ as published: one draw after the other."""
    rng = np.random.default_rng(seed)
    chosen, closest = [int(rng.integers(len(rows)))], np.full(len(rows), -1.0)
    for _ in range(clusters - 1):
        closest = np.maximum(closest, rows @ rows[chosen[-1]])
        far = np.where(closest < 1 - 1e-6, 1 - closest, 0)
        chosen.append(int(rng.choice(len(rows), p=far / far.sum())))
    return rows[chosen]


def greedy(rows: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    from sklearn.cluster import kmeans_plusplus

    return np.ascontiguousarray(kmeans_plusplus(rows, clusters, random_state=seed)[0])


def at_random(rows: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    return rows[np.random.default_rng(seed).choice(len(rows), clusters, replace=False)]


def blocks(rows: np.ndarray, clusters: int, iterations: int) -> str:
    """Cluster with two sets of block sizes; exit with an error where any bit of labels or centres differs."""
    before = nearest.ROWS_AT_A_TIME["cpu"], nearest.PAIRS_AT_A_TIME["cpu"], nearest.GROUP
    found = []
    for sizes in (before, (333, 100, 48)):
        nearest.ROWS_AT_A_TIME["cpu"], nearest.PAIRS_AT_A_TIME["cpu"], nearest.GROUP = sizes
        found.append(ours(rows, clusters, iterations, 0))
    nearest.ROWS_AT_A_TIME["cpu"], nearest.PAIRS_AT_A_TIME["cpu"], nearest.GROUP = before
    if not all(np.array_equal(one, other) for one, other in zip(*found, strict=True)):
        raise SystemExit(f"other block sizes changed {(found[0][0] != found[1][0]).sum()} of {len(rows)} labels")
    print(f"{len(rows):,} rows with other block sizes: labels and centres are the same to the last bit\n", flush=True)
    return "same labels and centres"


if __name__ == "__main__":
    main()
