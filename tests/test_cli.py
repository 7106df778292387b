"""The contract of the command: exit status, one JSON object, messages that name what is wrong."""

import json
import signal
import subprocess
import sys
import time

import pytest
from helpers import CHATML, save_tiny_model, tiny_tokenizer

from hf_prism import GradientFeaturizer, g_vendi
from hf_prism.cli import main
from hf_prism.rows import load_rows
from hf_prism.run_directory import RunDirectory
from hf_prism.runner import load_features


ROWS = [{"prompt": f"How many clips in May? {i}", "completion": f"{i} clips"} for i in range(20)]
KEYS = ["g_vendi", "g_vendi_debiased", "interval", "order", "n", "dim", "saturation", "feature_id"]


def write(path, rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="module")
def proxy(tmp_path_factory) -> list[str]:
    path = tmp_path_factory.mktemp("proxy")
    save_tiny_model(path, "qwen2", tokenizer=tiny_tokenizer(chat_template=CHATML))
    return ["--model", str(path), "--dim", "64"]


@pytest.fixture
def data(tmp_path) -> str:
    return write(tmp_path / "rows.jsonl", ROWS)


def strictly(text: str) -> dict:
    """Parse JSON as other languages do: without Infinity and NaN."""
    return json.loads(text, parse_constant=pytest.fail)


def test_score_equals_python_and_a_run_directory_scores_the_same(proxy, data, tmp_path, capsys):
    output = tmp_path / "run"
    assert main(["score", data, *proxy, "--output", str(output), "--json"]) == 0
    printed = capsys.readouterr().out
    result = strictly(printed)
    assert printed.count("\n") == 1 and [key for key in result if key != "notes"] == KEYS
    featurizer = GradientFeaturizer(proxy[1], dim=64)
    features = load_rows(data).map(featurizer, batched=True)
    assert result["g_vendi"] == pytest.approx(g_vendi(features).g_vendi, rel=1e-6)
    assert result["feature_id"] == featurizer.feature_id
    assert strictly((output / "result.json").read_text()) == result
    assert (output / "score.png").stat().st_size > 1000
    assert main(["score", str(output), "--json"]) == 0
    assert strictly(capsys.readouterr().out) == result


@pytest.mark.parametrize("order", ["0.5", "2", "inf"])
def test_every_order_is_plain_json(proxy, data, tmp_path, capsys, order):
    assert main(["score", data, *proxy, "--output", str(tmp_path / "run"), "--order", order, "--json"]) == 0
    result = strictly(capsys.readouterr().out)
    assert result["order"] == ("inf" if order == "inf" else float(order))
    assert strictly((tmp_path / "run" / "result.json").read_text()) == result


def test_without_json_the_result_is_for_people_and_on_standard_output(proxy, data, tmp_path, capsys):
    assert main(["score", data, *proxy, "--output", str(tmp_path / "run")]) == 0
    told = capsys.readouterr()
    assert told.out.startswith("G-Vendi ") and "n, dimension d         20, 64" in told.out
    assert "20 rows to featurize" in told.err  # the cost, before the work


def test_featurize_tells_what_it_did(proxy, tmp_path, capsys):
    data = write(tmp_path / "rows.jsonl", [*ROWS, ROWS[0], {"prompt": "x", "completion": " "}])
    output = tmp_path / "run"
    assert main(["featurize", data, *proxy, "--output", str(output), "--on-empty", "skip", "--json"]) == 0
    result = strictly(capsys.readouterr().out)
    assert {key: result[key] for key in ("rows", "skipped", "truncated", "repeats", "dim")} == {
        "rows": 21, "skipped": 1, "truncated": 0, "repeats": 1, "dim": 64,
    }  # fmt: skip
    assert len(load_features(output)) == 21


def test_a_shard_tells_what_is_missing_and_the_last_one_completes_the_run(proxy, data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("hf_prism.runner.CHUNK_TOKENS", 100)
    monkeypatch.setattr("hf_prism.batches.BATCH_TOKENS", 60)
    output = tmp_path / "run"
    command = ["featurize", data, *proxy, "--output", str(output), "--shard"]
    assert main([*command, "2/2", "--json"]) == 0
    told = capsys.readouterr()
    result = strictly(told.out)
    assert result["complete"] is False and 0 < result["rows"] < 20 and result["missing_chunks"] > 0
    assert f"{result['rows']} rows of shard 2/2 featurized" in told.err and "without --shard computes" in told.err
    assert main(["score", str(output)]) == 2
    assert f"{output} holds " in capsys.readouterr().err
    assert main([*command, "1/2"]) == 0
    assert "20 gradients in" in capsys.readouterr().out
    assert main(["score", str(output), "--json"]) == 0
    assert strictly(capsys.readouterr().out)["n"] == 20


def test_one_row_scores_one_with_a_note(proxy, tmp_path, capsys):
    data = write(tmp_path / "one.jsonl", ROWS[:1])
    assert main(["score", data, *proxy, "--output", str(tmp_path / "run"), "--json"]) == 0
    result = strictly(capsys.readouterr().out)
    assert result["g_vendi"] == 1.0 and result["interval"] is None and "one row" in result["notes"][0]


def test_columns_and_templates_make_rows_of_any_file(proxy, tmp_path, capsys):
    plain = write(tmp_path / "plain.jsonl", ROWS)
    other = write(tmp_path / "other.jsonl", [{"q": row["prompt"], "a": row["completion"]} for row in ROWS])
    ways = [[plain], [other, "--column", "prompt=q", "--column", "completion=a"]]
    ways.append([other, "--prompt-template", "{q}", "--completion-template", "{a}"])
    scores = []
    for i, way in enumerate(ways):
        assert main(["score", *way, *proxy, "--output", str(tmp_path / str(i)), "--json"]) == 0
        scores.append(strictly(capsys.readouterr().out)["g_vendi"])
    assert scores == pytest.approx(scores[:1] * 3, rel=1e-9)


# What is wrong, the arguments ({data} is a good file, {run} a finished run), and what the message says.
BAD = [
    ("no verb", [], ["VERB"]),
    ("unknown verb", ["scor", "{data}"], ["'scor'", "score"]),
    ("no data", ["score"], ["DATA"]),
    ("no output", ["featurize", "{data}"], ["--output"]),
    ("no such file", ["score", "{data}x.jsonl"], ["rows.jsonlx.jsonl does not exist", "did you mean"]),
    ("no such model", ["score", "{data}", "--model", "/no/such"], ["/no/such is no folder"]),
    ("dim", ["score", "{data}", "--dim", "6"], ["dim=6", "multiple of 4"]),
    ("dim no number", ["score", "{data}", "--dim", "many"], ["--dim", "'many'"]),
    ("dtype", ["score", "{data}", "--dtype", "float16"], ["'float16'", "bfloat16"]),
    ("order", ["score", "{data}", "--order", "0"], ["order 0.0", "above 0"]),
    ("order nan", ["score", "{data}", "--order", "nan"], ["order nan"]),
    ("samples", ["score", "{data}", "--max-samples", "0"], ["max_samples is 0"]),
    ("max length", ["score", "{data}", "--max-length", "9999"], ["9,999", "256 positions"]),
    ("split", ["score", "{data}", "--split", "test"], ["no splits", "'test'"]),
    ("column", ["score", "{data}", "--column", "q"], ["--column 'q'", "NAME=COLUMN"]),
    ("column name", ["score", "{data}", "--column", "promt=q"], ["'promt'", "did you mean 'prompt'"]),
    ("template", ["score", "{data}", "--prompt-template", "{"], ["prompt_template '{'", "format string"]),
    ("parameters", ["score", "{data}", "--parameters", "("], ["parameters='('", "regular expression"]),
    ("device", ["score", "{data}", "--device", "gpu"], ["device='gpu'", "'cuda:1'"]),
    ("another run", ["featurize", "{data}", "--output", "{run}", "--seed", "1"], ["holds another run", "seed: 0 there, 1 now"]),
    ("shard", ["featurize", "{data}", "--output", "{run}", "--shard", "5/4"], ["shard '5/4'", "I from 1 to N"]),
    ("rows of a run", ["score", "{run}", "--max-samples", "3"], ["is a run directory", "--max-samples", "--dim cannot apply"]),
    ("gradients as rows", ["featurize", "{run}", "--output", "{run}2"], ["neither prompt + completion"]),
    ("file as output", ["featurize", "{data}", "--output", "{data}"], ["a file is in the way"]),
    ("file as demo output", ["demo", "--output", "{data}"], ["rows.jsonl"]),
    ("huge id", ["score", "{data}.huge.jsonl"], ["column 'id'", "too large"]),
    ("doctor's model", ["doctor", "--model", "/no/such"], ["/no/such is no folder"]),
]  # fmt: skip


@pytest.fixture(scope="module")
def places(proxy, tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("data")
    data, run = write(folder / "rows.jsonl", ROWS), str(folder / "run")
    write(folder / "rows.jsonl.huge.jsonl", [{"id": 10**25, **ROWS[0]}])
    assert main(["featurize", data, *proxy, "--output", run]) == 0
    return {"{data}": data, "{run}": run}


@pytest.mark.parametrize("arguments, said", [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_bad_input_is_status_2_with_a_message_and_nothing_on_standard_output(
    proxy, places, monkeypatch, capsys, arguments, said
):
    monkeypatch.setattr("hf_prism.proxy.ProxyModel.model", None)  # an error before any model work
    for short, place in places.items():
        arguments = [argument.replace(short, place) for argument in arguments]
    if arguments[:1] not in ([], ["scor"], ["demo"]) and "--model" not in arguments:
        arguments[1:1] = proxy if "--dim" not in arguments else proxy[:2]
    try:
        status = main(arguments)
    except SystemExit as exit:  # argparse
        status = exit.code
    told = capsys.readouterr()
    assert status == 2 and told.out == ""
    assert not [words for words in said if words not in told.err], told.err


def test_an_architecture_that_fails_the_self_check_is_status_1_and_the_doctor_names_it(
    proxy, data, tmp_path, monkeypatch, capsys
):
    from transformers import Qwen2ForCausalLM

    original = Qwen2ForCausalLM.loss_function
    doubled = property(lambda self: lambda logits, labels, **rest: original.fget(self)(2 * logits, labels, **rest))
    monkeypatch.setattr(Qwen2ForCausalLM, "loss_function", doubled)
    assert main(["score", data, *proxy, "--output", str(tmp_path / "run")]) == 1
    assert "differ from autograd" in capsys.readouterr().err
    assert main(["doctor", *proxy, "--dataset", data]) == 1
    assert "PROBLEM: The streamed gradients differ" in capsys.readouterr().out


def test_doctor_shows_one_masked_row_and_says_that_all_is_well(proxy, data, capsys):
    assert main(["doctor", *proxy, "--dataset", data]) == 0
    told = capsys.readouterr().out
    assert "[[0 clips<|im_end|>\n]]" in told and "100.0%" in told
    assert "against autograd" in told and "sketch noise" in told and "All is well." in told


def test_real_command_prints_nothing_but_the_object_and_an_interrupt_loses_nothing(proxy, tmp_path):
    data = write(tmp_path / "rows.jsonl", [{**row, "id": i} for i, row in enumerate(ROWS * 300)])
    arguments = ["score", data, *proxy, "--output", str(tmp_path / "run"), "--json"]
    # Tests may run in the background, where a shell has SIGINT ignored.
    heard = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    command = [sys.executable, "-c", heard + "from hf_prism.cli import main; sys.exit(main())", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not RunDirectory(tmp_path / "run").committed() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert (process.returncode, out) == (1, "") and "goes on where it stopped" in err
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "chunks").glob("*.parquet")}
    command = [sys.executable, "-m", "hf_prism", *arguments]
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    assert before and all(path.stat().st_mtime_ns == written for path, written in before.items())
    assert strictly(finished.stdout)["n"] == 6000 and finished.stdout.count("\n") == 1


def test_a_gradient_column_is_scored_as_it_is(tmp_path, capsys):
    import datasets
    import numpy as np

    vectors = np.repeat(np.eye(3), [2, 1, 1], axis=0)
    spectrum = np.array([0.5, 0.25, 0.25])
    datasets.Dataset.from_dict({"text": list("abcd"), "gradient": vectors}).save_to_disk(tmp_path / "data")
    capsys.readouterr()
    assert main(["score", str(tmp_path / "data"), "--json"]) == 0
    out = capsys.readouterr()
    result = json.loads(out.out.splitlines()[-1])
    assert result["g_vendi"] == pytest.approx(np.exp(-(spectrum * np.log(spectrum)).sum()))
    assert result["feature_id"] is None and "own gradient column" in out.err
