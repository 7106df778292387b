"""Features and rows go to the Hub whole or not at all, come back as they were, and leave what is the user's alone.

The clients run in a process of their own against a Hub on loopback (`localhub`), since they read its address when they
are imported; that process stays, and each test sends it the lines to run.
"""

from __future__ import annotations

import ast
import datetime
import hashlib
import io
import json
import re
import threading
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from helpers import CHATML, save_tiny_model, tiny_tokenizer
from hub_client import Client
from localhub import User, serve

from hf_prism import hub as module
from hf_prism.cards import BEGIN, END, merged_card
from hf_prism.origin import Origin


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
    with Client(hub, tmp_path_factory.mktemp("clients") / "home") as client:
        yield client


def shards(files):
    return {name: content for name, content in files.items() if name.endswith(".parquet")}


def history(hub, name):
    repository = hub.repository(name)
    return len(repository.commits)


# What comes back.


def test_what_is_loaded_is_what_was_pushed_by_every_way_to_load_it(hub, client, tmp_path):
    found = client.run("""
        pushed = features()
        commit = hub.push_features(pushed, "user/trip")
        back = hub.load_features("user/trip")
        plain = load_dataset("user/trip", split="train")
        stream = load_dataset("user/trip", split="train", streaming=True)
        return {
            "commit": commit,
            "rows": [back[:] == pushed[:], plain[:] == pushed[:], list(stream) == list(pushed)],
            "features": [back.features == pushed.features, plain.features == pushed.features,
                         stream.features == pushed.features],
            "origin": origin_of(back) == ORIGIN,
            "mapped": [Path(file["filename"]).exists() for file in back.cache_files],
            "again": origin_of(hub.load_features("user/trip", revision=commit)) == ORIGIN,
        }
    """)
    assert found == {
        "commit": hub.head("user/trip"),
        "rows": [True] * 3,
        "features": [True] * 3,
        "origin": True,
        "mapped": [True],
        "again": True,
    }


def test_the_files_say_what_they_are_without_our_code(hub, client):
    expected = client.run("""
        hub.push_features(features(), "user/files")
        return [features()["id"][:], features()["gradient"][:]]
    """)
    files = hub.files("user/files")
    told = json.loads(files["features.json"])
    assert {name: told[name] for name in ("feature_id", "rows", "dim")} == {
        "feature_id": "0123456789abcdef",
        "rows": 250,
        "dim": 16,
    }
    assert told["identity"] == {"dim": 16, "seed": 0, "proxy.model": "some/proxy", "proxy.revision": None}
    assert {shard["file"]: shard["sha256"] for shard in told["shards"]} == {
        name: hashlib.sha256(content).hexdigest() for name, content in shards(files).items()
    }
    assert len(shards(files)) == 3 and set(files) == {*shards(files), "features.json", "README.md"}
    tables = [pq.read_table(io.BytesIO(content)) for _, content in sorted(shards(files).items())]
    assert [table.num_rows for table in tables] == [shard["rows"] for shard in told["shards"]] == [100, 100, 50]
    assert [name for table in tables for name in table["id"].to_pylist()] == expected[0]
    assert [row for table in tables for row in table["gradient"].to_pylist()] == expected[1]
    for table in tables:
        assert table.schema.metadata[b"feature_id"] == b"0123456789abcdef"
        assert table.schema.field("gradient").type.list_size == 16


def test_an_older_push_stays_under_its_commit_and_leaves_no_shard_in_the_newer(hub, client):
    found = client.run("""
        first = hub.push_features(features(250), "user/older")
        second = hub.push_features(features(120, seed=1), "user/older")
        return [hub.load_features("user/older", revision=first)[:] == features(250)[:],
                hub.load_features("user/older")[:] == features(120, seed=1)[:],
                len(load_dataset("user/older", split="train"))]
    """)
    assert found == [True, True, 120]
    assert sorted(shards(hub.files("user/older"))) == [f"data/train-0000{i}-of-00002.parquet" for i in range(2)]


def test_the_same_push_again_makes_no_commit(hub, client):
    first, second = client.run("""return [hub.push_features(features(), "user/same") for _ in range(2)]""")
    assert first == second == hub.head("user/same") and history(hub, "user/same") == 2


def test_selected_and_lengthless_gradients_are_pushed_as_rows_of_one_length(hub, client):
    found = client.run("""
        chosen = features().select([7, 3, 5]).cast_column("gradient", List(Value("float32")))
        hub.push_features(chosen, "user/chosen")
        back = hub.load_features("user/chosen")
        return [back["id"][:], back["gradient"][:] == chosen["gradient"][:], back.features["gradient"].length]
    """)
    assert found == [["row-7", "row-3", "row-5"], True, 16]


def test_the_metric_scores_pulled_features_as_those_that_were_pushed(client):
    pulled, reference = client.run("""
        import evaluate, hf_prism
        hub.push_features(features(60), "user/scored")
        pulled = hub.load_features("user/scored")
        feature_id = origin_of(pulled).feature_id
        result = evaluate.load("g_vendi").compute(
            gradients=pulled["gradient"], ids=pulled["id"], feature_id=feature_id)
        rows = np.array(features(60)["gradient"][:], dtype=np.float64)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        shares = np.linalg.eigvalsh(rows.T @ rows / 60)
        return [result, float(np.exp(-(shares * np.log(shares)).sum()))]
    """)
    assert pulled["g_vendi"] == pytest.approx(reference, rel=1e-9)
    assert (pulled["n"], pulled["feature_id"]) == (60, "0123456789abcdef") and len(pulled["interval"]) == 2


# A run of a local proxy.


@pytest.fixture(scope="module")
def pushed_run(hub, client, tmp_path_factory):
    """A run directory, featurized by a model in a folder of this machine, on the Hub with the rows it was made from."""
    folder = tmp_path_factory.mktemp("secret-place")
    model = save_tiny_model(folder / "proxy", tokenizer=tiny_tokenizer(chat_template=CHATML))
    rows = [{"prompt": f"How many clips are {i} and {i}?", "completion": f"{2 * i} clips"} for i in range(12)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    origin = client.run(f"""
        from hf_prism import GradientFeaturizer, featurize
        from hf_prism.rows import load_rows
        run = {str(folder / "run")!r}
        rows = load_rows({str(folder / "rows.jsonl")!r})
        featurizer = GradientFeaturizer({model!r}, dim=64, prompt_template="{{prompt}} `|` <!-- no -->")
        featurize(rows, featurizer, run, progress=False)
        hub.push_rows(rows.select(range(11, -1, -1)), "user/source", body="The rows.", metadata={{}})
        hub.push_features(run, "user/run", source="user/source")
        found = origin_of(hub.load_features(run))
        return [found.feature_id, dict(found.identity), found == origin_of(hub.load_features("user/run")),
                hub.load_features(run)[:] == hub.load_features("user/run")[:]]
    """)
    return folder, origin


def test_a_run_directory_comes_back_with_the_identity_of_its_featurizer(pushed_run):
    feature_id, identity, same_origin, same_rows = pushed_run[1]
    assert feature_id and identity["proxy.model"] == "local" and same_origin and same_rows


def test_nothing_pushed_names_the_token_or_a_place_on_this_machine(hub, pushed_run):
    folder, _ = pushed_run
    for name in ("user/run", "user/source"):
        for path, content in hub.files(name).items():
            if path.endswith(".parquet"):
                table = pq.read_table(io.BytesIO(content))
                content += json.dumps(table.to_pylist()).encode() + repr(table.schema.metadata).encode()
            for secret in ("hf_local", str(folder), str(Path.home()), folder.name):
                assert secret.encode() not in content, (path, secret)


def test_the_card_names_every_field_of_the_identity(hub, pushed_run):
    identity = pushed_run[1][1]
    card = hub.files("user/run")["README.md"].decode()
    cells = re.findall(r"^\| `([^`|]+)` \| `([^`|]*)` \|$", card, re.MULTILINE)
    shown = {name: value if re.fullmatch(r"[\w./:+-]+", value) else ast.literal_eval(value) for name, value in cells}
    assert {name: str(value) for name, value in shown.items()} == {
        name: str(value) for name, value in identity.items()
    }
    assert shown["prompt_template"] == "{prompt} `|` <!-- no -->"
    assert f"`{pushed_run[1][0]}`" in card and "12, 64" in card and "95 % interval" in card


def test_the_snippets_of_the_card_run_and_join_the_features_to_their_rows(hub, client, pushed_run):
    card = hub.files("user/run")["README.md"].decode()
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", card, re.DOTALL | re.MULTILINE))
    # The gradients were made with a template, so the ids are those of the rows under it, as the card says.
    code = code.replace(
        'features["id"], dataset)', 'features["id"], dataset, RowFormat(prompt_template="{prompt} `|` <!-- no -->"))'
    )
    found = client.run(f"""
        from hf_prism.samples import RowFormat
        names = {{"RowFormat": RowFormat}}
        exec({code!r}, names)
        return [names["dataset"]["prompt"][:], names["result"]["n"], names["result"]["feature_id"]]
    """)
    assert found[0] == [f"How many clips are {i} and {i}?" for i in range(12)]
    assert found[1:] == [12, pushed_run[1][0]]


# Rows.


def test_rows_come_back_with_their_features_their_metadata_and_their_text(hub, client):
    found = client.run("""
        kinds = Features(
            text=Value("string"), label=datasets.ClassLabel(names=["no", "yes"]), nothing=Value("null"),
            number=Value("float64"), nested=List({"a": Value("int8")}), when=Value("timestamp[ms]"))
        rows = Dataset.from_dict({
            "text": ["a", None, "c|d"], "label": [0, 1, 1], "nothing": [None] * 3, "number": [1.5, float("nan"), None],
            "nested": [[{"a": 1}], [], None], "when": [0, 1, None]}, features=kinds)
        first = hub.push_rows(rows, "user/rows", body="Chosen with *care*.", metadata={"k": 3, "clusters": {"0": 2}})
        again = hub.push_rows(rows, "user/rows", body="Chosen with *care*.", metadata={"k": 3, "clusters": {"0": 2}})
        back = load_dataset("user/rows", split="train")
        return [back.features == kinds, repr(back[:]) == repr(rows[:]), first == again]
    """)
    assert found == [True, True, True]
    files = hub.files("user/rows")
    assert json.loads(files["hf_prism.json"]) == {"k": 3, "clusters": {"0": 2}}
    assert f"{BEGIN}\nChosen with *care*.\n{END}" in files["README.md"].decode()
    assert "gradients" not in yaml.safe_load(files["README.md"].decode().split("---")[1])["tags"]


def test_the_card_of_a_selection_names_what_was_asked_and_leaves_lists_to_the_file():
    stability = {"next_seed": 0.5, "chance": 0.1}
    asked = {"method": "a|b", "k": 3, "g_vendi": 2.123456, "stability": stability, "quotas": None}
    card = module.selection_card({**asked, "cluster_sizes": [1, 2]})
    cells = dict(re.findall(r"^\| `([^`|]+)` \| `([^`|]*)` \|$", card, re.MULTILINE))
    assert {name: ast.literal_eval(value) for name, value in cells.items()} == {**asked, "g_vendi": 2.1235}


def test_pictures_travel_as_bytes_not_as_paths(hub, client, tmp_path):
    (tmp_path / "dot.png").write_bytes(png := b"\x89PNG not really")
    client.run(f"""
        rows = Dataset.from_dict({{"picture": [{str(tmp_path / "dot.png")!r}]}}, features=Features(
            picture=datasets.Image(decode=False)))
        return hub.push_rows(rows, "user/pictures", body="", metadata={{}})
    """)
    (content,) = shards(hub.files("user/pictures")).values()
    assert pq.read_table(io.BytesIO(content)).to_pylist() == [{"picture": {"bytes": png, "path": "dot.png"}}]


def test_a_push_does_not_take_over_a_dataset_that_holds_something_else(hub, client):
    client.run("""
        features(5).push_to_hub("user/mine")
        hub.push_rows(features(5), "user/chosen-rows", body="", metadata={})
    """)
    hub.create("user/source-rows")
    hub.edit("user/source-rows", **{"README.md": b"", "rows.jsonl": b"{}"})
    for name, file in (("mine", "data/train-0"), ("chosen-rows", "data/train-0"), ("source-rows", "rows.jsonl")):
        before = hub.head(f"user/{name}")
        message = client.error(f"hub.push_features(features(5), 'user/{name}')")
        assert f"holds something else ({file}" in message and hub.head(f"user/{name}") == before
    assert "holds something else" in client.error("hub.check_can_push('user/source-rows')")
    # Rows go where rows were pushed before, and gradients do not: found out before either is computed.
    client.run("hub.check_can_push('user/chosen-rows', manifest=hub.ROWS_FILE)")
    assert "no features.json" in client.error("hub.check_can_push('user/chosen-rows')")
    hub.create("user/only-text")
    hub.edit("user/only-text", **{"README.md": b"To come.", "LICENSE": b"mine"})
    client.run("""hub.push_features(features(5), "user/only-text")""")
    assert hub.files("user/only-text")["README.md"].split(b"---\n")[2].startswith(b"To come.")


def test_a_new_dataset_is_private_if_asked_and_a_public_one_is_not_pushed_to_as_private(hub, client):
    client.run("""
        hub.push_features(features(5), "user/secret", private=True)
        hub.push_features(features(6), "user/secret")
        hub.push_features(features(5), "user/public")
    """)
    assert hub.repository("user/secret").private and not hub.repository("user/public").private
    before = hub.head("user/public")
    assert "user/public is public" in client.error("""hub.push_features(features(6), "user/public", private=True)""")
    assert hub.head("user/public") == before
    hub.users["hf_other"] = User("other")
    refused = client.error("""hub.load_features("user/secret", token="hf_other")""")
    assert "shows you no dataset of that name" in refused and "hf auth login" in refused
    assert client.run("""return len(hub.load_features("user/secret"))""") == 6


# The card.


CARD = """---
# mine
license: mit
'pretty_name':   "Täst 数学" # note
tags: [math, hf_prism]
dataset_info:
- config_name: raw
  features: []
- config_name: default
  features: [{name: gone, dtype: string}]
# about the parts
configs:
- config_name: raw
  data_files: raw/*.csv
- config_name: default
  default: true
  data_files:
  - {split: train, path: elsewhere/*}
  - {split: extra, path: extra.csv}

# the end
date: 2026-01-02
---
My text, before.\x20\x20

<!-- hf_prism:begin -->
old
<!-- hf_prism:end -->

---
after | `it`"""


def test_an_edited_card_keeps_every_byte_that_is_not_ours(hub, client):
    client.run("""hub.push_features(features(), "user/card")""")
    for card in (CARD, CARD.replace("\n", "\r\n")):
        hub.edit("user/card", **{"README.md": card.encode(), "notes.txt": b"mine"})
        client.run("""hub.push_features(features(120), "user/card")""")
        new = hub.files("user/card")["README.md"].decode()
        newline = "\r\n" if "\r\n" in card else "\n"
        block = re.search(rf"{BEGIN}(.*){END}", new, re.DOTALL)
        assert block and "120, 16" in block[1] and "old" not in block[1].split()
        before, after = card.split(f"{newline}{BEGIN}")[0], card.split(END)[1]
        assert new.endswith(END + after) and before.split(f"{newline}---{newline}")[1] in new
        kept = [
            line
            for line in card.split(newline)
            if line.startswith(("#", "license", "'pretty", "date", "- config_name: raw"))
        ]
        lines = new.split(newline)
        assert [line for line in lines if line in kept] == kept
        assert newline == "\n" or "\n" not in new.replace("\r\n", "")
        data = yaml.safe_load(new.split(f"{newline}---{newline}")[0].removeprefix("---"))
        assert data == {
            "license": "mit",
            "pretty_name": "Täst 数学",
            "tags": ["math", "hf_prism", "gradients"],
            "dataset_info": [{"config_name": "raw", "features": []}],
            "configs": [
                {"config_name": "raw", "data_files": "raw/*.csv"},
                {
                    "config_name": "default",
                    "default": True,
                    "data_files": [
                        {"split": "train", "path": "data/train-*"},
                        {"split": "extra", "path": "extra.csv"},
                    ],
                },
            ],
            "date": datetime.date(2026, 1, 2),
            "size_categories": ["n<1K"],
        }
        head = hub.head("user/card")
        client.run("""hub.push_features(features(120), "user/card")""")
        assert hub.head("user/card") == head  # nothing left to change
    assert hub.files("user/card")["notes.txt"] == b"mine"


def merged(card: str, block: str = "new", num_rows: int = 5) -> str:
    return merged_card(card.encode(), "user/name", block=block, tags=("hf_prism", "gradients"), num_rows=num_rows)


KEYS = {
    "tags": ["hf_prism", "gradients"],
    "size_categories": ["n<1K"],
    "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*"}]}],
}


@pytest.mark.parametrize(
    ("card", "start", "more"),
    [
        ("", "# name\n", {}),
        ("Only text.  ", "Only text.  \n\n" + BEGIN, {}),
        ("Text.\n \n", "Text.\n \n\n" + BEGIN, {}),
        ("---\n---\nText.\n", "Text.\n", {}),
        ("\ufeff---\nlicense: mit\n---\nText.\n", "Text.\n", {"license": "mit"}),
        ("--- \nlicense: mit\n---  \nText.\n", "Text.\n", {"license": "mit"}),
        ("---\ntags:\n---\n", BEGIN, {}),
        ("---\ntags: gradients\n---\n", BEGIN, {"tags": ["gradients", "hf_prism"]}),
        ("---\nconfigs:\n  config_name: default\n  data_files: old.csv\n---\n", BEGIN, {}),
        ("---\ndataset_info: {features: []}\nsize_categories: [1M<n<10M]\n---\n", BEGIN, {}),
        ("---\ntext: |\n  # no comment\n\n  tags: none\n---\n", BEGIN, {"text": "# no comment\n\ntags: none\n"}),
        ("A line.\n\n---\nnot: yaml\n---\n", "A line.\n\n---\nnot: yaml\n---\n", {}),
    ],
)  # fmt: skip
def test_a_card_gets_our_keys_and_our_block_once_and_is_then_done(card, start, more):
    new = merged(card)
    head, front, body = re.split(r"^\ufeff?--- *\n|^--- *\n", new, maxsplit=2, flags=re.MULTILINE)
    assert head.strip("\ufeff") == "" and yaml.safe_load(front) == {**KEYS, **more}
    assert body.startswith(start) and body.count(BEGIN) == body.count(END) == 1
    assert f"{BEGIN}\nnew\n{END}" in body and merged(new) == new


@pytest.mark.parametrize(
    ("num_rows", "category"),
    [(1, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (99_999, "10K<n<100K"), (10**6, "1M<n<10M"), (10**9, "1B<n<10B")],
)
def test_the_size_category_is_the_one_the_hub_knows_for_this_many_rows(num_rows, category):
    assert yaml.safe_load(merged("", num_rows=num_rows).split("---")[1])["size_categories"] == [category]


@pytest.mark.parametrize(
    ("card", "problem"),
    [
        ("---\na: [1\n---\n", "is broken"),
        ("---\n- a\n---\n", "is no mapping"),
        ("---\n{license: mit}\n---\n", "cannot be set"),
        ("---\ntags: &t [a]\nother: *t\n---\n", "cannot be set"),
        (f"text\n{BEGIN}\nmore", "1 times and"),
        (f"{END}\n{BEGIN}\n", "in this order"),
        (f"{BEGIN}\n{END}\n{BEGIN}\n{END}\n", "2 times"),
    ],
)
def test_a_card_that_cannot_be_merged_is_an_error_that_says_why(card, problem):
    with pytest.raises(ValueError, match=re.escape(problem)) as error:
        merged(card)
    assert "README.md of user/name" in str(error.value)


def test_no_value_breaks_out_of_its_cell_or_of_the_block():
    hostile = "a|b`c``\\|\n| x | y |\n<!-- hf_prism:end -->\u2028\\`"
    origin = Origin("id|`", {"template|": hostile, "none": None, "number": 3, "plain": "a/b-c_d.e:f"})
    score = module.Covariance(2).update([[1.0, 0.0], [0.0, 1.0]]).score()
    block = module._features_block("user/name", origin, score, None)
    card = merged("", block)
    assert card.count(END) == 1 and merged(card, block) == card
    rows = re.findall(r"^\| `([^`|]+)` \| `([^`|]*)` \|$", card, re.MULTILINE)
    assert len(rows) == 4 and ast.literal_eval(dict(rows)[repr("template|").replace("|", "\\x7c")]) == hostile
    assert merged("", f"text {BEGIN}\n{END}").count(END) == 1


# What fails on the way.


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("PUT", "/_lfs/", 403), ("POST", "/objects/batch", 403), ("POST", "/commit/", 403), ("POST", "/commit/", 400)],
)
def test_a_push_that_fails_leaves_all_as_it_was_and_the_same_call_repairs_it(hub, client, method, path, status):
    name = f"user/failed-{method}-{status}-{len(path)}"
    client.run(f"""hub.push_features(features(250), {name!r})""")
    before, files = hub.head(name), hub.files(name)
    hub.fail(method, path, status)
    client.error(f"""hub.push_features(features(120, seed=3), {name!r})""")
    assert hub.head(name) == before and hub.files(name) == files
    assert client.run(f"""
        hub.push_features(features(120, seed=3), {name!r})
        return hub.load_features({name!r})[:] == features(120, seed=3)[:]
    """)


def test_a_pusher_killed_while_it_uploads_leaves_all_as_it_was(hub, client, tmp_path):
    client.run("""hub.push_features(features(250), "user/killed")""")
    before = hub.head("user/killed")
    with Client(hub, tmp_path / "victim") as victim:
        hub.fail("PUT", "/_lfs/", before=victim.process.kill)
        victim.start("""hub.push_features(features(120, seed=4), "user/killed")""")
        assert victim.process.wait() == -9
    assert hub.head("user/killed") == before
    assert client.run("""
        hub.push_features(features(120, seed=4), "user/killed")
        return hub.load_features("user/killed")[:] == features(120, seed=4)[:]
    """)


def test_an_old_shard_that_is_gone_when_it_is_to_be_deleted_is_no_obstacle(hub, client):
    client.run("""hub.push_features(features(250), "user/gone")""")
    hub.fail("POST", "user/gone/commit/", 404, headers={"X-Error-Code": "EntryNotFound"})
    assert client.run("""return hub.push_features(features(5), "user/gone")""") == hub.head("user/gone")
    assert len(shards(hub.files("user/gone"))) == 1


def test_a_lost_answer_does_not_commit_twice(hub, client):
    client.run("""hub.push_features(features(5), "user/lost")""")
    commits = history(hub, "user/lost")
    hub.fail("POST", "/commit/", lost=True)
    assert client.run("""return hub.push_features(features(6), "user/lost")""") == hub.head("user/lost")
    assert history(hub, "user/lost") == commits + 1


def test_pushers_at_the_same_time_all_end_well_and_the_repository_is_one_of_theirs(hub, client, tmp_path):
    client.run("""hub.push_features(features(5), "user/race")""")
    gate = threading.Barrier(2)
    hub.fail("POST", "/datasets/user/race/commit/", times=2, before=gate.wait)  # so one of them comes too late
    with Client(hub, tmp_path / "second") as second:
        for pusher, size in ((second, 250), (client, 120)):
            pusher.start(f"""return hub.push_features(features({size}, seed={size}), "user/race")""")
        commits = [second.finish(), client.finish()]
    assert any(request.status == 412 for request in hub.requests if "user/race/commit" in request.path)
    assert commits[0] != commits[1] and hub.head("user/race") in commits
    for commit, size in zip(commits, (250, 120), strict=True):
        assert client.run(f"""
            return hub.load_features("user/race", revision={commit!r})[:] == features({size}, seed={size})[:]
        """)
        assert len(shards(hub.files("user/race", commit))) == -(-size // 100)


def test_a_shard_that_somebody_replaces_meanwhile_is_pushed_again(hub, client):
    client.run("""hub.push_features(features(50), "user/replaced")""")
    shard = "data/train-00000-of-00001.parquet"
    ours = hub.files("user/replaced")[shard]
    # At first the Hub has this shard, and the client need not send it; at the second try it has another.
    hub.fail("POST", "/commit/", before=lambda: hub.edit("user/replaced", **{shard: b"other", "README.md": b"theirs"}))
    client.run("""hub.push_features(features(50), "user/replaced", source="user/changed")""")
    files = hub.files("user/replaced")
    assert files[shard] == ours and b"theirs" in files["README.md"] and BEGIN.encode() in files["README.md"]


@pytest.mark.parametrize(
    ("headers", "least"),
    [({"Retry-After": "7"}, 7), ({"RateLimit": '"api";r=0;t=55'}, 55), ({}, 0.5)],
)
def test_a_busy_hub_is_given_the_time_it_asks_for(hub, client, headers, least):
    name = f"user/busy-{least}"
    hub.fail("POST", "/repos/create", 503, headers=headers)
    hub.fail("POST", f"{name}/commit/", 429, headers=headers, times=2)
    waits = client.run(f"""
        from types import SimpleNamespace
        waits, access.time, access.FIRST_WAIT = [], SimpleNamespace(sleep=lambda seconds: waits.append(seconds)), 1.0
        try:
            hub.push_features(features(5), {name!r})
        finally:
            import time
            hub.time = time
        return waits
    """)
    assert len(waits) == 3 and all(least <= wait <= least + 4 for wait in waits)
    assert len(hub.files(name)) == 3


@pytest.mark.parametrize(
    ("status", "headers", "tries"), [(429, {}, 8), (429, {"Retry-After": "3600"}, 1), (400, {}, 1)]
)
def test_a_hub_that_stays_busy_is_asked_a_bounded_number_of_times(hub, client, status, headers, tries):
    client.run("""hub.push_features(features(5), "user/stubborn")""")
    before = hub.head("user/stubborn")
    fault = hub.fail("POST", "user/stubborn/commit/", status, headers=headers, times=100)
    assert "this fails on purpose" in client.error("""hub.push_features(features(6), "user/stubborn")""")
    assert 100 - fault.times == tries and hub.head("user/stubborn") == before


# Who may push, and what.


def test_a_push_that_cannot_succeed_is_refused_before_anything_is_done(hub, client):
    hub.users |= {
        "hf_reader": User("reader", role="read"),
        "hf_fine": User("fine", role="fineGrained"),
        "hf_member": User("member", orgs={"lab": "write", "club": "read"}),
    }
    hub.create("lab/open")
    hub.create("somebody/theirs")
    hub.create("member/model", kind="model")
    told = {}
    for name, token in [
        ("no-namespace", "hf_member"), ("a/b/c", "hf_member"), ("member/what?", "hf_member"), ("member/new", "hf_wrong"),
        ("reader/new", "hf_reader"), ("fine/new", "hf_fine"), ("somebody/new", "hf_member"), ("club/new", "hf_member"),
        ("somebody/theirs", "hf_member"),
    ]:  # fmt: skip
        told[name, token] = client.error(f"hub.check_can_push({name!r}, {token!r})")
    parts = [
        ("does not say whose", "USER/NAME"), ("cannot be the name",), ("cannot be the name",),
        ("does not accept the token", "hf auth login"), ("may only read", "hf auth login"), ("may only read",),
        ("neither 'member'", "lab", "member/new"), ("neither 'member'",), ("may not write to it", "member/theirs"),
    ]  # fmt: skip
    for (case, message), expected in zip(told.items(), parts, strict=True):
        assert message.startswith("ValueError: "), (case, message)
        assert all(part in message for part in expected), (case, message)
    fine = ("lab/new", "lab/open", "member/new", "member/model")  # a model of that name is no dataset
    client.run(f"for name in {fine}: hub.check_can_push(name, 'hf_member')")
    requests = len(hub.requests)
    assert "may only read" in client.error("""hub.push_features(features(), "reader/new", token="hf_reader")""")
    assert [request.path for request in hub.requests[requests:]] == ["/api/whoami-v2"]


def test_a_dataset_goes_beside_a_model_of_the_same_name(hub, client):
    hub.create("user/both", kind="model")
    client.run("""hub.push_features(features(5), "user/both")""")
    assert client.run("""return len(hub.load_features("user/both"))""") == 5
    assert hub.files("user/both", kind="model") == {}


def test_without_a_token_the_error_says_how_to_log_in(client):
    message = client.error("""
        import huggingface_hub.hf_api as api
        real, api.get_token = api.get_token, lambda: None
        try:
            hub.check_can_push("user/new")
        finally:
            api.get_token = real
    """)
    assert message.startswith("ValueError") and "needs a token" in message and "hf auth login" in message


@pytest.mark.parametrize(
    ("features", "parts"),
    [
        ("Dataset.from_dict({'text': ['a']})", ["no id and no gradient", "['text']"]),
        ("features(origin=Origin())", ["which featurizer", "stamp"]),
        ("features(0)", ["empty"]),
        ("ORIGIN.stamp(features(3).cast_column('gradient', List(Value('float64'), length=16)))", ["float32"]),
        ("ORIGIN.stamp(Dataset.from_dict({'id': ['a', 'a'], 'gradient': [[1.0], [1.0]]}, features=Features("
         "id=Value('string'), gradient=List(Value('float32')))))", ["'a' is repeated"]),
        ("ORIGIN.stamp(Dataset.from_dict({'id': ['a', 'b'], 'gradient': [[1.0], None]}, features=Features("
         "id=Value('string'), gradient=List(Value('float32'), length=1))))", ["1 of 2 rows have no gradient"]),
        ("'/nowhere/at/all'", ["/nowhere/at/all is not a run directory"]),
    ],
)  # fmt: skip
def test_what_is_no_whole_set_of_features_is_not_pushed(hub, client, features, parts):
    message = client.error(f"hub.push_features({features}, 'user/never')")
    assert message.startswith("ValueError") and all(part in message for part in parts), message
    assert ("dataset", "user/never") not in hub.repositories


def test_a_source_that_is_a_path_is_not_published(client):
    message = client.error("hub.push_features(features(), 'user/never', source='/home/me/rows.jsonl')")
    assert message.startswith("ValueError") and "no Hub id" in message


def test_what_holds_no_features_is_an_error_that_lists_what_is_there(hub, client):
    hub.create("user/none")
    hub.edit("user/none", **{"data.csv": b"a\n1\n", "README.md": b"hello"})
    message = client.error("hub.load_features('user/none')")
    assert all(part in message for part in ("no features.json", "README.md, data.csv", "hf-prism featurize user/none"))
    hub.edit("user/none", **{"features.json": b'{"columns": []}'})
    assert "its features.json is something else" in client.error("hub.load_features('user/none')")
    assert "shows you no dataset of that name" in client.error("hub.load_features('user/nowhere')")
    client.run("hub.push_features(features(5), 'user/pinned')")
    assert "no revision 'v9'" in client.error("hub.load_features('user/pinned', revision='v9')")
    assert "needs a Hub id" in client.error("hub.load_features('.', revision='v9')")
    assert "is not a run directory" in client.error("hub.load_features('/nowhere/at/all')")


@pytest.mark.parametrize(("field", "value"), [("rows", 6), ("dim", 8), ("feature_id", "f" * 16)])
def test_files_that_contradict_each_other_are_not_loaded(hub, client, field, value):
    name = f"user/contradiction-{field}"
    client.run(f"hub.push_features(features(5), {name!r})")
    told = json.loads(hub.files(name)["features.json"])
    hub.edit(name, **{"features.json": json.dumps({**told, field: value}).encode()})
    message = client.error(f"hub.load_features({name!r})")
    assert "do not belong together" in message and f"{field} is {told[field]!r}, not {value!r}" in message


def test_what_was_loaded_once_loads_again_when_the_hub_is_away(tmp_path_factory):
    folder = tmp_path_factory.mktemp("away")
    with serve(folder / "hub") as hub, Client(hub, folder / "home") as client:
        client.run("""
            hub.push_features(features(5), "user/away")
            hub.load_features("user/away")
        """)
        hub.close()
        assert client.run("""return hub.load_features("user/away")[:] == features(5)[:]""")
    with pytest.raises(ValueError, match="'user/other' is no run directory here, .* could not be reached"):
        module.load_features("user/other")  # this process is offline


def test_the_command_pushes_gradients_and_chosen_rows_and_starts_from_what_others_pushed(hub, client, tmp_path):
    """`featurize --push-to`, `select --push-to`, and gradients on the Hub as DATA, over HTTP."""
    told = client.run(f"""
        import contextlib, io
        from hf_prism.cli import main
        rows = [{{"id": f"r{{i}}", "prompt": f"{{i}} + 1?", "completion": f"{{i + 1}}"}} for i in range(12)]
        data, out = Path({str(tmp_path / "rows.jsonl")!r}), Path({str(tmp_path)!r})
        data.write_text("".join(json.dumps(row) + "\\n" for row in rows))
        results = []
        for line in (
            f"featurize {{data}} --model embedded --dim 64 --output {{out / 'run'}} --push-to user/cli-gradients",
            f"select user/cli-gradients --source {{data}} -k 4 --output {{out / 'chosen'}} --push-to user/cli-rows --private",
            f"score user/cli-gradients",
            f"score {{out / 'run'}}",
        ):
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                assert main([*line.split(), "--json"]) == 0
            results.append(json.loads(printed.getvalue().splitlines()[-1]))
        loaded = load_dataset("user/cli-rows", split="train").to_list()
        ids = json.loads((out / "chosen" / "selection.json").read_text())["ids"]
        return {{
            "pushed": [result.get("pushed_to") for result in results[:2]],
            "rows": loaded == [row for row in rows if row["id"] in ids] and len(loaded) == 4,
            "score": results[2] == results[3],
        }}
    """)
    assert told == {"pushed": ["user/cli-gradients", "user/cli-rows"], "rows": True, "score": True}
    card = hub.files("user/cli-rows")["README.md"].decode()
    assert "`greedy`" in card and str(tmp_path) not in card
    assert hub.repositories["dataset", "user/cli-rows"].private
