"""The shipped proxy: small enough, an instruct model by its conventions, and able to solve problems it never saw."""

from __future__ import annotations

import importlib.util
import re
from argparse import Namespace
from hashlib import sha256
from itertools import islice
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

import hf_prism
from hf_prism.tasks.procedural import generate


FOLDER = Path(hf_prism.__file__).parent / "embedded"
SCRIPT = Path(__file__).parents[1] / "examples" / "train_embedded.py"


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(FOLDER, padding_side="left")


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("train_embedded", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_folder_and_parameters_stay_small():
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= 8_000_000
    with safe_open(FOLDER / "model.safetensors", framework="pt") as weights:
        tensors = [weights.get_tensor(name) for name in weights.keys()]
    assert sum(tensor.numel() for tensor in tensors) <= 3_900_000
    assert {tensor.dtype for tensor in tensors} == {torch.bfloat16}


def test_it_is_a_tied_qwen2_with_room_for_real_rows(model):
    assert model.config.model_type == "qwen2"
    assert model.config.max_position_embeddings >= 4096
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_each_digit_is_a_token_and_any_text_survives(tokenizer):
    text = "In 1998, 12.5% of 48,000 cups: \\frac{1}{2} é\n\nDon't 😀 stop"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text
    pieces = [tokenizer.decode([i]) for i in tokenizer("1998 and 48000")["input_ids"]]
    assert [piece for piece in pieces if re.search(r"\d", piece)] == list("199848000")
    assert len(ids) > len(tokenizer(text.replace("1998", "1"))["input_ids"]) == len(ids) - 3


def test_chat_template_follows_qwen2_with_a_generation_prompt(tokenizer):
    turns = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "\\boxed{4}"}]
    prompt = tokenizer.apply_chat_template(turns[:1], tokenize=False, add_generation_prompt=True)
    full = tokenizer.apply_chat_template(turns, tokenize=False)
    assert prompt == "<|im_start|>user\n2 + 2?<|im_end|>\n<|im_start|>assistant\n"
    assert full == prompt + "\\boxed{4}<|im_end|>\n"
    prompt_ids, full_ids = (tokenizer(text)["input_ids"] for text in (prompt, full))
    assert full_ids[: len(prompt_ids)] == prompt_ids
    assert full_ids.count(tokenizer.eos_token_id) == 2
    assert tokenizer.eos_token == "<|im_end|>" and tokenizer.pad_token == "<|endoftext|>"


def held_out(family: str, count: int) -> list[dict]:
    """Problems of the twentieth that training skipped; the rule is restated here, not imported."""
    rows = generate(1600, families=[family], seed=2024)
    keys = [f"{row['skeleton']} {row['numbers'] or row['prompt']}" for row in rows]
    return [row for row, key in zip(rows, keys, strict=True) if sha256(key.encode()).digest()[0] < 13][:count]


def test_training_never_sees_a_held_out_problem(script):
    trained = {prompt for prompt, _ in islice(script.training_rows(seed=0), 20_000)}
    unseen = [row for row in generate(1000, seed=0) if row["prompt"] not in trained]  # the stream's first thousand
    assert 20 < len(unseen) < 80
    assert all(script.is_held_out(row) for row in unseen)
    assert not trained & {row["prompt"] for family in ("story", "calendar") for row in held_out(family, 40)}


def test_the_script_builds_and_saves_the_shipped_architecture(script, tokenizer, model, tmp_path):
    script.train(
        script.build_model(tokenizer, seed=0),
        tokenizer,
        script.batches(tokenizer, script.training_rows(seed=0), 0),
        Namespace(steps=2, minutes=5, seed=0, float32=False, output=tmp_path),
    )
    rebuilt = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert {name: p.shape for name, p in rebuilt.named_parameters()} == {
        n: p.shape for n, p in model.named_parameters()
    }
    assert (tmp_path / "tokenizer.json").read_bytes() == (FOLDER / "tokenizer.json").read_bytes()


@pytest.mark.parametrize("family", ["story", "comparison", "ordering"])
def test_greedy_decoding_solves_held_out_problems(family, model, tokenizer):
    rows = held_out(family, 40)
    chats = [[{"role": "user", "content": row["prompt"]}] for row in rows]
    inputs = tokenizer.apply_chat_template(
        chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
    )
    with torch.no_grad():
        output = model.generate(**inputs, max_new_tokens=80, do_sample=False)
    texts = tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    right = [re.findall(r"\\boxed{([^{}]*)}", text) == [row["answer"]] for text, row in zip(texts, rows, strict=True)]
    assert len(rows) == 40
    assert sum(right) >= 0.8 * len(rows), [(row["prompt"], text) for row, text in zip(rows, texts, strict=True)][:3]
