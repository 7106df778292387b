"""One run of a study: a dataset is scored by every measure, a student is trained on it, and the student is evaluated."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .accuracy import mean_of
from .baselines import embed, measure
from .benchmarks import find, names_of
from .checkpoint import local_folder
from .solutions import reference_solutions, whole_accuracy
from .study_recipe import StudyRecipe
from .training_run import say


if TYPE_CHECKING:
    from datasets import Dataset

    from .evaluation import Student

EMBEDDING_CLUSTERS = 50
"""At most so many, for the entropy over clusters of embeddings; at least ten rows a cluster."""


def judge(recipe: StudyRecipe, rows: Dataset, seed: int, work: Path) -> dict[str, Any]:
    """Score rows, train a student on them, and evaluate it.

    Args:
        recipe: Of the study: its proxy, student and benchmarks.
        rows: Any, such as a subset of the pool; without the columns of skills and factors their measures are left out.
        seed: Of the training.
        work: A directory for features, student and answers; resumed.

    Returns:
        `n`, `tokens`, `learned_tokens`; `measure.KEY` of every measure; `student.*`; `accuracy.NAME` and `error.NAME` of
        every benchmark, and `answer.NAME` where they are of whole solutions; `in_distribution` and `ood`, the means of the
        accuracies; and what it was made with.
    """
    import torch

    scored = _measures(recipe, rows, work / "features")
    student = recipe.student_recipe("subset", str(work / "student"), seed)
    trained = student.train(rows, report=say, **student.arguments())
    judged = _judged(recipe, str(trained.model), work / "evaluation")
    return {
        "n": len(rows),
        "tokens": trained.tokens,
        "learned_tokens": trained.learned_tokens,
        **scored,
        "student.train_loss": trained.train_loss,
        "student.steps": trained.steps,
        "student.seconds": trained.seconds,
        **judged,
        "base": recipe.fixed()["student"]["base"],
        "threads": torch.get_num_threads(),
        "versions": json.dumps({name: version(name) for name in ("torch", "transformers", "trl")}),
    }


def _measures(recipe: StudyRecipe, rows: Dataset, directory: Path) -> dict[str, Any]:
    """Every measure of a subset, and who computed the gradients."""
    from . import runner
    from .featurizer import GradientFeaturizer
    from .vendi import Covariance

    featurizer = GradientFeaturizer(**recipe.proxy())
    features = runner.run(rows, featurizer, directory, progress=False).features
    score = Covariance(featurizer.dim, feature_id=featurizer.feature_id).update(features, features["id"]).score()
    skills, first = recipe.content.get("skills"), next(iter(recipe.section("factors").values()))
    texts = [_text(dict(row)) for row in rows]
    model = recipe.content.get("embeddings") and recipe.place(recipe.content["embeddings"])
    vectors = embed(texts, local_folder(model) or model) if model else None
    others = measure(
        texts=texts,
        gradients=features,
        loss=features["loss"],
        gradient_norm=features["gradient_norm"],
        embeddings=vectors,
        clusters=None if vectors is None else _clusters(vectors),
        labels=rows[skills][:] if skills in rows.column_names else None,
    )
    return {
        "measure.g_vendi": score.g_vendi,
        "measure.g_vendi_debiased": score.g_vendi_debiased,
        **{f"measure.{name}": value for name, value in others.items()},
        **({"measure.oracle": _entropy(rows[first][:])} if first in rows.column_names else {}),
        "feature_id": featurizer.feature_id,
    }


def _text(row: Mapping[str, Any]) -> str:
    """What a row says; a pair for an encoder has no completion."""
    names = ("prompt", "completion") if row.get("completion") is not None else ("premise", "hypothesis")
    return "\n".join(str(row[name]) for name in names)


def _clusters(vectors: Any) -> Any:
    from .clustering import SphericalKMeans

    return SphericalKMeans(max(1, min(EMBEDDING_CLUSTERS, len(vectors) // 10)), seed=0).fit(vectors).labels_


def _entropy(values: Sequence[Any]) -> float:
    """Of the shares of the values of the first factor: what nobody knows of real data, and a ceiling here."""
    return abs(math.fsum(count / len(values) * math.log(count / len(values)) for count in Counter(values).values()))


def _judged(recipe: StudyRecipe, model: str, directory: Path) -> dict[str, float]:
    """vLLM keeps the memory of the GPU as long as its process lives, and the next run needs it: it gets its own process."""
    if recipe.section("evaluation").get("backend") != "vllm":
        return _accuracies(recipe, model, directory)
    from accelerate.utils.memory import clear_device_cache

    clear_device_cache(garbage_collection=True)
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(_accuracies, recipe, model, directory).result()


def _accuracies(recipe: StudyRecipe, model: str, directory: Path) -> dict[str, float]:
    """The accuracy on each benchmark with its standard error, and the means of each role; of solutions where asked for."""
    from .evaluation import evaluate

    asked = recipe.student_recipe("subset", "student").evaluation_arguments()
    done = evaluate(_student(recipe, model), output=directory, **asked)
    column, found = recipe.section("evaluation").get("solution"), {}
    for benchmark in map(find, asked["benchmarks"]):
        name, answers = benchmark.name, done.benchmarks[benchmark.name]
        right, error = answers["accuracy"], answers["standard_error"]
        if column:
            found[f"answer.{name}"] = right
            whole = whole_accuracy(directory / "verdicts" / f"{name}.parquet", reference_solutions(benchmark, column))
            right, error = whole.accuracy, whole.standard_error
        found |= {f"accuracy.{name}": right, f"error.{name}": error}
    for role, names in roles_of(recipe).items():
        found[role] = mean_of([found[f"accuracy.{name}"] for name in names], [0.0] * len(names))[0] or 0.0
    return found


def _student(recipe: StudyRecipe, model: str) -> Student:
    given = recipe.section("evaluation")
    if given.get("backend") == "vllm":
        from .offline_vllm import VLLMGenerator

        return VLLMGenerator(model)
    from .evaluation import local_student

    return local_student(model, **({"batch_size": given["batch_size"]} if "batch_size" in given else {}))


def roles_of(recipe: StudyRecipe) -> dict[str, list[str]]:
    """The names of the benchmarks by role."""
    asked, given = recipe.student_recipe("subset", "student"), recipe.section("evaluation")
    names = names_of([find(each) for each in asked.evaluation_arguments()["benchmarks"]])
    first = len(given["in_distribution"])
    return {"in_distribution": names[:first], "ood": names[first:]}
