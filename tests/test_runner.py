"""A run directory survives crashes, damage and impatience, and never mixes two runs."""

import json
import re
import subprocess
import sys

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers import CHATML, save_tiny_model, tiny_tokenizer

from hf_prism import GradientFeaturizer, featurize
from hf_prism import runner as module
from hf_prism.runner import load_features, plan_chunks


ROWS = [
    {"id": f"row-{i}", "prompt": f"Clips in May? {'half as many ' * (i % 5)}", "completion": f"{i} clips"}
    for i in range(20)
]


@pytest.fixture(scope="module")
def proxy(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("proxy")
    save_tiny_model(path, "qwen2", tokenizer=tiny_tokenizer(chat_template=CHATML))
    return str(path)


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(module, "CHUNK_TOKENS", 100)
    monkeypatch.setattr("hf_prism.batches.BATCH_TOKENS", 60)


def run(proxy, output, rows=ROWS, **options):
    return featurize(
        datasets.Dataset.from_list(rows), GradientFeaturizer(proxy, dim=64, **options), output, progress=False
    )


def test_rows_come_back_by_id_in_the_order_of_the_dataset(proxy, tmp_path, small_chunks):
    features = run(proxy, tmp_path)
    assert features.column_names == ["id", "gradient", "gradient_norm", "loss", "num_tokens"]
    assert features["id"] == [row["id"] for row in ROWS]
    assert features.features["gradient"] == datasets.List(datasets.Value("float32"), length=64)
    singles = GradientFeaturizer(proxy, dim=64)
    for row, got in zip(ROWS, features, strict=True):
        np.testing.assert_allclose(got["gradient"], singles(row)["gradient"], rtol=0, atol=1e-5)


def test_chunks_are_a_function_of_the_lengths_and_hold_every_row_once():
    lengths = np.random.default_rng(0).integers(0, 500, 3000).tolist()
    chunks = plan_chunks(lengths)
    rows = [row for chunk in chunks for batch in chunk for row in batch]
    assert sorted(rows) == [row for row, length in enumerate(lengths) if length]
    assert len(chunks) > 5 and chunks == plan_chunks(lengths)


def test_killed_run_resumes_to_the_same_bytes_and_redoes_only_what_was_not_committed(proxy, tmp_path, small_chunks):
    whole = run(proxy, tmp_path / "whole")
    script = """
import sys, os
sys.path.insert(0, sys.argv[3])
import test_runner as t
t.module.CHUNK_TOKENS = 100
import hf_prism.featurizer as f
import hf_prism.batches as b
b.BATCH_TOKENS = 60
original, state = f.GradientFeaturizer.featurize_batch, {"left": int(sys.argv[4])}
def dying(self, rows):
    state["left"] -= 1
    if state["left"] < 0:
        os.kill(os.getpid(), 9)
    return original(self, rows)
f.GradientFeaturizer.featurize_batch = dying
t.run(sys.argv[1], sys.argv[2])
"""
    for batches in (0, 4, 7):
        output = tmp_path / f"killed-{batches}"
        arguments = [sys.executable, "-c", script, proxy, str(output), str(module.Path(__file__).parent), str(batches)]
        assert subprocess.run(arguments, capture_output=True).returncode == -9
        before = {path: path.read_bytes() for path in output.glob("chunks/*.parquet")}
        assert (batches == 0) == (not before)
        assert run(proxy, output)[:] == whole[:]
        assert all(path.read_bytes() == content for path, content in before.items())


def test_finished_run_is_not_computed_again(proxy, tmp_path, monkeypatch):
    first = run(proxy, tmp_path)
    monkeypatch.setattr(GradientFeaturizer, "featurize_batch", None)
    monkeypatch.setattr("hf_prism.proxy.ProxyModel.model", None)
    assert run(proxy, tmp_path)[:] == first[:]


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"PAR1 not any more")])
def test_missing_or_damaged_chunks_are_found_and_repaired(proxy, tmp_path, small_chunks, damage):
    first = run(proxy, tmp_path)
    damage(tmp_path / "chunks" / "00001.parquet")
    with pytest.raises(ValueError, match="holds .* of .* chunks"):
        load_features(tmp_path)
    assert run(proxy, tmp_path)[:] == first[:]


def test_a_torn_manifest_line_spoils_no_other(proxy, tmp_path, small_chunks):
    first = run(proxy, tmp_path)
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text(manifest.read_text()[:-30])
    assert run(proxy, tmp_path)[:] == first[:]
    assert load_features(tmp_path)[:] == first[:]


@pytest.mark.parametrize(
    ("rows", "options", "field"),
    [
        (ROWS, {"seed": 1}, "seed: 0 there, 1 now"),
        (ROWS[:-1], {}, "rows: 20 there, 19 now"),
        (ROWS[::-1], {}, "dataset"),
        ([*ROWS[:-1], {**ROWS[-1], "completion": "91 clips"}], {}, "dataset"),  # an edit of the same length and id
    ],
)
def test_another_run_in_the_directory_is_refused_and_what_differs_is_named(proxy, tmp_path, rows, options, field):
    run(proxy, tmp_path)
    with pytest.raises(ValueError, match=f"holds another run.*{field}"):
        run(proxy, tmp_path, rows, **options)


def test_a_tilde_is_the_home_directory(proxy, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run(proxy, "~/run")[:] == load_features("~/run")[:]
    assert (tmp_path / "run" / "config.json").exists()


def test_a_run_that_cannot_begin_says_why(proxy, tmp_path, monkeypatch):
    monkeypatch.setattr("hf_prism.proxy.ProxyModel.model", None)
    empty = [{"prompt": "x", "completion": ""}] * 2
    with pytest.raises(ValueError, match="All 2 rows are skipped.*row 0.*completion is empty"):
        run(proxy, tmp_path / "empty", empty, on_empty="skip")
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="a file is in the way"):
        run(proxy, tmp_path / "file")
    (tmp_path / "config.json").write_text('{"vers')
    with pytest.raises(ValueError, match="config.json is damaged"):
        run(proxy, tmp_path)


@pytest.mark.parametrize(
    ("dataset", "said"),
    [
        (datasets.Dataset.from_list(ROWS).select([]), "holds no rows"),
        (datasets.Dataset.from_list(ROWS).to_iterable_dataset(), "cannot read rows from a IterableDataset"),
        (datasets.DatasetDict(a=datasets.Dataset.from_list(ROWS), b=datasets.Dataset.from_list(ROWS)), "one of: a, b"),
    ],
)
def test_what_is_no_data_set_of_rows_is_refused(proxy, tmp_path, dataset, said):
    with pytest.raises(ValueError, match=said):
        featurize(dataset, GradientFeaturizer(proxy, dim=64), tmp_path / "run", progress=False)


def test_skipped_rows_are_left_out_and_logged_with_the_reason(proxy, tmp_path):
    rows = [*ROWS[:3], {"id": "empty", "prompt": "x", "completion": ""}]
    assert run(proxy, tmp_path, rows, on_empty="skip")["id"] == ["row-0", "row-1", "row-2"]
    events = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(e["id"], e["reason"]) for e in events if e["event"] == "skipped"] == [("empty", "empty")]


def test_files_are_what_design_says_and_carry_the_feature_id(proxy, tmp_path, small_chunks):
    run(proxy, tmp_path)
    feature_id = GradientFeaturizer(proxy, dim=64).feature_id
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["feature_id"] == feature_id and config["dim"] == 64
    manifest = [json.loads(line) for line in (tmp_path / "manifest.jsonl").read_text().splitlines()]
    assert [set(entry) for entry in manifest] == [{"chunk", "file", "rows", "ids", "sha256"}] * config["chunks"]
    for entry in manifest:
        assert pq.read_schema(tmp_path / entry["file"]).metadata[b"feature_id"].decode() == feature_id
    loaded = datasets.load_dataset("parquet", data_files=str(tmp_path / "chunks" / "*.parquet"), split="train")
    assert sorted(loaded["id"]) == sorted(row["id"] for row in ROWS)


def test_bad_rows_are_found_before_the_model_is_loaded(proxy, tmp_path, monkeypatch):
    monkeypatch.setattr("hf_prism.proxy.ProxyModel.model", None)
    with pytest.raises(ValueError, match="row 20.*'late'.*completion"):
        run(proxy, tmp_path, [*ROWS, {"id": "late", "prompt": "x", "completion": None}])
    assert not list(tmp_path.iterdir())


def test_the_cost_is_told_before_the_work(proxy, tmp_path, small_chunks, monkeypatch, capsys):
    monkeypatch.setattr(module, "ESTIMATE_BATCHES", 2)
    featurize(datasets.Dataset.from_list(ROWS), GradientFeaturizer(proxy, dim=64), tmp_path)
    told = capsys.readouterr().err
    assert "20 rows to featurize" in told and "0.0 MB on disk" in told
    assert re.search(r"tokens with padding, about \d+ (seconds|minutes)", told)
    assert told.index("rows to featurize") < told.index("Featurizing")
