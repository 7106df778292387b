"""The Space: its card, its snippets and what its app does with rows, tried without a browser."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import save_tiny_model
from huggingface_hub import SpaceCard
from test_metric import textbook

from hf_prism import registration


SPACE = Path(__file__).parents[1] / "metrics" / "g_vendi"
ROW = {"prompt": "What is 7 times 6?", "completion": "42"}


@pytest.fixture(scope="module")
def app():
    pytest.importorskip("gradio", reason="the app needs gradio: pip install hf-prism[space]")
    spec = importlib.util.spec_from_file_location("g_vendi_app", SPACE / "app.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny random proxy on disk."""
    path = tmp_path_factory.mktemp("proxy")
    save_tiny_model(path, "qwen2")
    return str(path)


@pytest.fixture
def run(app, folder, monkeypatch):
    """The button's function on the tiny proxy, with defaults for the fields left alone."""
    from hf_prism import GradientFeaturizer

    monkeypatch.setattr(
        app,
        "load_featurizer",
        lambda model, columns, on_long: GradientFeaturizer(
            folder, dim=64, column_mapping=dict(columns) or None, on_long=on_long, max_length=64
        ),
    )

    def run(text="", file=None, on_long="error", names=("", "", "", "")):
        return app.run(text, file, "embedded", on_long, *names)

    return run


def jsonl(*rows):
    return "\n".join(map(json.dumps, rows))


def test_card_has_valid_front_matter():
    card = SpaceCard((SPACE / "README.md").read_text(encoding="utf-8"))
    data = card.data.to_dict()
    assert data["sdk"] == "gradio" and (SPACE / data["app_file"]).is_file()
    assert {"evaluate", "metric"} <= set(data["tags"]) and data["title"] and data["description"]
    colors = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
    assert {data["colorFrom"], data["colorTo"]} <= colors
    assert re.fullmatch(r"\d+\.\d+\.\d+", data["sdk_version"]) and data["pinned"] is False
    assert not data["emoji"].isascii() and len(data["emoji"]) <= 2


@pytest.fixture
def module_cache(monkeypatch, tmp_path):
    """evaluate without network and with modules of its own; it read the environment when it was imported."""
    from evaluate import config

    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path))
    monkeypatch.setattr(config, "HF_MODULES_CACHE", tmp_path)
    monkeypatch.setattr(config, "HF_EVALUATE_OFFLINE", True)
    # evaluate adds the folder to the path, and finds modules of one folder only in a process.
    monkeypatch.setattr(sys, "path", [path for path in sys.path if not (Path(path) / "evaluate_modules").is_dir()])
    _forget_modules()
    yield
    _forget_modules()


def _forget_modules() -> None:
    for name in [name for name in sys.modules if name.startswith("evaluate_modules")]:
        del sys.modules[name]


def test_folder_of_the_space_loads_as_a_metric(module_cache):
    """evaluate reads the imports of such a file with rules of its own, to say what to install."""
    import evaluate

    assert evaluate.load(str(SPACE)).compute(gradients=[[1.0, 0.0], [0.0, 1.0]])["g_vendi"] == pytest.approx(2)
    assert evaluate.loading.get_imports(str(SPACE / "g_vendi.py")) == [("library", "hf_prism", "hf-prism", None)]


def test_snippets_of_the_card_print_what_it_says(module_cache, capsys):
    registration.register()
    text = (SPACE / "README.md").read_text(encoding="utf-8")
    snippets = re.findall(r"```python\n(.*?)```\n\n```\n(.*?)```", text, re.DOTALL)
    assert len(snippets) == text.count("```python") == 2
    names = {}
    for code, output in snippets:
        exec(code, names)
        assert capsys.readouterr().out == output


def test_rows_keep_their_line_numbers(app):
    text = "\n" + jsonl(ROW) + "\r\n\n" + '{"text": "a\u2028b"}' + "\n"
    rows, places = app.read_rows(text)
    assert rows == [ROW, {"text": "a\u2028b"}]
    assert places == ["line 2", "line 4"]


def test_summary_tells_score_ceiling_and_what_to_compare(app, run):
    rows = [{"prompt": f"What is {i} times 6?", "completion": str(6 * i)} for i in range(12)]
    shown, spectrum, curve = run(jsonl(*rows))
    assert "effective number of learning directions in 12 rows" in shown
    assert "Compare this only with scores of the same number of rows (12)" in shown
    assert spectrum.visible and curve.visible
    rows = app.read_rows(jsonl(*rows))
    score, spectrum, curve = app.score_rows(*rows, app.load_featurizer("", (), "error"))
    vectors = np.array(app.load_featurizer("", (), "error")({k: [r[k] for r in rows[0]] for k in ROW})["gradient"])
    assert score.g_vendi == pytest.approx(textbook(vectors), rel=1e-5)
    p = np.linalg.eigvalsh(vectors @ vectors.T / 12)
    heights = [bar.get_height() for bar in spectrum.axes[0].patches]
    assert heights == pytest.approx(sorted(p, reverse=True)[: len(heights)], rel=1e-3)
    assert curve.axes[0].lines[0].get_ydata()[-1] == pytest.approx(score.g_vendi, rel=1e-6)


@pytest.mark.parametrize(
    "saturation, n, words",
    [(1.0, 1, "one row"), (0.9, 50, "high"), (0.4, 50, "moderate"), (0.05, 50, "low"), (0.9, 5000, "64 numbers")],
)
def test_saturation_is_put_in_words(app, saturation, n, words):
    from hf_prism.vendi import VendiScore

    score = VendiScore(saturation * min(n, 64), None, None, 1.0, n, 64, saturation)
    assert words in app.in_words(score)


@pytest.mark.parametrize(
    "rows, names",
    [
        ([{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}], ("",) * 4),
        ([{"text": "The quick brown fox."}], ("",) * 4),
        ([{"question": "1 + 1?", "answer": "2"}], ("question", "answer", "", "")),
        ([{"body": "The quick brown fox."}], ("", None, None, " body ")),
    ],
    ids=["messages", "text", "renamed", "renamed text"],
)
def test_every_row_layout_scores(run, rows, names):
    shown, _, _ = run(jsonl(*rows, *rows), names=names)
    assert "prism-number'>1<" in shown.replace('"', "'")


LONG = {"prompt": "a b c", "completion": "one two three " * 100}


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "there are no rows"),
        (jsonl(ROW) + '\n{"prompt": <img src=x onerror=alert(1)>}', "line 2 is not JSON"),
        ("[1, 2]", "line 1 is a JSON list"),
        (jsonl(ROW, {"prompt": "a", "completion": None}), "line 2: &#x27;completion&#x27; is null"),
        (jsonl(ROW, ROW, LONG), "line 3"),
        (jsonl({"question": "a", "answer": "b"}), "open &quot;Column names"),
        ("\n".join(["{}"] * 2001), "2001 rows are too many"),
    ],
    ids=["nothing", "no JSON", "no object", "null", "too long", "columns", "too many"],
)
def test_bad_rows_are_named_by_line_and_shown_escaped(run, text, message):
    shown, spectrum, curve = run(text)
    assert "prism-error" in shown and message in shown
    assert "<img" not in shown
    assert not spectrum.visible and not curve.visible


def test_long_rows_can_be_cut_or_left_out(run):
    assert "in 2 rows" in run(jsonl(ROW, LONG), on_long="truncate")[0]
    assert "in 1 rows" in run(jsonl(ROW, LONG), on_long="skip")[0]


def test_uploaded_file_is_scored_instead(run, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("\ufeff" + jsonl(ROW, ROW), encoding="utf-8")
    assert "in 2 rows" in run("this is not JSON", file=str(file))[0]
    file.write_bytes(jsonl(ROW).encode("utf-16"))
    assert "rows.jsonl is not a UTF-8 text file" in run("", file=str(file))[0]


@pytest.mark.parametrize("model", ["/etc", "../secret", "./a/b", "a/b/c", "tests/helpers.py", ""])
def test_only_the_embedded_proxy_and_hub_ids_are_read(app, model, monkeypatch):
    monkeypatch.chdir(SPACE.parents[1])  # where tests/helpers.py exists
    with pytest.raises(ValueError, match="is not a model here"):
        app.load_featurizer(model, (), "error")


def test_page_builds_without_anything_from_elsewhere(app):
    page = app.build()
    assert not re.search(r"@import|url\(\W?http", app.THEME._get_theme_css() + app.CSS)
    assert not app.THEME._stylesheets  # where gradio's own themes name a font server
    inputs = [component.label for component in page.blocks.values() if getattr(component, "label", None)]
    assert {"prompt", "completion", "messages", "text"} <= set(inputs)
