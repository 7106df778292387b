"""`compare`, `select` and `report` from the command line: the library's own numbers, and wrong input found out early."""

import json
import shutil

import numpy as np
import pytest
from datasets import Dataset
from helpers import save_tiny_model
from test_cli import strictly, write

from hf_prism import GradientFeaturizer, compare, featurize, load_features, select
from hf_prism.cli import METHODS, main
from hf_prism.origin import origin_of
from hf_prism.rows import load_rows
from hf_prism.selection import METHODS as LIBRARY_METHODS


ROWS = [
    {
        "id": f"r{i}",
        "prompt": f"How many clips in May? {i % 7}",
        "completion": f"{i} clips" * (1 + i % 3),
        "score": i % 5,
        "kind": "even" if i % 2 == 0 else "odd",
    }
    for i in range(40)
]


@pytest.fixture(scope="module")
def proxy(tmp_path_factory):
    return ["--model", save_tiny_model(tmp_path_factory.mktemp("proxy")), "--dim", "64"]


@pytest.fixture(scope="module")
def places(proxy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    data, run = write(folder / "rows.jsonl", ROWS), str(folder / "run")
    other = write(folder / "other.jsonl", [{**row, "id": f"o{row['id']}", "prompt": "x"} for row in ROWS])
    gone = write(folder / "gone.jsonl", ROWS[:30])
    alike = write(folder / "alike.jsonl", [{**ROWS[0], "id": str(i)} for i in range(10)])
    bad = write(folder / "bad.jsonl", [{**row, "score": -1.0 if row["id"] == "r3" else 1.0} for row in ROWS])
    ungrouped = write(
        folder / "ungrouped.jsonl", [{**row, "kind": None if row["id"] == "r5" else "a"} for row in ROWS]
    )
    assert main(["featurize", data, *proxy, "--output", run]) == 0
    assert main(["featurize", other, *proxy[:2], "--dim", "32", "--output", f"{run}32"]) == 0
    found = locals()
    return {f"{{{name}}}": found[name] for name in ("data", "run", "other", "gone", "alike", "bad", "ungrouped")}


@pytest.fixture
def run(places, proxy, capsys):
    """Run a command on the good files; returns its JSON and what it told."""

    def command(line, *arguments):
        words = line.split() + [str(argument) for argument in arguments]
        for short, place in places.items():
            words = [word.replace(short, place) for word in words]
        assert main([*words, "--json"]) == 0
        told = capsys.readouterr()
        return strictly(told.out.splitlines()[-1]), told.err

    return command


def test_the_command_has_the_methods_of_the_library():
    assert METHODS == LIBRARY_METHODS


@pytest.mark.parametrize("method", METHODS)
def test_select_equals_python_whether_it_starts_from_rows_or_from_gradients(run, places, proxy, tmp_path, method):
    arguments = f"-k 9 --method {method} --quality score --group kind --quota even=6 --clusters 5 --output"
    from_rows, _ = run(f"select {{data}} {' '.join(proxy)} {arguments}", tmp_path / "rows")
    from_run, _ = run(f"select {{run}} --source {{data}} {arguments}", tmp_path / "run")
    assert {**from_rows, "output": 0} == {**from_run, "output": 0}
    kinds, scores = ([row[name] for row in ROWS] for name in ("kind", "score"))
    features = load_features(places["{run}"])
    chosen = select(features, 9, method=method, quality=scores, groups=kinds, quotas={"even": 6}, n_clusters=5)
    details = json.loads((tmp_path / "run" / "selection.json").read_text())
    assert details["positions"] == chosen.indices.tolist()
    assert details["ids"] == [ROWS[i]["id"] for i in chosen.indices]
    assert details["quotas"] == {"even": 6, "odd": 3} and details["quality"] == "score"
    for folder in ("rows", "run"):
        rows = load_rows(tmp_path / folder / "selected.parquet")
        assert rows.to_list() == [ROWS[i] for i in sorted(chosen.indices)]  # whole rows, in the order of the data


def test_select_from_gradients_alone_keeps_what_made_them(run, places, tmp_path):
    run("select {run} -k 5 --output", tmp_path)
    selected = load_rows(tmp_path / "selected.parquet")
    assert len(selected) == 5 and origin_of(selected) == origin_of(load_features(places["{run}"]))
    with pytest.raises(ValueError, match="do not compare"):
        compare({"a": selected, "b": load_features(places["{run}"] + "32")})


def test_shuffled_rows_and_skipped_rows_make_no_difference_to_what_is_selected(run, proxy, tmp_path):
    shuffled = [ROWS[i] for i in np.random.default_rng(0).permutation(len(ROWS))]
    shuffled.insert(3, {**ROWS[0], "id": "empty", "completion": " "})
    data = write(tmp_path / "shuffled.jsonl", shuffled)
    run(f"select {{data}} {' '.join(proxy)} -k 12 --output", tmp_path / "a")
    run(f"select {data} {' '.join(proxy)} --on-empty skip -k 12 --output", tmp_path / "b")
    a, b = (json.loads((tmp_path / name / "selection.json").read_text()) for name in "ab")
    assert a["ids"] == b["ids"]
    chosen = load_rows(tmp_path / "b" / "selected.parquet")
    assert set(chosen["id"]) == set(a["ids"]) and chosen["completion"][0] != " "


def test_compare_equals_python(run, places, proxy, tmp_path):
    result, told = run(f"compare {{data}} {{other}} {' '.join(proxy)} --output", tmp_path)
    features = {
        name: featurize(
            load_rows(places[f"{{{file}}}"]), GradientFeaturizer(proxy[1], dim=64), tmp_path / name, progress=False
        )
        for name, file in (("rows", "data"), ("other", "other"))
    }
    assert result.pop("output") == str(tmp_path)
    assert result == compare(features).as_dict() == json.loads((tmp_path / "compare.json").read_text())
    assert result["pairs"][0]["verdict"] in told and (tmp_path / "compare.png").stat().st_size > 1000
    again, _ = run("compare", tmp_path / "rows", tmp_path / "other")  # run directories
    assert again == result


def test_gradients_compare_with_rows_that_are_featurized_like_them(run, places, proxy, tmp_path):
    mixed, _ = run(f"compare {{run}} {{other}} {' '.join(proxy)} --output", tmp_path)
    ready, _ = run("compare {run}", tmp_path / "other")
    assert {**mixed, "output": 0} == {**ready, "output": 0}


def test_sets_of_one_name_get_folders_of_their_own_and_leave_the_data_alone(run, proxy, tmp_path):
    for folder in "ab":
        (tmp_path / folder).mkdir()
        Dataset.from_list([{**row, "id": folder + row["id"]} for row in ROWS]).save_to_disk(
            tmp_path / folder / "train"
        )
    before = sorted(path.name for path in (tmp_path / "a" / "train").iterdir())
    result, _ = run(
        f"compare {' '.join(proxy)}", tmp_path / "a/train", tmp_path / "b/train", "--output", tmp_path / "out"
    )
    assert list(result["scores"]) == ["a-train", "b-train"] and (tmp_path / "out" / "a-train" / "chunks").is_dir()
    assert sorted(path.name for path in (tmp_path / "a" / "train").iterdir()) == before


def test_more_sets_than_colours_and_odd_names_make_a_picture(run, places, tmp_path):
    names = [f"set{i}" for i in range(6)] + ["_hidden", "a$\\foo$"]
    for name in names:
        shutil.copytree(places["{run}"], tmp_path / name)
    result, _ = run("compare", *(tmp_path / name for name in names), "--order", "2", "--output", tmp_path / "out")
    assert len(result["scores"]) == 8 and (tmp_path / "out" / "compare.png").stat().st_size > 1000


def test_report_writes_one_page_from_rows_or_gradients(run, proxy, tmp_path):
    result, told = run(f"report {{data}} {' '.join(proxy)} --label kind --output", tmp_path / "rows")
    page = (tmp_path / "rows" / "report.html").read_text()
    assert result["report"] == str(tmp_path / "rows" / "report.html") and result["n"] == 40
    assert "How many clips in May?" in page and str(tmp_path) not in page
    run("report {run} --output", tmp_path / "run")
    bare = (tmp_path / "run" / "report.html").read_text()
    assert "r17" in bare and "How many clips in May?" not in bare
    run("report {run} --source {data} --output", tmp_path / "joined")
    assert "How many clips in May?" in (tmp_path / "joined" / "report.html").read_text()


def test_what_map_makes_can_be_reported_and_chosen_from(run, proxy, tmp_path, capsys):
    """No id, and a row that was skipped."""
    rows = [{name: row[name] for name in ("prompt", "completion")} for row in ROWS]
    rows[3]["completion"] = " "
    mapped = Dataset.from_list(rows).map(GradientFeaturizer(proxy[1], dim=64, on_empty="skip"), batched=True)
    mapped.save_to_disk(tmp_path / "mapped")
    capsys.readouterr()
    run("report", tmp_path / "mapped", "--output", tmp_path / "out")
    assert "How many clips in May?" in (tmp_path / "out" / "report.html").read_text()
    result, _ = run("select", tmp_path / "mapped", "-k", 5, "--output", tmp_path / "out")
    assert result["n"] == 39


def test_loss_is_a_quality_like_any_column(run, places, tmp_path):
    run("select {run} -k 5 --quality loss --output", tmp_path)
    loss = load_features(places["{run}"])["loss"][:]
    expected = select(load_features(places["{run}"]), 5, quality=loss)
    assert json.loads((tmp_path / "selection.json").read_text())["positions"] == expected.indices.tolist()


def test_a_gradient_column_can_be_chosen_from_and_reported(run, tmp_path, capsys):
    vectors = np.random.default_rng(0).standard_normal((30, 8)).astype(np.float32)
    columns = {"id": [str(i) for i in range(30)], "gradient": vectors.tolist(), "note": ["n"] * 30}
    Dataset.from_dict(columns).save_to_disk(tmp_path / "data")
    capsys.readouterr()
    result, _ = run("select", tmp_path / "data", "-k", 4, "--output", tmp_path / "out")
    assert result["g_vendi"] == pytest.approx(select(vectors, 4, ids=columns["id"]).metadata["g_vendi"])
    assert load_rows(tmp_path / "out" / "selected.parquet")["note"][:] == ["n"] * 4
    run("report", tmp_path / "data", "--output", tmp_path / "out")


# What is wrong, the arguments, and what the message says. Nothing is computed: the model cannot be loaded.
BAD = [
    ("no k", "select {data}", ["-k"]),
    ("k of zero", "select {data} -k 0", ["k must be a whole number of at least 1, got 0"]),
    ("k no number", "select {data} -k many", ["'many'"]),
    ("k above the rows", "select {data} -k 41", ["k = 41 is more than the 40 rows"]),
    ("method", "select {data} -k 4 --method best", ["'best'", "greedy"]),
    ("quality column", "select {data} -k 4 --quality scor", ["--quality names a column 'scor'", "score"]),
    ("negative quality", "select {bad} -k 4 --quality score", ["row 3", "quality -1.0"]),
    ("quality as text", "select {data} -k 4 --quality kind", ["row 0", "quality 'even'"]),
    ("group column", "select {data} -k 4 --group kin", ["--group names a column 'kin'"]),
    ("missing group", "select {ungrouped} -k 4 --group kind", ["row 5", "has no group"]),
    ("quota of no group", "select {data} -k 4 --group kind --quota evn=2", ["'evn'", "did you mean 'even'"]),
    ("quota without group", "select {data} -k 4 --quota even=2", ["quotas are by group", "--group"]),
    ("quota twice", "select {data} -k 4 --group kind --quota even=2 --quota even=1", ["'even' twice"]),
    ("quota no number", "select {data} -k 4 --group kind --quota even", ["--quota 'even'", "GROUP=N"]),
    ("quotas above k", "select {data} -k 4 --group kind --quota even=5", ["add up to 5, more than k = 4"]),
    ("clusters", "select {run} -k 4 --clusters 0", ["n_clusters must be a whole number"]),
    ("quality of gradients", "select {run} -k 4 --quality score", ["--quality score", "--source DATA"]),
    ("source of rows", "select {data} -k 4 --source {data}", ["holds the rows themselves"]),
    ("rows that are gone", "select {run} -k 4 --source {gone}", ["10 of 40 ids are not among the 30 rows", "'r30'"]),
    ("options on gradients", "select {run} -k 4 --dim 32", ["is a run directory", "--dim cannot apply"]),
    ("identical gradients", "select {alike} -k 4", ["all 10 rows point in the same direction"]),
    ("one dataset", "compare {run}", ["nothing to compare", "with: give two or more"]),
    ("the same twice", "compare {run} {run}", ["is given twice"]),
    ("other feature_id", "compare {run} {run}32", ["do not compare", "dim: 64 and 32"]),
    ("order", "compare {run} {run}32 --order -1", ["order -1.0"]),
    ("label column", "report {run} --source {data} --label kin", ["--label names a column 'kin'", "kind"]),
    ("label of rows", "report {data} --label kin", ["--label names a column 'kin'"]),
    ("clusters of rows", "select {data} -k 4 --clusters 41", ["n_clusters must be a whole number from 1 to the 40 rows"]),
    ("subset of a source", "select {run} -k 4 --source {data} --max-samples 9", ["--max-samples cannot apply"]),
    ("private without push", "select {data} -k 4 --private", ["--private is about --push-to"]),
    ("output in the way", "compare {run} {run}32 --output {data}", ["is a file"]),
    ("split", "report {data} --split test", ["no splits", "'test'"]),
    ("push without a name", "featurize {data} --output {run}x --push-to name", ["does not say whose it is"]),
    ("push of a shard", "featurize {data} --output {run}x --shard 1/2 --push-to user/name", ["--push-to needs all rows"]),
]  # fmt: skip


@pytest.mark.parametrize("line, said", [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_bad_input_is_status_2_with_a_message_before_anything_is_computed(
    proxy, places, monkeypatch, capsys, line, said
):
    if "{alike}" not in line:
        monkeypatch.setattr("hf_prism.proxy.ProxyModel.model", None)
    words = line.split()
    if "{run}" not in words[1]:
        words += proxy
    for short, place in places.items():
        words = [word.replace(short, place) for word in words]
    try:
        status = main(words)
    except SystemExit as exit:  # argparse
        status = exit.code
    told = capsys.readouterr()
    assert status == 2 and told.out == ""
    assert not [text for text in said if text not in told.err], told.err
