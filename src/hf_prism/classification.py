"""An encoder that learns natural language inference: pairs in, one label out.

The student says in its own configuration which output is which label, in words, so that `EncoderGenerator` and the
pipelines of transformers read it without being told. Everything that would change what it learns is said before the
first step: which label each row has, which rows are cut or left out, which weights are new.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .encoder import THREE, TWO, label_word, labels_of, length_limit, read_part, read_tokenizer
from .footprint import num_saves, num_steps
from .kinds import check_keywords, check_kind
from .local import pin
from .pairs import Encoded, Pairs, encode, preflight, read_pairs
from .ranks import Team, join
from .rows import load_rows
from .run_directory import in_bytes
from .samples import near
from .settings import name_only
from .training_run import Student, TrainingRun, say, versions
from .watching import Watched


if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainingArguments

KEPT = 2
"""Checkpoints, where nobody says how many."""

# Keywords of TrainingArguments that are set here, and what a user sets instead.
OWNED = {
    "output_dir": "the key `output` names the directory",
    "bf16": "the key `dtype` sets it (bfloat16)",
    "fp16": "half precision overflows; the key `dtype` offers bfloat16",
    "use_cpu": "the CPU is used where there is no accelerator, or with ACCELERATE_USE_CPU=1",
    "ddp_backend": "it follows from the device",
    "resume_from_checkpoint": "the same `output` goes on by itself",
    "save_only_model": "a checkpoint without optimizer cannot be resumed",
    "remove_unused_columns": "the columns are ours",
    "label_names": "the key `labels` sets them",
    "logging_nan_inf_filter": "a loss that is not finite stops the run",
    "ignore_data_skip": "resuming exactly needs it as it is",
    "push_to_hub": "the key `push_to` does it when the run is over",
    "hub_model_id": "the key `push_to` names it",
    "hub_private_repo": "the key `private` sets it",
    **dict.fromkeys(
        ("hub_token", "hub_strategy", "hub_always_push", "hub_revision"),
        "the key `push_to` pushes the finished student, with the login of this machine",
    ),
    **dict.fromkeys(
        ("do_eval", "eval_strategy", "eval_steps", "eval_on_start", "load_best_model_at_end", "metric_for_best_model"),
        "the key `evaluation` names the benchmarks, and the student is evaluated when it is finished",
    ),
}
KINDS: dict[str, Any] = {
    **dict.fromkeys(("base", "dtype", "on_long"), str),
    "output": str | Path,
    "revision": str | None,
    "labels": str | list,
    "max_length": int | None,
    **dict.fromkeys(("column_mapping", "training"), dict | None),
}
# Those that change nothing of the student, so that a run may go on with others.
HARMLESS = (
    "logging_",
    "log_",
    "save_",
    "report_to",
    "run_name",
    "project",
    "trackio_",
    "disable_tqdm",
    "dataloader_num_",
)


def train_classifier(
    rows: Dataset | Sequence[dict[str, Any]],
    base: str = "microsoft/deberta-v3-large",
    output: str | Path = "runs/classifier",
    *,
    revision: str | None = None,
    dtype: str = "float32",
    labels: Sequence[str] = THREE,
    max_length: int | None = None,
    on_long: str = "error",
    column_mapping: Mapping[str, str | None] | None = None,
    training: Mapping[str, Any] | None = None,
    report: Callable[[str], None] = say,
    facts: Mapping[str, Any] | None = None,
    dry_run: bool = False,
) -> Student | None:
    """Train a sequence classifier on pairs of premise and hypothesis, through transformers' Trainer.

    The same call on the same `output` goes on where it was killed, and returns at once where it is finished.

    Args:
        rows: With `premise`, `hypothesis` and `label`: words, or numbers whose names the dataset knows (ClassLabel).
        base: A Hub id or a folder: a pretrained encoder, or a classifier. The head of a classifier with the same labels is
            kept, in its order; any other is replaced by a new one.
        output: The run directory. `model/` in it is the student.
        revision: Branch, tag or commit of a Hub id.
        dtype: What is computed in, `"float32"` or `"bfloat16"` where that is safe; weights are float32 either way.
        labels: The labels in words: entailment, neutral and contradiction, or entailment and not_entailment. For two,
            neutral and contradiction in the rows become not_entailment.
        max_length: The most tokens of a pair; by default the limit of `base`.
        on_long: What happens to a longer pair: `"error"`, `"skip"` or `"truncate"` (the longer part loses its end).
        column_mapping: `{name: column}` for the names premise, hypothesis, label, id.
        training: Any keyword of `transformers.TrainingArguments`.
        report: Called with lines of text for the user, by the first process only.
        facts: Written into result.json beside the numbers of the student.
        dry_run: Check and report everything up to the first step, write nothing, and stop.

    Returns:
        The student; None after a dry run.

    Raises:
        ValueError: A wrong option, column, label or base; too little disk space; a directory with another run.
        RowError: A row that cannot be used.
        NonFiniteLossError: The loss became NaN or infinite; the rows are named, and the last checkpoint stays.

    Example:
        >>> rows = load_rows("pairs.jsonl")  # doctest: +SKIP
        >>> train_classifier(rows, "microsoft/deberta-v3-base", "runs/nli").model  # doctest: +SKIP
        PosixPath('runs/nli/model')
    """
    options = locals()
    for key, kind in KINDS.items():
        check_kind(key, options[key], kind)
    from transformers import TrainingArguments

    wanted = _check_options(dtype, labels, on_long)
    keywords = check_keywords(training, TrainingArguments, OWNED)
    name, commit = pin(base, revision)
    config, tokenizer = _read_base(base, commit)
    head = _labels_of_head(config, base)
    order = head if set(head) == set(wanted) else wanted
    limit = length_limit(config, tokenizer, max_length, base)
    pairs = read_pairs(load_rows(rows), wanted, column_mapping)
    encoded = encode(pairs, tokenizer, order, limit, on_long, config.vocab_size)

    team = join()
    run = TrainingRun(output, team, report)
    arguments = _arguments(run, keywords, dtype, team)
    harmless = {key: name_only(value) for key, value in keywords.items() if key.startswith(HARMLESS)}
    decides = {
        "student": "classification",
        "base": name,
        "dtype": dtype,
        "labels": list(order),
        "max_length": limit,
        "on_long": on_long,
        "data": {"rows": len(pairs.labels), "digest": pairs.digest()},
        "training": {key: name_only(value) for key, value in keywords.items() if key not in harmless},
        "processes": team.world,
    }
    if not dry_run and run.open({**decides, "logging": harmless}, may_change=("logging",)):
        run.report(f"{run.path} holds this student already, finished")
        return Student.read(run.path)

    if (encoded.skipped or encoded.cut) and not dry_run:
        run.write_lines("left_out.jsonl", encoded.left_out(pairs))
    run.report(preflight(encoded, pairs, tokenizer, order, limit))
    model = _load(config, base, commit, head, order, arguments.seed, run.report)
    keep = int(keywords.get("save_total_limit") or KEPT)
    trainer = _trainer(model, arguments, encoded, pairs, tokenizer)
    run.report(_costs(run, model, arguments, encoded, keep))
    if dry_run:
        return None
    trainer.add_callback(run.recorder(keep))
    trainer.train(resume_from_checkpoint=run.newest_checkpoint())
    with run.saving("model") as folder:
        trainer.save_model(str(folder))
    student = Student(
        output=run.path,
        model=run.model,
        base=name,
        rows=len(encoded.kept),
        skipped=len(encoded.skipped),
        truncated=len(encoded.cut),
        tokens=int(encoded.lengths.sum()),
        learned_tokens=len(encoded.kept),
        **run.summary(),
    )
    run.finish(student, {"versions": versions("torch", "transformers"), "base_id": name, **(facts or {})})
    return student


def _check_options(dtype: str, labels: Sequence[str], on_long: str) -> tuple[str, ...]:
    for name, value, allowed in (
        ("dtype", dtype, ("float32", "bfloat16")),
        ("on_long", on_long, ("error", "skip", "truncate")),
    ):
        if value not in allowed:
            raise ValueError(
                f"{name} is {value!r}; it must be one of {', '.join(map(repr, allowed))}{near(value, allowed)}"
            )
    words = tuple(label_word(str(label)) for label in labels) if not isinstance(labels, str) else (labels,)
    if sorted(words) not in (sorted(THREE), sorted(TWO)):
        raise ValueError(f"labels are {', '.join(words)}; they must be {', '.join(THREE)}; or {', '.join(TWO)}")
    return words


def _read_base(base: str, commit: str | None) -> tuple[PretrainedConfig, PreTrainedTokenizerBase]:
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as KNOWN

    config = read_part(AutoConfig, "configuration", base, commit)
    architectures = config.architectures or []
    shown = ", ".join(architectures) or f"model type {config.model_type}"
    if any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in architectures):
        raise ValueError(
            f"{base} is a causal language model ({shown}), which learns labels as text: student: sft. A classifier needs an "
            "encoder, such as microsoft/deberta-v3-large"
        )
    if config.model_type not in KNOWN:
        raise ValueError(
            f"transformers makes no sequence classifier of {base} ({shown}); name an encoder such as DeBERTa"
        )
    return config, read_tokenizer(base, commit)


def _labels_of_head(config: PretrainedConfig, base: str) -> tuple[str, ...]:
    """The labels that a base tells apart in words, none where it is no such classifier."""
    if not any(name.endswith("ForSequenceClassification") for name in config.architectures or []):
        return ()
    try:
        return tuple(labels_of(config, base))
    except ValueError:
        return ()


def _load(
    config: PretrainedConfig,
    base: str,
    commit: str | None,
    head: Sequence[str],
    order: Sequence[str],
    seed: int,
    report: Callable[[str], None],
) -> PreTrainedModel:
    """The base with a head for `order`; says which weights are new, and lets none be new that should not."""
    import torch
    from transformers import AutoModelForSequenceClassification, set_seed

    was_classifier = any(name.endswith("ForSequenceClassification") for name in config.architectures or [])
    before = ", ".join(str(label) for _, label in sorted((config.id2label or {}).items()))
    config.id2label, config.label2id = dict(enumerate(order)), {word: i for i, word in enumerate(order)}
    config.problem_type = "single_label_classification"
    set_seed(seed)  # new weights are random
    keeps_head = was_classifier and tuple(head) == tuple(order)
    model, info = read_part(
        AutoModelForSequenceClassification,
        "weights",
        base,
        commit,
        config=config,
        dtype=torch.float32,
        ignore_mismatched_sizes=was_classifier and not keeps_head,
        output_loading_info=True,
    )
    new = {str(key) for key in info["missing_keys"]}
    new |= {str(key[0] if isinstance(key, tuple) else key) for key in info["mismatched_keys"]}
    inside = f"{model.base_model_prefix}."
    if wrong := sorted(key for key in new if key.startswith(inside) and "pooler" not in key):
        raise ValueError(
            f"the weights of {base} do not fit its configuration, {', '.join(wrong[:5])} would be random. Is the checkpoint "
            "complete?"
        )
    if keeps_head and new:
        raise ValueError(
            f"the classifier {base} lacks the weights {', '.join(sorted(new)[:5])}. Is the checkpoint complete?"
        )
    if keeps_head:
        report(f"the head of {base} is kept: it tells {', '.join(order)} apart already")
    elif was_classifier:
        new |= _renew_output(model)
        report(f"the head of {base} tells {before} apart; it is replaced by a new one for {', '.join(order)}")
    if new:
        report(f"new weights, random by seed {seed}: {', '.join(sorted(new))}")
    return model


def _renew_output(model: PreTrainedModel) -> set[str]:
    """Make the last layer random, also where an old one had the same shape, and return the names of its weights."""
    import torch

    layers = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
        and module.out_features == model.config.num_labels
        and not name.startswith(f"{model.base_model_prefix}.")
    ]
    if not layers:
        raise ValueError(
            f"{type(model).__name__} has no output layer that could be replaced; name the pretrained encoder"
        )
    name, layer = layers[-1]
    with torch.no_grad():
        layer.weight.normal_(0.0, getattr(model.config, "initializer_range", 0.02))
        if layer.bias is not None:
            layer.bias.zero_()
    return {f"{name}.{key}" for key, _ in layer.named_parameters()}


def _arguments(run: TrainingRun, keywords: Mapping[str, Any], dtype: str, team: Team) -> TrainingArguments:
    import torch
    from accelerate.utils import parse_flag_from_env
    from transformers import TrainingArguments

    use_cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    ours: dict[str, Any] = {
        "report_to": "none",
        "logging_steps": 10,
        "dataloader_pin_memory": not use_cpu,
        **keywords,
        "output_dir": str(run.checkpoints),
        "bf16": dtype == "bfloat16",
        "use_cpu": use_cpu,
        "logging_nan_inf_filter": False,
        "save_total_limit": None,  # see `TrainingRun.recorder`
    }
    if use_cpu and team.world > 1:
        ours["ddp_backend"] = "gloo"
    try:
        return TrainingArguments(**ours)
    except (TypeError, ValueError) as error:
        raise ValueError(f"training: {error}") from error


def _trainer(
    model: PreTrainedModel,
    arguments: TrainingArguments,
    encoded: Encoded,
    pairs: Pairs,
    tokenizer: PreTrainedTokenizerBase,
) -> Trainer:
    from transformers import DataCollatorWithPadding, PrinterCallback, ProgressCallback, Trainer

    class ClassifierTrainer(Watched, Trainer):
        """Stops before a loss that is not finite reaches the weights."""

    # Classifiers accept `num_items_in_batch` and ignore it: the Trainer would take their mean over a batch for a share of
    # the step, and multiply gradients by the processes and by the batches that are accumulated.
    model.accepts_loss_kwargs = False  # type: ignore[assignment]
    trainer = ClassifierTrainer(
        model=model,
        args=arguments,
        train_dataset=encoded.dataset,
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
    )
    for callback in (PrinterCallback, ProgressCallback):  # they print to standard output, which is not theirs
        trainer.remove_callback(callback)
    trainer.watch(encoded.dataset, lambda i: pairs.where[encoded.kept[i]])
    return trainer


def _costs(run: TrainingRun, model: PreTrainedModel, arguments: TrainingArguments, encoded: Encoded, keep: int) -> str:
    """Steps, memory and disk before they are spent; an error where the disk has too little."""
    weights = sum(parameter.numel() for parameter in model.parameters())
    steps = num_steps(arguments, len(encoded.kept), arguments.world_size)
    disk = run.check_space(checkpoint=12 * weights, model=4 * weights, saves=num_saves(arguments, steps), keep=keep)
    batch, length = arguments.train_batch_size, int(np.percentile(encoded.lengths, 99))
    activations = _activations(model.config, batch, length, 2 if arguments.bf16 else 4)
    return (
        f"{steps:,} steps of {batch * arguments.world_size * arguments.gradient_accumulation_steps:,} pairs\n"
        f"memory, roughly: {in_bytes(16 * weights + activations)} a process = 16 bytes for each of {weights:,} weights "
        f"(weight, gradient, two moments) + {in_bytes(activations)} of activations for {batch} pairs of {length:,} tokens\n"
        f"disk: {disk}"
    )


def _activations(config: PretrainedConfig, batch: int, length: int, size: int) -> float:
    """Bytes kept for the backward pass, as fitted to what autograd keeps for BERT and DeBERTa: so many hidden vectors a
    token and layer, and so many scores a head: with each other token, and with each relative position."""
    if getattr(config, "relative_attention", False):
        limits = (getattr(config, name, -1) for name in ("position_buckets", "max_relative_positions"))
        positions = 2 * next((limit for limit in limits if limit > 0), config.max_position_embeddings)
        scores = 2.0 * length + 2.8 * positions
        vectors = 24
    else:
        scores, vectors = 3.0 * length, 19
    a_token = vectors * config.hidden_size + scores * config.num_attention_heads
    return size * config.num_hidden_layers * batch * length * a_token
