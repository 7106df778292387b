# /// script
# requires-python = ">=3.11"
# dependencies = ["hf-prism"]
# ///
"""The tables and pictures of docs/evidence.md, all of them from the runs in docs/evidence/runs.parquet.

Run as:

    python examples/study/evidence.py --figures docs/images

    python examples/study/evidence.py --add runs/study_math/runs.parquet --add runs/replication/math/runs.parquet

`--add` puts the runs of a finished study into the file first, in place of those of the same study that it holds.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as compute
import pyarrow.parquet as parquet

from hf_prism.correlation import Correlation, Difference
from hf_prism.effects import Effect
from hf_prism.study_findings import MeasureFindings, StudyFindings
from hf_prism.study_page import interval, two_decimals, verdict
from hf_prism.study_report import write_study_report


RUNS = Path(__file__).parents[2] / "docs" / "evidence" / "runs.parquet"


def merged(known: Path, new: list[Path]) -> pa.Table:
    """All runs; of a study that is in several files, those of the last."""
    tables: dict[str, pa.Table] = {}
    for path in [*([known] if known.exists() else []), *new]:
        tables |= dict(studies(parquet.read_table(path)))
    return pa.concat_tables(list(tables.values()), promote_options="default")


def studies(table: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """By name, without the columns that a study has not got."""
    for name in compute.unique(table["study"]).to_pylist():
        rows = table.filter(compute.equal(table["study"], name))
        yield name, rows.select([column for column in rows.column_names if rows[column].null_count < len(rows)])


def cell(found: Correlation | Difference | Effect | None) -> str:
    if found is None:
        return "–"
    values = {Correlation: "rho", Difference: "difference", Effect: "value"}
    return f"{two_decimals(getattr(found, values[type(found)]))} ({interval(found)})"


def exactly(found: Correlation | None) -> str:
    if found is None:
        return "–"
    low, high = found.interval
    return f"{found.rho:.3f} ({low:.3f} to {high:.3f})"


def line(measure: MeasureFindings, factors: list[str]) -> str:
    name = f"{measure.name}, reversed" if measure.turned else measure.name
    cells = [measure.ood, measure.partial, measure.g_vendi_leads_by, *(measure.effects.get(each) for each in factors)]
    marks = {"ours": "**", "ceiling": "*", "baseline": ""}[measure.role]
    return f"| {marks}{name}{marks} | {' | '.join(map(cell, cells))} |"


def told(findings: StudyFindings) -> str:
    """One study in Markdown."""
    factors = [factor.name for factor in findings.factors[:2] if factor.varied]
    ood, within = findings.ood, findings.in_distribution
    heads = [
        "measure",
        "ρ with OOD accuracy",
        "partial ρ",
        "G-Vendi minus it",
        *(f"effect of {each}" for each in factors),
    ]
    lines = [
        f"### {findings.study}: {findings.runs} runs, {findings.compositions} compositions",
        "",
        f"Accuracy out of distribution: {100 * ood.least:.1f} to {100 * ood.most:.1f} %, median {100 * ood.median:.1f} %; "
        f"in distribution {100 * within.least:.1f} to {100 * within.most:.1f} %, median {100 * within.median:.1f} %.",
        "",
        verdict(findings),
        "",
        f"| {' | '.join(heads)} |",
        f"|{'---|' * len(heads)}",
        *(line(measure, factors) for measure in findings.measures),
    ]
    ours = findings.g_vendi
    lines += ["", f"G-Vendi: ρ {exactly(ours.ood)}, partial {exactly(ours.partial)}"]
    lines += [f"- on {name}: {exactly(found)}" for name, found in ours.benchmarks.items()]
    lines += [f"- effect of {name} on OOD accuracy: {cell(found)}" for name, found in findings.effects["ood"].items()]
    ratio = ours.ratio
    if ratio:
        low, high = ratio.interval
        lines += [
            "",
            f"Effect of {factors[0]} over that of {factors[1]} on G-Vendi: {ratio.value:.1f} ({low:.1f} to {high:.1f}).",
        ]
    lines += [f"- {note}" for note in findings.notes]
    lines += [f"- left out: {name}: {reason}" for name, reason in findings.left_out.items()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=RUNS, help="Parquet file of all studies")
    parser.add_argument("--add", type=Path, action="append", default=[], help="runs.parquet of a finished study")
    parser.add_argument("--figures", type=Path, help="folder for the pictures of the studies, replications aside")
    args = parser.parse_args()
    table = merged(args.runs, args.add)
    if args.add:
        parquet.write_table(table, args.runs, compression="zstd")
    print(f"{len(table):,} runs: " + ", ".join(f"{len(rows)} of {name}" for name, rows in studies(table)))
    for name, rows in studies(table):
        with tempfile.TemporaryDirectory() as folder:
            runs = Path(folder) / "runs.parquet"
            parquet.write_table(rows, runs)
            _, findings = write_study_report(runs, folder)
            print(f"\n{told(findings)}")
            for picture in Path(folder).glob("*.png") if args.figures and not name.endswith("-replication") else ():
                shutil.copy(picture, args.figures / f"evidence_{name.replace('-', '_')}_{picture.name}")


if __name__ == "__main__":
    main()
