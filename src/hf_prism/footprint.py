"""What a training run needs, before it begins: memory of a process, steps, bytes on disk. Estimates, and said to be so."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .run_directory import in_bytes


if TYPE_CHECKING:
    from transformers import PretrainedConfig, TrainingArguments

# Bytes of optimizer state for each trained parameter; Adam's two moments where nothing else is known.
STATES = {"8bit": 2, "4bit": 1, "adafactor": 0, "sgd": 0, "lomo": 0, "lion": 4, "adagrad": 4, "rmsprop": 4}
FULL_PRECISION = 4
TILE = 4096 * 32768  # logits that exist at once in TRL's loss, which also holds the head's gradient apart


@dataclass(frozen=True)
class Size:
    """Parameters of a model: all of them, those that are trained, and the bytes of one that is not."""

    all: int
    trained: int
    frozen_bytes: int = FULL_PRECISION

    @property
    def checkpoint(self) -> int:
        """Bytes of a checkpoint: the trained weights and their two moments, all in float32."""
        return self.trained * 3 * FULL_PRECISION


def measure(
    config: PretrainedConfig, lora: Any = None, *, bfloat16: bool = False, trust_remote_code: bool = False
) -> Size:
    """Count the parameters of a causal language model without reading its weights.

    Args:
        config: Of the model.
        lora: A peft.LoraConfig, if only an adapter is trained.
        bfloat16: Whether frozen weights are held in bfloat16; trained ones never are.
        trust_remote_code: As everywhere.

    Raises:
        ValueError: The adapter fits no layer of the model.
    """
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    total = sum(parameter.numel() for parameter in model.parameters())
    if lora is None:
        return Size(total, total)
    from peft import get_peft_model

    try:
        adapted = get_peft_model(model, lora)
    except ValueError as error:
        names = sorted(
            {name.rpartition(".")[2] for name, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
        )
        raise ValueError(
            f"lora does not fit the model: {error}. Its linear layers are called {', '.join(names)}"
        ) from error
    trained = sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
    return Size(total + trained, trained, 2 if bfloat16 else FULL_PRECISION)


def memory(
    size: Size, config: PretrainedConfig, args: TrainingArguments, tokens: int, *, world: int, sharded: bool
) -> str:
    """A line that says what a process needs at most, and by which formula.

    Args:
        size: Of the model.
        config: Of the model.
        args: Of the training.
        tokens: In a batch of the longest rows, padding included.
        world: How many processes there are.
        sharded: Whether they share weights, gradients and optimizer states (FSDP, DeepSpeed ZeRO-3).
    """
    text: Any = config.get_text_config()
    share = world if sharded else 1
    weights = (size.trained * FULL_PRECISION + (size.all - size.trained) * size.frozen_bytes) / share
    gradients = size.trained * FULL_PRECISION / share
    optimizer = size.trained * _states(str(args.optim)) / share
    value = 2 if args.bf16 else FULL_PRECISION
    layer = tokens * text.hidden_size * value
    layers = (text.num_hidden_layers + 17) if _checkpointing(args) else 17 * text.num_hidden_layers
    head = text.vocab_size * text.hidden_size * FULL_PRECISION
    logits = min(tokens * text.vocab_size, TILE) * value + head
    total = weights + gradients + optimizer + layer * layers + logits
    return (
        f"Memory of a process, estimated: {in_bytes(total)} = weights {in_bytes(weights)} + gradients {in_bytes(gradients)} + "
        f"optimizer {in_bytes(optimizer)}{f' (1/{share} of each)' if share > 1 else ''} + activations "
        f"{in_bytes(layer * layers)} ({tokens:,} tokens of the longest rows x hidden size {text.hidden_size:,} x {layers} values "
        f"of {value} bytes{', activation checkpointing' if _checkpointing(args) else ''}) + logits {in_bytes(logits)}; what the "
        "libraries and the allocator take comes on top"
    )


def is_sharded(args: Any) -> bool:
    """Whether the processes share weights, gradients and optimizer states: FSDP, or DeepSpeed ZeRO-3."""
    plugin = getattr(args, "deepspeed_plugin", None)
    if plugin is not None:
        return plugin.zero_stage == 3
    from accelerate.utils import parse_flag_from_env

    return bool(args.fsdp) or parse_flag_from_env("ACCELERATE_USE_FSDP")


def num_steps(args: TrainingArguments, sequences: int, world: int) -> int:
    """Steps of the optimizer, as the Trainer will count them."""
    if args.max_steps > 0:
        return args.max_steps
    batch = args.per_device_train_batch_size * world
    batches = sequences // batch if args.dataloader_drop_last else math.ceil(sequences / batch)
    a_pass = max(1, math.ceil(batches / args.gradient_accumulation_steps))
    return math.ceil(args.num_train_epochs * a_pass)


def num_saves(args: TrainingArguments, steps: int) -> int:
    """How many checkpoints are written; the last step writes none, since the student is saved then."""
    strategy = str(getattr(args.save_strategy, "value", args.save_strategy))
    if strategy == "epoch":
        return max(0, math.ceil(args.num_train_epochs) - 1)
    if strategy != "steps" or args.save_steps <= 0:
        return 0
    every = math.ceil(steps * args.save_steps) if args.save_steps < 1 else int(args.save_steps)
    return max(0, steps - 1) // max(1, every)


def _checkpointing(args: TrainingArguments) -> bool:
    return bool(getattr(args, "activation_checkpointing", False) or getattr(args, "gradient_checkpointing", False))


def _states(optimizer: str) -> int:
    name = optimizer.rpartition(".")[2].lower()
    return next((count for part, count in STATES.items() if part in name), 2 * FULL_PRECISION)
