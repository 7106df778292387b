"""Does the Trainer learn what it was given? Checks of TRL's SFTTrainer, made before the first step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .supervision import Supervision
from .watching import NonFiniteLossError


IGNORED = -100  # the label of a token that carries no loss


def check_prepared(trainer: Any, supervision: Supervision) -> None:
    """Check that the Trainer holds exactly the kept rows, and that its labels are those of our mask.

    Raises:
        ValueError: Rows or learned tokens were lost or added on the way.
    """
    data = trainer.train_dataset
    packed = "seq_lengths" in data.column_names
    rows = sum(map(len, data["seq_lengths"])) if packed else len(data)
    learned = sum(int((_values(chunk) != IGNORED).sum()) for chunk in data.data.column("labels").chunks)
    wanted = len(supervision.dataset), int(supervision.learned.sum())
    if (rows, learned) != wanted:
        raise ValueError(
            f"the Trainer prepared {rows:,} rows with {learned:,} learned tokens, but it was given {wanted[0]:,} with "
            f"{wanted[1]:,}; this version of TRL treats tokenised rows in another way"
        )
    if packed:
        return
    for position in {0, int(supervision.lengths.argmax()), len(data) - 1}:
        row = supervision.dataset[position]
        labels = [t if counts else IGNORED for t, counts in zip(row["input_ids"], row["completion_mask"], strict=True)]
        batch = trainer.data_collator([{name: data[position][name] for name in ("input_ids", "labels")}])
        if batch["labels"][0].tolist() != labels:
            raise ValueError(
                f"{supervision.name(position)}: the labels that TRL's collator makes are not those of the completion mask; "
                "this version of TRL treats tokenised rows in another way"
            )


def check_packing(trainer: Any, supervision: Supervision) -> str:
    """Check that a row reads the same when it is packed behind another one as when it stands alone.

    The two are also run as one text, so that the difference which reading each other makes is known.

    Returns:
        A line for the user.

    Raises:
        ValueError: They read each other.
        NonFiniteLossError: The base gives no numbers for the two rows.
    """
    import torch

    chosen = _two_rows(supervision.lengths)
    first, second = (supervision.dataset[i]["input_ids"] for i in chosen)
    both = [*first, *second]
    model, home = trainer.model, next(trainer.model.parameters()).device
    was_training = model.training
    model.eval().to(trainer.args.device)
    try:
        with torch.no_grad(), trainer.accelerator.autocast():
            alone = _log_probs(model, trainer, [second])[-len(second) + 1 :]
            packed = _log_probs(model, trainer, [first, second])[-len(second) + 1 :]
            merged = _log_probs(model, trainer, [both])[-len(second) + 1 :]
    finally:
        model.train(was_training).to(home)
    if not (alone.isfinite().all() and merged.isfinite().all()):
        names = " and ".join(supervision.name(i) for i in chosen)
        raise NonFiniteLossError(
            f"before the first step, the base's outputs for {names} are not finite; are its weights sound?"
        )
    apart, reading = (float((other - alone).abs().mean()) for other in (packed, merged))
    if not apart <= 1e-4 + 0.1 * reading:
        raise ValueError(
            f"packing would let rows see each other: behind another row, the log probabilities of a row's tokens differ by "
            f"{apart:.2g} on average (by {reading:.2g} if the two were one text). Use another attention, such as "
            "attention: flash_attention_2 or sdpa, or packing: false"
        )
    return f"Packing: a row behind another reads as it does alone (difference {apart:.1g}; reading it would make {reading:.1g})"


def _log_probs(model: Any, trainer: Any, rows: list[Sequence[int]]) -> Any:
    """Log probability of each token but the first, of rows packed as the Trainer packs them."""
    joined = [token for row in rows for token in row]
    example = {"input_ids": joined, "labels": joined, "seq_lengths": [len(row) for row in rows]}
    batch = {
        name: value.to(trainer.args.device) if hasattr(value, "to") else value
        for name, value in trainer.data_collator([example]).items()
        if name != "labels"
    }
    logits = model(**batch, use_cache=False).logits[0, :-1].float()
    return logits.log_softmax(-1).gather(-1, batch["input_ids"][0, 1:, None])[:, 0]


def _two_rows(lengths: np.ndarray) -> tuple[int, int]:
    order = np.argsort(lengths, kind="stable")
    middle = len(order) // 2
    return int(order[max(0, middle - 1)]), int(order[middle])


def _values(chunk: Any) -> np.ndarray:
    return chunk.flatten().to_numpy(zero_copy_only=False)
