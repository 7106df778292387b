"""Recipes of studies: what they plan, and that everything wrong with them is said before anything begins."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
import yaml

from hf_prism.study_recipe import StudyRecipe


RECIPES = Path(__file__).parents[1] / "examples" / "recipes"
STUDIES = ("study_math", "study_nli", "study_prismmath")
MINIMAL = {
    "name": "small",
    "output": "run",
    "data": "pool.jsonl",
    "factors": {"reasoning": "skeleton", "surface": "style"},
    "design": {"size": 24, "reasoning": [1, 2, 4], "surface": [1, 3], "skew": [0, 1], "repeats": 2},
    "proxy": {"model": "embedded"},
    "student": {"base": "embedded"},
    "evaluation": {"in_distribution": ["same.jsonl"], "ood": ["other.jsonl"]},
}


def load(folder, changes=None, **content):
    (folder / "r.yaml").write_text(yaml.safe_dump({**MINIMAL, **content}))
    return StudyRecipe.load(folder / "r.yaml", changes)


def test_a_plan_has_every_combination_and_every_repeat_once(tmp_path):
    plan = load(tmp_path).plan()
    asked = {(*levels, repeat) for *levels, repeat in product([1, 2, 4], [1, 3], [0, 1], [0, 1])}
    assert {(*run.factors.values(), run.repeat) for run in plan} == asked and len(plan) == len(asked)
    for run in plan:
        assert list(run.factors) == ["reasoning", "surface", "skew"] and run.composition.size == 24
        assert run.composition.skew == run.factors["skew"]
        assert run.composition.values == {
            "skeleton": run.factors["reasoning"],
            "style": run.factors["surface"],
        }


def test_every_run_has_its_own_name_and_seed(tmp_path):
    plan = load(tmp_path).plan()
    assert len({run.composition.seed for run in plan}) == len({run.name for run in plan}) == len(plan)
    assert [run.name for run in plan] == sorted(run.name for run in plan)
    other = load(tmp_path, seed=1).plan()
    assert not {run.composition.seed for run in plan} & {run.composition.seed for run in other}


def test_every_tenth_run_is_a_run_of_the_whole(tmp_path):
    whole = load(tmp_path).plan()
    for every in (5, 10):
        assert load(tmp_path, {"every": every}).plan() == whole[::every]


def test_more_repeats_and_levels_keep_what_the_runs_draw(tmp_path):
    few = load(tmp_path).plan()
    design = {**MINIMAL["design"], "repeats": 3, "reasoning": [1, 2, 4, 8]}
    more = {(*run.factors.values(), run.repeat): run.composition for run in load(tmp_path, design=design).plan()}
    assert all(more[*run.factors.values(), run.repeat] == run.composition for run in few)


def test_the_order_is_shuffled_so_that_what_is_done_first_is_like_the_rest():
    plan = StudyRecipe.load(RECIPES / "study_math.yaml").plan()
    for name in ("reasoning", "surface", "skew"):
        levels = {run.factors[name] for run in plan}
        assert {run.factors[name] for run in plan[:40]} == levels
    assert {run.factors["skew"] for run in plan[::10]} == {0, 1}


def test_numbers_with_a_point_are_whole_numbers(tmp_path):
    design = {**MINIMAL["design"], "size": 24.0, "reasoning": [1.0, 2.0, 4.0], "repeats": 2.0}
    assert load(tmp_path, design=design).plan() == load(tmp_path).plan()


def test_a_student_of_a_run_has_its_seed_and_all_benchmarks(tmp_path):
    recipe = load(tmp_path, student={"base": "embedded", "training": {"max_steps": 3}}, evaluation={
        "in_distribution": ["same.jsonl"], "ood": ["other.jsonl", "math500"], "max_tokens": 9, "backend": "vllm",
    })  # fmt: skip
    student = recipe.student_recipe("subset", "here", 17)
    student.check("it")
    assert student.arguments()["training"] == {"seed": 17, "max_steps": 3} and student.output == Path("here")
    told = student.evaluation_arguments()
    assert told["benchmarks"] == ["same.jsonl", "other.jsonl", "math500"] and told["sampling"].max_tokens == 9


@pytest.mark.parametrize("name", STUDIES)
def test_every_recipe_that_ships_is_read_and_its_plan_is_whole(name):
    recipe = StudyRecipe.load(RECIPES / f"{name}.yaml")
    design = recipe.section("design")
    combinations = len(design["reasoning"]) * len(design["surface"]) * len(design["skew"])
    assert len(recipe.plan()) == combinations * design["repeats"] >= 120
    assert recipe.content["evaluation"]["ood"] and recipe.proxy()["model"]


@pytest.mark.parametrize("name", STUDIES)
def test_the_training_section_of_every_recipe_is_taken_by_the_trainer(name):
    from trl import SFTConfig

    from hf_prism.distillation import OWNED
    from hf_prism.kinds import check_keywords

    given = check_keywords(StudyRecipe.load(RECIPES / f"{name}.yaml").content["student"]["training"], SFTConfig, OWNED)
    given = {key: value for key, value in given.items() if key != "use_liger_kernel"}  # which is not installed here
    assert SFTConfig(output_dir="none", use_cpu=True, bf16=False, **given).learning_rate == given["learning_rate"]


BAD = {
    "no pool": ({"data": None}, "the key 'data' is missing"),
    "no design": ({"design": None}, "the key 'design' is missing"),
    "an unknown key": ({"workrs": 2}, "unknown key 'workrs' (did you mean 'workers'?)"),
    "an unknown key of the design": ({"design.sise": 2}, "design: unknown key 'sise' (did you mean 'size'?)"),
    "a level of no factor": ({"design.style": [1]}, "design: unknown key 'style'"),
    "no size": ({"design.size": None}, "size must be a number, got None"),
    "half a row": ({"design.size": 24.5}, "size must be a whole number, got 24.5"),
    "a level that is no list": ({"design.reasoning": 4}, "design.reasoning must be a list, got 4"),
    "a factor without levels": ({"design.surface": None}, "design.surface must be a list, got None"),
    "no level": ({"design.reasoning": []}, "reasoning must list different numbers, one at least; got []"),
    "a level twice": ({"design.surface": [1, 4, 1]}, "surface must list different numbers, one at least"),
    "no values of a factor": ({"design.reasoning": [0, 1]}, "reasoning must be above 0, got 0"),
    "a negative skew": ({"design.skew": [-1]}, "skew must be 0 or more, got -1"),
    "a factor called skew": ({"factors": {"skew": "skeleton"}}, "no name of size, skew, repeats"),
    "one column for two factors": ({"factors.surface": "skeleton"}, "a column each, all different"),
    "a column that is a number": ({"factors.surface": 3}, "factors must be names with a column each"),
    "no worker": ({"workers": 0}, "workers must be above 0, got 0"),
    "a name that is a number": ({"name": 5}, "name must be text, got 5"),
    "no benchmark of another kind": ({"evaluation.ood": []}, "ood names no benchmark"),
    "nor of the same": ({"evaluation.in_distribution": []}, "in_distribution names no benchmark"),
    "benchmarks that are no list": ({"evaluation.ood": "other.jsonl"}, "evaluation.ood must be a list"),
    "benchmarks of a student": ({"evaluation.benchmarks": ["gsm8k"]}, "name the benchmarks under"),
    "an unknown backend": ({"evaluation.backend": "server"}, "must be transformers or vllm, got 'server'"),
    "an unknown key of evaluation": ({"evaluation.sample": 2}, "did you mean 'samples'?"),
    "an unknown key of the proxy": ({"proxy.modle": "x"}, "proxy: unknown key 'modle' (did you mean 'model'?)"),
    "a proxy that skips rows": ({"proxy.on_long": "skip"}, "proxy: on_long must not be skip"),
    "a student that skips rows": ({"student.on_long": "skip"}, "student: on_long must not be skip"),
    "an unknown key of the student": ({"student.max_lenght": 5}, "student: unknown key 'max_lenght'"),
    "an output of the student": ({"student.output": "x"}, "student: unknown key 'output'"),
    "a seed of all students": ({"student.training": {"seed": 1}}, "training must have no seed"),
    "a student without base": ({"student.base": None}, "student: the key 'base' is missing"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), BAD.values(), ids=BAD)
def test_a_bad_recipe_is_an_error_that_names_key_and_file(tmp_path, changes, message):
    with pytest.raises(ValueError) as error:
        load(tmp_path, changes)
    assert message in str(error.value) and ("r.yaml" in str(error.value) or "the recipe's" in str(error.value))
