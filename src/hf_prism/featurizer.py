"""`GradientFeaturizer`: rows in, unit gradient sketches out; the callable for `datasets.map`."""

from __future__ import annotations

import hashlib
import json
import math
import multiprocessing
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate.utils.memory import should_reduce_batch_size
from torch import Tensor

from . import batches as batching
from .batches import plan_batches, separate
from .gradients import Batch, PerExampleGradients, SelfCheck, self_check
from .origin import TEMPLATES, Origin
from .proxy import EncodedRow, ProxyModel, Skipped
from .samples import RowError
from .sketch import ALGORITHM, TensorSketch
from .structure import check_choice


if TYPE_CHECKING:
    from datasets import Features

CHECK_TOKENS = 256
"""Tokens of a row that are compared with autograd."""


@dataclass(frozen=True)
class _Pass:
    """Rows and, still on the device, what one forward and backward pass found for them."""

    rows: Sequence[EncodedRow]
    vectors: Tensor
    norms: Tensor
    losses: Tensor


class GradientFeaturizer:
    """The gradient of a proxy on each row, sketched to `dim` numbers and scaled to unit length (PAPER, steps 1-3).

    Works on one row or on a batch of rows, in `Dataset.map` and `IterableDataset.map`. The model is loaded at the
    first call, in whichever process that is; what `datasets` hashes and sends to workers is the configuration only.

    Args:
        model: Hub id or path of a causal LM; "embedded" is the small proxy that ships with the package.
        revision: Branch, tag or commit on the Hub.
        dim: Length d of the vectors, a multiple of 4.
        seed: Seed of the sketch. Vectors compare only under the same seed.
        dtype: "float32" or "bfloat16", of the forward and backward pass; the sketch is always float32.
        max_length: Longest row in tokens; default, the proxy's own limit.
        column_mapping: `{"prompt": "question", "completion": "answer"}` and the like; names are prompt, completion,
            messages, text, id.
        prompt_template: Format string over the row's columns that makes the prompt.
        completion_template: The same for the completion.
        chat_template: None for the tokenizer's own, a Jinja string, or False to concatenate prompt and completion.
        on_long: "error", "skip" or "truncate" for rows over `max_length`.
        on_empty: "error" or "skip" for rows without a supervised token or without a usable gradient.
        parameters: "all", or a regular expression over parameter names ("lora" for an adapter's).
        device: Torch device; default, `cuda:{rank % device_count}` where there is a GPU, else the CPU.
        assistant_turns: "last" or "all": which turns of `messages` are the completion.
        trust_remote_code: Run code from the model's repository.

    Returns:
        From a call, the columns `gradient` ((dim,) float32, unit length), `gradient_norm` (before scaling), `loss`
        (mean over the completion tokens, nats) and `num_tokens` (completion tokens); with `on_long="truncate"` also
        `truncated`. A skipped row has None and `num_tokens` 0.

    Raises:
        RowError: (a ValueError) A row cannot be used; the message names it and the fix.
        RuntimeError: The streamed gradients differ from autograd on this architecture; checked at the first call.

    Example:
        >>> featurizer = GradientFeaturizer("embedded")
        >>> row = featurizer({"prompt": "Tom has 2 apples and buys 3. How many?", "completion": "2 + 3 = 5"})
        >>> row["gradient"].shape
        (1024,)
        >>> ds = ds.map(featurizer, batched=True)
    """

    VERSION = 1
    """Raised when the numbers change for a reason that the configuration does not show; part of the cache identity."""

    def __init__(
        self,
        model: str = "Qwen/Qwen2.5-0.5B-Instruct",
        *,
        revision: str | None = None,
        dim: int = 1024,
        seed: int = 0,
        dtype: str = "float32",
        max_length: int | None = None,
        column_mapping: Mapping[str, str | None] | None = None,
        prompt_template: str | None = None,
        completion_template: str | None = None,
        chat_template: str | bool | None = None,
        on_long: str = "error",
        on_empty: str = "error",
        parameters: str = "all",
        device: str | None = None,
        assistant_turns: str = "last",
        trust_remote_code: bool = False,
    ):
        _check_options(dim, seed, device)
        check_choice(parameters)
        self.dim, self.seed, self.parameters, self.device = dim, seed, parameters, device
        self._proxy_arguments = {
            "model": model,
            "revision": revision,
            "dtype": dtype,
            "max_length": max_length,
            "column_mapping": dict(column_mapping) if column_mapping else None,
            "prompt_template": prompt_template,
            "completion_template": completion_template,
            "chat_template": chat_template,
            "on_long": on_long,
            "on_empty": on_empty,
            "assistant_turns": assistant_turns,
            "trust_remote_code": trust_remote_code,
        }
        self._start()
        _ = self.identity  # a wrong model, option or template is an error here, not in the first worker

    def __call__(self, rows: Mapping[str, Any], rank: int | None = None) -> dict[str, Any]:
        self._rank = rank if self._rank is None else self._rank
        each, is_batch = separate(rows, self.proxy.row_format)
        out = self.featurize_rows(self.proxy.encode_rows(each))
        return out if is_batch else {name: values[0] for name, values in out.items()}

    def featurize_rows(self, rows: Sequence[EncodedRow | Skipped]) -> dict[str, list[Any]]:
        """Featurize encoded rows, in batches of like length. Returns the columns of a call, in the order given."""
        results: list[dict[str, Any] | Skipped] = [row if isinstance(row, Skipped) else {} for row in rows]
        encoded = {i: row for i, row in enumerate(rows) if isinstance(row, EncodedRow)}
        kept, lengths = list(encoded), [len(row.input_ids) for row in encoded.values()]
        plan = plan_batches(lengths, one_by_one=bool(kept) and self.one_by_one)
        found, _ = self.featurize_batches([encoded[kept[j]] for j in batch] for batch in plan)
        for batch, values in zip(plan, found, strict=True):
            for j, value in zip(batch, values, strict=True):
                results[kept[j]] = value
        missing = {"gradient": None, "gradient_norm": None, "loss": None, "num_tokens": 0, "truncated": False}
        return {name: [(missing if isinstance(r, Skipped) else r)[name] for r in results] for name in self.features}

    def featurize_batch(self, rows: Sequence[EncodedRow]) -> list[dict[str, Any] | Skipped]:
        """Featurize rows in one forward and backward pass: the columns of each row, or why it was skipped."""
        return self.featurize_batches([rows])[0][0]

    def featurize_batches(
        self, batches: Iterable[Sequence[EncodedRow]], parts: Mapping[int, Sequence[int]] | None = None
    ) -> tuple[list[list[dict[str, Any] | Skipped]], dict[int, list[int]]]:
        """Featurize batches of rows, one forward and backward pass each; the device is waited for once, at the end.

        Args:
            batches: What one pass holds; pulled one at a time.
            parts: By batch number, the sizes of the parts in which it must run: a division returned by an earlier
                call, repeated so that the numbers are the same to the last bit.

        Returns:
            For each batch the columns of each row, or why it was skipped; and the parts of those batches that had to
            be divided because memory ran out.

        Raises:
            RowError: A row alone does not fit into memory, or has no usable gradient.
        """
        results: list[list[dict[str, Any] | Skipped]] = []
        divided: dict[int, list[int]] = {}
        with self._lock:  # threads take turns: a pass hooks into the model and swaps its parameters
            launched = []
            for number, rows in enumerate(batches):
                self._check_once(rows)
                passes = self._launch_in_parts(rows, (parts or {}).get(number) or self._sizes(rows))
                if len(passes) > 1:
                    divided[number] = [len(part.rows) for part in passes]
                launched.append(passes)
            for passes in launched:
                results.append([result for part in passes for result in self._collect(part)])
        return results, divided

    def _sizes(self, rows: Sequence[EncodedRow]) -> list[int]:
        """The parts a batch runs in: one, unless a smaller batch has already been too much for the memory."""
        longest, size = max(len(row.input_ids) for row in rows), len(rows)
        while size > 1 and size * longest >= self._too_many_tokens:
            size = -(-size // 2)
        return [min(size, len(rows) - start) for start in range(0, len(rows), size)]

    def _launch_in_parts(self, rows: Sequence[EncodedRow], sizes: Sequence[int]) -> list[_Pass]:
        """Run rows in parts of these sizes, and halve a part for which the memory does not suffice."""
        passes: list[_Pass] = []
        waiting, start = list(sizes), 0
        while waiting:
            size = waiting.pop(0)
            part = rows[start : start + size]
            try:
                passes.append(self._launch(part))
                start += size
            except RuntimeError as error:
                if not (isinstance(error, torch.OutOfMemoryError) or should_reduce_batch_size(error)):
                    raise
                tokens = size * max(len(row.input_ids) for row in part)
                if size == 1:
                    raise RowError(
                        f"{part[0].where}: its {tokens:,} tokens alone do not fit into the memory of "
                        f"{self._engine_device}. Pass max_length with on_long='truncate' or 'skip' (--max-length, "
                        "--on-long), or use a smaller proxy."
                    ) from error
                self._too_many_tokens = min(self._too_many_tokens, tokens)
                waiting[:0] = [size - size // 2, size // 2]
            if waiting:
                torch.cuda.empty_cache()  # once the failed pass is forgotten; does nothing without CUDA
        return passes

    def _launch(self, rows: Sequence[EncodedRow]) -> _Pass:
        batch, accumulator = self._collate(rows), self.sketch.accumulator(len(rows))
        # A row over the budget runs alone, and stays within a full batch's memory that way.
        losses = self.engine(batch, accumulator, checkpointing=batch.input_ids.numel() > batching.BATCH_TOKENS)
        sketches = accumulator.result()
        norms = sketches.norm(dim=1)
        return _Pass(rows, sketches / norms.unsqueeze(1), norms, losses)

    def _collect(self, done: _Pass) -> list[dict[str, Any] | Skipped]:
        results: list[dict[str, Any] | Skipped] = []
        columns = (done.vectors.cpu().numpy(), done.norms.tolist(), done.losses.tolist())
        for row, vector, norm, loss in zip(done.rows, *columns, strict=True):
            if np.isfinite(vector).all():  # a zero gradient divides to NaN
                values = {"gradient": vector, "gradient_norm": norm, "loss": loss, "num_tokens": row.num_tokens}
                results.append(values | {"truncated": row.truncated})
            else:
                problem = "zero" if norm == 0 else "not finite"
                results.append(self.proxy.refuse(row, f"its gradient is {problem} (loss {loss})"))
        return results

    def _collate(self, rows: Sequence[EncodedRow]) -> Batch:
        return Batch.collate([r.input_ids for r in rows], [r.completion_mask for r in rows], self._engine_device)

    def check(self, rows: Sequence[EncodedRow]) -> SelfCheck:
        """Compare the streamed gradients of the two shortest rows, or excerpts of them, with autograd (DESIGN 3)."""
        shortest = sorted(rows, key=lambda row: len(row.input_ids))[:2]
        return self_check(self.engine, self.sketch, self._collate([_excerpt(row) for row in shortest]))

    def _check_once(self, rows: Sequence[EncodedRow]) -> None:
        if self._checked:
            return
        result = self.check(rows)
        if not result.passed:
            raise RuntimeError(
                f"The streamed gradients of {type(self.proxy.model).__name__} differ from autograd through "
                f"model(labels=...): {result}. Nothing was computed. Run `hf-prism doctor --model "
                f"{self._proxy_arguments['model']}` and report its output, or use another proxy."
            )
        self._checked = True

    @cached_property
    def proxy(self) -> ProxyModel:
        """The tokenizer, rendering and (lazily) the model."""
        return ProxyModel(**self._proxy_arguments, device=self.device)

    @cached_property
    def engine(self) -> PerExampleGradients:
        """The per-example gradients of the loaded model."""
        self.proxy.device = self._resolve_device()
        return PerExampleGradients(self.proxy.model, parameters=self.parameters)

    @cached_property
    def sketch(self) -> TensorSketch:
        """The map from gradients to `dim` numbers."""
        return TensorSketch(self.engine.structure.blocks, self.dim, self.seed, self._engine_device)

    @property
    def one_by_one(self) -> bool:
        """Whether the proxy has parameters that only single rows can serve."""
        return bool(self.engine.structure.by_autograd)

    @property
    def _engine_device(self) -> torch.device:
        return next(self.engine.model.parameters()).device

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What the numbers depend on, short of the model's own structure; known without loading the model."""
        return {
            "version": self.VERSION,
            "sketch": ALGORITHM,
            "dim": self.dim,
            "seed": self.seed,
            "parameters": self.parameters,
            **{f"proxy.{name}": value for name, value in self.proxy.identity.items()},
        }

    @property
    def origin(self) -> Origin:
        """What the features say of themselves: the feature_id, its fields, and how the rows were read."""
        row_format = self.proxy.row_format
        templates = {name: getattr(row_format, name) for name in TEMPLATES}
        return Origin(self.feature_id, {**self.identity, **templates})

    @cached_property
    def feature_id(self) -> str:
        """Digest of everything that changes the numbers. Vectors compare only under one feature_id. Loads the model."""
        fields = {**self.identity, "groups": self.engine.structure.groups}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def features(self) -> Features:
        """The columns of a call as `datasets.Features`, for `map(..., features=...)`."""
        from datasets import Features, List, Value

        features = {
            "gradient": List(Value("float32"), length=self.dim),
            "gradient_norm": Value("float32"),
            "loss": Value("float32"),
            "num_tokens": Value("int32"),
        }
        if self._proxy_arguments["on_long"] == "truncate":
            features["truncated"] = Value("bool")
        return Features(features)

    def __getstate__(self) -> dict[str, Any]:
        """The configuration and the identity: what `datasets` hashes, and all that a worker receives."""
        return {
            "identity": self.identity,
            # The commit, so that every worker loads what this process saw even if the branch moves on.
            "proxy": {**self._proxy_arguments, "revision": self.identity["proxy.revision"]},
            "device": self.device,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.identity = state["identity"]
        self._proxy_arguments, self.device = state["proxy"], state["device"]
        self.dim, self.seed, self.parameters = (self.identity[name] for name in ("dim", "seed", "parameters"))
        self._start()

    def _start(self) -> None:
        self._rank: int | None = None
        self._lock = threading.RLock()
        self._checked = False
        self._too_many_tokens = math.inf

    def _resolve_device(self) -> str:
        if _in_worker():
            # A child forked after its parent used OpenMP threads hangs in its first parallel region (FACTS B2).
            torch.set_num_threads(1)
        if self.device is not None and not self.device.startswith("cuda"):
            return self.device
        if not torch.cuda.is_available():
            if self.device is not None:
                raise ValueError(
                    f"device={self.device!r}: torch sees no CUDA device here. Leave it out, or use 'cpu'."
                )
            return "cpu"
        if torch.cuda._is_in_bad_fork():
            raise RuntimeError(
                "This worker was forked from a process that already uses CUDA. Put `multiprocess.set_start_method("
                '"spawn")` under `if __name__ == "__main__":`, or leave CUDA alone before `map(num_proc=...)`.'
            )
        return self.device or f"cuda:{(self._rank or 0) % torch.cuda.device_count()}"


def _excerpt(row: EncodedRow) -> EncodedRow:
    """The row around its first learned token: plain autograd holds the logits of all tokens at once."""
    start = max(0, row.completion_mask.index(True, 1) - CHECK_TOKENS // 2)
    part = slice(start, start + CHECK_TOKENS)
    return EncodedRow(row.input_ids[part], row.completion_mask[part])


def _check_options(dim: int, seed: int, device: str | None) -> None:
    for name, value in (("dim", dim), ("seed", seed)):
        if not isinstance(value, int):
            raise ValueError(f"{name}={value!r} must be a whole number (int), not {type(value).__name__}.")
    if dim < 4 or dim % 4:
        raise ValueError(f"dim={dim}: the sketch dimension must be a positive multiple of 4, for example 1024.")
    try:
        torch.device(device or "cpu")
    except RuntimeError as error:
        raise ValueError(f"device={device!r} is no torch device, such as 'cpu', 'cuda' or 'cuda:1'.") from error


def _in_worker() -> bool:
    libraries = [multiprocessing, sys.modules.get("multiprocess")]
    return any(library is not None and library.parent_process() is not None for library in libraries)
