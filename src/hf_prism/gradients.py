"""Per-example gradients of the proxy, streamed layer by layer into a sketch.

The weights are frozen, so that autograd computes only the gradients of activations (about two thirds of a training
step). Each layer hands its input and output gradient to the sketch during the backward pass and forgets them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from .sketch import SketchAccumulator, TensorSketch
from .structure import Layer, Structure, discover, head_logits, look_up, norm_response, run_backbone


LOGITS_BYTES = 2**26
"""The head runs on as many supervised positions at a time as keep float32 logits under this size."""


class Accumulator(Protocol):
    """What receives a batch's gradient as it streams by: a sketch, or the tests' materialised reference."""

    def add_linear(self, name: str, inputs: Tensor, deltas: Tensor, segments: Tensor | None) -> None: ...
    def add_embedding(self, name: str, ids: Tensor, deltas: Tensor) -> None: ...
    def add_vector(self, name: str, gradients: Tensor) -> None: ...
    def add_gradient(self, name: str, gradient: Tensor) -> None: ...


@dataclass(frozen=True)
class Batch:
    """Rows padded on the right.

    Attributes:
        input_ids: (batch, time) int64.
        supervised: (batch, time) bool; True where the token is part of the loss. Position 0 never is, since nothing
            predicts it. It stays on the host, so that no pass over the data waits for the device.
        lengths: Number of tokens of each row.
    """

    input_ids: Tensor
    supervised: Tensor
    lengths: list[int]

    @classmethod
    def collate(
        cls, input_ids: Sequence[Sequence[int]], masks: Sequence[Sequence[bool]], device: Any = "cpu"
    ) -> Batch:
        """Pad rows of token ids and completion masks to the longest; the pad id is never looked at."""
        lengths = [len(ids) for ids in input_ids]
        ids = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
        supervised = torch.zeros_like(ids, dtype=torch.bool)
        for row, (tokens, mask) in enumerate(zip(input_ids, masks, strict=True)):
            ids[row, : len(tokens)] = torch.as_tensor(tokens)
            supervised[row, 1 : len(tokens)] = torch.as_tensor(mask, dtype=torch.bool)[1:]
        return cls(ids.to(device), supervised, lengths)

    def rows(self) -> Iterator[Batch]:
        """Yield each row as a batch of its own, without padding."""
        for row, length in enumerate(self.lengths):
            yield Batch(self.input_ids[row : row + 1, :length], self.supervised[row : row + 1, :length], [length])


class _Tap(torch.autograd.Function):
    """Passes a layer's output on; its backward hands (input, output gradient) to `sink`.

    The input goes through `save_for_backward`, so that activation checkpointing can drop and recompute it. The output
    is marked as changed in place, which spares a copy and lets a model (Gemma 3n) really change it in place later.
    """

    @staticmethod
    def forward(ctx: Any, output: Tensor, source: Tensor, sink: Any) -> Tensor:
        ctx.save_for_backward(source)
        ctx.mark_dirty(output)
        ctx.sink = sink
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (source,) = ctx.saved_tensors
        with torch.no_grad():
            ctx.sink(source, grads[0])
        return grads[0], None, None


def _tap(output: Tensor, source: Tensor, sink: Any) -> Tensor:
    # The first tapped layer starts the graph: below it nothing needs a gradient.
    started = output if output.requires_grad else output.detach().requires_grad_().clone()
    return _Tap.apply(started, source, sink)  # pyright: ignore


class PerExampleGradients:
    """The gradient of each row's mean completion loss, handed to an accumulator (PAPER, step 1).

    Args:
        model: A causal LM. It is put in eval mode and its parameters are frozen.
        parameters: "all", or a regular expression over parameter names.

    Example:
        >>> engine = PerExampleGradients(model)
        >>> sketch = TensorSketch(engine.structure.blocks, dim=1024, seed=0)
        >>> total = sketch.accumulator(len(batch.lengths))
        >>> loss = engine(batch, total)           # (batch,) float32
        >>> total.result().shape                  # the sketches, not normalised
        torch.Size([8, 1024])
    """

    def __init__(self, model: nn.Module, *, parameters: str = "all"):
        self.model = model.eval().requires_grad_(False)
        self.structure: Structure = discover(model, parameters)
        self._accumulator: Accumulator
        self._segments: Tensor | None = None

    def __call__(self, batch: Batch, accumulator: Accumulator, *, checkpointing: bool = False) -> Tensor:
        """Stream the gradients of a batch into `accumulator` and return the losses, (batch,) float32.

        Args:
            batch: The rows.
            accumulator: What receives their gradient.
            checkpointing: Keep only the input of each decoder layer and recompute the rest in the backward pass: the
                same numbers in less memory, for a third more time.

        Raises:
            ValueError: A row has no supervised token.
        """
        empty = (~batch.supervised.any(dim=1)).nonzero().flatten().tolist()
        if empty:
            raise ValueError(f"Rows {empty} of the batch have no supervised token, hence no gradient.")
        if self.structure.by_autograd and len(batch.lengths) > 1:
            raise ValueError(
                f"{len(self.structure.by_autograd)} parameters such as {self.structure.by_autograd[0]!r} have no "
                "closed-form gradient: give this model one row at a time (Batch.rows())."
            )
        self._accumulator, self._batch_size = accumulator, len(batch.lengths)
        with self._attached(checkpointing), torch.enable_grad():
            output = run_backbone(self.model, batch.input_ids)
            hidden = output.last_hidden_state
            losses, grad = self._head(hidden, type(output), batch)
            if hidden.requires_grad:
                hidden.backward(grad)
        return losses

    def _head(self, hidden: Tensor, output_type: Callable, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the losses and the gradient of the hidden states, a chunk of supervised positions at a time."""
        rows, positions = batch.supervised.nonzero(as_tuple=True)
        weights = 1.0 / batch.supervised.sum(dim=1).float()[rows]
        row, position, weight = (t.to(hidden.device) for t in (rows, positions, weights))
        nlls = []
        grad = torch.zeros_like(hidden)
        vocabulary = self.model.config.get_text_config().vocab_size  # pyright: ignore
        step = max(1, LOGITS_BYTES // (4 * vocabulary))
        for part in (slice(start, start + step) for start in range(0, len(rows), step)):
            target = batch.input_ids[row[part], position[part]].unsqueeze(1)
            gathered = hidden.detach()[row[part], position[part] - 1].unsqueeze(0).requires_grad_(hidden.requires_grad)
            self._segments = rows[part]
            logits = head_logits(self.model, output_type, gathered)
            scores = torch.log_softmax(logits.detach()[0], dim=-1, dtype=torch.float32)
            nlls.append(-scores.gather(1, target).squeeze(1))
            if logits.requires_grad:
                # The gradient of the weighted mean NLL in place: (softmax - one-hot) * weight.
                delta = scores.exp_().mul_(weight[part].unsqueeze(1))
                delta.scatter_add_(1, target, -weight[part].unsqueeze(1))
                logits.backward(delta.unsqueeze(0).to(logits.dtype))
            if gathered.grad is not None:
                grad[row[part], position[part] - 1] = gathered.grad[0]
        self._segments = None
        member = F.one_hot(rows, len(batch.lengths)).T.float() * weights  # keeps the order of the sums fixed
        return member.to(hidden.device) @ torch.cat(nlls), grad

    @contextmanager
    def _attached(self, checkpointing: bool) -> Iterator[None]:
        """Tap the layers, leave to autograd the parameters it must serve, and undo both at the end."""
        handles = [
            self.model.get_submodule(name).register_forward_hook(partial(self._hook, layer))
            for name, layer in self.structure.layers.items()
        ]
        by_autograd = [self.model.get_parameter(name).requires_grad_() for name in self.structure.by_autograd]
        for name, parameter in zip(self.structure.by_autograd, by_autograd, strict=True):
            handles.append(parameter.register_post_accumulate_grad_hook(partial(self._take_gradient, name)))
        layers = [m for m in self.model.modules() if isinstance(m, GradientCheckpointingLayer)] * checkpointing
        for layer in layers:
            # Frozen models in eval mode draw no random numbers, whose state need not be saved.
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False)
        try:
            yield
        finally:
            for layer in layers:
                del layer.forward
            for handle in handles:
                handle.remove()
            for parameter in by_autograd:
                parameter.requires_grad_(False).grad = None

    def _take_gradient(self, name: str, parameter: nn.Parameter) -> None:
        assert parameter.grad is not None
        self._accumulator.add_gradient(name, parameter.grad.T if name in self.structure.transposed else parameter.grad)
        parameter.grad = None

    def _hook(self, layer: Layer, module: nn.Module, args: tuple, output: Tensor) -> Tensor:
        if not torch.is_grad_enabled() or (layer.weight is None and layer.bias is None):
            return output
        if layer.kind == "embedding":
            return self._looked_up(layer, module, args[0])  # pyright: ignore
        sink = self._take_linear if layer.kind == "linear" else self._take_norm
        return _tap(output, args[0], partial(sink, layer, module))

    def _looked_up(self, layer: Layer, module: nn.Embedding, ids: Tensor) -> Tensor:
        table = _tap(module.weight[ids.reshape(-1)], ids, partial(self._take_embedding, layer, module))
        return look_up(module, table, ids)

    def _take_embedding(self, layer: Layer, module: nn.Embedding, ids: Tensor, deltas: Tensor) -> None:
        deltas = deltas.view(*ids.shape, -1)
        if module.padding_idx is not None:  # autograd gives that row no gradient
            deltas = deltas * (ids != module.padding_idx).unsqueeze(-1)
        assert layer.weight is not None
        self._accumulator.add_embedding(layer.weight, ids, deltas)

    def _take_linear(self, layer: Layer, module: nn.Module, inputs: Tensor, deltas: Tensor) -> None:
        if layer.weight is not None:
            self._accumulator.add_linear(layer.weight, inputs, deltas, self._segments)
        if layer.bias is not None:
            self._accumulator.add_vector(layer.bias, self._per_row(deltas.float()))

    def _take_norm(self, layer: Layer, module: nn.Module, inputs: Tensor, deltas: Tensor) -> None:
        deltas = deltas.float()
        if layer.weight is not None:
            unit = norm_response(module, inputs, torch.full_like(module.weight, 1 - layer.offset))  # pyright: ignore
            self._accumulator.add_vector(layer.weight, self._per_row(unit.float() * deltas))
        if layer.bias is not None:
            self._accumulator.add_vector(layer.bias, self._per_row(deltas))

    def _per_row(self, values: Tensor) -> Tensor:
        """Sum over every dimension but the row and the last: (batch, ..., size) to (batch, size)."""
        if self._segments is None:
            return values.flatten(1, -2).sum(dim=1)
        member = F.one_hot(self._segments, self._batch_size).T.to(values.device, values.dtype)
        return member @ values.reshape(self._segments.numel(), -1)


def autograd_gradients(
    model: nn.Module, batch: Batch, structure: Structure, names: Sequence[str] | None = None
) -> Iterator[tuple[float, dict[str, Tensor]]]:
    """Yield the loss and gradient of each row by plain autograd through `model(labels=...)`: the reference.

    One row at a time, nothing of this library in between, every covered parameter or those in `names`. Matrices are
    oriented as in `Block`: Conv1D weights come transposed.
    """
    parameters = names or [block.name for block in structure.blocks]
    tensors = [model.get_parameter(name) for name in parameters]
    for row in batch.rows():
        labels = row.input_ids.masked_fill(~row.supervised.to(row.input_ids.device), -100)
        with torch.enable_grad():
            for tensor in tensors:
                tensor.requires_grad_()
            loss = model(input_ids=row.input_ids, labels=labels, use_cache=False).loss
            grads = torch.autograd.grad(loss, tensors, allow_unused=True, materialize_grads=True)
        for tensor in tensors:
            tensor.requires_grad_(False)
        named = zip(parameters, grads, strict=True)
        yield loss.item(), {name: grad.T if name in structure.transposed else grad for name, grad in named}


class _ByGroup:
    """An accumulator that keeps the sketch of each group of parameters apart."""

    def __init__(self, sketch: TensorSketch, batch_size: int):
        self.sketch = sketch
        self.parts = {block.group: sketch.accumulator(batch_size) for block in sketch.blocks.values()}

    def _part(self, name: str) -> SketchAccumulator:
        return self.parts[self.sketch.blocks[name].group]

    def add_linear(self, name: str, inputs: Tensor, deltas: Tensor, segments: Tensor | None) -> None:
        self._part(name).add_linear(name, inputs, deltas, segments)

    def add_embedding(self, name: str, ids: Tensor, deltas: Tensor) -> None:
        self._part(name).add_embedding(name, ids, deltas)

    def add_vector(self, name: str, gradients: Tensor) -> None:
        self._part(name).add_vector(name, gradients)

    def add_gradient(self, name: str, gradient: Tensor) -> None:
        self._part(name).add_gradient(name, gradient)

    def result(self) -> dict[str, Tensor]:
        return {group: part.result() for group, part in self.parts.items()}


@dataclass(frozen=True)
class SelfCheck:
    """How far the streamed gradients are from plain autograd through `model(labels=...)`.

    Attributes:
        loss_error: Largest relative error of a row's loss.
        errors: For each group of parameters, the largest `||error|| / max(||block||, 1e-3 ||gradient||)` over the rows.
        tolerance: What both must stay under: 1e-3 for a float32 forward, 0.2 for bfloat16.
    """

    loss_error: float
    errors: dict[str, float]
    tolerance: float

    @property
    def passed(self) -> bool:
        return max(self.loss_error, *self.errors.values()) <= self.tolerance

    def __str__(self) -> str:
        worst = sorted(self.errors.items(), key=lambda item: -item[1])[:3]
        parts = ", ".join(f"{group} {error:.1e}" for group, error in worst)
        return f"loss {self.loss_error:.1e}, worst parameters {parts} (tolerance {self.tolerance:.0e})"


def self_check(engine: PerExampleGradients, sketch: TensorSketch, batch: Batch) -> SelfCheck:
    """Compare the streamed gradients of a padded batch with autograd, row by row, each group of parameters apart.

    Full coverage of the parameters cannot show that the loss is the right one (DESIGN 3); this can.
    """
    batches = [batch] if not engine.structure.by_autograd else list(batch.rows())
    losses, parts = [], []
    for part in batches:
        streamed = _ByGroup(sketch, len(part.lengths))
        losses.append(engine(part, streamed))
        parts.append(streamed.result())
    fast = {group: torch.cat([part[group] for part in parts]) for group in parts[0]}
    loss_error, errors = 0.0, dict.fromkeys(fast, 0.0)
    for row, (loss, gradient) in enumerate(autograd_gradients(engine.model, batch, engine.structure)):
        reference = _ByGroup(sketch, 1)
        for name, tensor in gradient.items():
            reference.add_gradient(name, tensor)
        slow = {group: value[0] for group, value in reference.result().items()}
        floor = 1e-3 * torch.stack(list(slow.values())).norm()
        loss_error = max(loss_error, abs(torch.cat(losses)[row].item() - loss) / max(loss, 0.01))
        for group, value in slow.items():
            error = ((fast[group][row] - value).norm() / torch.maximum(value.norm(), floor)).item()
            broken = value.isfinite().all() and not fast[group][row].isfinite().all()  # a NaN would pass for no error
            errors[group] = max(errors[group], math.inf if broken else error)
    dtype = next(engine.model.parameters()).dtype
    return SelfCheck(loss_error, errors, 1e-3 if dtype == torch.float32 else 0.2)
