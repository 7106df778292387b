"""A sequence classifier that answers natural language inference like any other model: with the label in words.

A request is a pair: a first message with the premise and a second with the hypothesis. Nothing is drawn, so sampling and
seed change nothing, and neither does the company of a pair in its batch, but for the last bits of the probabilities.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from importlib.util import find_spec
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from .generation import Request, Response
from .local import WINDOW, pin


if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

THREE = ("entailment", "neutral", "contradiction")
TWO = ("entailment", "not_entailment")

# The positions of these models begin after the padding token's id, so that they read fewer tokens than they have.
OFFSET_POSITIONS = ("roberta", "camembert", "longformer", "data2vec-text", "xmod", "mpnet", "ibert", "esm", "luke")


class _Pair(NamedTuple):
    position: int
    encoding: dict[str, list[int]]

    @property
    def length(self) -> int:
        return len(self.encoding["input_ids"])


class EncoderGenerator:
    """A sequence classifier such as DeBERTa, that answers a pair of premise and hypothesis with its likeliest label.

    Args:
        model: A Hub id or a folder. Its configuration says in words which label is which.
        revision: Branch, tag or commit of a Hub id.
        device: Where it runs; by default CUDA where there is one, else the CPU.
        batch_size: How many pairs are read at once.
        max_length: The most tokens of a pair; by default the model's own limit. A longer pair is an error of its request.

    Attributes:
        name: See `local.pin`; a `max_length` of your own stands behind it, since it decides which pairs are errors.

    Raises:
        ValueError: There is no such model or revision.

    Example:
        >>> from hf_prism.generation import Request, Sampling
        >>> pair = ({"role": "user", "content": "It rains."}, {"role": "user", "content": "It is dry."})
        >>> requests = [Request(pair, Sampling(), seed=0)]
        >>> for position, response in EncoderGenerator("my/student").generate(requests):  # doctest: +SKIP
        ...     print(position, response.text)
        0 contradiction
    """

    def __init__(
        self,
        model: str,
        *,
        revision: str | None = None,
        device: str | None = None,
        batch_size: int = 64,
        max_length: int | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; a batch holds at least 1 pair")
        self.name, self._commit = pin(model, revision)
        if max_length is not None:
            self.name += f" (max_length {max_length})"
        self.model, self.batch_size = model, batch_size
        self._asked_device, self._asked_length = device, max_length

    def check(self) -> None:
        """Read configuration and tokenizer.

        Raises:
            ValueError: There is no such model, it is no sequence classifier, its configuration does not say which label is
                which, or `max_length` is beyond its limit.
        """
        _ = self.labels, self._tokenizer, self.max_length

    def rendered(self, request: Request) -> str:
        """The pair as the model reads it, special tokens written out."""
        premise, hypothesis = (message["content"] for message in request.messages)
        return str(self._tokenizer.decode(encode_pairs(self._tokenizer, [premise], [hypothesis])["input_ids"][0]))

    def close(self) -> None:
        """Drop the model from memory."""
        for name in ("_model", "_tokenizer"):
            self.__dict__.pop(name, None)

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[int, Response]]:
        """Yield the position and the response of each request, batch by batch.

        Raises:
            ValueError: A request is no pair, or the model cannot be loaded.
            RuntimeError: A batch does not fit into the memory of the device, or the model computes no numbers.
        """
        self.check()
        numbered = enumerate(requests)
        while window := list(islice(numbered, WINDOW * self.batch_size)):
            pairs = self._encode(window)
            for pair in pairs:
                if pair.length > self.max_length:
                    yield pair.position, self._too_long(pair)
            fitting = [pair for pair in pairs if pair.length <= self.max_length]
            fitting.sort(key=lambda pair: (-pair.length, pair.position))
            for start in range(0, len(fitting), self.batch_size):
                batch = fitting[start : start + self.batch_size]
                for pair, choice in zip(batch, self._choose(batch), strict=True):
                    yield pair.position, Response(self.labels[choice], prompt_tokens=pair.length)

    @cached_property
    def labels(self) -> list[str]:
        """The label of each output, in words."""
        return labels_of(self._config, self.model)

    @cached_property
    def max_length(self) -> int:
        """The most tokens of a pair, special ones included."""
        return length_limit(self._config, self._tokenizer, self._asked_length, self.model)

    @cached_property
    def _config(self) -> PretrainedConfig:
        from transformers import AutoConfig

        config = read_part(AutoConfig, "configuration", self.model, self._commit)
        architectures = config.architectures or []
        if not _classifies(architectures):
            raise ValueError(
                f"{self.model} is no sequence classifier ({', '.join(architectures) or f'model type {config.model_type}'}); "
                "name one whose architecture ends with ForSequenceClassification, or ask it as a causal model"
            )
        return config

    @cached_property
    def _tokenizer(self) -> PreTrainedTokenizerBase:
        return read_tokenizer(self.model, self._commit)

    @cached_property
    def _model(self) -> PreTrainedModel:
        import torch
        from transformers import AutoModelForSequenceClassification

        device = self._asked_device or ("cuda" if torch.cuda.is_available() else "cpu")
        options = {"dtype": torch.float32, "output_loading_info": True}
        model, info = read_part(AutoModelForSequenceClassification, "weights", self.model, self._commit, **options)
        if missing := sorted(map(str, info["missing_keys"])):
            raise ValueError(
                f"{self.model} lacks the weights {', '.join(missing[:5])}, which would be random: name a finished classifier"
            )
        return model.eval().to(device)

    def _encode(self, window: Sequence[tuple[int, Request]]) -> list[_Pair]:
        for position, request in window:
            roles = [message["role"] for message in request.messages]
            if roles != ["user", "user"]:
                raise ValueError(
                    f"request {position} holds messages of {', '.join(roles)}; a sequence classifier reads two of user, the "
                    "premise and the hypothesis"
                )
        premises, hypotheses = zip(*([m["content"] for m in request.messages] for _, request in window), strict=True)
        encoding = encode_pairs(self._tokenizer, premises, hypotheses)
        return [
            _Pair(position, {name: cells[i] for name, cells in encoding.items()})
            for i, (position, _) in enumerate(window)
        ]

    def _too_long(self, pair: _Pair) -> Response:
        error = f"the pair has {pair.length:,} tokens, over the limit of {self.max_length:,} of {self.name}"
        return Response("", finish_reason="error", prompt_tokens=pair.length, error=error)

    def _choose(self, batch: Sequence[_Pair]) -> list[int]:
        """The likeliest output for each pair."""
        import torch

        inputs = self._tokenizer.pad([pair.encoding for pair in batch], return_tensors="pt")  # type: ignore[arg-type]
        try:
            with torch.inference_mode():
                logits = self._model(**inputs.to(self._model.device)).logits.float().cpu()
        except torch.OutOfMemoryError as error:
            raise RuntimeError(
                f"{len(batch)} pairs of up to {batch[0].length:,} tokens do not fit into the memory of {self._model.device}. "
                f"Lower batch_size (now {self.batch_size}); the same command goes on."
            ) from error
        if not bool(torch.isfinite(logits).all()):
            raise RuntimeError(
                f"{self.name} computes no finite numbers; its weights are damaged, or its training failed"
            )
        return logits.argmax(dim=-1).tolist()


def is_classifier(model: str, revision: str | None = None) -> bool:
    """Whether a model is a sequence classifier, by its configuration alone.

    Args:
        model: A Hub id or a folder.
        revision: Branch, tag or commit of a Hub id.

    Raises:
        ValueError: There is no such model or revision.

    Example:
        >>> is_classifier("embedded")
        False
    """
    from huggingface_hub import hf_hub_download

    from .checkpoint import load_problem, local_folder

    folder = local_folder(model)
    if folder and not (folder / "config.json").is_file():
        return False  # a LoRA adapter
    try:
        path = folder / "config.json" if folder else hf_hub_download(model, "config.json", revision=revision)
        with open(path) as file:
            return _classifies(json.load(file).get("architectures") or [])
    except Exception as error:  # the layers below raise many types
        raise ValueError(load_problem(model, folder, "configuration", error)) from error


def _classifies(architectures: Iterable[str]) -> bool:
    return any(name.endswith("ForSequenceClassification") for name in architectures)


def label_word(text: str) -> str:
    """A label as we spell it.

    Example:
        >>> label_word("ENTAILMENT"), label_word("non-entailment")
        ('entailment', 'not_entailment')
    """
    word = re.sub(r"[\s\-_]+", "_", text.strip().lower())
    return re.sub(r"^no[nt]_?entailment$", "not_entailment", word)


def labels_of(config: PretrainedConfig, model: str) -> list[str]:
    """The label of each output of a classifier, in words.

    Raises:
        ValueError: The configuration does not say which label is which, or they are not those of inference.
    """
    id2label: Any = config.id2label or {}
    written = [str(id2label[i]) for i in sorted(id2label)]
    if any(re.fullmatch(r"LABEL_\d+", label) for label in written):
        raise ValueError(
            f"{model}: the model's config does not say which label is which ({', '.join(written)}); set id2label in its "
            'config.json, such as {"0": "entailment", "1": "neutral", "2": "contradiction"}, as its authors document it'
        )
    words = [label_word(label) for label in written]
    if sorted(words) not in (sorted(THREE), sorted(TWO)):
        raise ValueError(
            f"{model} tells {', '.join(written) or 'nothing'} apart, which are not the labels of inference: "
            f"{', '.join(THREE)}; or {', '.join(TWO)}. If they mean the same, set id2label in its config.json"
        )
    return words


def read_part(auto_class: Any, what: str, model: str, commit: str | None, **options: Any) -> Any:
    """`from_pretrained` of an Auto class; `what` names the part in errors.

    Raises:
        ValueError: It cannot be read.
    """
    from .checkpoint import load_problem, local_folder

    folder = local_folder(model)
    try:
        return auto_class.from_pretrained(str(folder or model), revision=commit or "main", **options)
    except Exception as error:  # the layers below raise many types
        raise ValueError(load_problem(model, folder, what, error)) from error


def read_tokenizer(model: str, commit: str | None) -> PreTrainedTokenizerBase:
    """The tokenizer of an encoder.

    Raises:
        ValueError: It cannot be read, has no vocabulary, or no token for padding.
    """
    from transformers import AutoTokenizer

    lacking = [name for name in ("sentencepiece", "google.protobuf") if not _is_installed(name)]
    fix = "; a vocabulary such as DeBERTa-v3's needs: pip install sentencepiece protobuf" if lacking else ""
    try:
        tokenizer = read_part(AutoTokenizer, "tokenizer", model, commit)
    except ValueError as error:
        raise ValueError(f"{error}{fix}") from error
    ids = tokenizer("It rains all day.", "The street is wet.", add_special_tokens=False)["input_ids"]
    if len(set(ids)) < 2:  # transformers builds an empty tokenizer where the files are missing
        raise ValueError(f"the tokenizer of {model} knows no words, its files are missing{fix}")
    if tokenizer.pad_token_id is None:
        raise ValueError(f"the tokenizer of {model} has no pad token, so pairs cannot share a batch; set one")
    return tokenizer


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # its package is not
        return False


def length_limit(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase, asked: int | None, model: str) -> int:
    """The most tokens of a pair.

    Raises:
        ValueError: `asked` is beyond the model's limit, or below what a pair needs; or there is no limit at all.
    """
    positions = getattr(config, "max_position_embeddings", None)
    if positions and config.model_type in OFFSET_POSITIONS:
        positions -= (config.pad_token_id or 0) + 1
    # DeBERTa's positions are relative: it was trained on so many, and reads more where somebody asks for it.
    is_relative = getattr(config, "relative_attention", False) and not getattr(config, "position_biased_input", True)
    least = tokenizer.num_special_tokens_to_add(pair=True) + 2
    if asked is not None and asked < least:
        raise ValueError(f"max_length is {asked}; a pair needs at least {least} tokens")
    if asked is not None and positions and asked > positions and not is_relative:
        raise ValueError(f"max_length is {asked:,}, but {model} reads {positions:,} tokens at most; lower it")
    limits = [limit for limit in (positions, tokenizer.model_max_length) if limit and limit < 10**9]
    if asked is None and not limits:
        raise ValueError(f"neither configuration nor tokenizer of {model} gives a length limit; pass max_length")
    return int(asked or min(limits))


def encode_pairs(
    tokenizer: PreTrainedTokenizerBase, premises: Sequence[str], hypotheses: Sequence[str]
) -> Mapping[str, list[list[int]]]:
    """Tokens of whole pairs, whatever truncation is saved with the tokenizer."""
    return tokenizer(list(premises), list(hypotheses), truncation=False, padding=False, verbose=False)  # type: ignore[return-value]
