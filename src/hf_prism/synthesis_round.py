"""One round of the synthesis loop: cluster, ask, read, solve, vote, and keep what is sparse (PAPER, Prismatic Synthesis)."""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, asdict, dataclass, field
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from . import files, runner
from .clustering import FewDirections, SphericalKMeans, sparse_clusters
from .featurizer import GradientFeaturizer
from .few_shot import CHOICES, FewShot
from .generation import Generator, Request, Response, Sampling
from .personas import PERSONAS
from .proxy import ProxyModel, Skipped
from .samples import near
from .selection import CLUSTER_RATIO
from .synthesis_directory import CANDIDATE, PROMPT, Clusters, read_rows, stage
from .synthesis_pool import Pool
from .tasks.task import Task


STRATEGIES = ("prismatic", "naive", "persona")

# The paper's values, or those of its code.
SHOTS, PROBLEMS = 5, 2
SPARSE_RATIO = 0.5
GENERATION = Sampling(temperature=1.0, top_p=0.95)
SOLUTION = Sampling(temperature=0.75, top_p=0.95, max_tokens=16_384)

SOLUTIONS = 5
REQUESTS = 1000

FEWEST_CLUSTERS = 2
"""With a single one, the sparse clusters would be all there are."""

ALL_ACCEPTED = 0.95
"""A filter that lets more than this share through is said to do so."""


@dataclass(frozen=True)
class Setting:
    """What decides the result of a run. `PrismaticSynthesizer` says what the fields mean."""

    task: Task
    generator: Generator
    solver: Generator | None
    featurizer: GradientFeaturizer
    _: KW_ONLY
    strategy: str = "prismatic"
    few_shot: str | None = None
    shots: int = SHOTS
    problems: int = PROBLEMS
    requests: int = REQUESTS
    solutions: int = SOLUTIONS
    generation: Sampling = GENERATION
    solution: Sampling = SOLUTION
    cluster_ratio: float = CLUSTER_RATIO
    sparse_ratio: float = SPARSE_RATIO
    near_duplicate: float = 0.8
    benchmarks: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)
    personas: Sequence[str] = PERSONAS
    seed: int = 0

    def __post_init__(self) -> None:
        for name, known in (("strategy", STRATEGIES), ("few_shot", (*CHOICES, None))):
            if (value := getattr(self, name)) not in known:
                names = [each for each in known if each]
                raise ValueError(
                    f"{name} is {value!r}{near(str(value), names)}; it is one of {', '.join(map(repr, names))}."
                )
        for name in ("shots", "problems", "requests", "solutions"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}.")
        for name in ("cluster_ratio", "sparse_ratio", "near_duplicate"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
                raise ValueError(f"{name} must be a number above 0 and at most 1, got {value!r}.")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise ValueError(f"seed must be a whole number of at least 0, got {self.seed!r}.")
        if self.strategy == "persona" and not self.personas:
            raise ValueError("the persona strategy needs personas.")
        wanted, cast = self.task.settings.get("min_votes", 1), self.solutions if self.solver else 1
        if wanted > cast:
            raise ValueError(
                f"min_votes = {wanted} is more than the {cast} solutions of a candidate: nothing could be accepted. Lower it, "
                "or raise solutions."
            )

    @property
    def examples(self) -> str:
        """How examples are drawn."""
        return self.few_shot or ("sparse_clusters" if self.strategy == "prismatic" else "uniform")

    def config(self, seeds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Everything that decides the result, as plain JSON values."""
        return {
            "task": {"name": self.task.name, **self.task.settings},
            "strategy": self.strategy,
            "generator": {"model": self.generator.name, **asdict(self.generation)},
            "solver": None if self.solver is None else {"model": self.solver.name, **asdict(self.solution)},
            "proxy": self.featurizer.identity,
            "few_shot": self.examples,
            **{name: getattr(self, name) for name in ("shots", "problems", "requests", "solutions")},
            **{name: getattr(self, name) for name in ("cluster_ratio", "sparse_ratio", "near_duplicate", "seed")},
            "benchmarks": {name: files.digest(list(items)) for name, items in self.benchmarks.items()},
            "personas": files.digest(list(self.personas)) if self.strategy == "persona" else None,
            "seeds": files.digest([sorted(row.items()) for row in sorted(seeds, key=lambda row: row["id"])]),
        }


Ask = Callable[[Generator, Sequence[Request], str], Sequence[Response]]


class Round:
    """One round. Each step reads the file of the step from an earlier call, or makes and writes it.

    Args:
        setting: Of the run.
        run_id: Of the run, for the ids of candidates.
        pool: Before the round.
        folder: Of the round.
        number: From 1.
        ask: Sends requests that are not in the log, and returns the responses in order.
        columns: Of the rows of the pool.
        progress: Whether to show bars and warnings.

    Attributes:
        usage: `requests` and `tokens` of the round.
    """

    def __init__(
        self,
        setting: Setting,
        run_id: str,
        pool: Pool,
        folder: Path,
        number: int,
        ask: Ask,
        columns: Mapping[str, Any],
        progress: bool,
    ) -> None:
        self.setting, self.run_id, self.pool, self.folder, self.number = setting, run_id, pool, folder, number
        self.ask, self.columns, self.progress = ask, columns, progress
        self.usage: Counter[str] = Counter()

    def work(self) -> Counter[str]:
        """All steps. Returns the verdicts."""
        clusters = self.clusters()
        prompts = self.prompts(clusters)
        responses = self.responses(prompts)
        parsed = stage(self.folder / "parsed.parquet", CANDIDATE, lambda: self.parsed(prompts, responses))
        solutions = self.solved(parsed)
        verified = stage(self.folder / "verified.parquet", CANDIDATE, lambda: self.verified(parsed, solutions))
        candidates = stage(self.folder / "candidates.parquet", CANDIDATE, lambda: self.judged(verified, clusters))
        accepted = [row for row in candidates if row["verdict"] == "accepted"]
        stage(self.folder / "accepted.parquet", self.columns, lambda: self.rows(accepted, prompts))
        self.warn(len(accepted), len(candidates))
        return Counter(row["verdict"] for row in candidates)

    def clusters(self) -> Clusters:
        """The clusters of the pool, and which of them are sparse."""
        path = self.folder / "clusters.parquet"
        if not path.is_file():
            count = max(FEWEST_CLUSTERS, round(self.setting.cluster_ratio * len(self.pool.rows)))
            kmeans = self._kmeans(count)
            sparse = sparse_clusters(kmeans.cluster_sizes_, self.setting.sparse_ratio, self.seed("sparse"))
            Clusters(kmeans.cluster_sizes_, sparse, kmeans.cluster_centers_).write(path)
        return Clusters.read(path)

    def _kmeans(self, count: int) -> SphericalKMeans:
        ids = self.pool.ids
        seed = self.seed("clusters")
        try:
            return SphericalKMeans(count, seed=seed).fit(self.pool.vectors, ids)
        except FewDirections as few:
            self.say(f"round {self.number}: {few.count} clusters instead of {count}, as many as there are directions")
            return SphericalKMeans(few.count, seed=seed).fit(self.pool.vectors, ids)

    def prompts(self, clusters: Clusters) -> list[dict[str, Any]]:
        """The requests to the generator."""
        path = self.folder / "prompts.parquet"
        if path.is_file():  # the draws would need the cluster of every row
            return read_rows(path)
        setting, pool = self.setting, self.pool.rows
        few_shot = FewShot(
            setting.examples,
            setting.shots,
            self.pool.ids,
            levels=[row["level"] for row in pool] if setting.examples == "level" else None,
            labels=clusters.nearest(self.pool.vectors) if setting.examples == "sparse_clusters" else None,
            centers=clusters.centers,
            seed=self.seed("examples"),
        )
        made = []
        for number in range(setting.requests):
            examples = [pool[place] for place in few_shot.draw(number)]
            persona = setting.personas[self.seed("persona", number) % len(setting.personas)]
            persona = persona if setting.strategy == "persona" else None
            levels = [row["level"] for row in examples if row.get("level") is not None]
            made.append(
                {
                    "messages": json.dumps(setting.task.generation_messages(examples, setting.problems, persona)),
                    "seed": self.seed("generate", number),
                    "seed_ids": [row["id"] for row in examples],
                    "persona": persona,
                    "level": sum(levels) / len(levels) if levels else None,
                }
            )
        return stage(path, PROMPT, lambda: made)

    def responses(self, prompts: Sequence[Mapping[str, Any]]) -> Sequence[Response]:
        """What the generator wrote."""
        messages = [tuple(json.loads(prompt["messages"])) for prompt in prompts]
        requests = [
            Request(each, self.setting.generation, prompt["seed"])
            for each, prompt in zip(messages, prompts, strict=True)
        ]
        return self._complete(self.setting.generator, requests, "Generating")

    def _complete(self, model: Generator, requests: Sequence[Request], told: str) -> Sequence[Response]:
        responses = list(self.ask(model, requests, f"Round {self.number}: {told}"))  # read from the log once
        self.usage["requests"] += len(requests)
        self.usage["tokens"] += sum(each.prompt_tokens + each.completion_tokens for each in responses)
        return responses

    def parsed(self, prompts: Sequence[Mapping[str, Any]], responses: Sequence[Response]) -> Iterator[dict[str, Any]]:
        """Read candidates, and let go those that cannot be read or repeat something."""
        batch = self.pool.new_batch()
        for number, response in enumerate(self.bar(responses, "Reading")):
            read = self.setting.task.parse(response.text, cut=response.finish_reason == "length")
            for block, candidate in enumerate(read or [None]):
                row = {"id": f"{self.run_id[:8]}-{self.number}-{number}-{block}", "request": number}
                if candidate is None:
                    yield {**row, "verdict": "parse_failed", "of": response.error}
                    continue
                found = self.pool.repeats(candidate, batch)
                if not found:
                    batch.add(row["id"], self.pool.text(candidate))
                yield {**row, "candidate": json.dumps(candidate), **found}

    def solved(self, parsed: Sequence[Mapping[str, Any]]) -> Sequence[Sequence[str | None]]:
        """The solutions of each candidate that is still there, None for one that was cut off or refused."""
        left = [json.loads(row["candidate"]) for row in parsed if row["verdict"] is None]
        if self.setting.solver is None:
            return [[candidate.get("solution")] for candidate in left]
        ids = [row["id"] for row in parsed if row["verdict"] is None]
        requests = [
            Request(
                tuple(self.setting.task.solution_messages(candidate)),
                self.setting.solution,
                self.seed("solve", row, i),
            )
            for row, candidate in zip(ids, left, strict=True)
            for i in range(self.setting.solutions)
        ]
        responses = self._complete(self.setting.solver, requests, "Solving")
        texts = [None if each.finish_reason in ("length", "error") else each.text for each in responses]
        return [
            texts[start : start + self.setting.solutions] for start in range(0, len(texts), self.setting.solutions)
        ]

    def verified(
        self, parsed: Sequence[Mapping[str, Any]], solutions: Sequence[Sequence[str | None]]
    ) -> Iterator[dict[str, Any]]:
        """Keep the candidates that most of their solutions agree on."""
        proposed = iter(solutions)
        for row in self.bar(parsed, "Verifying"):
            if row["verdict"] is not None:
                yield dict(row)
                continue
            candidate, texts = json.loads(row["candidate"]), next(proposed)
            vote = self.setting.task.vote(candidate, texts)
            counted = {"votes": vote.votes, "num_valid": vote.num_valid, "agreement": vote.agreement}
            if vote.answer is None or not vote.winners:
                yield {**row, **counted, "verdict": vote.problem}
                continue
            solution = texts[vote.winners[0]]
            assert solution is not None  # abstentions do not win
            rendered = self.setting.task.row(candidate, solution, vote.answer)
            yield {**row, **counted, "row": json.dumps(rendered)}

    def judged(self, verified: Sequence[Mapping[str, Any]], clusters: Clusters) -> list[dict[str, Any]]:
        """Compute the gradients of what is left, and keep what falls into a sparse cluster."""
        rows = [dict(row) for row in verified]
        left = [row for row in rows if row["verdict"] is None]
        texts = {row["id"]: {"id": row["id"], **json.loads(row["row"])} for row in left}
        with skipping(self.setting.featurizer) as proxy:
            encoded = proxy.encode_rows(list(texts.values()), list(texts)) if texts else []
            for row, tokens in zip(left, encoded, strict=True):
                if isinstance(tokens, Skipped):
                    row["verdict"] = "too_long" if tokens.reason == "too_long" else "no_answer"
            left = [row for row in left if row["verdict"] is None]
            if left:
                featurize([texts[row["id"]] for row in left], self.setting.featurizer, self.folder, self.progress)
        if not left:
            return rows
        features = runner.load_features(self.folder / "features")
        labels = dict(zip(features["id"], clusters.nearest(features).tolist(), strict=True))
        for row in left:
            # A candidate without a gradient teaches the proxy nothing: it lies in no direction that is rare.
            row["cluster"] = label = labels.get(row["id"], -1)
            kept = label >= 0 and (self.setting.strategy != "prismatic" or clusters.sparse[label])
            row["verdict"] = "accepted" if kept else "dense_cluster"
        return rows

    def rows(
        self, accepted: Sequence[Mapping[str, Any]], prompts: Sequence[Mapping[str, Any]]
    ) -> list[dict[str, Any]]:
        """The accepted candidates as rows of the pool, with their provenance."""
        if not accepted:
            return []
        setting = self.setting
        origin = {
            "round": self.number,
            "generator": setting.generator.name,
            "solver": setting.solver.name if setting.solver else None,
            "feature_id": runner.feature_id_of(self.folder / "features"),
        }
        return [
            {
                "id": row["id"],
                **json.loads(row["row"]),
                "level": prompts[row["request"]]["level"],
                "seed_ids": prompts[row["request"]]["seed_ids"],
                **{name: row[name] for name in ("cluster", "votes", "agreement")},
                **origin,
            }
            for row in accepted
        ]

    def bar(self, rows: Sequence[Any], told: str) -> Any:
        return tqdm(rows, desc=f"Round {self.number}: {told}", leave=False, disable=not self.progress)

    def say(self, text: str) -> None:
        if self.progress:
            tqdm.write(text, file=sys.stderr)

    def warn(self, accepted: int, candidates: int) -> None:
        """Say so where the filter does nothing, or leaves nothing."""
        if not accepted:
            self.say(f"warning: round {self.number} accepted none of its {candidates:,} candidates")
        elif self.setting.strategy == "prismatic" and accepted > ALL_ACCEPTED * candidates:
            self.say(
                f"warning: round {self.number} accepted {accepted:,} of {candidates:,} candidates: with sparse_ratio = "
                f"{self.setting.sparse_ratio} the filter keeps nearly everything"
            )

    def seed(self, *purpose: Any) -> int:
        """A number of 31 bits for a purpose, the same in every call of the run."""
        text = json.dumps([self.setting.seed, self.number, *purpose])
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "little") >> 1


def featurize(rows: Sequence[Mapping[str, Any]], featurizer: GradientFeaturizer, folder: Path, progress: bool) -> str:
    """Compute the gradients of rows into the folder of their round. Returns their feature_id."""
    from datasets import Dataset

    texts = [{name: row[name] for name in ("id", "prompt", "completion")} for row in rows]
    return runner.run(Dataset.from_list(texts), featurizer, folder / "features", progress=progress).feature_id


@contextmanager
def skipping(featurizer: GradientFeaturizer) -> Iterator[ProxyModel]:
    """The proxy, leaving out the rows that its own policies would stop at."""
    proxy = featurizer.proxy
    policies = proxy.on_long, proxy.on_empty
    proxy.on_long, proxy.on_empty = ("skip" if policy == "error" else policy for policy in policies)
    try:
        yield proxy
    finally:
        proxy.on_long, proxy.on_empty = policies
