"""Error bars against what they claim: the spread over repeated benchmarks, the bootstrap, exact tests, published quantiles."""

import itertools
import math

import numpy as np
import pytest

from hf_prism.accuracy import accuracy, difference, mean_of, student_t


# Students of known accuracy: n problems, k samples, and the Beta law of a problem's difficulty.
STUDENTS = {
    "one answer a problem": (30, 1, 0.9, 0.1),
    "many answers to few problems": (30, 16, 2.0, 1.0),
    "problems either easy or hard": (30, 16, 0.3, 0.3),
    "all problems alike": (30, 16, 50.0, 50.0),
    "nearly all right": (40, 4, 20.0, 1.0),
    "nearly all wrong": (30, 16, 1.0, 30.0),
    "a large benchmark": (500, 1, 8.0, 1.0),
}


def draw(random, n, k, a, b):
    return (random.random((n, k)) < random.beta(a, b, n)[:, None]).astype(float)


@pytest.mark.parametrize(("n", "k", "a", "b"), STUDENTS.values(), ids=STUDENTS)
def test_the_standard_error_is_the_spread_over_fresh_benchmarks_and_the_interval_covers(n, k, a, b):
    random = np.random.default_rng(0)
    found = [accuracy(draw(random, n, k, a, b)) for _ in range(1500)]
    spread = np.std([each.accuracy for each in found])
    claimed = math.sqrt(np.mean([each.standard_error**2 for each in found]))
    assert claimed == pytest.approx(spread, rel=0.06)
    covered = np.mean([each.interval[0] <= a / (a + b) <= each.interval[1] for each in found])
    assert 0.935 <= covered <= 0.985


def test_the_error_over_samples_is_the_spread_over_runs_on_the_same_problems():
    random = np.random.default_rng(1)
    p = random.beta(0.5, 0.5, 40)
    runs = [accuracy((random.random((40, 8)) < p[:, None]).astype(float)) for _ in range(2000)]
    spread = np.std([run.accuracy for run in runs])
    claimed = math.sqrt(np.mean([run.standard_error_samples**2 for run in runs]))
    assert claimed == pytest.approx(spread, rel=0.06)
    assert claimed < 0.6 * np.mean([run.standard_error for run in runs])  # which is that over problems too


def test_the_standard_error_is_that_of_the_bootstrap_over_problems_and_samples():
    random = np.random.default_rng(2)
    verdicts = draw(random, 200, 4, 1.0, 2.0)
    means = [verdicts[random.integers(0, 200, 200)].mean() for _ in range(2000)]
    assert accuracy(verdicts).standard_error == pytest.approx(np.std(means), rel=0.06)
    within = [
        np.mean([row[random.integers(0, 4, 4)].mean() for row in verdicts]) for _ in range(700)
    ]  # a bootstrap of 4 samples sees 3/4 of their variance
    assert accuracy(verdicts).standard_error_samples == pytest.approx(np.std(within) * math.sqrt(4 / 3), rel=0.08)


def test_all_right_and_all_wrong_have_intervals_of_the_exact_test():
    for value in (0.0, 1.0):
        found = accuracy(np.full((30, 4), value))
        assert found.accuracy == value and found.standard_error == 0
        low, high = found.interval
        exact = 0.025 ** (1 / 30)  # Clopper and Pearson
        assert (low if value else 1 - high) == pytest.approx(exact, abs=0.02) and value in (low, high)


def test_a_single_problem_has_no_error_over_problems():
    found = accuracy([[1, 0, 1, 1]])
    assert found.accuracy == 0.75 and found.standard_error is None and found.interval is None
    assert found.standard_error_samples == pytest.approx(math.sqrt(0.25 / 4))
    assert accuracy([[1], [0]]).standard_error_samples is None


@pytest.mark.parametrize(("n", "k"), [(30, 1), (40, 8), (200, 1), (12, 4)])
def test_the_paired_test_is_calibrated_where_students_are_equally_good(n, k):
    random = np.random.default_rng(3)
    trials, rejected, covered = 1000, 0, 0
    for _ in range(trials):
        p = random.beta(0.7, 0.5, n)[:, None]
        one, other = ((random.random((n, k)) < p).astype(float) for _ in range(2))
        found = difference(one, other)
        rejected += found.p_value <= 0.05
        covered += found.interval[0] <= 0 <= found.interval[1]
    assert rejected / trials <= 0.06
    assert covered / trials >= 0.935
    if n >= 40:
        assert rejected / trials >= 0.02  # and not so careful that it sees nothing


def test_the_paired_test_sees_what_separate_intervals_do_not():
    random = np.random.default_rng(4)
    hard = random.beta(0.4, 0.4, 300)
    one = (random.random((300, 8)) < hard[:, None]).astype(float)
    other = (random.random((300, 8)) < np.clip(hard + 0.04, 0, 1)[:, None]).astype(float)
    apart = [accuracy(each).interval for each in (one, other)]
    found = difference(other, one)
    assert apart[0][1] > apart[1][0] and found.p_value < 0.01 and found.interval[0] > 0
    assert found.better > found.worse and found.problems == 300


def test_the_p_value_is_that_of_all_patterns_of_signs():
    gaps = [0.5, -0.25, 0.25, 0.0, 1.0, -0.5, 0.75]
    one = [[max(gap, 0.0)] for gap in gaps]
    other = [[max(-gap, 0.0)] for gap in gaps]
    known = [gap for gap in gaps if gap]
    sums = [
        abs(sum(s * g for s, g in zip(signs, known, strict=True))) for signs in itertools.product((1, -1), repeat=6)
    ]
    exact = sum(total >= abs(sum(known)) - 1e-12 for total in sums) / len(sums)
    assert difference(one, other).p_value == pytest.approx(exact)


def test_random_patterns_agree_with_the_exact_binomial_test():
    # 16 problems that one answers and 6 that the other does: the sign test.
    one = [[1.0]] * 16 + [[0.0]] * 6 + [[1.0]] * 20
    other = [[0.0]] * 16 + [[1.0]] * 6 + [[1.0]] * 20
    exact = 2 * sum(math.comb(22, i) for i in range(7)) / 2**22
    found = difference(one, other)
    assert found.p_value == pytest.approx(exact, abs=0.01) and found.p_value == difference(one, other).p_value
    assert found.difference == pytest.approx(10 / 42) and (found.better, found.worse) == (16, 6)


def test_students_that_never_differ_have_an_interval_all_the_same():
    found = difference([[1.0]] * 50, [[1.0]] * 50)
    assert found.p_value == 1 and found.difference == 0 and found.interval[1] == pytest.approx(1 - 0.025 ** (1 / 50))


def test_gaps_that_are_all_alike_leave_an_interval():
    found = difference([[1.0], [1.0]], [[0.0], [0.0]])
    assert found.p_value == 0.5 and found.interval[0] < 0.2 and found.interval[1] == 1


def test_quantiles_are_those_of_the_table():
    # Student's t, 97.5 %: Abramowitz and Stegun, table 26.10.
    table = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 8: 2.306, 10: 2.228, 29: 2.045, 120: 1.980}
    for freedom, value in table.items():
        assert student_t(freedom) == pytest.approx(value, abs=1e-3)


def test_the_mean_of_benchmarks_counts_each_once():
    assert mean_of([0.2, 0.6, 1.0], [0.1, 0.2, 0.2]) == (pytest.approx(0.6), pytest.approx(0.1))
    assert mean_of([0.2, 0.6], [0.1, None]) == (pytest.approx(0.4), None)


BAD = {
    "no problems": ([], "row a problem"),
    "one row of verdicts": ([1, 0], "row a problem"),
    "no samples": ([[], []], "row a problem"),
    "a count for a verdict": ([[3], [0]], "between 0 and 1"),
    "no number": ([[float("nan")], [0]], "between 0 and 1"),
}


@pytest.mark.parametrize(("verdicts", "message"), BAD.values(), ids=BAD)
def test_what_is_no_matrix_of_verdicts_is_refused(verdicts, message):
    with pytest.raises(ValueError, match=message):
        accuracy(verdicts)


def test_students_on_different_problems_cannot_be_paired():
    with pytest.raises(ValueError, match="2 problems of one student and 3 of the other"):
        difference([[1], [0]], [[1], [0], [0]])
