"""Accuracies of students, benchmark by benchmark, with their 95 % intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import figures
from .student_card import NAMES


if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .model_comparison import ModelComparison


def comparison_figure(result: ModelComparison) -> Figure:
    """Draw the accuracy of every model on every benchmark that all have."""
    shared = list(next(iter(result.differences.values())))
    names = [name for name in shared if name != "mean"]
    height = 1.2 + 0.17 * len(names) * (len(result.models) + 1.2)
    figure = figures.new_figure((6.4, height))
    ax = figure.subplots()
    step = 0.6 / len(result.models)
    for number, (model, found) in enumerate(result.models.items()):
        rows = [found["benchmarks"][name] for name in names]
        places = [i + (number - (len(result.models) - 1) / 2) * step for i in range(len(names))]
        values = [100 * row["accuracy"] for row in rows]
        color = figures.COLORS[number % len(figures.COLORS)]
        known = [(place, row["interval"]) for place, row in zip(places, rows, strict=True) if row["interval"]]
        ax.hlines(
            [place for place, _ in known],
            [100 * low for _, (low, _) in known],
            [100 * high for _, (_, high) in known],
            color=color,
            lw=1.5,
        )
        ax.plot(values, places, "o", ms=5, color=color, label=model.replace("$", r"\$"))
    ax.set_yticks(range(len(names)), [NAMES.get(name, name).replace("$", r"\$") for name in names])
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xlim(0, 100)
    ax.set(xlabel="accuracy, %, and its 95 % interval")
    figure.legend(frameon=False, fontsize=8, labelcolor=figures.INK, loc="outside upper left", ncols=4)
    figures.finish_axes(ax)
    return figure
