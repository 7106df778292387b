"""The proxy: a causal language model and its tokenizer, how it reads rows, and its identity.

Building a `ProxyModel` reads the configuration and the tokenizer only; the weights are read on first use of
``.model``, so that a process that only tokenises or forks workers never holds them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from . import rendering
from .checkpoint import (
    adapter_base,
    attach_adapter,
    check_causal,
    content_hash,
    load_problem,
    local_folder,
    resolve_commit,
)
from .rendering import Renderer, Rendering, Tokens
from .samples import RowError, RowFormat


if TYPE_CHECKING:
    from transformers import PreTrainedModel

DTYPES = ("float32", "bfloat16")
# Libraries may read the same tokenizer files differently (Qwen2's pre-tokenizer replaces a saved one), so what the
# tokenizer does is part of the identity.
PROBE = "It's 48+24 = 72.\n\n\tWeng earns $12,345.60 an hour;  déjà vu 数学 🙂 <|im_end|> foo_bar(x)"
WRONG_KEYS = ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")


@dataclass(frozen=True)
class EncodedRow:
    """A row as the proxy reads it.

    Attributes:
        input_ids: the tokens.
        completion_mask: of the same length, True where a token belongs to the completion. Position 0 is never
            learned: its token is predicted from nothing.
        truncated: whether the end was cut off.
        where: how messages name the row.
    """

    input_ids: list[int]
    completion_mask: list[bool]
    truncated: bool = False
    where: str = field(default="row", compare=False)

    @property
    def num_tokens(self) -> int:
        """The number of tokens that are learned."""
        return sum(self.completion_mask[1:])


@dataclass(frozen=True)
class Skipped:
    """A row that a policy leaves out: ``reason`` is ``"too_long"`` or ``"empty"``, ``detail`` the message."""

    reason: Literal["too_long", "empty"]
    detail: str


class ProxyModel:
    """A causal language model whose gradients describe the data (Prismatic Synthesis, section 3).

    Args:
        model: a Hub id, a folder, or ``"embedded"`` for the small proxy that ships with the package. A folder may hold
            a LoRA adapter, which is put onto its base model.
        revision: branch, tag or commit of a Hub id; resolved to the commit once, and everything is read from there.
        dtype: of the forward pass, ``"float32"`` or ``"bfloat16"``.
        max_length: the most tokens of a row; by default the proxy's own limit.
        chat_template: None for the tokenizer's own, False for plain concatenation, or a Jinja template.
        device: where the model runs; by default CUDA where there is one, else the CPU.
        trust_remote_code: run code that comes with the model.
        column_mapping: see `RowFormat`.
        prompt_template: see `RowFormat`.
        completion_template: see `RowFormat`.
        on_long: what happens to a row of more than ``max_length`` tokens: ``"error"``, ``"skip"``, or ``"truncate"``
            (its end is cut off).
        on_empty: what happens to a row without a token to learn: ``"error"`` or ``"skip"``.
        assistant_turns: learn the ``"last"`` or ``"all"`` assistant turns of ``messages``.

    Raises:
        ValueError: an unknown model, one that is no causal language model, an impossible option.

    Example:
        >>> proxy = ProxyModel("embedded")  # doctest: +SKIP
        >>> proxy.encode({"prompt": "1 + 1 = ?", "completion": "2"}).num_tokens  # doctest: +SKIP
        3
    """

    def __init__(
        self,
        model: str = "Qwen/Qwen2.5-0.5B-Instruct",
        *,
        revision: str | None = None,
        dtype: str = "float32",
        max_length: int | None = None,
        chat_template: str | Literal[False] | None = None,
        device: str | None = None,
        trust_remote_code: bool = False,
        column_mapping: Mapping[str, str | None] | None = None,
        prompt_template: str | None = None,
        completion_template: str | None = None,
        on_long: str = "error",
        on_empty: str = "error",
        assistant_turns: str = "last",
    ) -> None:
        _check("dtype", dtype, DTYPES)
        _check("on_long", on_long, ("error", "skip", "truncate"))
        _check("on_empty", on_empty, ("error", "skip"))
        _check("assistant_turns", assistant_turns, ("last", "all"))
        self.row_format = RowFormat(column_mapping or {}, prompt_template, completion_template)
        self.dtype, self.on_long, self.on_empty, self.assistant_turns = dtype, on_long, on_empty, assistant_turns
        self.trust_remote_code = trust_remote_code
        self._device = device

        self.name = str(model)
        self.folder, self.adapter = local_folder(self.name), None
        if base := adapter_base(self.folder):
            self.name, self.adapter = base, self.folder
            self.folder = local_folder(base)
        if self.folder and revision:
            raise ValueError(f"revision={revision!r} needs a Hub id, but {self.name} is a local folder")
        self.revision = None if self.folder else self._try("configuration", resolve_commit, self.name, revision)
        self.config: PretrainedConfig = self._read(AutoConfig, "configuration")
        check_causal(self.config, self.name)
        self.tokenizer: PreTrainedTokenizerBase = self._read(AutoTokenizer, "tokenizer")
        self._probe_ids: list[int] = self.tokenizer(PROBE, add_special_tokens=False, verbose=False)["input_ids"]  # type: ignore[assignment]
        if len(set(self._probe_ids)) < 3:  # transformers builds an empty tokenizer where the files are missing
            empty = ValueError("its vocabulary is empty, the files are missing")
            raise ValueError(load_problem(self.name, self.folder, "tokenizer", empty))
        self.renderer = Renderer(self.tokenizer, chat_template, assistant_turns)  # type: ignore[arg-type]
        self._vocab_size = self.config.get_text_config().vocab_size
        self.max_length = _max_length(self.config, self.tokenizer, max_length)

    @property
    def device(self) -> str:
        """Where the model runs; asks for CUDA only now, since asking may spoil a later fork."""
        if self._device is None:
            import torch

            self._device = "cuda" if torch.cuda.is_available() else "cpu"
        return self._device

    @device.setter
    def device(self, device: str) -> None:
        self._device = device

    @property
    def attention(self) -> str:
        """The attention implementation: ``"sdpa"`` where the model supports it, else ``"eager"``."""
        classes: Any = MODEL_FOR_CAUSAL_LM_MAPPING
        known = type(self.config) in classes
        return "sdpa" if known and classes[type(self.config)]._supports_sdpa else "eager"

    @cached_property
    def model(self) -> PreTrainedModel:
        """The model on its device, in evaluation mode with frozen weights; every weight came from the checkpoint.

        Raises:
            ValueError: no weights, or weights that do not fit the configuration.
        """
        import torch
        from transformers import AutoModelForCausalLM

        model, report = self._read(
            AutoModelForCausalLM,
            "weights",
            dtype=getattr(torch, self.dtype),
            attn_implementation=self.attention,
            output_loading_info=True,
        )
        wrong = {key: sorted(map(str, report[key]))[:5] for key in WRONG_KEYS if report.get(key)}
        if wrong:
            raise ValueError(
                f"the weights of {self.name} do not fit its configuration, a part would be random or unused: {wrong}. "
                "Is the checkpoint complete, and of a causal language model?"
            )
        if self.adapter:
            attach_adapter(model, self.adapter)
        model.config.use_cache = False
        return model.requires_grad_(False).eval().to(self.device)

    def encode(self, row: Mapping[str, Any], where: str = "row") -> EncodedRow | Skipped:
        """Render, tokenise and mask one row; never touches the weights.

        Args:
            row: column name to cell.
            where: how errors name the row.

        Raises:
            RowError: a row that is wrong, or one that the policies ``on_long`` and ``on_empty`` refuse.
            ValueError: the columns hold no layout.
        """
        return self.encode_rows([row], [where])[0]

    def encode_rows(
        self, rows: Sequence[Mapping[str, Any]], where: Sequence[str] | None = None
    ) -> list[EncodedRow | Skipped]:
        """`encode` for many rows with one call of the tokenizer, which is several times faster."""
        names = [f"row {i}" for i in range(len(rows))] if where is None else where
        results: list[EncodedRow | Skipped | None] = [None] * len(rows)
        renderings: list[tuple[int, Rendering]] = []
        for i, (row, name) in enumerate(zip(rows, names, strict=True)):
            sample = self.row_format.sample(row, name)
            if sample.target_is_empty:
                results[i] = self._refuse("empty", f"{name}: the completion is empty")
            else:
                renderings.append((i, self.renderer.render(sample, name)))
        for (i, _), tokens in zip(renderings, self.renderer.tokenize([r for _, r in renderings]), strict=True):
            results[i] = self._fit(tokens, names[i])
        return results  # type: ignore[return-value]

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Everything of the proxy and the rendering that changes a gradient, as plain JSON values.

        A local model is known by its content, wherever it lies. Column names and templates are not part of it: they say
        what a row's text is, and the same text has the same gradient whatever it was read from.
        """
        template = self.renderer.template
        return {
            "model": "local" if self.folder else self.name,
            "revision": self.revision,
            "content": content_hash(self.folder) if self.folder else None,
            "adapter": content_hash(self.adapter) if self.adapter else None,
            "tokenizer": _digest(json.dumps(self._probe_ids)),
            "dtype": self.dtype,
            "attention": self.attention,
            "rendering": f"{'plain' if template is None else 'chat'}-{rendering.VERSION}",
            "chat_template": None if template is None else _digest(template),
            "assistant_turns": self.assistant_turns,
            "max_length": self.max_length,
            "truncates": self.on_long == "truncate",
        }

    def _read(self, auto_class: Any, what: str, **options: Any) -> Any:
        source = str(self.folder) if self.folder else self.name
        options |= {"revision": self.revision or "main", "trust_remote_code": self.trust_remote_code}
        return self._try(what, auto_class.from_pretrained, source, **options)

    def _try(self, what: str, load: Callable[..., Any], *args: Any, **options: Any) -> Any:
        try:
            return load(*args, **options)
        except Exception as error:  # the layers below raise many types; the reason is passed on, never swallowed
            raise ValueError(load_problem(self.name, self.folder, what, error)) from error

    def _fit(self, tokens: Tokens, where: str) -> EncodedRow | Skipped:
        ids, mask, limit = tokens.input_ids, tokens.completion_mask, self.max_length
        self._check_vocabulary(ids, where)
        row = EncodedRow(ids[:limit], mask[:limit], truncated=len(ids) > limit, where=where)
        size = f"{where}: {len(ids):,} tokens, over the limit of {limit:,}; the prompt alone has {_num_prompt(mask):,}"
        if row.truncated and self.on_long != "truncate":
            return self._refuse("too_long", size if row.num_tokens else f"{size}, nothing of the completion would fit")
        if row.num_tokens == 0:
            return self._refuse(
                "empty", f"{size}, no token of the completion fits" if row.truncated else f"{where}: no token to learn"
            )
        return row

    def refuse(self, row: EncodedRow, problem: str) -> Skipped:
        """Apply ``on_empty`` to a row that turned out to be useless, such as one with a zero gradient.

        Raises:
            RowError: the policy is ``"error"``.
        """
        return self._refuse("empty", f"{row.where}: {problem}")

    def _refuse(self, reason: Literal["too_long", "empty"], detail: str) -> Skipped:
        """Apply the policy for this reason: leave the row out, or say how to go on."""
        if (self.on_empty if reason == "empty" else self.on_long) == "skip":
            return Skipped(reason, detail)
        fix = {
            "empty": "drop the row, or pass on_empty='skip' (--on-empty skip)",
            "too_long": "raise max_length, or pass on_long='skip' or 'truncate' (--max-length, --on-long)",
        }
        raise RowError(f"{detail}. {fix[reason]}")

    def _check_vocabulary(self, ids: list[int], where: str) -> None:
        size = self._vocab_size
        if ids and max(ids) >= size:
            token = self.tokenizer.convert_ids_to_tokens(max(ids))
            raise RowError(
                f"{where}: token {token!r} has the id {max(ids)}, but the proxy knows {size} tokens; tokenizer and model differ"
            )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _num_prompt(mask: list[bool]) -> int:
    return mask.index(True) if True in mask else len(mask)


def _check(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(map(repr, allowed))}")


def _max_length(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase, asked: int | None) -> int:
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    if asked is not None:
        if asked < 2:
            raise ValueError(f"max_length is {asked}; a row needs at least 2 tokens, one to read and one to learn")
        if positions and asked > positions:
            raise ValueError(f"max_length is {asked:,}, but the proxy has {positions:,} positions; lower it")
        return asked
    limits = [limit for limit in (positions, tokenizer.model_max_length) if limit and limit < 10**9]
    if not limits:
        raise ValueError(
            "neither the configuration nor the tokenizer gives a length limit; pass max_length (--max-length)"
        )
    return int(min(limits))
