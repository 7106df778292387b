"""Estimates without the sketch, against exact Gram matrices whose sketches are drawn here."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hf_prism.debiasing import debiased_vendi, fold_noise, score_noise


def exact_rows(kind: str, n: int) -> np.ndarray:
    """Unit rows in many dimensions."""
    rng = np.random.default_rng(11)
    rows = {
        "orthogonal": lambda: np.eye(n),
        "power law": lambda: rng.standard_normal((n, 4000)) * np.arange(1, 4001) ** -0.35,
        "clusters": lambda: rng.standard_normal((30, 3000))[rng.integers(0, 30, n)] + rng.standard_normal((n, 3000)),
    }[kind]()
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def score_of(rows: np.ndarray, order: float) -> float:
    shares = np.linalg.svd(rows / np.linalg.norm(rows, axis=1, keepdims=True), compute_uv=False) ** 2 / len(rows)
    shares = shares[shares > 1e-14]
    return math.exp(-np.sum(shares * np.log(shares))) if order == 1 else np.sum(shares**order) ** (1 / (1 - order))


def dense_sketch(rows: np.ndarray, dim: int, seed: int) -> np.ndarray:
    return rows @ np.random.default_rng(seed).standard_normal((rows.shape[1], dim))


@pytest.mark.parametrize("kind", ["orthogonal", "power law", "clusters"])
@pytest.mark.parametrize(
    ("n", "order"), [(64, 0.5), (64, 1.0), (64, 2.0), (256, 0.5), (256, 1.0), (256, 2.0), (384, 1.0), (384, 2.0)]
)
def test_estimate_recovers_the_exact_score(kind, order, n):
    dim, rows = 256, exact_rows(kind, n)
    truth = score_of(rows, order)
    raw, estimates = [], []
    for seed in range(4):
        sketch = dense_sketch(rows, dim, seed)
        shares = np.linalg.svd(sketch / np.linalg.norm(sketch, axis=1, keepdims=True), compute_uv=False) ** 2 / n
        raw.append(score_of(sketch, order) / truth - 1)
        estimates.append(debiased_vendi(shares, n, dim, order)[0] / truth - 1)
    assert np.mean(raw) < -0.03
    assert abs(np.mean(estimates)) < 0.025 and abs(np.mean(estimates)) < 0.3 * abs(np.mean(raw))


def test_estimate_leaves_scores_alone_that_the_sketch_cannot_change():
    dim, n = 512, 100
    one = np.r_[1.0, np.zeros(n - 1)]
    for order in (0.5, 1, 2):
        assert debiased_vendi(one, n, dim, order)[0] == pytest.approx(1, rel=0.01)
    assert debiased_vendi(np.full(n, 1 / n), n, dim, 1)[0] == pytest.approx(n)  # never above n, whatever the spectrum


def test_no_estimate_is_offered_where_it_would_be_a_guess():
    dim = 128
    shares = np.linalg.svd(dense_sketch(np.eye(1000), dim, 0), compute_uv=False) ** 2
    value, reason = debiased_vendi(shares, 1000, dim)
    assert value is None and "1000 rows" in reason and "larger dim" in reason
    few_directions = dense_sketch(np.eye(8)[np.random.default_rng(0).integers(0, 8, 1000)], dim, 0)
    shares = np.linalg.svd(few_directions, compute_uv=False) ** 2
    assert debiased_vendi(shares, 1000, dim)[0] == pytest.approx(8, rel=0.1)
    for order in (3, math.inf):
        value, reason = debiased_vendi(shares, 1000, dim, order)
        assert value is None and f"order {order:g}" in reason
    assert debiased_vendi(np.ones(10), 10, 32)[0] is None


@pytest.mark.parametrize("kind", ["orthogonal", "power law", "clusters"])
@pytest.mark.parametrize("repeated", [1, 2])
def test_fold_noise_is_the_error_of_cosines(kind, repeated):
    """Also of a sketch that says everything twice, under other signs: noisier than its size promises."""
    rows, dim = exact_rows(kind, 150), 512
    signs = np.random.default_rng(5).choice([-1.0, 1.0], (repeated, dim // repeated))
    sketch = np.concatenate([dense_sketch(rows, dim // repeated, 3) * sign for sign in signs], axis=1)
    unit = sketch / np.linalg.norm(sketch, axis=1, keepdims=True)
    errors = (unit @ unit.T - rows @ rows.T)[~np.eye(150, dtype=bool)]
    assert fold_noise(sketch) == pytest.approx(np.sqrt(np.mean(errors**2)), rel=0.06)
    assert fold_noise(sketch) == pytest.approx(math.sqrt(repeated / dim), rel=0.06)


@pytest.mark.parametrize("common", [0.0, 2.0])
@pytest.mark.parametrize("order", [1.0, 2.0])
def test_score_noise_is_the_spread_over_sketches(common, order):
    """With a direction that all rows share one sketch moves the score by percents, without one by less."""
    rows = exact_rows("power law", 120)
    rows[:, 0] += common * np.linalg.norm(rows, axis=1)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    sketches = [dense_sketch(rows, 256, seed) for seed in range(40)]
    spread = np.std([math.log(score_of(sketch, order)) for sketch in sketches])
    measured = np.mean([score_noise(sketch, order) for sketch in sketches])
    assert measured == pytest.approx(spread, rel=0.35 if common else 0.6)
    assert (measured > 0.012) == (spread > 0.02) == (common > 0)


@pytest.mark.parametrize("rows", [np.ones((1, 8)), np.ones((3, 12))])
def test_score_noise_names_shapes_it_cannot_use(rows):
    with pytest.raises(ValueError, match="multiple of 8"):
        score_noise(rows)


@pytest.mark.parametrize("rows", [np.ones((1, 4)), np.ones((3, 5))])
def test_fold_noise_names_shapes_it_cannot_use(rows):
    with pytest.raises(ValueError, match="even width"):
        fold_noise(rows)
