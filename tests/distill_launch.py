"""Distil a small student, as a script for torchrun and as a function for a process that is to be killed.

torchrun --nproc_per_node 2 tests/distill_launch.py MODEL OUTPUT '{"training": {"max_steps": 4}}'
"""

from __future__ import annotations

import json
import multiprocessing
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hf_prism import ranks
from hf_prism.distillation import distill


ROWS = [
    {
        "id": f"row-{i}",
        "prompt": f"Clips in May? {'half as many ' * (i % 5)}",
        "completion": f"{i * i} clips" * (1 + i % 3),
    }
    for i in range(24)
]
TRAINING = {"learning_rate": 1e-2, "logging_steps": 1, "optim": "adamw_torch", "num_train_epochs": 1}


def run(model: str, output: str | Path, before: Callable[[], None] = lambda: None, **options: Any) -> None:
    before()
    distill(
        options.pop("rows", ROWS),
        model,
        output=output,
        **{**options, "training": {**TRAINING, **options.get("training", {})}},
    )


def in_a_process(model: str, output: str | Path, **options: Any) -> int:
    """`run` in a forked process; its exit status."""
    process = multiprocessing.get_context("fork").Process(target=run, args=(model, output), kwargs=options)
    process.start()
    process.join(120)
    if process.is_alive():
        process.kill()
        process.join()
    return process.exitcode or 0


def curve(output: str | Path) -> list[dict[str, Any]]:
    """What was logged, without the time it took."""
    lines = [json.loads(line) for line in Path(output, "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2], **json.loads(sys.argv[3]))
    ranks.leave()
