"""The page of a study: the question, what was found, the pictures, and what was not found.

It is made as the report's page is, of the same parts, and runs no script at all. Names of measures, factors and
benchmarks are not trusted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from string import Template

from .baselines import NEITHER
from .correlation import Correlation, Difference
from .effects import Effect
from .page import TINY, shown
from .study_figures import RAMP
from .study_findings import FEW, MeasureFindings, Spread, StudyFindings


MANY = 100
"""Above this, a ratio says no more than that there is nothing to divide by."""

DARK = ("#7B6CF0", "#A66BE8", "#D065D8", "#F0759E", "#FF9F7A", "#FFD071")  # the ramp on a dark page
STYLE = """
.scroll { overflow-x: auto; }
.scroll table { min-width: 760px; font-size: 14px; }
.scroll th, .scroll td { overflow-wrap: normal; }
td small, .score small { color: var(--soft); }
td small { display: block; font-size: 12px; white-space: nowrap; }
tr.ours th, tr.ours td { background: var(--panel); font-weight: 600; }
tr.ceiling th, tr.ceiling td { font-style: italic; font-weight: 400; }
figure.wide { overflow-x: auto; }
figure.wide svg { max-width: 980px; min-width: 620px; }
@media print {
  figure.wide svg { max-width: 15cm; min-width: 0; max-height: 22cm; }
  .scroll table { min-width: 0; font-size: 7.5pt; }
}
"""

CAPTIONS = {
    "measures": "A point is a run. Right is more diverse. Runs of one colour have the same {first}.",
    "correlations": "Filled: with the accuracy out of distribution, by which the measures stand in order. Open: in "
    "distribution.",
    "effects": "By how many standard deviations an accuracy or a measure rises with one of the factor, the others "
    "held. A measure to choose data by has the bars of the accuracy out of distribution.",
    "benchmarks": "Each benchmark has an axis of its own. Small points are runs, large ones the means of a level.",
}


def study_page(findings: StudyFindings, svgs: Mapping[str, str]) -> str:
    """The HTML of a study.

    Args:
        findings: What `study_findings` found.
        svgs: Figures by name, as `figures.inline_svg` returns them: measures, correlations, benchmarks, and effects
            where there are any.
    """
    style, template = ((files("hf_prism.page") / f"page.{kind}").read_text("utf-8") for kind in ("css", "html"))
    study = shown(findings.study, TINY)
    sections = [
        _table(findings),
        _pictures(findings, svgs),
        _benchmarks(findings),
        _design(findings),
        _left_out(findings),
    ]
    return Template(template).substitute(
        title=escape(
            f"What do measures of diversity tell? Study “{study}”" if study else "What do measures of diversity tell?"
        ),
        style=style + _ramp() + STYLE,
        headline=_headline(findings),
        sections="\n".join(sections),
        footer=f"<p>{findings.draws:,} draws, seed {findings.seed}. Made by hf_prism; method: Jung et al. 2025, arXiv "
        "2505.20161.</p>",
        points="null",
        script="",
        script_hash="none",
    )


def recoloured(svg: str) -> str:
    """A picture whose levels take the colours of the page around it."""
    for number, color in enumerate(RAMP):
        svg = re.sub(color, f"var(--r{number})", svg, flags=re.IGNORECASE)
    return svg


def verdict(findings: StudyFindings) -> str:
    """How G-Vendi stands beside the other measures, as plain text.

    The others are counted by the interval of the difference; the closest is named.
    """
    leads = [each.g_vendi_leads_by for each in findings.baselines if each.g_vendi_leads_by]
    if not leads:
        return "No other measure was computed."
    ahead, behind = sum(each.interval[0] > 0 for each in leads), sum(each.interval[1] < 0 for each in leads)
    counts = {"orders the runs better than": ahead, "orders them worse than": behind}
    counts["cannot be told apart from"] = len(leads) - ahead - behind
    told = " and ".join(f"{relation} {count}" for relation, count in counts.items() if count)
    closest, gap = findings.baselines[0], leads[0]
    relation = "below" if gap.difference >= 0 else "above"
    size = "whose size is " if closest.ood.rho < 0 and closest.reads_as == NEITHER else ""
    return (
        f"Of {len(leads)} other measure{'s' * (len(leads) > 1)}, G-Vendi {told}. "
        f"The closest, {shown(closest.name, TINY)}, has {two_decimals(closest.ood.rho)}, {size}"
        f"{two_decimals(abs(gap.difference))} {relation} G-Vendi’s "
        f"(95% interval of the difference {interval(gap)})."
    )


def _headline(findings: StudyFindings) -> str:
    ood = findings.g_vendi.ood
    within = findings.g_vendi.in_distribution
    told = f"In distribution it is {two_decimals(within.rho)} ({interval(within)}). " if within else ""
    facts = {
        "runs": f"{findings.runs:,}",
        "compositions": f"{findings.compositions:,}",
        "rows in a dataset": _span(findings.rows),
        "base": findings.base or "not said",
        "feature_id": findings.feature_id or "not said",
    }
    terms = "".join(
        f"<div><dt>{name}</dt><dd>{escape(shown(value, TINY))}</dd></div>" for name, value in facts.items()
    )
    return f"""<p class="lead">Does a number computed from a dataset before any training tell how accurate a student of
it will be on problems unlike those in it?</p>
<p class="score">G-Vendi ρ = {two_decimals(ood.rho)} <small>95% interval {interval(ood)}</small></p>
<p class="lead">This is the rank correlation of G-Vendi with accuracy out of distribution over {findings.runs:,} runs.
{told}</p>
<div class="found"><p class="lead">{escape(verdict(findings))}</p></div>
<dl>{terms}</dl>"""


def _table(findings: StudyFindings) -> str:
    varied = [factor.name for factor in findings.factors if factor.varied]
    first_two = [factor.name for factor in findings.factors[:2] if factor.varied]
    heads = ["measure", "ρ out of distribution", "partial ρ", "ρ in distribution", "G-Vendi minus it"]
    heads += [f"effect of {shown(name, TINY)}" for name in varied]
    if len(first_two) == 2:
        heads.append(" / ".join(shown(name, TINY) for name in first_two))
    body = "".join(_line(each, varied, len(first_two) == 2) for each in findings.measures)
    given = sorted({name for each in findings.measures for name in each.given})
    partial = (
        f"given {' and '.join(given)}, without the measure itself" if given else "the same here: nothing else varied"
    )
    return f"""<section aria-labelledby="table"><h2 id="table">Every measure beside G-Vendi</h2>
<p>Spearman correlations, and below each its 95% interval. Partial: {escape(partial)}. Effects are those of the factors
on the measure.</p>
{_scrolled("measures of diversity", heads, body)}
<p class="soft">Measures that are lower for more diverse data are turned round first (“reversed”). What is no measure
of diversity keeps its sign, and “G-Vendi minus it” takes the size of its correlation, which favours it. The best of
many others looks better than it is, for it was picked from these same runs. Italic: what nobody has in reality, a
ceiling and no rival.</p></section>"""


def _line(measure: MeasureFindings, varied: Sequence[str], with_ratio: bool) -> str:
    cells = [
        _estimate(measure.ood),
        _estimate(measure.partial),
        _estimate(measure.in_distribution),
        _estimate(measure.g_vendi_leads_by),
        *(_estimate(measure.effects.get(name)) for name in varied),
    ]
    if with_ratio:
        cells.append(_ratio(measure.ratio))
    return f'<tr class="{measure.role}"><th scope="row">{_name(measure)}</th>{"".join(cells)}</tr>'


def _pictures(findings: StudyFindings, svgs: Mapping[str, str]) -> str:
    titles = {
        "measures": "Accuracy out of distribution against each measure",
        "correlations": "How well each measure orders the runs",
        "effects": "What the measures follow",
        "benchmarks": "Accuracy on each benchmark",
    }
    first = escape(shown(findings.factors[0].name, TINY))
    return "\n".join(
        f'<section aria-labelledby="{name}"><h2 id="{name}">{title}</h2>'
        f'<figure class="wide" tabindex="0">{svgs[name]}</figure>'
        f'<p class="soft">{CAPTIONS[name].format(first=first)}</p></section>'
        for name, title in titles.items()
        if name in svgs
    )


def _benchmarks(findings: StudyFindings) -> str:
    heads = ["measure", *(shown(name, TINY) for name in findings.benchmarks)]
    body = "".join(
        f'<tr class="{each.role}"><th scope="row">{_name(each)}</th>'
        + "".join(_estimate(each.benchmarks[name]) for name in findings.benchmarks)
        + "</tr>"
        for each in findings.measures
    )
    return f"""<details><summary>Correlations benchmark by benchmark</summary>
{_scrolled("correlations by benchmark", heads, body)}</details>"""


def _design(findings: StudyFindings) -> str:
    factors = "".join(
        f'<tr><th scope="row">{escape(shown(factor.name, TINY))}</th>'
        f"<td>{', '.join(f'{level:g} ({count:,})' for level, count in factor.levels.items())}</td>"
        f"<td>{_unit(factor.doubles) if factor.varied else 'not varied'}</td></tr>"
        for factor in findings.factors
    )
    rows = [("all", findings.ood, findings.in_distribution)]
    rows += [(f"{level:g}", ood, within) for level, ood, within in findings.by_level]
    body = "".join(
        f'<tr><th scope="row">{level}</th><td class="number">{ood.runs:,}</td>{_lies(ood)}{_lies(within)}</tr>'
        for level, ood, within in rows
    )
    first = shown(findings.factors[0].name, TINY)
    return f"""<section aria-labelledby="design"><h2 id="design">Design</h2>
<p>Runs with the same levels of all factors are one composition, and the {findings.compositions:,} compositions are
what every interval resamples. The accuracies are means over the benchmarks of each kind.</p>
{_scrolled("factors", ["factor", "levels (runs)", "unit of its effects"], factors)}
<h3>Accuracies, %: the median, the quartiles, and the range</h3>
{_scrolled("accuracies", [first, "runs", "out of distribution", "in distribution"], body)}</section>"""


def _left_out(findings: StudyFindings) -> str:
    lines = ["No run: all that are in the file are counted."]
    lines += [f"{shown(name, TINY)}: {shown(why, 300)}." for name, why in findings.left_out.items()]
    lines += [shown(note, 300) for note in findings.notes]
    listed = "".join(f"<li>{escape(line)}</li>" for line in lines)
    few = f" With fewer than {FEW} compositions no interval is to be trusted." if findings.compositions < FEW else ""
    return f"""<section aria-labelledby="out"><h2 id="out">What was left out</h2><ul>{listed}</ul>
<p class="soft">What not to conclude: these are datasets of this kind and size, students of this base, and gradients of
one proxy. A correlation over datasets that were made to differ is higher than over datasets that happen to.{few}</p>
</section>"""


def _scrolled(name: str, heads: Iterable[str], body: str) -> str:
    """A table that scrolls by itself where the page is narrow."""
    head = "".join(f'<th scope="col">{escape(told)}</th>' for told in heads)
    return f"""<div class="scroll" role="region" aria-label="{name}" tabindex="0"><table><thead><tr>{head}</tr></thead>
<tbody>{body}</tbody></table></div>"""


def _estimate(found: Correlation | Difference | Effect | None) -> str:
    if found is None:
        return '<td class="number">–</td>'
    value = (
        found.rho
        if isinstance(found, Correlation)
        else found.difference
        if isinstance(found, Difference)
        else found.value
    )
    return f'<td class="number">{two_decimals(value)}<small>{interval(found)}</small></td>'


def _ratio(found: Effect | None) -> str:
    if found is None:
        return '<td class="number">–</td>'
    value, low, high = (f"{each:.1f}" if each < MANY else f"over {MANY}" for each in (found.value, *found.interval))
    return f'<td class="number">{value}<small>{low if low == high else f"{low} to {high}"}</small></td>'


def _lies(spread: Spread) -> str:
    median, lower, upper, least, most = (
        f"{100 * value:.1f}"
        for value in (spread.median, spread.lower_quartile, spread.upper_quartile, spread.least, spread.most)
    )
    return f'<td class="number">{median}<small>{lower} to {upper}, in all {least} to {most}</small></td>'


def _name(measure: MeasureFindings) -> str:
    return escape(shown(measure.name, TINY)) + " (reversed)" * measure.turned


def two_decimals(value: float) -> str:
    """Two decimals, no minus before a zero.

    Example:
        >>> two_decimals(-0.001), two_decimals(-0.25)
        ('0.00', '−0.25')
    """
    return f"{round(value, 2) + 0.0:.2f}".replace("-", "−")


def interval(found: Correlation | Difference | Effect) -> str:
    return " to ".join(map(two_decimals, found.interval))


def _span(rows: Sequence[int]) -> str:
    return f"{rows[0]:,}" if len(rows) == 1 else f"{rows[0]:,} to {rows[-1]:,}"


def _unit(doubles: bool) -> str:
    return "a doubling" if doubles else "its value"


def _ramp() -> str:
    light, dark = ("".join(f"--r{i}: {color}; " for i, color in enumerate(colors)) for colors in (RAMP, DARK))
    return f":root {{ {light}}}\n@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark}}} }}\n"
