"""The files of a proxy: where they lie, whether they hold a causal language model, what they contain, why they fail."""

from __future__ import annotations

import difflib
import hashlib
import json
from importlib.resources import files
from pathlib import Path

from huggingface_hub import hf_hub_download
from safetensors.torch import load_file
from transformers import PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_MASKED_LM_MAPPING_NAMES


WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
TOKENIZER_FILES = (
    "tokenizer.json tokenizer_config.json tokenizer.model special_tokens_map.json added_tokens.json vocab.json merges.txt "
    "vocab.txt spiece.model spm.model sentencepiece.bpe.model chat_template.jinja chat_template.json"
).split()


def local_folder(model: str) -> Path | None:
    """The folder of a local model, None for a Hub id."""
    if model == "embedded":
        path = Path(str(files("hf_prism") / "embedded"))
        if not path.is_dir():
            raise ValueError(f"the embedded proxy is missing from this installation ({path}); reinstall hf_prism")
        return path
    path = Path(model).expanduser()
    if path.is_dir():
        return path
    if difflib.get_close_matches(model, ["embedded"], cutoff=0.8):
        raise ValueError(f"there is no proxy {model!r}; did you mean 'embedded', the one that ships with the package?")
    if path.is_file():
        raise ValueError(f"{model} is a file; give the folder that holds config.json, the weights and the tokenizer")
    if model.startswith((".", "/", "~")) or model.count("/") != 1 and "/" in model:
        raise ValueError(f"{model} is no folder{_near_names(path)}")
    return None


def _near_names(path: Path) -> str:
    if not path.parent.is_dir():
        return ""
    close = difflib.get_close_matches(path.name, [entry.name for entry in path.parent.iterdir()], n=2)
    return f" (did you mean {' or '.join(close)}?)" if close else ""


def adapter_base(folder: Path | None) -> str | None:
    """The base model that a folder's LoRA adapter was trained on, or None where the folder holds a whole model."""
    if folder is None or (folder / "config.json").exists() or not (folder / "adapter_config.json").exists():
        return None
    return json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]


def attach_adapter(model: PreTrainedModel, folder: Path) -> None:
    """Put an adapter onto its base model, and make sure that every one of its weights arrived.

    Raises:
        ValueError: peft is not installed, or a weight found no place.
    """
    try:
        import peft  # noqa: F401
    except ImportError as error:
        raise ValueError(f"{folder} holds a LoRA adapter, which needs peft: pip install 'hf-prism[peft]'") from error
    model.load_adapter(str(folder))
    loaded = dict(model.named_parameters())
    for key, tensor in load_file(folder / "adapter_model.safetensors").items():
        name = key.removeprefix("base_model.model.").removesuffix(".weight") + ".default.weight"
        if name not in loaded or not loaded[name].detach().cpu().equal(tensor.to(loaded[name].dtype)):
            raise ValueError(f"the adapter weight {key} of {folder} found no place in {type(model).__name__}")


def resolve_commit(model: str, revision: str | None) -> str:
    """The commit that a Hub id's branch, tag or commit stands for now (offline: that the cache knows)."""
    return Path(hf_hub_download(model, "config.json", revision=revision)).parent.name


def load_problem(name: str, folder: Path | None, what: str, error: Exception) -> str:
    reason = str(error).strip()[:600]
    if "trust_remote_code" in reason:
        return f"{name} brings its own code; read it, then pass trust_remote_code=True ({reason})"
    if folder is None:
        return (
            f"the {what} of {name} could not be loaded. It is no folder here{_near_names(Path(name))}; if it is a Hub id, check "
            f"its spelling, the network and your access ({type(error).__name__}: {reason})"
        )
    held = ", ".join(sorted(entry.name for entry in folder.iterdir())[:12]) or "nothing"
    return f"the {what} of {name} could not be loaded; the folder holds: {held} ({type(error).__name__}: {reason})"


def check_causal(config: PretrainedConfig, name: str) -> None:
    """Refuse what `AutoModelForCausalLM` would load all the same, such as BERT with a causal head on top."""
    architectures = list(config.architectures or [])
    shown = ", ".join(architectures) or f"model type {config.model_type}"
    if config.is_encoder_decoder:
        raise ValueError(
            f"{name} is an encoder-decoder ({shown}); the proxy must be a causal language model such as Qwen2.5"
        )
    is_decoder = getattr(config, "is_decoder", False)
    if config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not is_decoder:
        raise ValueError(f"{name} is an encoder ({shown}); the proxy must be a causal language model such as Qwen2.5")
    if "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {}):
        return
    known = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type)
    causal = {str(c).lower() for c in (known if isinstance(known, (tuple, list)) else [known]) if c}
    if not causal or architectures and not any(_is_causal(a.lower(), causal) for a in architectures):
        raise ValueError(f"{name} is no causal language model ({shown}); the proxy needs one, such as Qwen2.5")


def _is_causal(architecture: str, causal: set[str]) -> bool:
    return architecture in causal or architecture.endswith(("forcausallm", "lmheadmodel"))


def content_hash(folder: Path, *more: str) -> str:
    """sha256 over the files that decide what the model computes: configuration, tokenizer, weights, code; and `more`."""
    names = [
        *more,
        "config.json",
        "adapter_config.json",
        "adapter_model.safetensors",
        *TOKENIZER_FILES,
        *(path.name for path in folder.glob("*.py")),
    ]
    weights = next((name for name in WEIGHTS if (folder / name).exists()), None)
    if weights:
        names.append(weights)
        if weights.endswith(".index.json"):
            names += json.loads((folder / weights).read_text())["weight_map"].values()
    total = hashlib.sha256()
    for name in sorted(set(names)):
        if (folder / name).exists():
            with (folder / name).open("rb") as file:
                total.update(f"{name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()
