"""Whole runs on the embedded model: students learn what they are taught, and the same run gives the same numbers."""

import json
from pathlib import Path

import pytest
import yaml

from hf_prism.benchmarks import NLI_PROMPT
from hf_prism.cli import main
from hf_prism.rows import load_rows
from hf_prism.student_recipe import StudentRecipe
from hf_prism.student_run import run
from hf_prism.tasks.nli import NLITask
from hf_prism.tasks.procedural import LONGER_SKELETONS, generate


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def recipe(folder, **content):
    base = {"base": "embedded", "output": "run", "max_length": 256}
    (folder / "recipe.yaml").write_text(yaml.safe_dump({**base, **content}))
    return folder / "recipe.yaml"


TRAINING = {
    "learning_rate": 2e-3, "per_device_train_batch_size": 8, "gradient_checkpointing": False, "logging_steps": 5, "seed": 3,
}  # fmt: skip


@pytest.fixture(scope="module")
def chains(tmp_path_factory):
    """A recipe for one kind of chain that the embedded model has never seen, with other problems of it to be asked."""
    folder = tmp_path_factory.mktemp("chains")
    rows = generate(128, families=["story"], skeletons=["story/+++"], wordings=1, largest=15, seed=1)
    asked = generate(40, families=["story"], skeletons=["story/+++"], wordings=1, largest=15, seed=2)
    write(folder / "rows.jsonl", [{name: row[name] for name in ("id", "prompt", "completion")} for row in rows])
    write(folder / "asked.jsonl", [{name: row[name] for name in ("id", "prompt", "answer")} for row in asked])
    assert "story/+++" in LONGER_SKELETONS
    return recipe(
        folder,
        data="rows.jsonl",
        output=str(folder / "run"),
        training={**TRAINING, "num_train_epochs": 3},
        evaluation={"benchmarks": ["asked.jsonl"], "prompt": "{problem}", "max_tokens": 120, "base": True},
    )


@pytest.fixture(scope="module")
def trained(chains):
    return run(StudentRecipe.load(chains))


def test_a_student_learns_what_its_base_cannot(trained):
    before, after = (trained[name]["asked"] for name in ("base_evaluation", "evaluation"))
    assert after["interval"][0] > before["interval"][1] + 0.2
    assert after["items_digest"] == before["items_digest"] and after["prompt"] == "{problem}"


def test_the_same_recipe_again_gives_the_same_numbers(chains, trained, tmp_path):
    again = run(StudentRecipe.load(chains, {"output": str(tmp_path / "again"), "evaluation.base": False}))
    assert again["train_loss"] == trained["train_loss"] and again["evaluation"] == trained["evaluation"]
    logs = [[json.loads(line)["loss"] for line in Path(r["output"], "log.jsonl").open()] for r in (trained, again)]
    assert logs[0] == logs[1]
    answers = [
        load_rows(str(Path(r["output"], "evaluation/verdicts/asked.parquet")))["response"] for r in (trained, again)
    ]
    assert list(answers[0]) == list(answers[1])


def test_a_finished_run_is_not_trained_again(chains, trained):
    log = Path(trained["output"], "log.jsonl").read_bytes()
    assert run(StudentRecipe.load(chains)) == trained and Path(trained["output"], "log.jsonl").read_bytes() == log


def test_a_dry_run_tells_everything_and_leaves_nothing(chains, tmp_path, capsys):
    assert main(["distill", str(chains), "--dry-run", "--output", str(tmp_path / "dry")]) == 0
    said = capsys.readouterr().err
    assert "[[" in said and "128" in said and "steps" in said and not (tmp_path / "dry").exists()


def test_a_run_with_other_data_is_refused(chains, trained):
    with pytest.raises(ValueError, match="holds a run with another configuration"):
        run(StudentRecipe.load(chains, {"max_samples": 100}))


def test_a_decoder_learns_inference_by_templates(tmp_path):
    endings = {"entailment": "{0} moves.", "contradiction": "{0} does not move.", "neutral": "{0} is old."}
    rows = [
        {"id": str(i), "premise": f"{name} {verb} home.", "hypothesis": endings[label].format(name), "label": label}
        for i, (name, verb, label) in enumerate(
            (name, verb, label)
            for name in ("Ann", "Ben", "Carol", "Tom", "Mary", "Paul", "Lucy", "Kate", "Leo", "Sam")
            for verb in ("walks", "runs", "drives", "rides")
            for label in endings
        )
    ]
    write(tmp_path / "train.jsonl", [row for row in rows if int(row["id"]) % 5])
    write(tmp_path / "pairs.jsonl", [row for row in rows if not int(row["id"]) % 5])
    path = recipe(
        tmp_path,
        data="train.jsonl",
        output=str(tmp_path / "run"),
        prompt_template=NLI_PROMPT,
        completion_template="{label}",
        training={**TRAINING, "num_train_epochs": 4},
        evaluation={"benchmarks": ["pairs.jsonl"], "max_tokens": 8},
    )
    found = run(StudentRecipe.load(path))["evaluation"]["pairs"]
    assert found["accuracy"] > 0.9 and found["problems"] == 24 and found["invalid"] == 0


def test_the_prompt_of_the_benchmarks_is_that_of_the_task():
    pair = {"premise": "It rains.", "hypothesis": "The street is wet."}
    assert NLITask().row(pair, "", "neutral")["prompt"] == NLI_PROMPT.format_map(pair)
