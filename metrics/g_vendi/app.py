"""G-Vendi in the browser: paste or upload JSONL, read score, interval, spectrum and rarefaction.

Run as: python app.py        (then open http://127.0.0.1:7860; the embedded proxy needs no network)
"""

from __future__ import annotations

import html
import json
import os
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any


os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import gradio as gr  # noqa: E402
import numpy as np  # noqa: E402
from gradio.themes import Soft  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from hf_prism import Covariance, GradientFeaturizer  # noqa: E402
from hf_prism.demo import datasets_of_rising_diversity  # noqa: E402
from hf_prism.vendi import VendiScore, rarefaction  # noqa: E402


MAX_ROWS = 2000
CHUNK = 64  # rows between two steps of the progress bar
MODELS = ["embedded", "Qwen/Qwen2.5-0.5B-Instruct"]
FIELDS = ("prompt", "completion", "messages", "text")
PROGRESS = gr.Progress()  # gradio recognises it as a default value
INK, ACCENT = "#333333", "#0072B2"
COLUMNS = "Column names and long rows"
EXAMPLE_ROWS = 60

INTRO = """\
# G-Vendi
How diverse is fine-tuning data in the eyes of a model that would learn from it? Each row's gradient on a small proxy
model is one direction of learning; G-Vendi is the effective number of different directions
([arXiv 2505.20161](https://arxiv.org/abs/2505.20161)). Rows stay on this server; uploads are deleted after an hour or
two."""

CSS = """
.prism-result .html-container {padding: 0} .prism-file .icon-wrap {display: none} /* it hides behind the label */
.prism-card {border: 1px solid var(--border-color-primary); border-radius: 12px; padding: 16px 20px;
  color: var(--body-text-color); background: var(--background-fill-primary)}
.prism-card p {margin: 6px 0} .prism-card ul {margin: 6px 0; padding-left: 20px; list-style: disc}
.prism-number {font-size: 44px; font-weight: 700; line-height: 1.1}
.prism-facts {display: grid; grid-template-columns: max-content 1fr; gap: 4px 16px; margin: 12px 0}
.prism-facts dt {opacity: .7} .prism-facts dd {margin: 0; overflow-wrap: anywhere}
.prism-warn {border-left: 4px solid #d97706; padding: 4px 0 4px 12px}
.prism-error {border-color: #dc2626; border-left: 4px solid #dc2626; overflow-wrap: anywhere; white-space: pre-wrap}
"""


def read_rows(text: str) -> tuple[list[dict[str, Any]], list[str]]:
    """JSONL as rows and, for messages, the line of each: `(rows, ["line 1", "line 3"])`.

    Raises:
        ValueError: a line that is no JSON object, no rows, or more than `MAX_ROWS`.
    """
    rows, places = [], []
    for number, line in enumerate(text.split("\n"), 1):  # splitlines would also cut at characters inside strings
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            shown = line.strip() if len(line) < 80 else line.strip()[:80] + "..."
            raise ValueError(f"line {number} is not JSON: {error.msg} at column {error.colno}.\n{shown}") from error
        if not isinstance(row, dict):
            raise ValueError(f"line {number} is a JSON {type(row).__name__}; give one object a line: {{...}}")
        rows.append(row)
        places.append(f"line {number}")
    if not rows:
        raise ValueError("there are no rows: paste JSONL, one object a line, or upload a file.")
    if len(rows) > MAX_ROWS:
        raise ValueError(
            f"{len(rows)} rows are too many here, the limit is {MAX_ROWS}. Score larger data on your own machine: "
            "hf-prism score data.jsonl"
        )
    return rows, places


def score_rows(
    rows: list[dict[str, Any]],
    places: list[str],
    featurizer: GradientFeaturizer,
    progress: Callable[..., Any] = lambda *_, **__: None,
) -> tuple[VendiScore, Figure, Figure]:
    """Score, spectrum and rarefaction of the rows; every row is checked before the model sees the first."""
    progress(0, desc="Reading rows")
    encoded = featurizer.proxy.encode_rows(rows, places)
    gradients: list[Any] = []
    for start in range(0, len(rows), CHUNK):
        progress((start, len(rows)), desc="Gradients", unit="rows")
        gradients += featurizer.featurize_rows(encoded[start : start + CHUNK])["gradient"]
    progress((len(rows), len(rows)), desc="Spectrum")
    covariance = Covariance(featurizer.dim, feature_id=featurizer.feature_id).update(gradients)
    return covariance.score(), spectrum_figure(covariance.spectrum()), rarefaction_figure(gradients)


def spectrum_figure(eigenvalues: np.ndarray) -> Figure:
    """The share of each direction, largest first."""
    shown = eigenvalues[eigenvalues > eigenvalues[0] / 500]
    figure, axes = _axes("Spectrum: share of each direction", "direction, by size", "share")
    axes.bar(np.arange(1, len(shown) + 1), shown, width=0.8 if len(shown) <= 60 else 1.0, color=ACCENT)
    axes.set_xlim(0.3, len(shown) + 0.7)
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
    return figure


def rarefaction_figure(gradients: list[Any]) -> Figure:
    """The score of random subsets of growing size: a flat end means that more such rows add nothing new."""
    curve = rarefaction(gradients)
    figure, axes = _axes("Rarefaction: score of a random part", "rows", "G-Vendi")
    means, errors = np.asarray(curve.means), np.asarray(curve.errors)
    axes.plot(curve.sizes, means, color=ACCENT, marker="o", markersize=4)
    axes.fill_between(curve.sizes, means - 2 * errors, means + 2 * errors, color=ACCENT, alpha=0.2, linewidth=0)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    return figure


def _axes(title: str, x: str, y: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(5.2, 3.2), dpi=160, layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=11, color=INK, loc="left")
    axes.set_xlabel(x, color=INK)
    axes.set_ylabel(y, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def in_words(score: VendiScore) -> str:
    """What the saturation says about reading this score."""
    limit = f"the {score.n} rows" if score.n <= score.dim else f"the {score.dim} numbers of a sketch"
    if score.n == 1:
        return "one row always scores 1"
    if score.saturation > 0.6:
        return f"high: the score is close to its ceiling, {limit}, and says little about larger data"
    if score.saturation > 0.2:
        return f"moderate: the score still depends on its ceiling, {limit}"
    return f"low: far below the ceiling, {limit}; rows repeat what others teach"


def summary(score: VendiScore, model: str) -> str:
    """The result as HTML."""
    facts = {
        "95 % interval": "not available" if score.interval is None else _range(score.interval),
        "without sketch bias": "not available" if score.g_vendi_debiased is None else f"{score.g_vendi_debiased:.4g}",
        "saturation": f"{score.saturation:.0%}, {in_words(score)}",
        "rows, dim": f"{score.n}, {score.dim}",
        "proxy": model,
        "feature_id": str(score.feature_id),
    }
    rows = "".join(f"<dt>{name}</dt><dd>{html.escape(value)}</dd>" for name, value in facts.items())
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in score.notes)
    return (
        f'<div class="prism-card"><div class="prism-number">{score.g_vendi:.4g}</div>'
        f"<p>effective number of learning directions in {score.n} rows</p><dl class='prism-facts'>{rows}</dl>"
        f"<p class='prism-warn'>Compare this only with scores of the same number of rows ({score.n}), the same dim and "
        "the same feature_id. The score grows with the number of rows.</p>"
        f"{f'<ul>{notes}</ul>' if notes else ''}</div>"
    )


def _range(interval: tuple[float, float]) -> str:
    low, high = interval
    return f"{low:.4g} to {high:.4g}, for other rows like these, equally many"


@lru_cache(maxsize=2)
def load_featurizer(model: str, columns: tuple[tuple[str, str], ...], on_long: str) -> GradientFeaturizer:
    """The proxy, kept between calls. Only the embedded one and Hub ids: folders of the server are nobody's business.

    Raises:
        ValueError: not such a name, or the model cannot be loaded.
    """
    if model != "embedded" and (not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", model) or Path(model).exists()):
        raise ValueError(f"{model!r} is not a model here: give 'embedded' or a Hub id such as {MODELS[1]}.")
    return GradientFeaturizer(model, column_mapping=dict(columns) or None, on_long=on_long)


def run(
    jsonl: str,
    file: str | None,
    model: str | None,
    on_long: str,
    prompt: str | None,
    completion: str | None,
    messages: str | None,
    text: str | None,
    progress: gr.Progress = PROGRESS,
) -> tuple[str, Any, Any]:
    """What the button does. Mistakes in the input come back as a message, everything else as gradio's error."""
    try:
        model = (model or "").strip()
        names = zip(FIELDS, (prompt, completion, messages, text), strict=True)
        columns = tuple((field, name.strip()) for field, name in names if name and name.strip())
        rows, places = read_rows(_content(file) if file else jsonl)
        featurizer = load_featurizer(model, columns, on_long)
        score, spectrum, curve = score_rows(rows, places, featurizer, progress)
    except ValueError as error:
        hint = f'\nOn this page: open "{COLUMNS}" and name them.' if "--column" in str(error) else ""
        message = f'<div class="prism-card prism-error">{html.escape(str(error) + hint)}</div>'
        return message, gr.Plot(visible=False), gr.Plot(visible=False)
    return summary(score, model), gr.Plot(spectrum, visible=True), gr.Plot(curve, visible=True)


def _content(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{Path(file).name} is not a UTF-8 text file (byte {error.start}); upload JSONL.") from error


def examples() -> dict[str, str]:
    """Word problems that differ in their numbers, in their words too, and in their reasoning too, as JSONL."""
    columns = ("prompt", "completion")
    return {
        name: "\n".join(json.dumps({column: row[column] for column in columns}) for row in rows[:EXAMPLE_ROWS])
        for name, rows in datasets_of_rising_diversity().items()
    }


def build() -> gr.Blocks:
    """The page."""
    shown = examples()
    with gr.Blocks(title="G-Vendi", analytics_enabled=False, delete_cache=(3600, 3600)) as demo:
        gr.Markdown(INTRO)
        with gr.Row():
            with gr.Column():
                text = gr.Textbox(
                    list(shown.values())[-1], label="Rows, as JSONL: one object a line", lines=10, max_lines=10
                )
                labels = [f"{EXAMPLE_ROWS} rows: {name}" for name in shown]
                gr.Examples([[rows] for rows in shown.values()], text, example_labels=labels)
                file = gr.File(label="or a .jsonl file, scored instead", height=130, elem_classes="prism-file")
                model = gr.Dropdown(MODELS, label="Proxy model: embedded, or a Hub id", allow_custom_value=True)
                with gr.Accordion(COLUMNS, open=False):
                    with gr.Row():
                        names = [gr.Textbox(label=field, placeholder=field, min_width=120) for field in FIELDS]
                    on_long = gr.Radio(["error", "truncate", "skip"], value="error", label="A row over the limit")
                button = gr.Button("Score", variant="primary")
            with gr.Column():
                waiting = '<div class="prism-card">The result comes here. Press Score to try the example.</div>'
                result = gr.HTML(waiting, elem_classes="prism-result")
                spectrum = gr.Plot(show_label=False, visible=False)
                curve = gr.Plot(show_label=False, visible=False)
        button.click(run, [text, file, model, on_long, *names], [result, spectrum, curve], api_name="score")
    return demo


THEME = Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])  # no font is fetched

if __name__ == "__main__":
    build().launch(theme=THEME, css=CSS, max_file_size="20mb", run_history=False)
