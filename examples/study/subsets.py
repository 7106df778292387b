"""The subsets of a finished study once more: drawn again in other processes, each given to a function."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import torch
from datasets import Dataset

from hf_prism.study import StudyPool
from hf_prism.study_recipe import PlannedRun, StudyRecipe


Result = TypeVar("Result")
_MINE: dict[str, Any] = {}


@contextmanager
def each_subset(recipe: StudyRecipe, workers: int) -> Iterator[Callable[..., list[Any]]]:
    """A function that calls another as `work(recipe, run, rows, *arguments)` for each planned run, and lists the results."""
    arguments = (dict(recipe.content), recipe.folder)
    with ProcessPoolExecutor(workers, get_context("spawn"), _begin, arguments) as processes:

        def every(work: Callable[..., Result], plan: Sequence[PlannedRun], *arguments: Any) -> list[Result]:
            futures = [processes.submit(_one, work, run, arguments) for run in plan]
            return [future.result() for future in futures]

        yield every


def _begin(content: dict[str, Any], folder: Path) -> None:
    torch.set_num_threads(1)
    recipe = StudyRecipe(content, folder)
    _MINE.update(recipe=recipe, pool=StudyPool(recipe))


def _one(work: Callable[..., Result], run: PlannedRun, arguments: Sequence[Any]) -> Result:
    rows: Dataset = _MINE["pool"].subset(run)
    return work(_MINE["recipe"], run, rows, *arguments)
