"""Whole studies of tiny students: every number is recomputed, and killing, resuming and sharing the work change none."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from random import Random

import numpy as np
import pandas as pd
import pytest
import yaml
from helpers import save_tiny_model, tiny_tokenizer

from hf_prism import GradientFeaturizer, runner
from hf_prism.baselines import embed
from hf_prism.cli import main
from hf_prism.distillation import distill
from hf_prism.generation import Request, Sampling
from hf_prism.local import TransformersGenerator
from hf_prism.study import StudyPool, study, write_runs
from hf_prism.study_recipe import StudyRecipe
from hf_prism.study_run import _judged
from hf_prism.tasks.chains import pose
from hf_prism.tasks.styles import style


KINDS = ("events/+", "events/--", "people/+*-")
BENCHMARKS = {"same": (4, 3, 2), "other": (5, 3, 1), "third": (1, 2, 6)}  # of each kind so many items
TOKENS = 8
DESIGN = {"size": 24, "reasoning": [1, 2, 3], "surface": [1, 2], "skew": [0], "repeats": 2}
TRAINING = {
    "learning_rate": 2e-2, "num_train_epochs": 8, "per_device_train_batch_size": 8, "gradient_checkpointing": False,
    "logging_steps": 5, "save_strategy": "no",
}  # fmt: skip


def row(kind, number, index, stream):
    """The student is taught to count the steps of a chain, which a tiny one can learn to guess."""
    random, signs = Random(f"{stream}/{kind}/{number}/{index}"), kind.partition("/")[2]
    return {
        "id": f"{stream}-{kind}-{number}-{index}",
        "prompt": pose(kind, random, style(number, random))["prompt"],
        "completion": f"\\boxed{{{len(signs)}}}",
        "answer": str(len(signs)),
        "skeleton": kind,
        "style": number,
        "skills": sorted(set(signs)),
    }


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A pool, three benchmarks, a base, and the recipe of twelve runs on them."""
    folder = tmp_path_factory.mktemp("study")
    pool = [row(kind, number, index, "pool") for kind in KINDS for number in (0, 1) for index in range(24)]
    write(folder / "pool.jsonl", pool)
    for number, (name, counts) in enumerate(BENCHMARKS.items(), 5):
        items = [row(kind, number, i, name) for kind, count in zip(KINDS, counts, strict=True) for i in range(count)]
        write(folder / f"{name}.jsonl", items)
    texts = [*(each["prompt"] for each in pool), *(each["completion"] for each in pool)]
    save_tiny_model(folder / "base", tokenizer=tiny_tokenizer(texts))
    recipe = {
        "name": "small",
        "output": str(folder / "run"),
        "data": "pool.jsonl",
        "factors": {"reasoning": "skeleton", "surface": "style"},
        "design": DESIGN,
        "proxy": {"model": "base", "dim": 64},
        "embeddings": "base",
        "skills": "skills",
        "student": {"base": "base", "training": TRAINING},
        "evaluation": {
            "in_distribution": ["same.jsonl"],
            "ood": ["other.jsonl", "third.jsonl"],
            "prompt": "{problem}",
            "max_tokens": TOKENS,
        },
        "workers": 2,
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder


def load(folder, **changes):
    return StudyRecipe.load(folder / "recipe.yaml", changes)


@pytest.fixture(scope="module")
def runs(folder):
    """What two workers made."""
    return pd.read_parquet(study(load(folder), report=lambda _: None))


@pytest.fixture
def copied(folder, runs, tmp_path):
    """The directory of the finished study, to be spoilt."""
    return Path(shutil.copytree(folder / "run", tmp_path / "run"))


def files_of(directory):
    return {path: path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


def assert_same(found, expected):
    """All columns alike but the time; floats to a millionth."""
    assert list(found) == list(expected) and len(found) == len(expected)
    for name in set(expected) - {"student.seconds"}:
        if expected[name].dtype == float:
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-6, atol=1e-12, err_msg=name)
        else:
            assert found[name].tolist() == expected[name].tolist(), name


# ---- what is written -------------------------------------------------------------------------------------------------


def test_a_run_is_a_row_with_its_factors_measures_and_accuracies(folder, runs):
    plan = load(folder).plan()
    assert runs["run"].tolist() == [run.name for run in plan] and set(runs["n"]) == {24}
    for name in ("reasoning", "surface", "skew"):
        assert runs[f"factor.{name}"].tolist() == [run.factors[name] for run in plan]
    assert runs["seed"].tolist() == [run.composition.seed for run in plan]
    asked = {"study", "repeat", "tokens", "measure.g_vendi", "measure.distinct_2", "ood", "in_distribution", "base"}
    asked |= {f"accuracy.{name}" for name in BENCHMARKS} | {f"error.{name}" for name in BENCHMARKS}
    assert asked <= set(runs) and not runs.isna().any(axis=None)
    assert runs["measure.g_vendi"].nunique() == 12 and runs["ood"].nunique() > 2  # there is something to correlate
    assert len(set(runs["base"])) == len(set(runs["feature_id"])) == 1


def test_nothing_of_a_run_is_kept_but_its_record_and_log(folder, runs):
    kept = sorted(path.name for path in (folder / "run" / "runs").iterdir())
    assert kept == sorted(f"{run}.{suffix}" for run in runs["run"] for suffix in ("json", "log"))
    assert not list((folder / "run" / "work").iterdir())
    assert "loss" in (folder / "run" / "runs" / "0000.log").read_text()


@pytest.mark.parametrize("place", [0, 7])
def test_measures_are_those_of_the_rows_recomputed(folder, runs, tmp_path, place):
    recipe, found = load(folder), runs.iloc[place]
    rows = StudyPool(recipe).subset(recipe.plan()[place])
    assert (
        len(set(rows["skeleton"])) == found["factor.reasoning"] and len(set(rows["style"])) == found["factor.surface"]
    )

    features = runner.run(rows, GradientFeaturizer(str(folder / "base"), dim=64), tmp_path, progress=False).features
    unit = np.array(features["gradient"], dtype=np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    assert found["measure.g_vendi"] == pytest.approx(effective(unit), rel=1e-6)
    assert found["measure.gradient_distance"] == pytest.approx(mean_distance(unit), abs=1e-7)
    assert found["measure.mean_perplexity"] == pytest.approx(np.mean(np.exp(features["loss"])), rel=1e-6)
    assert found["measure.mean_gradient_norm"] == pytest.approx(np.mean(features["gradient_norm"]), rel=1e-6)

    words = [re.findall(r"\w+|[^\w\s]", f"{row['prompt']}\n{row['completion']}".lower()) for row in rows]
    two = Counter(pair for text in words for pair in pairwise(text))
    four = Counter(tuple(text[i : i + 4]) for text in words for i in range(len(text) - 3))
    assert found["measure.distinct_2"] == pytest.approx(len(two) / two.total())
    assert found["measure.ngram_entropy_4"] == pytest.approx(entropy(four))
    assert found["measure.skill_set_entropy"] == pytest.approx(entropy(Counter(map(tuple, rows["skills"]))))
    assert found["measure.oracle"] == pytest.approx(entropy(Counter(rows["skeleton"])))

    embedded = embed([f"{row['prompt']}\n{row['completion']}" for row in rows], str(folder / "base")).astype(
        np.float64
    )
    embedded /= np.linalg.norm(embedded, axis=1, keepdims=True)
    assert found["measure.embedding_vendi"] == pytest.approx(effective(embedded), rel=1e-5)
    assert found["measure.embedding_distance"] == pytest.approx(mean_distance(embedded), abs=1e-6)
    assert 0 <= found["measure.partition_entropy"] <= math.log(2) + 1e-9  # 24 rows are two clusters


def effective(unit):
    """exp of the entropy of the eigenvalues of the second moment."""
    shares = np.linalg.eigvalsh(unit.T @ unit / len(unit))
    shares = shares[shares > 1e-12]
    return math.exp(-np.sum(shares * np.log(shares)))


def mean_distance(unit):
    return np.mean([1 - unit[i] @ unit[j] for i in range(len(unit)) for j in range(len(unit)) if i != j])


def entropy(counts):
    return -sum(count / counts.total() * math.log(count / counts.total()) for count in counts.values())


def test_accuracies_are_those_of_the_same_student_trained_and_asked_by_hand(folder, runs, tmp_path):
    place = int(runs["ood"].argmax())
    recipe, found = load(folder), runs.iloc[place]
    rows = StudyPool(recipe).subset(recipe.plan()[place])
    training = {**TRAINING, "seed": int(found["seed"])}
    student = distill(rows, str(folder / "base"), output=tmp_path, training=training, report=lambda _: None)
    assert student.train_loss == pytest.approx(found["student.train_loss"], rel=1e-4)
    assert (student.tokens, student.learned_tokens) == (found["tokens"], found["learned_tokens"])

    asked = TransformersGenerator(str(student.model))
    accuracy = {}
    for name in BENCHMARKS:
        items = [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
        requests = [
            Request(({"role": "user", "content": item["prompt"]},), Sampling(0.0, 1.0, TOKENS), 0) for item in items
        ]
        answers = {place: re.findall(r"\\boxed\{(\d)\}", told.text) for place, told in asked.generate(requests)}
        right = sum(answers[i][-1:] == [item["answer"]] for i, item in enumerate(items))
        accuracy[name] = right / len(items)
        assert found[f"accuracy.{name}"] == pytest.approx(accuracy[name])
    assert found["in_distribution"] == pytest.approx(accuracy["same"])
    assert found["ood"] == pytest.approx((accuracy["other"] + accuracy["third"]) / 2) and found["ood"] > 0


VLLM = """
import os
from types import SimpleNamespace

class SamplingParams(SimpleNamespace):
    pass

class LLM:
    def __init__(self, model, **engine):
        print(os.getpid(), file=open("pid", "w"))

    def chat(self, messages, params, use_tqdm):
        found = SimpleNamespace(text="\\\\boxed{2}", finish_reason="stop", token_ids=[1])
        return [SimpleNamespace(outputs=[found], prompt_token_ids=[1]) for _ in messages]
"""


def test_vllm_answers_in_a_process_of_its_own_that_is_gone_afterwards(folder, tmp_path, monkeypatch):
    (tmp_path / "vllm.py").write_text(VLLM)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    found = _judged(load(folder, **{"evaluation.backend": "vllm"}), str(folder / "base"), tmp_path / "evaluation")
    assert found["accuracy.same"] == pytest.approx(3 / 9) and found["ood"] == pytest.approx((3 / 9 + 2 / 9) / 2)
    process = int((tmp_path / "pid").read_text())
    assert process != os.getpid() and not Path(f"/proc/{process}").exists()


def test_where_solutions_are_asked_for_they_are_counted_and_answers_are_kept_beside(folder, tmp_path, monkeypatch):
    (tmp_path / "vllm.py").write_text(VLLM)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    solved = {}
    for name in BENCHMARKS:
        items = [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
        write(
            tmp_path / f"{name}.jsonl",
            [{**item, "why": "\\boxed{2}" if i % 4 else "2"} for i, item in enumerate(items)],
        )
        solved[name] = sum(i % 4 > 0 for i in range(len(items))) / len(items)
    files = [str(tmp_path / f"{name}.jsonl") for name in BENCHMARKS]
    changes = {"in_distribution": files[:1], "ood": files[1:], "solution": "why", "backend": "vllm"}
    recipe = load(folder, **{f"evaluation.{key}": value for key, value in changes.items()})
    found = _judged(recipe, str(folder / "base"), tmp_path / "evaluation")
    assert {name: found[f"accuracy.{name}"] for name in BENCHMARKS} == pytest.approx(solved)
    assert found["answer.same"] == pytest.approx(3 / 9) and found["in_distribution"] == pytest.approx(solved["same"])
    assert found["ood"] == pytest.approx((solved["other"] + solved["third"]) / 2)


# ---- again, elsewhere, interrupted -----------------------------------------------------------------------------------


def test_a_second_call_makes_nothing_again_and_the_command_writes_the_report(folder, runs, capsys):
    before = files_of(folder / "run" / "runs")
    assert main(["study", str(folder / "recipe.yaml"), "--json"]) == 0
    assert files_of(folder / "run" / "runs") == before
    assert json.loads(capsys.readouterr().out)["runs"] == 12
    assert (folder / "run" / "report.html").exists() and (folder / "run" / "findings.json").exists()


def test_a_few_runs_are_made_and_kept_and_only_the_report_waits_for_more(folder, copied, capsys):
    (copied / "report.html").unlink(missing_ok=True)  # of another test
    options = ["--output", str(copied), "--set", "every=4"]
    assert main(["study", str(folder / "recipe.yaml"), *options, "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out) == {"runs": 3, "output": str(copied)} and "3 runs are too few for a report" in told.err
    assert len(pd.read_parquet(copied / "runs.parquet")) == 3 and not (copied / "report.html").exists()


def test_a_killed_study_ends_its_worker_and_goes_on_to_the_same_numbers(folder, runs, tmp_path):
    output = tmp_path / "killed"
    changes = {"output": str(output), "workers": 1, "every": 4}
    options = [f"--set={key}={value}" for key, value in changes.items()]
    command = [sys.executable, "-m", "hf_prism", "study", str(folder / "recipe.yaml"), *options]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        wait_for(lambda: list(output.glob("runs/*.json")) or process.poll() is not None)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    wait_for(lambda: not is_alive(process.pid))
    kept = files_of(output / "runs")
    assert 1 <= sum(path.suffix == ".json" for path in kept) < 3

    told = []
    again = pd.read_parquet(study(load(folder, **changes), report=told.append))
    assert sum("of 3: run" in line for line in told) == 3 - sum(path.suffix == ".json" for path in kept)
    assert all(path.read_bytes() == text for path, text in kept.items() if path.suffix == ".json")
    assert_same(again, runs.iloc[::4])  # and one worker makes what two do


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def is_alive(group):
    """Whether a process of the group runs; what ended and nobody has waited for is none."""
    told = subprocess.run(["ps", "-eo", "pgid=,stat="], capture_output=True, text=True, check=True).stdout
    return any(line.split()[0] == str(group) and "Z" not in line for line in told.splitlines())


def test_a_run_that_fails_names_its_log_and_leaves_those_that_are_done(folder, copied, capsys):
    record = copied / "runs" / "0005.json"
    record.unlink()
    (copied / "work" / "0005").write_text("a file where the run wants its directory")
    before = files_of(copied / "runs")
    assert main(["study", str(folder / "recipe.yaml"), "--output", str(copied)]) == 1
    said = capsys.readouterr().err
    assert "run 0005 failed" in said and f"Its log is {copied / 'runs' / '0005.log'}" in said
    assert "Traceback" in (copied / "runs" / "0005.log").read_text() and not record.exists()
    assert {path: text for path, text in files_of(copied / "runs").items() if path.name != "0005.log"} == {
        path: text for path, text in before.items() if path.name != "0005.log"
    }


def test_the_places_of_the_files_do_not_matter(folder, copied, tmp_path):
    there = Path(shutil.copytree(folder, tmp_path / "moved", ignore=shutil.ignore_patterns("run")))
    told = []
    study(load(there, output=str(copied), workers=1), report=told.append)
    assert len(told) == 1  # the plan, and nothing to do


CHANGES = {
    "a size": ({"design.size": 12}, "design.size: 24 there, 12 now"),
    "a level": ({"design.reasoning": [1, 2]}, "design.reasoning: [1, 2, 3] there, [1, 2] now"),
    "a seed": ({"seed": 1}, "seed: null there, 1 now"),
    "the training": ({"student.training.learning_rate": 0.1}, "student.training.learning_rate: 0.02 there, 0.1 now"),
    "the proxy": ({"proxy.dim": 128}, "proxy.dim: 64 there, 128 now"),
    "a benchmark's role": (
        {"evaluation.in_distribution": ["same.jsonl", "third.jsonl"], "evaluation.ood": ["other.jsonl"]},
        'benchmarks.third.role: "ood" there, "in_distribution" now',
    ),
    "its items": ({"evaluation.max_items": 5}, "benchmarks.same.items: 9 there, 5 now"),
}


@pytest.mark.parametrize(("changes", "message"), CHANGES.values(), ids=CHANGES)
def test_another_study_in_the_same_directory_is_refused_with_what_differs(folder, runs, changes, message):
    with pytest.raises(ValueError) as error:
        study(load(folder, **changes), report=lambda _: None)
    assert message in str(error.value)


def test_another_pool_is_refused_even_under_the_same_ids(folder, runs, tmp_path):
    rows = [json.loads(line) for line in (folder / "pool.jsonl").read_text().splitlines()]
    for name, value in (("completion", "\\boxed{7}"), ("style", 1)):
        write(tmp_path / "pool.jsonl", [{**rows[0], name: value}, *rows[1:]])
        with pytest.raises(ValueError, match=r"\bpool: "):
            study(load(folder, data=str(tmp_path / "pool.jsonl")), report=lambda _: None)


def test_a_measure_that_a_run_has_not_got_is_left_out_of_all(tmp_path):
    records = [{"run": "1", "a": 2.0, "b": 3.0}, {"run": "0", "a": None, "b": 1.0}]
    assert pd.read_parquet(write_runs(tmp_path, records)).to_dict("list") == {"run": ["0", "1"], "b": [1.0, 3.0]}


# ---- before the first run --------------------------------------------------------------------------------------------


def test_a_dry_run_tells_plan_and_mask_and_writes_nothing(folder, tmp_path, capsys):
    arguments = ["study", str(folder / "recipe.yaml"), "--output", str(tmp_path / "dry"), "--dry-run"]
    assert main(arguments) == 0
    said = capsys.readouterr().err
    assert "12 runs of 24 rows" in said and "3 of skeleton, 2 of style" in said
    assert "324 answers" in said and "same           9 items, in_distribution" in said  # 12 x 27
    assert "[[" in said and "64 dimensions" in said and not (tmp_path / "dry").exists()


def test_the_recipe_of_full_size_passes_a_dry_run_on_stand_ins(folder, tmp_path, capsys):
    """Other models and files, fewer values; all else as it ships."""
    rows = [json.loads(line) for line in (folder / "pool.jsonl").read_text().splitlines()]
    names = {"prompt": "problem", "completion": "solution", "skeleton": "skill", "style": "surface"}
    write(tmp_path / "pool.jsonl", [{names.get(name, name): cell for name, cell in row.items()} for row in rows])
    items = [{"problem": row["prompt"], "answer": row["answer"]} for row in rows[:3]]
    recipe = yaml.safe_load((Path(__file__).parents[1] / "examples/recipes/study_prismmath.yaml").read_text())
    for role in ("in_distribution", "ood"):
        for name in recipe["evaluation"][role]:
            write(tmp_path / f"{name}.jsonl", items)
        recipe["evaluation"][role] = [f"{name}={tmp_path / name}.jsonl" for name in recipe["evaluation"][role]]
    recipe |= {
        "data": str(tmp_path / "pool.jsonl"),
        "embeddings": str(folder / "base"),
        "output": str(tmp_path / "run"),
    }
    recipe["proxy"] |= {"model": str(folder / "base"), "max_length": 256}
    recipe["student"] |= {"base": str(folder / "base"), "max_length": 256, "attention": "sdpa"}
    recipe["student"]["training"] |= {"use_liger_kernel": False}
    recipe["design"] |= {"size": 24, "reasoning": [1, 3], "surface": [2]}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert main(["study", str(tmp_path / "recipe.yaml"), "--dry-run"]) == 0
    said = capsys.readouterr().err
    assert "olympiadbench  3 items, ood" in said and "4096 dimensions" in said
    assert "put your final answer within" in said and not (tmp_path / "run").exists()


FIRST = {
    "a bad recipe": ({"design.size": 0}, "size must be above 0"),
    "a pool that is none": ({"data": "nothing.jsonl"}, "nothing.jsonl does not exist"),
    "levels of no factor": ({"factors": {"reasoning": "skill"}, "design.surface": [1]}, "unknown key 'surface'"),
    "a factor of no column": ({"factors.reasoning": "skill"}, "the pool has no column 'skill'"),
    "no such skills": ({"skills": "skill"}, "the pool has no column 'skill'"),
    "a pool that is too small": ({"design.size": 60}, "of 60 rows needs "),
    "more values than there are": ({"design.reasoning": [4]}, "4 values were asked for; the pool has 3"),
    "a benchmark that is none": ({"evaluation.ood": ["math50"]}, "there is no benchmark 'math50'"),
    "solutions that are none": ({"evaluation.solution": "why"}, "has no column 'why'"),
    "a benchmark of both kinds": ({"evaluation.ood": ["same.jsonl"]}, "'same' is named twice"),
    "a base that is none": ({"student.base": "./nothing"}, "nothing is no folder"),
    "a proxy that is none": ({"proxy.model": "./nothing"}, "nothing is no folder"),
    "embeddings of nothing": ({"embeddings": "./nothing"}, "nothing is no folder"),
}


@pytest.mark.parametrize(("changes", "message"), FIRST.values(), ids=FIRST)
def test_what_is_wrong_is_said_before_the_first_run(folder, tmp_path, capsys, changes, message):
    options = [f"--set={key}={yaml.safe_dump(value, default_flow_style=True)}" for key, value in changes.items()]
    output = tmp_path / "run"
    for more in ([], ["--dry-run"]):
        assert main(["study", str(folder / "recipe.yaml"), "--output", str(output), *options, *more]) == 2
        assert message in capsys.readouterr().err and not output.exists()
