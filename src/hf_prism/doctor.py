"""`hf-prism doctor`: is this proxy read correctly, and how noisy is the sketch of its gradients?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional as F

from .debiasing import fold_noise, score_noise
from .featurizer import GradientFeaturizer
from .proxy import EncodedRow, Skipped


NOISE_ROWS = 64
"""Rows whose sketches are compared for the noise."""

MIN_COSINE = {"float32": 1 - 1e-5, "bfloat16": 0.999}
"""Least cosine between the gradient of a row alone and in a padded batch (DESIGN 5)."""


def examine(featurizer: GradientFeaturizer, rows: Sequence[dict[str, Any]], say: Callable[[str], None]) -> list[str]:
    """Check a proxy on some rows, say what was found, and return the problems.

    Args:
        featurizer: The proxy and how it is used.
        rows: Rows in a layout that the featurizer reads; two or more.
        say: Called with each line of the report.

    Returns:
        One sentence a problem; empty where all is well.
    """
    encoded = featurizer.proxy.encode_rows(rows)
    usable = [row for row in encoded if isinstance(row, EncodedRow)][:NOISE_ROWS]
    for row in encoded:
        if isinstance(row, Skipped):
            say(f"  skipped   {row.detail}")
    if not usable:
        return ["None of the rows has a token to learn."]
    say(_proxy_lines(featurizer))
    say("\nOne row as the proxy reads it; [[what is learned]] in double brackets:\n")
    say(masked_text(featurizer, usable[0]))
    check = featurizer.check(usable)
    say(f"  against autograd    {check}")
    if not check.passed:
        return [f"The streamed gradients differ from autograd: {check}."]
    found = zip(usable, featurizer.featurize_rows(usable)["gradient"], strict=True)
    pairs = [(row, torch.from_numpy(vector)) for row, vector in found if vector is not None]
    if not pairs:
        return ["None of the rows has a usable gradient."]
    usable, vectors = [row for row, _ in pairs], torch.stack([vector for _, vector in pairs])
    problems = _check_batching(featurizer, usable, vectors, say)
    if len(usable) >= 8:
        dense = featurizer.dim**-0.5
        say(f"  sketch noise        {fold_noise(vectors):.4f} in a cosine (dense projection: at most {dense:.4f})")
        if featurizer.dim % 8 == 0:
            say(
                f"  seed to seed        {score_noise(vectors):.1%} in the score of these rows, by the sketch's seed alone"
            )
    return problems


def _proxy_lines(featurizer: GradientFeaturizer) -> str:
    proxy, structure = featurizer.proxy, featurizer.engine.structure
    covered, total = structure.num_parameters
    template = "its own chat template" if featurizer.identity["proxy.chat_template"] else "plain concatenation"
    lines = [
        f"  model               {type(proxy.model).__name__}, {total:,} parameters, {proxy.identity['dtype']}, "
        f"{proxy.attention} attention, on {proxy.device}",
        f"  covered             {covered:,} parameters ({covered / total:.1%}), {len(structure.blocks)} tensors, "
        f"{len(structure.groups)} groups that share an input",
        f"  rendering           {template}, at most {proxy.max_length:,} tokens",
        f"  feature_id          {featurizer.feature_id}",
    ]
    if structure.by_autograd:
        lines.append(
            f"  one row at a time   {len(structure.by_autograd)} tensors such as {structure.by_autograd[0]} have no closed "
            "form (slower, same numbers)"
        )
    return "\n".join(lines)


def masked_text(featurizer: GradientFeaturizer, row: EncodedRow) -> str:
    """The row's tokens as text, with each supervised span in double brackets."""
    parts: list[str] = []
    start = 0
    supervised = [False, *row.completion_mask[1:]]
    for stop in range(1, len(supervised) + 1):
        if stop == len(supervised) or supervised[stop] != supervised[start]:
            text = featurizer.proxy.tokenizer.decode(row.input_ids[start:stop])
            parts.append(f"[[{text}]]" if supervised[start] else str(text))
            start = stop
    return "".join(parts) + "\n"


def _check_batching(
    featurizer: GradientFeaturizer, rows: list[EncodedRow], vectors: torch.Tensor, say: Callable[[str], None]
) -> list[str]:
    alone = [featurizer.featurize_batch([row])[0] for row in rows[:8]]
    singles = torch.stack([torch.from_numpy(r["gradient"]) for r in alone if not isinstance(r, Skipped)])
    cosine = F.cosine_similarity(singles.double(), vectors[: len(singles)].double()).min().item()
    say(f"  alone or in a batch cosine {cosine:.8f} at least, over {len(singles)} rows")
    least = MIN_COSINE[featurizer.identity["proxy.dtype"]]
    return [] if cosine >= least else [f"A row's gradient depends on its neighbours: cosine {cosine:.6f} < {least}."]
