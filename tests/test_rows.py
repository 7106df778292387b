"""Rows arrive whole from every source, every row has a stable id, and every layout is read the same."""

from __future__ import annotations

import json
import subprocess
import sys

import pyarrow as pa
import pytest
from datasets import Dataset, DatasetDict, load_from_disk

from hf_prism.rows import load_rows, matching_rows, row_ids
from hf_prism.samples import RowError, RowFormat, Sample


ROWS = [
    {"id": "a", "prompt": "1+1?", "completion": "2"},
    {"id": "b", "prompt": 'say "hi",\nplease', "completion": "hi — déjà"},
    {"id": "c", "prompt": "null", "completion": "007"},
]


def write(path, rows=ROWS):
    dataset = Dataset.from_list(rows)
    if path.suffix == ".jsonl":
        path.write_text("\n\n".join(json.dumps(row) for row in rows))  # blank lines are no rows
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".parquet":
        dataset.to_parquet(path)
    elif path.suffix == ".csv":
        dataset.to_csv(path)
    elif path.suffix == ".tsv":
        dataset.to_csv(path, sep="\t")
    elif path.name == "saved":
        dataset.save_to_disk(path)
    elif path.name == "splits":
        DatasetDict(train=dataset, test=dataset.select([0])).save_to_disk(path)
    elif path.name == "run":  # a run directory: its chunks are in another order than the rows
        (path / "chunks").mkdir(parents=True)
        dataset.select([2, 0]).to_parquet(path / "chunks" / "00000.parquet")
        dataset.select([1]).to_parquet(path / "chunks" / "00001.parquet")
        write(path / "features.arrow", rows)
    else:
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, dataset.data.schema) as stream:
            stream.write_table(dataset.data.table)
    return path


SOURCES = ["rows.jsonl", "rows.json", "rows.parquet", "rows.csv", "rows.tsv", "saved", "splits", "run"]


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_gives_the_same_rows(tmp_path, name):
    assert load_rows(str(write(tmp_path / name))).to_list() == ROWS


def test_rows_in_memory_pass_through(tmp_path):
    dataset = Dataset.from_list(ROWS)
    assert load_rows(dataset) is dataset
    assert load_rows(ROWS).to_list() == ROWS
    assert load_rows(DatasetDict(only=dataset)).to_list() == ROWS
    assert load_rows(load_from_disk(str(write(tmp_path / "splits"))), split="test").to_list() == ROWS[:1]


def test_a_parquet_folder_is_read_in_the_order_of_its_names(tmp_path):
    assert load_rows(write(tmp_path / "run") / "chunks").to_list() == [ROWS[i] for i in (2, 0, 1)]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.parquet"])
def test_an_edited_file_is_seen_even_with_its_old_date(tmp_path, name):
    import os

    path = write(tmp_path / name)
    stat = path.stat()
    load_rows(path)
    changed = [{**row, "completion": row["completion"][::-1]} for row in ROWS]
    write(path, changed)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert load_rows(path).to_list() == changed


def test_cells_of_a_csv_file_stay_the_text_they_are(tmp_path):
    (tmp_path / "rows.csv").write_text("prompt,completion\n007,1e3\n2,\nnull,NA\n")
    assert load_rows(tmp_path / "rows.csv").to_dict() == {
        "prompt": ["007", "2", "null"],
        "completion": ["1e3", "", "NA"],
    }


def test_columns_of_all_rows_are_kept(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a"}\n{"text": "b", "note": "late"}\n')
    assert load_rows(path).to_list() == [{"text": "a", "note": None}, {"text": "b", "note": "late"}]


def test_splits_default_to_the_only_one_or_train(tmp_path):
    path = write(tmp_path / "splits")
    assert len(load_rows(path)) == 3 and len(load_rows(path, split="test")) == 1
    with pytest.raises(ValueError, match="has no split 'dev'; choose .* one of: train, test"):
        load_rows(path, split="dev")
    with pytest.raises(ValueError, match="several splits and none is called train"):
        load_rows(DatasetDict(a=Dataset.from_list(ROWS), b=Dataset.from_list(ROWS)))


def test_an_id_that_the_hub_does_not_give_says_why():
    with pytest.raises(
        ValueError, match="'acme/none' is no file or folder here, and it could not be loaded from the Hub"
    ):
        load_rows("acme/none")


def test_max_samples_is_a_seeded_nested_subset_in_order():
    rows = load_rows([{"text": str(i)} for i in range(500)])

    def chosen(k, seed=0):
        return [int(t) for t in load_rows(rows, max_samples=k, seed=seed)["text"]]

    assert chosen(50) == sorted(chosen(50)) == chosen(50) != chosen(50, seed=1)
    assert set(chosen(20)) < set(chosen(50)) and chosen(500) == chosen(9999) == list(range(500))
    assert chosen(5) == [62, 396, 405, 423, 498]  # on any machine, with any version
    assert 200 < sum(chosen(100)) / 100 < 300  # from everywhere, not from the head


def test_ids_are_the_users_or_the_content():
    rows = load_rows(ROWS)
    assert row_ids(rows).ids == ["a", "b", "c"] and row_ids(rows).column == "id"
    assert row_ids(rows.rename_column("id", "key"), RowFormat({"id": "key"})).ids == ["a", "b", "c"]
    assert row_ids(load_rows([{"id": 7, "text": "x"}])).ids == ["7"]
    by_content = row_ids(rows, RowFormat({"id": None}))
    assert by_content.column is None and by_content.ids == row_ids(rows.remove_columns("id")).ids
    assert (
        by_content.ids[0] == "a30578ac52fea12ffa14d27976b2ff41"
    )  # b2sum -l 128 of {"completion": "2", "prompt": "1+1?"}


def test_content_ids_follow_the_content_not_its_place_or_column_names():
    rows = load_rows(ROWS).remove_columns("id")
    ids = row_ids(rows).ids
    assert row_ids(rows.select([2, 0, 1])).ids == [ids[2], ids[0], ids[1]]
    renamed = rows.rename_columns({"prompt": "q", "completion": "a"}).add_column("extra", [1, 2, 3])  # type: ignore[call-arg]
    assert row_ids(renamed, RowFormat({"prompt": "q", "completion": "a"})).ids == ids
    rendered = row_ids(renamed, RowFormat(prompt_template="{q}", completion_template="{a}"))
    assert rendered.ids == ids
    assert len(set(ids + row_ids(rows, RowFormat(prompt_template="Q: {prompt}")).ids)) == 6


def test_repeats_get_numbers_and_are_counted():
    repeated = row_ids(load_rows([{"text": t} for t in "abaac"]))
    first, other = repeated.ids[0], repeated.ids[1]
    assert repeated.ids == [first, other, f"{first}-1", f"{first}-2", repeated.ids[4]] and repeated.num_repeats == 2


def test_layouts_in_order_of_preference():
    read = RowFormat().sample
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    assert read({"prompt": "p", "completion": "c", "text": "t"}) == Sample(prompt="p", completion="c")
    assert read({"messages": messages, "text": "t"}) == Sample(messages=messages)
    assert read({"text": "t", "prompt": "p"}) == Sample(text="t")
    assert read({"prompt": messages[:1], "completion": messages[1:]}) == Sample(
        prompt=messages[:1], completion=messages[1:]
    )


def test_a_mapping_says_which_layout_is_meant():
    row = {"prompt": "p", "completion": "c", "body": "t", "answer": "a"}
    assert RowFormat({"text": "body"}).sample(row) == Sample(text="t")
    assert RowFormat({"completion": "answer"}).sample(row) == Sample(prompt="p", completion="a")
    assert RowFormat(completion_template="{answer}!").sample(row) == Sample(prompt="p", completion="a!")


def test_templates_render_any_columns():
    nli = RowFormat(prompt_template="Premise: {premise}\nHypothesis: {hypothesis}", completion_template="{label}")
    row = {"premise": "It {rains}.", "hypothesis": "Wet.", "label": 2, "unused": None}
    assert nli.sample(row) == Sample(prompt="Premise: It {rains}.\nHypothesis: Wet.", completion="2")
    nested = RowFormat(prompt_template="{q[text]:>4}{{}}", completion_template="{a.real}")
    assert nested.sample({"q": {"text": "x"}, "a": 3}) == Sample(prompt="   x{}", completion="3")


def test_messages_are_cut_behind_the_last_assistant_turn_and_cleaned():
    row = {
        "messages": [
            {"role": "user", "content": "q", "tool_calls": None},
            {"role": "assistant", "content": "a", "tool_calls": None},
            {"role": "user", "content": "thanks", "tool_calls": None},
        ]
    }
    cleaned = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    assert RowFormat().sample(row) == Sample(messages=cleaned)


def test_formatted_datasets_read_the_same():
    rows = load_rows(ROWS)
    assert row_ids(rows.with_format("numpy"), RowFormat({"id": None})) == row_ids(rows, RowFormat({"id": None}))


def test_rows_and_samples_need_neither_torch_nor_transformers():
    code = (
        "import sys, hf_prism.rows, hf_prism.samples; print({'torch', 'transformers', 'datasets'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"


def test_a_bad_row_among_good_ones_is_named_with_its_id():
    rows = load_rows([*ROWS[:2], {"id": "x", "prompt": "p", "completion": None}])
    with pytest.raises(RowError, match=r"^row 2 \(id 'x'\): 'completion' is null"):
        row_ids(rows)


def test_features_find_their_rows_by_id_wherever_these_stand():
    rows = load_rows([{"text": text} for text in ("a", "b", "a", "c")])
    ids = row_ids(rows).ids
    shuffled = rows.select([3, 2, 0, 1])
    places = matching_rows(ids, shuffled)
    assert [shuffled[i]["text"] for i in places] == rows["text"][:]
    assert len(set(places)) == 4  # the repeated row too


def test_features_whose_rows_are_gone_name_the_first():
    rows = load_rows([{"text": text} for text in ("a", "b", "c")])
    ids = row_ids(rows).ids
    with pytest.raises(ValueError, match=f"2 of 3 ids are not among the 1 rows.*{ids[1]}.*edited row"):
        matching_rows(ids, rows.select([0]))
    with pytest.raises(ValueError, match="1 of 1 ids .* their column 'id'"):
        matching_rows(["x"], load_rows([{"id": "y", "text": "a"}]))
