"""Students on a Hub on loopback, by the real clients: files, numbers, card; and what is refused before anything is sent."""

import json
import os
import shlex
import subprocess
import sys

import pytest
import yaml
from helpers import save_tiny_model
from hub_client import Client
from huggingface_hub import ModelCard
from localhub import serve

from hf_prism.cards import BEGIN, END
from hf_prism.student_card import card_keys, student_card


PRELUDE = """
import json
from hf_prism import access
from hf_prism.student_hub import check_can_push_student, push_student
access.FIRST_WAIT = 0.001
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    with serve(tmp_path_factory.mktemp("hub")) as running:
        yield running


@pytest.fixture(scope="module")
def client(hub, tmp_path_factory):
    with Client(hub, tmp_path_factory.mktemp("client") / "home", PRELUDE) as running:
        yield running


@pytest.fixture(scope="module")
def trained(hub, tmp_path_factory):
    """A recipe run from the command line: trained, scored, evaluated before and after, and pushed."""
    folder = tmp_path_factory.mktemp("trained")
    base = save_tiny_model(folder / "base")
    rows = [{"prompt": f"How many clips is {i}?", "completion": f"\\boxed{{{i}}}"} for i in range(12)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = [{"id": str(i), "prompt": f"How many clips is {i}?", "answer": str(i)} for i in range(5)]
    (folder / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    recipe = {
        "data": "rows.jsonl",
        "base": base,
        "output": str(folder / "run"),
        "training": {"max_steps": 4, "per_device_train_batch_size": 4, "learning_rate": 1e-3, "logging_steps": 1},
        "evaluation": {"benchmarks": ["asked.jsonl"], "max_tokens": 8, "base": True, "prompt": "{problem}"},
        "proxy": {"model": base, "dim": 64},
        "license": "mit",
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    command = [
        sys.executable,
        "-m",
        "hf_prism",
        "distill",
        str(folder / "recipe.yaml"),
        "--push-to",
        "user/student",
        "--json",
    ]
    environment = {**os.environ, **hub.environment(folder / "home"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, command, environment, done


def test_a_student_is_loaded_back_with_the_weights_that_were_trained(trained, client):
    client.run(
        f"""
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
        ours = AutoModelForCausalLM.from_pretrained({str(trained[0] / "run/model")!r})
        theirs = AutoModelForCausalLM.from_pretrained("user/student")
        for name, weight in ours.state_dict().items():
            assert torch.equal(weight, theirs.state_dict()[name]), name
        tokenizer = AutoTokenizer.from_pretrained("user/student")
        assert "<|im_start|>" in tokenizer.apply_chat_template([{{"role": "user", "content": "hi"}}], tokenize=False)
        """
    )


def test_the_numbers_on_the_card_are_those_of_the_results(trained, hub):
    folder = trained[0]
    result = json.loads((folder / "run/result.json").read_text())
    card = hub.files("user/student", kind="model")["README.md"].decode()
    for name in ("evaluation", "base_evaluation"):
        kept = json.loads((folder / "run" / name / "result.json").read_text())["benchmarks"]["asked"]
        assert result[name]["asked"] == kept
        shown = f"{100 * kept['accuracy']:.1f} ± {100 * kept['standard_error']:.1f}"
        assert shown in card
    assert f"{result['g_vendi']['g_vendi']:,.1f}" in card and result["g_vendi"]["n"] == 12
    assert f"| steps | {result['steps']:,} |" in card and result["rows_digest"] in card
    data = ModelCard(card).data
    assert data.license == "mit" and data.library_name == "transformers" and "hf_prism" in data.tags
    (told,) = data.eval_results
    assert (
        told.metric_value == pytest.approx(100 * result["evaluation"]["asked"]["accuracy"])
        and told.dataset_type == "asked"
    )
    assert data.base_model is None  # a folder of this machine would be a broken link


def test_nothing_that_is_pushed_names_a_folder_of_this_machine(trained, hub):
    for name, content in hub.files("user/student", kind="model").items():
        assert str(trained[0]).encode() not in content, name
    told = json.loads(hub.files("user/student", kind="model")["hf_prism.json"])
    assert told["kind"] == "student" and told["result"]["steps"] == 4


def test_one_commit_and_the_same_again_none(trained, hub):
    folder, command, environment, done = trained
    repository = hub.repository("user/student", kind="model")
    before = hub.head("user/student", kind="model")
    again = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder)
    assert again.returncode == 0 and hub.head("user/student", kind="model") == before, again.stderr[-2000:]
    assert [commit.title for commit in repository.commits.values()].count("Student trained by hf_prism") == 1
    told = [json.loads(run.stdout.splitlines()[-1]) for run in (done, again)]
    assert told[0] == told[1] and told[0]["commit"] == before


def test_the_text_of_the_user_survives_a_push(trained, hub, client):
    card = hub.files("user/student", kind="model")["README.md"].decode()
    mine = card.replace(BEGIN, f"My own words.\n\n{BEGIN}").replace("license: mit", "license: apache-2.0  # mine")
    hub.edit("user/student", kind="model", **{"README.md": mine.encode()})
    client.run(f"return push_student({str(trained[0] / 'run')!r}, 'user/student', license='mit')")
    after = hub.files("user/student", kind="model")["README.md"].decode()
    assert (
        "My own words." in after
        and "license: apache-2.0  # mine" in after
        and after.count(BEGIN) == after.count(END) == 1
    )


def test_what_a_model_repository_holds_already_is_not_overwritten(trained, hub, client):
    run = str(trained[0] / "run")
    hub.create("user/weights", kind="model")
    hub.edit("user/weights", kind="model", **{"model.safetensors": b"other"})
    assert "holds something else (model.safetensors" in client.error(f"push_student({run!r}, 'user/weights')")
    hub.create("user/other", kind="model")
    told = json.dumps({"kind": "student", "run": "another"}).encode()
    hub.edit("user/other", kind="model", **{"hf_prism.json": told})
    assert "the student of another run (another" in client.error(f"push_student({run!r}, 'user/other')")
    hub.edit("user/other", kind="model", **{"hf_prism.json": b'{"kind": "synthesis"}'})
    assert "it is no student" in client.error(f"push_student({run!r}, 'user/other')")
    assert "'student' does not say whose it is" in client.error("check_can_push_student('student')")
    assert "neither 'user'" in client.error("check_can_push_student('somebody/student')")
    assert "holds no finished training run" in client.error(f"push_student({str(trained[0])!r}, 'user/new')")


def test_an_evaluation_of_another_model_never_stands_on_the_card(trained):
    folder, command, environment, _ = trained
    held = json.loads((folder / "run/evaluation/result.json").read_text())
    output = folder / "plain"
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
    recipe = {key: value for key, value in recipe.items() if key not in ("evaluation", "proxy")}
    (folder / "plain.yaml").write_text(yaml.safe_dump({**recipe, "output": str(output)}))
    run = [*command[:4], str(folder / "plain.yaml")]
    assert subprocess.run(run, env=environment, cwd=folder, capture_output=True).returncode == 0
    (output / "evaluation").mkdir()
    (output / "evaluation/result.json").write_text(json.dumps({**held, "model": "embedded@277e45bdb9e3"}))
    done = subprocess.run(run, capture_output=True, text=True, env=environment, cwd=folder)
    assert done.returncode == 2 and "holds an evaluation of embedded@277e45bdb9e3, not of" in done.stderr


def test_a_push_that_is_refused_is_refused_before_the_training(trained, hub):
    folder, command, environment, _ = trained
    output = folder / "never"
    changed = [*command[:4], str(folder / "recipe.yaml"), "--output", str(output), "--push-to", "somebody/student"]
    done = subprocess.run(changed, capture_output=True, text=True, env=environment, cwd=folder)
    assert done.returncode == 2 and "neither 'user'" in done.stderr and not output.exists()


def test_two_processes_train_evaluate_and_push_as_one_does(trained, hub):
    folder, command, environment, _ = trained
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "hf_prism", "distill"]
    changes = [
        "--set",
        "training.per_device_train_batch_size=2",
        "--output",
        str(folder / "two"),
        "--push-to",
        "user/two",
    ]
    done = subprocess.run(
        [*launch, str(folder / "recipe.yaml"), *changes, "--json"],
        capture_output=True, text=True, env=environment, cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    (told,) = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    one = json.loads((folder / "run/result.json").read_text())
    assert told["train_loss"] == pytest.approx(one["train_loss"], rel=1e-4) and told["steps"] == one["steps"] == 4
    assert told["g_vendi"]["g_vendi"] == pytest.approx(one["g_vendi"]["g_vendi"], rel=1e-5)
    assert told["base_evaluation"] == one["base_evaluation"] and told["pushed_to"] == "user/two"
    assert "README.md" in hub.files("user/two", kind="model")


def facts(**changes):
    number = {
        "kind": "math", "source": "HuggingFaceH4/MATH-500", "prompt": "{problem} | `x`", "problems": 500, "samples": 4,
        "accuracy": 0.5, "standard_error": 0.02, "interval": [0.46, 0.54], "majority": {"accuracy": 0.6, "standard_error": 0.02},
        "invalid": 0.01, "truncated": 0.02, "undecided": 0.0,
    }  # fmt: skip
    return {
        "student": "sft", "name": "s", "base": "org/base", "base_name": "org/base@abc", "base_is_local": False,
        "data": "org/data", "data_revision": "f" * 40, "rows_digest": "d" * 16, "rows": 1000, "skipped": 2, "truncated": 0,
        "steps": 10, "tokens": 5000, "learned_tokens": 3000, "train_loss": 0.5, "seconds": 12.0, "recipe": "data: x\n```\n",
        "evaluation": {"math500": number},
        "evaluation_setting": {"samples": 4, "temperature": 0.6, "top_p": 0.95, "max_tokens": 32768, "seed": 0},
        **changes,
    }  # fmt: skip


def test_the_card_names_base_data_and_benchmarks_of_the_hub():
    keys = card_keys({"tags": ["mine"]}, facts(), "mit")
    assert keys["base_model"] == "org/base" and keys["datasets"] == ["org/data"] and keys["tags"][0] == "mine"
    assert keys["model-index"][0]["results"][0]["dataset"] == {"name": "MATH-500", "type": "HuggingFaceH4/MATH-500"}
    card = student_card("user/s", facts())
    assert "50.0 ± 2.0" in card and "46.0 to 54.0" in card and "60.0 ± 2.0" in card and "f" * 40 in card
    command = "hf-prism evaluate --model user/s --benchmarks math500 --samples 4 --temperature 0.6 --top-p 0.95"
    assert command in card and "````yaml" in card  # the recipe cannot end its block


def test_the_command_on_the_card_is_one_that_the_command_line_takes():
    from hf_prism.cli import _parser

    line = next(line for line in student_card("user/s", facts()).splitlines() if line.startswith("hf-prism evaluate"))
    options = _parser().parse_args(shlex.split(line)[1:])
    assert options.samples == 4 and options.max_tokens == 32768 and options.model == "user/s"


def test_what_others_say_of_their_models_stays_on_the_card():
    theirs = {"model-index": [{"name": "other", "results": [1]}, {"name": "s", "results": [2]}], "datasets": ["a/b"]}
    keys = card_keys(theirs, facts(), None)
    assert keys["model-index"][0] == {"name": "other", "results": [1]} and len(keys["model-index"]) == 2
    assert keys["datasets"] == ["a/b", "org/data"]
    without = {k: v for k, v in facts().items() if not k.startswith("evaluation")}
    assert card_keys(theirs, without, None)["model-index"] == theirs["model-index"]


def test_the_command_on_the_card_asks_as_it_was_asked_and_runs_nothing_else():
    number = facts()["evaluation"]["math500"]
    mine = {**number, "source": "a|b $(touch x)`y`.jsonl", "prompt": "{problem}"}
    setting = {**facts()["evaluation_setting"], "system_prompt": "Be brief; $HOME", "max_items": 10}
    card = student_card("user/s", facts(evaluation={"math500": mine}, evaluation_setting=setting, chat_template=False))
    parts = shlex.split(next(line for line in card.splitlines() if line.startswith("hf-prism evaluate")))
    told = dict(zip(parts, parts[1:], strict=False))
    assert told["--benchmarks"] == mine["source"] and told["--prompt"] == "{problem}" and "--no-chat-template" in parts
    assert told["--system-prompt"] == "Be brief; $HOME" and told["--max-samples"] == "10"
    assert "MATH-500" not in card  # a file that is only called like it


def test_a_student_without_evaluation_has_a_card_that_says_so():
    card = student_card("user/s", {k: v for k, v in facts().items() if not k.startswith("evaluation")})
    assert "Not evaluated yet." in card and "hf-prism evaluate" not in card
