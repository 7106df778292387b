"""A whole training run: everything that can be wrong is looked at first, then train, score the data, evaluate, push.

    model/             the student
    result.json        the numbers of the training, the data and the evaluation
    features/          the gradients of the data, where it is scored
    evaluation/        of the student, as `hf-prism evaluate` writes it; base_evaluation/ of the base

Each part is left alone where it is finished. So the same command goes on after a crash, and pushes what is there; an
evaluation that was made elsewhere, with `--output OUTPUT/evaluation`, goes onto the card too.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import files, ranks
from .benchmarks import find, names_of, read
from .checkpoint import local_folder
from .evaluation import Evaluation, Student, check_kinds, check_samples, evaluate, local_student, read_evaluation
from .local import pin
from .settings import name_only
from .student_recipe import StudentRecipe


if TYPE_CHECKING:
    from datasets import Dataset

    from .featurizer import GradientFeaturizer


def run(recipe: StudentRecipe, *, dry_run: bool = False) -> dict[str, Any] | None:
    """Do what a recipe says, or go on with it.

    Args:
        recipe: Of the student.
        dry_run: Check and tell everything up to the first step, and stop.

    Returns:
        What `result.json` holds; None after a dry run, and in all processes of a launch but the first.

    Raises:
        ValueError: As the recipe, the training, the evaluation and the push; before the training begins, as far as it can
            be known then.
    """
    rows, known = recipe.rows()
    _check_evaluation(recipe)
    featurizer = _featurizer(recipe)
    recipe.public_text()
    push_to = recipe.content.get("push_to")
    if push_to and ranks.is_first():
        from .student_hub import check_can_push_student

        check_can_push_student(push_to)
    trained = recipe.train(rows, facts=known, report=tell, dry_run=dry_run, **recipe.arguments())
    if trained is None:
        return None
    held = files.read_json(recipe.output / "result.json") or {}
    if held.get("rows_digest") != known["rows_digest"]:
        raise ValueError(
            f"{recipe.output} holds a student of other rows (their digest was {held.get('rows_digest')}, it is "
            f"{known['rows_digest']} now): the data has changed since. Name another output."
        )
    base = recipe.arguments()["base"]
    result = {
        **{name: held[name] for name in (*known, "versions") if name in held},
        **trained.as_dict(),
        "student": recipe.content.get("student", "sft"),
        "base": str(name_only(base)),
        "base_name": pin(base, recipe.content.get("revision"))[0],
        "base_is_local": local_folder(base) is not None,
        "chat_template": False if recipe.content.get("chat_template") is False else None,
        "recipe": recipe.public_text(),
    }
    if featurizer is not None:
        result["g_vendi"] = _score(featurizer, rows, recipe.output / "features")
    evaluations = _evaluations(recipe, trained.model)
    if not ranks.is_first():
        return None
    for name, done in evaluations.items():
        result[name] = {each: dict(found) for each, found in done.benchmarks.items()}
        result[f"{name}_setting"] = dict(done.setting)
    files.write_json(recipe.output / "result.json", result)
    if push_to:
        from .student_hub import push_student

        commit = push_student(
            recipe.output,
            push_to,
            license=recipe.content.get("license"),
            private=bool(recipe.content.get("private")),
        )
        result |= {"pushed_to": push_to, "commit": commit}
    return result


def tell(text: str) -> None:
    """A line to standard error; the result alone is for standard output."""
    sys.stderr.write(text + "\n")


def _check_evaluation(recipe: StudentRecipe) -> None:
    """Benchmarks that cannot be read are an error before the training, not after it."""
    if not recipe.evaluation:
        return
    arguments = recipe.evaluation_arguments()
    found = [find(spec, prompt=arguments.get("prompt")) for spec in arguments["benchmarks"]]
    options = {"max_items": arguments.get("max_items"), "seed": arguments.get("seed", 0)}
    read_ones = {name: read(each, **options) for name, each in zip(names_of(found), found, strict=True)}
    is_encoder = recipe.content.get("student") == "classification"
    check_samples(arguments.get("samples", 1), arguments["sampling"], is_encoder)
    if is_encoder:
        check_kinds(recipe.content.get("labels") or (), read_ones)


def _featurizer(recipe: StudentRecipe) -> GradientFeaturizer | None:
    """The proxy that scores the data, reading rows as the student does; its files are looked at now."""
    if not recipe.proxy:
        return None
    from .featurizer import GradientFeaturizer

    formats = ("prompt_template", "completion_template", "chat_template", "on_long", "on_empty")
    shared = {name: recipe.arguments()[name] for name in formats if recipe.content.get(name) is not None}
    return GradientFeaturizer(**{**shared, **recipe.proxy})


def _score(featurizer: GradientFeaturizer, rows: Dataset, directory: Path) -> dict[str, Any]:
    """G-Vendi of the data that the student was trained on."""
    from . import runner
    from .vendi import Covariance

    features = runner.run(rows, featurizer, directory).features
    covariance = Covariance(featurizer.dim, feature_id=featurizer.feature_id).update(features, features["id"])
    return {**covariance.score().as_dict(), "proxy": featurizer.proxy.name}


def _evaluations(recipe: StudentRecipe, model: Path) -> Mapping[str, Evaluation]:
    """Those that the recipe asks for, and finished ones that are there."""
    done = {}
    for name, place, wanted in (
        ("evaluation", str(model), bool(recipe.evaluation)),
        ("base_evaluation", recipe.arguments()["base"], bool(recipe.evaluation.get("base"))),
    ):
        folder = recipe.output / name
        if wanted:
            tell(f"evaluating {'the base' if name != 'evaluation' else 'the student'}: {place}")
            done[name] = evaluate(_student(recipe, place), output=folder, report=tell, **recipe.evaluation_arguments())
        elif (folder / "result.json").exists():
            done[name] = _made_elsewhere(
                folder, place, recipe.content.get("revision") if name != "evaluation" else None
            )
    return done


def _made_elsewhere(folder: Path, model: str, revision: str | None) -> Evaluation:
    """A finished evaluation that is there, if it is of this model."""
    done = read_evaluation(folder)
    if not done.model.startswith(pin(model, revision)[0]) and done.model.rstrip("/") not in (
        model,
        str(Path(model).resolve()),
    ):
        raise ValueError(
            f"{folder} holds an evaluation of {done.model}, not of {model}: its numbers would stand on the card of another "
            "model. Delete it, or evaluate this one into it."
        )
    return done


def _student(recipe: StudentRecipe, model: str) -> Student:
    options = {"batch_size": recipe.evaluation["batch_size"]} if "batch_size" in recipe.evaluation else {}
    if recipe.content.get("chat_template") is False:
        options["chat_template"] = False
    is_base = model != str(recipe.output / "model")
    revision = recipe.content.get("revision") if is_base else None
    if recipe.content.get("dtype") == "bfloat16" and recipe.content.get("student") != "classification":
        options["dtype"] = recipe.content["dtype"]
    return local_student(model, revision=revision, device=ranks.join().device, **options)
