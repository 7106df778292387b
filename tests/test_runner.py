"""A run survives crashes, damage and impatience, and never mixes two runs."""

import errno
import json
import os
import re
import shutil

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from helpers import CHATML, save_tiny_model, tiny_tokenizer
from processes import (
    BATCH_TOKENS,
    CHUNK_TOKENS,
    KILL_POINTS,
    ROWS,
    checksums,
    events,
    finish,
    leftovers,
    manifest,
    recomputed,
    start,
    start_ranks,
)

from hf_prism import GradientFeaturizer, featurize, run_directory
from hf_prism import runner as module
from hf_prism.runner import load_features, plan_chunks


@pytest.fixture(scope="module")
def proxy(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("proxy")
    save_tiny_model(path, "qwen2", tokenizer=tiny_tokenizer(chat_template=CHATML))
    return str(path)


@pytest.fixture(scope="module")
def whole(proxy, tmp_path_factory) -> dict[str, str]:
    """The checksums of an uninterrupted run; like all runs to compare with, in a process of its own."""
    output = tmp_path_factory.mktemp("whole")
    assert finish(start(proxy, output)) == [0]
    return checksums(output)


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(module, "CHUNK_TOKENS", CHUNK_TOKENS)
    monkeypatch.setattr("hf_prism.batches.BATCH_TOKENS", BATCH_TOKENS)


def run(proxy, output, rows=ROWS, **options):
    featurizer = GradientFeaturizer(proxy, dim=64, device="cpu", **options)
    return featurize(datasets.Dataset.from_list(rows), featurizer, output, progress=False)


# These come first: a child may hang if its parent has computed with several threads before the fork.
@pytest.mark.parametrize(("point", "world"), list(zip(KILL_POINTS, [1, 2, 1, 2, 1, 1, 1], strict=True)))
def test_killed_run_resumes_to_the_same_bytes_and_redoes_at_most_one_chunk(proxy, whole, tmp_path, point, world):
    assert finish(start(proxy, tmp_path, before=KILL_POINTS[point])) == [-9]
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in tmp_path.glob("chunks/*.parquet")}
    lost = recomputed(tmp_path)
    assert max(lost.values()) <= 1
    assert finish(*start_ranks(proxy, tmp_path, world)) == [0] * world
    assert checksums(tmp_path) == whole and not leftovers(tmp_path)
    rewritten = [path for path in before if before[path] != (path.stat().st_ino, path.stat().st_mtime_ns)]
    assert len(rewritten) == ("manifest line" in point)  # written, but not yet committed


def test_rows_come_back_by_id_in_the_order_of_the_dataset(proxy, tmp_path, small_chunks):
    features = run(proxy, tmp_path)
    assert features.column_names == ["id", "gradient", "gradient_norm", "loss", "num_tokens"]
    assert features["id"] == [row["id"] for row in ROWS]
    assert features.features["gradient"] == datasets.List(datasets.Value("float32"), length=64)
    singles = GradientFeaturizer(proxy, dim=64, device="cpu")
    for row, got in zip(ROWS, features, strict=True):
        np.testing.assert_allclose(got["gradient"], singles(row)["gradient"], rtol=0, atol=1e-5)


def test_chunks_are_a_function_of_the_lengths_and_hold_every_row_once():
    lengths = np.random.default_rng(0).integers(0, 500, 3000).tolist()
    chunks = plan_chunks(lengths)
    rows = [row for chunk in chunks for batch in chunk for row in batch]
    assert sorted(rows) == [row for row, length in enumerate(lengths) if length]
    assert len(chunks) > 5 and chunks == plan_chunks(lengths)


def test_finished_run_is_not_computed_again(proxy, tmp_path, monkeypatch):
    first = run(proxy, tmp_path)
    before = sorted(path for path in tmp_path.rglob("*"))
    monkeypatch.setattr(GradientFeaturizer, "featurize_batches", None)
    monkeypatch.setattr("hf_prism.proxy.ProxyModel.model", None)
    assert run(proxy, tmp_path)[:] == first[:]
    assert sorted(path for path in tmp_path.rglob("*")) == before


def flip(path, position=-100):
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def swap(one, other):
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


# What happens to the directory, and how many chunks are computed again.
DAMAGE = {
    "flipped byte": (lambda run: flip(run / "chunks" / "00001.parquet"), 1),
    "cut off": (lambda run: os.truncate(run / "chunks" / "00001.parquet", 1000), 1),
    "emptied": (lambda run: os.truncate(run / "chunks" / "00001.parquet", 0), 1),
    "missing": (lambda run: (run / "chunks" / "00001.parquet").unlink(), 1),
    "swapped": (lambda run: swap(run / "chunks" / "00001.parquet", run / "chunks" / "00002.parquet"), 2),
    "all missing": (lambda run: shutil.rmtree(run / "chunks"), 5),
    "no manifests": (lambda run: [path.unlink() for path in run.rglob("manifest.jsonl")], 5),
}


@pytest.mark.parametrize("damage, num_chunks", DAMAGE.values(), ids=DAMAGE)
def test_damaged_chunks_are_found_and_repaired(proxy, tmp_path, small_chunks, whole, damage, num_chunks):
    first = run(proxy, tmp_path)[:]
    begun = len(events(tmp_path, "begin"))
    assert begun == 5
    damage(tmp_path)
    with pytest.raises(ValueError, match=f"holds {5 - num_chunks} of 5 chunks"):
        load_features(tmp_path)
    assert run(proxy, tmp_path)[:] == first
    assert len(events(tmp_path, "begin")) - begun == num_chunks
    assert checksums(tmp_path) == whole


MERGED_DAMAGE = {
    "flipped byte": lambda run: flip(run / "features.arrow", 3000),
    "missing": lambda run: (run / "features.arrow").unlink(),
    "no checksum": lambda run: (run / "features.json").unlink(),
    "torn checksum": lambda run: (run / "features.json").write_text('{"rows": 2'),
    "of other chunks": lambda run: edit(run / "features.json", chunks="0123456789abcdef"),
}


@pytest.mark.parametrize("load", [load_features, None], ids=["load", "run"])
@pytest.mark.parametrize("damage", MERGED_DAMAGE.values(), ids=MERGED_DAMAGE)
def test_a_damaged_or_stale_merged_file_is_made_again_from_the_chunks(
    proxy, tmp_path, small_chunks, whole, monkeypatch, damage, load
):
    first = run(proxy, tmp_path)[:]
    damage(tmp_path)
    monkeypatch.setattr("hf_prism.proxy.ProxyModel.model", None)
    assert (load or (lambda path: run(proxy, path)))(tmp_path)[:] == first
    assert checksums(tmp_path) == whole


# What a manifest may hold after a crash, or someone's editor; {line} is a good line.
ODD_LINES = ["{half", "null", "17", "[]", "{}", '{"chunk": 0}', '{"chunk": "0"}', '{"chunk": true}', '{"chunk": -1}',
    '{"chunk": 99, "file": "chunks/00099.parquet"}', '{"chunk": 0, "file": "../../etc/passwd", "sha256": ""}',
    '{"chunk": 0, "file": "chunks/00000.parquet", "rows": 3, "sha256": null}', "\x00\x00\x00", '{"event": "chunk"}',
    '{"chunk": 0, "file": "chunks/00000.parquet", "rows": 3, "parts": {"x": 1}}', "\udcff"]  # fmt: skip


def test_manifest_lines_that_make_no_sense_spoil_no_other(proxy, tmp_path, small_chunks, whole):
    first = run(proxy, tmp_path)[:]
    odd = "\n".join(ODD_LINES).encode(errors="surrogateescape")
    for path in tmp_path.rglob("manifest.jsonl"):
        path.write_bytes(odd + b"\n" + path.read_bytes()[:-30])  # the last line is torn
    assert run(proxy, tmp_path)[:] == first
    assert len(events(tmp_path, "begin")) == 6
    assert checksums(tmp_path) == whole


@pytest.mark.parametrize(
    ("rows", "options", "field"),
    [
        (ROWS, {"seed": 1}, "seed: 0 there, 1 now"),
        (ROWS[:-1], {}, "rows: 20 there, 19 now"),
        ([*ROWS, {**ROWS[0], "id": "new"}], {}, "rows: 20 there, 21 now"),
        (ROWS[::-1], {}, "dataset"),
        ([*ROWS[:-1], {**ROWS[-1], "completion": "91 clips"}], {}, "dataset"),  # an edit of the same length and id
    ],
)
def test_another_run_in_the_directory_is_refused_and_what_differs_is_named(
    proxy, tmp_path, monkeypatch, rows, options, field
):
    run(proxy, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    monkeypatch.setattr("hf_prism.proxy.ProxyModel.model", None)
    with pytest.raises(ValueError, match=f"holds another run.*{field}"):
        run(proxy, tmp_path, rows, **options)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_chunks_of_another_run_never_count_even_if_its_configuration_is_gone(proxy, tmp_path, small_chunks):
    run(proxy, tmp_path)
    (tmp_path / "config.json").unlink()
    other = run(proxy, tmp_path, seed=5)
    expected = run(proxy, tmp_path.with_name("expected"), seed=5)
    np.testing.assert_array_equal(
        other.with_format("numpy")["gradient"][:], expected.with_format("numpy")["gradient"][:]
    )


def test_a_run_that_begins_elsewhere_at_the_same_moment_decides_and_the_other_is_refused(
    proxy, tmp_path, small_chunks, monkeypatch
):
    (other := tmp_path / "other").mkdir()
    run(proxy, other, seed=5)
    begun, created = json.loads((other / "config.json").read_text()), []

    def too_late(path, value):
        created.append(create_json(path, begun))
        return create_json(path, value)

    create_json = run_directory.create_json
    monkeypatch.setattr(run_directory, "create_json", too_late)
    with pytest.raises(ValueError, match="holds another run. What differs: seed: 5 there, 0 now"):
        run(proxy, tmp_path / "run")
    assert created == [True] and not list(tmp_path.glob("run/chunks/*"))


def test_whoever_lost_the_configuration_keeps_the_chunks(proxy, tmp_path, small_chunks, whole, monkeypatch):
    features = run(proxy, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("chunks/*")}
    (tmp_path / "config.json").unlink()
    again = run(proxy, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("chunks/*")} == before
    np.testing.assert_array_equal(
        again.with_format("numpy")["gradient"][:], features.with_format("numpy")["gradient"][:]
    )


def test_an_empty_directory_name_is_refused(proxy):
    with pytest.raises(ValueError, match="is empty: is a variable unset"):
        run(proxy, "")


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
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "chunks").touch()
    with pytest.raises(ValueError, match="a file is in the way"):
        run(proxy, tmp_path / "run")
    with pytest.raises(ValueError, match="rows 0 and 20 share the id 'row-0'"):
        run(proxy, tmp_path / "ids", [*ROWS, ROWS[0]])


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_place_that_cannot_be_written_is_named(proxy, tmp_path, monkeypatch, number):
    """Root may write anywhere, so the refusal is made up."""

    def refuse(path, *_, **__):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr("hf_prism.proxy.ProxyModel.model", None)
    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    with pytest.raises(ValueError, match=f"run cannot be written .{os.strerror(number)}.*Choose another directory"):
        run(proxy, tmp_path / "run")


# What config.json holds, and what the message says.
BAD_CONFIGS = {
    "torn": ('{"vers', "config.json is damaged"),
    "no text": (b"\xff\xfe\x00", "config.json is damaged"),
    "a list": ("[1, 2]", "config.json holds a list, not an object"),
    "null": ("null", "config.json holds a NoneType, not an object"),
    "a model's": ('{"model_type": "qwen2"}', "lacks a whole number `chunks`.*delete that file"),
    "chunks of text": ('{"chunks": "5", "feature_id": "x"}', "lacks a whole number `chunks`"),
    "no chunks": ('{"feature_id": "x"}', "lacks a whole number `chunks`"),
}


@pytest.mark.parametrize("content, said", BAD_CONFIGS.values(), ids=BAD_CONFIGS)
def test_a_config_that_is_none_is_an_error_for_every_reader(proxy, tmp_path, monkeypatch, content, said):
    monkeypatch.setattr("hf_prism.proxy.ProxyModel.model", None)
    path = tmp_path / "config.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    for read in (
        lambda: run(proxy, tmp_path),
        lambda: load_features(tmp_path),
        lambda: module.feature_id_of(tmp_path),
    ):
        with pytest.raises(ValueError, match=said):
            read()
    assert list(tmp_path.iterdir()) == [path]


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
    (tmp_path / "chunks" / "00000.parquet").unlink()
    run(proxy, tmp_path, rows, on_empty="skip")  # a resumed run does not log them again
    logged = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(e["id"], e["reason"]) for e in logged if e["event"] == "skipped"] == [("empty", "empty")]


def test_files_are_what_design_says_and_carry_the_feature_id(proxy, tmp_path, small_chunks):
    run(proxy, tmp_path)
    feature_id = GradientFeaturizer(proxy, dim=64).feature_id
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["feature_id"] == feature_id and config["dim"] == 64
    lines = manifest(tmp_path)
    assert [set(entry) for entry in lines] == [{"run", "chunk", "file", "rows", "ids", "sha256"}] * config["chunks"]
    for entry in lines:
        assert pq.read_schema(tmp_path / entry["file"]).metadata[b"feature_id"].decode() == feature_id
    loaded = datasets.load_dataset("parquet", data_files=str(tmp_path / "chunks" / "*.parquet"), split="train")
    assert sorted(loaded["id"]) == sorted(row["id"] for row in ROWS)


def test_bad_rows_are_found_before_the_model_is_loaded(proxy, tmp_path, monkeypatch):
    monkeypatch.setattr("hf_prism.proxy.ProxyModel.model", None)
    with pytest.raises(ValueError, match="row 20.*'late'.*completion"):
        run(proxy, tmp_path, [*ROWS, {"id": "late", "prompt": "x", "completion": None}])
    assert not list(tmp_path.iterdir())


def test_the_cost_is_told_before_the_work_and_the_throughput_after(proxy, tmp_path, small_chunks, monkeypatch, capsys):
    monkeypatch.setattr(module, "ESTIMATE_BATCHES", 2)
    featurize(datasets.Dataset.from_list(ROWS), GradientFeaturizer(proxy, dim=64), tmp_path)
    told = capsys.readouterr().err
    assert "20 rows to featurize" in told and re.search(r"[\d.]+ kB on disk at", told)
    assert re.search(r"550 tokens, \d{3} tokens with padding, about \d+ (seconds|minutes)", told)
    assert told.index("rows to featurize") < told.index("Featurizing") < told.index("20 rows, 550 tokens in")
    assert re.search(r"[\d.]+ rows/s, [\d,]+ tokens/s", told)
    (end,) = events(tmp_path, "end")
    assert (end["rows"], end["tokens"]) == (20, 550)


def test_the_disk_space_told_is_no_less_and_hardly_more_than_is_used(proxy, tmp_path, small_chunks, monkeypatch):
    asked = []
    monkeypatch.setattr("hf_prism.run_directory.RunDirectory.require_space", lambda self, size: asked.append(size))
    rows = [{**ROWS[i % 20], "id": f"a rather long id of row {i}"} for i in range(500)]
    featurize(datasets.Dataset.from_list(rows), GradientFeaturizer(proxy, dim=1024), tmp_path, progress=False)
    used = sum(path.stat().st_size for path in [*tmp_path.glob("chunks/*.parquet"), tmp_path / "features.arrow"])
    chunks = len(manifest(tmp_path))
    assert used <= asked[0] <= 1.03 * used + 8192 * chunks


def test_too_little_space_is_an_error_before_any_computation(proxy, tmp_path, monkeypatch):
    monkeypatch.setattr(GradientFeaturizer, "featurize_batches", None)
    monkeypatch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6 - 999, 999))
    with pytest.raises(OSError, match=r"needs [\d.]+ kB on disk.*only 1.0 kB are free. Nothing was computed") as error:
        run(proxy, tmp_path)
    assert error.value.errno == errno.ENOSPC and error.value.filename == str(tmp_path)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize(
    ("file", "committed"), [("00003.parquet", 3), ("manifest.jsonl", 0), ("log.jsonl", 0), ("features.arrow", 5)]
)
def test_a_disk_that_fills_up_loses_nothing_that_was_committed(
    proxy, tmp_path, small_chunks, whole, monkeypatch, file, committed, number
):
    flush = os.fsync

    def full(descriptor):
        name = os.readlink(f"/proc/self/fd/{descriptor}")
        if file in name:
            os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)  # what there was room for
            raise OSError(number, os.strerror(number))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        OSError, match=f"the disk is full, or.*{committed} of 5 chunks are safe.*run the same"
    ) as error:
        run(proxy, tmp_path)
    assert error.value.errno == number and error.value.filename == str(tmp_path)
    assert not leftovers(tmp_path)
    monkeypatch.setattr(os, "fsync", flush)
    begun = len(events(tmp_path, "begin"))
    run(proxy, tmp_path)
    assert checksums(tmp_path) == whole
    assert len(events(tmp_path, "begin")) - begun == 5 - committed


def test_batches_that_memory_did_not_hold_are_divided_in_the_same_way_when_their_chunk_is_redone(
    proxy, tmp_path, small_chunks, monkeypatch
):
    launch, sizes = GradientFeaturizer._launch, []

    def short_of_memory(self, rows):
        if len(rows) > 1:
            raise torch.OutOfMemoryError
        return launch(self, rows)

    def recording(self, rows):
        sizes.append(len(rows))
        return launch(self, rows)

    monkeypatch.setattr(GradientFeaturizer, "_launch", short_of_memory)
    run(proxy, tmp_path)
    first = checksums(tmp_path)
    (line,) = [entry for entry in manifest(tmp_path) if entry["chunk"] == 3]
    assert line["parts"] and all(set(parts) == {1} for parts in line["parts"].values())
    assert line["parts"] in [event["parts"] for event in events(tmp_path, "divided")]
    (tmp_path / line["file"]).unlink()
    monkeypatch.setattr(GradientFeaturizer, "_launch", recording)
    run(proxy, tmp_path)
    assert sizes == [1] * line["rows"]
    assert checksums(tmp_path) == first


def test_a_chunk_that_was_computed_in_whole_batches_is_redone_so(proxy, tmp_path, small_chunks, monkeypatch):
    run(proxy, tmp_path)
    first = checksums(tmp_path)
    given = []
    original = GradientFeaturizer.featurize_batches
    monkeypatch.setattr(
        GradientFeaturizer,
        "featurize_batches",
        lambda self, batches, parts=None: given.append(parts) or original(self, batches, parts),
    )
    (tmp_path / "chunks" / "00004.parquet").unlink()
    run(proxy, tmp_path)
    lengths = [len(batch) for batch in plan_of(proxy)[4]]
    assert given == [{i: [length] for i, length in enumerate(lengths)}]
    assert checksums(tmp_path) == first


def plan_of(proxy):
    return plan_chunks(
        module.survey(datasets.Dataset.from_list(ROWS), GradientFeaturizer(proxy), progress=False).lengths
    )
