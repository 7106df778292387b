"""Evaluations: what is asked is what is logged, what is logged decides the numbers, and nothing is asked twice."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from helpers import save_tiny_model, tiny_tokenizer

from hf_prism.accuracy import accuracy, difference
from hf_prism.cli import main
from hf_prism.evaluation import evaluate, read_evaluation
from hf_prism.generation import Request, Response, Sampling
from hf_prism.local import TransformersGenerator
from hf_prism.model_comparison import compare_models
from hf_prism.rows import load_rows
from hf_prism.tasks.procedural import generate


SAMPLED = Sampling(temperature=0.6, top_p=0.95, max_tokens=64)


class Student:
    """Knows each problem with a probability of its own, and tells by its seed whether it knows it this time."""

    def __init__(self, name="student", skill=0.5):
        self.name, self.skill, self.asked = name, skill, []

    def check(self):
        pass

    def close(self):
        pass

    def rendered(self, request):
        return f"<user>{request.messages[-1]['content']}<assistant>"

    def generate(self, requests):
        for position, request in enumerate(requests):
            self.asked.append(request)
            number = int(request.messages[-1]["content"].split()[0])
            knows = np.random.default_rng([request.seed % 2**32, number]).random() < self.skill
            yield position, Response(rf"It is \boxed{{{number + (not knows)}}}.", "stop", 5, 7)


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def problems(tmp_path):
    return write(
        tmp_path / "numbers.jsonl", [{"id": f"n{i}", "prompt": f"{i} is what?", "answer": str(i)} for i in range(40)]
    )


def verdicts(directory, name="numbers"):
    rows = load_rows(str(Path(directory) / "verdicts" / f"{name}.parquet"))
    return [dict(row) for row in rows]


def test_the_numbers_follow_from_the_verdicts_that_are_kept(tmp_path, problems):
    student = Student()
    done = evaluate(student, [problems], tmp_path / "run", samples=8, sampling=SAMPLED, prompt="{problem}")
    rows = verdicts(tmp_path / "run")
    assert len(rows) == len(student.asked) == 320 and Counter(row["id"] for row in rows) == {
        f"n{i}": 8 for i in range(40)
    }
    by_hand = [row["response"] == rf"It is \boxed{{{row['gold']}}}." for row in rows]
    assert [row["verdict"] == "right" for row in rows] == by_hand
    expected = accuracy(np.array(by_hand, float).reshape(40, 8))
    told = done.benchmarks["numbers"]
    assert (told["accuracy"], told["standard_error"]) == (expected.accuracy, expected.standard_error)
    assert told["completion_tokens"] == 7 and told["majority"]["accuracy"] > 0
    assert rows[0]["rendered"] == "<user>0 is what?<assistant>" and rows[0]["prompt"] == "0 is what?"
    assert json.loads((tmp_path / "run/result.json").read_text()) == json.loads(json.dumps(done.as_dict()))
    assert read_evaluation(tmp_path / "run").benchmarks == json.loads(json.dumps(done.benchmarks))


def test_every_sample_has_a_seed_of_its_own_that_depends_on_nothing_else(tmp_path, problems):
    one, other = Student(), Student()
    evaluate(one, [problems], tmp_path / "a", samples=4, sampling=SAMPLED)
    evaluate(other, [problems], tmp_path / "b", samples=4, sampling=SAMPLED, max_items=10)
    seeds = {(request.messages[0]["content"], request.seed) for request in one.asked}
    assert len({seed for _, seed in seeds}) == 160
    assert {(request.messages[0]["content"], request.seed) for request in other.asked} < seeds


def test_the_same_again_asks_nothing_and_gives_the_same(tmp_path, problems):
    done = evaluate(Student(), [problems], tmp_path / "run")
    silent = Student()
    again = evaluate(silent, [problems], tmp_path / "run")
    assert not silent.asked and again.benchmarks == done.benchmarks


class Dying(Student):
    def generate(self, requests):
        for position, response in super().generate(requests):
            if len(self.asked) == 17:
                os.kill(os.getpid(), signal.SIGKILL)
            yield position, response


def test_a_killed_run_goes_on_and_ends_the_same(tmp_path, problems):
    if not (child := os.fork()):
        evaluate(Dying(), [problems], tmp_path / "run", samples=2, sampling=SAMPLED)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert not (tmp_path / "run/result.json").exists()
    student = Student()
    resumed = evaluate(student, [problems], tmp_path / "run", samples=2, sampling=SAMPLED)
    whole = evaluate(Student(), [problems], tmp_path / "whole", samples=2, sampling=SAMPLED)
    assert len(student.asked) == 80 - 16 and resumed.benchmarks == whole.benchmarks
    assert verdicts(tmp_path / "run") == verdicts(tmp_path / "whole")


def test_another_configuration_is_refused_with_what_differs(tmp_path, problems):
    evaluate(Student(), [problems], tmp_path / "run", samples=2, sampling=SAMPLED)
    with pytest.raises(ValueError, match=r"setting.temperature: 0.6 there, 0.7 now"):
        evaluate(Student(), [problems], tmp_path / "run", samples=2, sampling=Sampling(0.7, 0.95, 64))
    with pytest.raises(ValueError, match=r"model: .student. there, .other. now|model: \"student\" there"):
        evaluate(Student("other"), [problems], tmp_path / "run", samples=2, sampling=SAMPLED)
    Path(problems).write_text(Path(problems).read_text().replace('"answer": "3"', '"answer": "4"'))
    with pytest.raises(ValueError, match="items_digest"):
        evaluate(Student(), [problems], tmp_path / "run", samples=2, sampling=SAMPLED)


def test_a_system_prompt_and_another_prompt_are_what_the_student_reads(tmp_path, problems):
    student = Student()
    evaluate(student, [problems], tmp_path / "run", prompt="{problem} Say.", system_prompt="Be brief.")
    assert student.asked[3].messages == (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "3 is what? Say."},
    )


BAD = {
    "several greedy samples": ({"samples": 4}, "4 samples at temperature 0 are all alike"),
    "no samples": ({"samples": 0}, "samples must be a whole number of at least 1"),
    "no benchmark": ({"benchmarks": []}, "no benchmark is named"),
    "an unknown one": ({"benchmarks": ["math"]}, "there is no benchmark 'math'"),
    "a prompt for something else": ({"prompt": "{premise}"}, "asks for 'premise'"),
}


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_named_before_anything_is_asked(tmp_path, problems, change, message):
    student = Student()
    with pytest.raises(ValueError) as error:
        evaluate(student, change.pop("benchmarks", [problems]), tmp_path / "run", **change)
    assert message in str(error.value) and not student.asked and not (tmp_path / "run").exists()


# ---- comparing -------------------------------------------------------------------------------------------------------


def test_students_are_compared_item_by_item(tmp_path, problems):
    for name, skill in {"base": 0.3, "better": 0.8, "same": 0.3}.items():
        evaluate(Student(name, skill), [problems], tmp_path / name, samples=4, sampling=SAMPLED)
    found = compare_models({name: tmp_path / name for name in ("base", "better", "same")})
    matrix = {
        name: np.array([row["verdict"] == "right" for row in verdicts(tmp_path / name)], float).reshape(40, 4)
        for name in found.models
    }
    for name in ("better", "same"):
        assert found.differences[name]["numbers"] == difference(matrix[name], matrix["base"]).as_dict()
    assert found.differences["better"]["numbers"]["interval"][0] > 0.2
    low, high = found.differences["same"]["numbers"]["interval"]
    assert low < 0 < high


def test_students_on_other_items_or_prompts_do_not_compare(tmp_path, problems):
    evaluate(Student("a"), [problems], tmp_path / "a")
    evaluate(Student("b"), [problems], tmp_path / "b", prompt="{problem}")
    with pytest.raises(ValueError, match="a and b do not compare on numbers: their prompt differ"):
        compare_models({"a": tmp_path / "a", "b": tmp_path / "b"})
    evaluate(Student("c"), [problems], tmp_path / "c", max_items=10)
    with pytest.raises(ValueError, match="their items_digest differ"):
        compare_models({"a": tmp_path / "a", "c": tmp_path / "c"})
    with pytest.raises(ValueError, match="holds no finished evaluation"):
        compare_models({"a": tmp_path / "a", "d": tmp_path / "d"})
    with pytest.raises(ValueError, match="two evaluations or more"):
        compare_models({"a": tmp_path / "a"})


def test_students_of_other_system_prompts_or_gradings_do_not_compare(tmp_path, problems):
    evaluate(Student("a"), [problems], tmp_path / "a")
    evaluate(Student("b"), [problems], tmp_path / "b", system_prompt="Be right.")
    with pytest.raises(ValueError, match="their system prompts differ, None and 'Be right.'"):
        compare_models({"a": tmp_path / "a", "b": tmp_path / "b"})
    evaluate(Student("c"), [problems], tmp_path / "c")
    result = json.loads((tmp_path / "c/result.json").read_text())
    result["versions"]["grading"] = "0"
    (tmp_path / "c/result.json").write_text(json.dumps(result))
    with pytest.raises(ValueError, match="their versions of the grading differ"):
        compare_models({"a": tmp_path / "a", "c": tmp_path / "c"})
    (tmp_path / "c/result.json").write_text('{"kind": "evaluation", "modle": 1}')
    with pytest.raises(ValueError, match="result.json is damaged"):
        read_evaluation(tmp_path / "c")


def test_how_a_model_answers_is_part_of_its_name(tmp_path):
    folder = tmp_path / "model"
    save_tiny_model(folder)
    names = [TransformersGenerator(str(folder)).name]
    config = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps({**config, "repetition_penalty": 5.0}))
    names += [TransformersGenerator(str(folder)).name, TransformersGenerator(str(folder), dtype="bfloat16").name]
    names += [TransformersGenerator(str(folder), chat_template=False).name]
    assert len(set(names)) == 4


def test_the_command_compares_and_draws(tmp_path, problems, capsys):
    for name, skill in {"base": 0.3, "better": 0.8}.items():
        evaluate(Student(name, skill), [problems], tmp_path / name)
    status = main(
        [
            "compare-models",
            str(tmp_path / "base"),
            f"new={tmp_path / 'better'}",
            "--output",
            str(tmp_path / "out"),
            "--json",
        ]
    )
    said = capsys.readouterr()
    told = json.loads(said.out.splitlines()[-1])
    assert status == 0 and list(told["models"]) == ["base", "new"] and "new less base" in said.err
    assert json.loads((tmp_path / "out/compare-models.json").read_text()) == told
    assert (tmp_path / "out/compare-models.png").read_bytes().startswith(b"\x89PNG")


# ---- real models -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    """The embedded model's evaluation from the command line, greedy, on forty problems."""
    folder = tmp_path_factory.mktemp("embedded")
    rows = generate(40, families=["story", "units", "ordering", "sequence"], seed=11)
    data = write(folder / "problems.jsonl", [{name: row[name] for name in ("id", "prompt", "answer")} for row in rows])
    command = ["evaluate", "--model", "embedded", "--benchmarks", data, "--prompt", "{problem}", "--max-tokens", "100"]
    assert main([*command, "--output", str(folder / "run")]) == 0
    return folder, command


def test_the_prompt_that_is_kept_is_the_one_that_the_model_reads(embedded):
    rows = verdicts(embedded[0] / "run", "problems")
    text = rows[0]["prompt"]
    assert rows[0]["rendered"] == f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"
    assert sum(row["verdict"] == "right" for row in rows) > 20


def test_two_processes_give_the_answers_of_one(embedded, tmp_path):
    folder, command = embedded
    run = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "hf_prism", *command]
    done = subprocess.run(
        [*run, "--output", str(tmp_path / "run"), "--json"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert verdicts(tmp_path / "run", "problems") == verdicts(folder / "run", "problems")
    said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert (
        len(said) == 1 and said[0]["benchmarks"] == json.loads((folder / "run/result.json").read_text())["benchmarks"]
    )
    assert not list((tmp_path / "run").glob("requests-*"))


INDEPENDENT = """
task: plain_problems
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_text: '{{{{prompt}}}}'
doc_to_target: '{{{{gold}}}}'
generation_kwargs: {{until: [], do_sample: false, max_gen_toks: 100}}
filter_list:
- name: boxed
  filter: [{{function: regex, regex_pattern: '\\\\boxed\\{{([^{{}}]*)\\}}', group_select: -1}}, {{function: take_first}}]
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
"""


def test_lm_eval_gives_the_same_verdicts(embedded, tmp_path):
    """lm-eval renders, generates and judges on its own (its regular expression, its exact match), and with our task file."""
    pytest.importorskip("lm_eval")
    from hf_prism.checkpoint import local_folder

    folder, command = embedded
    tasks = tmp_path / "tasks"
    assert main([*command, "--output", str(tmp_path / "none"), "--lm-eval", str(tasks)]) == 0
    assert not (tmp_path / "none").exists()
    (tasks / "plain.yaml").write_text(INDEPENDENT.format(data=tasks / "prism_problems.jsonl"))
    model = f"pretrained={local_folder('embedded')},dtype=float32"
    run = [sys.executable, "-m", "lm_eval", "--model", "hf", "--model_args", model, "--include_path", str(tasks)]
    run += [
        "--tasks",
        "prism_problems,plain_problems",
        "--device",
        "cpu",
        "--batch_size",
        "20",
        "--apply_chat_template",
    ]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*run, "--log_samples", "--output_path", str(tmp_path / "out")],
        capture_output=True, text=True, env={**os.environ, **offline}, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    ours = {row["id"]: row for row in verdicts(folder / "run", "problems")}
    for task, metric in {"prism_problems": "accuracy", "plain_problems": "exact_match"}.items():
        (file,) = (tmp_path / "out").rglob(f"samples_{task}_*.jsonl")
        theirs = {each["doc"]["id"]: each for each in map(json.loads, file.open())}
        assert theirs.keys() == ours.keys()
        same = [(theirs[name][metric] == 1.0) == (ours[name]["verdict"] == "right") for name in ours]
        assert np.mean(same) >= 0.99
        prompts = [theirs[name]["arguments"]["gen_args_0"]["arg_0"] == ours[name]["rendered"] for name in ours]
        assert all(prompts)


def test_a_model_without_chat_template_is_refused_or_reads_plain_text(tmp_path):
    model = save_tiny_model(tmp_path / "plain", tokenizer=tiny_tokenizer(chat_template=None, bos="<s>", add_bos=True))
    data = write(tmp_path / "numbers.jsonl", [{"prompt": "48 clips?", "answer": "48"}])
    arguments = [
        "evaluate",
        "--model",
        model,
        "--benchmarks",
        data,
        "--max-tokens",
        "4",
        "--prompt",
        "{problem} Answer:",
    ]
    assert main([*arguments, "--output", str(tmp_path / "run")]) == 2
    assert main([*arguments, "--output", str(tmp_path / "text"), "--no-chat-template"]) == 0
    assert verdicts(tmp_path / "text")[0]["rendered"] == "48 clips? Answer:"
    student = TransformersGenerator(model, chat_template=False)
    prompt = student._encode(0, Request(({"role": "user", "content": "48 clips? Answer:"},), SAMPLED, 0))
    tokenizer = student._proxy.tokenizer
    assert prompt.ids == tokenizer("48 clips? Answer:")["input_ids"] and prompt.ids[0] == tokenizer.bos_token_id


OPTIONS = {
    "an unknown benchmark": (["--benchmarks", "mathh500"], "did you mean 'math500'?"),
    "no benchmark": (["--benchmarks", ","], "--benchmarks names none"),
    "a URL without a server": (
        ["--benchmarks", "math500", "--base-url", "http://x/v1"],
        "--base-url cannot apply to --backend transformers",
    ),
    "a server's option": (["--benchmarks", "math500", "--concurrency", "8"], "--concurrency cannot apply"),
    "an option that a server has not": (
        ["--benchmarks", "math500", "--backend", "server", "--base-url", "http://x/v1", "--dtype", "bfloat16"],
        "--dtype cannot apply to --backend server",
    ),
    "samples for lm-eval": (["--benchmarks", "gsm8k", "--lm-eval", "x", "--samples", "4"], "--samples cannot apply"),
    "a temperature below zero": (["--benchmarks", "math500", "--temperature", "-1"], "temperature is -1.0"),
}


@pytest.mark.parametrize(("arguments", "message"), OPTIONS.values(), ids=OPTIONS)
def test_the_command_names_what_is_wrong(tmp_path, capsys, arguments, message):
    status = main(["evaluate", "--model", "embedded", "--output", str(tmp_path / "run"), *arguments])
    assert status == 2 and message in capsys.readouterr().err and not (tmp_path / "run").exists()
