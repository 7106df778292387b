"""Students learn exactly their rows, the same way each time, and a run that breaks is continued."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from distill_launch import ROWS, TRAINING, curve, in_a_process, run
from helpers import CHATML, GEMMA, save_tiny_model, tiny_config, tiny_model, tiny_tokenizer
from processes import free_port, kill_at
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, SchedulerType, TrainingArguments
from trl import SFTConfig

from hf_prism import distillation, files, footprint, student_model, training_run, watching
from hf_prism.distillation import distill
from hf_prism.kinds import check_keywords
from hf_prism.proxy import ProxyModel
from hf_prism.rows import load_rows
from hf_prism.supervision import supervise
from hf_prism.training_run import Student, TrainingRun
from hf_prism.watching import NonFiniteLossError, NonFiniteWeightsError


EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def model(tmp_path):
    return save_tiny_model(tmp_path / "base", attention_dropout=0.1)  # so that random states matter


def student(model, output, **options):
    """Distil, and return the student and what was reported."""
    said = []
    training = {**TRAINING, "max_steps": 3, **options.pop("training", {})}
    done: Any = distill(
        options.pop("rows", ROWS), model, output=output, training=training, report=said.append, **options
    )
    return done, "\n".join(said)


def weights(output):
    return load_file(Path(output) / "model" / "model.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_training_is_adam_on_the_mean_loss_of_completion_tokens(tmp_path):
    """Against a loop in plain torch that knows the completions only as text."""
    base = save_tiny_model(tmp_path / "base")
    rows = ROWS[:4]
    options = {"max_steps": 4, "per_device_train_batch_size": 4, "lr_scheduler_type": "constant", "weight_decay": 0.0}
    done, _ = student(base, tmp_path / "run", rows=rows, training=options)

    model, tokenizer = AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    losses = []
    for _ in range(4):
        total, count = torch.zeros(()), 0
        for row in rows:
            prompt = f"<|im_start|>user\n{row['prompt']}<|im_end|>\n<|im_start|>assistant\n"
            start = len(tokenizer(prompt)["input_ids"])
            ids = torch.tensor([tokenizer(prompt + row["completion"] + "<|im_end|>\n")["input_ids"]])
            log_probs = model(ids).logits[0, :-1].log_softmax(-1)
            total = total - log_probs[start - 1 :].gather(1, ids[0, start:, None]).sum()
            count += ids.shape[1] - start
        optimizer.zero_grad()
        (total / count).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append((total / count).item())
    np.testing.assert_allclose([line["loss"] for line in curve(done.output)], losses, rtol=1e-4)
    trained = AutoModelForCausalLM.from_pretrained(done.model)
    for name, parameter in trained.named_parameters():
        torch.testing.assert_close(parameter, model.get_parameter(name), rtol=1e-3, atol=2e-4)
    assert done.learned_tokens == count and done.train_loss == pytest.approx(np.mean(losses), rel=1e-4)


def test_the_embedded_student_learns_in_float32(tmp_path):
    rows = [{"prompt": f"The secret of {i}?", "completion": "swordfish"} for i in range(8)]
    done, text = student("embedded", tmp_path / "run", rows=rows, training={"max_steps": 25, "learning_rate": 2e-3})
    losses = [line["loss"] for line in curve(done.output)]
    assert losses[-1] < 0.1 < 1 < losses[0]
    trained = AutoModelForCausalLM.from_pretrained(done.model)
    assert trained.dtype == torch.float32 and trained.config.use_cache
    tokenizer = AutoTokenizer.from_pretrained(done.model)
    chat = [{"role": "user", "content": "The secret of 77?"}]
    inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = trained.generate(**inputs, max_new_tokens=20, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert tokenizer.decode(answer, skip_special_tokens=True) == "swordfish"  # and stops there
    assert "[[swordfish<|im_end|>\n" in text and "Memory of a process" in text and "Steps: 25 of 8 rows" in text
    assert files.read_json(done.output / "result.json")["steps"] == 25


def test_the_same_seed_gives_the_same_numbers_and_another_one_does_not(model, tmp_path):
    first, second, other = (
        student(model, tmp_path / name, training={"seed": seed})[0].output
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert curve(first) == curve(second) and same(weights(first), weights(second))
    assert curve(first) != curve(other)


KILLS = {
    "in the middle of a step": lambda: kill_at(watching.Watched, "compute_loss", 4),
    "while a checkpoint is written": lambda: kill_at(transformers.Trainer, "_save_optimizer_and_scheduler", 1),
    "before a checkpoint counts": lambda: kill_at(
        training_run.files, "write_json", 1, lambda path, _: path.name == "whole.json"
    ),
    "while an old checkpoint is deleted": lambda: kill_at(
        training_run.shutil, "rmtree", 0, lambda path, **_: "checkpoint" in str(path)
    ),
    "while the student is written": lambda: kill_at(
        training_run, "_sync", 0, lambda folder: folder.name == "model.partial"
    ),
    "before the result": lambda: kill_at(TrainingRun, "finish"),
}
SAVING = {
    "training": {
        "max_steps": 8,
        "save_steps": 2,
        "save_total_limit": 1,
        "logging_steps": 3,
        "per_device_train_batch_size": 4,
    }
}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    base = save_tiny_model(folder / "base", attention_dropout=0.1)
    assert in_a_process(base, folder / "run", **SAVING) == 0
    return base, folder / "run"


@pytest.mark.parametrize("moment", KILLS)
def test_killed_and_resumed_gives_the_same_weights_and_losses(moment, uninterrupted, tmp_path):
    base, whole = uninterrupted
    assert in_a_process(base, tmp_path / "run", before=KILLS[moment], **SAVING) == -9
    assert not (tmp_path / "run" / "result.json").exists()
    assert in_a_process(base, tmp_path / "run", **SAVING) == 0
    assert curve(tmp_path / "run") == curve(whole)
    assert same(weights(tmp_path / "run"), weights(whole))
    left, wanted = (files.read_json(path / "result.json") for path in (tmp_path / "run", whole))
    for name in ("steps", "train_loss", "rows", "tokens", "learned_tokens"):
        assert left[name] == wanted[name]  # type: ignore[index]
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == ["checkpoint-6"]


def test_it_resumes_and_does_not_begin_again(uninterrupted, tmp_path):
    base, _ = uninterrupted
    in_a_process(base, tmp_path / "run", before=KILLS["in the middle of a step"], **SAVING)
    said = []
    run(base, tmp_path / "run", report=said.append, **SAVING)
    assert "Going on from checkpoint-4" in said
    assert [line.split(":")[0] for line in said if line.startswith("step")] == [f"step {i} of 8" for i in (6, 8)]


def test_a_finished_run_returns_at_once(model, tmp_path, monkeypatch):
    done, _ = student(model, tmp_path / "run")
    monkeypatch.setattr(student_model, "load_base", lambda *_: pytest.fail("the weights were read"))
    moved = shutil.move(tmp_path / "run", tmp_path / "moved")
    again, text = student(model, moved)
    assert again == Student(**{**vars(done), "output": Path(moved), "model": Path(moved) / "model"})
    assert "is finished" in text


def test_another_configuration_is_refused_by_its_fields(model, tmp_path):
    student(model, tmp_path / "run")
    with pytest.raises(ValueError, match=r"another configuration. training.learning_rate: 0.01 there, 0.02 now. Name"):
        student(model, tmp_path / "run", training={"learning_rate": 0.02})
    with pytest.raises(ValueError, match=r"batch_size: 8 there, 4 now"):
        student(model, tmp_path / "run", training={"per_device_train_batch_size": 4})
    changed = [*ROWS[:-1], {**ROWS[-1], "completion": "7"}]
    with pytest.raises(ValueError, match=r"rows.learned_tokens: .*; rows_digest"):
        student(model, tmp_path / "run", rows=changed)
    with pytest.raises(ValueError, match='dtype: "float32" there, "bfloat16" now'):
        student(model, tmp_path / "run", dtype="bfloat16")
    student(model, tmp_path / "run", training={"logging_steps": 2, "save_steps": 1})  # they decide no weight
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds something else \(notes.txt\)"):
        student(model, tmp_path / "other")


def hold(output, holds, done):
    """Open a run and keep it, in a process of its own."""
    TrainingRun(output).open({"a": 1})
    holds.set()
    done.wait(60)


def test_two_processes_do_not_train_in_one_directory(tmp_path):
    fork = multiprocessing.get_context("fork")
    holds, done = fork.Event(), fork.Event()
    other = fork.Process(target=hold, args=(tmp_path / "run", holds, done))
    other.start()
    try:
        assert holds.wait(60)
        for config in ({"a": 1}, {"a": 2}):
            with pytest.raises(ValueError, match=r"run is in use by another process"):
                TrainingRun(tmp_path / "run").open(config)
        assert files.read_json(tmp_path / "run" / "config.json")["a"] == 1  # type: ignore[index]
    finally:
        done.set()
        other.join()
    run = TrainingRun(tmp_path / "run")
    assert not run.open({"a": 1})  # nobody holds it any more
    assert not TrainingRun(tmp_path / "run").open({"a": 1})  # the same process may begin again after an error
    reopened = fork.Process(target=hold, args=(tmp_path / "run", holds, done))
    reopened.start()
    reopened.join()
    assert reopened.exitcode == 1  # and still holds it


def test_a_finished_run_is_held_by_nobody(model, tmp_path):
    done, _ = student(model, tmp_path / "run", training={"max_steps": 1})
    config = files.read_json(done.output / "config.json")
    process = multiprocessing.get_context("fork").Process(target=TrainingRun(done.output).open, args=(config,))
    process.start()
    process.join()
    assert process.exitcode == 0


def test_a_directory_where_nothing_was_trained_takes_another_configuration(tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    (path / ".config.json~machine~1~0").touch()
    (path / ".lock").touch()  # all that is there of a run that was killed at once
    run = TrainingRun(path, report=lambda text: None)
    run.open({"a": 1})
    run.write_lines("left_out.jsonl", [{"id": "x"}])
    assert run.newest_checkpoint() is None
    run.checkpoints.mkdir()
    run.open({"a": 2})
    assert files.read_json(path / "config.json") == {"kind": "training", "a": 2}
    assert not (path / "left_out.jsonl").exists()
    for made in (run.checkpoints / "checkpoint-1" / "x", run.model / "x", run.log, path / "result.json"):
        made.parent.mkdir(parents=True, exist_ok=True)
        made.write_text("{}")
        with pytest.raises(ValueError, match="another configuration. a: 2 there, 3 now"):
            run.open({"a": 3})
        shutil.rmtree(made.parent) if made.parent != path else made.unlink()
    run.open({"a": 3})


def test_weights_that_are_not_finite_are_neither_saved_nor_called_a_student(model, tmp_path, monkeypatch):
    """Loss and gradient of the step are finite; what the step leaves is not."""
    train_step = transformers.Trainer.training_step

    def breaking(self, model, *args, **options):
        loss = train_step(self, model, *args, **options)
        if self.state.global_step == 1:
            model.get_output_embeddings().weight.data[3, 3] = float("inf")
        return loss

    monkeypatch.setattr(transformers.Trainer, "training_step", breaking)
    for name, training in (("end", {"max_steps": 2}), ("checkpoint", {"max_steps": 4, "save_steps": 1})):
        with pytest.raises(NonFiniteWeightsError, match=r"step 2: the weights are not finite \(.*weight\)"):
            student(model, tmp_path / name, training={**training, "per_device_train_batch_size": 4})
        assert not (tmp_path / name / "model").exists() and not (tmp_path / name / "result.json").exists()
    assert [path.name for path in (tmp_path / "checkpoint" / "checkpoints").iterdir()] == ["checkpoint-1"]
    with pytest.raises(
        NonFiniteLossError, match=r"step 3: the loss is nan; the weights were not finite before"
    ) as caught:
        student(model, tmp_path / "loss", training={"max_steps": 4, "per_device_train_batch_size": 4})
    assert "stopped before it reached the weights" not in str(caught.value)


def poison(model, monkeypatch, word="poison"):
    """The embedding of a token that one row uses is not a number, though all weights are sound."""
    token = tiny_tokenizer([word] * 50)(f" {word}")["input_ids"][-1]
    load = distillation.load_base

    def poisoned(*args):
        loaded = load(*args)
        loaded.get_input_embeddings().register_forward_hook(
            lambda module, ids, out: out.masked_fill((ids[0] == token)[..., None], float("nan"))
        )
        return loaded

    monkeypatch.setattr(distillation, "load_base", poisoned)
    return save_tiny_model(model, tokenizer=tiny_tokenizer([word] * 50))


def test_a_base_whose_weights_are_not_finite_is_refused_before_the_first_step(model, tmp_path):
    broken = AutoModelForCausalLM.from_pretrained(model)
    broken.get_input_embeddings().weight.data[-1] = float("nan")  # of a token that no row has
    broken.save_pretrained(model)
    with pytest.raises(NonFiniteWeightsError, match=r"the weights of the base are not finite \(model.embed_tokens"):
        student(model, tmp_path / "run")
    assert not (tmp_path / "run" / "log.jsonl").read_text()


def test_a_loss_that_is_not_a_number_stops_and_names_the_rows(tmp_path, monkeypatch):
    rows = [{**row, "prompt": f"{row['prompt']} poison"} if row["id"] == "row-7" else row for row in ROWS]
    bad = poison(tmp_path / "base", monkeypatch)
    options = {"training": {"per_device_train_batch_size": 2, "max_steps": 12, "save_steps": 1}}
    with pytest.raises(NonFiniteLossError, match=r"step \d+: the loss is nan; .*row 7 \(id 'row-7'\)") as caught:
        student(bad, tmp_path / "run", rows=rows, **options)
    assert "stopped before it reached the weights" in str(caught.value)
    assert str(caught.value).count("(id ") == 2  # the rows of the batch, not of the data
    step = int(str(caught.value).split(":")[0].removeprefix("step "))
    kept = sorted((tmp_path / "run" / "checkpoints").iterdir(), key=lambda path: int(path.name.split("-")[1]))
    assert [path.name for path in kept] == [f"checkpoint-{i}" for i in range(max(1, step - 2), step)]
    for path in kept:
        assert training_run.is_whole(path)
        assert all(tensor.isfinite().all() for tensor in load_file(path / "model.safetensors").values())


def test_a_gradient_that_is_not_finite_stops_before_the_step(model, tmp_path, monkeypatch):
    """A loss may be finite where its gradient is not."""
    clip = transformers.Trainer._clip_grad_norm
    calls = []

    def overflowing(self, wrapped):
        calls.append(1)
        return torch.tensor(float("inf")) if len(calls) == 3 else clip(self, wrapped)

    monkeypatch.setattr(transformers.Trainer, "_clip_grad_norm", overflowing)
    with pytest.raises(NonFiniteLossError, match="step 3: the gradient is inf") as caught:
        student(
            model,
            tmp_path / "run",
            training={"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "max_steps": 4},
        )
    assert str(caught.value).count("(id 'row-") == 4  # of both batches of the step
    assert "stopped before it reached the weights" in str(caught.value)


def test_packed_rows_are_named_too(tmp_path, monkeypatch):
    rows = [{**row, "prompt": f"{row['prompt']} poison"} if row["id"] == "row-4" else row for row in ROWS]
    bad = poison(tmp_path / "base", monkeypatch)
    with pytest.raises(NonFiniteLossError, match=r"the loss is nan.*row 4 \(id 'row-4'\)"):
        student(bad, tmp_path / "run", rows=rows, packing=True, max_length=128, training={"max_steps": 12})


def test_no_space_is_an_error_with_both_figures_before_any_weight_is_read(model, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    size = footprint.measure(tiny_config())
    checkpoint, weight = 12 * size.all, 4 * size.all
    options = {"training": {"max_steps": 9, "save_steps": 2, "save_total_limit": 2}}
    needed = 3 * checkpoint + weight  # of four, two are kept and one is being written
    monkeypatch.setattr(training_run.shutil, "disk_usage", lambda _: usage(0, 0, needed - 1))
    monkeypatch.setattr(student_model, "load_base", lambda *_: pytest.fail("the weights were read"))
    with pytest.raises(ValueError, match="not enough space for checkpoints: .* free, the run needs") as caught:
        student(model, tmp_path / "run", **options)
    assert str(caught.value).count(training_run.in_bytes(needed)) >= 1
    monkeypatch.undo()
    monkeypatch.setattr(training_run.shutil, "disk_usage", lambda _: usage(0, 0, needed))
    done, _ = student(model, tmp_path / "run", **options)
    for path in (done.output / "checkpoints").iterdir():
        tensors = sum((path / name).stat().st_size for name in ("model.safetensors", "optimizer.pt"))
        assert tensors == pytest.approx(checkpoint, rel=0.2)  # headers weigh something in so small a model


@pytest.mark.parametrize(
    "training",
    [
        {"num_train_epochs": 2, "per_device_train_batch_size": 5, "save_steps": 3},
        {"num_train_epochs": 2, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 4, "save_steps": 0.4},
        {"num_train_epochs": 3, "per_device_train_batch_size": 8, "save_strategy": "epoch"},
        {"num_train_epochs": 1, "per_device_train_batch_size": 7, "dataloader_drop_last": True, "save_strategy": "no"},
        {"max_steps": 5, "per_device_train_batch_size": 7, "save_steps": 5},
    ],
)
def test_steps_and_checkpoints_are_foretold(training, model, tmp_path):
    saved = []

    class Counting(training_run._Recorder):
        def on_save(self, args, state, control, **options):
            saved.append(state.global_step)
            super().on_save(args, state, control, **options)

    original, training_run._Recorder = training_run._Recorder, Counting
    try:
        done, text = student(model, tmp_path / "run", training={"max_steps": -1, **training})
    finally:
        training_run._Recorder = original
    assert f"Steps: {done.steps} of" in text
    assert f"{min(3, len(saved))} checkpoints of" in text
    assert done.steps not in saved


def test_every_row_is_seen_once_an_epoch(model, tmp_path, monkeypatch):
    seen = []
    original = watching.Watched.compute_loss

    def noting(self, model, inputs, *args, **options):
        seen.extend(watching.sequences(inputs))
        return original(self, model, inputs, *args, **options)

    monkeypatch.setattr(watching.Watched, "compute_loss", noting)
    student(model, tmp_path / "run", training={"max_steps": -1, "per_device_train_batch_size": 5})
    wanted = [tuple(ids) for ids in supervise(load_rows(ROWS), ProxyModel(model)).dataset["input_ids"]]
    assert sorted(seen) == sorted(wanted) and seen != wanted  # all of them, shuffled
    seen.clear()
    student(model, tmp_path / "packed", packing=True, max_length=120, training={"max_steps": -1})
    assert sorted(seen) == sorted(wanted)


def test_a_trainer_that_loses_rows_is_refused(model, tmp_path, monkeypatch):
    from trl import SFTTrainer

    prepare = SFTTrainer._prepare_dataset
    monkeypatch.setattr(SFTTrainer, "_prepare_dataset", lambda *args: prepare(*args).select(range(23)))
    with pytest.raises(ValueError, match="prepared 23 rows .* given 24"):
        student(model, tmp_path / "a")
    monkeypatch.setattr(
        SFTTrainer,
        "_prepare_dataset",
        lambda *args: prepare(*args).map(lambda row: {"labels": row["input_ids"]}),  # the prompt is learned too
    )
    with pytest.raises(ValueError, match="24 rows with .* learned tokens, but it was given 24"):
        student(model, tmp_path / "b")


def test_packing_learns_what_separate_rows_learn(tmp_path):
    base = save_tiny_model(tmp_path / "base")
    alone, _ = student(base, tmp_path / "alone", training={"max_steps": 1, "per_device_train_batch_size": 24})
    packed, text = student(base, tmp_path / "packed", packing=True, max_length=120, training={"max_steps": 1, "per_device_train_batch_size": 24})  # fmt: skip
    assert curve(packed.output)[0]["loss"] == pytest.approx(curve(alone.output)[0]["loss"], rel=1e-5)
    assert "a row behind another reads as it does alone" in text


def test_packing_is_refused_where_rows_would_read_each_other(tmp_path):
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    def leaking(module, query, key, value, attention_mask, **options):
        return sdpa_attention_forward(module, query, key, value, None, **{**options, "is_causal": True})

    AttentionInterface.register("leaking", leaking)
    base = save_tiny_model(tmp_path / "base")
    with pytest.raises(ValueError, match="packing would let rows see each other.*attention: .*packing: false"):
        student(base, tmp_path / "run", packing=True, max_length=120, attention="leaking")
    with pytest.raises(ValueError, match="packing needs max_length"):
        student(base, tmp_path / "run", packing=True)


LORA = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}


def test_an_adapter_is_trained_alone_and_merged_for_everybody(model, tmp_path):
    from peft import PeftModel

    done, text = student(model, tmp_path / "run", lora=LORA, training={"save_steps": 2})
    base = AutoModelForCausalLM.from_pretrained(model)
    merged = AutoModelForCausalLM.from_pretrained(done.model)
    ids = torch.tensor([[5, 80, 200, 31]])
    plain = base(ids).logits
    adapted = PeftModel.from_pretrained(base, str(done.output / "adapter"))(ids).logits
    torch.testing.assert_close(merged(ids).logits, adapted, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(adapted, plain, atol=1e-3)
    unchanged = AutoModelForCausalLM.from_pretrained(model).get_input_embeddings().weight
    assert torch.equal(merged.get_input_embeddings().weight, unchanged)
    assert AutoTokenizer.from_pretrained(done.model).chat_template == CHATML
    assert files.read_json(done.output / "adapter" / "adapter_config.json")["base_model_name_or_path"] == "base"
    for path in (*(done.output / "adapter").iterdir(), *done.model.iterdir(), done.output / "config.json"):
        assert str(tmp_path).encode() not in path.read_bytes()  # they may be published
    trained = sum(t.numel() for t in load_file(done.output / "adapter" / "adapter_model.safetensors").values())
    from peft import LoraConfig

    size = footprint.measure(tiny_config(), LoraConfig(task_type="CAUSAL_LM", **LORA))
    assert size.trained == trained and size.all - trained == sum(p.numel() for p in base.parameters()) - trained


def test_a_killed_adapter_run_resumes(uninterrupted, tmp_path):
    base, _ = uninterrupted
    options = {**SAVING, "lora": LORA}
    assert in_a_process(base, tmp_path / "a", **options) == 0
    assert in_a_process(base, tmp_path / "b", before=KILLS["in the middle of a step"], **options) == -9
    assert in_a_process(base, tmp_path / "b", **options) == 0
    assert curve(tmp_path / "b") == curve(tmp_path / "a") and same(weights(tmp_path / "b"), weights(tmp_path / "a"))


def test_mixed_precision_saves_the_student_in_bfloat16(model, tmp_path):
    exact, _ = student(model, tmp_path / "exact")
    mixed, _ = student(model, tmp_path / "mixed", dtype="bfloat16")
    assert {tensor.dtype for tensor in weights(mixed.output).values()} == {torch.bfloat16}
    assert AutoModelForCausalLM.from_pretrained(mixed.model).dtype == torch.bfloat16
    a, b = (np.array([line["loss"] for line in curve(done.output)]) for done in (exact, mixed))
    assert 0 < np.abs(a - b).max() < 0.1


def test_two_processes_learn_what_one_learns(tmp_path):
    base = save_tiny_model(tmp_path / "base")
    both = {"training": {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 1, "num_train_epochs": 2}}
    one = {"training": {**both["training"], "per_device_train_batch_size": 6}}
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node",
        "2",
        "--master_port",
        str(free_port()),
    ]
    script = str(Path(__file__).with_name("distill_launch.py"))
    launched = subprocess.Popen(
        [*command, script, base, str(tmp_path / "two"), json.dumps(both)], stderr=subprocess.PIPE, text=True
    )
    assert in_a_process(base, tmp_path / "one", **one) == 0
    _, said = launched.communicate(timeout=120)
    assert launched.returncode == 0, said
    alone, together = curve(tmp_path / "one"), curve(tmp_path / "two")
    assert len(alone) == len(together) == 8
    np.testing.assert_allclose([x["loss"] for x in together], [x["loss"] for x in alone], rtol=1e-4)
    assert [x["num_tokens"] for x in together] != []
    for name, tensor in weights(tmp_path / "one").items():
        torch.testing.assert_close(weights(tmp_path / "two")[name], tensor, rtol=1e-3, atol=1e-4)
    assert said.count("One row as the student reads it") == 1  # the first process speaks for both
    configs = [files.read_json(tmp_path / name / "config.json") for name in ("one", "two")]
    assert {**configs[0], "logging": None} == {**configs[1], "logging": None}  # type: ignore[dict-item]


def test_the_student_stops_at_the_token_that_it_learned_and_keeps_its_template(tmp_path):
    tokenizer = tiny_tokenizer(chat_template=CHATML, bos="<bos>")
    base = save_tiny_model(tmp_path / "base", tokenizer=tokenizer)
    path = tmp_path / "gemma.jinja"
    path.write_text(GEMMA)
    done, text = student(base, tmp_path / "run", chat_template=str(path))
    saved = AutoTokenizer.from_pretrained(done.model)
    assert saved.chat_template == GEMMA
    stops = GenerationConfig.from_pretrained(done.model).eos_token_id
    assert stops == [0, saved.convert_tokens_to_ids("<end_of_turn>")]
    assert "learns to end with '<end_of_turn>'" in text


def test_a_base_without_template_says_what_to_do(tmp_path):
    base = save_tiny_model(tmp_path / "base", tokenizer=tiny_tokenizer(chat_template=None))
    with pytest.raises(ValueError, match="has no chat template. Pass chat_template: false"):
        student(base, tmp_path / "run")
    done, text = student(base, tmp_path / "run", chat_template=False)
    assert "  | Clips in May? [[0 clips<|endoftext|>]]" in text
    assert AutoTokenizer.from_pretrained(done.model).chat_template is None
    with pytest.raises(ValueError, match="chat_template is 'chatml', which is no file"):
        student(base, tmp_path / "run", chat_template="chatml")
    student(base, tmp_path / "text", rows=[{"text": "The quick brown fox"}] * 3)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"training": {"learning_rat": 1}}, "'learning_rat' is no keyword of SFTConfig .did you mean 'learning_rate'"),
        ({"training": {"output_dir": "x"}}, "training: output_dir is not set here; the key output names"),
        ({"training": {"max_length": 5}}, "training: max_length is not set here; the key max_length decides it"),
        ({"training": {"bf16": True}}, "training: bf16 is not set here; the key dtype"),
        ({"training": {"completion_only_loss": False}}, "the mask is that of the rows"),
        ({"training": {"eval_strategy": "steps"}}, "judged by `evaluate`"),
        ({"training": {"lr_scheduler_type": "sinus"}}, "training: .*sinus"),
        ({"training": {"report_to": "mlflow"}}, "report_to 'mlflow' needs the package: pip install mlflow"),
        ({"training": {"learning_rate": "1e-5"}}, "training: learning_rate is '1e-5', .* write 1.0e-5"),
        ({"training": {"learning_rate": float("inf")}}, "learning_rate is inf; it must be a number that is finite"),
        ({"training": {"max_steps": True}}, "max_steps is True, .* it must be a whole number"),
        ({"training": {"gradient_accumulation_steps": 0}}, "gradient_accumulation_steps is 0; it must be at least 1"),
        ({"training": {"num_train_epochs": 0, "max_steps": -1}}, "num_train_epochs is 0 .* there would be no step"),
        ({"training": {"save_strategy": False}}, "save_strategy is False, .* YAML reads no, off as false"),
        ({"training": {"hub_token": "hf_secret"}}, "hub_token is not set here; push the finished student"),
        (
            {"max_length": "512"},
            "max_length is '512', which is text; it must be a whole number or null. Write it without",
        ),
        ({"max_length": 0}, "max_length"),
        ({"prompt_template": 5}, "prompt_template is 5, which is a whole number; it must be text or null"),
        ({"packing": "yes"}, "packing is 'yes', which is text; it must be true or false"),
        ({"dtype": None}, "dtype is None, which is nothing"),
        ({"output": 5}, "output is 5, which is a whole number; it must be text"),
        ({"chat_template": 5}, "chat_template is 5"),
        ({"lora": {"r": "8"}}, "lora: r is '8', which is text; it must be a whole number. Write it without quotes: 8"),
        ({"lora": {"target_modules": 5}}, "lora: target_modules is 5, which is a whole number"),
        ({"lora": {"target_modules": ["q_proj", 5]}}, r"lora: target_modules\[1\] is 5"),
        ({"lora": {"lora_dropout": "x"}}, "lora: lora_dropout is 'x', which is text; it must be a number$"),
        ({"lora": {"lora_dropout": 5}}, "lora.*dropout"),
        ({"lora": {"r": 0}}, "lora.*`?r`?"),
        ({"lora": ["r"]}, "lora is .'r'., which is a list; it must be keys and values"),
        ({"lora": {"rank": 4}}, "lora: 'rank' is no keyword of peft.LoraConfig"),
        ({"lora": {"target_modules": ["nowhere"]}}, "lora does not fit the model.*q_proj"),
        ({"dtype": "float16"}, "dtype is 'float16'"),
        ({"attention": "nothing"}, "nothing"),
        ({"rows": [{"question": "x", "answer": "y"}]}, "--column prompt=question"),
    ],
)
def test_bad_options_are_refused(options, message, model, tmp_path):
    with pytest.raises(ValueError, match=message):
        student(model, **{"output": tmp_path / "run", **options})
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize(("config_class", "owned"), [(SFTConfig, distillation.OWNED), (TrainingArguments, {})])
def test_what_a_configuration_takes_by_default_is_of_the_right_kind(config_class, owned):
    defaults = {
        field.name: field.default
        for field in dataclasses.fields(config_class)
        if field.init and field.default is not dataclasses.MISSING and field.name not in owned
    }
    assert len(defaults) > 60 and check_keywords(defaults, config_class, owned) == defaults


@pytest.mark.parametrize(
    "good",
    [
        {"learning_rate": 1, "warmup_steps": 0.1, "save_steps": 5, "tf32": 1},
        {"max_grad_norm": float("inf"), "report_to": ["none"], "lr_scheduler_kwargs": {"num_cycles": 2}},
        {"lr_scheduler_type": SchedulerType.COSINE, "optim": "adamw_torch", "fsdp_config": "fsdp.json"},
        {"num_train_epochs": 0, "max_steps": 3, "data_seed": None, "pad_to_multiple_of": 8},
    ],
)
def test_what_is_not_plainly_wrong_is_taken(good):
    assert check_keywords(good, SFTConfig, distillation.OWNED) == good


def test_no_keyword_takes_a_secret():
    names = {field.name for field in dataclasses.fields(SFTConfig)}
    assert {name for name in names if name.startswith(("hub_", "push_to_")) or name.endswith("_token")} <= {
        *distillation.OWNED
    }


def test_peft_is_asked_for(model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ValueError, match=r"pip install 'hf-prism\[peft\]'"):
        student(model, tmp_path / "run", lora={"r": 4})


def test_no_row_is_cut_that_was_not_asked_for(tmp_path):
    """TRL cuts at 1,024 tokens unless it is told otherwise."""
    base = save_tiny_model(tmp_path / "base", max_position_embeddings=2048)
    rows = [{"id": "long", "prompt": "x", "completion": "foobar " * 1200}, *ROWS[:3]]
    done, _ = student(base, tmp_path / "run", rows=rows, training={"max_steps": 1})
    assert curve(done.output)[0]["num_tokens"] > 1200
    assert done.tokens > 1200 and done.truncated == done.skipped == 0


def test_rows_that_are_left_out_are_all_listed(tmp_path):
    base = save_tiny_model(tmp_path / "base")
    rows = [
        *ROWS,
        {"id": "long", "prompt": "x", "completion": "foobar " * 300},
        {"id": "none", "prompt": "x", "completion": ""},
    ]
    done, text = student(base, tmp_path / "run", rows=rows, on_long="skip", on_empty="skip")
    assert (done.rows, done.skipped, done.truncated) == (24, 2, 0)
    assert {line["id"]: line["reason"] for line in files.read_lines(done.output / "left_out.jsonl")} == {
        "long": "too_long",
        "none": "empty",
    }
    cut, _ = student(base, tmp_path / "cut", rows=rows[:-1], on_long="truncate")
    assert (cut.rows, cut.skipped, cut.truncated) == (25, 0, 1)
    assert [line["id"] for line in files.read_lines(cut.output / "left_out.jsonl")] == ["long"]


def test_parameters_are_counted_without_weights():
    for architecture, tied in (("qwen2", True), ("llama", False), ("gemma2", True), ("gpt2", True)):
        extra = {"n_embd": 32, "n_layer": 2, "n_head": 4} if architecture == "gpt2" else {"tie_word_embeddings": tied}
        wanted = sum(parameter.numel() for parameter in tiny_model(architecture, **extra).parameters())
        assert footprint.measure(tiny_config(architecture, **extra)).all == wanted


@pytest.mark.parametrize("name, kind", [("fsdp2.yaml", "FSDP"), ("zero3.yaml", "DEEPSPEED")])
def test_accelerate_reads_the_shipped_configurations(name, kind):
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    command = ["--config_file", str(EXAMPLES / "accelerate" / name), "-m", "hf_prism", "distill", "recipe.yaml"]
    args, *_ = _validate_launch_command(launch_command_parser().parse_args(command))
    assert args.mixed_precision == "bf16" and args.num_processes == 8
    if kind == "FSDP":
        assert args.use_fsdp and int(args.fsdp_version) == 2 and args.fsdp_state_dict_type == "FULL_STATE_DICT"
    else:
        assert args.use_deepspeed and int(args.zero_stage) == 3 and args.zero3_save_16bit_model
