"""Prismatic Synthesis: grow a pool of samples where it is sparse in gradient space (PAPER; DESIGN 7).

A round clusters the pool, shows a generator some of its rows, solves what it wrote several times, and keeps what most
solutions agree on and what falls into one of the sparse clusters. `synthesis_directory` says what a round leaves on disk.
Every candidate ends with one verdict, and the verdicts of a round sum to its candidates.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from . import files, ranks
from .generation import Budget, BudgetSpent, Generator, Request, RequestLog, Response
from .rows import describe, load_rows, row_ids, write_parquet
from .run_card import VERDICTS, RoundSummary
from .samples import RowError
from .synthesis_directory import (
    CANDIDATE,
    POOL,
    ROUND,
    SynthesisDirectory,
    load_accepted,
    row_features,
    run_id_of,
    stage,
)
from .synthesis_pool import Pool
from .synthesis_round import SHOTS, Round, Setting, featurize
from .tasks.task import Task


if TYPE_CHECKING:
    from datasets import Dataset

TARGET = "target"

IDLE_ROUNDS = 3
"""After so many rounds in a row that accept nothing, another one would not either."""


@dataclass(frozen=True)
class Synthesis:
    """What a run has come to.

    Attributes:
        directory: Where it is; its `pool.parquet` is the dataset.
        rounds: The counts of every round, the seeds first.
        stopped: Why it ended: `"target"`, or the sentence that says which limit was met.
    """

    directory: Path
    rounds: list[RoundSummary]
    stopped: str

    @property
    def dataset(self) -> Dataset:
        """The pool: seeds and accepted rows, with their provenance."""
        return load_rows(self.directory / POOL)

    def accepted(self) -> list[Dataset]:
        """What each round added, the seeds first."""
        return [load_accepted(folder) for folder, _ in SynthesisDirectory(self.directory).whole_rounds()]

    def as_dict(self) -> dict[str, Any]:
        """The result as plain JSON values."""
        last = self.rounds[-1]
        return {
            "stopped": self.stopped,
            "rows": last.pool_size,
            "g_vendi": last.g_vendi,
            "interval": last.interval,
            "requests": sum(each.requests for each in self.rounds),
            "tokens": sum(each.tokens for each in self.rounds),
            "rounds": [asdict(each) for each in self.rounds],
        }


@dataclass(frozen=True)
class PrismaticSynthesizer(Setting):
    """Grows a dataset by rounds of generation, verification and selection in gradient space (PAPER).

    Args:
        task: Such as `MathTask()` or `NLITask()`.
        generator: Writes new problems.
        solver: Solves them, or None where the generator brings right solutions, as a simulation does.
        featurizer: The proxy; candidates over its limit are left out as `too_long`.
        strategy: `"prismatic"`, or one of the controls without a filter: `"naive"`, and `"persona"`, which adds a persona
            to each request.
        few_shot: How examples are drawn, see `FewShot`; default `"sparse_clusters"` for prismatic, else `"uniform"`.
        shots: Examples a request shows.
        problems: New problems it asks for.
        requests: Requests to the generator a round.
        solutions: Solutions of each candidate that vote.
        generation: How the generator is sampled.
        solution: How the solver is sampled.
        cluster_ratio: Clusters over rows of the pool.
        sparse_ratio: Share of the clusters, the smallest, whose candidates are kept.
        near_duplicate: Share of common word n-grams from which two problems count as the same.
        benchmarks: By name, (item, text) of the evaluation sets that nothing may repeat; see `load_benchmarks`.
        personas: For the persona strategy.
        seed: Of every draw and every request.

    Raises:
        ValueError: An unknown strategy or choice, a number out of its range.

    Example:
        >>> synthesizer = PrismaticSynthesizer(MathTask(), generator, solver, GradientFeaturizer())  # doctest: +SKIP
        >>> synthesizer.run(load_rows("seeds.jsonl"), "runs/math", target_size=10_000).dataset  # doctest: +SKIP
    """

    def check(self) -> None:
        """Find out before the first request that the models answer and that what the task needs is there.

        Raises:
            ValueError: A server that cannot be reached, an unknown model, a token that is not accepted.
        """
        self.task.check()
        self.generator.check()
        if self.solver is not None:
            self.solver.check()

    def run(
        self,
        seeds: Dataset | Sequence[dict[str, Any]],
        directory: str | Path,
        *,
        target_size: int,
        max_requests: int | None = None,
        max_tokens: int | None = None,
        max_seconds: float | None = None,
        max_rounds: int | None = None,
        on_round: Callable[[Synthesis], object] = lambda synthesis: None,
        progress: bool = True,
    ) -> Synthesis:
        """Grow the seeds until the pool has `target_size` rows or more, or a limit is met.

        The same call goes on where the last one stopped, with a higher target or limit too.

        Args:
            seeds: Rows that the task can read. They are the first rows of the pool.
            directory: Where the run is, or is to be.
            target_size: Rows of the pool, seeds included. The last round is kept whole.
            max_requests: Requests to both models, over the whole run.
            max_tokens: Tokens that these read and wrote.
            max_seconds: Of this call, noticed before the next request.
            max_rounds: Rounds besides the seeds.
            on_round: Called with what there is, at the beginning (the seeds, or more) and after every round.
            progress: Whether to show bars, and a line for every round.

        Raises:
            ValueError: Seeds that do not do, a target below the seeds, a directory that holds another run.
            RuntimeError: A model that does not answer. What was answered is kept.
        """
        if ranks.join().world > 1:
            raise ValueError("the loop is one process: start it without torchrun or accelerate launch.")
        rows = read_seeds(load_rows(seeds), self.task, shots=self.shots, few_shot=self.examples)
        if target_size < len(rows):
            raise ValueError(
                f"target_size = {target_size:,} is below the {len(rows):,} seeds, which are part of the pool: nothing would "
                "be generated. Raise it, or give fewer seeds."
            )
        place = SynthesisDirectory(directory)
        place.open(config := self.config(rows))
        limits = Limits(max_requests, max_tokens, max_seconds, max_rounds, target_size)
        return _Run(self, place, run_id_of(config), rows, limits, progress).grow(on_round)


def read_seeds(seeds: Dataset, task: Task, *, shots: int = SHOTS, few_shot: str = "uniform") -> list[dict[str, Any]]:
    """Seeds as rows of a task, with `id`, and `level` where they have one, else None.

    Args:
        seeds: Rows with the columns that the task reads, and perhaps `id` and `level`.
        task: Reads them.
        shots: Examples a request shows.
        few_shot: How these are drawn.

    Raises:
        RowError: A row without a usable problem, answer or level.
        ValueError: Fewer seeds than shots, or no levels where examples are drawn by them.
    """
    from datasets import Dataset

    if len(seeds) < shots:
        raise ValueError(
            f"{len(seeds)} seeds are fewer than the {shots} examples that a request shows: give more seeds, or lower shots."
        )
    if few_shot == "level" and "level" not in seeds.column_names:
        raise ValueError(
            "few_shot='level' draws examples in proportion to a column `level` of the seeds, which have the columns "
            f"{', '.join(seeds.column_names)}. Add one, or use few_shot='uniform'."
        )
    cells: list[Any] = list(seeds.with_format(None))
    rows: list[dict[str, Any]] = [dict(task.seed_row(row, describe(i))) for i, row in enumerate(cells)]
    texts = Dataset.from_list(rows).select_columns(["prompt", "completion"])
    named = texts.add_column("id", seeds.with_format(None)["id"]) if "id" in seeds.column_names else texts
    for i, (row, cell, row_id) in enumerate(zip(rows, cells, row_ids(named).ids, strict=True)):
        level = cell.get("level")
        number = isinstance(level, int | float) and not isinstance(level, bool) and 0 <= level < float("inf")
        if "level" in cell and not number:
            raise RowError(f"{describe(i, row_id)}: 'level' is {level!r}; it must be a number at or above 0.")
        row |= {"id": row_id, "level": level}
    return rows


@dataclass(frozen=True)
class Limits:
    """When a run ends."""

    requests: int | None
    tokens: int | None
    seconds: float | None
    rounds: int | None
    target_size: int


class _Run:
    """One call of `run`: the pool, and the rounds that go on from it."""

    def __init__(
        self,
        setting: Setting,
        place: SynthesisDirectory,
        run_id: str,
        seeds: list[dict[str, Any]],
        limits: Limits,
        progress: bool,
    ) -> None:
        self.setting, self.place, self.run_id, self.seeds = setting, place, run_id, seeds
        self.limits, self.progress = limits, progress
        self.log = RequestLog(place.path / "requests.jsonl")
        self.budget = Budget(limits.requests, limits.tokens, limits.seconds)
        self.pool = Pool(setting.task, setting.featurizer.dim, setting.near_duplicate, setting.benchmarks)
        self.summaries: list[RoundSummary] = []
        self.columns = row_features(setting.task.extra_columns, has_level=seeds[0]["level"] is not None)

    def grow(self, on_round: Callable[[Synthesis], object]) -> Synthesis:
        """Rounds until the target or a limit."""
        for folder, summary in self.place.whole_rounds():
            self.pool.take_in(folder)
            self.summaries.append(RoundSummary(**summary))
        if self.summaries:
            self.tell(self.summaries[-1], "Going on after ")
            self._write_pool()
        else:
            self._begin()
        stopped = None
        while not stopped:
            on_round(self.result())
            try:
                stopped = self._stop()
                if not stopped:
                    self._add_round(len(self.summaries))
            except BudgetSpent as spent:
                stopped = str(spent)
        done = self.result(stopped)
        files.write_json(self.place.path / "result.json", done.as_dict())
        return done

    def result(self, stopped: str = "unfinished") -> Synthesis:
        return Synthesis(self.place.path, list(self.summaries), stopped)

    def _stop(self) -> str | None:
        """Why no other round is begun."""
        done = len(self.summaries) - 1
        if len(self.pool.rows) >= self.limits.target_size:
            return TARGET
        if self.limits.rounds is not None and done >= self.limits.rounds:
            return f"{done} rounds are done, as many as were allowed; raise the limit to go on"
        last = self.summaries[1:][-IDLE_ROUNDS:]
        if len(last) == IDLE_ROUNDS and not any(summary.verdicts["accepted"] for summary in last):
            return f"the last {IDLE_ROUNDS} rounds accepted nothing; their candidates.parquet say why"
        return None

    def _begin(self) -> None:
        """Round 0: the seeds that repeat no benchmark, and their gradients."""
        folder, started = self.place.round(0), time.monotonic()
        candidates = [{"id": row["id"], **self.pool.contamination(row)} for row in self.seeds]
        kept = [row for row, found in zip(self.seeds, candidates, strict=True) if "verdict" not in found]
        if len(kept) < self.setting.shots:
            raise ValueError(
                f"{len(self.seeds) - len(kept)} of {len(self.seeds)} seeds repeat items of the benchmarks, such as "
                f"{next(found['of'] for found in candidates if 'of' in found)}: too few are left. Give other seeds."
            )
        if len(kept) < len(self.seeds):
            self.say(f"{len(self.seeds) - len(kept):,} seeds repeat items of the benchmarks and are left out")
        for found in candidates:
            found.setdefault("verdict", "accepted")
        feature_id = featurize(kept, self.setting.featurizer, folder, self.progress)
        origin = {"seed_ids": [], "round": 0, "cluster": -1, "votes": 0, "feature_id": feature_id}
        stage(folder / "candidates.parquet", CANDIDATE, lambda: candidates)
        stage(folder / "accepted.parquet", self.columns, lambda: [{**row, **origin} for row in kept])
        self._close(0, Counter(found["verdict"] for found in candidates), started, Counter())

    def _add_round(self, number: int) -> None:
        started = time.monotonic()
        folder = self.place.round(number)
        step = Round(self.setting, self.run_id, self.pool, folder, number, self._ask, self.columns, self.progress)
        verdicts = step.work()
        self._close(number, verdicts, started, step.usage)

    def _close(self, number: int, verdicts: Counter[str], started: float, usage: Counter[str]) -> None:
        """Take a round into the pool, and commit it."""
        folder = self.place.round(number)
        self.pool.take_in(folder)
        score = self.pool.covariance.score()
        summary = RoundSummary(
            number=number,
            candidates=verdicts.total(),
            verdicts={verdict: verdicts[verdict] for verdict in VERDICTS},
            pool_size=len(self.pool.rows),
            g_vendi=score.g_vendi,
            interval=score.interval,
            requests=usage["requests"],
            tokens=usage["tokens"],
            seconds=round(time.monotonic() - started, 1),
        )
        files.write_json(folder / ROUND, asdict(summary))
        self.summaries.append(summary)
        self._write_pool()
        self.tell(summary)

    def _write_pool(self) -> None:
        from datasets import concatenate_datasets

        write_parquet(concatenate_datasets(self.result().accepted()), self.place.path / POOL)

    def _ask(self, model: Generator, requests: Sequence[Request], told: str) -> Sequence[Response]:
        return self.log.complete(model, requests, budget=self.budget, progress=told if self.progress else None)

    def say(self, text: str) -> None:
        if self.progress:
            tqdm.write(text, file=sys.stderr)

    def tell(self, summary: RoundSummary, head: str = "") -> None:
        """One line about a round."""
        line = f"{head}round {summary.number}: pool {summary.pool_size:,} of {self.limits.target_size:,} rows, "
        line += f"G-Vendi {summary.g_vendi:,.1f}"
        if summary.interval:
            line += " ({:,.1f} to {:,.1f})".format(*summary.interval)
        if summary.number:
            accepted = summary.verdicts["accepted"]
            others = {name: count for name, count in summary.verdicts.items() if count and name != "accepted"}
            line += f"; {accepted:,} of {summary.candidates:,} candidates accepted"
            line += "".join(f", {count:,} {name}" for name, count in others.items())
        self.say(line)
