"""One page about a study, its numbers as JSON, and its pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from . import figures, study_figures
from .files import write_atomically, write_json
from .page import TINY, shown
from .study_findings import StudyFindings, study_findings
from .study_page import recoloured, study_page, verdict
from .study_runs import StudyRuns, study_runs


def write_study_report(
    runs_path: str | Path, output: str | Path, *, seed: int = 0, draws: int = 2000
) -> tuple[Path, StudyFindings]:
    """Write `report.html`, `findings.json`, and PNG pictures, each whole or not at all.

    The page needs none of the other files and no network, and runs no script.

    Args:
        runs_path: Parquet, a row a run; the columns are told of in `study_findings`.
        output: A folder, made if it is not there.
        seed: Of the bootstrap.
        draws: Of the bootstrap.

    Returns:
        The path of the page, and the findings.

    Raises:
        ValueError: No such file, one that is not Parquet, or runs that `study_findings` refuses.
    """
    table = _read(Path(runs_path))
    findings, runs = study_findings(table, seed=seed, draws=draws), study_runs(table)
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "findings.json", findings.as_dict())
    svgs = {}
    for name, (figure, told) in _figures(findings, runs).items():
        write_atomically(folder / f"{name}.png", figures.png(figure))
        svgs[name] = recoloured(figures.inline_svg(figure, name, told))
    path = folder / "report.html"
    write_atomically(path, study_page(findings, svgs).encode())
    return path, findings


def _read(path: Path) -> dict[str, list[Any]]:
    import pyarrow
    import pyarrow.parquet

    if not path.is_file():
        raise ValueError(f"There is no file {str(path)!r}. Has the study written its runs there?")
    try:
        return pyarrow.parquet.read_table(path).to_pydict()
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{str(path)!r} is not a Parquet file of runs: {error}") from error


def _figures(findings: StudyFindings, runs: StudyRuns) -> dict[str, tuple[Any, str]]:
    """The figures by the name of their file, and what they show in words."""
    rhos = ", ".join(f"{shown(each.name, TINY)} {each.ood.rho:.2f}" for each in findings.measures)
    pictures: dict[str, tuple[Any, str]] = {
        "measures": (
            study_figures.measures_figure(findings, runs),
            f"Accuracy out of distribution against each measure. Rank correlations: {rhos}.",
        ),
        "correlations": (study_figures.correlations_figure(findings), verdict(findings)),
        "benchmarks": (
            study_figures.benchmarks_figure(findings, runs),
            f"Accuracy on {len(findings.benchmarks)} benchmarks against {shown(findings.factors[0].name, TINY)}.",
        ),
    }
    if (figure := study_figures.effects_figure(findings)) is not None:
        pictures["effects"] = (
            figure,
            "Effects of the factors on both accuracies and on each measure, as in the table.",
        )
    return pictures
