"""One page about a dataset's gradients, and its pictures: `examine` computes, `write_report` draws."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import figures
from .files import write_atomically
from .findings import Findings
from .findings import examine as examine
from .page import page
from .vendi import VendiScore


def write_report(findings: Findings, folder: str | Path) -> Path:
    """Write `report.html`, and its pictures as PNG files, each whole or not at all. Returns the path of the page.

    The page needs none of the other files and no network, and runs no script but its own.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    drawn = _figures(findings)
    for name, (figure, _) in drawn.items():
        write_atomically(folder / f"{name}.png", figures.png(figure))
    svgs = {name: figures.inline_svg(figure, name, told) for name, (figure, told) in drawn.items() if name != "map"}
    path = folder / "report.html"
    write_atomically(path, page(findings, svgs).encode())
    return path


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


def _figures(findings: Findings) -> dict[str, tuple[Any, str]]:
    """The figures by the name of their file, and what they show in words."""
    score, curve, sizes = findings.score, findings.curve, findings.sizes
    top = float(findings.spectrum[:10].sum())
    drawn = findings.rows[: len(findings.points)]
    repeated = np.isin(drawn, np.concatenate([[-1], *findings.groups]))
    marks = {
        "much like another": repeated,
        "in a sparse cluster": findings.sparse[findings.clusters[: len(drawn)]],
    }
    shown = {
        "spectrum": (
            figures.spectrum_figure(findings.spectrum),
            f"Spectrum of the gradients: the ten strongest directions hold {top:.0%} of the energy.",
        ),
        "rarefaction": (
            figures.rarefaction_figure(curve),
            f"Score at fewer rows: {curve.means[0]:.1f} at {curve.sizes[0]:,} rows, rising to {score.g_vendi:.1f} at "
            f"{score.n:,}.",
        ),
        "clusters": (
            figures.clusters_figure(sizes, findings.sparse),
            f"Sizes of {len(sizes):,} clusters: the largest has {sizes.max():,} rows, the smallest {sizes.min():,}.",
        ),
        "map": (
            figures.map_figure(findings.points, marks, findings.variance_shares),
            f"Map of {len(drawn):,} rows in gradient space.",
        ),
    }
    if len(findings.nearest):
        share = float(np.mean(findings.nearest >= findings.threshold))
        shown["nearest"] = (
            figures.nearest_figure(findings.nearest, findings.threshold, findings.memberships),
            f"Cosine of each row with the nearest other row: {share:.0%} of the rows reach {findings.threshold:g}.",
        )
    return shown
