"""The report as one HTML file that needs no other and no network.

Texts of rows are not trusted. They are escaped as text, and control characters and bidirectional overrides are made
visible; the page's security policy allows its one script by hash, and no address at all.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING

import numpy as np


if TYPE_CHECKING:
    from ..findings import Findings

LISTED, NAMED = 8, 3  # groups, clusters and rows in a list; groups named on the map
EXAMPLES = 3  # of a group or a cluster
TEXT, SHORT, TINY = 600, 200, 110  # characters of a text in a list, on the map, and in a line
SIDE, MARGIN, RADIUS = 640, 14, 4.5  # of the map, in its own units
SAME = 1e-6  # of unit rows: a smaller map would show rounding

# Control characters get their pictures; what reorders or hides text, its number; what no document may hold, a question mark.
VISIBLE = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | {0x7F: 0x2421}
VISIBLE |= {code: f"⟨U+{code:04X}⟩" for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}
VISIBLE |= dict.fromkeys([*range(0x80, 0xA0), *range(0xD800, 0xE000), 0xFFFE, 0xFFFF], 0xFFFD)


def page(findings: Findings, svgs: Mapping[str, str]) -> str:
    """The HTML of the report.

    Args:
        findings: What `examine` found.
        svgs: Figures by name, as `figures.inline_svg` returns them: spectrum, rarefaction, clusters, and nearest where
            there are two rows or more.
    """
    style, script, template = (
        (files("hf_prism.page") / f"page.{kind}").read_text("utf-8") for kind in ("css", "js", "html")
    )
    sections = [_repeats, _map, _clusters, _spectrum, _contributions, _measures]
    return Template(template).substitute(
        title=escape(f"How diverse is {shown(findings.name, TINY)}?"),
        style=style,
        headline=_headline(findings),
        sections="\n".join(section(findings, svgs) for section in sections),
        footer=_footer(findings),
        points=_json(_points(findings)),
        script=script,
        script_hash="sha256-" + b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def shown(text: str, limit: int) -> str:
    """A text as it may stand on the page, before escaping: harmless characters, and at most so many of them.

    Example:
        >>> shown("one\\x00two three", 8)
        'one␀two …'
    """
    return text[:limit].replace("\r\n", "\n").translate(VISIBLE) + ("…" if len(text) > limit else "")


def _headline(findings: Findings) -> str:
    score = findings.score
    interval = f"<small>95&nbsp;% interval {_pair(score.interval)}</small>" if score.interval else ""
    debiased = "not offered here" if score.g_vendi_debiased is None else f"{score.g_vendi_debiased:,.1f}"
    facts = {
        "rows, n": f"{score.n:,}",
        "numbers in a gradient, d": f"{score.dim:,}",
        "saturation": f"{score.saturation:.0%} of min(n, d)",
        "without the sketch’s bias": debiased,
        "proxy": shown(findings.proxy, TINY) or "not said",
        "feature_id": score.feature_id or "not known",
    }
    terms = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts.items())
    notes = "".join(f'<p class="note">Note: {escape(note)}.</p>' for note in score.notes)
    return f"""<p class="score">G-Vendi {score.g_vendi:,.1f} {interval}</p>
<p class="lead">The gradients of these {_rows(score.n)} are as diverse as those of
<strong>{score.g_vendi:,.0f} rows that have nothing in common</strong>. {_saturation(findings)}</p>
{_found(findings)}
<dl>{terms}</dl>
{notes}
<p class="soft">What not to conclude: G-Vendi grows with n and with d, and depends on the proxy. Compare it only with a score
of the same n, d and feature_id. The interval is for another sample of the same size. Diversity is not quality: noise is
diverse too.</p>"""


def _saturation(findings: Findings) -> str:
    score = findings.score
    if score.saturation < 0.5:
        return f"{score.n:,} rows could reach {min(score.n, score.dim):,} at most."
    limit = "the number of rows" if score.n <= score.dim else "the length of the gradients"
    return f"That is near the most that {limit} allows, {min(score.n, score.dim):,}."


def _found(findings: Findings) -> str:
    """The redundancy in words, with the text that repeats most."""
    told = f"<strong>{findings.redundancy}</strong>{_copies(findings)}."
    if findings.groups:
        largest = findings.groups[0]
        of_all = f"{len(largest) / findings.num_compared:.0%} of all" + " compared" * (
            findings.num_compared < findings.score.n
        )
        told += (
            f" The largest group: {len(largest):,} rows, {of_all}, are like <q>{_line(findings, int(largest[0]))}</q>"
        )
    return f'<p class="lead found">{told}</p>'


def _copies(findings: Findings) -> str:
    if not findings.num_copies:
        return ""
    return f"; the text of {findings.num_copies:,} is an exact copy of another row’s"


def _repeats(findings: Findings, svgs: Mapping[str, str]) -> str:
    threshold, of = findings.threshold, findings.num_compared
    inside = sum(len(group) for group in findings.groups)
    sample = ""
    if of < findings.score.n:
        sample = f""" They were looked for among {of:,} of the {findings.score.n:,} rows, drawn by seed {findings.seed}: a row
whose only copies were not drawn is missed, so the share of all rows is higher."""
    listed = "".join(
        _group(findings, group, is_open=number == 0) for number, group in enumerate(findings.groups[:LISTED])
    )
    more = _more(len(findings.groups), "groups")
    figure = _figure(svgs["nearest"], _nearest_caption(findings)) if "nearest" in svgs else ""
    return f"""<section aria-labelledby="repeats"><h2 id="repeats">Rows that say nearly the same</h2>
<p>Rows count as alike where they push the proxy in nearly the same direction, whatever their words: two rows whose gradients have
a cosine of at least {threshold:g}, or a family of rows that stand apart, at least twice as near to each other as to any others.
{_groups(len(findings.groups))} hold {_rows(inside)}; {findings.num_redundant:,} of them could go and leave one of each
group.{sample}</p>
<ol class="rows">{listed}</ol>{more}
<div class="figures">{figure}</div></section>"""


def _group(findings: Findings, group: np.ndarray, *, is_open: bool) -> str:
    """A group of near-duplicates: its first row, and others with the words marked in which they differ."""
    share = len(group) / findings.num_compared
    texts = "" if findings.texts is None else f", {_kinds(findings, group)}"
    title = f"{_rows(len(group))} ({share:.1%}){texts}: <bdi>{_line(findings, int(group[0]))}</bdi>"
    others = np.unique(np.linspace(1, len(group) - 1, EXAMPLES - 1).round().astype(int))
    first = _row(findings, int(group[0]), "the middle of the group")
    rest = "".join(_row(findings, int(group[place]), "one like it", like=int(group[0])) for place in others)
    hint = (
        '<p class="soft">Words that differ from the first text are marked.</p>' if findings.texts is not None else ""
    )
    return _details(title, f'{hint}<div class="columns">{first}{rest}</div>', share, is_open=is_open)


def _kinds(findings: Findings, group: np.ndarray) -> str:
    assert findings.texts is not None
    count = len({findings.texts[row] for row in group})
    return "all the same text" if count == 1 else f"{count:,} different texts"


def _nearest_caption(findings: Findings) -> str:
    steps = ", ".join(f"{np.mean(findings.nearest >= step):.0%} at {step:g}" for step in (0.8, 0.9, 0.95, 0.98, 0.999))
    return f"""How many of the {len(findings.nearest):,} rows examined have another row this near: {steps}. A hill at the right
end is redundancy; where it ends is where the threshold belongs."""


def _map(findings: Findings, svgs: Mapping[str, str]) -> str:
    count, (one, two) = len(findings.points), findings.variance_shares
    drawn = "every row" if count == findings.score.n else f"{count:,} of the {findings.score.n:,} rows, drawn by seed"
    modes = {"copies": "rows alike", "size": "size of the cluster", "share": "contribution"}
    radios = "".join(
        f'<label><input type="radio" name="color" value="{mode}"{" checked" * (mode == "copies")}> {told}</label>'
        for mode, told in modes.items()
    )
    return f"""<section aria-labelledby="map"><h2 id="map">Map of gradient space</h2>
<p>{drawn[0].upper() + drawn[1:]} as a point. Rows that are near each other push the proxy in a similar direction. The two axes
are the first principal components and show {one:.0%} and {two:.0%} of the variance: rows far apart here differ, rows at one
place may still differ in what is not shown.</p>
<div class="controls scripted" hidden><fieldset><legend>Colour:</legend>{radios}</fieldset>
<label>Find text: <input type="search" id="search" autocomplete="off"></label> <span id="count" role="status"></span></div>
<div class="map"><div>{_plane(findings)}{_keys()}</div>
<div><div id="told" class="scripted" role="status" aria-label="The row pointed at" hidden></div>
<p class="soft scripted" id="help" hidden>Keys: Tab to the map, arrows to the next row, Escape to leave it. Find text looks at the
first {SHORT:,} characters of prompt and completion.</p></div></div></section>"""


def _plane(findings: Findings) -> str:
    places, height = _places(findings.points)
    circles = "".join(
        f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{RADIUS}"/>'
        for kind, (x, y) in zip(_classes(findings), places, strict=True)
    )
    labels = "".join(
        f'<text x="{x:.0f}" y="{y - 14 if y > 40 else y + 30:.0f}" text-anchor="middle">{count:,} rows alike</text>'
        for (x, y), count in _crowds(findings, places)
    )
    told = f"Map of {len(places):,} rows in gradient space; a row’s text is shown beside it"
    return f"""<svg id="plane" viewBox="0 0 {SIDE} {height:.0f}" role="img" aria-label="{escape(told)}"
data-color="copies">{circles}{labels}</svg>"""


def _places(points: np.ndarray) -> tuple[np.ndarray, float]:
    """Points in the units of the map, both axes on one scale, and the height of the map."""
    low, span = points.min(axis=0), np.ptp(points, axis=0)
    scale = (SIDE - 2 * MARGIN) / max(span[0], span[1], SAME)
    height = max(span[1] * scale + 2 * MARGIN, SIDE / 2)
    middle = np.array([SIDE, height]) / 2
    places = middle + (points - low - span / 2) * scale * [1, -1]
    return places, height


def _crowds(findings: Findings, places: np.ndarray) -> list[tuple[np.ndarray, int]]:
    """Where the largest groups lie on the map, and how many rows they are: at one place they look like one."""
    place_of = {int(row): place for row, place in zip(findings.rows, places, strict=False)}
    found = []
    for group in findings.groups[:NAMED]:
        drawn = [place_of[row] for row in group.tolist() if row in place_of]
        if len(drawn) > len(places) / 40:
            x, y = np.median(drawn, axis=0)
            found.append((np.array([np.clip(x, 90, SIDE - 90), y]), len(group)))
    return found


def _classes(findings: Findings) -> list[str]:
    """Of each point: its fifth by cluster size (a) and by contribution (b), sparse (s), near-duplicate (n)."""
    count = len(findings.points)
    clusters, drawn = findings.clusters[:count], findings.rows[:count]
    sizes, shares = _fifths(findings.sizes[clusters]), _fifths(findings.contributions[:count])
    repeated = np.isin(drawn, np.concatenate([[-1], *findings.groups]))
    return [
        f"a{a} b{b}" + " s" * bool(s) + " n" * bool(n)
        for a, b, s, n in zip(sizes, shares, findings.sparse[clusters], repeated, strict=True)
    ]


def _fifths(values: np.ndarray) -> np.ndarray:
    return np.searchsorted(np.quantile(values, [0.2, 0.4, 0.6, 0.8]), values, side="left")


def _keys() -> str:
    hollow = "hollow: in a sparse cluster"
    keys = {
        "copies": [("n", "says nearly the same as another row"), ("s", hollow), ("", "other rows")],
        "size": [*_ramp("a", "in the smallest clusters", "in the largest"), ("a2 s", hollow)],
        "share": [*_ramp("b", "contributes least", "contributes most"), ("b2 s", hollow)],
    }
    dot = '<li><svg viewBox="0 0 14 14" aria-hidden="true" data-color="{}"><circle class="{}" cx="7" cy="7" r="5"/></svg> {}</li>'
    return "".join(
        f'<ul class="key" data-color="{mode}"{" hidden" * (mode != "copies")}>'
        + "".join(dot.format(mode, kind, told) for kind, told in lines)
        + "</ul>"
        for mode, lines in keys.items()
    )


def _ramp(letter: str, low: str, high: str) -> list[tuple[str, str]]:
    return [(f"{letter}{step}", {0: low, 4: high}.get(step, "")) for step in range(5)]


def _points(findings: Findings) -> list[list[str]]:
    """What the script shows of each point: a line about it, prompt and completion."""
    groups = {int(row): len(group) for group in findings.groups for row in group}
    count = len(findings.points)
    lines = []
    for place, (row, cluster) in enumerate(
        zip(findings.rows[:count].tolist(), findings.clusters[:count], strict=True)
    ):
        about = [
            shown(findings.ids[row], TINY),
            f"cluster of {findings.sizes[cluster]:,}" + ", sparse" * bool(findings.sparse[cluster]),
            f"contribution {findings.contributions[place]:.2f}",
        ]
        if row in groups:
            about.append(f"one of {groups[row]:,} rows that say nearly the same")
        prompt, completion = ("", "") if findings.texts is None else findings.texts[row]
        lines.append([" · ".join(about), shown(prompt, SHORT), shown(completion, SHORT)])
    return lines


def _json(value: object) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return re.sub("[<>&\u2028\u2029]", lambda match: f"\\u{ord(match[0]):04x}", text)


def _clusters(findings: Findings, svgs: Mapping[str, str]) -> str:
    sizes, count = findings.sizes, int(findings.sparse.sum())
    order = np.lexsort((np.arange(len(sizes)), -sizes))[:LISTED]
    listed = "".join(_cluster(findings, int(cluster)) for cluster in order)
    held = sizes[findings.sparse].sum() / sizes.sum()
    top = sizes[order[0]] / sizes.sum()
    caption = f"""The largest of {len(sizes):,} clusters holds {top:.0%} of the rows; the {count:,} sparse ones together
{held:.0%}."""
    return f"""<section aria-labelledby="clusters"><h2 id="clusters">Clusters</h2>
<p>Spherical k-means with k = {len(sizes):,}{_why_k(findings)}. The sparse clusters, the smaller half, are where a synthesis would
add rows; the large ones are where a selection would take fewer.</p>
<div class="figures">{_figure(svgs["clusters"], caption)}</div>
<h3>The largest clusters</h3><ol class="rows">{listed}</ol>{_more(len(sizes), "clusters")}</section>"""


def _why_k(findings: Findings) -> str:
    of = f" of the {len(findings.rows):,} rows examined" if len(findings.rows) < findings.score.n else " of the rows"
    if len(findings.sizes) == max(1, len(findings.rows) // 10):
        return f", a tenth{of}"
    return f": a tenth{of} would be more than they have different directions"


def _cluster(findings: Findings, cluster: int) -> str:
    members = np.flatnonzero(findings.clusters == cluster)
    members = members[np.lexsort((members, -findings.closeness[members]))]
    share, close = len(members) / len(findings.rows), float(findings.closeness[members].mean())
    kind = ", sparse" * bool(findings.sparse[cluster])
    title = f"{_rows(len(members))} ({share:.1%}{kind}), mean cosine {close:.2f} with the centre: "
    title += f"<bdi>{_line(findings, int(findings.rows[members[0]]))}</bdi>"
    places = np.unique(np.linspace(0, len(members) - 1, EXAMPLES).round().astype(int))
    told = [f"cosine {findings.closeness[members[place]]:.2f} with the centre" for place in places]
    rows = (_row(findings, int(findings.rows[members[place]]), line) for place, line in zip(places, told, strict=True))
    return _details(title, f'<div class="columns">{"".join(rows)}</div>', share, is_sparse=bool(kind))


def _spectrum(findings: Findings, svgs: Mapping[str, str]) -> str:
    curve, score = findings.curve, findings.score
    half = int(np.searchsorted(np.cumsum(findings.spectrum), 0.5)) + 1
    rise = ""
    if len(curve.sizes) > 1:
        last, before = curve.means[-1], curve.means[-2]
        rise = f" From {curve.sizes[-2]:,} to {curve.sizes[-1]:,} rows it rises by {last / before - 1:.0%}."
    drawn = ""
    if len(findings.rows) < score.n:
        drawn = f'<p class="soft">The curve is drawn from {_rows(len(findings.rows))}, but for its last point.</p>'
    spectrum = f"""How much of the gradients lies along each direction. Half of it lies along {half:,}
direction{"s" * (half > 1)}; a row of equally strong ones would be a flat line."""
    rarefied = f"""The expected score of fewer of these rows, with two standard errors.{rise} A curve that goes flat says
that more rows of the same kind would add little."""
    return f"""<section aria-labelledby="spread"><h2 id="spread">How the score comes about</h2>
<div class="figures">{_figure(svgs["spectrum"], spectrum)}{_figure(svgs["rarefaction"], rarefied)}</div>
{drawn}</section>"""


def _contributions(findings: Findings, svgs: Mapping[str, str]) -> str:
    order = np.lexsort((np.arange(len(findings.rows)), findings.contributions))
    listed = [
        "".join(
            _row(findings, int(findings.rows[place]), f"contribution {findings.contributions[place]:.2f}{told}")
            for place, told in _one_a_group(findings, each)
        )
        for each in (order[::-1], order)
    ]
    mean = float(findings.contributions.mean())
    return f"""<section aria-labelledby="rows"><h2 id="rows">Rows that contribute most and least</h2>
<p>The contribution of a row is what it adds to the entropy of the gradients: large for a row in directions that few others
share. The mean is {mean:.2f}, the logarithm of the score of these rows. The rows at the top are the rare ones: look whether they
are rare because they are valuable or because they are broken. Of near-duplicates one is shown.</p>
<h3>Most</h3><div class="columns">{listed[0]}</div><h3>Least</h3><div class="columns">{listed[1]}</div></section>"""


def _one_a_group(findings: Findings, order: Iterable[int]) -> list[tuple[int, str]]:
    """The first places in this order, one of each group of near-duplicates, and what to say of the others."""
    group_of = {int(row): number for number, group in enumerate(findings.groups) for row in group}
    found: list[tuple[int, str]] = []
    seen = set()
    for place in order:
        group = group_of.get(int(findings.rows[place]))
        if group in seen:
            continue
        if group is not None:
            seen.add(group)
        others = 0 if group is None else len(findings.groups[group]) - 1
        found.append((int(place), f", and {_rows(others)} like it" if others else ""))
        if len(found) == LISTED:
            break
    return found


def _measures(findings: Findings, svgs: Mapping[str, str]) -> str:
    score = findings.score
    lines = [("G-Vendi", f"{score.g_vendi:,.1f}", "higher is more diverse", "Jung et al. 2025, arXiv 2505.20161")]
    for measure, value in findings.measures:
        told = escape(value) if isinstance(value, str) else f"{value:,.4g}"
        lines.append((measure.name, told, measure.reads_as, measure.source))
    body = "".join(
        f'<tr><th scope="row">{name}</th><td class="number">{value}</td><td>{reads_as}</td><td>{source}</td></tr>'
        for name, value, reads_as, source in lines
    )
    of = "" if len(findings.rows) == score.n else f" of the {_rows(len(findings.rows))} examined"
    return f"""<section aria-labelledby="measures"><h2 id="measures">Other measures beside it</h2>
<p>What people use otherwise{of}. Most depend on the number of rows or of words as G-Vendi does: compare at equal size.</p>
<table class="measures"><thead><tr><th scope="col">measure</th><th scope="col">value</th><th scope="col">how to read it</th>
<th scope="col">source</th></tr></thead><tbody>{body}</tbody></table></section>"""


def _footer(findings: Findings) -> str:
    score, count = findings.score, len(findings.rows)
    scope = "All rows are examined."
    if count < score.n:
        scope = f"""The score is that of all {score.n:,} rows. Clusters, contributions, the distances to the nearest row and the
other measures are those of {count:,} rows drawn by seed {findings.seed}."""
    return f"""<p>{scope} Seed {findings.seed}. Texts longer than {TEXT:,} characters are cut, and end in “…” and their length. Made by
hf_prism; method: Jung et al. 2025, arXiv 2505.20161.</p>"""


def _details(title: str, body: str, share: float, *, is_open: bool = False, is_sparse: bool = False) -> str:
    bar = f'<span class="bar{" sparse" * is_sparse}"><i style="width:{100 * share:.1f}%"></i></span>'
    return f"<li><details{' open' * is_open}><summary>{title}{bar}</summary>{body}</details></li>"


def _row(findings: Findings, row: int, about: str, like: int | None = None) -> str:
    """A row with its text; with the words marked that the row `like` does not have there."""
    name = f'<p class="about">{escape(about)} · <bdi>{escape(shown(findings.ids[row], TINY))}</bdi></p>'
    if findings.texts is None:
        return f'<div class="row">{name}</div>'
    texts, others = findings.texts[row], (None, None) if like is None else findings.texts[like]
    parts = "".join(
        f'<p class="text {kind}" dir="auto">{_text(text, other)}</p>'
        for kind, text, other in zip(("prompt", "completion"), texts, others, strict=True)
        if text
    )
    return f'<div class="row">{parts}{name}</div>'


def _text(text: str, other: str | None) -> str:
    """A text, escaped and cut, with its length where it is cut."""
    told = shown(text, TEXT)
    marked = escape(told) if other is None else _marked(told, shown(other, TEXT))
    return marked + (f' <span class="soft">({len(text):,} characters)</span>' if len(text) > TEXT else "")


def _marked(text: str, other: str) -> str:
    """The text, escaped, with the words marked that are not in the other one."""
    words, others = (re.findall(r"\w+|\s+|[^\w\s]", each) for each in (text, other))
    parts = []
    for kind, _, _, start, stop in difflib.SequenceMatcher(None, others, words, autojunk=False).get_opcodes():
        part = escape("".join(words[start:stop]))
        parts.append(f"<mark>{part}</mark>" if kind != "equal" and part.strip() else part)
    return "".join(parts)


def _line(findings: Findings, row: int) -> str:
    """A row in one line, escaped."""
    text = findings.ids[row] if findings.texts is None else " ".join(findings.texts[row])
    return escape(shown(" ".join(text[: 4 * TINY].split()), TINY))


def _figure(svg: str, caption: str) -> str:
    return f"<figure>{svg}<figcaption>{caption}</figcaption></figure>"


def _more(count: int, what: str) -> str:
    return f'<p class="soft">{LISTED} of {count:,} {what}.</p>' if count > LISTED else ""


def _rows(count: int) -> str:
    return f"{count:,} row{'s' * (count != 1)}"


def _groups(count: int) -> str:
    return f"{count:,} group{'s' * (count != 1)}"


def _pair(interval: Sequence[float]) -> str:
    return f"{interval[0]:,.1f} to {interval[1]:,.1f}"
