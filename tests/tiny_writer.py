"""A real model that writes problems: the embedded proxy, taught in a minute to answer the requests of `MathTask`."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import hf_prism
from hf_prism.tasks.blocks import write_block
from hf_prism.tasks.math import MathTask
from hf_prism.tasks.procedural import generate


EMBEDDED = Path(hf_prism.__file__).parent / "embedded"
FAMILIES = ("story", "groups", "comparison")
STEPS, BATCH, RATE, SHOTS = 120, 4, 2e-3, 2


def save_samplable(model, tokenizer, folder: Path) -> str:
    """Save a model so that `transformers serve` samples from it: without the word `do_sample` it never does."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    configuration = folder / "generation_config.json"
    configuration.write_text(json.dumps({**json.loads(configuration.read_text()), "do_sample": True}))
    return str(folder)


def save_solver(folder: Path) -> str:
    """The embedded proxy, which solves such problems."""
    model = AutoModelForCausalLM.from_pretrained(EMBEDDED, dtype=torch.float32)
    return save_samplable(model, AutoTokenizer.from_pretrained(EMBEDDED), folder)


def save_writer(folder: Path) -> str:
    """Train and save a model that writes one problem after two examples."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED)
    model = AutoModelForCausalLM.from_pretrained(EMBEDDED, dtype=torch.float32).train()
    draw, rows, task = Random(0), generate(2000, families=FAMILIES, seed=77, largest=30), MathTask()

    def row() -> tuple[list[int], list[int]]:
        messages = task.generation_messages(draw.sample(rows, SHOTS), 1)
        question = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        answer = f"---\n{write_block({'Problem': draw.choice(rows)['prompt']})}\n---<|im_end|>\n"
        return tuple(tokenizer([question, answer], add_special_tokens=False)["input_ids"])

    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    for step in range(STEPS):
        batch = [row() for _ in range(BATCH)]
        length = max(len(question) + len(answer) for question, answer in batch)
        ids, labels = torch.zeros(BATCH, length, dtype=torch.long), torch.full((BATCH, length), -100)
        for i, (question, answer) in enumerate(batch):
            ids[i, : len(question) + len(answer)] = torch.tensor(question + answer)
            labels[i, len(question) : len(question) + len(answer)] = torch.tensor(answer)
        optimizer.param_groups[0]["lr"] = RATE * min(1, (step + 1) / 10) * (1 - step / STEPS)
        model(input_ids=ids, labels=labels).loss.backward()  # padding is on the right, where no position looks
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return save_samplable(model, tokenizer, folder)
