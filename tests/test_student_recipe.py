"""Recipes of students: what they mean, and that everything wrong with them is said before anything begins."""

from pathlib import Path

import pytest
import yaml
from helpers import save_tiny_model

from hf_prism.classification import train_classifier
from hf_prism.cli import main
from hf_prism.distillation import distill
from hf_prism.generation import Sampling
from hf_prism.settings import keywords_of, parse_changes
from hf_prism.student_recipe import MADE_HERE, StudentRecipe


RECIPES = Path(__file__).parents[1] / "examples" / "recipes"
STUDENTS = ("sft_embedded", "sft_small", "sft_prismmath_7b", "nli_deberta")
MINIMAL = {"data": "rows.jsonl", "base": "embedded", "output": "run"}


def write(path, **content):
    path.write_text(yaml.safe_dump({key: value for key, value in {**MINIMAL, **content}.items() if value is not None}))
    return path


@pytest.mark.parametrize("name", STUDENTS)
def test_every_recipe_that_ships_is_read_and_fits_the_function_it_is_for(name):
    recipe = StudentRecipe.load(RECIPES / f"{name}.yaml")
    function = train_classifier if recipe.content["student"] == "classification" else distill
    assert recipe.train is function
    assert set(recipe.arguments()) <= set(keywords_of(function)) - set(MADE_HERE)
    if recipe.evaluation:
        assert recipe.evaluation_arguments()["benchmarks"]
    assert yaml.safe_load(recipe.public_text())["base"]


@pytest.mark.parametrize("name", STUDENTS)
def test_the_training_section_of_every_recipe_is_taken_by_the_trainer(name):
    from transformers import TrainingArguments
    from trl import SFTConfig

    from hf_prism import classification, distillation
    from hf_prism.kinds import check_keywords

    recipe = StudentRecipe.load(RECIPES / f"{name}.yaml")
    made, owned = (
        (TrainingArguments, classification.OWNED)
        if recipe.content["student"] == "classification"
        else (SFTConfig, distillation.OWNED)
    )
    given = check_keywords(recipe.content["training"], made, owned)
    given = {key: value for key, value in given.items() if key != "use_liger_kernel"}  # which is not installed here
    assert made(output_dir="none", use_cpu=True, bf16=False, **given).learning_rate == given["learning_rate"]


def test_changes_reach_the_innermost_key(tmp_path):
    changes = parse_changes(["training.learning_rate=1.0e-5", "evaluation.benchmarks=[gsm8k]", "lora.r=8"])
    recipe = StudentRecipe.load(write(tmp_path / "r.yaml", training={"seed": 1}), changes)
    assert recipe.arguments()["training"] == {"seed": 1, "learning_rate": 1e-5} and recipe.content["lora"] == {"r": 8}


def test_the_evaluation_is_what_the_recipe_says(tmp_path):
    (tmp_path / "mine.jsonl").write_text("")
    section = {"benchmarks": ["gsm8k@main", "mine.jsonl", "math500=mine.jsonl"], "samples": 4, "temperature": 0.6}
    told = StudentRecipe.load(write(tmp_path / "r.yaml", evaluation=section)).evaluation_arguments()
    beside = str(tmp_path / "mine.jsonl")
    assert told["benchmarks"] == ["gsm8k@main", beside, f"math500={beside}"]
    assert told["samples"] == 4 and told["sampling"] == Sampling(0.6, 1.0, 4096)


def test_what_is_published_names_no_folder(tmp_path):
    data = tmp_path / "rows.jsonl"
    data.write_text('{"prompt": "1 + 1?", "completion": "2"}\n')
    section = {"benchmarks": [f"math500={data}", str(data)]}
    recipe = StudentRecipe.load(
        write(tmp_path / "r.yaml", data=str(data), output=str(tmp_path / "o"), evaluation=section)
    )
    assert str(tmp_path) not in recipe.public_text() and "math500=rows.jsonl" in recipe.public_text()


def test_a_prompt_is_no_path_and_stays_as_it_is(tmp_path):
    section = {"benchmarks": ["gsm8k"], "prompt": "~x /no_think {problem}/ok", "system_prompt": "Think. " * 100}
    recipe = StudentRecipe.load(write(tmp_path / "r.yaml", evaluation=section, chat_template="/secret/t.jinja"))
    told = yaml.safe_load(recipe.public_text())
    assert told["evaluation"] == section and told["chat_template"] == "t.jinja"
    assert recipe.evaluation == section  # and the recipe itself is as it was


def test_the_seed_of_the_recipe_is_that_of_the_training_unless_it_has_its_own(tmp_path):
    for given, seed in (({}, 7), ({"seed": 3}, 3)):
        recipe = StudentRecipe.load(write(tmp_path / "r.yaml", seed=7, training=given))
        assert recipe.arguments()["training"]["seed"] == seed


def test_the_digest_of_the_rows_is_that_of_their_cells(tmp_path):
    rows = tmp_path / "rows.jsonl"
    digests = []
    for text in ("2", "3", "2"):
        rows.write_text(f'{{"prompt": "1 + 1?", "completion": "{text}"}}\n')
        digests.append(StudentRecipe.load(write(tmp_path / "r.yaml")).rows()[1]["rows_digest"])
    assert digests[0] == digests[2] != digests[1]


BAD = {
    "no data": ({"data": None}, "the key 'data' is missing"),
    "no output": ({"output": None}, "the key 'output' is missing"),
    "an unknown key": ({"max_lenght": 512}, "unknown key 'max_lenght' (did you mean 'max_length'?)"),
    "an unknown student": ({"student": "dpo"}, "unknown student 'dpo'"),
    "a key of the other kind": ({"student": "classification", "packing": True}, "unknown key 'packing'"),
    "training that is no section": ({"training": 3}, "training must be keys and values"),
    "an unknown key of evaluation": (
        {"evaluation": {"benchmarks": ["gsm8k"], "sample": 3}},
        "did you mean 'samples'?",
    ),
    "no benchmarks": ({"evaluation": {"benchmarks": []}}, "benchmarks is empty"),
    "benchmarks that are no list": ({"evaluation": {"benchmarks": "gsm8k"}}, "must be a list"),
    "an unknown key of the proxy": ({"proxy": {"modle": "x"}}, "did you mean 'model'?"),
    "private without push_to": ({"private": True}, "private is about push_to"),
    "samples that are text": ({"evaluation": {"benchmarks": ["gsm8k"], "samples": "4"}}, "samples must be a number"),
    "a temperature that is text": (
        {"evaluation": {"benchmarks": ["gsm8k"], "temperature": "hot"}},
        "temperature must be",
    ),
    "a prompt that is a number": ({"evaluation": {"benchmarks": ["gsm8k"], "prompt": 5}}, "prompt must be text"),
    "a base asked in another way": (
        {"evaluation": {"benchmarks": ["gsm8k"], "base": True}, "chat_template": "{{ messages }}"},
        "would ask the base with its own template",
    ),
    "an output that is a number": ({"output": 5}, "output must be text"),
    "a student that is a list": ({"student": ["sft"]}, "unknown student ['sft']"),
    "rows that are no number": ({"max_samples": "all"}, "max_samples must be a number"),
}


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=BAD)
def test_a_bad_recipe_is_an_error_that_names_key_and_file(tmp_path, change, message):
    path = write(tmp_path / "r.yaml", **change)
    with pytest.raises(ValueError) as error:
        StudentRecipe.load(path)
    assert message in str(error.value) and ("r.yaml" in str(error.value) or "the recipe's" in str(error.value))


# ---- from the command line, up to the first step ---------------------------------------------------------------------

ROW = '{"prompt": "1 + 1?", "completion": "2"}\n'
RUNS = {
    "rows without completions": (
        {"data": '{"prompt": "1 + 1?", "answer": "2"}\n'},
        "neither prompt + completion, nor messages, nor text; columns found: prompt, answer",
    ),
    "a row over the limit": ({"max_length": 8}, "row 0: "),
    "a benchmark that is none": ({"evaluation": {"benchmarks": ["math50"]}}, "there is no benchmark 'math50'"),
    "several greedy samples": (
        {"evaluation": {"benchmarks": ["sums.jsonl"], "samples": 4}},
        "4 samples at temperature 0",
    ),
    "problems for an encoder": (
        {"student": "classification", "evaluation": {"benchmarks": ["sums.jsonl"]}},
        "an encoder labels pairs; the benchmark sums has problems",
    ),
    "a proxy that is none": ({"proxy": {"model": "./nothing"}}, "nothing is no folder"),
    "a benchmark without a column": ({"evaluation": {"benchmarks": ["rows.jsonl"]}}, "has no column 'answer'"),
    "an unknown keyword of the trainer": ({"training": {"learning_rte": 1}}, "did you mean 'learning_rate'?"),
    "a keyword that is ours": ({"training": {"output_dir": "x"}}, "output_dir is not set here"),
    "a base that is none": ({"base": "./nothing"}, "nothing is no folder"),
    "columns that are not there": ({"columns": {"prompt": "question"}}, "a column that"),
    "a base without template": ({"base": "PLAIN"}, "chat_template"),
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    from helpers import tiny_tokenizer

    return save_tiny_model(tmp_path_factory.mktemp("plain"), tokenizer=tiny_tokenizer(chat_template=None))


@pytest.mark.parametrize(("change", "message"), RUNS.values(), ids=RUNS)
def test_what_cannot_be_trained_is_said_before_the_first_step(tmp_path, monkeypatch, capsys, plain, change, message):
    monkeypatch.chdir(tmp_path)
    change = dict(change)
    Path("rows.jsonl").write_text(change.pop("data", ROW))
    Path("sums.jsonl").write_text('{"prompt": "1 + 1?", "answer": "2"}\n')
    if change.get("base") == "PLAIN":
        change["base"] = plain
    status = main(["distill", str(write(tmp_path / "r.yaml", **change))])
    said = capsys.readouterr().err
    assert status == 2 and message in said, said
    assert not list(Path("run").glob("checkpoints/*")) and not Path("run/model").exists()
