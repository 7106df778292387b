"""A training stops before a loss or gradient that is not finite reaches the weights, and names the rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any


class NonFiniteLossError(ValueError):
    """The loss or its gradient became NaN or infinite; the message names the step and the rows."""


class NonFiniteWeightsError(ValueError):
    """Weights became NaN or infinite, though loss and gradient were finite; the message names the step and a weight."""


class Watched:
    """Mixin that stops a Trainer before a loss or gradient that is not finite reaches the weights.

    The batch is traced to its rows by content, so that no collator needs to carry row numbers: call `watch` with the
    tokenised rows and how to name one.
    """

    _rows: Any = ()
    _name: Callable[[int], str] = staticmethod(lambda i: f"row {i}")
    _recent: tuple[int, list[Any]] = (-1, [])

    def watch(self, rows: Any, name: Callable[[int], str]) -> None:
        """Args: rows: a dataset with a column `input_ids`, before packing; name: how to name its i-th row."""
        self._rows, self._name = rows, name

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **options: Any) -> Any:
        """The loss of the Trainer, if it is finite.

        Raises:
            NonFiniteLossError: It is not.
        """
        batch = {name: inputs[name] for name in ("input_ids", "attention_mask", "position_ids") if name in inputs}
        result = super().compute_loss(model, inputs, *args, **options)  # type: ignore[misc]
        if model.training:
            loss = result[0] if isinstance(result, tuple) else result
            step = self.state.global_step + 1  # type: ignore[attr-defined]
            self._recent = (step, [*(self._recent[1] if self._recent[0] == step else []), batch])
            if not math.isfinite(float(loss.detach())):
                self._stop("loss", float(loss.detach()), [batch])
        return result

    def _get_grad_norm(self, *args: Any, **options: Any) -> Any:
        norm = super()._get_grad_norm(*args, **options)  # type: ignore[misc]
        if norm is not None and not math.isfinite(float(norm)):
            self._stop("gradient", float(norm), self._recent[1])
        return norm

    def _stop(self, what: str, value: float, batches: list[Any]) -> None:
        found = self._find([ids for batch in batches for ids in sequences(batch)])
        shown = ", ".join(found[:20]) + (f" and {len(found) - 20} more" if len(found) > 20 else "")
        broken = not_finite(self.model)  # type: ignore[attr-defined]
        reached = (
            f"the weights were not finite before this step ({broken}), an earlier one left them so"
            if broken
            else "training has stopped before it reached the weights"
        )
        raise NonFiniteLossError(
            f"step {self._recent[0]}: the {what} is {value}; {reached}, and the last whole checkpoint stays. Rows of the batch: "
            f"{shown}. Look at these rows; if they are sound, lower the learning rate, or use dtype float32"
        )

    def _find(self, wanted: list[tuple[int, ...]]) -> list[str]:
        missing = set(wanted)
        found = [i for i, row in enumerate(self._rows) if tuple(row["input_ids"]) in missing]
        return [self._name(i) for i in found]


def not_finite(model: Any) -> str | None:
    """The name of a parameter that holds a value which is not finite, of those that lie in this process."""
    for name, parameter in model.named_parameters():
        held = getattr(
            parameter, "ds_tensor", parameter
        ).detach()  # DeepSpeed ZeRO-3 keeps the share of a process there
        held = held.to_local() if hasattr(held, "to_local") else held
        if held.is_floating_point() and not bool(held.isfinite().all()):
            return name
    return None


def check_weights(model: Any, step: int) -> None:
    """All weights are finite, or they must not be saved.

    Raises:
        NonFiniteWeightsError: They are not.
    """
    if broken := not_finite(model):
        raise NonFiniteWeightsError(
            f"step {step}: the weights are not finite ({broken}), so that neither they nor the student are saved; the last whole "
            "checkpoint stays. Lower the learning rate"
            if step
            else f"the weights of the base are not finite ({broken}); look for a sound copy of it, or read it in another dtype"
        )


def sequences(batch: Mapping[str, Any]) -> list[tuple[int, ...]]:
    """The token sequences of a batch, without padding; packed ones apart."""
    ids = batch["input_ids"].tolist()
    if "attention_mask" in batch:
        masks = batch["attention_mask"].tolist()
        return [tuple(i for i, kept in zip(*pair, strict=True) if kept) for pair in zip(ids, masks, strict=True)]
    rows: list[tuple[int, ...]] = []
    for row, positions in zip(ids, batch["position_ids"].tolist(), strict=True):
        starts = [i for i, position in enumerate(positions) if position == 0]
        rows += [tuple(row[a:b]) for a, b in zip(starts, [*starts[1:], len(row)], strict=True)]
    return rows
