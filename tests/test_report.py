"""The report: what it finds, and a page that is self-contained, harmless whatever the rows say, and usable by keyboard."""

import json
import re
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path

import browser
import numpy as np
import pytest
from datasets import Dataset

from hf_prism import figures, findings
from hf_prism.page import page as page_of
from hf_prism.page import shown
from hf_prism.report import examine, write_report
from hf_prism.vendi import contribution, g_vendi


SCRIPTS = "<script>window.pwned=1</script>"
HOSTILE = [
    SCRIPTS,
    "</script><script>window.pwned=1</script>",
    '"><img src=x onerror="window.pwned=1"><svg onload=window.pwned=1>',
    "<!--<script>",
    "]]> --> </style></title></textarea></svg><iframe src='javascript:parent.pwned=1'></iframe>",
    "[click](javascript:window.pwned=1) ![x](http://example.com/x.png) **bold** `code`",
    "&lt;b&gt; &#60;script&#62; ${alert(1)} {{7*7}} $title $points",
    "nul \x00 bell \x07 escape \x1b[31m delete \x7f next line \x85",
    "abc \u202edef\u202c \u2066ghi שלום مرحبا \u200f",
    "line\u2028separator\u2029paragraph \ufffe \ud800 lone surrogate",
    "' onmouseover='window.pwned=1' x='",
    "long " * 20_000,
    "W" * 3_000,
    "",
    " \n\t ",
]


def planted(num_other=84, num_alike=30, num_copies=6, dim=64, seed=0):
    """Features and texts: rows in directions of their own, a heap of one problem with other numbers, and exact copies."""
    rng = np.random.default_rng(seed)
    other = rng.standard_normal((num_other, dim))
    alike = rng.standard_normal(dim) + 0.2 * rng.standard_normal((num_alike, dim))
    vectors = np.concatenate([other, alike, other[:num_copies]]).astype(np.float32)
    texts = [(f"A problem of its own, number {i}.", f"Its answer, {i}.") for i in range(num_other)]
    texts += [(f"Ann has {i} apples and eats one.", f"The answer is {i - 1}.") for i in range(num_alike)]
    return features(vectors), texts + texts[:num_copies]


def features(vectors, ids=None):
    vectors = np.asarray(vectors, dtype=np.float32)
    columns = {
        "id": ids or [f"row-{i}" for i in range(len(vectors))],
        "gradient": list(vectors / np.linalg.norm(vectors, axis=1, keepdims=True)),
        "gradient_norm": np.linalg.norm(vectors, axis=1).tolist(),
        "loss": [0.5] * len(vectors),
    }
    return Dataset.from_dict(columns)


class Page(HTMLParser):
    """A page as a parser sees it: elements with their attributes and text, and whether they are closed properly."""

    VOID = {"meta", "input", "br", "img", "link"}

    def __init__(self, path):
        super().__init__(convert_charrefs=True)
        self.source = Path(path).read_text("utf-8")
        self.elements, self.open, self.texts = [], [], []
        self.feed(self.source)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append((tag, []))

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        opened, parts = self.open.pop()
        assert opened == tag, f"</{tag}> closes <{opened}>"
        self.texts.append((tag, "".join(parts)))

    def handle_data(self, data):
        for _, parts in self.open[-1:]:
            parts.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def said(found):
    """What the page says, in one line; the pictures are left out, for speed."""
    svgs = dict.fromkeys(["spectrum", "rarefaction", "clusters"] + ["nearest"] * (len(found.ids) > 1), "")
    return spoken(page_of(found, svgs))


def spoken(source):
    body = source[source.index("<main>") : source.index("<script")]
    return " ".join(re.sub("<[^>]*>", "", body).split())


@pytest.fixture(scope="module")
def found():
    return examine(*planted(), name="planted.jsonl", proxy="a tiny proxy", feature_id="0123456789abcdef")


@pytest.fixture(scope="module")
def path(found, tmp_path_factory):
    return write_report(found, tmp_path_factory.mktemp("report") / "new" / "folder")


@pytest.fixture(scope="module")
def page(path):
    return Page(path)


@pytest.fixture(scope="module")
def hostile_path(tmp_path_factory):
    """Every hostile text as a prompt, a completion, an id, and the name of data and proxy."""
    rng = np.random.default_rng(1)
    vectors = np.repeat(rng.standard_normal((len(HOSTILE), 16)), 4, axis=0) + 0.05 * rng.standard_normal(16)
    texts = [(text, HOSTILE[-i - 1]) for i, text in enumerate(HOSTILE) for _ in range(4)]
    # An id comes from Arrow, which holds no lone surrogate.
    ids = [f"{i} {text[:300]}".encode(errors="replace").decode() for i, (text, _) in enumerate(texts)]
    found = examine(features(vectors, ids), texts, name=SCRIPTS, proxy=HOSTILE[2], feature_id="<i>id</i>")
    return write_report(found, tmp_path_factory.mktemp("hostile"))


def test_planted_redundancy_is_counted(found):
    assert found.num_redundant == 29 + 6 and found.num_copies == 6
    assert set(found.groups[0].tolist()) == set(range(84, 114))
    assert sorted(sorted(group.tolist()) for group in found.groups[1:]) == [[i, 114 + i] for i in range(6)]


def test_the_first_lines_tell_of_it_with_an_example(page):
    top = spoken(page.source)[:900]
    assert "35 of the 120 rows (29%) add little: they are much like another row." in top
    assert re.search(r"Near-duplicates: 30 rows\. Ann has \d+ apples and eats one\.", top)
    assert "The same text to the letter: 2 + 2 + 2 rows, and 6 in 3 more groups." in top


def kinds():
    """Five rows of one text, three near-duplicates, a family of twelve at cosines of about 0.75, and others."""
    rng = np.random.default_rng(0)
    other = rng.standard_normal((100, 64))
    family = other[0] + 0.5 * rng.standard_normal((12, 64))
    vectors = np.concatenate([other[1:], family, np.repeat(other[1:2], 4, axis=0), other[2] + 0.05 * family[:2]])
    texts = [f"one of its own, {i}" for i in range(99)] + [f"{i} apples" for i in range(12)]
    return features(vectors), texts + texts[:1] * 4 + ["much like it", "much like it, too"]


def test_each_kind_of_group_is_told_from_the_others():
    data, texts = kinds()
    found = examine(data, texts)
    assert found.kinds == ["family", "same text", "near-duplicates"]
    assert [sorted(group.tolist()) for group in found.groups] == [
        [*range(99, 111)],
        [0, *range(111, 115)],
        [1, 115, 116],
    ]
    assert {kind: set(found.rows[mask].tolist()) for kind, mask in found.memberships.items()} == {
        kind: set(group.tolist()) for kind, group in zip(found.kinds, found.groups, strict=True)
    }
    cosines = np.array(data["gradient"], dtype=np.float64) @ np.array(data["gradient"], dtype=np.float64).T
    inside, outside = range(99, 111), [*range(99), *range(111, 117)]
    within = np.mean([cosines[i, j] for i in inside for j in inside if i != j])
    nearest = cosines[np.ix_(outside, inside)].mean(axis=1).max()
    assert found.cosines == {0: pytest.approx((within, nearest), abs=1e-6)}
    words = said(found)
    assert f"12 rows (10.3%), family, mean cosine {within:.2f} (nearest other row {nearest:.2f}):" in words
    assert "5 rows (4.3%), the same text: one of its own, 0one of its own, 05 times · row-" in words
    assert "3 rows (2.6%), near-duplicates, cosine at least 0.95:" in words
    assert words.count("Words that differ from the first text are marked.") == 2
    assert (
        "Of the 117 rows, 20 are in a group (family: 12, near-duplicates: 3, same text: 5), 17 beside one of each"
        in words
    )
    assert "mostly the group of 12 rows above" in words
    assert examine(data).kinds == ["family", "near-duplicates", "near-duplicates"], "without texts"


def test_the_histogram_stacks_the_groups_upon_the_other_rows():
    found = examine(*kinds())
    axes = figures.nearest_figure(found.nearest, found.threshold, found.memberships).axes[0]
    told = {patch.get_label(): patch.get_data() for patch in axes.patches}
    assert list(told) == ["other rows: 97", "family: 12", "near-duplicates: 3", "same text: 5"]
    edges = told["other rows: 97"].edges
    below = np.zeros(len(edges) - 1)
    for name, values in told.items():
        kind, count = name.split(": ")
        mask = found.memberships.get(kind, ~np.any(list(found.memberships.values()), axis=0))
        assert (values.values - below == np.histogram(found.nearest[mask], edges)[0]).all() and mask.sum() == int(
            count
        )
        below = values.values


def test_a_pool_of_the_embedded_proxy_shows_what_was_planted(tmp_path):
    """The whole way, from problems to the page."""
    from hf_prism import GradientFeaturizer, featurize
    from hf_prism.tasks.procedural import generate

    rows = generate(24, families=["story", "units", "sequence", "groups"])
    rows += [generate(1, skeletons=["comparison/more"], number_seed=i, largest=40)[0] for i in range(12)]
    rows = [{key: row[key] for key in ("prompt", "completion")} for row in rows]
    done = featurize(Dataset.from_list(rows), GradientFeaturizer("embedded", dim=64), tmp_path / "run")
    found = examine(done, [(row["prompt"], row["completion"]) for row in rows])
    assert len(set(range(24, 36)) & set(found.groups[0].tolist())) >= 11 and len(found.groups[0]) <= 13
    assert f"{found.num_redundant} of the 36 rows" in said(found) and f": {len(found.groups[0])} " in said(found)[:900]


def test_headline_is_one_line_of_plain_text(found):
    assert found.headline.startswith(f"G-Vendi {found.score.g_vendi:.1f}, 95% interval ")
    assert found.headline.endswith("n = 120. 35 of the 120 rows (29%) add little: they are much like another row.")


def test_rows_without_redundancy_are_said_to_have_none():
    found = examine(features(np.eye(12)), [f"text {i}" for i in range(12)])
    assert found.num_redundant == 0
    assert "No row is much like another." in said(found)


def test_score_and_contributions_are_those_of_vendi(found):
    data, _ = planted()
    expected = g_vendi(data, ids=data["id"])
    assert found.score.g_vendi == expected.g_vendi and found.score.interval == expected.interval
    by_row = np.empty(120)
    by_row[found.rows] = found.contributions
    assert by_row == pytest.approx(contribution(data), abs=1e-6)


def test_map_is_the_principal_components_of_scikit_learn(found):
    decomposition = pytest.importorskip("sklearn.decomposition")
    data, _ = planted()
    vectors = np.array(data["gradient"], dtype=np.float64)[found.rows]
    reference = decomposition.PCA(2, svd_solver="full").fit(vectors)
    expected = reference.transform(vectors)
    assert np.abs(found.points) == pytest.approx(np.abs(expected), abs=1e-5)
    assert found.variance_shares == pytest.approx(reference.explained_variance_ratio_.tolist(), abs=1e-6)


def test_sparse_clusters_are_the_smaller_half(found):
    assert len(found.sizes) == 12 and found.sizes.sum() == 120
    assert found.sparse.sum() == 6 and found.sizes[found.sparse].max() <= found.sizes[~found.sparse].min()
    assert (np.bincount(found.clusters) == found.sizes).all()


@pytest.mark.parametrize("seed", [1, 2])
def test_order_of_the_rows_changes_nothing(monkeypatch, seed):
    monkeypatch.setattr(findings, "COMPARED", 100)
    monkeypatch.setattr(findings, "EXAMINED", 80)
    monkeypatch.setattr(findings, "DRAWN", 50)
    data, texts = planted()
    order = np.random.default_rng(seed).permutation(len(texts))
    one, other = examine(data, texts), examine(data.select(order), [texts[row] for row in order])
    named = [[[each.ids[row] for row in rows] for rows in (each.rows, *each.groups)] for each in (one, other)]
    assert named[0] == named[1] and len(one.rows) == 80 and len(one.points) == 50 and one.num_compared == 100
    assert (one.clusters == other.clusters).all() and (one.sparse == other.sparse).all()
    assert one.points == pytest.approx(other.points, abs=1e-9)
    assert one.score.g_vendi == pytest.approx(other.score.g_vendi, rel=1e-12)
    assert examine(data, texts, seed=1).rows.tolist() != one.rows.tolist()


def test_a_sample_is_said_to_be_one(monkeypatch):
    monkeypatch.setattr(findings, "COMPARED", 100)
    monkeypatch.setattr(findings, "EXAMINED", 80)
    monkeypatch.setattr(findings, "DRAWN", 50)
    words = said(examine(*planted(), seed=3))
    assert "of the 100 rows compared" in words and "looked for among 100 of the 120 rows, drawn by seed 3" in words
    assert "50 of the 120 rows, drawn by seed as a point" in words
    assert "a tenth of the 80 rows examined" in words and "those of 80 rows drawn by seed 3" in words


def test_the_measures_beside_it_have_value_direction_and_source(page):
    from hf_prism.baselines import MEASURES, measure

    data, texts = planted()
    expected = measure(
        texts=["\n".join(pair) for pair in texts], gradient_norm=data["gradient_norm"], loss=data["loss"]
    )
    cells = [text for tag, text in page.texts if tag in ("th", "td")]
    for line in MEASURES:
        if line.key not in expected:
            continue
        at = cells.index(line.name)
        assert cells[at + 2 : at + 4] == [line.reads_as, line.source]
        assert float(cells[at + 1].replace(",", "")) == pytest.approx(expected[line.key], rel=1e-3)
    assert "skill-set entropy" not in cells and "embedding Vendi" not in cells


def test_a_measure_that_the_rows_do_not_allow_says_why():
    words = said(examine(features(np.eye(5)), ["a"] * 5))
    assert "the longest of 5 texts has 1 words" in words


@pytest.mark.parametrize(
    "vectors", [np.ones((50, 8)), np.ones((1, 4)), np.eye(2), np.ones((3, 1)), np.repeat(np.eye(3), 20, axis=0)]
)
def test_pools_of_few_directions_have_a_page_too(vectors):
    found = examine(features(vectors), [f"row {i}" for i in range(len(vectors))])
    assert len(found.sizes) <= len(np.unique(vectors, axis=0)) and found.sizes.min() > 0
    assert f"of these {len(vectors)} row" in said(found)


def test_rows_without_a_gradient_are_left_out_and_counted():
    data = Dataset.from_dict({"id": list("abcd"), "gradient": [[1.0, 0.0], None, [0.0, 1.0], [1.0, 0.1]]})
    found = examine(data, ["one", "skipped", "two", "three"])
    assert found.score.n == 3 and 1 not in found.rows and found.num_redundant == 1
    assert "1 rows without a gradient" in said(found)


def test_without_texts_ids_are_shown():
    data, _ = planted()
    words = said(examine(data))
    assert (
        re.search(r"Near-duplicates: 30 \+ 2 \+ 2 rows, and 8 in 4 more groups\. row-\d+", words)
        and "to the letter" not in words
    )


def test_local_proxies_names_and_hashes_are_shown_for_people():
    found = examine(
        features(np.eye(3), ["0123456789abcdef" * 2, "fedcba9876543210-2", "x" * 30]), name="d", proxy="local"
    )
    words = said(found)
    assert words.startswith("How diverse is “d”?") and "proxy a local model" in words.replace("proxya", "proxy a")
    assert "· 01234567…" in words and "fedcba98…-2" in words and "x" * 30 in words
    source = page_of(found, dict.fromkeys(["spectrum", "rarefaction", "clusters", "nearest"], ""))
    assert f'title="{"0123456789abcdef" * 2}"' in source


def test_percent_signs_are_spaced_alike(page):
    assert re.search(r"\d%", spoken(page.source)) and not re.search(r"\d(\s|&nbsp;)%", page.source)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["a"], "1 texts for 3 rows"),
        (["a", "b", None], r"the text of row 2 \(id 'row-2'\) is 'None': give a string, or a pair"),
        (["a", "b", ("prompt",)], "the text of row 2"),
    ],
)
def test_texts_that_do_not_fit_are_refused(texts, message):
    with pytest.raises(ValueError, match=message):
        examine(features(np.eye(3)), texts)


def test_features_without_gradients_or_rows_and_labels_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="no column 'gradient' among"):
        examine(Dataset.from_dict({"text": ["a"]}))
    with pytest.raises(ValueError, match="2 labels for 3 rows"):
        examine(features(np.eye(3)), labels=["a", "b"])
    with pytest.raises(ValueError, match="no gradient vectors among 2 rows"):
        examine(Dataset.from_dict({"id": ["a", "b"], "gradient": [None, None]}))


def test_files_are_the_page_and_its_pictures(path):
    from matplotlib.image import imread

    names = {file.name for file in path.parent.iterdir()}  # no temporary file is left
    assert names == {
        "report.html",
        *(f"{name}.png" for name in ("spectrum", "rarefaction", "clusters", "map", "nearest")),
    }
    for name in names - {"report.html"}:
        picture = imread(path.parent / name)
        assert picture.shape[0] > 300 and picture[0, 0] == pytest.approx(1.0), "pictures stand on white"


@pytest.mark.parametrize("name", ["page", "hostile"])
def test_page_refers_to_nothing_outside_and_runs_one_script(request, name):
    page = request.getfixturevalue("page") if name == "page" else Page(request.getfixturevalue("hostile_path"))
    scripts = page.all("script")
    assert scripts == [{"type": "application/json", "id": "points"}, {}]
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form", "img", "video", "audio", "image")
        for key, value in attributes.items():
            assert not key.startswith("on") and key not in ("src", "srcset", "action", "ping")
            assert key not in ("href", "xlink:href") or re.fullmatch("#[\\w-]+", value)
            assert key != "style" or not re.search(r"url\((?!#)|@import|expression", value)
    style = next(text for tag, text in page.texts if tag == "style")
    assert not re.search(r"url\(|@import", style)
    assert len([text for tag, text in page.texts if tag == "style"]) == 1


@pytest.mark.parametrize("name", ["page", "hostile"])
def test_policy_allows_that_script_and_no_address(request, name):
    page = request.getfixturevalue("page") if name == "page" else Page(request.getfixturevalue("hostile_path"))
    policy = next(meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    script = [text for tag, text in page.texts if tag == "script"][1]
    digest = b64encode(sha256(script.encode()).digest()).decode()
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules == {
        "default-src": "'none'",
        "script-src": f"'sha256-{digest}'",
        "style-src": "'unsafe-inline'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    first = [tag for tag, _ in page.elements if tag in ("meta", "style", "script")]
    assert first[:2] == ["meta", "meta"], "the policy stands before all it governs"


def test_ids_on_a_page_are_unique_and_references_lead_somewhere(page):
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    referred = re.findall(r'(?:href="#|url\(#)([^")]+)', page.source)
    assert referred and set(referred) <= set(ids)


def test_every_picture_is_described_and_keeps_its_text(page):
    described = [svg["aria-label"] for svg in page.all("svg") if "aria-hidden" not in svg]
    assert len(described) == 5 and all(len(text) > 30 for text in described)
    words = [text.strip() for tag, text in page.texts if tag == "text"]
    assert {"Spectrum", "G-Vendi", "cluster, by size", "cosine with the nearest other row"} <= set(words)
    assert "#333333" not in page.source and "currentColor" in page.source


def test_hostile_texts_are_shown_as_text(hostile_path):
    page = Page(hostile_path)
    shown_texts = [text for tag, text in page.texts if tag in ("p", "q", "bdi")]
    for text in HOSTILE[:3] + [HOSTILE[6]]:
        assert any(text in each for each in shown_texts), f"{text} is not on the page as it is"
    points = json.loads([text for tag, text in page.texts if tag == "script"][0])
    assert len(points) == 4 * len(HOSTILE)
    assert {prompt for _, prompt, _ in points} == {shown(text, 200) for text in HOSTILE}
    json_source = re.search(r'id="points">(.*?)</script>', page.source, re.DOTALL)
    assert json_source is not None and not set("<>&\u2028\u2029") & set(json_source[1])


def test_characters_that_hide_or_reorder_are_made_visible(hostile_path):
    source = hostile_path.read_text("utf-8")
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]", source)
    assert "nul ␀ bell ␇ escape ␛[31m delete ␡" in source and "⟨U+202E⟩def⟨U+202C⟩" in source


def test_long_texts_are_cut_and_say_how_long_they_are(hostile_path):
    page = Page(hostile_path)
    assert "(100,000 characters)" in spoken(page.source) and len(page.source) < 600_000
    assert shown("W" * 3_000, 600) == "W" * 600 + "…" and shown("W" * 600, 600) == "W" * 600


def test_page_stays_small_at_three_thousand_rows(tmp_path):
    rng = np.random.default_rng(0)
    texts = [("prompt " * 200, "completion " * 200)] * 3_100
    path = write_report(examine(features(rng.standard_normal((3_100, 16))), texts), tmp_path)
    assert len(re.findall('<circle class="a', path.read_text("utf-8"))) == 3_000 + 6
    assert path.stat().st_size < 2_000_000


needs_browser = pytest.mark.skipif(
    browser.CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on the PATH"
)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with browser.chromium(tmp_path_factory.mktemp("chromium")) as running:
        yield running


@needs_browser
def test_nothing_that_rows_hold_is_executed_or_requested(chromium, hostile_path):
    del chromium.requests[:], chromium.errors[:]
    chromium.open(hostile_path)
    # Every way in which the script shows a text.
    chromium.evaluate("document.getElementById('plane').focus()")
    for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp"):
        chromium.press(key, 15)
    chromium.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    chromium.evaluate("document.getElementById('search').focus()")
    chromium.type("<script>")
    hits = sum(
        "<script>" in shown(text, 200) or "<script>" in shown(HOSTILE[-i - 1], 200) for i, text in enumerate(HOSTILE)
    )
    assert (
        chromium.evaluate("document.getElementById('count').textContent") == f"{4 * hits} of {4 * len(HOSTILE)} rows"
    )
    assert chromium.evaluate("typeof window.pwned") == "undefined"
    assert chromium.evaluate("document.scripts.length") == 2
    assert set(chromium.requests) == {hostile_path.as_uri()} and chromium.errors == []


@needs_browser
def test_the_policy_stops_what_would_get_past_the_escaping(chromium, hostile_path):
    """Markup put in by force does nothing: neither a handler, nor a script, nor an address."""
    del chromium.requests[:], chromium.errors[:]
    chromium.open(hostile_path)
    chromium.evaluate(
        "document.body.insertAdjacentHTML('beforeend', '<img src=http://127.0.0.1:9/x onerror=window.pwned=1>');"
        "const s = document.createElement('script'); s.textContent = 'window.pwned=1'; document.body.append(s);"
    )
    assert chromium.evaluate("typeof window.pwned") == "undefined"
    assert any("Content Security Policy" in error for error in chromium.errors)


@needs_browser
def test_the_map_is_walked_by_keyboard(chromium, path):
    chromium.open(path)
    for _ in range(60):
        chromium.press("Tab")
        if chromium.evaluate("document.activeElement.id") == "plane":
            break
    assert chromium.evaluate("document.activeElement.id") == "plane"
    seen = set()
    for key in ("ArrowRight", "ArrowLeft", "ArrowDown", "ArrowUp"):
        for _ in range(10):
            chromium.press(key)
            seen.add(chromium.evaluate("document.querySelector('#told .prompt').textContent"))
    assert len(seen) > 10 and all(re.match(r"A problem of its own|Ann has \d+ apples", text) for text in seen)
    x = [chromium.evaluate("Number(document.getElementById('ring').getAttribute('cx'))")]
    for _ in range(5):
        chromium.press("ArrowRight")
        x.append(chromium.evaluate("Number(document.getElementById('ring').getAttribute('cx'))"))
    assert x == sorted(x)
    chromium.press("Escape")
    assert chromium.evaluate("document.getElementById('ring').getAttribute('visibility')") == "hidden"


@needs_browser
def test_groups_open_by_keyboard(chromium, path):
    chromium.open(path)
    opened = "document.querySelectorAll('details')[1].open"
    assert chromium.evaluate("document.querySelectorAll('details')[0].open") and not chromium.evaluate(opened)
    chromium.evaluate("document.querySelectorAll('summary')[1].focus()")
    chromium.call(
        "Input.dispatchKeyEvent", type="keyDown", key="Enter", code="Enter", windowsVirtualKeyCode=13, text="\r"
    )
    assert chromium.evaluate(opened)


@needs_browser
def test_the_first_lines_lead_to_their_groups(chromium, path):
    chromium.open(path)
    opened = "document.querySelector('#group-2 details').open"
    assert not chromium.evaluate(opened)
    chromium.evaluate("document.querySelector('.found a[href=\"#group-2\"]').click()")
    assert chromium.evaluate(opened) and chromium.evaluate("location.hash") == "#group-2"


@needs_browser
@pytest.mark.parametrize("width", [390, 1280])
def test_labels_of_the_map_cover_no_point_and_an_example_is_shown(chromium, path, width):
    chromium.open(path, width)
    assert chromium.evaluate("document.querySelectorAll('#plane text').length") == 1
    covered = """(() => {
        const points = Array.from(document.querySelectorAll('#plane circle:not(#ring)'), each => each.getBBox());
        return Array.from(document.querySelectorAll('#plane text'), each => each.getBBox()).filter(label =>
            points.some(point => point.x < label.x + label.width && label.x < point.x + point.width
                && point.y < label.y + label.height && label.y < point.y + point.height)
            || label.x < 0 || label.x + label.width > 640).length;
    })()"""
    assert chromium.evaluate(covered) == 0
    assert re.match(r"Ann has \d+ apples", chromium.evaluate("document.querySelector('#told .prompt').textContent"))


@needs_browser
def test_pointing_at_a_row_tells_its_text(chromium, path, found):
    chromium.open(path)
    box = "document.querySelectorAll('#plane circle')[7].getBoundingClientRect()"
    chromium.evaluate("document.getElementById('plane').scrollIntoView({block: 'center'})")
    x, y = (
        chromium.evaluate(f"{box}.{start} + {box}.{size} / 2") for start, size in (("x", "width"), ("y", "height"))
    )
    chromium.point(x, y)
    told = chromium.evaluate("document.querySelector('#told .prompt').textContent")
    places = found.points
    near = np.argsort(np.linalg.norm(places - places[7], axis=1))[:3]
    assert told in [found.texts[found.rows[place]][0] for place in near]
    chromium.point(x, y, click=True)
    chromium.point(2, 2)
    assert chromium.evaluate("document.querySelector('#told .prompt').textContent") == told, "a click keeps it"


@needs_browser
def test_searching_marks_the_rows_and_colours_change(chromium, path):
    chromium.open(path)
    chromium.evaluate("document.getElementById('search').focus()")
    chromium.type("apples")
    assert chromium.evaluate("document.getElementById('count').textContent") == "30 of 120 rows"
    assert chromium.evaluate("document.querySelectorAll('circle.hit').length") == 30
    fill = "getComputedStyle(document.querySelector('#plane circle.n:not(.s)')).fill"
    before = chromium.evaluate(fill)
    chromium.evaluate("document.querySelector('input[value=size]').click()")
    assert chromium.evaluate(fill) != before
    assert chromium.evaluate("document.querySelectorAll('.key:not([hidden])').length") == 1


@needs_browser
@pytest.mark.parametrize("name", ["path", "hostile_path"])
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_window(chromium, request, name, width):
    chromium.open(request.getfixturevalue(name), width, 844)
    chromium.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    assert chromium.evaluate("document.documentElement.scrollWidth") <= width


@needs_browser
@pytest.mark.parametrize("name", ["text of the page", "text of a figure"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_in_both_schemes(chromium, path, scheme, name):
    """At least the contrast that WCAG asks for, 4.5."""
    chromium.open(path, prefers_color_scheme=scheme)
    chosen = {"text of the page": "'.soft'), 'color'", "text of a figure": "'figure svg text'), 'fill'"}[name]
    colors = [f"computed(document.querySelector({chosen})", "computed(document.body, 'background-color')"]
    computed = "const computed = (element, key) => getComputedStyle(element).getPropertyValue(key);"
    light = [_luminance(chromium.evaluate(f"(() => {{ {computed} return {each}; }})()")) for each in colors]
    assert (max(light) + 0.05) / (min(light) + 0.05) > 4.5
    assert (light[0] < light[1]) == (scheme == "light")


def _luminance(color):
    channels = [int(part) / 255 for part in re.findall(r"\d+", color)[:3]]
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in channels]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


@needs_browser
def test_print_opens_the_groups_and_leaves_clusters_folded(chromium, path):
    chromium.open(path)
    folded = "document.querySelectorAll('section[aria-labelledby={}] details:not([open])').length"
    before = [chromium.evaluate(folded.format(name)) for name in ("repeats", "clusters")]
    chromium.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert [chromium.evaluate(folded.format(name)) for name in ("repeats", "clusters")] == [0, before[1]]
    chromium.evaluate("dispatchEvent(new Event('afterprint'))")
    assert [chromium.evaluate(folded.format(name)) for name in ("repeats", "clusters")] == before and min(before) > 0
    assert len(chromium.call("Page.printToPDF", printBackground=True)["data"]) > 10_000
