"""A training run as a YAML file: the keys are the keyword arguments of `distill` or `train_classifier`, and few besides.

    student: sft                    # or classification, for an encoder that labels pairs
    data: runs/math                 # DATA as everywhere; a synthesis run is its pool
    seed: 0                         # draws max_samples, and the order of training where training.seed does not say another
    columns: {prompt: question}     # where a column has another name
    base: Qwen/Qwen2.5-Math-7B      # this and the rest: keywords of distill
    output: runs/student            # the run directory; the student itself is in its model/
    max_length: 8192
    training: {learning_rate: 4.0e-05, num_train_epochs: 3}      # keywords of trl.SFTConfig
    evaluation: {benchmarks: [math500], samples: 4, temperature: 0.6}      # when it is trained; and `base: true`, of the base
    proxy: {model: Qwen/Qwen2.5-0.5B-Instruct}                   # score the data, for the card

A key that nothing knows is an error that names the nearest one; nothing is ignored.
"""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Callable
from dataclasses import fields, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from .evaluation import GREEDY, evaluate
from .generation import Sampling
from .rows import READERS
from .samples import near
from .settings import (
    Settings,
    keywords_of,
    name_only,
    put,
    read_rows,
    require_known,
    require_list,
    require_number,
    require_whole,
    section,
)


if TYPE_CHECKING:
    from datasets import Dataset

STUDENTS = {"sft": "distillation.distill", "classification": "classification.train_classifier"}
OWN = ("student", "data", "data_revision", "split", "columns", "max_samples", "seed", "evaluation", "proxy")
PUSHING = ("push_to", "private", "license")
MADE_HERE = ("rows", "report", "facts", "column_mapping", "dry_run")
PATHS = ("deepspeed", "fsdp_config", "accelerator_config", "logging_dir")
"""Keywords of the Trainer that may be paths of this machine."""

OF_EVALUATION = ("samples", "seed", "prompt", "system_prompt", "max_items")


class StudentRecipe(Settings):
    """A recipe of a training run."""

    def check(self, where: str) -> None:
        """Every key is known and every needed one is there; nothing is loaded.

        Raises:
            ValueError: The message names key and place.
        """
        kind = self.content.get("student", "sft")
        if not isinstance(kind, str) or kind not in STUDENTS:
            raise ValueError(
                f"{where}: unknown student {kind!r}{near(str(kind), STUDENTS)}; it is {' or '.join(STUDENTS)}."
            )
        keywords = [name for name in keywords_of(self.train) if name not in MADE_HERE]
        require_known(self.content, [*OWN, *PUSHING, *keywords], where)
        for key in ("data", "base", "output"):
            if self.content.get(key) is None:
                raise ValueError(f"{where}: the key {key!r} is missing.")
            if not isinstance(self.content[key], str):
                raise ValueError(f"{where}: {key} must be text, got {self.content[key]!r}.")
        if "seed" in self.content:
            require_number(self.content["seed"], "seed", where)
        for key in ("training", "lora"):
            section(self.content, key)
        if "max_samples" in self.content:
            require_whole(self.content["max_samples"], "max_samples", where)
        if self.content.get("private") and not self.content.get("push_to"):
            raise ValueError(f"{where}: private is about push_to (--push-to USER/NAME), which is missing.")
        if self.evaluation:
            known = ["benchmarks", "base", "batch_size", *OF_EVALUATION, *_sampling_names()]
            require_known(self.evaluation, known, f"{where}, evaluation")
            if not require_list(self.evaluation.get("benchmarks"), "evaluation.benchmarks"):
                raise ValueError(f"{where}, evaluation: benchmarks is empty; name some, or leave evaluation out.")
            self._check_evaluation(f"{where}, evaluation")
        if self.proxy:
            from .featurizer import GradientFeaturizer

            require_known(self.proxy, ["model", *keywords_of(GradientFeaturizer)], f"{where}, proxy")

    def _check_evaluation(self, where: str) -> None:
        given = self.evaluation
        for name in ("samples", "max_tokens", "max_items", "batch_size"):
            if given.get(name) is not None:
                require_whole(given[name], name, where)
        for name in ("temperature", "top_p", "seed"):
            if name in given:
                require_number(given[name], name, where)
        for name in ("prompt", "system_prompt"):
            if given.get(name) is not None and not isinstance(given[name], str):
                raise ValueError(f"{where}: {name} must be text, got {given[name]!r}; put it between quotes.")
        if given.get("base") and isinstance(self.content.get("chat_template"), str):
            raise ValueError(
                f"{where}: base: true would ask the base with its own template, and the student with {'chat_template'!r} of "
                "the recipe. The two would not compare: leave base out."
            )

    @property
    def train(self) -> Callable[..., Any]:
        """The function that trains."""
        module, _, name = STUDENTS[self.content.get("student", "sft")].rpartition(".")
        return getattr(import_module(f"hf_prism.{module}"), name)

    @property
    def evaluation(self) -> dict[str, Any]:
        """The section on evaluation, empty where there is none."""
        return section(self.content, "evaluation")

    @property
    def proxy(self) -> dict[str, Any]:
        """The section on the proxy that scores the data, empty where there is none."""
        return section(self.content, "proxy")

    @property
    def output(self) -> Path:
        """The run directory."""
        return Path(str(self.content["output"])).expanduser()

    def rows(self) -> tuple[Dataset, dict[str, Any]]:
        """The rows, and what is known of where they come from: `data`, `data_revision`, `rows_digest`.

        Raises:
            ValueError: They cannot be read, or a column of `columns` is missing.
        """
        source = self.place(self.content["data"])
        revision = self.content.get("data_revision")
        if (
            not Path(source).expanduser().exists()
            and source.count("/") == 1
            and Path(source).suffix.lower() not in READERS
        ):
            revision = _commit(source, revision)
        rows = read_rows(source, {**self.content, "revision": revision}, self.content.get("max_samples"))
        known = {
            "data": str(name_only(self.content["data"])),
            "data_revision": revision,
            "rows_digest": _digest(rows),
        }
        return rows, known

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of the training function, the rows aside."""
        names = [name for name in keywords_of(self.train) if name not in MADE_HERE]
        found = {name: self.content[name] for name in names if name in self.content}
        found["base"] = self.place(found["base"])
        if "seed" in self.content:
            found["training"] = {"seed": self.content["seed"], **section(found, "training")}
        if str(found.get("chat_template", "")).endswith(".jinja"):
            found["chat_template"] = self.place(found["chat_template"])
        return found

    def evaluation_arguments(self) -> dict[str, Any]:
        """The keyword arguments of `evaluation.evaluate`, student and directory aside."""
        given = self.evaluation
        chosen = {name: given[name] for name in OF_EVALUATION if name in given}
        sampling = replace(GREEDY, **{name: given[name] for name in _sampling_names() if name in given})
        assert set(chosen) <= set(keywords_of(evaluate))
        return {"benchmarks": [self._benchmark(each) for each in given["benchmarks"]], "sampling": sampling, **chosen}

    def _benchmark(self, spec: Any) -> str:
        name, equals, file = str(spec).rpartition("=")
        return f"{name}{equals}{self.place(file)}"

    def public_text(self) -> str:
        """The recipe as YAML, with what was changed, without the folders of this machine."""
        public = copy.deepcopy(
            {key: self.content[key] for key in self.content if key not in ("output", "push_to", "private")}
        )
        for key in ("data", "base"):
            public[key] = name_only(public[key])
        if str(public.get("chat_template", "")).endswith(".jinja"):
            public["chat_template"] = name_only(public["chat_template"])
        for key, names in {"proxy": ("model",), "training": PATHS}.items():
            for name in names:
                if name in section(public, key):
                    put(public, f"{key}.{name}", name_only(section(public, key)[name]))
        if self.evaluation:
            listed = [
                re.sub(r"[^=]+$", lambda found: str(name_only(found[0])), str(each))
                for each in self.evaluation["benchmarks"]
            ]
            put(public, "evaluation.benchmarks", listed)
        return yaml.safe_dump(public, sort_keys=False, allow_unicode=True)


def _digest(rows: Dataset) -> str:
    """Of all cells, so that a result says of which rows it is, wherever they lay."""
    total = hashlib.sha256()
    for row in rows.with_format(None):
        total.update(repr(sorted(dict(row).items())).encode(errors="surrogatepass"))  # type: ignore[arg-type]
    return total.hexdigest()[:16]


def _sampling_names() -> list[str]:
    return [each.name for each in fields(Sampling)]


def _commit(source: str, revision: str | None) -> str | None:
    """The commit that a revision of a Hub dataset stands for now."""
    from huggingface_hub import HfApi

    name = source.partition(":")[0]
    try:
        return HfApi().dataset_info(name, revision=revision).sha
    except Exception as error:  # the layers below raise many types; the reason is passed on
        raise ValueError(
            f"the data {source!r} is no file or folder here, and it could not be found on the Hub (revision "
            f"{revision or 'main'}): {type(error).__name__}: {str(error).strip()[:400]}"
        ) from error
