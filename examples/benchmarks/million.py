# /// script
# dependencies = ["hf-prism"]
# ///
"""How long does G-Vendi of a million gradients on disk take, in how much memory, and how near is that to the least?

Run as:

    python examples/benchmarks/million.py                       # 1,000,000 x 1,024 float16: 4.1 GB of disk, ten minutes
    python examples/benchmarks/million.py --folder data         # keeps the data for the next time
    python examples/benchmarks/million.py --rows 50000 --rounds 2

The least is the matrix product alone: X^T X summed in float64 over as many rows, which are in memory and in float64
already, 4,096 at a time, by the fastest call NumPy has (one argument twice, so that half of the product is computed).
The score adds reading, checks, hashes, unit length, 20 groups, and the spectra for the interval. Rounds are interleaved
and ratios are taken within a round. Threads are NumPy's: set OMP_NUM_THREADS. Memory is that of a fresh process;
pages of the mapped file are not counted as used, since the system takes them back at will, but are named too.
"""

import argparse
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


DIM, BLOCK, RANK = 1024, 4096, 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where the data is written, and found again (default: temporary)")
    parser.add_argument("--output", type=Path, help="JSON file (default: out/benchmarks/million.json)")
    parser.add_argument("--memory", nargs=2, metavar=("KIND", "FILE"), help=argparse.SUPPRESS)  # the fresh process
    options = parser.parse_args()
    if options.memory:
        return print(json.dumps(memory_of(*options.memory)))
    from common import describe, machine, number, table, write  # not before: the fresh process does without

    if options.rows < BLOCK or options.rounds < 1:
        raise SystemExit(f"--rows must be at least {BLOCK} and --rounds at least 1")
    with tempfile.TemporaryDirectory() as temporary:
        files = write_data(options.folder or Path(temporary), options.rows)
        sizes = ", ".join(f"{path.name} {path.stat().st_size / 1e9:.2f} GB" for path in files.values())
        found = machine() | {"numpy": np.__version__, "numpy_threads": os.environ.get("OMP_NUM_THREADS", "all")}
        print(f"{describe(found)}; numpy {np.__version__} on {found['numpy_threads']} threads\n{sizes}", flush=True)
        expected = plain_score(files["memory map"])
        seconds, scores = measure(files, options.rows, options.rounds)
        memory = {kind: fresh_process(kind, path) for kind, path in files.items()}
    for kind, score in scores.items():
        if not math.isclose(score, expected, rel_tol=1e-9):
            raise SystemExit(f"{kind}: G-Vendi {score!r}, by plain NumPy {expected!r}")
    result = {"rows": options.rows, "dim": DIM, "machine": found, "g_vendi": expected, "memory_mb": memory}
    result |= {"seconds": seconds, "lines": summary(seconds, options.rows, memory)}
    header = ["", "seconds", "µs/row", "bare product / this", "peak MB", "import alone", "and mapped file"]
    body = [
        [line["what"], number(line["seconds"]), number(line["us_per_row"]), spread(line["share"]), *line["memory"]]
        for line in result["lines"]
    ]
    print(f"\nG-Vendi {expected:.3f}, the same by plain NumPy to 1e-9\n\n{table(header, body)}")
    write(options.output or Path("out/benchmarks/million.json"), result)


def write_data(folder: Path, rows: int) -> dict[str, Path]:
    """Low rank and noise, as gradients are: the same float16 rows as a .npy file and as an Arrow file of `datasets`."""
    import pyarrow as pa
    from datasets import Features, List, Value

    folder.mkdir(parents=True, exist_ok=True)
    files = {"memory map": folder / f"gradients-{rows}.npy", "datasets": folder / f"gradients-{rows}.arrow"}
    if all(path.exists() for path in files.values()):
        return files
    rng = np.random.default_rng(0)
    mixing = (
        rng.standard_normal((RANK, DIM), dtype=np.float32) / np.arange(1, RANK + 1, dtype=np.float32)[:, None] ** 0.5
    )
    schema = Features(gradient=List(Value("float16"), length=DIM)).arrow_schema
    parts = {kind: path.with_name(f"partial-{path.name}") for kind, path in files.items()}
    array = np.lib.format.open_memmap(parts["memory map"], mode="w+", dtype=np.float16, shape=(rows, DIM))
    with pa.OSFile(str(parts["datasets"]), "wb") as sink, pa.ipc.new_stream(sink, schema) as stream:
        for start in range(0, rows, BLOCK):
            count = min(BLOCK, rows - start)
            dense = rng.standard_normal((count, RANK), dtype=np.float32) @ mixing
            dense += rng.standard_normal((count, DIM), dtype=np.float32)
            half = (dense / 64).astype(np.float16)
            array[start : start + count] = half
            cells = pa.FixedSizeListArray.from_arrays(pa.array(half.reshape(-1)), DIM)
            stream.write_batch(pa.record_batch([cells], schema=schema))
    array.flush()
    del array
    for kind, path in files.items():
        parts[kind].replace(path)
    return files


def opened(kind: str, path: Path) -> Any:
    if kind == "memory map":
        return np.load(path, mmap_mode="r")
    from datasets import Dataset

    return Dataset.from_file(str(path))


def plain_score(path: Path) -> float:
    """G-Vendi by NumPy alone, without any of the library."""
    rows, covariance = np.load(path, mmap_mode="r"), np.zeros((DIM, DIM))
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK].astype(np.float64)
        block /= np.linalg.norm(block, axis=1, keepdims=True)
        covariance += block.T @ block
    shares = np.linalg.eigvalsh(covariance / len(rows))
    shares = shares[shares > 1e-15]
    return math.exp(-np.sum(shares * np.log(shares)))


def measure(files: dict[str, Path], rows: int, rounds: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Seconds of every contender in every round, the order rotating, and the scores."""
    from hf_prism import Covariance

    rng = np.random.default_rng(1)
    blocks = [rng.standard_normal((BLOCK, DIM)) for _ in range(4)]
    narrow = [block.astype(np.float32) for block in blocks[:2]]
    seconds: dict[str, list[float]] = {}
    scores: dict[str, float] = {}

    def score(kind: str) -> None:
        started = time.perf_counter()
        covariance = Covariance(DIM).update(opened(kind, files[kind]))
        seconds.setdefault(f"{kind}, of which reading and summing", []).append(time.perf_counter() - started)
        scores[kind] = covariance.score().g_vendi

    def product(blocks: list[np.ndarray], same: bool) -> None:
        total = np.zeros((DIM, DIM), dtype=blocks[0].dtype)
        for number, start in enumerate(range(0, rows, BLOCK)):
            left = blocks[number % len(blocks)][: rows - start]
            right = left if same else blocks[(number + 1) % len(blocks)][: rows - start]
            total += left.T @ right

    contenders: dict[str, Callable[[], None]] = {
        "bare product, float64": lambda: product(blocks, True),
        "G-Vendi from a memory map": lambda: score("memory map"),
        "G-Vendi from datasets": lambda: score("datasets"),
        "bare product, float32, not symmetric": lambda: product(narrow, False),
    }
    for number in range(rounds):
        names = list(contenders)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            started = time.perf_counter()
            contenders[name]()
            seconds.setdefault(name, []).append(time.perf_counter() - started)
        print(f"round {number + 1} of {rounds} done", flush=True)
    return seconds, scores


def fresh_process(kind: str, path: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--memory", kind, str(path)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def memory_of(kind: str, path: str) -> dict[str, float]:
    """Peak MB of this process: its own memory, what the imports alone take of it, and with the mapped file's pages."""
    from hf_prism import Covariance

    rows = opened(kind, Path(path))
    imported = own_memory()
    peak, stop = [imported], threading.Event()

    def watch() -> None:
        while not stop.wait(0.01):
            peak.append(max(peak.pop(), own_memory()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    Covariance(DIM).update(rows).score()
    stop.set()
    watcher.join()
    # Not getrusage: its maximum starts from that of the process that started this one.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    everything = int(status["VmHWM"].split()[0]) / 1024
    return {"own": round(peak[0]), "import": round(imported), "with_file": round(everything)}


def own_memory() -> float:
    """MB that belong to this process alone (Linux)."""
    _, resident, shared, *_ = map(int, Path("/proc/self/statm").read_text().split())
    return (resident - shared) * resource.getpagesize() / 2**20


def summary(seconds: dict[str, list[float]], rows: int, memory: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
    bare, lines = seconds["bare product, float64"], []
    for what in sorted(seconds, key=lambda name: (name.startswith("bare"), "datasets" in name)):
        shares = [least / other for least, other in zip(bare, seconds[what], strict=True)]
        found = next(
            (memory[kind] for kind in memory if what == f"G-Vendi from {kind}" or what.endswith(f" a {kind}")), {}
        )
        median = statistics.median(seconds[what])
        lines.append(
            {
                "what": what,
                "seconds": median,
                "us_per_row": 1e6 * median / rows,
                "share": {"median": statistics.median(shares), "min": min(shares), "max": max(shares)},
                "memory": [found.get(name, "") for name in ("own", "import", "with_file")],
            }
        )
    return lines


def spread(share: dict[str, float]) -> str:
    return f"{share['median']:.2f} ({share['min']:.2f} to {share['max']:.2f})"


if __name__ == "__main__":
    main()
