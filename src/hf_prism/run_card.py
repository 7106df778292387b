"""What the card of a synthesis run says: the run, its rounds in numbers and as a picture, and how to load it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import figures
from .cards import code, fenced, markdown_table, table


if TYPE_CHECKING:
    from matplotlib.figure import Figure

VERDICTS = (
    "accepted", "parse_failed", "no_answer", "no_majority", "duplicate", "contaminated", "too_long", "dense_cluster",
)  # fmt: skip
PICTURE = "g_vendi.png"

COLUMNS = {
    "seed_ids": "the `id` of the rows that the generator was shown; none for a seed",
    "round": "the round that accepted the row; 0 for a seed",
    "cluster": "the cluster of gradients that the row fell into, as its round numbered them",
    "generator": "the model that wrote the row",
    "votes": "how many solutions agree on the answer",
    "agreement": "their share of the solutions that gave an answer",
    "feature_id": "what made the gradients by which the row was judged",
}
"""Where a row comes from, by column."""


@dataclass(frozen=True)
class RoundSummary:
    """What a round did.

    Attributes:
        number: From 1; 0 for the seeds before the first round.
        candidates: What the generator wrote.
        verdicts: How many candidates had each of `VERDICTS`; together, all of them.
        pool_size: Rows of the pool after the round.
        g_vendi: Of that pool.
        interval: Of that score, 95 %.
        requests: Sent to models.
        tokens: Of these requests and their answers.
        seconds: That the round took.
    """

    number: int
    candidates: int
    verdicts: Mapping[str, int]
    pool_size: int
    g_vendi: float
    interval: tuple[float, float] | None
    requests: int
    tokens: int
    seconds: float

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.verdicts) - set(VERDICTS)):
            raise ValueError(f"round {self.number} has the verdict {unknown[0]!r}; there are {', '.join(VERDICTS)}.")
        if sum(self.verdicts.values()) != self.candidates:
            raise ValueError(
                f"round {self.number} has {self.candidates} candidates but {sum(self.verdicts.values())} verdicts "
                f"({dict(self.verdicts)}); every candidate has exactly one."
            )
        if not all(map(math.isfinite, (self.g_vendi, *(self.interval or ()), self.seconds))):
            raise ValueError(f"round {self.number} has a score or a time that is no number: {self}.")

    @property
    def accepted(self) -> int:
        """Candidates that joined the pool."""
        return self.verdicts.get("accepted", 0)


def rounds_figure(summaries: Sequence[RoundSummary]) -> Figure:
    """Draw G-Vendi of the pool with its interval, round by round; on the axis, the size of the pool too."""
    figure = figures.new_figure(figures.SMALL)
    ax = figure.subplots()
    numbers = [summary.number for summary in summaries]
    scores = [summary.g_vendi for summary in summaries]
    ax.plot(numbers, scores, "o-", ms=4, color=figures.COLORS[0])
    known = [(summary.number, *summary.interval) for summary in summaries if summary.interval]
    if known:
        ax.vlines(*zip(*known, strict=True), color=figures.INK, lw=1)
    # At most five labels have room, the last one among them.
    labelled = summaries[:: -max(1, math.ceil(len(summaries) / 5))]
    ax.set_xticks([s.number for s in labelled], [f"{s.number}\n{s.pool_size:,}" for s in labelled])
    ax.set_xlim(min(numbers) - 0.4, max(numbers) + 0.4)
    ax.set_ylim(0, 1.1 * max([*scores, *(high for _, _, high in known)]))
    ax.set(xlabel="round, and rows in the pool after it", ylabel="G-Vendi", title="Diversity of the pool")
    figures.finish_axes(ax)
    return figure


def picture(summaries: Sequence[RoundSummary]) -> bytes:
    """The figure as PNG."""
    return figures.png(rounds_figure(summaries))


def state_name(number: int) -> str:
    """The tag of the pool as it was after a round."""
    return f"round-{number:03d}"


def run_card(
    repo_id: str,
    facts: Mapping[str, Any],
    summaries: Sequence[RoundSummary],
    sizes: Mapping[int, int],
    columns: Collection[str],
    states: Sequence[int],
) -> str:
    """Markdown for the generated part of the card.

    Args:
        repo_id: `USER/NAME` of the dataset.
        facts: What the run is.
        summaries: Of its rounds.
        sizes: Rows of the dataset by round, the seeds as round 0 unless they are left out.
        columns: Of the rows.
        states: The rounds after which the pool can be loaded by tag.
    """
    seeds = f"the {sizes[0]:,} seeds among them" if 0 in sizes else "the seeds left out"
    simulation = (
        "> **A simulation.** A program stood in for the language models that write and solve. The rows show how the loop "
        "works; they say nothing about what a model would write.\n\n"
        if facts["simulation"]
        else ""
    )
    proxy = {"feature_id": facts["feature_id"], **(facts["proxy"] or {})}
    models = {
        "generator, writes the rows": code(facts["generator"]),
        "solver, answers them": code(facts["solver"]) if facts["solver"] else "none besides",
    }
    meanings = {f"`{name}`": meaning for name, meaning in COLUMNS.items() if name in columns}
    return f"""\
{simulation}{sum(sizes.values()):,} rows of the task {code(facts["task"])}, {seeds}, grown in {max(sizes)} round{"s" if max(sizes) > 1 else ""} by the \
strategy {code(facts["strategy"])} of hf_prism: in each a generator writes new rows after examples from the pool, and those \
that pass every check join it ([Prismatic Synthesis, arXiv:2505.20161](https://arxiv.org/abs/2505.20161)).

### How to load it

{_usage(repo_id, states)}

### Rounds

{_rounds_table(summaries, sizes.get(0))}

![G-Vendi of the pool by round; the numbers are in the table above]({PICTURE})

G-Vendi is the effective number of different directions of the gradients of the pool's rows. It grows with the pool: compare \
it only with that of a pool of the same size, under the same feature_id. Brackets hold the 95 % interval.

What became of the candidates, each of which has one verdict:

{_verdicts_table(summaries)}

### Where a row comes from

{markdown_table("column", "meaning", meanings) if meanings else "The rows have no columns that say so."}

### What made them

{markdown_table("model", "name", models)}

The proxy, whose gradients are compared:

{markdown_table("field", "value", {code(name): code(value) for name, value in proxy.items()})}

### Recipe

{fenced(facts["recipe"], "yaml")}

### Licence

That of this dataset is what `license` says at the top of this card; where it says nothing, none was given. The licence of \
the generator may set terms for what it wrote, and that of the seeds for the seeds."""


def _usage(repo_id: str, states: Sequence[int]) -> str:
    names = ", ".join(f"`{state_name(number)}`" for number in states)
    return f"""\
```python
from datasets import load_dataset

pool = load_dataset({repo_id!r}, split="train")  # after the newest round
pool = load_dataset({repo_id!r}, split="train", revision="{state_name(states[0])}")  # after round {states[0]}
rows = load_dataset({repo_id!r}, split="train", streaming=True)
```

Revisions: {names}."""


def _rounds_table(summaries: Sequence[RoundSummary], seeds: int | None) -> str:
    headings = ("round", "candidates", "accepted", "share", "pool", "G-Vendi", "requests", "tokens")
    lines = []
    if seeds is not None and summaries[0].number > 0:
        lines.append(("0, the seeds", "", "", "", f"{seeds:,}", "", "", ""))
    for summary in summaries:
        score = f"{summary.g_vendi:,.1f}"
        if summary.interval:
            score += f" ({summary.interval[0]:,.1f} to {summary.interval[1]:,.1f})"
        lines.append(
            (
                str(summary.number) if summary.number else "0, the seeds",
                f"{summary.candidates:,}",
                f"{summary.accepted:,}",
                f"{summary.accepted / summary.candidates:.0%}" if summary.candidates else "",
                f"{summary.pool_size:,}",
                score,
                f"{summary.requests:,}",
                f"{summary.tokens:,}",
            )
        )
    return table(headings, lines)


def _verdicts_table(summaries: Sequence[RoundSummary]) -> str:
    lines = [
        [str(summary.number), *(f"{summary.verdicts.get(name, 0):,}" for name in VERDICTS)]
        for summary in summaries
        if summary.number
    ]
    return table(("round", *(name.replace("_", " ") for name in VERDICTS)), lines)
