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
from collections.abc import Mapping
from dataclasses import fields, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

import yaml

from .curation import load_benchmarks
from .generation import Generator, Sampling
from .personas import load_personas
from .samples import near
from .settings import (
    Settings,
    keywords_of,
    name_only,
    read_rows,
    require_known,
    require_list,
    require_number,
    require_positive,
    require_whole,
)
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


class Recipe(Settings):
    """A recipe of a synthesis run."""

    def check(self, where: str) -> None:
        """Every key is known, every needed one is there, and the kinds of values fit; nothing is loaded.

        Raises:
            ValueError: The message names key and place.
        """
        keywords = [name for name in keywords_of(PrismaticSynthesizer) if name not in MADE_HERE]
        require_known(self.content, [*OWN, *PUSHING, "benchmarks", "personas", *keywords], where)
        for key in ("task", "seeds", "output", "target_size", "generator", "proxy"):
            if self.content.get(key) is None:
                raise ValueError(f"{where}: the key {key!r} is missing.")
        require_whole(self.content["target_size"], "target_size", where)
        for key in ("generator", "solver"):
            if self.content.get(key) is not None:
                _check_model(self.section(key), f"{where}, {key}")
        if self.content.get("solver") is None and self.section("generator")["backend"] != "simulation":
            raise ValueError(
                f"{where}: the key 'solver' is missing. Only a simulation brings right solutions; without a solver nothing of "
                "what a model wrote would be checked."
            )
        require_known(self.section("limits"), LIMITS, f"{where}, limits")
        for name, value in self.section("limits").items():
            (require_positive if name == "hours" else require_whole)(value, name, f"{where}, limits")
        if self.content.get("private") and not self.content.get("push_to"):
            raise ValueError(f"{where}: private is about push_to (--push-to USER/NAME), which is missing.")
        from .featurizer import GradientFeaturizer

        require_known(self.section("proxy"), ["model", *keywords_of(GradientFeaturizer)], f"{where}, proxy")
        self.task_arguments(where)

    def task_arguments(self, where: str = "the recipe") -> tuple[type[Task], dict[str, Any]]:
        """The class of the task, and its arguments."""
        value = self.content["task"]
        arguments = dict(value) if isinstance(value, dict) else {"name": value}
        name = arguments.pop("name", None)
        if name not in TASKS:
            raise ValueError(f"{where}: unknown task {name!r}{near(str(name), TASKS)}; tasks are {', '.join(TASKS)}.")
        require_known(arguments, keywords_of(TASKS[name]), f"{where}, task")
        return TASKS[name], arguments

    def seeds(self) -> Dataset:
        """The rows of the seeds."""
        return read_rows(self.place(self.content["seeds"]), self.content, self.content.get("max_seeds"))

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
        chosen = {name: self.content[name] for name in keywords_of(PrismaticSynthesizer) if name in self.content}
        for name in MADE_HERE:
            chosen.pop(name, None)
        if self.content.get("benchmarks"):
            sources = self.content["benchmarks"]
            chosen["benchmarks"] = load_benchmarks(
                [self.place(source) for source in require_list(sources, "benchmarks")]
            )
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
            section = {name: name_only(value) for name, value in self.section(key).items() if name not in hidden}
            public |= {key: section} if section else {}
        for key in ("seeds", "personas"):
            public |= {key: name_only(self.content[key])} if key in self.content else {}
        if "benchmarks" in public:
            public["benchmarks"] = [name_only(source) for source in public["benchmarks"]]
        return yaml.safe_dump(public, sort_keys=False, allow_unicode=True)


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
    require_known(section, ["backend", *names, *_sampling_names()], where)
    for name, parameter in inspect.signature(made).parameters.items():
        if parameter.default is parameter.empty and section.get(name) is None:
            raise ValueError(f"{where}: the key {name!r} is missing; backend {section['backend']} needs it.")
    for name in _sampling_names():
        if name in section:
            value = require_number(section[name], name, where)
            bad = value < 0 or (name == "top_p" and not 0 < value <= 1) or (name == "max_tokens" and value < 1)
            if bad:
                raise ValueError(f"{where}: {name} is {value!r}, which is out of range.")
    if "max_tokens" in section:
        require_whole(section["max_tokens"], "max_tokens", where)


def _model(section: dict[str, Any]) -> Generator:
    made = _backend(section.pop("backend"), "the recipe")
    return made(**{name: value for name, value in section.items() if name not in _sampling_names()})


def _sampling_names() -> list[str]:
    return [field.name for field in fields(Sampling)]
