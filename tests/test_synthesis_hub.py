"""`hf-prism synthesize --push-to`: every round on the Hub, as one commit, over real HTTP with the real clients."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hub_client import Client
from localhub import serve


EMBEDDED = Path(__file__).parent.parent / "examples" / "recipes" / "embedded.yaml"
SMALL = ["--set", "requests=15", "--set", "limits.rounds=3", "--set", "proxy.dim=64"]


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    with serve(tmp_path_factory.mktemp("hub")) as hub:
        yield hub


@pytest.fixture(scope="module")
def client(hub, tmp_path_factory):
    with Client(hub, tmp_path_factory.mktemp("clients") / "home") as client:
        yield client


def synthesize(hub, output: Path, *options: str, token: str = "hf_local") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hf_prism", "synthesize", str(EMBEDDED), "--output", str(output), "--json"]
    env = hub.environment(output.parent / "home", token)
    return subprocess.run([*command, *SMALL, *options], capture_output=True, text=True, env=env, timeout=300)


@pytest.fixture(scope="module")
def pushed(hub, tmp_path_factory):
    output = tmp_path_factory.mktemp("synthesis") / "run"
    done = synthesize(hub, output, "--push-to", "user/pool")
    assert done.returncode == 0, done.stderr
    return output, json.loads(done.stdout.splitlines()[-1])


def test_the_dataset_on_the_hub_is_the_pool_with_its_features_and_each_round_has_its_state(pushed, client):
    output, result = pushed
    assert result["pushed_to"] == "user/pool" and len(result["rounds"]) == 4
    same, columns, sizes = client.run(f"""
        from hf_prism.rows import load_rows
        pool, pushed = load_rows({str(output / "pool.parquet")!r}), load_dataset("user/pool", split="train")
        states = [len(load_dataset("user/pool", split="train", revision=f"round-{{i:03d}}")) for i in range(1, 4)]
        return pool.to_list() == pushed.to_list() and pool.features == pushed.features, pushed.column_names, states
    """)
    assert same and sizes == [each["pool_size"] for each in result["rounds"][1:]]
    assert {"seed_ids", "round", "cluster", "generator", "votes", "agreement", "feature_id"} <= set(columns)


def test_the_card_says_that_it_is_a_simulation_what_was_accepted_and_nothing_of_this_machine(pushed, hub):
    output, result = pushed
    card = hub.files("user/pool")["README.md"].decode()
    assert "simulation" in card.lower() and "license: apache-2.0" in card
    for each in result["rounds"][1:]:
        assert f"{each['candidates']:,}" in card and f"{each['g_vendi']:,.1f}" in card
    assert str(output.parent) not in card and "embedded_seeds.jsonl" in card and str(EMBEDDED.parent) not in card


def test_the_same_command_makes_no_new_commit(pushed, hub):
    head = hub.head("user/pool")
    assert synthesize(hub, pushed[0], "--push-to", "user/pool").returncode == 0
    assert hub.head("user/pool") == head


def test_a_push_that_fails_stops_the_run_and_the_same_command_repairs_it(hub, client, tmp_path):
    fault = hub.fail("POST", "/commit/", 400)
    done = synthesize(hub, tmp_path / "run", "--push-to", "user/broken", "--seed", "3")
    assert done.returncode and "this fails on purpose" in done.stderr and "Traceback" not in done.stderr, done.stderr
    hub.faults.remove(fault)
    done = synthesize(hub, tmp_path / "run", "--push-to", "user/broken", "--seed", "3")
    assert done.returncode == 0, done.stderr
    size = json.loads(done.stdout.splitlines()[-1])["rows"]
    assert client.run('return len(load_dataset("user/broken", split="train"))') == size


REFUSED = {
    "somebody else's name": ("other/pool", "hf_local", "other"),
    "a token that may only read": ("reader/pool", "hf_reader", "may only read"),
    "a wrong token": ("user/pool", "hf_wrong", "token"),
    "gradients": ("user/gradients", "hf_local", "holds something else"),
    "no name": ("pool", "hf_local", "USER/NAME"),
    "another run": ("user/pool", "hf_local", "holds the run"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_pushed_is_found_out_before_anything_begins(pushed, hub, tmp_path, case):
    from localhub import User

    hub.users.setdefault("hf_reader", User("reader", role="read"))
    name, token, message = REFUSED[case]
    if case == "gradients":
        hub.create("user/gradients")
        hub.edit("user/gradients", **{"features.json": b"{}", "data/train-00000-of-00001.parquet": b"PAR1"})
    done = synthesize(hub, tmp_path / "run", "--push-to", name, "--seed", "9", token=token)
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert not (tmp_path / "run").exists()


def test_a_private_dataset_is_private(hub, tmp_path):
    done = synthesize(hub, tmp_path / "run", "--push-to", "user/secret", "--private", "--set", "limits.rounds=1")
    assert done.returncode == 0, done.stderr
    assert hub.repository("user/secret").private
