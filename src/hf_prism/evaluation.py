"""How good a student is: benchmarks asked, answered, judged, and reported with error bars.

    config.json            what decides the result; another one is refused
    requests.jsonl         every response, before it is judged
    verdicts/NAME.parquet  of each benchmark, every prompt as it was read, response, answer and verdict
    result.json            the numbers

A run that is killed goes on from the log. Under torchrun or `accelerate launch` each process answers its share.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

from . import files, ranks
from .accuracy import mean_of
from .benchmarks import TWO_LABELS, Benchmark, Items, find, names_of, read
from .encoder import EncoderGenerator, is_classifier
from .generation import Generator, Request, RequestLog, Sampling
from .grading import VERSION, grade, summarise, verdict_rows
from .local import TransformersGenerator
from .rows import write_parquet
from .run_config import open_run
from .verification import MathVerifier


KIND = "evaluation"
GREEDY = Sampling(temperature=0.0, top_p=1.0, max_tokens=4096)


class Student(Generator, Protocol):
    """A model that is evaluated: a generator that can say what it reads."""

    def rendered(self, request: Request) -> str | None:
        """The text of a request as the model reads it; None where only a server knows."""
        ...


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        model: Its name and revision.
        benchmarks: By name, the numbers of `grading.summarise`.
        mean: `accuracy` and `standard_error` over the benchmarks, each counting the same.
        directory: Where everything is kept.
        setting: How the answers were drawn.
        versions: Of the libraries.
    """

    model: str
    benchmarks: Mapping[str, Mapping[str, Any]]
    mean: Mapping[str, float | None]
    directory: Path
    setting: Mapping[str, Any]
    versions: Mapping[str, str]

    def as_dict(self) -> dict[str, Any]:
        """What `result.json` holds."""
        told = {name: value for name, value in vars(self).items() if name != "directory"}
        return {"kind": KIND, **told}


def evaluate(
    student: Student,
    benchmarks: Sequence[str | Benchmark],
    output: str | Path,
    *,
    samples: int = 1,
    sampling: Sampling = GREEDY,
    seed: int = 0,
    prompt: str | None = None,
    system_prompt: str | None = None,
    max_items: int | None = None,
    verifier: MathVerifier | None = None,
    report: Callable[[str], None] | None = None,
) -> Evaluation:
    """Ask a student every item of some benchmarks, judge the answers, and keep everything.

    Args:
        student: The model, such as `TransformersGenerator`, `ServerGenerator`, `VLLMGenerator` or `EncoderGenerator`.
        benchmarks: Names of the table, files, or benchmarks of your own; see `hf_prism.benchmarks.find`.
        output: The run directory; resumed if it holds the same run.
        samples: Answers to each item. Of more than one, the answer of the majority is judged too.
        sampling: How they are drawn; greedily by default.
        seed: Of every draw.
        prompt: A format string over `{problem}`, or `{premise}` and `{hypothesis}`, in place of that of each benchmark.
        system_prompt: A system message before each prompt.
        max_items: Take a random subset of as many items of each benchmark.
        verifier: Compares mathematical answers.
        report: Gets a line on what is about to be done.

    Raises:
        ValueError: An unknown benchmark or a bad one, several greedy samples, a directory with another run; before
            anything is asked.
        RuntimeError: The model gave up. What came before is logged.

    Example:
        >>> from hf_prism.local import TransformersGenerator
        >>> done = evaluate(TransformersGenerator("embedded"), ["problems.jsonl"], "runs/eval")  # doctest: +SKIP
        >>> done.benchmarks["problems"]["accuracy"]  # doctest: +SKIP
        0.83
    """
    check_samples(samples, sampling, isinstance(student, EncoderGenerator))
    if isinstance(student, EncoderGenerator) and (prompt or system_prompt or sampling.temperature):
        raise ValueError(
            "an encoder reads premise and hypothesis as they are and draws nothing: no prompt, no temperature."
        )
    chosen = [find(each, prompt=prompt) if isinstance(each, str) else each for each in benchmarks]
    if not chosen:
        raise ValueError("no benchmark is named: there is nothing to evaluate.")
    names = names_of(chosen)
    read_ones = {name: read(each, max_items=max_items, seed=seed) for name, each in zip(names, chosen, strict=True)}
    if isinstance(student, EncoderGenerator):
        check_kinds(student.labels, read_ones)
    setting = {
        "samples": samples,
        **asdict(sampling),
        "seed": seed,
        "system_prompt": system_prompt,
        "max_items": max_items,
    }
    config = {"model": student.name, "setting": setting, "benchmarks": _public(read_ones)}
    directory, team = Path(output).expanduser(), ranks.join()
    team.agree(lambda: _opened(directory, config))
    requests = {name: _requests(student, name, items, setting, sampling) for name, items in read_ones.items()}
    everything = [request for each in requests.values() for request in each]
    if report and team.rank == 0:
        report(_plan(student, directory, read_ones, everything, samples, sampling))
    asked = _Asked(student, read_ones, requests, directory, setting)
    if team.world > 1:
        return _together(asked, everything, verifier, team)
    _answer(student, everything, RequestLog(directory / "requests.jsonl"))
    return asked.judged(verifier)


@dataclass(frozen=True)
class _Asked:
    """An evaluation whose answers are in the log."""

    student: Student
    items: Mapping[str, Items]
    requests: Mapping[str, Sequence[Request]]
    directory: Path
    setting: Mapping[str, Any]

    def judged(self, verifier: MathVerifier | None) -> Evaluation:
        """Judge every answer, write the files, and return the numbers."""
        log, samples = RequestLog(self.directory / "requests.jsonl"), self.setting["samples"]
        own = verifier or MathVerifier()
        results = {}
        try:
            for name, items in self.items.items():
                flat = log.complete(self.student, self.requests[name])
                folded = [[flat[i * samples + j] for j in range(samples)] for i in range(len(items.items))]
                graded = grade(items, folded, own)
                rendered = [self.student.rendered(request) for request in self.requests[name][::samples]]
                (self.directory / "verdicts").mkdir(exist_ok=True)
                rows = verdict_rows(items, folded, graded, rendered)
                write_parquet(rows, self.directory / "verdicts" / f"{name}.parquet")
                results[name] = summarise(items, folded, graded, own)
        finally:
            if verifier is None:
                own.close()
        mean, error = mean_of(
            [each["accuracy"] for each in results.values()], [each["standard_error"] for each in results.values()]
        )
        means = {"accuracy": mean, "standard_error": error}
        done = Evaluation(self.student.name, results, means, self.directory, self.setting, _versions())
        files.write_json(self.directory / "result.json", done.as_dict())
        return done


def local_student(model: str, *, revision: str | None = None, device: str | None = None, **options: Any) -> Student:
    """A model in this process: one that writes, or an encoder that labels pairs, whichever its configuration says.

    Args:
        model: A Hub id or a folder.
        revision: Branch, tag or commit of a Hub id.
        device: Where it runs.
        options: More arguments of `TransformersGenerator`; an encoder has `batch_size` alone.

    Raises:
        ValueError: No such model, or an option that an encoder has not got.
    """
    if is_classifier(model, revision):
        if others := sorted(options.keys() - {"batch_size"}):
            raise ValueError(
                f"{model} is an encoder: it computes in float32 and has no chat template, so that {', '.join(others)} cannot "
                "apply. Leave it out."
            )
        return EncoderGenerator(model, revision=revision, device=device, **options)
    return TransformersGenerator(model, revision=revision, device=device, **options)


def check_samples(samples: Any, sampling: Sampling, is_encoder: bool) -> None:
    """Make sure that several samples can differ.

    Raises:
        ValueError: They cannot, or `samples` is no number of them.
    """
    if isinstance(samples, bool) or not isinstance(samples, int) or samples < 1:
        raise ValueError(f"samples must be a whole number of at least 1, got {samples!r}.")
    if samples > 1 and is_encoder:
        raise ValueError(f"an encoder draws nothing, so that {samples} samples are all alike: take one.")
    if samples > 1 and sampling.temperature == 0:
        raise ValueError(
            f"{samples} samples at temperature 0 are all alike: take one, or raise the temperature (0.6 is usual)."
        )


def check_kinds(labels: Sequence[str], read_ones: Mapping[str, Items]) -> None:
    """Make sure that an encoder can answer: pairs only, and one of two labels no question of three.

    Raises:
        ValueError: It cannot.
    """
    for name, items in read_ones.items():
        if items.benchmark.kind != "nli":
            raise ValueError(f"an encoder labels pairs; the benchmark {name} has problems to solve.")
        if set(labels) == set(TWO_LABELS) and items.labels != TWO_LABELS:
            raise ValueError(
                f"the encoder knows {' and '.join(TWO_LABELS)} only; the benchmark {name} has three labels."
            )


def _public(read_ones: Mapping[str, Items]) -> dict[str, Any]:
    """What decides the result, whatever the file is called and wherever it lies."""
    return {
        name: {
            "items": len(items.items),
            "items_digest": items.digest,
            "prompt": items.benchmark.prompt,
            "or_number": items.benchmark.or_number,
            "revision": items.benchmark.revision,
        }
        for name, items in read_ones.items()
    }


# ---- asking ----------------------------------------------------------------------------------------------------------


def _requests(
    student: Student, name: str, items: Items, setting: Mapping[str, Any], sampling: Sampling
) -> list[Request]:
    """The requests of a benchmark, all samples of an item in a row. A seed depends on item and sample alone."""
    found = []
    for item in items.items:
        messages: tuple[dict[str, str], ...]
        if isinstance(student, EncoderGenerator):
            messages = tuple({"role": "user", "content": item.fields[each]} for each in ("premise", "hypothesis"))
        else:
            messages = ({"role": "user", "content": items.prompt(item)},)
            if setting["system_prompt"]:
                messages = ({"role": "system", "content": setting["system_prompt"]}, *messages)
        for number in range(setting["samples"]):
            key = f"{setting['seed']}/{name}/{item.id}/{number}".encode(errors="surrogatepass")
            seed = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") >> 1
            found.append(Request(messages, sampling, seed if sampling.temperature else 0))
    return found


def _opened(directory: Path, config: Mapping[str, Any]) -> None:
    """Open the directory, and gather what processes of an earlier run left."""
    open_run(directory, config, KIND)
    for path in (directory / "ranks").glob("*"):
        path.unlink()
    _gather(directory)


def _gather(directory: Path) -> None:
    """Append the logs of single processes to the common one. What is there twice, by a crash in here, counts once."""
    for path in sorted(directory.glob("requests-*.jsonl")):
        files.append_lines(directory / "requests.jsonl", *files.read_lines(path))
        path.unlink()


def _answer(student: Student, requests: Sequence[Request], log: RequestLog, *, show: bool = True) -> None:
    """Have the log hold a response to every request."""
    if log.missing(student.name, requests):
        student.check()
        log.complete(student, requests, progress="answers" if show else None)


def _together(
    asked: _Asked, everything: Sequence[Request], verifier: MathVerifier | None, team: ranks.Team
) -> Evaluation:
    """Each process answers its share into a log of its own; the first gathers and judges, the others read its result."""
    directory, student = asked.directory, asked.student
    status = {rank: directory / "ranks" / str(rank) for rank in range(team.world)}
    missing = RequestLog(directory / "requests.jsonl").missing(student.name, everything)
    status[0].parent.mkdir(exist_ok=True)
    team.agree(lambda: None)  # all have read the common log before anybody writes
    with ranks.Pulse(status[team.rank]) as pulse:
        mine = missing[team.rank :: team.world]
        _answer(student, mine, RequestLog(directory / f"requests-{team.rank}.jsonl"), show=team.rank == 0)
        if team.rank:
            pulse.finish()
            ranks.wait(lambda: [] if ranks.is_done(status[0]) else [0], status)
            return read_evaluation(directory)
        ranks.wait(lambda: [rank for rank in status if rank and not ranks.is_done(status[rank])], status)
        _gather(directory)
        done = asked.judged(verifier)
        pulse.finish()
        return done


def _plan(
    student: Student,
    directory: Path,
    read_ones: Mapping[str, Items],
    requests: Sequence[Request],
    samples: int,
    sampling: Sampling,
) -> str:
    missing = len(RequestLog(directory / "requests.jsonl").missing(student.name, requests))
    lines = [f"{student.name}: {len(requests):,} answers, {missing:,} of them still to be given, to {directory}"]
    for name, items in read_ones.items():
        left = f", {items.without_label:,} rows without a label left out" if items.without_label else ""
        lines.append(f"  {name:27} {len(items.items):,} items x {samples} from {items.benchmark.source}{left}")
    first = next(iter(read_ones.values()))
    lines.append(f"  {'at most':27} {missing * sampling.max_tokens:,} tokens ({sampling.max_tokens:,} an answer)")
    lines.append(f"  {'asked like this':27} {first.prompt(first.items[0])[:300]!r}")
    return "\n".join(lines)


def _versions() -> dict[str, str]:
    found = {"grading": str(VERSION), "python": platform.python_version()}
    for name in ("hf-prism", "torch", "transformers", "math-verify"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def read_evaluation(path: str | Path) -> Evaluation:
    """A finished evaluation, from its directory.

    Raises:
        ValueError: There is none.
    """
    directory = Path(path).expanduser()
    result = files.read_json(directory / "result.json")
    if result is None or result.pop("kind", None) != KIND:
        raise ValueError(
            f"{path} holds no finished evaluation: its result.json is missing. Give the --output of `hf-prism evaluate`."
        )
    try:
        return Evaluation(**result, directory=directory)
    except TypeError as error:
        raise ValueError(
            f"{directory / 'result.json'} is damaged ({error}); evaluate again into a new directory."
        ) from error
