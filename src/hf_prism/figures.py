"""Pictures, drawn once: a PNG on white for documents, and an inline SVG that takes the colours of the page around it."""

from __future__ import annotations

import html
import io
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .vendi import Rarefaction, VendiScore, rarefaction


if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .comparison import Comparison

# Distinguishable with every kind of colour vision, on paper too (Okabe and Ito).
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
INK = "#333333"
PLAIN = "#8A8A8A"  # what is neither marked nor text

WIDE, SMALL = (11, 3.6), (4.7, 3.1)
"""Inches. A small figure fills a telephone's width with its text still readable."""


def score_figure(scores: Mapping[str, tuple[VendiScore, np.ndarray, Any]]) -> Figure:
    """Draw scores with their intervals, spectra and rarefaction curves.

    Args:
        scores: By name: the score, its spectrum, and the vectors (n, d) it was computed from.
    """
    figure = new_figure(WIDE)
    bars, spectra, curves = figure.subplots(1, 3)
    _draw_bars(bars, {name: score for name, (score, _, _) in scores.items()})
    for (name, (score, spectrum, vectors)), style in zip(scores.items(), _styles(), strict=False):
        _draw_spectrum(spectra, spectrum, _plain(name), **style)
        _draw_rarefaction(curves, rarefaction(vectors, order=score.order), score.order, _plain(name), **style)
    curves.set(title="Rarefaction: the score at fewer rows")
    if len(scores) > 1:
        curves.legend(frameon=False, fontsize=8)
    for ax in (bars, spectra, curves):
        finish_axes(ax)
    return figure


def comparison_figure(result: Comparison) -> Figure:
    """Draw the scores of datasets at the same n with their intervals, and their rarefaction curves."""
    figure = new_figure((8, 3.6))
    bars, curves = figure.subplots(1, 2)
    _draw_bars(bars, result.scores)
    for (name, curve), style in zip(result.rarefactions.items(), _styles(), strict=False):
        _draw_rarefaction(curves, curve, result.order, _plain(name), **style)
    curves.axvline(result.n, color=INK, lw=1, ls="--")
    curves.set(title=f"The score at other sizes; compared at n = {result.n:,}")
    curves.legend(frameon=False, fontsize=8, labelcolor=INK)
    for ax in (bars, curves):
        finish_axes(ax)
    return figure


def spectrum_figure(spectrum: np.ndarray) -> Figure:
    """Draw the eigenvalues of the covariance, (r,) descending with sum 1, on logarithmic axes."""
    figure = new_figure(SMALL)
    ax = figure.subplots()
    _draw_spectrum(ax, spectrum, color=COLORS[0])
    finish_axes(ax)
    return figure


def rarefaction_figure(curve: Rarefaction) -> Figure:
    """Draw the expected score of fewer rows, with a band of two standard errors."""
    figure = new_figure(SMALL)
    ax = figure.subplots()
    _draw_rarefaction(ax, curve, 1.0, color=COLORS[0])
    ax.plot(curve.sizes, curve.means, "o", ms=3, color=COLORS[0])
    finish_axes(ax)
    return figure


def clusters_figure(sizes: np.ndarray, sparse: np.ndarray) -> Figure:
    """Draw cluster sizes from the largest to the smallest, the sparse ones hatched.

    Args:
        sizes: (k,) rows of each cluster.
        sparse: (k,) bool, which of them are sparse.
    """
    figure = new_figure(SMALL)
    ax = figure.subplots()
    order = np.lexsort((sparse, -sizes))
    sizes, sparse, edges = sizes[order], sparse[order], np.arange(len(sizes) + 1) + 0.5
    dense = np.where(sparse, 0, sizes)
    ax.stairs(dense, edges, fill=True, color=COLORS[0], lw=0, label=f"the other {int((~sparse).sum()):,}")
    # Outlined and hatched, so that they tell apart without colour.
    ax.stairs(
        sizes - dense, edges, fill=True, fc="none", ec=COLORS[1], hatch="////", label=f"sparse: {int(sparse.sum()):,}"
    )
    ax.set(xlabel="cluster, by size", ylabel="rows", title="Cluster sizes")
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False, fontsize=9, labelcolor=INK)
    finish_axes(ax)
    return figure


def nearest_figure(cosines: np.ndarray, threshold: float, marks: Mapping[str, np.ndarray]) -> Figure:
    """Draw how near the nearest other row is, the marked rows upon the others.

    Args:
        cosines: (n,) the cosine of each row with the row nearest to it.
        threshold: from which on it is a near-duplicate.
        marks: Masks (n,) bool, at most three, no row in two, by what the legend says; may be empty.
    """
    figure = new_figure(SMALL)
    ax = figure.subplots()
    low = min(0.0, float(cosines.min()))
    edges = np.linspace(low, 1, 41)
    rest = ~np.any([np.zeros(len(cosines), dtype=bool), *marks.values()], axis=0)
    top = np.histogram(cosines[rest], edges)[0]
    ax.stairs(top, edges, fill=True, color=COLORS[0], lw=0, label=f"other rows: {rest.sum():,}")
    for (name, mask), color, hatch in zip(
        marks.items(), (COLORS[2], COLORS[1], COLORS[3]), ("....", "////", "xxxx"), strict=False
    ):
        base, top = top, top + np.histogram(cosines[mask], edges)[0]
        told = f"{name}: {mask.sum():,}"
        # Outlined and hatched, so that they tell apart without colour.
        ax.stairs(top, edges, baseline=base, fill=True, fc="none", ec=color, hatch=hatch, label=told)
    ax.axvline(threshold, color=INK, lw=1, ls="--")
    ax.set(xlabel="cosine with the nearest other row", ylabel="rows", title="How near is the nearest row?")
    ax.set_ylim(0, 1.05 * max(1, top.max()))
    ax.legend(frameon=False, fontsize=9, labelcolor=INK, loc="upper left", reverse=True)
    finish_axes(ax)
    return figure


def map_figure(points: np.ndarray, marks: Mapping[str, np.ndarray], shares: Sequence[float]) -> Figure:
    """Draw rows as points in the plane of their first two principal components.

    Args:
        points: (m, 2) coordinates.
        marks: Masks (m,) bool of the points to mark, by what the legend says; the others are plain.
        shares: Of the variance along the two axes.
    """
    figure = new_figure((5.4, 4.6))
    ax = figure.subplots()
    rest = ~np.any(list(marks.values()), axis=0) if marks else np.ones(len(points), dtype=bool)
    ax.plot(*points[rest].T, "o", ms=3, color=PLAIN, alpha=0.6, mew=0, label="other rows")
    for (name, mask), color, shape in zip(marks.items(), (COLORS[1], COLORS[0]), ("D", "o"), strict=False):
        x, y = points[mask].T
        ax.plot(x, y, shape, ms=4, color=color, mfc=color if shape == "D" else "none", mew=0.8, label=name)
    ax.set(
        xlabel=f"first component, {shares[0]:.0%} of the variance",
        ylabel=f"second component, {shares[1]:.0%}",
        title="Gradient space",
    )
    ax.legend(frameon=False, fontsize=8, labelcolor=INK)
    ax.set_aspect("equal", adjustable="datalim")
    finish_axes(ax)
    return figure


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write the picture, PNG at 150 dpi or whatever the ending says."""
    figure.savefig(path, dpi=150)
    return Path(path)


def png(figure: Figure) -> bytes:
    """The picture as PNG, 150 dpi on white."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=150)
    return file.getvalue()


def inline_svg(figure: Figure, name: str, description: str) -> str:
    """The picture as an SVG element for an HTML page: text stays text, ink is the text colour of the page.

    Args:
        figure: Drawn in `INK` and `COLORS`; the latter become the CSS variables `--c0`, `--c1`, and so on.
        name: A word that goes before every id, so that those of two pictures on a page do not clash.
        description: What those are told who do not see it; plain text.
    """
    import matplotlib

    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    svg = file.getvalue()
    size = re.search(r'viewBox="[^"]*"', svg)
    assert size is not None, "matplotlib wrote an SVG without a viewBox"
    body = svg[svg.index(">", size.end()) + 1 :]
    # The metadata name an address; the style would hold for the whole page; fonts are the page's.
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r"font-family: [^;\"]*", "font-family: inherit", body)
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'(?:xlink:)?href="#', f'href="#{name}-', body).replace("url(#", f"url(#{name}-")
    for number, color in enumerate(COLORS):
        body = re.sub(color, f"var(--c{number})", body, flags=re.IGNORECASE)
    body = re.sub(INK, "currentColor", body, flags=re.IGNORECASE)
    return f'<svg {size[0]} role="img" aria-label="{html.escape(description)}">{body}'


def new_figure(size: tuple[float, float]) -> Figure:
    """An empty figure, kept out of any window system."""
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout="constrained", facecolor="white")


def finish_axes(ax: Any) -> None:
    """The same look for all."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[:].set_color(INK)
    ax.tick_params(which="both", color=INK, labelcolor=INK, labelsize=9)
    for text, size in ((ax.title, 10), (ax.xaxis.label, 9), (ax.yaxis.label, 9)):
        text.set(fontsize=size, color=INK)


def _styles() -> Iterator[dict[str, str]]:
    """A line style for each of any number of datasets."""
    for line in itertools.cycle(("-", "--", ":", "-.")):
        yield from ({"color": color, "ls": line} for color in COLORS)


def _plain(name: str) -> str:
    """A name that matplotlib takes neither for a formula nor, because it begins with an underscore, out of the legend."""
    return (" " if name.startswith("_") else "") + name.replace("$", r"\$")


def _score_name(order: float) -> str:
    return "G-Vendi" if order == 1 else f"Vendi score of order {order:g}"


def _draw_spectrum(ax: Any, spectrum: np.ndarray, name: str | None = None, **style: str) -> None:
    share = spectrum[spectrum > 1e-6]
    ax.loglog(np.arange(1, len(share) + 1), share, label=name, **style)
    ax.set(xlabel="direction", ylabel="share of the gradient energy", title="Spectrum")


def _draw_rarefaction(
    ax: Any, curve: Rarefaction, order: float, name: str | None = None, *, color: str, ls: str = "-"
) -> None:
    sizes, means, errors = np.asarray(curve.sizes), np.asarray(curve.means), np.asarray(curve.errors)
    ax.plot(sizes, means, color=color, ls=ls, label=name)
    ax.fill_between(sizes, means - 2 * errors, means + 2 * errors, color=color, alpha=0.2, lw=0)
    ax.set(xlabel="rows", ylabel=_score_name(order), title="The score at fewer rows")
    ax.set_xlim(0, max(ax.get_xlim()[1], sizes[-1] * 1.04))
    ax.set_ylim(0, max(ax.get_ylim()[1], means.max() * 1.05))


def _draw_bars(ax: Any, scores: Mapping[str, VendiScore]) -> None:
    positions = np.arange(len(scores))[::-1]
    values = np.array([score.g_vendi for score in scores.values()])
    ax.barh(
        positions, values, color=[style["color"] for style, _ in zip(_styles(), scores, strict=False)], height=0.55
    )
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
    ax.set_yticks(positions, [name.replace("$", r"\$") for name in scores])
    ax.set_xlim(0, right * 1.25)
    ax.set_ylim(-0.6, len(scores) - 0.4)
    sizes = sorted({score.n for score in scores.values()})
    order = next(iter(scores.values())).order
    ax.set(
        xlabel=f"{_score_name(order)}, with 95% interval", title=f"Score (n = {', '.join(f'{n:,}' for n in sizes)})"
    )
