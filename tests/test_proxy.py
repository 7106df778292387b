"""The proxy reads rows without its weights, loads them strictly, applies the policies, and knows who it is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from helpers import CHATML, GEMMA, LLAMA3, MISTRAL, QWEN2, save_tiny_model, tiny_config, tiny_model, tiny_tokenizer
from safetensors.torch import load_file, save_file

from hf_prism.proxy import EncodedRow, ProxyModel, Skipped
from hf_prism.samples import RowError


ROW = {"prompt": "How many clips?", "completion": "72 clips"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("proxy") / "tiny", tokenizer=tiny_tokenizer(chat_template=QWEN2))


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def test_encoding_and_identity_never_touch_the_weights(copy):
    (copy / "model.safetensors").write_bytes(b"not weights at all")
    proxy = ProxyModel(str(copy))
    assert isinstance(proxy.encode(ROW), EncodedRow) and proxy.identity["content"]
    assert "model" not in vars(proxy)
    with pytest.raises(ValueError, match="the weights of .* could not be loaded"):
        _ = proxy.model


def test_model_is_frozen_in_evaluation_mode_and_exactly_the_checkpoint(folder):
    model = ProxyModel(folder, device="cpu").model
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    saved = tiny_model().state_dict()
    assert all(torch.equal(saved[name], value) for name, value in model.state_dict().items())
    assert model.config._attn_implementation == "sdpa" and model.config.use_cache is False


@pytest.mark.parametrize("tied", [True, False])
def test_head_tied_or_not_loads_without_a_missing_weight(tmp_path, tied):
    model = ProxyModel(save_tiny_model(tmp_path, tie_word_embeddings=tied), device="cpu").model
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied


def test_dtype_is_that_of_the_forward_pass(folder):
    assert ProxyModel(folder, dtype="bfloat16", device="cpu").model.dtype == torch.bfloat16


def test_attention_is_what_the_loaded_model_uses(tmp_path):
    for architecture, attention in [("gemma2", "eager"), ("llama", "sdpa")]:  # sdpa cannot soft-cap attention scores
        proxy = ProxyModel(save_tiny_model(tmp_path / architecture, architecture), device="cpu")
        assert proxy.identity["attention"] == attention == proxy.model.config._attn_implementation


@pytest.mark.parametrize("change, found", [("missing", "missing_keys"), ("extra", "unexpected_keys")])
def test_weights_that_do_not_fit_are_an_error(copy, change, found):
    weights = load_file(copy / "model.safetensors")
    if change == "missing":
        del weights["model.layers.1.mlp.up_proj.weight"]
    else:
        weights["model.layers.1.mlp.extra.weight"] = torch.zeros(3)
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=f"do not fit its configuration.*{found}.*layers.1.mlp"):
        _ = ProxyModel(str(copy), device="cpu").model


def test_encode_rows_equals_encode(folder):
    proxy = ProxyModel(folder, on_empty="skip")
    rows = [ROW, {"prompt": "a", "completion": ""}, {"prompt": "b\n", "completion": " c"}]
    assert proxy.encode_rows(rows) == [proxy.encode(row, f"row {i}") for i, row in enumerate(rows)]
    assert proxy.encode_rows([]) == []


def test_num_tokens_leaves_out_position_zero():
    assert EncodedRow([5, 6, 7], [True, True, True]).num_tokens == 2
    assert EncodedRow([5, 6, 7], [False, True, False]).num_tokens == 1


def long_row(proxy):
    row = {"prompt": "How many clips?", "completion": "clips " * 20}
    length = len(proxy.encode(row).input_ids)
    prompt = proxy.encode(row).completion_mask.index(True)
    return row, length, prompt


def test_on_long_error_skip_truncate(folder):
    row, length, prompt = long_row(ProxyModel(folder))
    whole = ProxyModel(folder, max_length=length).encode(row)
    assert isinstance(whole, EncodedRow) and not whole.truncated  # exactly the limit is not over it
    limit = prompt + 3
    with pytest.raises(
        RowError,
        match=rf"row 17 \(id 'x'\): {length} tokens, over the limit of {limit}; the prompt alone has {prompt}\.",
    ):
        ProxyModel(folder, max_length=limit).encode(row, "row 17 (id 'x')")
    skipped = ProxyModel(folder, max_length=limit, on_long="skip").encode(row)
    assert isinstance(skipped, Skipped) and skipped.reason == "too_long" and f"{length} tokens" in skipped.detail
    cut = ProxyModel(folder, max_length=limit, on_long="truncate").encode(row)
    assert cut == EncodedRow(whole.input_ids[:limit], whole.completion_mask[:limit], truncated=True)
    assert cut.num_tokens == 3


def test_prompt_alone_over_the_limit_has_its_own_message(folder):
    row, length, prompt = long_row(ProxyModel(folder))
    problem = f"{length} tokens, over the limit of {prompt}; the prompt alone has {prompt}"
    with pytest.raises(RowError, match=problem + ", nothing of the completion would fit"):
        ProxyModel(folder, max_length=prompt).encode(row)
    with pytest.raises(RowError, match=problem + ", no token of the completion fits"):
        ProxyModel(folder, max_length=prompt, on_long="truncate").encode(row)
    skipped = ProxyModel(folder, max_length=prompt, on_long="truncate", on_empty="skip").encode(row)
    assert isinstance(skipped, Skipped) and skipped.reason == "empty"


def test_on_empty_error_or_skip(folder):
    empty = [
        {"prompt": "a", "completion": " \n"},
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": ""}]},
        {"text": ""},
    ]
    for row in empty:
        with pytest.raises(RowError, match="row 3: the completion is empty.*on_empty='skip'"):
            ProxyModel(folder).encode(row, "row 3")
        assert ProxyModel(folder, on_empty="skip").encode(row, "row 3") == Skipped(
            "empty", "row 3: the completion is empty"
        )


def test_max_length_defaults_to_the_smaller_sane_limit(tmp_path):
    tokenizer = tiny_tokenizer()
    assert tokenizer.model_max_length > 10**20  # the tokenizer's way to say "unknown"
    assert ProxyModel(save_tiny_model(tmp_path / "a", tokenizer=tokenizer)).max_length == 256
    tokenizer.model_max_length = 100
    short = save_tiny_model(tmp_path / "b", tokenizer=tokenizer)
    assert ProxyModel(short).max_length == 100 and ProxyModel(short, max_length=256).max_length == 256


def test_identity_sees_every_shard(folder, tmp_path):
    model, identities = tiny_model(), []
    for change in (0.0, 0.0, 1.0):
        model.model.norm.weight.data += change  # in the last shard
        path = shutil.copytree(folder, tmp_path / str(len(identities)))
        (path / "model.safetensors").unlink()
        model.save_pretrained(path, max_shard_size="50KB")
        assert len(list(path.glob("*.safetensors"))) > 1
        identities.append(ProxyModel(str(path)).identity)
    assert identities[0] == identities[1] != identities[2]


OLD, NEW = "1" * 40, "2" * 40
ELSEWHERE = """
import json, sys
from hf_prism.proxy import ProxyModel
copy, row = sys.argv[1], json.loads(sys.argv[2])
names = ("main", None), ("new", "2" * 40), ("old", "1" * 40)
proxies = {name: ProxyModel("acme/tiny", revision=revision) for name, revision in names}
result = {name: proxy.identity for name, proxy in proxies.items()} | {"copy": ProxyModel(copy).identity}
result["same rows"] = proxies["main"].encode(row) == proxies["old"].encode(row)
result["dtype"] = str(proxies["old"].model.dtype)
try:
    ProxyModel("acme/tiny", revision="v9")
except ValueError as error:
    result["error"] = str(error)
print(json.dumps(result))
"""


@pytest.fixture(scope="module")
def elsewhere(folder, tmp_path_factory):
    """What another process sees: a copy of the folder, and a Hub cache with two commits, `main` being the newer."""
    home = tmp_path_factory.mktemp("home")
    repo = home / "hub" / "models--acme--tiny"
    copies = [
        shutil.copytree(folder, path) for path in (home / "copy", repo / "snapshots" / OLD, repo / "snapshots" / NEW)
    ]
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(NEW)
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(copies[0]), json.dumps(ROW)],
        env={**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_identity_is_plain_json_and_the_same_in_another_process_and_place(folder, elsewhere):
    assert elsewhere["copy"] == ProxyModel(folder).identity


def test_hub_revision_is_pinned_to_its_commit(elsewhere):
    assert elsewhere["main"] == elsewhere["new"] != elsewhere["old"]
    assert (elsewhere["main"]["revision"], elsewhere["old"]["revision"]) == (NEW, OLD)
    assert (
        elsewhere["main"]["model"] == "acme/tiny" and elsewhere["same rows"] and elsewhere["dtype"] == "torch.float32"
    )
    assert "the configuration of acme/tiny could not be loaded" in elsewhere["error"]


def test_identity_ignores_what_changes_no_number(folder, copy):
    identity = ProxyModel(folder).identity
    for same in (
        {"column_mapping": {"prompt": "question"}},
        {"device": "cpu"},
        {"on_long": "skip"},
        {"on_empty": "skip"},
        {"prompt_template": "Q: {prompt}", "completion_template": "A: {completion}"},
    ):
        assert ProxyModel(folder, **same).identity == identity
    (copy / "README.md").write_text("a card")
    assert ProxyModel(str(copy)).identity == identity


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "bfloat16"},
        {"max_length": 100},
        {"chat_template": CHATML},
        {"chat_template": False},
        {"on_long": "truncate"},
        {"assistant_turns": "all"},
    ],
    ids=str,
)
def test_identity_changes_with_every_option_that_changes_numbers(folder, change):
    assert ProxyModel(folder, **change).identity != ProxyModel(folder).identity


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"])
def test_identity_changes_with_every_file_that_changes_numbers(folder, copy, name):
    before = ProxyModel(folder).identity
    if name == "model.safetensors":
        tiny_model(seed=1).save_pretrained(copy)
    elif name == "config.json":
        tiny_config(rope_theta=5000.0).save_pretrained(copy)
    elif name == "tokenizer.json":
        content = (copy / name).read_text()
        (copy / name).write_text(content.replace('"clips"', '"clip_s"') + "\n")
    else:
        (copy / name).write_text(CHATML)
    assert ProxyModel(str(copy)).identity != before


def test_masks_equal_trl(tmp_path):
    """TRL's own tokenisation of prompt-completion data, run on the same rows."""
    trl = pytest.importorskip("trl")
    from datasets import Dataset

    rows = [
        {"prompt": [{"role": "user", "content": p}], "completion": [{"role": "assistant", "content": c}]}
        for p, c in [("How many clips?", "48 + 24 = 72 clips."), ("foo bar\n", "A man plays.\n\nentailment")]
    ]
    for i, (template, bos) in enumerate(
        [(QWEN2, None), (LLAMA3, "<|begin_of_text|>"), (GEMMA, "<bos>"), (MISTRAL, "<s>")]
    ):
        tokenizer = tiny_tokenizer(chat_template=template, bos=bos, eos="</s>")
        proxy = ProxyModel(save_tiny_model(tmp_path / str(i), tokenizer=tokenizer))
        config = trl.SFTConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, max_length=None, report_to=[])
        trainer = trl.SFTTrainer(
            tiny_model(), config, train_dataset=Dataset.from_list(rows), processing_class=proxy.tokenizer
        )
        batch = trainer.data_collator(list(trainer.train_dataset))
        for row, labels, ids in zip(rows, batch["labels"].tolist(), batch["input_ids"].tolist(), strict=True):
            ours = proxy.encode(row)
            assert isinstance(ours, EncodedRow)
            assert ids[: len(ours.input_ids)] == ours.input_ids
            expected = [t if counts else -100 for t, counts in zip(ours.input_ids, ours.completion_mask, strict=True)]
            assert labels == expected + [-100] * (len(labels) - len(expected))
