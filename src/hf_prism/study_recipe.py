"""A study as a YAML file: a pool, the compositions of its subsets, the proxy, the student, and the benchmarks.

name: math
output: runs/math               # the run directory; resumed if it holds the same study
seed: 0
data: pool.parquet              # prompt, completion, and the columns of the factors
factors: {reasoning: skeleton, surface: style}      # the column that each factor varies
design:                         # all combinations, each `repeats` times with other rows
  size: 640                     # rows of every subset
  reasoning: [1, 2, 4, 8]       # how many values of the column
  surface: [1, 4, 16]
  skew: [0, 1]                  # exponent of Zipf's law over the values of the first factor
  repeats: 3
proxy: {model: base}            # keywords of GradientFeaturizer
embeddings: base                # a model of sentence-transformers, for the measures that read embeddings
skills: skills                  # a column of labels, for skill-set entropy
student: {base: base, training: {num_train_epochs: 4}}   # keys of a recipe of `distill`; the seed is that of the run
evaluation:                     # keys as in a recipe of `distill`
  in_distribution: [same.jsonl]
  ood: [held_out.jsonl, longer.jsonl]
  backend: transformers         # or vllm
  solution: completion          # optional: a response is right only if it is this column of the benchmark, every step of it
workers: 2                      # processes; each with its share of the cores, or a GPU of its own
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from .composition import Composition
from .files import digest
from .local import pin
from .settings import Settings, keywords_of, require_known, require_list, require_number, require_whole, section
from .student_recipe import MADE_HERE, StudentRecipe


OWN = ("name", "output", "seed", "data", "data_revision", "split", "columns", "factors", "design", "proxy")
MORE = ("embeddings", "skills", "student", "evaluation", "workers", "every")
OWN_OF_EVALUATION = ("backend", "solution")
NEEDED = ("name", "output", "data", "factors", "design", "proxy", "student", "evaluation")
NOT_OF_STUDENTS = ("data", "data_revision", "split", "columns", "max_samples", "seed", "output", "evaluation", "proxy")
ROLES = ("in_distribution", "ood")
BACKENDS = ("transformers", "vllm")
OF_DESIGN = ("size", "skew", "repeats")


@dataclass(frozen=True)
class PlannedRun:
    """One training run of a study.

    Attributes:
        name: Its place in the design, `"0007"`.
        repeat: How many runs of the same composition came before.
        factors: The numbers of the design: by factor how many values, and `skew`.
        composition: Of its rows. Its seed is that of the training too.
    """

    name: str
    repeat: int
    factors: dict[str, float]
    composition: Composition


class StudyRecipe(Settings):
    """A recipe of a study."""

    def check(self, where: str) -> None:
        """Every key is known and every needed one is there; nothing is loaded.

        Raises:
            ValueError: The message names key and place.
        """
        require_known(self.content, [*OWN, *MORE], where)
        for key in NEEDED:
            if self.content.get(key) is None:
                raise ValueError(f"{where}: the key {key!r} is missing.")
        for key in ("name", "output", "data"):
            if not isinstance(self.content[key], str) or not self.content[key]:
                raise ValueError(f"{where}: {key} must be text, got {self.content[key]!r}.")
        for key in ("workers", "every"):
            if key in self.content:
                require_whole(self.content[key], key, where)
        require_number(self.content.get("seed", 0), "seed", where)
        self._check_design(where)
        self._check_evaluation(f"{where}, evaluation")
        from .featurizer import GradientFeaturizer

        require_known(self.section("proxy"), ["model", *keywords_of(GradientFeaturizer)], f"{where}, proxy")
        known = [name for name in self._student_keys() if name not in (*NOT_OF_STUDENTS, *MADE_HERE)]
        require_known(self.section("student"), known, f"{where}, student")
        self.student_recipe("subset", "student").check(f"{where}, student")
        self._check_runs(where)

    def _check_design(self, where: str) -> None:
        factors, design = self.section("factors"), self.section("design")
        columns = [column for column in factors.values() if isinstance(column, str)]
        if not factors or set(OF_DESIGN) & set(factors) or len(set(columns)) < len(factors):
            raise ValueError(
                f"{where}: factors must be names with a column each, all different, and no name of {', '.join(OF_DESIGN)}; "
                f"got {factors!r}."
            )
        require_known(design, [*OF_DESIGN, *factors], f"{where}, design")
        require_whole(design.get("size"), "size", f"{where}, design")
        require_whole(design.get("repeats", 1), "repeats", f"{where}, design")
        for name in factors:
            for value in require_list(design.get(name), f"design.{name}"):
                require_whole(value, name, f"{where}, design")
        for value in require_list(design.get("skew", [0]), "design.skew"):
            if require_number(value, "skew", f"{where}, design") < 0:
                raise ValueError(f"{where}, design: skew must be 0 or more, got {value!r}.")
        for name in (*factors, "skew"):
            levels = design.get(name, [0])
            if not levels or len(set(levels)) < len(levels):
                raise ValueError(f"{where}, design: {name} must list different numbers, one at least; got {levels!r}.")

    def _check_evaluation(self, where: str) -> None:
        given = self.section("evaluation")
        for role in ROLES:
            if not require_list(given.get(role), f"evaluation.{role}"):
                raise ValueError(f"{where}: {role} names no benchmark; a study compares the two kinds.")
        if given.get("backend", BACKENDS[0]) not in BACKENDS:
            raise ValueError(f"{where}: backend must be {' or '.join(BACKENDS)}, got {given['backend']!r}.")
        if "base" in given or "benchmarks" in given:
            raise ValueError(f"{where}: base and benchmarks are keys of students; name the benchmarks under {ROLES}.")

    def _check_runs(self, where: str) -> None:
        """Nothing makes the runs less comparable than the design says."""
        for name in ("proxy", "student"):
            for key in ("on_long", "on_empty"):
                if self.section(name).get(key) == "skip":
                    raise ValueError(
                        f"{where}, {name}: {key} must not be skip, for subsets are of equal size; drop such rows from the "
                        "pool."
                    )
        if "seed" in section(self.section("student"), "training"):
            raise ValueError(f"{where}, student: training must have no seed; every run has its own.")

    @staticmethod
    def _student_keys() -> list[str]:
        from .classification import train_classifier
        from .distillation import distill

        return list(dict.fromkeys(["student", *keywords_of(distill), *keywords_of(train_classifier)]))

    @property
    def output(self) -> Path:
        """The run directory."""
        return Path(self.content["output"]).expanduser()

    @property
    def workers(self) -> int:
        """How many processes train students."""
        return int(self.content.get("workers", 1))

    def plan(self) -> list[PlannedRun]:
        """All runs, in the order in which they are made: a shuffled one, so that what is done first is like the rest."""
        design, factors = self.section("design"), self.section("factors")
        seed = self.content.get("seed", 0)
        levels = [[int(level) for level in design[name]] for name in factors]
        runs = []
        for repeat in range(int(design.get("repeats", 1))):
            for *counts, skew in product(*levels, design.get("skew", [0])):
                values = dict(zip(factors.values(), counts, strict=True))
                told = {**dict(zip(factors, counts, strict=True)), "skew": skew}
                drawn = int(digest([seed, repeat, told])[:8], 16)
                runs.append((repeat, told, Composition(int(design["size"]), values, skew, drawn)))
        runs.sort(key=lambda run: run[2].seed)
        planned = [PlannedRun(f"{number:04}", *run) for number, run in enumerate(runs)]
        return planned[:: int(self.content.get("every", 1))]

    def student_recipe(self, data: str, output: str, seed: int | None = None) -> StudentRecipe:
        """The recipe of the student of a run."""
        content = {**self.section("student"), "data": data, "output": output, "evaluation": self._asked()}
        if seed is not None:
            content["seed"] = seed
        return StudentRecipe(content, self.folder)

    def _asked(self) -> dict[str, Any]:
        given = self.section("evaluation")
        benchmarks = [each for role in ROLES for each in given.get(role, [])]
        return {
            **{key: given[key] for key in given if key not in (*ROLES, *OWN_OF_EVALUATION)},
            "benchmarks": benchmarks,
        }

    def proxy(self) -> dict[str, Any]:
        """Keywords of the featurizer."""
        given = self.section("proxy")
        return {**given, "model": self.place(given["model"])} if "model" in given else given

    def fixed(self) -> dict[str, Any]:
        """What decides the results, for `config.json`: models by content, without places of this machine."""
        skipped = ("output", "workers", "every", "data", "embeddings", "evaluation")
        content = {key: value for key, value in self.content.items() if key not in skipped}
        given = self.section("evaluation")  # its benchmarks are told by their items
        content["evaluation"] = {key: value for key, value in given.items() if key not in ROLES}
        base = self.place(self.section("student")["base"])
        content["student"] = {**self.section("student"), "base": pin(base, self.section("student").get("revision"))[0]}
        if "model" in self.section("proxy"):
            proxy = self.proxy()
            content["proxy"] = {**proxy, "model": pin(proxy["model"], proxy.get("revision"))[0]}
        if self.content.get("embeddings"):
            content["embeddings"] = pin(self.place(self.content["embeddings"]), None)[0]
        return content
