"""The rounds of a synthesis run go to the Hub together, each state under its tag, and what was pushed once never changes.

The clients run in a process of their own (`hub_client`) against a Hub on loopback (`localhub`).
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import sys
import threading
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from hub_client import PRELUDE, Client
from localhub import User, serve

from hf_prism.cards import BEGIN, END
from hf_prism.figures import png
from hf_prism.run_card import VERDICTS, RoundSummary, rounds_figure


# Seeds and three rounds: one of two files, since there are 100 rows a file, and one that accepted nothing.
SIZES = (20, 130, 0, 30)

ROUNDS = f"""{PRELUDE}
from hf_prism import rounds
from hf_prism.rounds import RoundSummary, check_can_push_run, push_rounds

if not hasattr(rounds, "pictures"):  # to draw them takes longer than all the rest
    rounds.pictures, draw = {{}}, rounds.picture
    def remembered(summaries):
        if repr(summaries) not in rounds.pictures:
            rounds.pictures[repr(summaries)] = draw(summaries)
        return rounds.pictures[repr(summaries)]
    rounds.picture = remembered

SIZES = {SIZES}
KINDS = Features(
    id=Value("string"), problem=Value("string"), seed_ids=List(Value("string")), round=Value("int32"),
    cluster=Value("int32"), generator=Value("string"), votes=Value("int32"), agreement=Value("float32"),
    feature_id=Value("string"))
FACTS = {{
    "run": "aaaabbbbccccdddd", "task": "math", "strategy": "prismatic", "generator": "some/generator", "solver": None,
    "proxy": {{"proxy.model": "some/proxy", "proxy.revision": "abc"}}, "feature_id": "0123456789abcdef",
    "simulation": False, "recipe": "task: math\\nrounds: 3\\n"}}

def part(number, size=None, salt=""):
    size = SIZES[number] if size is None else size
    names = [f"r{{number}}-{{i}}" for i in range(size)]
    return Dataset.from_dict({{
        "id": names, "problem": [f"How much is {{name}}?{{salt}} ½" for name in names],
        "seed_ids": [[f"r0-{{i % 7}}", "r0-0"] if number else [] for i in range(size)], "round": [number] * size,
        "cluster": [i % 5 if number else None for i in range(size)], "generator": ["some/generator"] * size,
        "votes": [3] * size, "agreement": [(i + 1) / 7 for i in range(size)], "feature_id": ["0123456789abcdef"] * size,
    }}, features=KINDS)

def summary(number, size=None, **changes):
    size = SIZES[number] if size is None else size
    told = dict(
        number=number, candidates=size + 7, verdicts={{"accepted": size, "duplicate": 5, "too_long": 2}},
        pool_size=sum(SIZES[:number]) + size, g_vendi=10.5 + number, interval=(9.0, 12.25 + number), requests=40 + number,
        tokens=1234567, seconds=1.5)
    return RoundSummary(**{{**told, **changes}})

def push(last, name, **options):
    seeds = part(0)
    return push_rounds([seeds, *map(part, range(1, last + 1))], name,
                       summaries=[summary(i) for i in range(1, last + 1)], **{{"facts": FACTS, **options}})

def pool(last):
    return [row for number in range(last + 1) for row in part(number)]

def loaded(name, **options):
    return load_dataset(name, split="train", **options)
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    with serve(tmp_path_factory.mktemp("hub")) as hub:
        yield hub


@pytest.fixture(autouse=True)
def no_faults_are_left(request):
    yield
    if "hub" in request.fixturenames:
        request.getfixturevalue("hub").faults.clear()


@pytest.fixture(scope="module")
def client(hub, tmp_path_factory):
    with Client(hub, tmp_path_factory.mktemp("clients") / "home", ROUNDS) as client:
        yield client


@pytest.fixture(scope="module")
def second(hub, tmp_path_factory):
    with Client(hub, tmp_path_factory.mktemp("clients") / "second", ROUNDS) as client:
        yield client


def tags(hub, name):
    return {tag: oid for tag, oid in hub.repository(name).refs.items() if tag != "main"}


def data(hub, name, revision="main"):
    return {file: content for file, content in hub.files(name, revision).items() if file.startswith("data/")}


def front_matter(card):
    return yaml.safe_load(card.split("---\n")[1])


def table_under(card, heading):
    """The cells of the first table whose first heading is this one."""
    lines = card[card.index(f"| {heading} |") :].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if not line.startswith("|---")]


FILES = {
    "data/round-000.parquet": 20,
    "data/round-001-00000-of-00002.parquet": 100,
    "data/round-001-00001-of-00002.parquet": 30,
    "data/round-003.parquet": 30,
}


# What comes back.


def test_each_state_comes_back_under_its_tag_and_the_newest_by_every_way_to_load_it(hub, client):
    found = client.run("""
        commits = [push(last, "user/trip") for last in (1, 2, 3)]
        whole, stream = loaded("user/trip"), loaded("user/trip", streaming=True)
        states = [list(loaded("user/trip", revision=f"round-00{last}")) == pool(last) for last in (1, 2, 3)]
        return {
            "commits": commits,
            "rows": [list(whole) == pool(3), list(stream) == pool(3), *states],
            "features": [whole.features == KINDS, stream.features == KINDS],
        }
    """)
    assert found["rows"] == [True] * 5 and found["features"] == [True, True]
    assert tags(hub, "user/trip") == dict(zip(("round-001", "round-002", "round-003"), found["commits"], strict=True))
    assert found["commits"][-1] == hub.head("user/trip") and len(set(found["commits"])) == 3


def test_the_files_say_what_they_are_without_our_code(hub, client):
    client.run("""push(3, "user/files")""")
    files = hub.files("user/files")
    assert set(files) == {*FILES, "hf_prism.json", "README.md", "g_vendi.png"}
    parquet = {name: pq.ParquetFile(io.BytesIO(files[name])) for name in FILES}
    assert {name: file.metadata.num_rows for name, file in parquet.items()} == FILES
    assert len({file.schema_arrow.metadata[b"huggingface"] for file in parquet.values()}) == 1
    told = json.loads(files["hf_prism.json"])
    assert (told["kind"], told["run"], told["rows"]) == ("synthesis", "aaaabbbbccccdddd", sum(SIZES))
    assert [(part["number"], part["rows"]) for part in told["rounds"]] == list(enumerate(SIZES))
    assert {shard["file"]: shard["sha256"] for part in told["rounds"] for shard in part["shards"]} == {
        name: hashlib.sha256(files[name]).hexdigest() for name in FILES
    }
    assert told["rounds"][1]["summary"]["verdicts"] == {"accepted": 130, "duplicate": 5, "too_long": 2}
    assert told["facts"]["recipe"] == "task: math\nrounds: 3\n"
    assert hub.repository("user/files").commits[hub.head("user/files")].files["g_vendi.png"].lfs
    for name, content in files.items():
        assert b"hf_local" not in content and str(hub.root.parent).encode() not in content, name


def test_seeds_can_be_left_out(hub, client):
    assert client.run("""
        push_rounds([None, part(1)], "user/seedless", summaries=[summary(1)], facts=FACTS)
        return list(loaded("user/seedless")) == list(part(1))
    """)
    assert "data/round-000.parquet" not in data(hub, "user/seedless")
    card = hub.files("user/seedless")["README.md"].decode()
    assert "the seeds left out" in card and "0, the seeds" not in card


# What is pushed again.


def test_rounds_that_are_there_already_are_not_sent_again(hub, client):
    client.run("""push(1, "user/grown")""")
    before, start = data(hub, "user/grown"), len(hub.requests)
    client.run("""
        third = part(3, salt=" only here")
        push_rounds([part(0), part(1), part(2), third], "user/grown",
                    summaries=[summary(1), summary(2), summary(3, g_vendi=77.5)], facts=FACTS)
    """)
    after = hub.files("user/grown")
    assert {name: after[name] for name in before} == before
    sent = {request.path for request in hub.requests[start:] if request.method == "PUT"}
    assert sent == {
        f"/_lfs/{hashlib.sha256(after[name]).hexdigest()}" for name in ("data/round-003.parquet", "g_vendi.png")
    }
    # Two rounds at once have one state between them.
    assert set(tags(hub, "user/grown")) == {"round-001", "round-003"}
    assert "Revisions: `round-001`, `round-003`." in after["README.md"].decode()


def test_the_same_rounds_again_make_no_commit(hub, client):
    first, second = client.run("""return [push(2, "user/same") for _ in range(2)]""")
    assert first == second == hub.head("user/same") and len(hub.repository("user/same").commits) == 2


def test_files_that_other_versions_wrote_for_the_same_rows_stay(hub, client):
    client.run("""push(1, "user/versions")""")
    before = data(hub, "user/versions")
    told = client.run("""
        from functools import partial
        real = rounds.write_shards
        rounds.write_shards = partial(real, compression="zstd")  # other bytes, as another version of pyarrow writes
        try:
            push(3, "user/versions")
        finally:
            rounds.write_shards = real
        return list(loaded("user/versions")) == pool(3)
    """)
    after = data(hub, "user/versions")
    assert told and {name: after[name] for name in before} == before
    kinds = {name: pq.ParquetFile(io.BytesIO(file)).metadata.row_group(0).column(0).compression for name, file in after.items()}  # fmt: skip
    assert kinds == {name: "ZSTD" if name == "data/round-003.parquet" else "SNAPPY" for name in FILES}


def test_a_round_that_was_pushed_does_not_change(hub, client):
    client.run("""push(2, "user/fixed")""")
    before = hub.head("user/fixed")
    for first in ("part(1, salt='!')", "part(1).select(range(129, -1, -1))", "part(1, 129)"):
        message = client.error(f"""
            first = {first}
            changed = dict(summaries=[summary(1, len(first)), summary(2, pool_size=20 + len(first))], facts=FACTS)
            push_rounds([part(0), first, part(2)], "user/fixed", **changed)
        """)
        assert "round 1 of this run is on user/fixed already, and differs: 130 rows" in message
    without = (
        """push_rounds([None, part(1), part(2)], "user/fixed", summaries=[summary(1), summary(2)], facts=FACTS)"""
    )
    assert "round 0 of this run" in (told := client.error(without)) and "none here" in told
    assert hub.head("user/fixed") == before


def test_a_later_round_cannot_change_the_type_of_a_column(hub, client):
    """The same values, so the rows of the first round look alike."""
    client.run("""push(1, "user/typed")""")
    before = hub.head("user/typed")
    message = client.error("""
        wide = [part(number).cast_column("votes", Value("int64")) for number in (0, 1, 2)]
        push_rounds(wide, "user/typed", summaries=[summary(1), summary(2)], facts=FACTS)
    """)
    assert "differ in the column 'votes': Value('int32') and Value('int64')" in message
    assert hub.head("user/typed") == before


def test_files_that_somebody_took_away_or_put_beside_are_put_right(hub, client):
    client.run("""push(3, "user/repaired")""")
    good = data(hub, "user/repaired")
    hub.edit(
        "user/repaired",
        **{
            "data/round-001-00000-of-00002.parquet": None,
            "data/round-003.parquet": b"",
            "data/round-009.parquet": b"",
        },
    )
    client.run("""push(3, "user/repaired")""")
    assert data(hub, "user/repaired") == good


def test_a_copy_of_the_run_that_knows_fewer_rounds_changes_nothing(hub, client):
    newer = client.run("""return [push(1, "user/behind"), push(3, "user/behind")][1]""")
    states = tags(hub, "user/behind")
    assert client.run("""return [push(1, "user/behind"), push(2, "user/behind")]""") == [newer, newer]
    assert hub.head("user/behind") == newer and tags(hub, "user/behind") == states
    assert set(states) == {"round-001", "round-003"}


# What fails on the way.


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("PUT", "/_lfs/", 403),
        ("POST", "/objects/batch", 403),
        ("POST", "/commit/", 403),
        ("GET", "hf_prism.json", 403),
    ],
)
def test_a_push_that_fails_leaves_all_as_it_was_and_the_same_call_repairs_it(hub, client, method, path, status):
    name = f"user/failed-{method}-{len(path)}"
    client.run(f"""push(1, {name!r})""")
    before, files, states = hub.head(name), hub.files(name), tags(hub, name)
    grown = f"""
        push_rounds([part(0), part(1), part(2, 40, salt={name!r})], {name!r},
                    summaries=[summary(1), summary(2, 40)], facts=FACTS)
        return len(loaded({name!r}))
    """
    hub.fail(method, path, status)
    client.error(grown)
    assert (hub.head(name), hub.files(name), tags(hub, name)) == (before, files, states)
    assert client.run(grown) == 190


def test_a_pusher_killed_while_it_uploads_is_repaired_with_the_same_result(hub, client, tmp_path):
    def grown(name):
        return f"""
            push_rounds([part(0), part(1), part(2, 40, salt="new")], {name!r},
                        summaries=[summary(1), summary(2, 40)], facts=FACTS)
        """

    client.run("""push(1, "user/killed"), push(1, "user/whole")""")
    before = hub.head("user/killed")
    with Client(hub, tmp_path / "victim", ROUNDS) as victim:
        hub.fail("PUT", "/_lfs/", before=victim.process.kill)
        victim.start(grown("user/killed"))
        assert victim.process.wait() == -9
    assert hub.head("user/killed") == before
    client.run(grown("user/killed") + grown("user/whole"))
    told, whole = (hub.files(name) for name in ("user/killed", "user/whole"))
    assert {name: content.replace(b"killed", b"whole") for name, content in told.items()} == whole
    assert set(tags(hub, "user/killed")) == set(tags(hub, "user/whole")) == {"round-001", "round-002"}


@pytest.mark.parametrize("path", ["/commit/", "/tag/"])
def test_a_lost_answer_does_not_commit_or_tag_twice(hub, client, path):
    name = f"user/lost-{path.strip('/')}"
    client.run(f"""push(1, {name!r})""")
    hub.fail("POST", path, lost=True)
    assert client.run(f"""return push(2, {name!r})""") == hub.head(name)
    assert len(hub.repository(name).commits) == 3 and tags(hub, name)["round-002"] == hub.head(name)


def test_a_state_whose_tag_was_never_set_gets_it_from_the_next_push(hub, client):
    for name, last in (("user/untagged", 1), ("user/untagged-grown", 3)):
        hub.fail("POST", "/tag/", 403)
        client.error(f"""push(1, {name!r})""")
        state = hub.head(name)
        assert tags(hub, name) == {}
        assert client.run(f"""
            push({last}, {name!r})
            return list(loaded({name!r}, revision="round-001")) == pool(1)
        """)
        assert tags(hub, name) == {"round-001": state, **({"round-003": hub.head(name)} if last == 3 else {})}


def test_a_tag_that_is_taken_stays(hub, client):
    client.run("""push(1, "user/tagged")""")
    first = hub.head("user/tagged")
    hub.repository("user/tagged").refs["round-002"] = first
    assert client.run("""return push(2, "user/tagged")""") == hub.head("user/tagged") != first
    assert tags(hub, "user/tagged") == {"round-001": first, "round-002": first}


@pytest.mark.parametrize("lasts", [(2, 2), (2, 3)])
def test_pushers_of_one_run_at_the_same_time_end_in_one_state(hub, client, second, lasts):
    name = f"user/race-{lasts[1]}"
    client.run(f"""push(1, {name!r})""")
    gate = threading.Barrier(2)
    hub.fail("POST", f"{name}/commit/", times=2, before=gate.wait)  # so one of them comes too late
    for pusher, last in zip((second, client), lasts, strict=True):
        pusher.start(f"""return push({last}, {name!r})""")
    commits = [second.finish(), client.finish()]
    assert any(request.status == 412 for request in hub.requests if f"{name}/commit" in request.path)
    last, states = max(lasts), tags(hub, name)
    assert hub.head(name) in commits and states[f"round-00{last}"] == hub.head(name)
    assert set(states) <= {"round-001", "round-002", "round-003"}
    for state in states:
        assert client.run(f"""return list(loaded({name!r}, revision={state!r})) == pool(int({state[-1]}))""")


def test_a_busy_hub_is_given_the_time_it_asks_for(hub, client):
    client.run("""push(1, "user/busy")""")
    hub.fail("POST", "user/busy/commit/", 429, headers={"Retry-After": "7"})
    hub.fail("POST", "user/busy/tag/", 503, headers={"Retry-After": "9"})
    hub.fail("GET", "user/busy/resolve/.*hf_prism.json", 429, headers={"Retry-After": "11"})
    waits = client.run("""
        from types import SimpleNamespace
        waits, real, access.time = [], access.time, SimpleNamespace(sleep=lambda seconds: waits.append(seconds))
        try:
            push(2, "user/busy")
        finally:
            access.time = real
        return waits
    """)
    assert sorted(map(int, waits)) == [7, 9, 11]
    assert tags(hub, "user/busy")["round-002"] == hub.head("user/busy")


def test_a_change_by_somebody_else_meanwhile_is_kept(hub, client):
    client.run("""push(1, "user/meanwhile")""")
    hub.fail("POST", "user/meanwhile/commit/", before=lambda: hub.edit("user/meanwhile", **{"notes.txt": b"theirs"}))
    client.run("""push(2, "user/meanwhile")""")
    assert any(r.status == 412 for r in hub.requests if "user/meanwhile/commit" in r.path)
    assert hub.files("user/meanwhile")["notes.txt"] == b"theirs"


# Who may push, and where.


def test_a_name_that_is_taken_is_found_out_before_anything_is_done(hub, client):
    client.run("""
        hub.push_features(features(5), "user/gradients")
        hub.push_rows(features(5), "user/selection", body="", metadata={"kind": "mine"})
        push(1, "user/run")
    """)
    hub.create("user/foreign")
    hub.edit("user/foreign", **{"rows.jsonl": b"{}"})
    hub.create("user/broken")
    hub.edit("user/broken", **{"hf_prism.json": b"{", "README.md": b""})
    hub.create("user/odd")
    hub.edit("user/odd", **{"hf_prism.json": b'{"kind": "synthesis", "run": "aaaabbbbccccdddd", "rounds": [1]}'})
    start = len(hub.requests)
    for name, parts in {
        "gradients": ["holds something else", "data/train-0"],
        "selection": ["holds something else", "data/train-0", "nothing of this kind"],
        "foreign": ["holds something else", "rows.jsonl", "no hf_prism.json"],
        "broken": ["holds something else", "no synthesis run"],
        "odd": ["cannot be read"],
        "run": ["the run aaaabbbbccccdddd", "the run 0000111122223333"],
    }.items():
        before = hub.head(f"user/{name}")
        run = "aaaabbbbccccdddd" if name == "odd" else "0000111122223333"
        for call in (f"check_can_push_run('user/{name}', '{run}')", f"push(2, 'user/{name}', facts={{**FACTS, 'run': '{run}'}})"):  # fmt: skip
            message = client.error(call)
            assert message.startswith("ValueError") and all(part in message for part in parts), message
        assert hub.head(f"user/{name}") == before
    assert {request.method for request in hub.requests[start:]} == {"GET"}
    client.run(
        """check_can_push_run("user/run", "aaaabbbbccccdddd"), check_can_push_run("user/new", "0000111122223333")"""
    )


def test_another_run_that_comes_first_is_not_mixed_with_ours(hub, client):
    # It is not there when the name is checked, and is when the rows are to be committed.
    client.run("""push(1, "user/other-source", facts={**FACTS, "run": "other"})""")

    def they_come_first():
        hub.create("user/contended")
        hub.edit("user/contended", **hub.files("user/other-source"))

    hub.fail("POST", "/repos/create", before=they_come_first)
    message = client.error("""push(1, "user/contended")""")
    assert "holds the run other, and this is the run aaaabbbbccccdddd" in message


def test_gradients_and_selected_rows_do_not_go_where_a_run_is(hub, client):
    client.run("""push(1, "user/ours")""")
    before = hub.head("user/ours")
    for call in (
        "hub.push_features(features(5), 'user/ours')",
        "hub.push_rows(features(5), 'user/ours', body='', metadata={})",
        "hub.check_can_push('user/ours', manifest=hub.ROWS_FILE)",
        "hub.check_can_push('user/ours')",
    ):
        assert "holds something else (data/round-000.parquet" in client.error(call)
    assert hub.head("user/ours") == before


def test_a_token_that_may_only_read_is_found_out_before_anything_is_done(hub, client):
    hub.users["hf_reader"] = User("reader", role="read")
    start = len(hub.requests)
    assert "may only read" in client.error("""push(1, "reader/new", token="hf_reader")""")
    assert "may only read" in client.error("""check_can_push_run("reader/new", "run", "hf_reader")""")
    assert {request.path for request in hub.requests[start:]} == {"/api/whoami-v2"}


def test_a_new_dataset_is_private_if_asked_and_stays_so(hub, client):
    client.run(
        """push(1, "user/secret", private=True), push(2, "user/secret", private=True), push(1, "user/public")"""
    )
    assert hub.repository("user/secret").private and set(tags(hub, "user/secret")) == {"round-001", "round-002"}
    assert "user/public is public" in client.error("""push(2, "user/public", private=True)""")
    assert set(tags(hub, "user/public")) == {"round-001"}


BAD = [
    ("push_rounds([part(0), part(1)], N, summaries=[summary(1, 129)], facts=FACTS)", "round 1 has 130 rows, but"),
    ("push_rounds([part(0), part(1)], N, summaries=[summary(1, pool_size=151)], facts=FACTS)", "has 150 rows, but"),
    ("push_rounds([part(0), part(1)], N, summaries=[summary(0), summary(2)], facts=FACTS)", "rounds [0, 2], but"),
    ("push_rounds([part(0)], N, summaries=[], facts=FACTS)", "there are 0 rounds"),
    ("push_rounds([part(0), None], N, summaries=[summary(1)], facts=FACTS)", "round 1 is None"),
    ("push_rounds([None, part(2)], N, summaries=[summary(1, 0)], facts=FACTS)", "none of 1 rounds accepted any"),
    ("push(1, N, facts={k: v for k, v in FACTS.items() if k not in ('run', 'recipe')})", "facts lacks run, recipe"),
    (
        "push_rounds([part(0), part(1).cast_column('votes', Value('int64'))], N, summaries=[summary(1)], facts=FACTS)",
        "rounds 0 and 1 differ in the column 'votes': Value('int32') and Value('int64')",
    ),
    (
        "push_rounds([part(0), part(1).remove_columns('cluster')], N, summaries=[summary(1)], facts=FACTS)",
        "differ in the column 'cluster': Value('int32') and None",
    ),
    (
        "push_rounds([None, part(1).remove_columns('cluster').add_column('cluster', [None] * 130)], N,"
        " summaries=[summary(1)], facts=FACTS)",
        "the column 'cluster' is Value('null')",
    ),
    (
        "push_rounds([None, part(1).remove_columns('seed_ids').add_column('seed_ids', [[]] * 130)], N,"
        " summaries=[summary(1)], facts=FACTS)",
        "the column 'seed_ids' is List(Value('null'))",
    ),
    (
        "push_rounds([part(0), part(0)], N, summaries=[summary(1, 20, pool_size=40)], facts=FACTS)",
        "the id 'r0-0' of round 1 is that of a row of round 0 too",
    ),
]  # fmt: skip


def test_what_does_not_belong_together_is_an_error_that_says_what(hub, client):
    for call, part in BAD:
        message = client.error(call.replace("N,", "'user/never',"))
        assert message.startswith("ValueError") and part in message, (call, message)
    assert ("dataset", "user/never") not in hub.repositories


def test_what_is_written_wrongly_is_not_pushed(hub, client):
    """A writer that loses a letter: same number of rows, same ids, same Features."""
    message = client.error("""
        real = rounds.write_shards
        rounds.write_shards = lambda rows, *rest: real(rows.map(lambda row: {"problem": row["problem"][1:]}), *rest)
        try:
            push(1, "user/garbled")
        finally:
            rounds.write_shards = real
    """)
    assert "the rows of round 0 that were written are not those" in message
    assert ("dataset", "user/garbled") not in hub.repositories


def one(number=1, **changes):
    told = {"verdicts": {"accepted": 2, "no_answer": 1}, "candidates": 3, "pool_size": 5, "g_vendi": 2.0}
    rest = {"interval": None, "requests": 1, "tokens": 1, "seconds": 1.0}
    return RoundSummary(number, **{**told, **rest, **changes})


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"candidates": 4}, "round 1 has 4 candidates but 3 verdicts"),
        ({"verdicts": {"accepted": 2, "nice": 1}}, "the verdict 'nice'"),
        ({"g_vendi": float("nan")}, "no number"),
        ({"interval": (1.0, float("inf"))}, "no number"),
    ],
)
def test_a_summary_adds_up(changes, part):
    with pytest.raises(ValueError, match=re.escape(part)):
        one(**changes)


# The card.


def test_the_card_counts_what_happened(hub, client):
    client.run("""push(3, "user/card", license="cc-by-4.0")""")
    card = hub.files("user/card")["README.md"].decode()
    assert front_matter(card) == {
        "license": "cc-by-4.0",
        "tags": ["hf_prism", "synthetic"],
        "size_categories": ["n<1K"],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "data/round-*"}]}],
    }
    assert table_under(card, "round")[1:] == [
        ["0, the seeds", "", "", "", "20", "", "", ""],
        ["1", "137", "130", "95%", "150", "11.5 (9.0 to 13.2)", "41", "1,234,567"],
        ["2", "7", "0", "0%", "150", "12.5 (9.0 to 14.2)", "42", "1,234,567"],
        ["3", "37", "30", "81%", "180", "13.5 (9.0 to 15.2)", "43", "1,234,567"],
    ]
    verdicts = table_under(card, "round | accepted")
    assert verdicts[0][1:] == [name.replace("_", " ") for name in VERDICTS]
    assert verdicts[2] == ["2", "0", "0", "0", "0", "5", "0", "2", "0"]
    assert [line[0] for line in table_under(card, "column")[1:]] == [
        f"`{name}`" for name in ("seed_ids", "round", "cluster", "generator", "votes", "agreement", "feature_id")
    ]
    assert "180 rows" in card and "`some/proxy`" in card and "`0123456789abcdef`" in card and "`abc`" in card
    assert "```yaml\ntask: math\nrounds: 3\n```" in card and "simulation" not in card.lower()
    assert "![" in card and "(g_vendi.png)" in card


def test_the_snippet_of_the_card_runs(hub, client):
    client.run("""push(1, "user/snippet"), push(3, "user/snippet")""")
    snippet = hub.files("user/snippet")["README.md"].decode().split("```python\n")[1].split("```")[0]
    assert client.run(f"""
        names = {{}}
        exec({snippet.replace("pool", "early").replace("early", "pool", 1)!r}, names)
        return [len(names["pool"]), len(names["early"]), sum(1 for row in names["rows"])]
    """) == [180, 150, 180]


def test_a_simulation_is_named_one_and_no_text_breaks_out_of_the_card(hub, client):
    client.run(f"""
        hostile = "a: b\\n```\\n{END}\\n~~~\\n````\\n"
        push(1, "user/hostile", facts={{**FACTS, "simulation": True, "generator": "a|b`c\\n", "recipe": hostile}})
        push(1, "user/hostile", facts={{**FACTS, "simulation": True, "generator": "a|b`c\\n", "recipe": hostile}})
    """)
    card = hub.files("user/hostile")["README.md"].decode()
    assert card.count(BEGIN) == card.count(END) == 1 and "**A simulation.**" in card
    assert "`````yaml\na: b\n```\n" in card and re.search(
        r"^\| generator, writes the rows \| `[^`|\n]*` \|$", card, re.M
    )
    assert len(hub.repository("user/hostile").commits) == 2


CARD = """---
license: mit  # mine
tags: [math]
dataset_info:
- config_name: default
  features: [{name: gone, dtype: string}]
  splits: [{name: train, num_examples: 150}]
pretty_name: Mine
---
My text, before.\x20\x20

<!-- hf_prism:begin -->
old
<!-- hf_prism:end -->

My text, after."""


def test_an_edited_card_keeps_what_is_not_ours_and_its_license_wins(hub, client):
    client.run("""push(1, "user/edited", license="apache-2.0")""")
    hub.edit("user/edited", **{"README.md": CARD.encode()})
    assert client.run("""
        push(2, "user/edited", license="apache-2.0")
        return list(loaded("user/edited")) == pool(2)  # the stale sizes would keep it from loading
    """)
    card = hub.files("user/edited")["README.md"].decode()
    before, after = CARD.split(BEGIN)[0].split("---\n")[2], CARD.split(END)[1]
    assert card.endswith(END + after) and f"---\n{before}{BEGIN}" in card and "\nold\n" not in card
    assert "license: mit  # mine\n" in card and "pretty_name: Mine\n" in card
    assert front_matter(card) == {
        "license": "mit",
        "tags": ["math", "hf_prism", "synthetic"],
        "pretty_name": "Mine",
        "size_categories": ["n<1K"],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "data/round-*"}]}],
    }
    # A text of the user's changes nothing about the states.
    assert set(tags(hub, "user/edited")) == {"round-001", "round-002"}


def test_the_picture_shows_the_scores_and_their_intervals():
    summaries = [one(i, g_vendi=10.0 + i, interval=(9.0 + i, 12.0 + i) if i else None) for i in range(4)]
    figure: Any = rounds_figure(summaries)
    (ax,) = figure.axes
    (line,) = ax.lines
    assert line.get_xydata().tolist() == [[i, 10.0 + i] for i in range(4)]
    (bars,) = ax.collections
    assert [bar.tolist() for bar in bars.get_segments()] == [[[i, 9 + i], [i, 12 + i]] for i in (1, 2, 3)]
    assert ax.get_ylim()[0] == 0 and ax.get_ylim()[1] > 15
    assert [label.get_text() for label in ax.get_xticklabels()] == ["3\n5", "2\n5", "1\n5", "0\n5"]
    assert png(figure).startswith(b"\x89PNG") and png(rounds_figure([one()])).startswith(b"\x89PNG")


def test_importing_it_imports_nothing_heavy():
    heavy = ["torch", "datasets", "evaluate", "transformers", "matplotlib"]
    code = f"import hf_prism.rounds, sys; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
