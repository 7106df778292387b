"""Pictures of a study: accuracy against every measure, correlations, effects, and benchmarks.

Levels of the first factor have an order, so their colours have one too: darker to lighter, which any eye can follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from .figures import COLORS, INK, PLAIN, finish_axes, new_figure
from .page import shown
from .study_findings import MeasureFindings, StudyFindings
from .study_runs import StudyRuns


if TYPE_CHECKING:
    from matplotlib.figure import Figure

RAMP = ("#0D0887", "#5F01A6", "#A01A9C", "#CB4679", "#EC7754", "#FCA338")
"""Colours of the levels of reasoning, from few to many; a page may replace them, as it does `COLORS`."""

SHAPES = ("o", "s", "^", "D")
ACROSS = 4  # panels in a row


def measures_figure(findings: StudyFindings, runs: StudyRuns) -> Figure:
    """Draw the accuracy out of distribution against each measure, a point a run; G-Vendi first and larger."""
    others = [each for each in findings.measures if each.key != "g_vendi"]
    rows = 2 + max(0, -(-(len(others) - 2 * (ACROSS - 2)) // ACROSS))
    figure = new_figure((11, 2.5 * rows + 0.6))
    grid = figure.add_gridspec(rows, ACROSS)
    cells = [(row, column) for row in range(rows) for column in range(ACROSS) if row > 1 or column > 1]
    places = [grid[0:2, 0:2], *(grid[cell] for cell in cells)]
    for number, (measure, place) in enumerate(zip([findings.g_vendi, *others], places, strict=False)):
        ax = figure.add_subplot(place)
        _draw_runs(ax, measure, runs)
        rho = f"ρ = {measure.ood.rho:.2f}".replace("-", "−")
        ax.set_title(f"{fill(_name(measure), 26)}\n{rho}" if number else f"G-Vendi, {rho}")
        if measure.turned:
            ax.invert_xaxis()
        finish_axes(ax)
        ax.title.set_fontsize(11.5 if number else 16)
        ax.tick_params(labelsize=10 if number else 12)
        ax.locator_params(axis="x", nbins=4 if number else 7)
        if not number:
            ax.set_ylabel("accuracy out of distribution, %", fontsize=13, color=INK)
    for handles, place in zip(_legends(runs), ("outside upper left", "outside upper right"), strict=False):
        figure.legend(
            handles=handles,
            frameon=False,
            fontsize=12,
            labelcolor=INK,
            loc=place,
            ncols=-(-len(handles) // 2),
            columnspacing=1,
            handletextpad=0,
        )
    return figure


def correlations_figure(findings: StudyFindings) -> Figure:
    """Draw each measure's rank correlations with both accuracies, and their intervals."""
    figure = new_figure((9, 1.5 + 0.5 * len(findings.measures)))
    ax = figure.subplots()
    ax.axvline(0, color=PLAIN, lw=1)
    shapes = {"out of distribution": ("o", COLORS[0], COLORS[0]), "in distribution": ("s", COLORS[1], "none")}
    for place, measure in enumerate(findings.measures):
        pair = (measure.ood, measure.in_distribution)
        for gap, found, (shape, color, inside) in zip((-0.16, 0.16), pair, shapes.values(), strict=True):
            if found is not None:
                ax.plot(found.interval, [place + gap] * 2, color=color, lw=2.2, solid_capstyle="butt")
                ax.plot(found.rho, place + gap, shape, ms=8, color=color, mfc=inside, mew=1.6)
    _name_rows(ax, findings.measures)
    for name, (shape, color, inside) in shapes.items():
        ax.plot([], [], shape, ls="-", ms=8, color=color, mfc=inside, mew=1.6, lw=2.2, label=name)
    ax.set(xlabel="Spearman correlation with accuracy, and its 95 % interval")
    _finish_rows(figure, ax)
    return figure


def effects_figure(findings: StudyFindings) -> Figure | None:
    """Draw what the accuracies and each measure follow: the effects of the first two factors that varied."""
    names = [factor.name for factor in findings.factors[:2] if factor.varied]
    accuracies = {"accuracy out of distribution": findings.effects["ood"]}
    accuracies["accuracy in distribution"] = findings.effects["in_distribution"]
    measured = [each for each in findings.measures if each.effects]
    found = [*accuracies.values(), *(each.effects for each in measured)]
    if not names or not all(found):
        return None
    figure = new_figure((9, 1.7 + 0.56 * len(found)))
    ax = figure.subplots()
    ax.axvline(0, color=INK, lw=1)
    height = 0.38 if len(names) > 1 else 0.6
    for number, name in enumerate(names):
        places = np.arange(len(found)) + (number - (len(names) - 1) / 2) * height
        values = [each[name].value for each in found]
        look: dict[str, Any] = {"fc": COLORS[0], "ec": COLORS[0]} if number == 0 else {"fc": "none", "ec": COLORS[1]}
        ax.barh(places, values, height * 0.9, label=_plain(name), hatch="////" * number, lw=1, **look)
        for place, each in zip(places, found, strict=True):
            ax.plot(each[name].interval, [place] * 2, color=INK, lw=1.8, solid_capstyle="butt")
    ax.axhline(len(accuracies) - 0.5, color=PLAIN, lw=1, ls="--")
    _name_rows(ax, measured, list(accuracies))
    ax.set(xlabel="standardised effect, and its 95 % interval")
    _finish_rows(figure, ax)
    return figure


def benchmarks_figure(findings: StudyFindings, runs: StudyRuns) -> Figure:
    """Draw the accuracy on each benchmark against the first factor: runs, and the mean of each level."""
    names = list(findings.benchmarks)
    across = min(3, len(names))
    rows = -(-len(names) // across)
    figure = new_figure((3.6 * across, 2.7 * rows))
    factor, values = runs.factors[0], runs.levels_of(runs.factors[0])
    spread = np.random.default_rng(0).uniform(-0.08, 0.08, len(values))
    for ax, name in zip(figure.subplots(rows, across, squeeze=False).flat, [*names, *[""] * across], strict=False):
        if not name:
            ax.set_axis_off()
            continue
        accuracy = 100 * runs.columns[f"accuracy.{name}"]
        ax.plot(runs.scaled(factor) + spread, accuracy, "o", ms=4, color=COLORS[4], mew=0, alpha=0.8)
        levels = np.array(list(factor.levels))
        means = [accuracy[values == level].mean() for level in levels]
        ax.plot(np.unique(runs.scaled(factor)), means, "-o", color=COLORS[0], ms=6, lw=2)
        shown_levels = levels if len(levels) <= len(RAMP) + 2 else levels[:: -(-len(levels) // len(RAMP))]
        ax.set_xticks(
            np.log2(shown_levels) if factor.doubles else shown_levels, [f"{each:g}" for each in shown_levels]
        )
        ax.set(title=fill(_plain(name), 26), xlabel=_plain(factor.name), ylabel="accuracy, %")
        finish_axes(ax)
        _enlarge(ax)
    return figure


def _draw_runs(ax: Any, measure: MeasureFindings, runs: StudyRuns) -> None:
    x, y = runs.columns[f"measure.{measure.key}"], 100 * runs.columns["ood"]
    colors, shapes = _colors(runs), _shapes(runs)
    size = 7 if measure.key == "g_vendi" else 4.5
    for color, _, in_color in colors:
        for shape, _, in_shape in shapes:
            chosen = in_color & in_shape
            ax.plot(x[chosen], y[chosen], shape, ms=size, color=color, alpha=0.85, mew=0)


def _legends(runs: StudyRuns) -> list[list[Any]]:
    """What colours mean, and what shapes mean where there are several."""
    from matplotlib.lines import Line2D

    look: dict[str, Any] = {"ls": "", "ms": 9}
    name = _plain(runs.factors[0].name, 14)
    found = [
        [Line2D([], [], marker="o", color=color, label=f"{name} {told}", **look) for color, told, _ in _colors(runs)]
    ]
    if len(shapes := _shapes(runs)) > 1:
        name = _plain(runs.factors[1].name, 14)
        found.append(
            [
                Line2D([], [], marker=shape, color=INK, mfc="none", label=f"{name} {told}", **look)
                for shape, told, _ in shapes
            ]
        )
    return found


def _colors(runs: StudyRuns) -> list[tuple[str, str, np.ndarray]]:
    """Colour, name and runs of each level of the first factor."""
    bins = _bins(runs.levels_of(runs.factors[0]), len(RAMP))
    picked = np.linspace(0, len(RAMP) - 1, len(bins)).round().astype(int)
    return [(RAMP[place], told, mask) for place, (told, mask) in zip(picked, bins, strict=True)]


def _shapes(runs: StudyRuns) -> list[tuple[str, str, np.ndarray]]:
    """Shape, name and runs of each level of the second factor."""
    if len(runs.factors) < 2:
        return [("o", "", np.ones(len(runs.names), dtype=bool))]
    bins = _bins(runs.levels_of(runs.factors[1]), len(SHAPES))
    return [(shape, *each) for shape, each in zip(SHAPES, bins, strict=False)]


def _bins(values: np.ndarray, most: int) -> list[tuple[str, np.ndarray]]:
    """Levels by what they are called; neighbours together where there are too many."""
    levels = np.unique(values)
    parts = np.array_split(levels, min(most, len(levels)))
    names = [f"{part[0]:g}" if len(part) == 1 else f"{part[0]:g} to {part[-1]:g}" for part in parts]
    return [(name, np.isin(values, part)) for name, part in zip(names, parts, strict=True)]


def _name(measure: MeasureFindings) -> str:
    return _plain(measure.name) + (" (reversed)" if measure.turned else "")


def _plain(name: str, limit: int = 40) -> str:
    """A name that is harmless, no formula, and not too long."""
    told = " ".join(shown(name, limit).split()).replace("$", r"\$")
    return f" {told}" if told.startswith("_") else told


def _name_rows(ax: Any, measures: Sequence[MeasureFindings], before: Sequence[str] = ()) -> None:
    names = [*before, *map(_name, measures)]
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    for label, measure in zip(ax.get_yticklabels()[len(before) :], measures, strict=True):
        label.set_fontweight("bold" if measure.role == "ours" else "normal")
        label.set_fontstyle("italic" if measure.role == "ceiling" else "normal")


def _finish_rows(figure: Any, ax: Any) -> None:
    figure.legend(frameon=False, fontsize=12, labelcolor=INK, loc="outside upper left", ncols=2)
    ax.grid(axis="x", color=PLAIN, alpha=0.3)
    ax.set_axisbelow(True)
    finish_axes(ax)
    _enlarge(ax)


def _enlarge(ax: Any) -> None:
    """The text of a figure that is shown wide."""
    ax.tick_params(labelsize=11)
    for text in (ax.title, ax.xaxis.label, ax.yaxis.label):
        text.set_fontsize(12)
