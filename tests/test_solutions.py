"""A response counts as solved only if every line of it is that of the reference, and solutions are checked beforehand."""

from __future__ import annotations

import json
import re

import pandas as pd
import pytest

from hf_prism.benchmarks import find
from hf_prism.solutions import reference_solutions, whole_accuracy


SOLUTION = "Ann is kind.\nAnn is not tall.\nThe answer is \\boxed{entailment}."


def written(path, rows):
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return find(str(path))


def test_only_a_response_with_every_step_right_is_solved(tmp_path):
    responses = {
        "same": SOLUTION,
        "spaces": f"\n{SOLUTION} \n",
        "another step": SOLUTION.replace("not tall", "tall"),
        "a step left out": SOLUTION.replace("Ann is kind.\n", ""),
        "a step more": f"{SOLUTION}\nAnn is kind.",
        "two steps in one line": SOLUTION.replace("\n", " "),
        "nothing": None,
    }
    path = tmp_path / "verdicts.parquet"
    pd.DataFrame({"id": list(responses), "response": list(responses.values())}).to_parquet(path)
    found = whole_accuracy(path, dict.fromkeys(responses, SOLUTION))
    assert found.accuracy == pytest.approx(2 / 7) and found.standard_error == pytest.approx((2 / 7 * 5 / 7 / 6) ** 0.5)


def test_solutions_go_by_the_id_of_the_item_or_by_its_place(tmp_path):
    rows = [{"problem": "1?", "answer": "1", "why": "a"}, {"problem": "2?", "answer": "2", "why": "b"}]
    assert reference_solutions(written(tmp_path / "plain.jsonl", rows), "why") == {"0": "a", "1": "b"}
    named = [{"id": 7 - place, **row} for place, row in enumerate(rows)]
    assert reference_solutions(written(tmp_path / "named.jsonl", named), "why") == {"7": "a", "6": "b"}


def test_a_benchmark_without_solutions_is_named(tmp_path):
    row = {"id": "first", "problem": "1?", "answer": "1", "why": " "}
    with pytest.raises(ValueError, match=re.escape("no column 'solution' with the solution")):
        reference_solutions(written(tmp_path / "a.jsonl", [row]), "solution")
    with pytest.raises(ValueError, match=r"\(id 'first'\): why is ' ', not a solution"):
        reference_solutions(written(tmp_path / "b.jsonl", [row]), "why")
    with pytest.raises(ValueError, match="openai/gsm8k:main is no file"):
        reference_solutions(find("gsm8k"), "why")
