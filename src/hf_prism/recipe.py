"""Recipes of the synthesis loop: a YAML file whose keys are the arguments of the things it makes.

    task: math                      # or {name: math, min_agreement: 0.6}
    seeds: seeds.jsonl              # DATA as everywhere; a file is also looked for beside the recipe
    columns: {prompt: question}     # where a task's column has another name in the seeds
    output: runs/math               # the run directory
    target_size: 10000
    strategy: prismatic             # this and the rest: keywords of PrismaticSynthesizer
    generator: {backend: server, model: Qwen/Qwen2.5-72B-Instruct, base_url: http://localhost:8000/v1, temperature: 1.0}
    solver: {backend: server, model: ...}
    proxy: {model: Qwen/Qwen2.5-0.5B-Instruct}        # keywords of GradientFeaturizer
    limits: {rounds: 20, requests: 100000, tokens: 1.0e9, hours: 24}

A key that nothing knows is an error that names the nearest one; nothing is ignored.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from .curation import load_benchmarks
from .generation import Generator, Sampling
from .personas import load_personas
from .rows import load_rows
from .samples import near
from .synthesis import PrismaticSynthesizer
from .synthesis_round import GENERATION, SOLUTION
from .tasks.math import MathTask
from .tasks.nli import NLITask
from .tasks.task import Task


if TYPE_CHECKING:
    from datasets import Dataset


TASKS: dict[str, type[Task]] = {"math": MathTask, "nli": NLITask}
BACKENDS = {
    "server": "server.ServerGenerator",
    "transformers": "local.TransformersGenerator",
    "vllm": "offline_vllm.VLLMGenerator",
    "simulation": "tasks.simulation.SimulatedGenerator",
}
LIMITS = ("rounds", "requests", "tokens", "hours")
OWN = (
    "task",
    "seeds",
    "split",
    "columns",
    "max_seeds",
    "output",
    "target_size",
    "generator",
    "solver",
    "proxy",
    "limits",
)
PUSHING = ("push_to", "private", "license", "include_seeds")
MADE_HERE = ("task", "generator", "solver", "featurizer", "generation", "solution", "benchmarks", "personas")


@dataclass(frozen=True)
class Recipe:
    """A recipe, with every key known and every needed one there.

    Attributes:
        content: The keys and values.
        folder: Where the file lies.
    """

    content: Mapping[str, Any]
    folder: Path

    @classmethod
    def load(cls, path: str | Path, changes: Mapping[str, Any] | None = None) -> Recipe:
        """Read a recipe.

        Args:
            path: Of the YAML file.
            changes: Values by key, in place of those in the file; `a.b` is the key b in the section a.

        Raises:
            ValueError: No file, broken YAML, an unknown key, a needed one missing.

        Example:
            >>> Recipe.load("examples/recipes/embedded.yaml").content["task"]  # doctest: +SKIP
            'math'
        """
        file = Path(path).expanduser()
        if not file.is_file():
            raise ValueError(f"the recipe {path} does not exist.")
        try:
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"the recipe {path} is no YAML: {error}") from error
        if not isinstance(content, dict):
            raise ValueError(f"the recipe {path} must be keys and values, got {type(content).__name__}.")
        for key, value in (changes or {}).items():
            _put(content, key, value)
        recipe = cls(content, file.resolve().parent)
        recipe.check(str(path))
        return recipe

    def check(self, where: str) -> None:
        """Every key is known, every needed one is there, and the kinds of values fit; nothing is loaded.

        Raises:
            ValueError: The message names key and place.
        """
        keywords = [name for name in _keywords(PrismaticSynthesizer) if name not in MADE_HERE]
        _known(self.content, [*OWN, *PUSHING, "benchmarks", "personas", *keywords], where)
        for key in ("task", "seeds", "output", "target_size", "generator", "proxy"):
            if self.content.get(key) is None:
                raise ValueError(f"{where}: the key {key!r} is missing.")
        _whole(self.content["target_size"], "target_size", where)
        for key in ("generator", "solver"):
            if self.content.get(key) is not None:
                _check_model(self.section(key), f"{where}, {key}")
        if self.content.get("solver") is None and self.section("generator")["backend"] != "simulation":
            raise ValueError(
                f"{where}: the key 'solver' is missing. Only a simulation brings right solutions; without a solver nothing of "
                "what a model wrote would be checked."
            )
        _known(self.section("limits"), LIMITS, f"{where}, limits")
        for name, value in self.section("limits").items():
            (_positive if name == "hours" else _whole)(value, name, f"{where}, limits")
        if self.content.get("private") and not self.content.get("push_to"):
            raise ValueError(f"{where}: private is about push_to (--push-to USER/NAME), which is missing.")
        from .featurizer import GradientFeaturizer

        _known(self.section("proxy"), ["model", *_keywords(GradientFeaturizer)], f"{where}, proxy")
        self.task_arguments(where)

    def section(self, key: str) -> dict[str, Any]:
        """A section of the recipe, empty where there is none."""
        value = self.content.get(key)
        if value is not None and not isinstance(value, dict):
            raise ValueError(f"the recipe's {key} must be keys and values, got {value!r}.")
        return dict(value or {})

    def task_arguments(self, where: str = "the recipe") -> tuple[type[Task], dict[str, Any]]:
        """The class of the task, and its arguments."""
        value = self.content["task"]
        arguments = dict(value) if isinstance(value, dict) else {"name": value}
        name = arguments.pop("name", None)
        if name not in TASKS:
            raise ValueError(f"{where}: unknown task {name!r}{near(str(name), TASKS)}; tasks are {', '.join(TASKS)}.")
        _known(arguments, _keywords(TASKS[name]), f"{where}, task")
        return TASKS[name], arguments

    def seeds(self) -> Dataset:
        """The rows of the seeds."""
        limit = self.content.get("max_seeds")
        seed = self.content.get("seed", 0)
        source = self.place(self.content["seeds"])
        rows = load_rows(source, split=self.content.get("split"), max_samples=limit, seed=seed)
        columns = self.section("columns")
        for name, column in columns.items():
            if column not in rows.column_names:
                raise ValueError(
                    f"the recipe's columns name {column!r} for {name!r}, a column that {source} does not have"
                    f"{near(str(column), rows.column_names)}; columns found: {', '.join(rows.column_names)}."
                )
        # All at once: `completion: answer` also says that there is no column `answer` any more.
        kept = {column: column for column in rows.column_names if column not in {*columns, *columns.values()}}
        return rows.select_columns([*kept, *columns.values()]).rename_columns(
            {column: name for name, column in columns.items()}
        )

    def place(self, name: Any) -> str:
        """A file or folder as the recipe names it: where the command runs, else beside the recipe; else a Hub id."""
        beside = self.folder / str(name)
        return str(beside) if not Path(str(name)).expanduser().exists() and beside.exists() else str(name)

    def limits(self) -> dict[str, Any]:
        """The arguments of `PrismaticSynthesizer.run` about limits."""
        given = self.section("limits")
        seconds = given["hours"] * 3600 if "hours" in given else None
        numbers = {f"max_{name}": int(given[name]) for name in LIMITS[:3] if name in given}
        return {**numbers, "max_seconds": seconds}

    def synthesizer(self) -> PrismaticSynthesizer:
        """Everything that the loop needs; no model is loaded yet.

        Raises:
            ValueError: As the things that are made.
        """
        from .featurizer import GradientFeaturizer

        task_class, arguments = self.task_arguments()
        solver = _model(self.section("solver")) if self.content.get("solver") else None
        chosen = {name: self.content[name] for name in _keywords(PrismaticSynthesizer) if name in self.content}
        for name in MADE_HERE:
            chosen.pop(name, None)
        if self.content.get("benchmarks"):
            sources = self.content["benchmarks"]
            chosen["benchmarks"] = load_benchmarks([self.place(source) for source in _listed(sources, "benchmarks")])
        if self.content.get("personas"):
            chosen["personas"] = load_personas(self.place(self.content["personas"]))
        return PrismaticSynthesizer(
            task_class(**arguments),
            _model(self.section("generator")),
            solver,
            GradientFeaturizer(**self.section("proxy")),
            generation=self.sampling("generator"),
            solution=self.sampling("solver"),
            **chosen,
        )

    def sampling(self, key: str) -> Sampling:
        """How the generator or the solver is sampled."""
        section = self.section(key)
        default = GENERATION if key == "generator" else SOLUTION
        return replace(default, **{name: section[name] for name in _sampling_names() if name in section})

    @property
    def is_simulation(self) -> bool:
        """Whether no language model writes the problems."""
        return self.section("generator")["backend"] == "simulation"

    def public_text(self) -> str:
        """The recipe as YAML, with what was changed, without the folders and servers of this machine."""
        public = {key: value for key, value in self.content.items() if key not in ("output", "push_to", "private")}
        for key in ("generator", "solver", "proxy"):
            hidden = ("base_url", "api_key_env")
            section = {name: _name_only(value) for name, value in self.section(key).items() if name not in hidden}
            public |= {key: section} if section else {}
        for key in ("seeds", "personas"):
            public |= {key: _name_only(self.content[key])} if key in self.content else {}
        if "benchmarks" in public:
            public["benchmarks"] = [_name_only(source) for source in public["benchmarks"]]
        return yaml.safe_dump(public, sort_keys=False, allow_unicode=True)


def parse_changes(pairs: Sequence[str]) -> dict[str, Any]:
    """`KEY=VALUE` pairs of a command line; values are read as YAML.

    Example:
        >>> parse_changes(["target_size=500", "generator.model=embedded"])
        {'target_size': 500, 'generator.model': 'embedded'}
    """
    changes = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise ValueError(f"--set {pair!r} must be KEY=VALUE, for example --set generator.model=MODEL.")
        try:
            changes[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ValueError(f"--set {pair!r}: the value is no YAML: {error}") from error
    return changes


def _name_only(value: Any) -> Any:
    """The last part of a path on this machine; anything else as it is."""
    is_path = isinstance(value, str) and (Path(value).expanduser().exists() or value.startswith(("/", "~", ".")))
    return Path(value).name if is_path else value


def _put(content: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    for section in sections:
        if not isinstance(content.setdefault(section, {}), dict):
            content[section] = {"name": content[section]} if section == "task" else {}
        content = content[section]
    content[last] = value


def _backend(name: Any, where: str) -> type:
    if name not in BACKENDS:
        raise ValueError(
            f"{where}: unknown backend {name!r}{near(str(name), BACKENDS)}; backends are {', '.join(BACKENDS)}."
        )
    module, _, class_name = BACKENDS[name].rpartition(".")
    return getattr(import_module(f"hf_prism.{module}"), class_name)


def _check_model(section: Mapping[str, Any], where: str) -> None:
    """The keys of a generator or solver: those of its backend, and of its sampling."""
    made = _backend(section.get("backend"), where)
    names = list(inspect.signature(made).parameters)
    _known(section, ["backend", *names, *_sampling_names()], where)
    for name, parameter in inspect.signature(made).parameters.items():
        if parameter.default is parameter.empty and section.get(name) is None:
            raise ValueError(f"{where}: the key {name!r} is missing; backend {section['backend']} needs it.")
    for name in _sampling_names():
        if name in section:
            value = _number(section[name], name, where)
            bad = value < 0 or (name == "top_p" and not 0 < value <= 1) or (name == "max_tokens" and value < 1)
            if bad:
                raise ValueError(f"{where}: {name} is {value!r}, which is out of range.")
    if "max_tokens" in section:
        _whole(section["max_tokens"], "max_tokens", where)


def _model(section: dict[str, Any]) -> Generator:
    made = _backend(section.pop("backend"), "the recipe")
    return made(**{name: value for name, value in section.items() if name not in _sampling_names()})


def _sampling_names() -> list[str]:
    return [field.name for field in fields(Sampling)]


def _keywords(made: type) -> list[str]:
    return [name for name in inspect.signature(made).parameters if name != "self"]


def _known(given: Iterable[Any], known: Sequence[str], where: str) -> None:
    for key in given:
        if key not in known:
            raise ValueError(f"{where}: unknown key {key!r}{near(str(key), known)}; keys are {', '.join(known)}.")


def _number(value: Any, name: str, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        hint = " YAML reads 1e9 as text; write 1.0e+9." if isinstance(value, str) else ""
        raise ValueError(f"{where}: {name} must be a number, got {value!r}.{hint}")
    return value


def _positive(value: Any, name: str, where: str) -> None:
    if _number(value, name, where) <= 0:
        raise ValueError(f"{where}: {name} must be above 0, got {value!r}.")


def _whole(value: Any, name: str, where: str) -> None:
    _positive(value, name, where)
    if value != int(value):
        raise ValueError(f"{where}: {name} must be a whole number, got {value!r}.")


def _listed(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"the recipe's {name} must be a list, got {value!r}.")
    return value
