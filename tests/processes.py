"""Real processes that featurize together, and that can be killed at a chosen point.

They are forked from a process that has imported everything and computed nothing, so that each starts in a moment.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import socket
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets

from hf_prism import GradientFeaturizer, batches, run_directory, runner


ROWS = [
    {"id": f"row-{i}", "prompt": f"Clips in May? {'half as many ' * (i % 5)}", "completion": f"{i} clips"}
    for i in range(20)
]
CHUNK_TOKENS, BATCH_TOKENS = 100, 60  # so that twenty short rows make several chunks of several batches


def kill_at(owner: Any, name: str, call: int = 0, when: Callable[..., bool] = lambda *_: True) -> None:
    """Have this process kill itself, as by `kill -9`, instead of a call of `owner.name`."""
    original, seen = getattr(owner, name), []

    def dying(*arguments: Any, **options: Any) -> Any:
        if when(*arguments):
            seen.append(None)
            if len(seen) > call:
                os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **options)

    setattr(owner, name, dying)


# Where a process dies: the argument is called in it before it starts.
KILL_POINTS: dict[str, Callable[[], None]] = {
    "before any batch": lambda: kill_at(runner._Work, "_encoded"),
    "in the middle of a chunk": lambda: kill_at(runner._Work, "_encoded", 3),
    "before a chunk gets its name": lambda: kill_at(
        Path, "replace", 1, lambda _, target: target.parent.name == "chunks"
    ),
    "between a chunk and its manifest line": lambda: kill_at(
        run_directory, "append_lines", 1, lambda path, *_: path.name == "manifest.jsonl"
    ),
    "before the merge": lambda: kill_at(run_directory.RunDirectory, "finish"),
    "during the merge": lambda: kill_at(run_directory, "_gradients", 2),
    "between the merged file and its checksum": lambda: kill_at(
        run_directory, "write_json", 0, lambda path, *_: path.name == "features.json"
    ),
}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def _child(model: str, output: str, rows: list[dict[str, Any]], options: dict[str, Any]) -> None:
    os.environ.update(options.get("env", {}))
    runner.CHUNK_TOKENS, batches.BATCH_TOKENS = options.get("sizes", (CHUNK_TOKENS, BATCH_TOKENS))
    options.get("before", lambda: None)()
    featurizer = GradientFeaturizer(model, dim=64, device="cpu")
    done = runner.run(datasets.Dataset.from_list(rows), featurizer, output, shard=options.get("shard"), progress=False)
    assert not done.is_complete or len(done.features) == len(rows)
    options.get("after", lambda: None)()


def start(model: str, output: Path, rows: list[dict[str, Any]] = ROWS, **options: Any) -> Any:
    """Start one process. Options: env, sizes, before, after, shard."""
    process = multiprocessing.get_context("fork").Process(target=_child, args=(model, str(output), rows, options))
    process.start()
    return process


def start_ranks(model: str, output: Path, world: int, rows: list[dict[str, Any]] = ROWS, **options: Any) -> list[Any]:
    """Start processes as torchrun would. The option `before` may be a dict by rank."""
    port, before = free_port(), options.pop("before", {})
    team = {
        "ACCELERATE_USE_CPU": "true",
        "WORLD_SIZE": world,
        "LOCAL_WORLD_SIZE": world,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    started = []
    for rank in range(world):
        env = {name: str(value) for name, value in {**team, "RANK": rank, "LOCAL_RANK": rank}.items()}
        started.append(start(model, output, rows, env=env, before=before.get(rank, lambda: None), **options))
    return started


def finish(*processes: Any, timeout: float = 120) -> list[int]:
    """Wait for processes and return their exit statuses."""
    for process in processes:
        process.join(timeout)
        if process.is_alive():
            process.kill()
            process.join()
    return [process.exitcode for process in processes]


def checksums(output: Path) -> dict[str, str]:
    """Of everything that a run leaves and that must not depend on who computed it."""
    files = [*sorted(output.glob("chunks/*.parquet")), *(output / name for name in ("features.arrow", "features.json", "manifest.jsonl", "config.json"))]  # fmt: skip
    return {str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def events(output: Path, kind: str) -> list[dict[str, Any]]:
    return [event for event in run_directory.RunDirectory(output).events() if event["event"] == kind]


def recomputed(output: Path) -> dict[str, int]:
    """By process, the chunks that it began and did not commit."""
    begun = Counter(event["writer"] for event in events(output, "begin"))
    lines = [
        path.parent.name for path in output.glob("writers/*/manifest.jsonl") for _ in path.read_text().splitlines()
    ]
    begun.subtract(Counter(lines))
    return dict(begun)


def leftovers(output: Path) -> list[Path]:
    """Temporary files that nobody needs any more."""
    return [path for path in output.rglob(".*") if path.is_file()]


def manifest(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "manifest.jsonl").read_text().splitlines()]
