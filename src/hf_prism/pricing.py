"""What a synthesis run will cost, before the first request: requests, tokens and disk of a round and of the whole."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .few_shot import FewShot
from .run_directory import in_bytes
from .tasks.task import Task


CHARACTERS_PER_TOKEN = 4
"""Of English text, roughly. Mathematical notation has fewer."""

ACCEPTED = 0.25
"""Share of the candidates that is taken to be accepted where no round has been measured."""

SAMPLES = 50
"""Requests that are really put together to see how long they are."""


@dataclass(frozen=True)
class Price:
    """An estimate. Tokens are of `CHARACTERS_PER_TOKEN` characters; solutions are taken to be as long as those of the seeds.

    Attributes:
        seeds: Rows to begin with.
        rounds: Rounds until the target, if `accepted` of the candidates are.
        accepted: That share.
        generator_requests: Of one round.
        solver_requests: Of one round at most, when no candidate falls out before.
        prompt_tokens: Of one round, read by both models.
        completion_tokens: Of one round, written by both.
        most_tokens: Of one round, when every response is as long as it may be.
        disk_bytes: Of the whole run.
    """

    seeds: int
    rounds: int
    accepted: float
    generator_requests: int
    solver_requests: int
    prompt_tokens: int
    completion_tokens: int
    most_tokens: int
    disk_bytes: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        """For people."""
        requests = self.generator_requests + self.solver_requests
        tokens = self.prompt_tokens + self.completion_tokens
        return [
            f"{self.seeds:,} seeds; nothing is sent or computed",
            f"  a round     {self.generator_requests:,} requests to the generator, at most {self.solver_requests:,} to the "
            f"solver; about {tokens:,} tokens ({self.completion_tokens:,} written), at most {self.most_tokens:,}",
            f"  the whole   {self.rounds:,} rounds if {self.accepted:.0%} of the candidates are accepted: at most "
            f"{self.rounds * requests:,} requests, about {self.rounds * tokens:,} tokens, {in_bytes(self.disk_bytes)} on disk",
        ]


def price(
    task: Task,
    seeds: Sequence[Mapping[str, Any]],
    *,
    target_size: int,
    shots: int,
    problems: int,
    requests: int,
    solutions: int,
    generator_tokens: int,
    solver_tokens: int | None,
    dim: int,
    accepted: float = ACCEPTED,
) -> Price:
    """Estimate the cost of a run.

    Args:
        task: Writes the requests.
        seeds: Rows of the task, with `id`.
        target_size: Rows of the pool at the end.
        shots: Examples a request.
        problems: New problems a request.
        requests: Requests a round.
        solutions: Solutions a candidate.
        generator_tokens: Most tokens that the generator may write.
        solver_tokens: The same of the solver, None where there is none.
        dim: Of the gradients.
        accepted: Share of the candidates that is accepted.

    Raises:
        ValueError: fewer seeds than shots, a target below the seeds.
    """
    if target_size < len(seeds):
        raise ValueError(
            f"target_size = {target_size:,} is below the {len(seeds):,} seeds, which are part of the pool."
        )
    draws = FewShot("uniform", shots, [row["id"] for row in seeds])
    shown = [[seeds[place] for place in draws.draw(number)] for number in range(min(SAMPLES, requests))]
    asked = _mean(_tokens(task.generation_messages(examples, problems)) for examples in shown)
    problem = _mean(len(task.text(task.candidate(row))) / CHARACTERS_PER_TOKEN for row in seeds)
    question = _mean(_tokens(task.solution_messages(task.candidate(row))) for row in seeds)
    solution = _mean(len(row["completion"]) / CHARACTERS_PER_TOKEN for row in seeds)
    candidates = requests * problems
    solved = 0 if solver_tokens is None else candidates * solutions
    written = requests * problems * problem + solved * solution
    most = requests * generator_tokens + solved * (solver_tokens or 0)
    rounds = math.ceil((target_size - len(seeds)) / max(1.0, accepted * candidates))
    texts = CHARACTERS_PER_TOKEN * (requests * asked + solved * question + written)
    disk = len(seeds) * (4 * dim) + rounds * (candidates * 4 * dim * 2 + 2 * texts)
    return Price(
        seeds=len(seeds),
        rounds=rounds,
        accepted=accepted,
        generator_requests=requests,
        solver_requests=solved,
        prompt_tokens=round(requests * asked + solved * question),
        completion_tokens=round(written),
        most_tokens=round(most + requests * asked + solved * question),
        disk_bytes=round(disk),
    )


def _tokens(messages: Sequence[Mapping[str, str]]) -> float:
    return sum(len(message["content"]) for message in messages) / CHARACTERS_PER_TOKEN


def _mean(values: Any) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers)
