"""Any number of processes, started in any way, make the same files; a dead one is noticed and costs nothing but time."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import datasets
import pytest
import torch
from accelerate import PartialState
from helpers import CHATML, save_tiny_model, tiny_tokenizer
from processes import KILL_POINTS, ROWS, checksums, events, finish, start, start_ranks

from hf_prism import GradientFeaturizer, featurize, ranks, runner
from hf_prism.run_directory import RunDirectory


TESTS = Path(__file__).parent
NO_LAUNCHER = {"WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"}


@pytest.fixture(scope="module")
def proxy(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("proxy")
    save_tiny_model(path, "qwen2", tokenizer=tiny_tokenizer(chat_template=CHATML))
    return str(path)


@pytest.fixture(scope="module")
def whole(proxy, tmp_path_factory) -> dict[str, str]:
    """The checksums of a run of one process."""
    output = tmp_path_factory.mktemp("whole")
    assert finish(start(proxy, output)) == [0]
    return checksums(output)


@pytest.mark.parametrize("world", [2, 7])  # 7: more than there are chunks
def test_ranks_make_the_bytes_of_one_process_and_compute_each_chunk_once(proxy, whole, tmp_path, world):
    assert finish(*start_ranks(proxy, tmp_path, world)) == [0] * world
    assert checksums(tmp_path) == whole
    owners = {event["chunk"]: event["writer"] for event in events(tmp_path, "begin")}
    assert len(events(tmp_path, "begin")) == len(owners) == 5 and len(set(owners.values())) == min(world, 5)
    assert finish(*start_ranks(proxy, tmp_path, 2)) == [0, 0]  # a finished run
    assert len(events(tmp_path, "begin")) == 5


def test_ranks_share_what_is_missing_evenly_whoever_made_the_rest(proxy, whole, tmp_path):
    assert finish(start(proxy, tmp_path, shard="1/2")) == [0]  # chunks 0, 2 and 4
    assert finish(*start_ranks(proxy, tmp_path, 2)) == [0, 0]
    begun = {event["chunk"]: event["writer"] for event in events(tmp_path, "begin")}
    assert begun[1] != begun[3] and len(events(tmp_path, "begin")) == 5
    assert checksums(tmp_path) == whole


@pytest.mark.parametrize("order", [{1: 2, 2: 4, 3: 5}, {3: 1, 1: 3, 2: 5}])
def test_shards_in_any_order_make_the_bytes_of_one_process(proxy, whole, tmp_path, order):
    for shard, num_chunks in order.items():
        assert not (tmp_path / "features.arrow").exists()
        assert finish(start(proxy, tmp_path, shard=f"{shard}/3")) == [0]
        assert len(list(tmp_path.glob("chunks/*.parquet"))) == num_chunks
    assert checksums(tmp_path) == whole
    assert len(events(tmp_path, "begin")) == 5


def test_shards_at_the_same_time_make_the_bytes_of_one_process(proxy, whole, tmp_path):
    assert finish(*(start(proxy, tmp_path, shard=f"{i}/7") for i in range(1, 8))) == [0] * 7
    assert checksums(tmp_path) == whole
    assert len(events(tmp_path, "begin")) == 5


def test_processes_that_know_nothing_of_each_other_do_no_harm(proxy, whole, tmp_path):
    assert finish(*(start(proxy, tmp_path) for _ in range(3))) == [0] * 3
    assert checksums(tmp_path) == whole


def quick(silence=1.5):
    ranks.SILENCE, ranks.BEAT, ranks.POLL = silence, 0.3, 0.05


def test_a_rank_that_is_killed_is_noticed_without_a_launcher_and_loses_no_committed_chunk(
    proxy, whole, tmp_path, capfd
):
    killed = start_ranks(
        proxy,
        tmp_path,
        2,
        before={0: quick, 1: lambda: (quick(), KILL_POINTS["between a chunk and its manifest line"]())},
    )
    assert finish(*killed) == [1, -9]
    told = capfd.readouterr().err
    assert "RuntimeError: Rank 1 has given no sign of life" in told and "Every committed chunk is safe" in told
    assert set(RunDirectory(tmp_path).committed()) == {0, 1, 2, 4}
    assert finish(*start_ranks(proxy, tmp_path, 2)) == [0, 0]
    assert [event["chunk"] for event in events(tmp_path, "begin")][5:] == [3]
    assert checksums(tmp_path) == whole


def fail(*_):
    raise MemoryError("no more")


def test_a_rank_that_fails_tells_the_others_why(proxy, tmp_path, capfd):
    def failing():
        quick(60)
        runner._Work._featurize = fail

    began = time.monotonic()
    assert finish(*start_ranks(proxy, tmp_path, 3, before={0: quick, 1: failing, 2: quick})) == [1, 1, 1]
    assert time.monotonic() - began < 30
    told = capfd.readouterr().err
    assert "RuntimeError: Rank 1 failed with MemoryError: no more" in told  # rank 0
    assert "RuntimeError: Rank 0 failed with RuntimeError: Rank 1 failed" in told  # rank 2
    assert len(list(tmp_path.glob("chunks/*.parquet"))) == 3


def test_a_slow_rank_is_waited_for_and_what_it_owes_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(ranks, "POLL", 0.01)
    monkeypatch.setattr(ranks, "REPORT", 0.05)
    monkeypatch.setattr(ranks, "SILENCE", 0.5)
    monkeypatch.setattr(ranks, "BEAT", 0.1)
    reports = []

    def work():
        with ranks.Pulse(tmp_path / "status") as pulse:
            time.sleep(1.5)  # three times as long as a dead one is waited for
            pulse.finish()

    worker = threading.Thread(target=work)
    worker.start()
    status = tmp_path / "status"
    ranks.wait(lambda: [] if ranks.is_done(status) else [1], {1: status}, lambda: reports.append(None))
    worker.join()
    assert len(reports) > 5


def test_the_report_names_ranks_and_chunks(proxy, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(RunDirectory, "committed", lambda self: {0: {}, 3: {}})
    chunks = [[[0]]] * 24
    owners = {number: number % 2 for number in range(24)}
    work = runner._Work(None, None, None, RunDirectory(tmp_path), chunks, owners, 0)
    work.report()
    told = capsys.readouterr().err
    assert "Waiting for 22 chunks of rank 0: 2, 4, 6, 8, 10, 12, 14, 16 and 3 more; rank 1: 1, 5, 7" in told


@pytest.mark.parametrize("shard", ["0/4", "5/4", "a/b", "2", "2/4/1", "-1/4", "1/0", "", " 1/2", (2, 4), 2])
def test_a_shard_that_is_none_is_an_error_before_any_work(proxy, tmp_path, shard):
    with pytest.raises(ValueError, match="must be I/N with I from 1 to N, for example 2/4"):
        featurize(datasets.Dataset.from_list(ROWS), GradientFeaturizer(proxy), tmp_path / "run", shard=shard)
    assert not (tmp_path / "run").exists()


def test_a_shard_says_what_is_missing(proxy, tmp_path):
    rows = datasets.Dataset.from_list(ROWS)
    assert featurize(rows, GradientFeaturizer(proxy, dim=64), tmp_path, shard="2/2", progress=False) is None
    assert len(featurize(rows, GradientFeaturizer(proxy, dim=64), tmp_path, shard="1/2", progress=False)) == 20


def test_a_lone_process_starts_no_process_group_and_leaves_cuda_alone(proxy, tmp_path):
    def check():
        assert not torch.cuda.is_initialized() and not torch.distributed.is_initialized()
        assert PartialState._shared_state == {}

    assert finish(start(proxy, tmp_path, after=check)) == [0]


def test_ranks_refuse_a_shard(proxy, tmp_path, capfd):
    assert finish(*start_ranks(proxy, tmp_path / "run", 2, shard="1/2")) == [1, 1]
    assert "a launcher started 2 processes, which share the work by themselves" in capfd.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_state_that_hides_the_other_ranks_is_noticed(proxy, tmp_path, capfd):
    """On a machine without GPU, `PartialState()` in a user's script lets each process believe to be alone."""

    def alone():
        hidden = {name: os.environ.pop(name) for name in NO_LAUNCHER}
        PartialState(cpu=True)
        os.environ.update(hidden)

    assert finish(*start_ranks(proxy, tmp_path / "run", 2, before={0: alone, 1: alone})) == [1, 1]
    assert "started 2 processes (WORLD_SIZE), but Accelerate's state knows 1" in capfd.readouterr().err
    assert not (tmp_path / "run").exists()


def environment(**more: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in NO_LAUNCHER} | more


def launch(launcher: list[str], data: Path, proxy: str, output: Path, *more: str, **env: str):
    """Featurize with a real launcher; each takes seconds to start, so that there are few tests of them."""
    arguments = [
        "featurize",
        str(data),
        "--model",
        proxy,
        "--dim",
        "64",
        "--device",
        "cpu",
        "--output",
        str(output),
        *more,
    ]
    command = [sys.executable, "-m", *launcher, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment(**env), timeout=300)


TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ACCELERATE = [
    *(
        "accelerate.commands.launch",
        "--multi_gpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
        "--main_process_port",
    ),
    *("0", "--mixed_precision", "no", "--dynamo_backend", "no"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def test_torchrun_that_loses_a_rank_fails_and_accelerate_completes_the_run_to_the_same_bytes(
    proxy, whole, data, tmp_path
):
    driver = str(TESTS / "small_chunks.py")
    failed = launch([*TORCHRUN, driver], data, proxy, tmp_path, KILL_RANK="1")
    assert failed.returncode != 0 and "Signal 9 (SIGKILL)" in failed.stderr and failed.stdout == ""
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("chunks/*.parquet")}
    assert before and not (tmp_path / "features.arrow").exists()
    done = launch([*ACCELERATE, driver], data, proxy, tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"] == 20 and done.stdout.count("\n") == 1  # rank 0 only
    assert [len(re.findall(told, done.stderr)) for told in ("rows to featurize", r"rows, \d+ tokens in")] == [1, 1]
    assert all(path.stat().st_mtime_ns == written for path, written in before.items())
    assert checksums(tmp_path) == whole
    assert len({event["writer"] for event in events(tmp_path, "begin")}) in (3, 4)
