"""Students: a causal language model fine-tuned on rows with TRL, on exactly the completion of each.

Rows are tokenised and masked by `supervision`, the same way the proxy reads them; TRL's SFTTrainer does the training.
The run directory (`training_run`) makes it restartable: run the same again and it goes on from the last whole checkpoint.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from . import footprint, ranks
from .kinds import check_keywords, check_kind
from .local import pin
from .proxy import ProxyModel
from .rows import load_rows
from .settings import name_only
from .student_model import load_base, lora_config, save_student, stop_at_the_end
from .supervision import Supervision, preflight, supervise
from .trainer_checks import check_packing, check_prepared
from .training_run import Report, Student, TrainingRun, say, versions
from .watching import Watched


if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["Student", "distill"]

_NOT_HERE = "a student is judged by `evaluate`, not during training"
_PUSH = "push the finished student with push_to"
_ROWS = "the mask is that of the rows: see the keys columns, prompt_template, completion_template, assistant_turns"
# Keywords of SFTConfig that are decided elsewhere, and where.
OWNED = {
    **dict.fromkeys(("bf16", "fp16", "bf16_full_eval", "fp16_full_eval"), "the key dtype decides it"),
    **dict.fromkeys(("packing_strategy", "padding_free", "eval_packing"), "the key packing decides it"),
    **dict.fromkeys(("dataset_text_field", "completion_only_loss", "assistant_only_loss", "dataset_kwargs"), _ROWS),
    **dict.fromkeys(("eos_token", "pad_token"), "it comes from the base's tokenizer and the chat template"),
    **dict.fromkeys(("push_to_hub", "hub_token", "hub_private_repo", "hub_model_id", "hub_strategy"), _PUSH),
    **dict.fromkeys(("hub_always_push", "hub_revision"), _PUSH),
    **dict.fromkeys(
        ("eval_strategy", "eval_steps", "eval_delay", "eval_on_start", "do_eval", "do_predict"), _NOT_HERE
    ),
    **dict.fromkeys(("load_best_model_at_end", "metric_for_best_model", "greater_is_better"), _NOT_HERE),
    **dict.fromkeys(("save_only_model", "ignore_data_skip"), "resuming exactly needs it as it is"),
    **dict.fromkeys(("resume_from_checkpoint", "do_train"), "the same output resumes by itself"),
    "output_dir": "the key output names the run directory",
    "max_length": "the key max_length decides it",
    "truncation_mode": "the key on_long decides it",
    "packing": "the key packing decides it",
    "model_init_kwargs": "see the keys base, revision, dtype and attention",
    "trust_remote_code": "a base that brings its own code cannot be distilled",
    "chat_template_path": "the key chat_template decides it",
    "shuffle_dataset": "the Trainer shuffles the rows in every epoch",
    "remove_unused_columns": "the columns are made here",
    "disable_tqdm": "progress is reported in lines",
}
# What may change between two calls on one output: it does not decide the weights.
LOGGING = (
    *("logging_strategy", "logging_steps", "logging_first_step", "report_to", "run_name", "project", "log_level"),
    *("save_strategy", "save_steps", "save_total_limit", "dataloader_num_workers", "dataset_num_proc"),
    *("per_device_train_batch_size", "gradient_accumulation_steps"),  # their product with the processes may not
)
TRACKERS = {"wandb": "wandb", "trackio": "trackio", "tensorboard": "tensorboard", "mlflow": "mlflow"}
KEEP = 2
DTYPES = ("float32", "bfloat16")
KINDS: dict[str, Any] = {
    **dict.fromkeys(("base", "dtype", "on_long", "on_empty", "assistant_turns"), str),
    **dict.fromkeys(("revision", "prompt_template", "completion_template", "attention"), str | None),
    **dict.fromkeys(("column_mapping", "lora", "training"), dict | None),
    "output": str | Path,
    "max_length": int | None,
    "chat_template": str | Literal[False] | None,
    "packing": bool,
}


def distill(
    rows: Dataset | list[dict[str, Any]] | str | Path,
    base: str = "Qwen/Qwen2.5-0.5B-Instruct",
    *,
    output: str | Path,
    revision: str | None = None,
    dtype: str = "float32",
    max_length: int | None = None,
    on_long: str = "error",
    on_empty: str = "error",
    column_mapping: Mapping[str, str | None] | None = None,
    prompt_template: str | None = None,
    completion_template: str | None = None,
    chat_template: str | Literal[False] | None = None,
    assistant_turns: str = "last",
    packing: bool = False,
    attention: str | None = None,
    lora: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    report: Report = say,
    facts: Mapping[str, Any] | None = None,
    dry_run: bool = False,
) -> Student | None:
    """Fine-tune a student on the completions of rows.

    Under `accelerate launch` or torchrun all processes call it alike; the first one prints and writes.

    Args:
        rows: Whatever `load_rows` reads.
        base: A causal language model: Hub id, folder, or ``"embedded"``.
        output: The run directory. The same again resumes, or returns at once where the student is finished.
        revision: Of a Hub id.
        dtype: ``"float32"``, or ``"bfloat16"`` for mixed precision: the computation in bfloat16, trained weights in
            float32 while they are trained, the student saved in bfloat16.
        max_length: The most tokens of a row, and with `packing` of a packed sequence; by default the base's own limit.
        on_long: See `ProxyModel`.
        on_empty: See `ProxyModel`.
        column_mapping: See `RowFormat`.
        prompt_template: See `RowFormat`.
        completion_template: See `RowFormat`.
        chat_template: None for the base's own, False for plain concatenation, a Jinja template, or the path of a
            ``.jinja`` file. The student's tokenizer carries it.
        assistant_turns: Learn the ``"last"`` or ``"all"`` assistant turns of ``messages``.
        packing: Put several rows into one sequence; refused where the attention would let them read each other.
        attention: The implementation; by default ``"sdpa"`` where the model supports it.
        lora: Keywords of peft.LoraConfig, to train an adapter only. It is kept in ``adapter/``, and merged in ``model/``.
        training: Keywords of trl.SFTConfig.
        report: Called with lines for the user.
        facts: What else result.json should say.
        dry_run: Check and report everything up to loading the base, write nothing, and stop.

    Returns:
        The student; its `model` folder is read by `from_pretrained`. None after a dry run.

    Raises:
        ValueError: Bad options or rows, a mask that is not the completion's, no space on the disk, another run in
            `output`, or a loss that is not finite (`NonFiniteLossError`, which names the rows).

    Example:
        >>> distill("pool.jsonl", "embedded", output="runs/student", training={"max_steps": 100})  # doctest: +SKIP
    """
    options = locals()
    for name, kind in KINDS.items():
        check_kind(name, options[name], kind)
    if dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}; it must be one of {', '.join(map(repr, DTYPES))}")
    given = _training(training)
    adapter = lora_config(lora)
    if packing and max_length is None:
        raise ValueError("packing needs max_length: how many tokens a packed sequence may have")
    template = _template(chat_template)
    proxy = ProxyModel(
        base,
        revision=revision,
        max_length=max_length,
        chat_template=template,
        device="cpu",
        column_mapping=column_mapping,
        prompt_template=prompt_template,
        completion_template=completion_template,
        on_long=on_long,
        on_empty=on_empty,
        assistant_turns=assistant_turns,
    )
    _check_base(proxy, template)
    data = load_rows(rows)  # type: ignore[arg-type]
    if (
        proxy.renderer.template is None
        and template is None
        and proxy.row_format.layout(data.column_names) != ("text",)
    ):
        raise ValueError(
            f"{base} has no chat template. Pass chat_template: false to learn prompt and completion as one text that ends "
            "with EOS, or a Jinja template (or the path of a .jinja file)"
        )
    team = ranks.join()
    run = TrainingRun(output, team, report)
    supervision = supervise(data, proxy)
    args = _arguments(given, run, proxy, dtype=dtype, packing=packing, max_length=max_length, world=team.world)
    config = {
        "student": "sft",
        "base": pin(base, proxy.revision)[0],
        "rows": {"number": len(supervision.dataset), "learned_tokens": int(supervision.learned.sum())},
        "rows_digest": _digest(supervision.dataset),
        "dtype": dtype,
        "max_length": proxy.max_length,
        "on_long": on_long,
        "on_empty": on_empty,
        "chat_template": proxy.renderer.template,
        "assistant_turns": assistant_turns,
        "packing": packing,
        "attention": attention or proxy.attention,
        "lora": None if lora is None else dict(lora),
        "batch_size": args.per_device_train_batch_size * args.gradient_accumulation_steps * team.world,
        "training": {name: _plain(name_only(value)) for name, value in given.items() if name not in LOGGING},
        "logging": {name: _plain(name_only(value)) for name, value in given.items() if name in LOGGING},
    }
    if not dry_run and run.open(config, may_change=("logging",)):
        run.report(f"{run.path} is finished; nothing to do")
        return Student.read(run.path)
    keep = int(given.get("save_total_limit") or KEEP)
    if (supervision.skipped or supervision.truncated) and not dry_run:
        run.write_lines("left_out.jsonl", supervision.left_out())
    run.report(preflight(supervision, proxy))
    run.report(_costs(supervision, proxy, args, run, adapter, packing=packing, keep=keep, dtype=dtype))
    if dry_run:
        return None

    proxy.tokenizer.chat_template = proxy.renderer.template
    model = load_base(proxy, attention, "bfloat16" if adapter is not None and dtype == "bfloat16" else "float32")
    stop_at_the_end(model, proxy, supervision.end_id, run)
    trainer = _trainer(model, args, supervision, proxy, adapter, run.recorder(keep))
    check_prepared(trainer, supervision)
    if packing:
        run.report(team.agree(lambda: _packing_line(trainer, supervision)))
    checkpoint = run.newest_checkpoint()
    if checkpoint:
        run.report(f"Going on from {Path(checkpoint).name}")
    trainer.train(resume_from_checkpoint=checkpoint)
    save_student(trainer, run, proxy, adapter is not None, dtype)
    student = Student(
        output=run.path,
        model=run.model,
        base=str(base),
        rows=len(supervision.dataset),
        skipped=len(supervision.skipped),
        truncated=len(supervision.truncated),
        tokens=int(supervision.lengths.sum()),
        learned_tokens=int(supervision.learned.sum()),
        **run.summary(),
    )
    run.finish(
        student, {"versions": versions("torch", "transformers", "trl"), "base_id": config["base"], **(facts or {})}
    )
    return student


def _training(training: Mapping[str, Any] | None) -> dict[str, Any]:
    from trl.trainer.sft_config import SFTConfig

    given = check_keywords(training, SFTConfig, OWNED)
    trackers = given.get("report_to") or []
    for name in [trackers] if isinstance(trackers, str) else trackers:
        if name in TRACKERS and find_spec(TRACKERS[name]) is None:
            raise ValueError(f"training: report_to {name!r} needs the package: pip install {TRACKERS[name]}")
    return given


def _template(given: str | Literal[False] | None) -> str | Literal[False] | None:
    """The text of a template that is given by its path."""
    if not isinstance(given, str) or "{" in given:
        return given
    path = Path(given).expanduser()
    if not path.is_file():
        raise ValueError(
            f"chat_template is {given!r}, which is no file; give false, a Jinja template, or the path of a .jinja file"
        )
    return path.read_text(encoding="utf-8")


def _check_base(proxy: ProxyModel, template: str | Literal[False] | None) -> None:
    if proxy.adapter:
        raise ValueError(
            f"{proxy.adapter} is a LoRA adapter; merge it into its base, and give the folder of the result"
        )
    if proxy.tokenizer.pad_token is None and proxy.tokenizer.eos_token is None:
        raise ValueError(f"the tokenizer of {proxy.name} has neither a pad nor an EOS token; batches cannot be padded")


def _arguments(
    given: Mapping[str, Any],
    run: TrainingRun,
    proxy: ProxyModel,
    *,
    dtype: str,
    packing: bool,
    max_length: int | None,
    world: int,
) -> Any:
    import torch
    from trl.trainer.sft_config import SFTConfig

    on_cpu = bool(given.get("use_cpu", not torch.accelerator.is_available()))
    ours = {
        "output_dir": str(run.checkpoints),
        "bf16": dtype == "bfloat16",
        "use_cpu": on_cpu,
        "max_length": max_length if packing else None,  # rows are cut by on_long, or not at all
        "packing": packing,
        "completion_only_loss": True,
        "save_total_limit": None,  # the recorder keeps the whole ones
        "disable_tqdm": True,
        **({"ddp_backend": "gloo"} if on_cpu and world > 1 else {}),
    }
    try:
        args = SFTConfig(**{"report_to": "none", **given, **ours})
    except (TypeError, ValueError) as error:
        raise ValueError(f"training: {error}") from error
    if args.world_size != world:
        raise RuntimeError(f"{world} processes were launched, but the Trainer knows {args.world_size}")
    return args


def _costs(
    supervision: Supervision,
    proxy: ProxyModel,
    args: Any,
    run: TrainingRun,
    adapter: Any,
    *,
    packing: bool,
    keep: int,
    dtype: str,
) -> str:
    """Steps, memory and disk; the time is told after the first steps."""
    world, config = run.team.world, proxy.config
    size = footprint.measure(config, adapter, bfloat16=dtype == "bfloat16")
    tokens, number = int(supervision.lengths.sum()), len(supervision.dataset)
    sequences = max(1, -(-tokens // proxy.max_length)) if packing else number
    steps = footprint.num_steps(args, sequences, world)
    batch = args.per_device_train_batch_size * args.gradient_accumulation_steps * world
    widest = args.per_device_train_batch_size * (proxy.max_length if packing else int(supervision.lengths.max()))
    sharded = footprint.is_sharded(args)
    disk = run.check_space(
        checkpoint=size.checkpoint + 4 * size.trained * sharded,  # the weights once more, as the shards are gathered
        model=(size.all - (size.trained if adapter else 0)) * (2 if dtype == "bfloat16" else 4)
        + (size.trained * 4 if adapter else 0),
        saves=footprint.num_saves(args, steps),
        keep=keep,
    )
    lines = [
        f"Steps: {'about ' if packing else ''}{steps:,} of {batch:,} {'sequences' if packing else 'rows'}, "
        f"{steps * batch * tokens / sequences:,.0f} tokens in all; the time is estimated after the first steps",
        footprint.memory(size, config, args, widest, world=world, sharded=sharded),
        f"Disk: {disk}",
    ]
    uneven = sequences % (args.per_device_train_batch_size * world)
    if world > 1 and uneven and not packing:
        lines.append(
            "The last batch of an epoch is filled up with rows from its beginning, so that all processes get one"
        )
    return "\n".join(lines)


def _trainer(model: Any, args: Any, supervision: Supervision, proxy: ProxyModel, adapter: Any, recorder: Any) -> Any:
    from transformers import PrinterCallback
    from trl.trainer.sft_trainer import SFTTrainer

    class StudentTrainer(Watched, SFTTrainer):
        def create_model_card(self, *args: Any, **options: Any) -> None:
            """No card in every checkpoint; the student's is written from its results."""

    trainer = StudentTrainer(
        model=model,
        args=args,
        train_dataset=supervision.dataset,
        processing_class=proxy.tokenizer,
        peft_config=adapter,
        callbacks=[recorder],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.watch(supervision.dataset, supervision.name)
    return trainer


def _packing_line(trainer: Any, supervision: Supervision) -> str:
    plugin = getattr(trainer.args, "deepspeed_plugin", None)
    if plugin is not None and plugin.zero_stage == 3:
        if "flash" not in str(trainer.model.config._attn_implementation):
            raise ValueError(
                "under ZeRO-3 it cannot be checked that packed rows do not read each other; use attention: "
                "flash_attention_2, or packing: false"
            )
        return "Packing: not checked under ZeRO-3; flash attention keeps rows apart"
    return check_packing(trainer, supervision)


def _digest(dataset: Dataset) -> str:
    """Of all tokens and masks, in their order."""
    total = hashlib.sha256()
    for name in ("input_ids", "completion_mask"):
        for chunk in dataset.data.column(name).chunks:  # type: ignore[attr-defined]
            total.update(chunk.value_lengths().to_numpy(zero_copy_only=False).tobytes())
            total.update(chunk.flatten().to_numpy().tobytes())
    return total.hexdigest()


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))
