"""Requests to language models, and the log that remembers what came back.

A request knows everything that decides its response: messages, model, sampling and a seed of its own. Every response is
on disk, under the key of its request, before anybody reads it. So whatever is computed from responses can be computed
again without a model, and a run that was killed asks only for what it has not got.
"""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Generator as PlainGenerator
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from tqdm.auto import tqdm

from . import files


LARGEST_SEED = 2**63 - 1
"""What every server takes."""

Item = TypeVar("Item")


@dataclass(frozen=True)
class Sampling:
    """How a response is drawn.

    Attributes:
        temperature: 0 takes the likeliest token each time.
        top_p: Draw from the likeliest tokens that together have this probability.
        max_tokens: The most tokens of a response, thoughts included.

    Raises:
        ValueError: A value out of range.
    """

    temperature: float = 1.0
    top_p: float = 0.95
    max_tokens: int = 2048

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature is {self.temperature}; it must be 0 (always the likeliest token) or more")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}; it must be above 0, and 1 (every token) at most")
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens is {self.max_tokens}; a response needs at least 1")


@dataclass(frozen=True)
class Request:
    """One question to a model, for one response.

    Attributes:
        messages: A conversation that ends before the response; each message has a role and a content.
        sampling: How the response is drawn.
        seed: Two requests that differ in their seed only are two samples.

    Raises:
        ValueError: No messages, or a seed out of range.
    """

    messages: tuple[dict[str, str], ...]
    sampling: Sampling
    seed: int

    def __post_init__(self) -> None:
        if not self.messages:
            raise ValueError("a request needs at least one message")
        if not 0 <= self.seed <= LARGEST_SEED:
            raise ValueError(f"seed is {self.seed}; it must be between 0 and 2**63 - 1")

    def key(self, model: str) -> str:
        """What the log knows the response of `model` by; the same on every machine, today and later."""
        return files.digest(
            {
                "model": model,
                "messages": [dict(sorted(message.items())) for message in self.messages],
                "sampling": {
                    "temperature": float(self.sampling.temperature),
                    "top_p": float(self.sampling.top_p),
                    "max_tokens": int(self.sampling.max_tokens),
                },
                "seed": self.seed,
            }
        )


@dataclass(frozen=True)
class Response:
    """What a model answered.

    Attributes:
        text: Thoughts, if the model shows them, stand first, between `<think>` and `</think>`.
        finish_reason: "stop"; "length" where it was cut off; "error" where the request was refused for good; else what
            the server says.
        prompt_tokens: Tokens of the messages.
        completion_tokens: Tokens of the response, thoughts included.
        error: Why the request was refused.
    """

    text: str
    finish_reason: str = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0
    error: str | None = None


class Generator(Protocol):
    """A language model, wherever it runs.

    Attributes:
        name: The model and its revision: part of every key.
    """

    name: str

    def check(self) -> None:
        """Find out cheaply whether it can work.

        Raises:
            ValueError: It cannot; the message says why, and what to do.
        """
        ...

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[int, Response]]:
        """Yield the position and the response of each request, in any order, as they come.

        Requests should be taken one by one, when there is room for them: a budget ends the sequence by an exception.
        """
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...


class BudgetSpent(RuntimeError):
    """A limit was reached before everything was sent."""


@dataclass(frozen=True)
class Budget:
    """The most that may be asked for. What the log holds counts, so a limit is one on all runs of a directory together.

    Requests under way when the tokens or the seconds run out are still finished and logged.

    Attributes:
        requests: How many.
        tokens: Of prompts and responses.
        seconds: Since this object was made.

    Raises:
        ValueError: A limit below zero.
    """

    requests: int | None = None
    tokens: int | None = None
    seconds: float | None = None
    started: float = field(default_factory=lambda: time.monotonic(), init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("requests", "tokens", "seconds"):
            if (limit := getattr(self, name)) is not None and limit < 0:
                raise ValueError(f"a budget of {limit} {name} is none; give 0 or more, or None for no limit")

    def check(self, requests: int, tokens: int) -> None:
        """Make sure that more may be sent.

        Args:
            requests: Sent so far.
            tokens: Used so far.

        Raises:
            BudgetSpent: A limit is reached.
        """
        seconds = time.monotonic() - self.started
        for name, used in (("requests", requests), ("tokens", tokens), ("seconds", seconds)):
            limit = getattr(self, name)
            if limit is not None and used >= limit:
                raise BudgetSpent(
                    f"the budget of {limit:,} {name} is spent ({used:,.0f} so far). What came is logged: raise the limit, or "
                    "drop it, and give the same command; it goes on from there."
                )


class RequestLog:
    """Every response that ever came, by request; one JSON line each.

    The file is only ever appended to. A line that was torn by a crash counts as not there. Only where each response lies
    is held in memory, since a run may have a million of them, with long thoughts.

    Args:
        path: The file; it need not exist.

    Example:
        >>> log = RequestLog(Path("requests.jsonl"))  # doctest: +SKIP
        >>> log.complete(generator, requests)[0].text  # doctest: +SKIP
        '\\boxed{4}'
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.num_requests = 0
        self.num_tokens = 0
        self._offsets: dict[str, int] = {}
        self._bytes_read = 0

    def complete(
        self,
        generator: Generator,
        requests: Sequence[Request],
        *,
        budget: Budget | None = None,
        progress: str | None = None,
    ) -> Sequence[Response]:
        """The responses to all requests, in their order; those that the log lacks are asked for first.

        Where it lacks none, nothing of the generator is used but its name.

        Args:
            generator: The model to ask.
            requests: What to ask. Equal ones are asked once.
            budget: The most that may be asked for.
            progress: What a progress bar says; without it there is none.

        Returns:
            A sequence that reads each response from the log when it is taken.

        Raises:
            ValueError: Another process is writing to this log.
            BudgetSpent: A limit was reached.
            RuntimeError: The generator gave up, or left requests without a response. What came before is logged.
        """
        keys = [request.key(generator.name) for request in requests]
        self._read_on()
        if not self._offsets.keys() >= set(keys):
            with self._locked():
                self._read_on()  # another process may have written until now
                self._ask(generator, dict(zip(keys, requests, strict=True)), budget, progress)
        return _Logged(self.path, [self._offsets[key] for key in keys])

    def missing(self, model: str, requests: Sequence[Request]) -> list[Request]:
        """Those of the requests to `model` that the log has no response to, each once, in order."""
        self._read_on()
        keyed = {request.key(model): request for request in requests}
        return [request for key, request in keyed.items() if key not in self._offsets]

    def _ask(
        self, generator: Generator, requests: dict[str, Request], budget: Budget | None, progress: str | None
    ) -> None:
        missing = [(key, request) for key, request in requests.items() if key not in self._offsets]
        allowed = missing
        if budget is not None and budget.requests is not None:
            allowed = missing[: max(0, budget.requests - self.num_requests)]
        asked = _Metered([request for _, request in allowed], self, budget)
        done = len(requests) - len(missing)
        bar = tqdm(
            total=len(requests), initial=done, desc=progress, unit=" requests", disable=not progress, leave=False
        )
        before = time.monotonic()
        with bar, closing(_each(generator.generate(asked) if allowed else iter(()))) as responses:
            for position, response in responses:
                key, request = allowed[position]
                now = time.monotonic()
                self._append(key, generator.name, request, response, now - before)
                before = now
                bar.update()
        if budget is not None and len(allowed) < len(missing):
            budget.check(self.num_requests, self.num_tokens)
        if left := sum(key not in self._offsets for key, _ in missing):
            raise RuntimeError(
                f"{generator.name} left {left:,} of {len(missing):,} requests without a response. The others are logged; the "
                "same command goes on from there."
            )

    def _append(self, key: str, model: str, request: Request, response: Response, seconds: float) -> None:
        """Write a response to the disk.

        `seconds` is what it took after the one before it, so that they add up to the time spent, however many requests
        were under way at once.
        """
        files.append_lines(
            self.path,
            {
                "key": key,
                "model": model,
                "messages": list(request.messages),
                "sampling": asdict(request.sampling),
                "seed": request.seed,
                "response": asdict(response),
                "seconds": round(seconds, 3),
            },
        )
        self._read_on()

    def _read_on(self) -> None:
        """Take note of the lines that were added since the last call."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._bytes_read)
            for line in file:
                entry = _entry(line)
                if entry is None and not line.endswith(b"\n"):
                    return  # torn, or not all written yet
                if entry is not None:
                    key, response = entry
                    self.num_requests += 1
                    self.num_tokens += response.prompt_tokens + response.completion_tokens
                    self._offsets.setdefault(key, self._bytes_read)
                self._bytes_read += len(line)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other processes from appending; the system unlocks the file of a process that dies."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ValueError(
                    f"{self.path} is in use: another process sends requests for the same run. Wait until it is done, stop it, "
                    "or name another directory."
                ) from error
            yield


class _Metered(Sequence[Request]):
    """Requests that can be taken as long as the budget lasts."""

    def __init__(self, requests: list[Request], log: RequestLog, budget: Budget | None) -> None:
        self._requests, self._log, self._budget = requests, log, budget

    def __len__(self) -> int:
        return len(self._requests)

    def __getitem__(self, index: Any) -> Any:
        taken = self._requests[index]  # first, since the end of the sequence is not the end of the budget
        if self._budget is not None:
            self._budget.check(self._log.num_requests, self._log.num_tokens)
        return taken


class _Logged(Sequence[Response]):
    """Responses that stay on the disk until they are taken."""

    def __init__(self, path: Path, offsets: list[int]) -> None:
        self._path, self._offsets = path, offsets

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return _Logged(self._path, self._offsets[index])
        offset = self._offsets[index]  # first, since a sequence ends by its IndexError
        with self._path.open("rb") as file:
            file.seek(offset)
            return Response(**json.loads(file.readline())["response"])


def _entry(line: bytes) -> tuple[str, Response] | None:
    """Key and response of a line, None where it is torn or damaged."""
    try:
        entry = json.loads(line)
        return entry["key"], Response(**entry["response"])
    except (ValueError, KeyError, TypeError):
        return None


def _each(items: Iterator[Item]) -> PlainGenerator[Item, None, None]:
    """The same items, from an iterator that can be closed; that closes the one below, if it can be."""
    yield from items
