"""The student's weights: read from the base, made to stop where they learn to, and written for `from_pretrained`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from . import ranks
from .kinds import check_kind
from .proxy import WRONG_KEYS, ProxyModel
from .samples import near
from .settings import name_only
from .training_run import TrainingRun


if TYPE_CHECKING:
    from transformers import PreTrainedModel


def lora_config(lora: Mapping[str, Any] | None) -> Any:
    """The peft.LoraConfig of these keywords; None where no adapter is asked for.

    Raises:
        ValueError: peft is not installed, an unknown keyword, or a value that cannot be.
    """
    if lora is None:
        return None
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise ValueError("lora needs peft: pip install 'hf-prism[peft]'") from error
    known = get_type_hints(LoraConfig)
    for name, value in lora.items():
        if name not in known:
            raise ValueError(f"lora: {name!r} is no keyword of peft.LoraConfig{near(str(name), known)}")
        check_kind(f"lora: {name}", value, known[name])
    try:
        return LoraConfig(**{"task_type": "CAUSAL_LM", **lora})
    except (TypeError, ValueError) as error:
        raise ValueError(f"lora: {error}") from error


def load_base(proxy: ProxyModel, attention: str | None, dtype: str) -> PreTrainedModel:
    """The base with weights to train, every one from the checkpoint."""
    import torch
    from transformers import AutoModelForCausalLM

    model, found = proxy._read(
        AutoModelForCausalLM,
        "weights",
        dtype=getattr(torch, dtype),
        attn_implementation=attention or proxy.attention,
        output_loading_info=True,
    )
    wrong = {key: sorted(map(str, found[key]))[:5] for key in WRONG_KEYS if found.get(key)}
    if wrong and ranks.is_first():  # with FSDP the others may read no weights
        raise ValueError(f"the weights of {proxy.name} do not fit its configuration, a part would be random: {wrong}")
    return model


def stop_at_the_end(model: PreTrainedModel, proxy: ProxyModel, end: int | None, run: TrainingRun) -> None:
    """Make sure that the student's generation stops at the token that it learns to end with."""
    generation: Any = model.generation_config
    known = generation.eos_token_id
    stops = [] if known is None else list(known) if isinstance(known, (list, tuple)) else [known]
    ends: list[Any] = [end, proxy.tokenizer.eos_token_id]
    if new := [token for token in dict.fromkeys(ends) if token is not None and token not in stops]:
        generation.eos_token_id = [*stops, *new]
    if end is not None and end in new:
        token = proxy.tokenizer.decode([end])
        run.report(f"The student learns to end with {token!r}; its generation_config now stops there")


def save_student(trainer: Any, run: TrainingRun, proxy: ProxyModel, is_adapter: bool, dtype: str) -> None:
    """Write `model/`, and `adapter/` where only an adapter was trained. All processes call it."""
    # Activation checkpointing switches the cache off, without which the student would generate slowly.
    trainer.accelerator.unwrap_model(trainer.model).config.use_cache = getattr(proxy.config, "use_cache", True)
    if not is_adapter:
        with run.saving("model") as folder:
            trainer.save_model(str(folder))
            if run.team.rank == 0 and dtype == "bfloat16":
                _to_bfloat16(folder)
        return
    with run.saving("adapter") as folder:
        trainer.save_model(str(folder))
        if run.team.rank == 0:
            _name_base(folder, str(name_only(proxy.name)))
    with run.saving("model") as folder:
        if run.team.rank == 0:
            from peft import PeftModel

            # Onto weights read anew: those in training may be spread over processes.
            merged: Any = PeftModel.from_pretrained(load_base(proxy, None, dtype), str(run.path / "adapter"))
            merged = merged.merge_and_unload()
            merged.generation_config = trainer.accelerator.unwrap_model(trainer.model).generation_config
            merged.save_pretrained(folder)
            proxy.tokenizer.save_pretrained(folder)


def _name_base(folder: Path, name: str) -> None:
    """Have an adapter name its base by no folder of this machine, since it may be published."""
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "base_model_name_or_path": name}, indent=2) + "\n")
    (folder / "README.md").unlink(missing_ok=True)  # peft's, with the folder in it


def _to_bfloat16(folder: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    for path in sorted(folder.glob("*.safetensors")):
        tensors = load_file(path)
        save_file(
            {name: t.to(torch.bfloat16) if t.is_floating_point() else t for name, t in tensors.items()},
            path,
            metadata={"format": "pt"},
        )
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16"}, indent=2) + "\n")
