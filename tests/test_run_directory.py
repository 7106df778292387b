"""What is in a run directory counts by its checksum, whoever wrote it, and merges in the dataset's order."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import datasets
import numpy as np
import pyarrow as pa
import pytest

from hf_prism import run_directory as module
from hf_prism.files import append_lines, read_lines, replacing, sweep
from hf_prism.run_directory import RunDirectory, load_features


DIM = 16


def table(rows, dim=DIM):
    """A chunk as the runner makes it, with gradients that tell their row."""
    features = datasets.Features(
        row=datasets.Value("int64"),
        id=datasets.Value("string"),
        gradient=datasets.List(datasets.Value("float32"), length=dim),
        truncated=datasets.Value("bool"),
    )
    schema = features.arrow_schema
    schema = schema.with_metadata({**schema.metadata, b"feature_id": b"0123"})
    gradients = pa.FixedSizeListArray.from_arrays(pa.array(gradient_of(rows, dim).reshape(-1)), dim)
    columns = [rows, [f"row-{row}" for row in rows], gradients, [row % 3 == 0 for row in rows]]
    return pa.table(
        [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)], schema=schema
    )


def gradient_of(rows, dim=DIM):
    return np.sin(np.asarray(rows)[:, None] * np.arange(1, dim + 1)).astype(np.float32)


def directory(path, chunks, writer="me") -> RunDirectory:
    found = RunDirectory(path)
    found.open(writer)
    found.write_config({"chunks": len(chunks), "feature_id": "0123"})
    for number, rows in enumerate(chunks):
        found.commit(number, table(rows), {})
    return found


def shuffled(num_rows, num_chunks, seed=0):
    order = np.random.default_rng(seed).permutation(num_rows)
    return [part.tolist() for part in np.array_split(order, num_chunks)]


@pytest.mark.parametrize("merge_rows", [1, 7, 100, 4096])
def test_rows_of_shuffled_chunks_come_out_in_order_whatever_the_size_of_a_record_batch(
    tmp_path, monkeypatch, merge_rows
):
    monkeypatch.setattr(module, "MERGE_ROWS", merge_rows)
    kept = [row for row in range(103) if row % 10]  # rows that were skipped leave no gap
    order = np.random.default_rng(0).permutation(kept)
    run = directory(tmp_path, [part.tolist() for part in np.array_split(order, 6)] + [[]])
    run.finish()
    merged = load_features(tmp_path)
    assert merged["id"][:] == [f"row-{row}" for row in kept]
    assert merged["truncated"][:] == [row % 3 == 0 for row in kept]
    np.testing.assert_array_equal(merged.with_format("numpy")[:]["gradient"], gradient_of(kept))
    assert merged.column_names == ["id", "gradient", "truncated"]
    assert merged.features["gradient"] == datasets.List(datasets.Value("float32"), length=DIM)
    assert pa.ipc.open_stream(tmp_path / "features.arrow").schema.metadata[b"feature_id"] == b"0123"
    assert merged.cache_files == [{"filename": str(tmp_path / "features.arrow")}]  # memory-mapped


def test_the_merged_file_is_what_load_dataset_reads(tmp_path):
    directory(tmp_path / "run", shuffled(50, 4)).finish()
    path = str(tmp_path / "run" / "features.arrow")
    loaded = datasets.load_dataset("arrow", data_files=path, split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.features == load_features(tmp_path / "run").features
    assert loaded[:] == load_features(tmp_path / "run")[:]


def test_a_run_of_skipped_rows_only_merges_to_nothing(tmp_path):
    directory(tmp_path, [[], []]).finish()
    assert len(load_features(tmp_path)) == 0 and load_features(tmp_path).column_names == [
        "id",
        "gradient",
        "truncated",
    ]


def test_a_merge_holds_no_more_than_a_chunk_and_a_record_batch(tmp_path):
    """30,000 gradients of 1024 numbers are 123 MB."""
    code = f"""
import sys
sys.path.insert(0, {os.path.dirname(__file__)!r})
from test_run_directory import *
run = RunDirectory(sys.argv[1])
run.open("me")
run.write_config({{"chunks": 60, "feature_id": "0123"}})
for number, rows in enumerate(shuffled(30_000, 60)):
    run.commit(number, table(rows, 1024), {{}})
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1000
before = peak()
run.finish()
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert (tmp_path / "features.arrow").stat().st_size > 122e6
    assert float(done.stdout) < 60  # MB
    features = load_features(tmp_path)
    np.testing.assert_array_equal(features.with_format("numpy")[29_000]["gradient"], gradient_of([29_000], 1024)[0])


def test_the_files_do_not_depend_on_the_number_of_writers(tmp_path):
    chunks = shuffled(200, 9)
    directory(tmp_path / "one", chunks).finish()
    several = [RunDirectory(tmp_path / "three") for _ in range(3)]
    for number, run in enumerate(several):
        run.open(f"writer-{number}")
        run.write_config({"chunks": 9, "feature_id": "0123"})
    for number, rows in reversed(list(enumerate(chunks))):
        several[number % 3].commit(number, table(rows), {})
    several[1].finish()
    for name in ("features.arrow", "features.json", "manifest.jsonl", "config.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "three" / name).read_bytes()


def test_processes_that_finish_at_the_same_time_do_not_disturb_each_other(tmp_path):
    run = directory(tmp_path, shuffled(300, 5))
    for _ in range(5):
        (tmp_path / "features.json").unlink(missing_ok=True)
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(lambda _: RunDirectory(tmp_path).finish(), range(8))) == [None] * 8
        assert run.is_finished() and load_features(tmp_path)["id"][:] == [f"row-{row}" for row in range(300)]


def test_a_chunk_counts_by_the_line_that_describes_it_whichever_came_last(tmp_path):
    """Two machines may compute a chunk with different last bits."""
    run = directory(tmp_path, [[0, 1], [2, 3]], "first")
    again = RunDirectory(tmp_path)
    again.open("again")
    again.commit(1, table([3, 2]), {})
    assert run.committed()[1] == again.committed()[1] != list(read_lines(run._own / "manifest.jsonl"))[1]
    run.commit(1, table([2, 3]), {})
    assert again.committed()[1] == list(read_lines(run._own / "manifest.jsonl"))[1]


def test_a_repaired_chunk_is_merged_again(tmp_path):
    run = directory(tmp_path, [[0, 1], [2, 3]])
    run.finish()
    repaired = table([2, 3]).set_column(1, "id", pa.array(["new-2", "new-3"]))
    run.commit(1, repaired.cast(table([2]).schema), {})
    assert load_features(tmp_path)["id"][:] == ["row-0", "row-1", "new-2", "new-3"]


def test_lines_of_many_writers_are_all_read_in_order_of_time(tmp_path):
    runs = [RunDirectory(tmp_path) for _ in range(4)]
    for number, run in enumerate(runs):
        run.open(f"writer-{number}")
    for i in range(40):
        runs[i % 4].log({"event": "count", "i": i})
        time.sleep(0.001)  # the log's resolution
    assert [event["i"] for event in runs[0].events()] == list(range(40))


def test_a_torn_line_spoils_no_other(tmp_path):
    path = tmp_path / "lines"
    append_lines(path, {"a": 1}, {"a": 2})
    os.truncate(path, path.stat().st_size - 4)
    append_lines(path, {"a": 3})
    assert list(read_lines(path)) == [{"a": 1}, {"a": 3}]


def test_a_file_that_could_not_be_written_leaves_what_was_there(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as file:
        file.write(b"new")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_temporary_files_of_the_dead_are_swept_and_those_of_the_living_are_not(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host = os.uname().nodename
    living, gone = tmp_path / f".a.arrow~{host}~{os.getpid()}~01", tmp_path / f".a.arrow~{host}~{dead.pid}~02"
    elsewhere, forgotten = tmp_path / ".a.arrow~other~1~03", tmp_path / ".a.arrow~other~1~04"
    others = [tmp_path / ".notes~x~y~z", tmp_path / "a.arrow"]
    for path in (living, gone, elsewhere, forgotten, *others):
        path.touch()
    os.utime(forgotten, (0, 0))
    sweep(tmp_path)
    assert set(tmp_path.iterdir()) == {living, elsewhere, *others}
