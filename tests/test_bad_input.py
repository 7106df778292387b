"""Bad input gets a clear error before any model work, which names where, what and the fix.

One table a layer; every entry is a way in, and what its message must say.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import save_tiny_model, tiny_config, tiny_tokenizer
from transformers import AutoConfig

from hf_prism.proxy import EncodedRow, ProxyModel
from hf_prism.rows import load_rows, row_ids
from hf_prism.samples import RowError, RowFormat
from hf_prism.vendi import Covariance, g_vendi


USER, ASSISTANT = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
GOOD = {"prompt": "p", "completion": "c"}

# What is wrong with the options, the options, and what the message says.
BAD_FORMATS = [
    ("unknown name", {"column_mapping": {"promt": "q"}}, ["'promt'", "did you mean 'prompt'"]),
    ("two layouts", {"column_mapping": {"text": "t", "prompt": "q"}}, ["prompt, text", "different layouts"]),
    ("given twice", {"column_mapping": {"prompt": "q"}, "prompt_template": "{q}"}, ["prompt is given twice"]),
    ("broken template", {"prompt_template": "{question"}, ["'{question'", "not a format string"]),
    ("nameless field", {"completion_template": "{}"}, ["field without a column name"]),
]


@pytest.mark.parametrize("options, said", [c[1:] for c in BAD_FORMATS], ids=[c[0] for c in BAD_FORMATS])
def test_bad_row_format(options, said):
    with pytest.raises(ValueError) as error:
        RowFormat(**options)
    assert_says(error, said)


# What is wrong with the columns, the row, the options, and what the message says.
BAD_COLUMNS = [
    ("misnamed", {"question": "p", "solution": "c"}, {}, ["question, solution", "--column prompt=question --column completion=solution", "column_mapping={'prompt': 'question', 'completion': 'solution'}"]),
    ("one misnamed", {"prompt": "p", "complet": "c"}, {}, ["prompt, complet", "--column completion=complet"]),
    ("one mapped", {"q": "p", "answer": "c"}, {"column_mapping": {"prompt": "q"}}, ["--column completion=answer"]),
    ("conversations", {"conversations": []}, {}, ["--column messages=conversations"]),
    ("NLI", {"premise": "p", "hypothesis": "h", "label": "x"}, {}, ["--prompt-template", "{premise}", "--completion-template '{label}'"]),
    ("nothing alike", {"a": "p", "b": "c"}, {}, ["neither prompt + completion, nor messages, nor text", "found: a, b", "--column prompt=..."]),
    ("mapped column absent", {"solution": "c"}, {"column_mapping": {"completion": "solutoin"}}, ["'solutoin'", "did you mean 'solution'", "found: solution"]),
    ("template column absent", {"premise": "p", "hypothesis": "h"}, {"prompt_template": "{premis}"}, ["prompt_template", "'premis'", "did you mean 'premise'"]),
]  # fmt: skip


@pytest.mark.parametrize("row, options, said", [c[1:] for c in BAD_COLUMNS], ids=[c[0] for c in BAD_COLUMNS])
def test_bad_columns(row, options, said):
    with pytest.raises(ValueError) as error:
        RowFormat(**options).sample(row, "row 3")
    assert_says(error, said)


# What is wrong with the row, the row, the options, and what the message says besides the row's name.
BAD_ROWS = [
    ("null prompt", {"prompt": None, "completion": "c"}, {}, ["'prompt' is null", "fill the cell"]),
    ("null completion", {"prompt": "p", "completion": None}, {}, ["'completion' is null"]),
    ("null in mapped column", {"q": None, "completion": "c"}, {"column_mapping": {"prompt": "q"}}, ["'prompt' (column 'q') is null"]),
    ("null text", {"text": None}, {}, ["'text' is null"]),
    ("number", {"prompt": "p", "completion": 72}, {}, ["'completion' is 72 of type int, not text", "--completion-template"]),
    ("long value is shortened", {"prompt": "p", "completion": {"x": "y" * 500}}, {}, ["{'x': 'yyy", "...", "dict"]),
    ("null in template", {"a": None, "b": "x"}, {"prompt_template": "{a}", "completion_template": "{b}"}, ["column 'a' of prompt_template is null"]),
    ("template does not fit", {"a": {"x": "1"}, "completion": "c"}, {"prompt_template": "{a[y]}"}, ["'{a[y]}' does not fit the row", "'y'"]),
    ("messages of text", {"messages": "hello"}, {}, ["'messages' is 'hello'", "list of messages"]),
    ("null messages", {"messages": None}, {}, ["'messages' is None"]),
    ("empty messages", {"messages": []}, {}, ["'messages' is an empty list"]),
    ("message of text", {"messages": ["hello"]}, {}, ["'messages'[0] is 'hello'", "role and content"]),
    ("no role", {"messages": [{"content": "q"}]}, {}, ["'messages'[0] has no role, only content"]),
    ("no content", {"messages": [{"role": "user"}]}, {}, ["'messages'[0] has no content, only role"]),
    ("null content", {"messages": [USER, {"role": "assistant", "content": None}]}, {}, ["'messages'[1] has no content"]),
    ("content parts", {"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}]}, {}, ["'messages'[0] has content [{'type'", "must both be text"]),
    ("unknown role", {"messages": [USER, {"role": "gpt", "content": "a"}]}, {}, ["'messages'[1] has the unknown role 'gpt'", "system, developer, user, assistant, tool"]),
    ("ShareGPT keys", {"messages": [{"from": "human", "value": "q"}]}, {}, ["from/value", "role/content"]),
    ("no assistant turn", {"messages": [USER, USER]}, {}, ["no assistant turn", "user, user"]),
    ("two completion messages", {"prompt": "p", "completion": [ASSISTANT, ASSISTANT]}, {}, ["'completion'", "assistant, assistant", "exactly one assistant message"]),
    ("user as completion", {"prompt": "p", "completion": [USER]}, {}, ["the roles user", "exactly one assistant message"]),
]  # fmt: skip


@pytest.mark.parametrize("row, options, said", [c[1:] for c in BAD_ROWS], ids=[c[0] for c in BAD_ROWS])
def test_bad_rows(row, options, said):
    with pytest.raises(RowError) as error:
        RowFormat(**options).sample(row, "row 17 (id 'x')")
    assert_says(error, ["row 17 (id 'x')", *said])
    assert len(str(error.value)) < 400


# What is wrong with the ids, the rows, the mapping, and what the message says.
BAD_IDS = [
    (
        "repeated",
        ["a", "b", "a"],
        ["rows 0 and 2 share the id 'a'", "make ids unique", "--column id=", "{'id': None}"],
    ),
    ("number and text alike", [1, 2, 1], ["rows 0 and 2 share the id 1"]),
    ("null", ["a", None, "c"], ["row 1", "'id' holds None"]),
    ("fractions", [0.5, 1.5, 2.5], ["row 0", "holds 0.5", "text or whole numbers"]),
]


@pytest.mark.parametrize("ids, said", [c[1:] for c in BAD_IDS], ids=[c[0] for c in BAD_IDS])
def test_bad_ids(ids, said):
    with pytest.raises(RowError) as error:
        row_ids(load_rows([{"id": i, "text": "t"} for i in ids]))
    assert_says(error, said)


def test_bad_id_mapping():
    with pytest.raises(ValueError, match="gives 'uid' as id.*columns found: id, text"):
        RowFormat({"id": "uid"}).id_column(["id", "text"])


# What is wrong with the data, the file, its content, and what the message says.
BAD_FILES = [
    ("no file", "gsm8k_trian.jsonl", None, ["gsm8k_trian.jsonl does not exist", "did you mean gsm8k_train.jsonl"]),
    ("no folder either", "nowhere/gsm8k.jsonl", None, ["nowhere/gsm8k.jsonl does not exist", "nor does the folder"]),
    ("unknown suffix", "rows.xlsx", "x", ["suffix '.xlsx'", ".jsonl", ".parquet"]),
    ("not JSON", "rows.jsonl", '{"text": "a"}\n\n{"text": "b"\n', ["rows.jsonl, line 3 is not JSON", '{"text": "b"']),
    ("JSONL of lists", "rows.jsonl", '{"text": "a"}\n["b"]\n', ["line 2 is a JSON list"]),
    ("JSON of one object", "rows.json", '{"text": "a"}', ["one JSON dict", "list of objects"]),
    (
        "mixed cell types",
        "rows.jsonl",
        '{"text": "a"}\n{"text": 5}\n',
        ["column 'text'", "str at line 1, int at line 2"],
    ),
    ("empty JSONL", "rows.jsonl", "\n", ["rows.jsonl holds no rows"]),
    ("empty CSV", "rows.csv", "", ["rows.csv is not a readable CSV"]),
    ("CSV without rows", "rows.csv", "prompt,completion\n", ["holds no rows"]),
    ("ragged CSV", "rows.csv", "prompt,completion\na,b\na,b,c\n", ["rows.csv is not a readable CSV", "3"]),
    ("not Parquet", "rows.parquet", "text", ["rows.parquet is not a readable Parquet"]),
    ("not Arrow", "rows.arrow", "text", ["rows.arrow is not a readable Arrow"]),
    ("not text", "rows.jsonl", b'{"text": "\xff"}', ["rows.jsonl, line 1 is not UTF-8"]),
]


@pytest.mark.parametrize("name, content, said", [c[1:] for c in BAD_FILES], ids=[c[0] for c in BAD_FILES])
def test_bad_files(tmp_path, name, content, said):
    (tmp_path / "gsm8k_train.jsonl").touch()
    if content is not None:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError) as error:
        load_rows(str(tmp_path / name))
    assert_says(error, said)


BAD_CALLS = [
    ("unknown kind", {"data": 5}, ["a int", "a path, a Hub id"]),
    ("empty list", {"data": []}, ["the list holds no rows"]),
    ("split of a list", {"data": [GOOD], "split": "test"}, ["the list has no splits", "'test'"]),
    ("no samples", {"data": [GOOD], "max_samples": 0}, ["max_samples is 0"]),
]


@pytest.mark.parametrize("call, said", [c[1:] for c in BAD_CALLS], ids=[c[0] for c in BAD_CALLS])
def test_bad_load_calls(call, said):
    with pytest.raises(ValueError) as error:
        load_rows(**call)
    assert_says(error, said)


def test_bad_folders(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(
        ValueError, match="neither a saved data set nor a folder of Parquet files .it holds: notes.txt"
    ):
        load_rows(tmp_path)
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}')
    with pytest.raises(ValueError, match="rows.jsonl has no splits, so none is called 'test'"):
        load_rows(tmp_path / "rows.jsonl", split="test")
    load_rows([{"text": "a"}]).to_parquet(tmp_path / "0.parquet")
    with pytest.raises(ValueError, match="has no splits, so none is called 'test'"):
        load_rows(tmp_path, split="test")
    load_rows([{"other": "a"}]).to_parquet(tmp_path / "1.parquet")
    with pytest.raises(ValueError, match=r"1.parquet has the columns \['other'\], but .*0.parquet has \['text'\]"):
        load_rows(tmp_path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("proxy"))


BAD_OPTIONS = [
    ("dtype", {"dtype": "float16"}, ["dtype is 'float16'", "'float32', 'bfloat16'"]),
    ("on_long", {"on_long": "cut"}, ["on_long is 'cut'", "'truncate'"]),
    ("on_empty", {"on_empty": "drop"}, ["on_empty is 'drop'", "'skip'"]),
    ("assistant_turns", {"assistant_turns": "first"}, ["assistant_turns is 'first'", "'all'"]),
    ("max_length over the limit", {"max_length": 9999}, ["max_length is 9,999", "256 positions"]),
    ("max_length too small", {"max_length": 1}, ["max_length is 1", "at least 2"]),
    ("chat_template", {"chat_template": "chatml"}, ["chat_template is 'chatml'", "Jinja"]),
    ("revision of a folder", {"revision": "main"}, ["revision='main' needs a Hub id"]),
    ("template and mapping", {"column_mapping": {"txt": "t"}}, ["'txt'", "did you mean 'text'"]),
]


@pytest.mark.parametrize("options, said", [c[1:] for c in BAD_OPTIONS], ids=[c[0] for c in BAD_OPTIONS])
def test_bad_proxy_options(folder, options, said):
    with pytest.raises(ValueError) as error:
        ProxyModel(folder, **options)
    assert_says(error, said)


def config_only(path: Path, config) -> str:
    config.save_pretrained(path)
    return str(path)


BERT = {"vocab_size": 99, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
# What the model is, its configuration, and what the message says.
BAD_MODELS = [
    ("BERT", AutoConfig.for_model("bert", architectures=["BertForMaskedLM"], **BERT), ["is an encoder (BertForMaskedLM)", "such as Qwen2.5"]),
    ("BERT of unknown head", AutoConfig.for_model("bert", **BERT), ["is an encoder (model type bert)"]),
    ("DeBERTa", AutoConfig.for_model("deberta-v2", architectures=["DebertaV2ForSequenceClassification"]), ["is an encoder"]),
    ("T5", AutoConfig.for_model("t5", architectures=["T5ForConditionalGeneration"]), ["encoder-decoder (T5ForConditionalGeneration)"]),
    ("classifier", tiny_config(architectures=["Qwen2ForSequenceClassification"]), ["no causal language model (Qwen2ForSequenceClassification)"]),
    ("headless", tiny_config(architectures=["Qwen2Model"]), ["no causal language model (Qwen2Model)"]),
    ("vision", AutoConfig.for_model("vit", architectures=["ViTForImageClassification"]), ["no causal language model"]),
]  # fmt: skip


@pytest.mark.parametrize("config, said", [c[1:] for c in BAD_MODELS], ids=[c[0] for c in BAD_MODELS])
def test_models_that_are_no_proxy(tmp_path, config, said):
    with pytest.raises(ValueError) as error:
        ProxyModel(config_only(tmp_path, config))
    assert_says(error, said)


def test_unknown_models(tmp_path):
    (tmp_path / "qwen-tiny").mkdir()
    for model, said in [
        (str(tmp_path / "qwen-tiyn"), ["is no folder", "did you mean qwen-tiny"]),
        (str(tmp_path / "qwen-tiny"), ["configuration", "could not be loaded", "holds: nothing"]),
        ("acme/none", ["acme/none could not be loaded", "Hub id", "spelling", "network"]),
        (__file__, ["is a file; give the folder"]),
        ("embeded", ["'embeded'", "did you mean 'embedded'"]),
    ]:
        with pytest.raises(ValueError) as error:
            ProxyModel(model)
        assert_says(error, said)


def test_incomplete_model_folders(tmp_path):
    with pytest.raises(
        ValueError, match="the tokenizer of .* could not be loaded; the folder holds: config.json .*empty"
    ):
        ProxyModel(config_only(tmp_path / "no_tokenizer", tiny_config(architectures=["Qwen2ForCausalLM"])))
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "/no/such/base"}))
    with pytest.raises(ValueError, match="/no/such/base is no folder"):
        ProxyModel(str(adapter))


def test_a_model_with_its_own_code_is_not_run_unasked(tmp_path):
    code = {"model_type": "odd", "auto_map": {"AutoConfig": "odd.OddConfig", "AutoModelForCausalLM": "odd.Odd"}}
    (tmp_path / "config.json").write_text(json.dumps(code))
    (tmp_path / "odd.py").write_text("raise SystemExit('ran')")
    with pytest.raises(ValueError, match="brings its own code; read it, then pass trust_remote_code=True"):
        ProxyModel(str(tmp_path))


def test_a_tokenizer_of_another_model_is_noticed(tmp_path):
    proxy = ProxyModel(save_tiny_model(tmp_path, vocab_size=300))
    with pytest.raises(RowError, match=r"row 4: token .* has the id \d+, but the proxy knows 300 tokens"):
        proxy.encode({"prompt": "Natalia sold clips", "completion": "Natalia sold clips"}, "row 4")


def test_a_tokenizer_without_chat_template_concatenates(tmp_path):
    """No error: the rendering is documented, prompt + completion + EOS."""
    proxy = ProxyModel(save_tiny_model(tmp_path, tokenizer=tiny_tokenizer(chat_template=None)))
    row = proxy.encode({"prompt": "How many?\n", "completion": "72"})
    assert isinstance(row, EncodedRow) and proxy.identity["rendering"].startswith("plain")
    assert proxy.tokenizer.decode(row.input_ids) == "How many?\n72<|endoftext|>"
    with pytest.raises(RowError, match="row 2: the row holds messages, but there is no chat template"):
        proxy.encode({"messages": [USER, ASSISTANT]}, "row 2")


def assert_says(error, said):
    message = str(error.value)
    assert not [words for words in said if words not in message], message


def merged(first: Covariance, second: Covariance) -> Covariance:
    return first.update(np.eye(first.dim)).merge(second.update(np.eye(second.dim)))


# What is wrong with the vectors, what is done with them, and what the message says.
BAD_VECTORS = [
    ("NaN", lambda: g_vendi([[1.0, 0.0], [float("nan"), 1.0]]), ["row 1", "NaN"]),
    ("infinity", lambda: g_vendi([[1.0, 0.0], [float("inf"), 1.0]], ids=["a", "b"]), ["row 1", "'b'", "infinity"]),
    ("zero", lambda: g_vendi([[1.0, 0.0], [0.0, 0.0]], ids=["a", "b"]), ["row 1", "'b'", "zero"]),
    ("ragged", lambda: g_vendi([[1.0, 0.0], [1.0]]), ["row 1"]),
    ("none", lambda: g_vendi(np.zeros((0, 4))), ["at least one row"]),
    ("repeated ids", lambda: g_vendi(np.eye(2), ids=["a", "a"]), ["'a'"]),
    ("order", lambda: g_vendi(np.eye(2), order=0), ["order 0"]),
    ("width", lambda: Covariance(3).update(np.eye(2)), ["2 numbers", "3"]),
    ("other width", lambda: merged(Covariance(2), Covariance(4)), ["2", "4"]),
    (
        "other feature_id",
        lambda: merged(Covariance(4, feature_id="a1"), Covariance(4, feature_id="b2")),
        ["feature_id", "'a1'", "'b2'"],
    ),
]


@pytest.mark.parametrize("act, said", [c[1:] for c in BAD_VECTORS], ids=[c[0] for c in BAD_VECTORS])
def test_bad_vectors(act, said):
    with pytest.raises(ValueError) as error:
        act()
    assert_says(error, said)


def test_one_row_scores_one_with_a_note():
    score = g_vendi([[3.0, 4.0]])
    assert score.g_vendi == 1.0 and score.interval is None
    assert any("one row" in note for note in score.notes)


def test_a_tokenizer_without_chat_template_concatenates_and_ends_in_eos(tmp_path):
    proxy = ProxyModel(save_tiny_model(tmp_path, tokenizer=tiny_tokenizer(chat_template=None)))
    encoded = proxy.encode({"prompt": "clips ", "completion": "in May"})
    assert isinstance(encoded, EncodedRow)
    assert proxy.tokenizer.decode(encoded.input_ids) == "clips in May" + str(proxy.tokenizer.eos_token)
    assert proxy.identity["rendering"].startswith("plain")
