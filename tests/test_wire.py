"""The whole loop over real HTTP: with language models behind `transformers serve`, and with a server that fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml
from completions_server import serve
from helpers import save_tiny_model
from huggingface_hub import constants
from processes import free_port
from scripted import Response, Scripted, seeds, solve, write_problems
from synthesis_runs import grow, whole
from tiny_writer import FAMILIES, save_solver, save_writer

from hf_prism import GradientFeaturizer, files
from hf_prism import server as server_module
from hf_prism.generation import Request, Sampling
from hf_prism.server import ServerGenerator
from hf_prism.tasks.math import MathTask
from hf_prism.tasks.procedural import generate
from hf_prism.tasks.recognition import skeleton_of


@pytest.fixture
def online(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(server_module, "FIRST_WAIT", 0.01)


def command(recipe: Path, *options: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_TELEMETRY": "1"}
    arguments = [sys.executable, "-m", "hf_prism", "synthesize", str(recipe), "--json", *options]
    return subprocess.run(arguments, capture_output=True, text=True, env=env, timeout=300)


def write_recipe(folder: Path, url: str, writer: str, solver: str, **changes) -> Path:
    rows = generate(20, families=FAMILIES, seed=1)
    (folder / "seeds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = {"backend": "server", "base_url": url, "concurrency": 4}
    content = {
        "task": "math",
        "seeds": str(folder / "seeds.jsonl"),
        "output": str(folder / "run"),
        "target_size": 1000,
        "shots": 2,
        "problems": 1,
        "requests": 12,
        "solutions": 3,
        "generator": {**model, "model": writer, "temperature": 0.7, "max_tokens": 120},
        "solver": {**model, "model": solver, "temperature": 0.5, "max_tokens": 120},
        "proxy": {"model": "embedded", "dim": 256},
        "limits": {"rounds": 2},
        **changes,
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_real_models_behind_a_real_server_write_and_solve_problems(tmp_path):
    writer, solver = save_writer(tmp_path / "writer"), save_solver(tmp_path / "solver")
    port = free_port()
    serving = [str(Path(sys.executable).parent / "transformers"), "serve", "--host", "127.0.0.1", "--port", str(port)]
    with (tmp_path / "server.log").open("w") as log:
        env = {**os.environ, "HF_HOME": str(tmp_path / "home")}
        server = subprocess.Popen([*serving, "--device", "cpu", "--dtype", "float32"], stdout=log, stderr=log, env=env)
    try:
        recipe = write_recipe(tmp_path, f"http://127.0.0.1:{port}/v1", writer, solver)
        deadline = time.monotonic() + 90
        while (done := command(recipe)).returncode == 2 and time.monotonic() < deadline:
            assert "cannot be reached" in done.stderr and not (tmp_path / "run").exists()
        assert done.returncode == 0, done.stderr + (tmp_path / "server.log").read_text()[-2000:]
    finally:
        server.kill()
        server.wait()
    result = json.loads(done.stdout.splitlines()[-1])
    verdicts = Counter()
    for each in result["rounds"][1:]:
        verdicts.update(each["verdicts"])
        assert sum(each["verdicts"].values()) == each["candidates"]
    assert verdicts["accepted"] >= 3 and verdicts.total() >= 24, verdicts
    from datasets import load_dataset

    pool = load_dataset("parquet", data_files=str(tmp_path / "run" / "pool.parquet"), split="train", cache_dir=str(tmp_path / "cache"))  # fmt: skip
    new = pool.filter(lambda row: row["round"] > 0)
    assert len(new) == verdicts["accepted"]
    assert all("\\boxed{" + row["answer"] + "}" in row["completion"] and row["votes"] >= 1 for row in new)
    assert sum(skeleton_of(row["prompt"]) is not None for row in new) >= 1  # problems of the grammar, not noise
    # The server is gone: everything is in the log.
    before = whole(tmp_path / "run")
    again = command(recipe, "--set", f"target_size={len(pool)}")
    assert again.returncode == 0, again.stderr
    assert whole(tmp_path / "run") == before


def body_of(answer: str) -> dict:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": answer}}
    return {"choices": [choice], "model": "m", "object": "chat.completion", "id": "0", "created": 0,
            "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}}  # fmt: skip


def scripted(body: dict) -> dict:
    write = write_problems if body["model"] == "scripted-writer" else solve
    return body_of(write(Request(tuple(body["messages"]), Sampling(), body["seed"])))


def test_a_server_that_fails_on_purpose_costs_time_and_nothing_else(tmp_path, online, monkeypatch):
    monkeypatch.setattr(server_module, "TRIES", 30)  # one request may meet all of the faults
    featurizer = GradientFeaturizer(str(save_tiny_model(tmp_path / "proxy")), dim=64, device="cpu")
    task = MathTask()
    expected = grow(tmp_path / "expected", task, featurizer)
    with serve(scripted) as server:
        server.fail(429, headers={"Retry-After": "1"}, times=3)
        server.fail(500, times=3)
        server.fail(503, times=2)
        server.fail(delay=4.0, times=2)  # longer than the client waits
        server.fail(body='{"choices": [{"index": 0, "finish_re', times=3)
        server.fail(body={**body_of(""), "choices": []}, times=3)
        server.fail(drop=0, times=2)
        server.fail(drop=40, times=2)
        # Several choices although one was asked for: the first is the answer.
        models = [ServerGenerator(f"scripted-{name}", base_url=server.url, timeout=2.0, concurrency=6) for name in ("writer", "solver")]  # fmt: skip
        done = grow(tmp_path / "run", task, featurizer, *models)
        assert sum(fault.times for fault in server.faults) == 0
        answered = Counter((r.body["model"], r.body["seed"]) for r in server.received if r.status == 200)
        assert server.most_at_once <= 6 + 2  # those that the client gave up on are still asleep
    task.close()
    assert done.stopped == "target"
    assert whole(tmp_path / "run") == whole(tmp_path / "expected")
    # Whole answers are never asked for again; those that were no answer are.
    assert sum(answered.values()) - len(answered) <= 3 + 3 + 2 + 2
    assert len(expected.dataset) == len(done.dataset)


def test_of_several_choices_the_first_counts_and_an_answer_that_never_comes_stops_the_run(
    tmp_path, online, monkeypatch
):
    featurizer = GradientFeaturizer(str(save_tiny_model(tmp_path / "proxy")), dim=64, device="cpu")
    task = MathTask()

    def doubled(body: dict) -> dict:
        found = scripted(body)
        other = {**found["choices"][0], "index": 1, "message": {"role": "assistant", "content": "\\boxed{-1}"}}
        return {**found, "choices": [*found["choices"], other]}

    monkeypatch.setattr(server_module, "TRIES", 2)
    with serve(doubled) as server:
        models = [
            ServerGenerator(f"scripted-{name}", base_url=server.url, timeout=5.0) for name in ("writer", "solver")
        ]
        fault = server.fail(
            500, times=10**6, when=lambda body: body["model"] == "scripted-solver" and body["seed"] % 50 == 0
        )
        with pytest.raises(RuntimeError, match="give the same command; it goes on"):
            grow(tmp_path / "run", task, featurizer, *models)
        kept = len(list(files.read_lines(tmp_path / "run" / "requests.jsonl")))
        assert kept > 12
        fault.times = 0
        before = len(server.questions())
        grow(tmp_path / "run", task, featurizer, *models)
        total = len(list(files.read_lines(tmp_path / "run" / "requests.jsonl")))
        assert len(server.questions()) - before == total - kept
    grow(tmp_path / "expected", task, featurizer)
    task.close()
    assert whole(tmp_path / "run") == whole(tmp_path / "expected")


def test_what_a_server_refuses_is_found_out_before_anything_begins(tmp_path):
    with serve(scripted) as server:
        cases = {
            "http://127.0.0.1:9/v1": ({}, "cannot be reached"),
            server.url: ({"model": "another"}, "scripted-writer"),
        }
        for url, (attributes, message) in cases.items():
            for name, value in attributes.items():
                setattr(server, name, value)
            done = command(write_recipe(tmp_path, url, "scripted-writer", "scripted-solver"))
            assert done.returncode == 2 and message in done.stderr, done.stderr
            assert "Traceback" not in done.stderr
        server.model, server.api_key = None, "right"
        done = command(write_recipe(tmp_path, server.url, "scripted-writer", "scripted-solver"))
        assert done.returncode == 2 and "api_key_env" in done.stderr, done.stderr
    assert not (tmp_path / "run").exists()


def test_a_response_that_the_server_refuses_for_good_is_a_candidate_that_failed(tmp_path, online):
    featurizer = GradientFeaturizer(str(save_tiny_model(tmp_path / "proxy")), dim=64, device="cpu")
    write = Scripted("w", lambda r: Response("", "error", error="the prompt is too long"))
    done = grow(tmp_path / "run", MathTask(), featurizer, write, rows=seeds(), limits={"max_rounds": 1})
    assert done.rounds[1].verdicts["parse_failed"] == done.rounds[1].candidates == 12
