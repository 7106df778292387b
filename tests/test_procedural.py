"""Procedural problems: answers recomputed from the numbers alone, and three independent ingredients."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from fractions import Fraction

import pytest

from hf_prism.tasks.families import DAYS, FAMILIES, LABELS
from hf_prism.tasks.procedural import SKELETONS, generate


ROWS = generate(4000, seed=11)
GOLDEN = (
    "There are 52 eggs on the table of Ingrid. A friend gives Ingrid 8 more eggs. "
    "Find the number of eggs that Ingrid has at the end.",
    "At first there are 52 eggs.\nThis makes 52 + 8 = 60.\nSo the answer is \\boxed{60}.",
)


def reference_answer(family: str, skeleton: str, numbers: list[int]) -> str:
    """The answer from skeleton and numbers, computed another way than the families do."""
    if family in ("story", "groups") and skeleton != "/":
        return str(
            eval(str(numbers[0]) + "".join(f"{sign}{n}" for sign, n in zip(skeleton, numbers[1:], strict=True)))
        )
    if family == "groups":
        return str(Fraction(*numbers))
    if family == "comparison":
        a, b = numbers
        other = eval({"more": "a+b", "fewer": "a-b", "times": "a*b"}[skeleton.split()[0]])
        return str(other + a * skeleton.endswith("total"))
    if family == "sequence":  # the arithmetic (or geometric) mean property of neighbouring terms
        return str(2 * numbers[3] if skeleton == "double" else 2 * numbers[3] - numbers[2])
    if family == "ordering":
        by_rank = {sum(other < n for other in numbers): n for n in numbers}
        ranks = {"largest": [3], "smallest": [0], "second largest": [2], "sorted": [0, 1, 2, 3]}[skeleton]
        return ", ".join(str(by_rank[rank]) for rank in ranks)
    if family == "calendar":
        first, count = numbers
        if skeleton == "clock":
            return str([*range(1, 13)][(first + count) % 12 - 1])
        return DAYS[(first + (count if skeleton == "later" else 6 * count)) % 7]
    per, big, *small = numbers
    return str(big if skeleton == "/" else sum([per] * big) + sum(small))


def entailment_label(prompt: str) -> str:
    """Reads the premise as facts and asks whether the hypothesis holds in every, in no or in some possible world."""
    sentences = re.findall(
        r"(\w+) (is|is not) (taller|shorter|older|younger|faster|slower|heavier|lighter) than (\w+)\.", prompt
    )
    if sentences:
        down = ("shorter", "younger", "slower", "lighter")
        pairs = [(b, a) if relation in down else (a, b) for a, _, relation, b in sentences]
        *facts, (x, z) = pairs
        above = set(facts) | {(a, d) for a, b in facts for c, d in facts if b == c}
        return "entailment" if (x, z) in above else "contradiction" if (z, x) in above else "neutral"
    rule, trait = re.search(r"(Every|No) \w+ is (\w+)\.", prompt).groups()
    *_, (copula, claimed) = re.findall(r"\w+ (is not|is) (\w+)\.", prompt)
    if claimed != trait:
        return "neutral"
    return "entailment" if (rule == "Every") == (copula == "is") else "contradiction"


def test_answers_equal_an_independent_evaluation_of_the_numbers():
    for row in ROWS:
        family, _, skeleton = row["skeleton"].partition("/")
        expected = entailment_label(row["prompt"]) if family == "entailment" else None
        assert row["answer"] == (expected or reference_answer(family, skeleton, row["numbers"])), row


def test_every_equation_of_a_solution_holds():
    equations = 0
    for row in ROWS:
        for left, sign, right, result in re.findall(r"(\d+) ([-+*/]) (\d+) = (\d+)", row["completion"]):
            assert {"+": int(left) + int(right), "-": int(left) - int(right), "*": int(left) * int(right)}.get(
                sign, Fraction(int(left), int(right))
            ) == int(result), row
            equations += 1
    assert equations > len(ROWS) / 2


def test_the_numbers_stand_in_the_prompt():
    for row in ROWS:
        if row["family"] in ("story", "groups", "comparison", "sequence", "ordering"):
            assert Counter(map(int, re.findall(r"\d+", row["prompt"]))) == Counter(row["numbers"]), row


def test_every_completion_ends_in_its_only_box_with_the_answer():
    for row in ROWS:
        assert re.findall(r"\\boxed{([^{}]*)}", row["completion"]) == [row["answer"]]
        assert re.search(r"\\boxed{[^{}]*}\.?$", row["completion"])
        assert row["completion"].count("{") == row["completion"].count("}") == 1


def test_all_skeletons_and_labels_occur_about_evenly():
    counts = Counter(row["skeleton"] for row in ROWS)
    assert set(counts) == set(SKELETONS)
    families = Counter(row["family"] for row in ROWS)
    assert min(families.values()) > 0.8 * len(ROWS) / len(FAMILIES)
    labels = Counter(row["answer"] for row in ROWS if row["family"] == "entailment")
    assert set(labels) == set(LABELS) and min(labels.values()) > 0.25 * labels.total()


def test_rows_are_the_same_in_another_process_and_a_prefix_of_a_longer_call():
    code = "import json; from hf_prism.tasks.procedural import generate; print(json.dumps(generate(50, seed=11)))"
    command = [sys.executable, "-c", code]
    other = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "5"})
    assert json.loads(other.stdout) == ROWS[:50]


def test_the_stream_of_random_numbers_is_pinned():
    row = generate(1, skeletons=["story/+"], seed=3)[0]
    assert (row["prompt"], row["completion"]) == GOLDEN
    assert len({row["id"] for row in ROWS}) == len(ROWS)


def test_surface_seed_changes_words_and_leaves_reasoning_and_answer():
    other = generate(400, seed=11, surface_seed=12)
    for row, changed in zip(ROWS, other, strict=False):
        assert [changed[key] for key in ("skeleton", "numbers", "answer")] == [
            row[key] for key in ("skeleton", "numbers", "answer")
        ]
    same_words = sum(row["id"] == changed["id"] for row, changed in zip(ROWS, other, strict=False))
    assert same_words < 20  # an id holds a digest of prompt and completion


def test_number_seed_changes_numbers_and_leaves_skeleton_and_people():
    other = generate(400, seed=11, number_seed=12)
    assert [row["skeleton"] for row in other] == [row["skeleton"] for row in ROWS[:400]]
    for row, changed in zip(ROWS, other, strict=False):
        if row["family"] in ("story", "comparison", "ordering", "sequence"):  # same words once the numbers are masked
            assert re.sub(r"\d+", "#", row["prompt"]) == re.sub(r"\d+", "#", changed["prompt"])


def test_seed_alone_changes_skeletons_only():
    arguments = {"families": ["story"], "number_seed": 1, "surface_seed": 1}
    first, second = generate(200, seed=1, **arguments), generate(200, seed=2, **arguments)
    assert sum(a["skeleton"] != b["skeleton"] for a, b in zip(first, second, strict=True)) > 100
    starts = [[row["prompt"].split()[:3] for row in rows] for rows in (first, second)]
    assert starts[0] == starts[1]


def test_names_objects_and_wordings_are_limited_as_asked():
    rows = generate(60, families=["story"], names=["Ann", "Bea", "Cid"], objects=["coins"], wordings=1)
    for row in rows:
        assert re.match(r"(Ann|Bea|Cid) has \d+ coins\.", row["prompt"]), row["prompt"]
    skeletons = {re.sub(r"\d+|Ann|Bea|Cid", "#", row["prompt"]) for row in rows}
    assert len(skeletons) == len({row["skeleton"] for row in rows})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"families": ["storey"]}, "unknown family 'storey'"),
        ({"families": ["story"], "skeletons": ["groups/*"]}, "unknown skeleton 'groups/\\*'"),
        ({"families": []}, "no skeleton to draw from"),
        ({"skeletons": []}, "no skeleton to draw from"),
        ({"names": ["Ann", "Bea"]}, "2 names"),
        ({"objects": []}, "0 objects"),
        ({"wordings": 0}, "wordings=0"),
        ({"largest": 5}, "largest=5"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        generate(1, **arguments)
