# /// script
# requires-python = ">=3.11"
# dependencies = ["hf-prism"]
# ///
"""Trains the embedded default proxy, a tiny Qwen2-architecture instruct model, on procedural text alone.

Run as (one CPU core, about 50 minutes; a seed gives the same text and tokenizer everywhere, but not the last bits of
the weights):

    OMP_NUM_THREADS=1 python examples/train_embedded.py --output src/hf_prism/embedded

A taste of it in a minute: `--steps 100 --output embedded-taste`. Measure a trained folder on held-out problems:

    OMP_NUM_THREADS=1 python examples/train_embedded.py --evaluate --output src/hf_prism/embedded

Five word problems with worked solutions (`hf_prism.tasks.procedural`) come to one row of plain English, which is a
text to repeat or one to write about a word; each row is rendered as one user and one assistant turn. A problem whose
skeleton and numbers (where it has none: whose prompt) fall into a fixed twentieth by hash is never trained on, and the
evaluation draws from that twentieth alone.
"""

from __future__ import annotations

import argparse
import copy
import math
import re
import time
from collections import Counter
from collections.abc import Iterator
from hashlib import sha256
from itertools import count, islice
from pathlib import Path
from random import Random

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from hf_prism.tasks.families import FAMILIES
from hf_prism.tasks.lexicon import WORDS, inflect, sentence
from hf_prism.tasks.procedural import generate


VOCABULARY, LENGTH, BATCH = 4352, 320, 6
PEAK_RATE = 2e-3
PROMPT_SHARE = 0.1  # of the prompt's tokens are supervised too, which makes a better model of English at little cost
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
# The pattern of Qwen2: words with their leading space, single digits, runs of punctuation, line ends.
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


# -- data -------------------------------------------------------------------------------------------------------------


def is_held_out(row: dict) -> bool:
    """Whether a problem belongs to the twentieth that is never trained on: decided by its numbers, not its words."""
    key = f"{row['skeleton']} {row['numbers'] or row['prompt']}"
    return sha256(key.encode()).digest()[0] < 13


def english(random: Random) -> tuple[str, str]:
    """A prompt and completion in plain English: a text to repeat, or one to write about a word."""
    text = " ".join(sentence(random) for _ in range(random.randint(1, 2)))
    if random.random() < 0.5:
        return random.choice(("Repeat this:", "Copy the text:", "Say this again:")) + " " + text, text
    return f"Write about {random.choice(WORDS['noun'])}.", text


def training_rows(seed: int) -> Iterator[tuple[str, str]]:
    """Endless prompts and completions: five word problems to one row of English."""
    for block in count():
        random = Random(f"{seed}/english/{block}")
        for row in generate(1000, seed=seed * 10**9 + block):
            if not is_held_out(row):
                yield row["prompt"], row["completion"]
            if random.random() < 0.2:
                yield english(random)


def held_out_rows(num_rows: int, family: str) -> list[dict]:
    rows = (row for row in generate(60 * num_rows, families=[family], seed=-1) if is_held_out(row))
    return list({row["prompt"]: row for row in rows}.values())[:num_rows]


# -- tokenizer --------------------------------------------------------------------------------------------------------


def train_tokenizer(texts: Iterator[str], vocabulary: int = VOCABULARY) -> PreTrainedTokenizerFast:
    """Byte-level BPE in the manner of Qwen2.5: each digit a token, ChatML, padding distinct from the end token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(PATTERN), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=SPECIAL, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=SPECIAL[0],
        eos_token=SPECIAL[2],
        additional_special_tokens=SPECIAL[1:],
        chat_template=CHAT_TEMPLATE,
        model_max_length=4096,
        clean_up_tokenization_spaces=False,
    )


def tokenizer_texts(seed: int) -> Iterator[str]:
    for prompt, completion in islice(training_rows(seed), 20_000):
        yield f"{prompt}\n{completion}"
    random = Random(f"{seed}/tokenizer")
    for _ in range(60_000):
        yield sentence(random)
    for words in WORDS.values():
        for word in words * 10:
            yield f" {word}"
    for form in ("s", "ed", "ing"):
        for verb in WORDS["verb"] * 5:
            yield f" {inflect(verb, form)}"


# -- training ---------------------------------------------------------------------------------------------------------


def build_model(tokenizer: PreTrainedTokenizerFast, seed: int, width: int = 256) -> Qwen2ForCausalLM:
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=5 * width // 2,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen2ForCausalLM(config)


def encode(tokenizer: PreTrainedTokenizerFast, prompt: str, completion: str) -> tuple[list[int], list[float]]:
    """Token ids of the two turns, and the chance of each token to be supervised."""
    user = f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
    first, second = tokenizer([user, f"{completion}<|im_end|>\n"])["input_ids"]
    return first + second, [PROMPT_SHARE] * len(first) + [1.0] * len(second)


def batches(
    tokenizer: PreTrainedTokenizerFast, rows: Iterator[tuple[str, str]], seed: int, size: int = BATCH
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """(size, LENGTH) ids and mask: rows back to back; the last is cut, for rows are free and padding is not."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        sequences = []
        for _ in range(size):
            ids, chances = [], []
            while len(ids) < LENGTH:
                more_ids, more_chances = encode(tokenizer, *next(rows))
                ids, chances = ids + more_ids, chances + more_chances
            sequences.append((ids[:LENGTH], chances[:LENGTH]))
        ids, chances = map(torch.tensor, zip(*sequences, strict=True))
        yield ids, torch.rand(chances.shape, generator=generator) < chances


def train(
    model: Qwen2ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    data: Iterator[tuple[torch.Tensor, torch.Tensor]],
    args: argparse.Namespace,
) -> None:
    """AdamW, warm-up, linear decay to zero over steps or minutes, whichever are used up first; bfloat16 autocast."""
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.05, fused=True)
    start, shown = time.time(), []
    for step, (ids, mask) in enumerate(data):
        minutes = (time.time() - start) / 60
        left = 1 - max(step / args.steps, minutes / args.minutes)
        if step % 250 == 0 or left <= 0:
            print(f"step {step} loss {sum(shown) / max(1, len(shown)):.3f} minutes {minutes:.1f}", flush=True)
            save(model, tokenizer, args.output)
            shown.clear()
        if left <= 0:
            return
        optimizer.param_groups[0]["lr"] = PEAK_RATE * min(left, (step + 1) / 200)
        with torch.autocast("cpu", torch.bfloat16, enabled=not args.float32):
            hidden = model.model(input_ids=ids).last_hidden_state[:, :-1]
            logits = model.lm_head(hidden[mask[:, 1:]])
        loss = torch.nn.functional.cross_entropy(logits, ids[:, 1:][mask[:, 1:]])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        shown.append(loss.item())


def save(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, output: Path) -> None:
    copy.deepcopy(model).to(torch.bfloat16).save_pretrained(output)
    tokenizer.save_pretrained(output, save_jinja_files=False)  # the chat template goes into tokenizer_config.json
    tokenizer.backend_tokenizer.save(str(output / "tokenizer.json"), pretty=False)


# -- evaluation -------------------------------------------------------------------------------------------------------


@torch.no_grad()
def answers(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, rows: list[dict]) -> list[str]:
    """Greedy answers: what stands in the last box of each completion, or an empty string."""
    chats = [[{"role": "user", "content": row["prompt"]}] for row in rows]
    found = []
    for first in range(0, len(chats), 50):
        inputs = tokenizer.apply_chat_template(
            chats[first : first + 50],
            add_generation_prompt=True,
            padding=True,
            return_tensors="pt",
            return_dict=True,
        )
        output = model.generate(**inputs, max_new_tokens=120, do_sample=False)
        for text in tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True):
            found.append((re.findall(r"\\boxed{([^{}]*)}", text) or [""])[-1])
    return found


@torch.no_grad()
def mean_loss(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, rows: list[dict]) -> float:
    """Nats per completion token, end of turn included, one row at a time."""
    total, num_tokens = 0.0, 0
    for row in rows:
        ids, chances = encode(tokenizer, row["prompt"], row["completion"])
        supervised = torch.tensor(chances[1:]) == 1.0
        logits = model(torch.tensor([ids])).logits[0, :-1][supervised].float()
        total += torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:])[supervised], reduction="sum").item()
        num_tokens += int(supervised.sum())
    return total / num_tokens


def evaluate(folder: Path, num_rows: int) -> None:
    """Prints the table of the model card: a family's chance level is the share of its commonest answer."""
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    print("| family | n | greedy accuracy | standard error | chance | loss, nats/token |\n|---|---|---|---|---|---|")
    everything = []
    for family in FAMILIES:
        rows = held_out_rows(num_rows, family)
        everything += rows
        right = [answer == row["answer"] for answer, row in zip(answers(model, tokenizer, rows), rows, strict=True)]
        accuracy = sum(right) / len(rows)
        error = math.sqrt(accuracy * (1 - accuracy) / len(rows))
        chance = Counter(row["answer"] for row in rows).most_common(1)[0][1] / len(rows)
        loss = mean_loss(model, tokenizer, rows)
        print(f"| {family} | {len(rows)} | {accuracy:.1%} | {error:.1%} | {chance:.1%} | {loss:.3f} |", flush=True)
    print(f"| all | {len(everything)} | | | | {mean_loss(model, tokenizer, everything):.3f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of the model and tokenizer")
    parser.add_argument("--evaluate", action="store_true", help="measure the folder instead of training")
    parser.add_argument("--steps", type=int, default=8000, help=f"steps of {BATCH} x {LENGTH} tokens")
    parser.add_argument("--minutes", type=float, default=50, help="end sooner on a slow or shared machine")
    parser.add_argument("--rows", type=int, default=200, help="held-out problems per family")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--width", type=int, default=256, help="hidden size; another one makes a second, other proxy")
    parser.add_argument(
        "--float32", action="store_true", help="without autocast: faster on processors without bfloat16"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.evaluate:
        evaluate(args.output, args.rows)
    else:
        tokenizer = train_tokenizer(tokenizer_texts(args.seed))
        data = batches(tokenizer, training_rows(args.seed), args.seed)
        train(build_model(tokenizer, args.seed, args.width), tokenizer, data, args)


if __name__ == "__main__":
    main()
