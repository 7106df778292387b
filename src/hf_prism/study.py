"""A controlled study: one student for each of many subsets of a pool, and every measure of every subset.

    config.json        what decides the results; another study is refused
    runs/0007.json     what came of a run; with this file it is done
    runs/0007.log      what its training and evaluation printed
    runs.parquet       all runs, a row each
    findings.json, report.html, *.png      what is made of them (`study_report`)

Subsets have equal size and quality, and differ in composition alone. So what a measure has to do with the accuracy on
problems of another kind can be seen for itself: the paper's claim (section 3) at any size. A study that is interrupted
goes on with the runs that are missing.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from . import files
from .benchmarks import find, read
from .composition import Pool
from .rows import load_rows, row_ids, write_parquet
from .run_config import open_run
from .settings import read_rows
from .solutions import reference_solutions
from .study_recipe import PlannedRun, StudyRecipe
from .study_run import judge, roles_of
from .training_run import say


if TYPE_CHECKING:
    from datasets import Dataset


KIND = "study"
DIGEST_ROWS = 10_000
"""Read at a time."""


def study(recipe: StudyRecipe, *, dry_run: bool = False, report: Callable[[str], None] | None = None) -> Path | None:
    """Make all runs of a study that are missing, and write what came of them.

    Args:
        recipe: Of the study.
        dry_run: Check everything that can be checked without training, tell the plan, and stop.
        report: Gets lines for the user; by default they go to standard error.

    Returns:
        The Parquet file of all runs; None after a dry run.

    Raises:
        ValueError: A bad pool, design, model or benchmark, before any run; or the directory holds another study.
        RuntimeError: A run failed; the message names its log. Those that are done stay.

    Example:
        >>> recipe = StudyRecipe.load("examples/recipes/study_math.yaml")  # doctest: +SKIP
        >>> study(recipe)  # doctest: +SKIP
        PosixPath('runs/study_math/runs.parquet')
    """
    tell = report or say
    plan = recipe.plan()
    pool = StudyPool(recipe)
    pool.check(plan)
    read_ones = _benchmarks(recipe)
    config = {**recipe.fixed(), "pool": pool.digest(), "benchmarks": read_ones}
    tell(_told(recipe, plan, pool, read_ones))
    if dry_run:
        tell(_preflight(recipe, plan[0], pool))
        return None
    directory = recipe.output
    open_run(directory, config, KIND, hint="or change the recipe back")
    (directory / "runs").mkdir(exist_ok=True)
    missing = [run for run in plan if not _record(directory, run).exists()]
    _make(recipe, missing, len(plan), tell)
    return write_runs(directory, [files.read_json(_record(directory, run)) or {} for run in plan])


class StudyPool:
    """The rows that subsets are drawn from.

    Attributes:
        rows: All of them.
    """

    def __init__(self, recipe: StudyRecipe) -> None:
        content = {**recipe.content, "revision": recipe.content.get("data_revision")}
        self.rows: Dataset = read_rows(recipe.place(recipe.content["data"]), content, None)
        self.factors = recipe.section("factors")
        skills = recipe.content.get("skills")
        for name in (*self.factors.values(), *([skills] if skills else [])):
            if name not in self.rows.column_names:
                raise ValueError(
                    f"the pool has no column {name!r}, which the recipe's factors or skills name; columns found: "
                    f"{', '.join(self.rows.column_names)}."
                )
        ids = row_ids(self.rows).ids
        self._pool = Pool({name: self.rows[name][:] for name in self.factors.values()}, ids)

    def digest(self) -> str:
        """Of all cells: an id of the user's own does not show an edited text, or another factor."""
        total = hashlib.sha256()
        for batch in self.rows.with_format("arrow").iter(DIGEST_ROWS):
            total.update(repr(batch.to_pylist()).encode(errors="surrogatepass"))  # type: ignore[union-attr]
        return total.hexdigest()[:16]

    def check(self, plan: Sequence[PlannedRun]) -> None:
        """Make sure that every subset can be drawn, so that a pool that is too small is an error before the first run."""
        for run in plan:
            self._pool.check(run.composition)

    def subset(self, run: PlannedRun) -> Dataset:
        """The rows of a run."""
        return self.rows.select(self._pool.compose(run.composition).tolist()).flatten_indices()

    def sizes(self) -> str:
        """How many rows, and how many values of each factor."""
        values = ", ".join(f"{len(each):,} of {name}" for name, each in self._pool.values.items())
        return f"{len(self.rows):,} rows; values: {values}"


# ---- many runs -------------------------------------------------------------------------------------------------------


def _make(recipe: StudyRecipe, missing: Sequence[PlannedRun], total: int, tell: Callable[[str], None]) -> None:
    """Make runs in processes of their own, whose libraries keep state that two trainings at once would share."""
    if not missing:
        return
    workers, start = min(recipe.workers, len(missing)), time.monotonic()
    context = get_context("spawn")
    queue = context.Queue()
    for index in range(workers):
        queue.put(index)
    arguments = (dict(recipe.content), recipe.folder, queue, workers)
    with ProcessPoolExecutor(workers, context, _begin, arguments) as processes:
        left = {processes.submit(_run, run): run for run in missing}
        done = total - len(missing)
        try:
            while left:
                finished, _ = wait(left, return_when=FIRST_COMPLETED)
                for future in finished:
                    run = left.pop(future)
                    told = _result(recipe, run, future)
                    done += 1
                    seconds = (time.monotonic() - start) / (len(missing) - len(left)) * len(left)
                    tell(f"{done:,} of {total:,}: run {run.name} {told}; about {seconds / 60:,.0f} minutes left")
        except BaseException:
            processes.shutdown(wait=False, cancel_futures=True)
            raise


def _result(recipe: StudyRecipe, run: PlannedRun, future: Any) -> str:
    try:
        return future.result()
    except Exception as error:
        log = recipe.output / "runs" / f"{run.name}.log"
        raise RuntimeError(
            f"run {run.name} failed ({type(error).__name__}: {error}). Its log is {log}. The same command makes what is "
            "missing."
        ) from error


_MINE: dict[str, Any] = {}
"""Of a worker: its recipe and its pool, read once."""


def _begin(content: Mapping[str, Any], folder: Path, queue: Any, workers: int) -> None:
    Thread(target=_end_with_study, daemon=True).start()
    index = queue.get()
    import torch

    if torch.cuda.device_count() > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(index % torch.cuda.device_count())
    else:
        torch.set_num_threads(max(1, torch.get_num_threads() // workers))
    recipe = StudyRecipe(content, folder)
    _MINE.update(recipe=recipe, pool=StudyPool(recipe))


def _end_with_study() -> None:
    """A study that is killed ends its workers, which else would go on with what the next call begins anew."""
    if study_process := parent_process():
        study_process.join()
        os._exit(1)


def _run(run: PlannedRun) -> str:
    recipe, pool = _MINE["recipe"], _MINE["pool"]
    work = recipe.output / "work" / run.name
    with _printing_to(recipe.output / "runs" / f"{run.name}.log"):
        record = make_run(recipe, run, pool, work)
    files.write_json(_record(recipe.output, run), record)
    shutil.rmtree(work)
    return f"G-Vendi {record['measure.g_vendi']:.1f}, OOD accuracy {100 * record['ood']:.1f} %"


@contextmanager
def _printing_to(path: Path) -> Iterator[None]:
    """Standard output and error, also of libraries, into a file; and an error with its traceback."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(number) for number in (1, 2)]
    with path.open("ab") as log:
        for number in (1, 2):
            os.dup2(log.fileno(), number)
        try:
            yield
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, copy in zip((1, 2), kept, strict=True):
                os.dup2(copy, number)
                os.close(copy)


def _record(directory: Path, run: PlannedRun) -> Path:
    return directory / "runs" / f"{run.name}.json"


# ---- one run ---------------------------------------------------------------------------------------------------------


def make_run(recipe: StudyRecipe, run: PlannedRun, pool: StudyPool, work: Path) -> dict[str, Any]:
    """Score the subset of a run, train its student, evaluate it.

    Args:
        recipe: Of the study.
        run: One of its plan.
        pool: Its pool.
        work: A directory for features, student and answers; resumed.

    Returns:
        The row of `runs.parquet`.
    """
    return {
        "study": recipe.content["name"],
        "run": run.name,
        "repeat": run.repeat,
        "seed": run.composition.seed,
        **{f"factor.{name}": value for name, value in run.factors.items()},
        **judge(recipe, pool.subset(run), run.composition.seed, work),
    }


# ---- before and after ------------------------------------------------------------------------------------------------


def _benchmarks(recipe: StudyRecipe) -> dict[str, Any]:
    """Every benchmark is read; by name its items and its role."""
    arguments = recipe.student_recipe("subset", "student").evaluation_arguments()
    roles = {name: role for role, names in roles_of(recipe).items() for name in names}
    found = {}
    for spec in arguments["benchmarks"]:
        benchmark = find(spec, prompt=arguments.get("prompt"))
        items = read(benchmark, max_items=arguments.get("max_items"), seed=arguments.get("seed", 0))
        if column := recipe.section("evaluation").get("solution"):
            reference_solutions(benchmark, column)
        found[benchmark.name] = {
            "role": roles[benchmark.name],
            "items": len(items.items),
            "items_digest": items.digest,
        }
    return found


def _told(recipe: StudyRecipe, plan: Sequence[PlannedRun], pool: StudyPool, read_ones: Mapping[str, Any]) -> str:
    asked = sum(each["items"] for each in read_ones.values())
    lines = [
        f"Study {recipe.content['name']}: {len(plan):,} runs of {plan[0].composition.size:,} rows, to {recipe.output}",
        f"  pool           {pool.sizes()}",
        f"  in all         {len(plan) * plan[0].composition.size:,} rows scored and learned, {len(plan) * asked:,} answers",
    ]
    lines += [f"  {name:14} {each['items']:,} items, {each['role']}" for name, each in read_ones.items()]
    return "\n".join(lines)


def _preflight(recipe: StudyRecipe, run: PlannedRun, pool: StudyPool) -> str:
    """The first run as far as it goes without a step: mask, lengths, cost; and what its student is asked with."""
    from .featurizer import GradientFeaturizer

    lines: list[str] = []
    rows = pool.subset(run)
    student = recipe.student_recipe("subset", str(recipe.output / "work" / run.name / "student"), 0)
    student.train(rows, report=lines.append, dry_run=True, **student.arguments())
    featurizer = GradientFeaturizer(**recipe.proxy())
    lines.append(f"Proxy: {featurizer.proxy.name}, {featurizer.dim} dimensions")
    return "\n".join(lines)


def write_runs(directory: Path, records: Sequence[Mapping[str, Any]]) -> Path:
    """Write `runs.parquet`, in the order of the names of the runs.

    A measure that one run has no value of, as the debiased score may be, cannot order the runs and is left out.
    """
    ordered = sorted(records, key=lambda record: record["run"])
    columns = [name for name in ordered[0] if all(record[name] is not None for record in ordered)]
    path = directory / "runs.parquet"
    write_parquet(load_rows([{name: record[name] for name in columns} for record in ordered]), path)
    return path
