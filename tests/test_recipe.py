"""Recipes: every key is known, every recipe of the examples can be priced, and wrong ones are named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from scripted import seeds

from hf_prism.cli import main
from hf_prism.recipe import Recipe
from hf_prism.rows import load_rows
from hf_prism.settings import parse_changes
from hf_prism.synthesis import read_seeds
from hf_prism.tasks.math import MathTask


RECIPES = Path(__file__).parent.parent / "examples" / "recipes"
EMBEDDED = RECIPES / "embedded.yaml"


@pytest.fixture
def math_seeds(tmp_path):
    path = tmp_path / "seeds.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in seeds()))
    return path


@pytest.fixture
def nli_seeds(tmp_path):
    path = tmp_path / "pairs.jsonl"
    pairs = [{"premise": f"It rains {i}.", "hypothesis": "It is wet.", "label": "neutral"} for i in range(8)]
    path.write_text("".join(json.dumps(row) + "\n" for row in pairs))
    return path


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(RECIPES.glob("*.yaml")) if "seeds:" in path.read_text()],  # the others train students
    ids=lambda path: path.stem,
)
def test_every_recipe_is_read_and_priced(path, math_seeds, nli_seeds, capsys):
    own = path.stem == "embedded"
    data = nli_seeds if path.stem == "prismnli" else math_seeds
    change = [] if own else ["--set", f"seeds={data}", "--set", "split=null", "--set", "max_seeds=null"]
    change += ["--set", "columns=null"] if path.stem == "local_server" else []
    assert main(["synthesize", str(path), "--dry-run", "--json", *change]) == 0
    price = json.loads(capsys.readouterr().out.splitlines()[-1])
    recipe = Recipe.load(path)
    assert price["generator_requests"] == recipe.content["requests"]
    assert price["solver_requests"] == (0 if own else recipe.content["requests"] * 2 * recipe.content["solutions"])
    assert price["seeds"] == (100 if own else len(load_rows(data)))
    assert price["rounds"] > 0 and price["most_tokens"] > price["completion_tokens"]


def test_the_price_counts_what_the_first_round_really_sends(tmp_path, math_seeds, capsys):
    """Against a run: requests exactly, the tokens read within a quarter of the characters counted."""
    command = ["synthesize", str(EMBEDDED), "--set", f"seeds={math_seeds}", "--set", "requests=10", "--set", "shots=3"]
    command += ["--set", "limits.rounds=1", "--set", "target_size=500", "--output", str(tmp_path / "run")]
    assert main([*command, "--dry-run", "--json"]) == 0
    price = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert not (tmp_path / "run").exists()
    assert main([*command, "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["rounds"][1]["requests"] == price["generator_requests"] == 10
    lines = [json.loads(line) for line in (tmp_path / "run/requests.jsonl").read_text().splitlines()]
    characters = sum(len(message["content"]) for line in lines for message in line["messages"])
    assert price["prompt_tokens"] == pytest.approx(characters / 4, rel=0.25)


def test_a_seeds_file_is_found_beside_the_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(Recipe.load(EMBEDDED).seeds()) == 100


def test_the_recipe_for_gsm8k_reads_it_as_it_is_on_the_hub(tmp_path):
    """Its columns are question and answer, and the answer is the whole solution."""
    path = tmp_path / "gsm8k.jsonl"
    row = {"question": "1 + 1?", "answer": "1 + 1 = <<1+1=2>>2\n#### 2"}
    path.write_text((json.dumps(row) + "\n") * 5)
    recipe = Recipe.load(RECIPES / "local_server.yaml", {"seeds": str(path)})
    (first, *_) = read_seeds(recipe.seeds(), MathTask())
    assert (first["prompt"], first["completion"], first["answer"]) == (row["question"], row["answer"], "2")
    with pytest.raises(ValueError, match="'question' for 'prompt'.*columns found: id, prompt"):
        Recipe.load(RECIPES / "local_server.yaml", {"seeds": str(RECIPES / "embedded_seeds.jsonl")}).seeds()


def test_values_of_the_command_line_take_the_place_of_those_in_the_file():
    changes = parse_changes(["generator.skew=2", "strategy=naive", "limits.hours=1.5", "task.min_votes=2"])
    recipe = Recipe.load(EMBEDDED, changes)
    assert recipe.section("generator")["skew"] == 2 and recipe.content["strategy"] == "naive"
    assert recipe.limits() == {"max_rounds": 20, "max_seconds": 5400.0}
    assert recipe.content["task"] == {"name": "math", "min_votes": 2}
    assert yaml.safe_load(recipe.public_text()) == {k: v for k, v in recipe.content.items() if k != "output"}


def test_what_is_published_of_a_recipe_names_no_folder_and_no_server_of_this_machine(math_seeds):
    changes = {"seeds": str(math_seeds), "output": "/home/me/runs", "benchmarks": [str(math_seeds)], "proxy.model": str(math_seeds.parent)}  # fmt: skip
    server = {
        "backend": "server",
        "model": "/models/writer",
        "base_url": "http://10.0.0.7:8000/v1",
        "api_key_env": "MINE",
    }
    text = Recipe.load(EMBEDDED, {**changes, "generator": server, "solver": server}).public_text()
    assert not [word for word in ("/home", "10.0.0.7", "MINE", str(math_seeds.parent), "/models") if word in text]
    assert "seeds.jsonl" in text and "writer" in text


def test_a_synthesizer_has_what_the_recipe_says():
    changes = {"sparse_ratio": 0.25, "shots": 4, "generator.temperature": 0.5, "proxy.dim": 256}
    made = Recipe.load(EMBEDDED, changes).synthesizer()
    assert (made.sparse_ratio, made.shots, made.generation.temperature, made.featurizer.dim) == (0.25, 4, 0.5, 256)
    assert made.generation.top_p == 0.95 and made.solver is None


BAD = {
    "an unknown key": ({"strateggy": "naive"}, "unknown key 'strateggy' (did you mean 'strategy'?)"),
    "an unknown key of the generator": ({"generator.skw": 1}, "unknown key 'skw' (did you mean 'skew'?)"),
    "an unknown key of the proxy": ({"proxy.modle": "x"}, "unknown key 'modle' (did you mean 'model'?)"),
    "an unknown limit": ({"limits.hour": 1}, "unknown key 'hour' (did you mean 'hours'?)"),
    "an unknown key of the task": ({"task": {"name": "math", "votes": 2}}, "unknown key 'votes'"),
    "an unknown task": ({"task": "maths"}, "unknown task 'maths' (did you mean 'math'?)"),
    "an unknown backend": ({"generator.backend": "servers"}, "unknown backend 'servers' (did you mean 'server'?)"),
    "an unknown strategy": ({"strategy": "prismatik"}, "did you mean 'prismatic'"),
    "no seeds": ({"seeds": None}, "the key 'seeds' is missing"),
    "no target": ({"target_size": None}, "the key 'target_size' is missing"),
    "a target in words": ({"target_size": "1e6"}, "YAML reads 1e9 as text"),
    "no solver": ({"generator": {"backend": "server", "model": "m"}}, "the key 'solver' is missing"),
    "no model": ({"solver": {"backend": "server"}}, "the key 'model' is missing"),
    "a temperature below zero": ({"generator.temperature": -1}, "temperature is -1"),
    "a share above one": ({"generator.top_p": 2}, "top_p is 2"),
    "half a round": ({"limits.rounds": 1.5}, "rounds must be a whole number"),
    "a share of votes in words": (
        {"task": {"name": "math", "min_agreement": "most"}},
        "min_agreement must be a number",
    ),
    "more votes than a simulation casts": (
        {"task": {"name": "math", "min_votes": 2}},
        "min_votes = 2 is more than the 1",
    ),
    "a limit of zero": ({"limits.rounds": 0}, "rounds must be above 0"),
    "a section that is none": ({"proxy": "embedded"}, "proxy must be keys and values"),
    "seeds that are not there": ({"seeds": "no-such-file.jsonl"}, "no-such-file.jsonl"),
    "fewer seeds than shots": ({"shots": 101}, "100 seeds are fewer than the 101"),
    "a target below the seeds": ({"target_size": 50}, "target_size = 50 is below the 100 seeds"),
    "a privately pushed nothing": ({"private": True}, "private"),
}


@pytest.mark.parametrize(("changes", "message"), BAD.values(), ids=BAD)
def test_a_wrong_recipe_is_named_before_anything_begins(tmp_path, capsys, changes, message):
    content = yaml.safe_load(EMBEDDED.read_text())
    for key, value in changes.items():
        section, _, name = key.rpartition(".")
        (content[section] if section else content)[name] = value
    content["output"] = str(tmp_path / "run")
    if content.get("seeds") == "embedded_seeds.jsonl":
        content["seeds"] = str(RECIPES / "embedded_seeds.jsonl")
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    assert main(["synthesize", str(path)]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


FILES = {
    "no file": (None, "does not exist"),
    "no YAML": ("a: [1", "is no YAML"),
    "a list": ("- a", "must be keys and values, got list"),
    "nothing": ("", "must be keys and values, got NoneType"),
}


@pytest.mark.parametrize(("text", "message"), FILES.values(), ids=FILES)
def test_a_file_that_is_no_recipe_is_named(tmp_path, text, message):
    path = tmp_path / "recipe.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=message):
        Recipe.load(path)


def test_a_change_without_a_value_is_named(capsys):
    assert main(["synthesize", str(EMBEDDED), "--set", "strategy"]) == 2
    assert "must be KEY=VALUE" in capsys.readouterr().err


def test_the_seeds_of_the_embedded_recipe_are_those_of_their_script(tmp_path):
    import subprocess
    import sys

    script = RECIPES.parent / "procedural_seeds.py"
    subprocess.run([sys.executable, script, "--output", tmp_path / "seeds.jsonl"], check=True)
    assert (tmp_path / "seeds.jsonl").read_bytes() == (RECIPES / "embedded_seeds.jsonl").read_bytes()


def test_a_missing_library_is_named_with_its_command_and_no_traceback(tmp_path, monkeypatch, capsys):
    import sys

    monkeypatch.setitem(sys.modules, "datasketch", None)
    assert main(["synthesize", str(EMBEDDED), "--output", str(tmp_path / "run")]) == 1
    assert "pip install 'hf-prism[synthesis]'" in capsys.readouterr().err
