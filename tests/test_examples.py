"""Every example runs as its own docstring says, on a small file, and prints what it promises."""

import json
import re
import runpy
import sys
from pathlib import Path

import pytest
from datasets import Dataset
from helpers import save_tiny_model

from hf_prism.rows import load_rows
from hf_prism.tasks.procedural import generate


EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def proxy(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("proxy"))


@pytest.fixture
def run(proxy, tmp_path, monkeypatch, capsys):
    """Run an example in an empty folder; returns what it prints."""
    monkeypatch.chdir(tmp_path)

    def example(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *arguments, "--model", proxy])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return example


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_score_dataset(run, tmp_path):
    rows = generate(12)
    told = run("score_dataset.py", write(tmp_path / "rows.jsonl", rows))
    assert re.search(r"G-Vendi \d+\.\d \(95 % interval \d+\.\d to \d+\.\d\) of 12 rows", told)
    shown = re.findall(r"^  \d\.\d\d  (.*)$", told, re.MULTILINE)
    assert len(shown) == 6 and {text[:40] for text in shown} <= {row["prompt"][:40] for row in rows}


def test_compare_datasets(run, tmp_path):
    files = [write(tmp_path / f"{name}.jsonl", generate(24, seed=seed)) for seed, name in enumerate("ab")]
    told = run("compare_datasets.py", *files)
    assert re.search(r"^1-a: G-Vendi \d+\.\d at 24 of 24 rows$", told, re.MULTILINE)
    assert "24 rows each" in told and "exchanged" in told


def test_select_subset(run, tmp_path):
    rows = generate(30)
    told = run("select_subset.py", write(tmp_path / "rows.jsonl", rows), "-k", "7")
    assert told.startswith("7 of 30 rows: G-Vendi")
    chosen = load_rows(tmp_path / "out/select/selected.parquet")
    assert len(chosen) == 7 and set(chosen["id"]) < {row["id"] for row in rows}
    assert chosen.features == Dataset.from_list(rows).features


@pytest.mark.parametrize("name", ["score_dataset.py", "compare_datasets.py", "select_subset.py"])
def test_examples_say_how_to_run_them_and_what_they_need(name):
    text = (EXAMPLES / name).read_text()
    assert text.startswith('# /// script\n# dependencies = ["hf-prism"]\n# ///\n"""')
    assert f"python examples/{name}" in text and len(text.splitlines()) < 60


def test_custom_task_is_short_and_its_answers_are_right(monkeypatch, capsys):
    script = EXAMPLES / "custom_task.py"
    assert len(script.read_text().splitlines()) < 60
    runpy.run_path(str(script), run_name="__main__")
    told = re.findall(r"^Spell (\w+) backwards\. .* => (\w+)$", capsys.readouterr().out, re.MULTILINE)
    assert len(told) == 3 and all(answer == word[::-1] for word, answer in told)


def test_distill_and_evaluate(tmp_path, monkeypatch, capsys):
    arguments = ["--output", str(tmp_path / "out"), "--size", "104", "--items", "4", "--epochs", "0.2"]
    monkeypatch.setattr(sys, "argv", ["distill_and_evaluate.py", *arguments])
    runpy.run_path(str(EXAMPLES / "distill_and_evaluate.py"), run_name="__main__")
    told = capsys.readouterr().out
    assert "student less base:" in told and re.search(r"^  chains .* of 4 items, p = ", told, re.MULTILINE)
    result = json.loads((tmp_path / "out/student/result.json").read_text())
    assert result["rows"] == 104 and result["g_vendi"]["n"] == 104 and set(result["evaluation"]) == {"alike", "chains"}
    assert json.loads(told.splitlines()[-1])["g_vendi"] == result["g_vendi"]["g_vendi"]


def test_the_chains_of_the_recipe_are_those_that_the_example_writes(tmp_path, monkeypatch):
    output = tmp_path / "chains.jsonl"
    arguments = ["--chains", "--rows", "200", "--seed", "2026", "--output", str(output)]
    monkeypatch.setattr(sys, "argv", ["procedural_seeds.py", *arguments])
    runpy.run_path(str(EXAMPLES / "procedural_seeds.py"), run_name="__main__")
    assert output.read_bytes() == (EXAMPLES / "recipes/embedded_chains.jsonl").read_bytes()
