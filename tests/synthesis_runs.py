"""Runs of the loop with scripted models: in this process, and in one that can be killed."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scripted import Scripted, seeds, solver, writer

from hf_prism import GradientFeaturizer, files
from hf_prism.synthesis import PrismaticSynthesizer, Synthesis
from hf_prism.synthesis_directory import read_rows
from hf_prism.tasks.math import MathTask
from hf_prism.tasks.task import Task


TARGET = 45


def maker(
    task: Task, featurizer: GradientFeaturizer, write: Any = None, answer: Any = None, **options: Any
) -> PrismaticSynthesizer:
    options = {"requests": 12, "shots": 3, "solutions": 3, **options}
    return PrismaticSynthesizer(task, write or writer(), answer or solver(), featurizer, **options)


def grow(
    place: Path,
    task: Task,
    featurizer: GradientFeaturizer,
    write: Scripted | None = None,
    answer: Scripted | None = None,
    target: int = TARGET,
    rows: Any = None,
    limits: dict[str, Any] | None = None,
    **options: Any,
) -> Synthesis:
    loop = maker(task, featurizer, write, answer, **options)
    return loop.run(seeds() if rows is None else rows, place, target_size=target, progress=False, **(limits or {}))


def whole(place: Path) -> dict[str, list]:
    """Everything that a run must come to, however often it was interrupted."""
    found = {str(path.relative_to(place)): read_rows(path) for path in sorted(place.rglob("*.parquet")) if "chunks" not in path.parts}  # fmt: skip
    for path in sorted(place.glob("rounds/*/round.json")):
        found[str(path.relative_to(place))] = [{k: v for k, v in files.read_json(path).items() if k != "seconds"}]  # type: ignore[union-attr]
    return found


def _child(place: Path, model: str, before: Callable[[], None], sent: Path, pace: float) -> None:
    before()
    featurizer = GradientFeaturizer(model, dim=64, device="cpu")
    grow(place, MathTask(), featurizer, writer(sent, pace), solver(sent, pace))


def start(place: Path, model: str, sent: Path, before: Callable[[], None] = lambda: None, pace: float = 0.0) -> Any:
    """Start a run in a process of its own; each answer takes `pace` seconds."""
    process = multiprocessing.get_context("fork").Process(target=_child, args=(place, model, before, sent, pace))
    process.start()
    return process


def sent_seeds(sent: Path) -> list[int]:
    """The seed of every request that was really sent, in order."""
    return [json.loads(line)[1] for line in sent.read_text().splitlines()] if sent.exists() else []
