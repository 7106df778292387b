"""Pictures of scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .vendi import VendiScore, rarefaction


if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Distinguishable with every kind of colour vision, on paper too (Okabe and Ito).
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
INK, FAINT = "#333333", "#DDDDDD"


def score_figure(scores: Mapping[str, tuple[VendiScore, np.ndarray, Any]]) -> Figure:
    """Draw scores with their intervals, spectra and rarefaction curves.

    Args:
        scores: By name: the score, its spectrum, and the vectors (n, d) it was computed from.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.6), layout="constrained", facecolor="white")
    bars, spectra, curves = figure.subplots(1, 3)
    for ax in (bars, spectra, curves):
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(colors=INK, labelsize=9)
    _draw_bars(bars, {name: score for name, (score, _, _) in scores.items()})
    for (name, (_, spectrum, vectors)), color in zip(scores.items(), COLORS, strict=False):
        share = spectrum[spectrum > 1e-6]
        spectra.loglog(np.arange(1, len(share) + 1), share, color=color, label=name)
        curve = rarefaction(vectors)
        sizes, means, errors = np.asarray(curve.sizes), np.asarray(curve.means), np.asarray(curve.errors)
        curves.plot(sizes, means, color=color, label=name)
        curves.fill_between(sizes, means - 2 * errors, means + 2 * errors, color=color, alpha=0.2, lw=0)
    spectra.set(xlabel="direction", ylabel="share of the gradient energy", title="Spectrum")
    curves.set(xlabel="rows", ylabel="G-Vendi", title="Rarefaction: the score at fewer rows")
    curves.set_xlim(left=0)
    curves.set_ylim(bottom=0)
    if len(scores) > 1:
        curves.legend(frameon=False, fontsize=8)
    for ax in (bars, spectra, curves):
        ax.title.set(fontsize=10, color=INK)
        ax.xaxis.label.set(fontsize=9, color=INK)
        ax.yaxis.label.set(fontsize=9, color=INK)
    return figure


def _draw_bars(ax: Any, scores: Mapping[str, VendiScore]) -> None:
    positions = np.arange(len(scores))[::-1]
    values = np.array([score.g_vendi for score in scores.values()])
    ax.barh(positions, values, color=COLORS[: len(scores)], height=0.55)
    right = values.max()
    for position, score in zip(positions, scores.values(), strict=True):
        low, high = score.interval or (score.g_vendi, score.g_vendi)
        ax.plot([low, high], [position, position], color=INK, lw=2, solid_capstyle="butt")
        ax.annotate(
            f"{score.g_vendi:,.1f}",
            (max(high, score.g_vendi), position),
            (5, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=INK,
        )
        right = max(right, high)
    ax.set_yticks(positions, list(scores))
    ax.set_xlim(0, right * 1.25)
    ax.set_ylim(-0.6, len(scores) - 0.4)
    sizes = sorted({score.n for score in scores.values()})
    ax.set(xlabel="G-Vendi, with 95 % interval", title=f"Score (n = {', '.join(f'{n:,}' for n in sizes)})")


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write the picture, PNG at 150 dpi or whatever the ending says."""
    figure.savefig(path, dpi=150)
    return Path(path)


def summary(score: VendiScore, *, lines: Sequence[str] = ()) -> str:
    """The score as a person reads it at a glance."""
    interval = f"   95 % interval {score.interval[0]:,.1f} to {score.interval[1]:,.1f}" if score.interval else ""
    debiased = f"{score.g_vendi_debiased:,.1f}" if score.g_vendi_debiased is not None else "not offered here"
    name = "G-Vendi" if score.order == 1 else f"Vendi score of order {score.order:g}:"
    rows = [
        f"{name} {score.g_vendi:,.1f}{interval}",
        f"  without the sketch's bias   {debiased}",
        f"  rows n, dimension d         {score.n:,}, {score.dim:,}",
        f"  saturation                  {score.saturation:.0%} of min(n, d)",
        *lines,
        *(f"  note: {note}" for note in score.notes),
        "  Compare it only with scores of the same n, d and feature_id.",
    ]
    return "\n".join(rows)
