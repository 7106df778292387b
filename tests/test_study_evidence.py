"""The file of all runs keeps every study apart, and the tables of docs/evidence.md say what SciPy computes from it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from scipy.stats import spearmanr
from test_study_report import made


@pytest.fixture(scope="module")
def evidence(study_script):
    return study_script("evidence")


def written(path: Path, **columns: list) -> Path:
    parquet.write_table(pa.table(made(**columns)), path)
    return path


def test_a_study_that_is_added_again_takes_the_place_of_its_runs_and_of_no_others(evidence, tmp_path):
    first = written(tmp_path / "first.parquet")
    other = written(tmp_path / "other.parquet", study=["nli"] * 24, **{"accuracy.hans": [0.5] * 24})
    again = written(tmp_path / "again.parquet", n=[2000] * 24)
    all_runs = tmp_path / "all.parquet"
    parquet.write_table(evidence.merged(all_runs, [first, other]), all_runs)
    table = evidence.merged(all_runs, [again])
    assert len(table) == 48
    found = {name: rows.to_pydict() for name, rows in evidence.studies(table)}
    assert found == {
        name: parquet.read_table(path).to_pydict() for name, path in {"math": again, "nli": other}.items()
    }


def test_the_table_says_what_scipy_computes(evidence, tmp_path, monkeypatch, capsys):
    runs = written(tmp_path / "runs.parquet")
    monkeypatch.setattr(sys, "argv", ["evidence.py", "--runs", str(runs), "--figures", str(tmp_path)])
    evidence.main()
    printed = capsys.readouterr().out
    columns = made()
    said = dict(re.findall(r"^\| (.+?) \| ([−\d.]+) \(", printed, re.MULTILINE))
    rho = {
        key: spearmanr(columns[f"measure.{key}"], columns["ood"]).statistic for key in ("g_vendi", "compression_ratio")
    }
    assert said["**G-Vendi**"] == f"{rho['g_vendi']:.2f}"
    assert said["compression ratio, reversed"] == f"{-rho['compression_ratio']:.2f}".replace("-", "−")
    assert "24 of math" in printed and (tmp_path / "evidence_math_measures.png").exists()
