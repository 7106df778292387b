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
from collections import Counter
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
TEXT, SHORT, TINY, WORDS = (
    600,
    200,
    110,
    20,
)  # characters of a text in a list, beside the map, in a line, and on the map
SIDE, MARGIN, RADIUS = 640, 14, 4.5  # of the map, in its own units
LABEL = np.array(
    [250, 36]
)  # on the map, with what keeps it off the points; on a telephone it is larger, without the text
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
        title=escape(f"How diverse is “{shown(findings.name, TINY)}”?"),
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
    interval = f"<small>95% interval {_pair(score.interval)}</small>" if score.interval else ""
    debiased = "not offered here" if score.g_vendi_debiased is None else f"{score.g_vendi_debiased:,.1f}"
    facts = {
        "rows, n": f"{score.n:,}",
        "numbers in a gradient, d": f"{score.dim:,}",
        "saturation": f"{score.saturation:.0%} of min(n, d)",
        "without the sketch’s bias": debiased,
        "proxy": "a local model" if findings.proxy == "local" else shown(findings.proxy, TINY) or "not said",
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
    """The redundancy in words, and where it is: a line for each kind of group, the most rows first."""
    told, colon, why = findings.redundancy.partition(": ")
    rows_of = {kind: sum(map(len, _of_kind(findings, kind).values())) for kind in KINDS}
    lines = [_kind(findings, kind) for kind in sorted(KINDS, key=lambda kind: -rows_of[kind]) if rows_of[kind]]
    in_them = sum(len(group) - 1 for group in _of_kind(findings, "same text").values())
    if findings.num_copies and findings.num_copies != in_them:
        lines.append(f"In all, {_rows(findings.num_copies)} repeat the text of another row to the letter.")
    listed = "".join(f"<li>{line}</li>" for line in lines)
    return f"""<div class="found"><p class="lead"><strong>{told}</strong>{colon}{why}.</p>
{f"<ul>{listed}</ul>" if listed else ""}</div>"""


KINDS = {
    "family": "Families, such as one text with other numbers",
    "near-duplicates": "Near-duplicates",
    "same text": "The same text to the letter",
}


def _kind(findings: Findings, kind: str) -> str:
    """The groups of a kind in a line: how many rows each, and what the largest says."""
    groups = _of_kind(findings, kind)
    told = " + ".join(_link(number, f"{len(group):,}") for number, group in list(groups.items())[:NAMED])
    rest = list(groups.values())[NAMED:]
    more = f", and {sum(map(len, rest)):,} in {_groups(len(rest), 'more ')}" if rest else ""
    largest = next(iter(groups.values()))
    return f"{KINDS[kind]}: {told} rows{more}. <q>{_line(findings, int(largest[0]), TINY // 2)}</q>"


def _of_kind(findings: Findings, kind: str) -> dict[int, np.ndarray]:
    """The groups of this kind by their number."""
    return {number: findings.groups[number] for number, each in enumerate(findings.kinds) if each == kind}


def _link(number: int, told: str) -> str:
    """What leads to a group, where it is listed."""
    return f'<a href="#group-{number + 1}">{told}</a>' if number < LISTED else told


def _repeats(findings: Findings, svgs: Mapping[str, str]) -> str:
    threshold, of = findings.threshold, findings.num_compared
    inside = sum(len(group) for group in findings.groups)
    sample = ""
    if of < findings.score.n:
        sample = f""" They were looked for among {of:,} of the {findings.score.n:,} rows, drawn by seed {findings.seed}: a row
whose only copies were not drawn is missed, so the share of all rows is higher."""
    listed = "".join(_group(findings, number) for number in range(min(LISTED, len(findings.groups))))
    more = _more(len(findings.groups), "groups")
    figure = _figure(svgs["nearest"], _nearest_caption(findings)) if "nearest" in svgs else ""
    advice = ""
    if findings.groups:
        advice = f"""<p>{_groups(len(findings.groups))} hold {_rows(inside)}: {findings.num_redundant:,} beside one of each. Read
them before any goes. A family may be one text with other numbers, or rows of one kind that answer differently; and this page does
not check whether a text is right, so keep the best row of a group, not any. <code>hf-prism select DATA -k N</code> keeps N rows
that differ.</p>"""
    return f"""<section aria-labelledby="repeats"><h2 id="repeats">Rows that are much alike</h2>
<p>Rows are alike if they push the proxy in much the same direction: near-duplicates, whose gradients have a cosine of at least
{threshold:g}, and families, whose rows are much nearer to each other than to any others.{sample}</p>
{advice}
<ol class="rows">{listed}</ol>{more}
<div class="figures">{figure}</div></section>"""


def _group(findings: Findings, number: int) -> str:
    """A group: its first row, and others with the words marked in which they differ."""
    group = findings.groups[number]
    share, first = len(group) / findings.num_compared, int(group[0])
    title = f"{_rows(len(group))} ({share:.1%}), {_tag(findings, number)}: <bdi>{_line(findings, first)}</bdi>"
    if findings.kinds[number] == "same text":
        body = f'<div class="columns">{_row(findings, first, f"{len(group):,} times")}</div>'
    else:
        others = np.unique(np.linspace(1, len(group) - 1, EXAMPLES - 1).round().astype(int))
        rest = "".join(_row(findings, int(group[place]), "one like it", like=first) for place in others)
        body = f'<div class="columns">{_row(findings, first, "the middle of the group")}{rest}</div>'
        if findings.texts is not None:
            body = f'<p class="soft">Words that differ from the first text are marked.</p>{body}'
    return _details(title, body, share, is_open=number == 0, name=f"group-{number + 1}")


def _tag(findings: Findings, number: int) -> str:
    """What makes the group one."""
    if findings.kinds[number] == "same text":
        return "the same text"
    group = findings.groups[number]
    count = len(group) if findings.texts is None else len({findings.texts[row] for row in group})
    texts = f", {count:,} different texts" if count < len(group) else ""
    if number not in findings.cosines:
        return f"near-duplicates, cosine at least {findings.threshold:g}{texts}"
    within, nearest = findings.cosines[number]
    other = "" if np.isnan(nearest) else f" (nearest other row {nearest:.2f})"
    return f"family, mean cosine {within:.2f}{other}{texts}"


def _nearest_caption(findings: Findings) -> str:
    steps = ", ".join(f"{np.mean(findings.nearest >= step):.0%} at {step:g}" for step in (0.8, 0.9, 0.95, 0.98, 0.999))
    counts = {kind: int(mask.sum()) for kind, mask in findings.memberships.items()}
    told = f"{sum(counts.values()):,} are in a group"
    if counts:
        told += f" ({', '.join(f'{kind}: {count:,}' for kind, count in counts.items())})"
        if len(findings.nearest) == findings.score.n:
            told += f", {findings.num_redundant:,} beside one of each of the {_groups(len(findings.groups))}"
        told += f""". The rows of a family may be below the dashed line, {findings.threshold:g}: what counts is that all others are
much farther away"""
    return f"""Of the {_rows(len(findings.nearest))}{" examined" * (len(findings.nearest) < findings.score.n)}, {told}. Share of
the rows that have another one this near: {steps}."""


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
<p class="soft scripted" id="help" hidden>Point at a row or tap it to read it. Keys: Tab to the map, arrows to the next row, Escape to
leave it. Find text looks at the
first {SHORT:,} characters of prompt and completion.</p></div></div></section>"""


def _plane(findings: Findings) -> str:
    places, height = _places(findings.points)
    circles = "".join(
        f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{RADIUS}"/>'
        for kind, (x, y) in zip(_classes(findings), places, strict=True)
    )
    told = f"Map of {len(places):,} rows in gradient space; a row’s text is shown beside it"
    return f"""<svg id="plane" viewBox="0 0 {SIDE} {height:.0f}" role="img" aria-label="{escape(told)}"
data-color="copies" data-example="{_example(findings)}">{circles}{_labels(findings, places, height)}</svg>"""


def _example(findings: Findings) -> int:
    """The point whose row is shown first: of the largest group, the one in the middle, or else the first drawn."""
    drawn = findings.rows[: len(findings.points)].tolist()
    wanted = findings.groups[0].tolist() if findings.groups else []
    return next((drawn.index(row) for row in wanted if row in set(drawn)), 0)


def _places(points: np.ndarray) -> tuple[np.ndarray, float]:
    """Points in the units of the map, both axes on one scale, and the height of the map."""
    low, span = points.min(axis=0), np.ptp(points, axis=0)
    scale = (SIDE - 2 * MARGIN) / max(span[0], span[1], SAME)
    height = max(span[1] * scale + 2 * MARGIN, SIDE / 2)
    middle = np.array([SIDE, height]) / 2
    places = middle + (points - low - span / 2) * scale * [1, -1]
    return places, height


def _labels(findings: Findings, places: np.ndarray, height: float) -> str:
    """The names of the largest groups: at one place many rows look like one. A line leads from each to its rows."""
    crowds = _crowds(findings, places)
    parts = []
    for (target, group), (x, y) in zip(crowds, _clear_of(places, height, [at for at, _ in crowds]), strict=True):
        side = int(target[0] > x + LABEL[0] / 2) - int(
            target[0] < x - LABEL[0] / 2
        )  # left of it, above or below, right
        x += side * LABEL[0] / 2
        start = (x, y) if side else (np.clip(target[0], x - 40, x + 40), y + np.sign(target[1] - y) * LABEL[1] / 3)
        parts.append(
            f'<line x1="{start[0]:.0f}" y1="{start[1]:.0f}" x2="{target[0]:.0f}" y2="{target[1]:.0f}"/>'
            f'<text x="{x - 4 * side:.0f}" y="{y:.0f}" text-anchor="{("middle", "end", "start")[side]}" '
            f'dominant-baseline="central">{_rows(len(group))}<tspan>: {_line(findings, int(group[0]), WORDS)}</tspan></text>'
        )
    return "".join(parts)


def _crowds(findings: Findings, places: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Where the largest groups lie on the map, and their rows."""
    place_of = {int(row): place for row, place in zip(findings.rows, places, strict=False)}
    found = []
    for group in findings.groups[:NAMED]:
        drawn = [place_of[row] for row in group.tolist() if row in place_of]
        if len(drawn) > len(places) / 40:
            found.append((np.median(drawn, axis=0), group))
    return found


def _clear_of(places: np.ndarray, height: float, targets: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Middles of labels that cover no point, or few, and not each other, each as near as may be to its target."""
    axes = [np.arange(size / 2, limit - size / 2 + 1, 8) for size, limit in zip(LABEL, (SIDE, height), strict=True)]
    inside = [abs(axis[:, None] - place) < size / 2 for axis, place, size in zip(axes, places.T, LABEL, strict=True)]
    covered = inside[0].astype(np.float32) @ inside[1].T.astype(np.float32)
    middles = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    chosen: list[np.ndarray] = []
    for target in targets:
        cost = np.linalg.norm((abs(middles - target) - LABEL / 2).clip(0), axis=-1) + 1e4 * covered
        for other in chosen:
            cost += 1e8 * (abs(middles - other) < LABEL).all(axis=-1)
        chosen.append(middles[np.unravel_index(cost.argmin(), cost.shape)])
    return chosen


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
        "copies": [("n", "much like another row"), ("s", hollow), ("", "other rows")],
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
            about.append(f"one of {groups[row]:,} rows that are much alike")
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
<p>Spherical k-means with k = {len(sizes):,}{_why_k(findings)}. The sparse clusters, the smaller half, are the kinds of row that the
data has little of: more of them would add most variety. The large ones are where rows could be left out first.</p>
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
    title = f"{_rows(len(members))} ({share:.1%}{kind}){_mostly(findings, findings.rows[members])}, mean cosine {close:.2f} "
    title += f"with the centre: <bdi>{_line(findings, int(findings.rows[members[0]]))}</bdi>"
    places = np.unique(np.linspace(0, len(members) - 1, EXAMPLES).round().astype(int))
    told = [f"cosine {findings.closeness[members[place]]:.2f} with the centre" for place in places]
    rows = (_row(findings, int(findings.rows[members[place]]), line) for place, line in zip(places, told, strict=True))
    return _details(title, f'<div class="columns">{"".join(rows)}</div>', share, is_sparse=bool(kind))


def _mostly(findings: Findings, rows: np.ndarray) -> str:
    """Which group more than half of the rows belong to."""
    group_of = _group_of(findings)
    number, count = Counter(group_of.get(row) for row in rows.tolist()).most_common(1)[0]
    if number is None or 2 * count <= len(rows):
        return ""
    return f", mostly the group of {_link(number, _rows(len(findings.groups[number])))} above"


def _group_of(findings: Findings) -> dict[int, int]:
    """The number of the group of each row that is in one."""
    return {int(row): number for number, group in enumerate(findings.groups) for row in group}


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
    return f"""<section class="brief" aria-labelledby="rows"><h2 id="rows">Rows that contribute most and least</h2>
<p>The contribution of a row is what it adds to the entropy of the gradients: large for a row in directions that few others
share. The mean is {mean:.2f}, the logarithm of the score of these rows. The rows at the top are the rare ones: look whether they
are rare because they are valuable or because they are broken. Of each group of alike rows one is shown.</p>
<h3>Most</h3><div class="columns">{listed[0]}</div><h3>Least</h3><div class="columns">{listed[1]}</div></section>"""


def _one_a_group(findings: Findings, order: Iterable[int]) -> list[tuple[int, str]]:
    """The first places in this order, one of each group, and what to say of the others."""
    group_of = _group_of(findings)
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


def _details(
    title: str, body: str, share: float, *, is_open: bool = False, is_sparse: bool = False, name: str = ""
) -> str:
    named = f' id="{name}"' if name else ""
    bar = f'<span class="bar{" sparse" * is_sparse}"><i style="width:{100 * share:.1f}%"></i></span>'
    return f"<li{named}><details{' open' * is_open}><summary>{title}{bar}</summary>{body}</details></li>"


def _row(findings: Findings, row: int, about: str, like: int | None = None) -> str:
    """A row with its text; with the words marked that the row `like` does not have there."""
    name = f'<p class="about">{escape(about)} · {_id(findings.ids[row])}</p>'
    if findings.texts is None:
        return f'<div class="row">{name}</div>'
    texts, others = findings.texts[row], (None, None) if like is None else findings.texts[like]
    parts = "".join(
        f'<p class="text {kind}" dir="auto">{_text(text, other)}</p>'
        for kind, text, other in zip(("prompt", "completion"), texts, others, strict=True)
        if text
    )
    return f'<div class="row">{parts}{name}</div>'


def _id(name: str) -> str:
    """An id, escaped; of a long hash the beginning, and all of it where one points."""
    if hashed := re.fullmatch(r"([0-9a-f]{16,128})((?:-[0-9]{1,9})?)", name):
        return f'<bdi title="{name}">{hashed[1][:8]}…{hashed[2]}</bdi>'
    return f"<bdi>{escape(shown(name, TINY))}</bdi>"


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


def _line(findings: Findings, row: int, limit: int = TINY) -> str:
    """A row in one line, escaped."""
    text = findings.ids[row] if findings.texts is None else " ".join(findings.texts[row])
    return escape(shown(" ".join(text[: 4 * TINY].split()), limit))


def _figure(svg: str, caption: str) -> str:
    return f"<figure>{svg}<figcaption>{caption}</figcaption></figure>"


def _more(count: int, what: str) -> str:
    return f'<p class="soft">{LISTED} of {count:,} {what}.</p>' if count > LISTED else ""


def _rows(count: int) -> str:
    return f"{count:,} row{'s' * (count != 1)}"


def _groups(count: int, kind: str = "") -> str:
    return f"{count:,} {kind}group{'s' * (count != 1)}"


def _pair(interval: Sequence[float]) -> str:
    return f"{interval[0]:,.1f} to {interval[1]:,.1f}"
