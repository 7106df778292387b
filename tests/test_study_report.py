"""The page of a study: it says what was found, is self-contained, and harmless whatever things are called."""

import json
import re
import struct

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_report import HOSTILE, Page

from hf_prism.figures import inline_svg
from hf_prism.study_figures import RAMP, measures_figure
from hf_prism.study_findings import study_findings
from hf_prism.study_page import recoloured, study_page, verdict
from hf_prism.study_report import write_study_report
from hf_prism.study_runs import study_runs


DRAWS = 100
NAMES = [text.encode(errors="replace").decode()[:200] for text in HOSTILE if text.strip()]


def made(benchmarks=("new", "old"), **more):
    """Runs of 12 compositions, as columns."""
    grid = [(a, b) for a in (1, 4, 32) for b in (1, 2, 4, 8)] * 2
    random = np.random.default_rng(0)
    noise = random.standard_normal((4, len(grid)))
    size, looks = np.log2(np.array(grid)).T
    ood = 0.1 + 0.1 * size + 0.01 * noise[0]
    columns = {
        "study": ["math"] * 24,
        "run": [f"run-{number}" for number in range(24)],
        "n": [1000] * 24,
        "tokens": [50_000] * 24,
        "factor.reasoning": [a for a, _ in grid],
        "factor.surface": [b for _, b in grid],
        "measure.g_vendi": 10 + 5 * size + noise[1],
        "measure.compression_ratio": 5 - looks + noise[2],
        "measure.oracle": size,
        "in_distribution": 0.8 + 0.01 * looks + 0.01 * noise[3],
        "ood": ood,
        "base": ["a base"] * 24,
        "feature_id": ["0123456789abcdef"] * 24,
    }
    return columns | {f"accuracy.{name}": ood for name in benchmarks} | more


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    pq.write_table(pa.table(made()), folder / "runs.parquet")
    write_study_report(folder / "runs.parquet", folder / "new" / "report", draws=DRAWS)
    return folder / "new" / "report"


@pytest.fixture(scope="module")
def page(folder):
    return Page(folder / "report.html")


@pytest.fixture(scope="module")
def hostile():
    """Findings of runs in which everything that has a name has a hostile one."""
    columns = made(NAMES[:6], study=[NAMES[0]] * 24, base=[NAMES[2]] * 24, feature_id=[NAMES[3]] * 24)
    columns[f"measure.{NAMES[1]}"] = columns["measure.compression_ratio"]
    columns[f"measure.{NAMES[4]}"] = [1.0] * 24
    renamed = {
        f"factor.{NAMES[0]}": columns.pop("factor.reasoning"),
        f"factor.{NAMES[5]}": columns.pop("factor.surface"),
    }
    return columns | renamed


def said(source):
    body = source[source.index("<main>") : source.index("<script")]
    return " ".join(re.sub("<[^>]*>", " ", re.sub(r"(?s)<svg.*?</svg>", "", body)).split())


def test_the_page_says_what_the_findings_say(folder, page):
    found = study_findings(made(), draws=DRAWS)
    assert json.loads((folder / "findings.json").read_text()) == json.loads(json.dumps(found.as_dict()))
    text = said(page.source)
    low, high = found.g_vendi.ood.interval
    assert f"G-Vendi ρ = {found.g_vendi.ood.rho:.2f} 95% interval {low:.2f} to {high:.2f}" in text
    for told in (
        "over 24 runs",
        "compression ratio (reversed)",
        "Study “math”",
        "1 (8), 4 (8), 32 (8)",
        "No run: all",
    ):
        assert told in text
    assert text.count("a doubling") == 2 and "reasoning / surface" in text


def test_the_folder_has_the_pictures_and_the_page_has_them_inside(folder, page):
    assert {path.name for path in folder.iterdir()} == {
        "report.html", "findings.json", "measures.png", "correlations.png", "effects.png", "benchmarks.png",
    }  # fmt: skip
    for path in folder.glob("*.png"):
        width, height = struct.unpack(">II", path.read_bytes()[16:24])
        assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" and width >= 900 and height >= 300
    assert [each["role"] for each in page.all("svg")] == ["img"] * 4 and all(
        each["aria-label"] for each in page.all("svg")
    )


def test_the_page_needs_nothing_and_may_do_nothing(page):
    policy = next(each["content"] for each in page.all("meta") if each.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy and "script-src 'none'" in policy
    assert [text.strip() for tag, text in page.texts if tag == "script"] == ["null", ""]
    assert not re.search(r"(?:src|href)=\"(?!#)", page.source) and "url(http" not in page.source
    assert not any(attribute.startswith("on") for _, attributes in page.elements for attribute in attributes)


def test_levels_take_the_colours_of_the_page(page):
    body = page.source[page.source.index("<body>") :]
    assert not any(color.lower() in body.lower() for color in RAMP)
    assert "var(--r0)" in body and "var(--r5)" in body and "--r5:" in page.source


def test_hostile_names_stay_text(hostile, tmp_path):
    findings, runs = study_findings(hostile, draws=DRAWS), study_runs(hostile)
    svg = recoloured(inline_svg(measures_figure(findings, runs), "measures", verdict(findings)))
    path = tmp_path / "report.html"
    path.write_text(study_page(findings, {"measures": svg}), "utf-8")
    page = Page(path)
    allowed = {"svg", "g", "path", "defs", "use", "text", "tspan", "clippath", "rect", "pattern"}
    allowed |= {
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "main",
        "header",
        "footer",
        "script",
        "section",
        "details",
    }
    allowed |= {
        "summary",
        "h1",
        "h2",
        "h3",
        "p",
        "div",
        "dl",
        "dt",
        "dd",
        "small",
        "figure",
        "ul",
        "li",
        "table",
        "thead",
    }
    allowed |= {"tbody", "tr", "th", "td"}
    assert {tag for tag, _ in page.elements} <= allowed
    assert not any(attribute.startswith("on") for _, attributes in page.elements for attribute in attributes)
    assert [text.strip() for tag, text in page.texts if tag == "script"] == ["null", ""]
    assert "<script>window.pwned=1</script>" in "".join(text for _, text in page.texts)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", page.source)


@pytest.mark.filterwarnings("ignore:Glyph")
def test_hostile_names_do_not_stop_the_report(hostile, tmp_path):
    pq.write_table(pa.table(hostile), tmp_path / "runs.parquet")
    assert write_study_report(tmp_path / "runs.parquet", tmp_path, draws=DRAWS)[0].is_file()


@pytest.mark.parametrize(
    ("rival", "told"),
    [
        (lambda runs: np.tile([0.1, 0.2], 12), "Of 1 other measure, G-Vendi orders the runs better than 1."),
        (lambda runs: runs["ood"], "Of 1 other measure, G-Vendi orders them worse than 1."),
        (lambda runs: runs["measure.g_vendi"], "Of 1 other measure, G-Vendi cannot be told apart from 1."),
    ],
)
def test_the_verdict_is_that_of_the_interval(rival, told):
    runs = made()
    del runs["measure.compression_ratio"]
    found = study_findings(runs | {"measure.distinct_2": rival(runs)}, draws=DRAWS)
    assert told in verdict(found)
    lead = found.baselines[0].g_vendi_leads_by
    assert lead is not None
    assert (" below G-Vendi" if lead.difference >= 0 else " above G-Vendi") in verdict(found)


def test_without_rivals_or_a_second_factor_there_is_a_page_still(tmp_path):
    runs = made(["only"])
    del runs["measure.compression_ratio"], runs["measure.oracle"], runs["factor.surface"]
    pq.write_table(pa.table(runs), tmp_path / "runs.parquet")
    source = write_study_report(tmp_path / "runs.parquet", tmp_path, draws=DRAWS)[0].read_text()
    assert "No other measure was computed." in source and "3 compositions are few" in source


@pytest.mark.parametrize(("content", "message"), [(None, "no file .*runs.parquet"), (b"text", "not a Parquet file")])
def test_what_is_no_file_of_runs_is_named(content, message, tmp_path):
    path = tmp_path / "runs.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        write_study_report(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
