"""The sketch is the stated linear map: unbiased, of dense-level variance, and the same everywhere."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch

from hf_prism import sketch as sketch_module
from hf_prism.sketch import ALGORITHM, Block, CountSketch, TensorSketch, rademacher_columns, random_words


BLOCKS = [
    Block("q", 40, 24, "q"),
    Block("k", 12, 24, "q"),
    Block("down", 24, 100, "down"),
    Block("norm", 0, 24, "norm"),
    Block("embed", 90, 24, "embed"),
]


GOLDEN_WORDS = [1462405688727642677, 4023347611792422228, 10462484472727717590]
GOLDEN_BUCKETS = [3, 2, 0, 1, 2, 3]
GOLDEN_SIGNS = [1, 1, -1, -1, 1, 1]
GOLDEN_DENSE = [1, -1, -1, -1, -1, 1, 1, -1]


def gradient(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        b.name: torch.randn(*((b.columns,) if b.is_vector else (b.rows, b.columns)), generator=generator)
        for b in BLOCKS
    }


def hash_of(size: int, dim: int, seed: int, *key: str) -> tuple[np.ndarray, np.ndarray]:
    """The documented hash, written again without torch: Philox words, runs of permutations, the top bit the sign."""
    digest = hashlib.sha256("\0".join([ALGORITHM, str(seed), *key]).encode()).digest()
    runs = -(-size // dim)
    words = np.random.Philox(key=np.frombuffer(digest[:16], dtype=np.uint64)).random_raw(runs * dim)
    buckets = [np.argsort(run & np.uint64(2**63 - 1), kind="stable") for run in words.reshape(runs, dim)]
    return np.concatenate(buckets)[:size], 1.0 - 2.0 * (words[:size] >> np.uint64(63)).astype(float)


def by_definition(gradients: dict[str, torch.Tensor], dim: int, seed: int) -> np.ndarray:
    """y[(h_out(i) + h_in(j)) mod d] += s_out(i) s_in(j) G_ij, in float64, with no Fourier transform."""
    y = np.zeros(dim)
    for block in BLOCKS:
        matrix = gradients[block.name].double().numpy()
        if block.is_vector:
            buckets, signs = hash_of(block.columns, dim, seed, block.name, "vector")
            np.add.at(y, buckets, signs * matrix)
            continue
        rows, row_signs = hash_of(block.rows, dim, seed, block.name, "out")
        columns, column_signs = hash_of(block.columns, dim, seed, block.group, "in")
        np.add.at(y, (rows[:, None] + columns) % dim, row_signs[:, None] * column_signs * matrix)
    return y


def test_golden_words_and_hashes_hold_on_any_machine():
    assert random_words(0, "weight", "out", count=3).tolist() == GOLDEN_WORDS
    sketch = CountSketch(6, 4, 0, "weight", "out")
    assert sketch.buckets.tolist() == GOLDEN_BUCKETS
    assert sketch.signs.tolist() == GOLDEN_SIGNS
    dense = next(rademacher_columns(4, 0, "weight", 2))[1]
    assert (dense.sign().flatten().tolist()) == GOLDEN_DENSE


@pytest.mark.parametrize("dim", [8, 32, 64, 256])
def test_sketch_equals_its_definition_written_without_fourier_transforms(dim):
    sketch = TensorSketch(BLOCKS, dim, seed=3)
    expected = by_definition(gradient(), dim, seed=3)
    np.testing.assert_allclose(
        sketch.apply(gradient()).numpy(), expected, rtol=0, atol=1e-4 * np.linalg.norm(expected)
    )


@pytest.mark.parametrize("at_a_time", [1, 3, 8, 256])
def test_outer_products_streamed_in_any_order_and_pieces_sum_to_the_sketch_of_the_gradient(at_a_time, monkeypatch):
    monkeypatch.setitem(sketch_module.TOKENS_AT_A_TIME, "cpu", at_a_time)
    sketch = TensorSketch(BLOCKS, 64, seed=0)
    generator = torch.Generator().manual_seed(1)
    inputs = {name: torch.randn(2, 7, size, generator=generator) for name, size in (("q", 24), ("down", 100))}
    deltas = {
        name: torch.randn(2, 7, size, generator=generator)
        for name, size in (("q", 40), ("k", 12), ("down", 24), ("embed", 24))
    }
    norm, ids = torch.randn(2, 24, generator=generator), torch.randint(0, 90, (2, 7), generator=generator)
    total = sketch.accumulator(2)
    total.add_linear("k", inputs["q"], deltas["k"], None)  # the group waits for q
    total.add_embedding("embed", ids, deltas["embed"])
    segments = torch.tensor([0] * 5 + [1] * 9)  # the supervised tokens of the head, gathered
    flat = [tensor.reshape(1, 14, -1) for tensor in (inputs["down"], deltas["down"])]
    total.add_linear("down", flat[0], flat[1], segments)
    total.add_vector("norm", norm)
    total.add_linear("q", inputs["q"], deltas["q"], None)
    for i, y in enumerate(total.result()):
        whole = {
            "q": deltas["q"][i].T @ inputs["q"][i],
            "k": deltas["k"][i].T @ inputs["q"][i],
            "down": flat[1][0, segments == i].T @ flat[0][0, segments == i],
            "norm": norm[i],
            "embed": torch.zeros(90, 24).index_add(0, ids[i], deltas["embed"][i]),
        }
        expected = by_definition(whole, 64, seed=0)
        np.testing.assert_allclose(y.numpy(), expected, rtol=0, atol=1e-5 * np.linalg.norm(expected))


def test_a_layer_with_one_output_is_a_matrix_with_one_row():
    sketch = TensorSketch([Block("q", 4, 24, "q"), Block("gate", 1, 24, "q")], 32, seed=0)
    generator = torch.Generator().manual_seed(2)
    inputs, deltas = (torch.randn(2, 7, size, generator=generator) for size in (24, 5))
    total = sketch.accumulator(2)
    total.add_linear("q", inputs, deltas[..., :4], None)
    total.add_linear("gate", inputs, deltas[..., 4:], None)
    for i, y in enumerate(total.result()):
        whole = {"q": deltas[i, :, :4].T @ inputs[i], "gate": deltas[i, :, 4:].T @ inputs[i]}
        torch.testing.assert_close(y, sketch.apply(whole), rtol=1e-5, atol=1e-5)


def test_inner_products_are_unbiased_with_at_most_the_variance_of_dense_signs():
    # Rank-one gradients that share an input: the structure on which independent hashes lose to a dense projection.
    generator = torch.Generator().manual_seed(5)
    shared = torch.randn(24, generator=generator)
    first, second = gradient(1), gradient(2)
    for one, size in (("q", 40), ("k", 12), ("embed", 90)):
        first[one] = torch.outer(torch.randn(size, generator=generator), shared)
        second[one] = torch.outer(torch.randn(size, generator=generator), shared) + 0.5 * first[one]
    flat = [torch.cat([g[b.name].flatten() for b in BLOCKS]).double() for g in (first, second)]
    true = (flat[0] @ flat[1]).item()
    dim, seeds = 128, 400
    estimates = []
    for seed in range(seeds):
        sketch = TensorSketch(BLOCKS, dim, seed)
        estimates.append((sketch.apply(first) @ sketch.apply(second)).item())
    products = ((flat[0] @ flat[0]) * (flat[1] @ flat[1]) + true**2 - 2 * (flat[0] ** 2 @ flat[1] ** 2)).item()
    law = (products / dim) ** 0.5  # exact standard deviation of the dense Rademacher projection
    assert abs(np.mean(estimates) - true) < 4 * law / seeds**0.5
    assert np.std(estimates) < law * (1 + 3 / (2 * seeds) ** 0.5)


def test_members_of_a_group_share_the_input_hash_and_nothing_else():
    sketch = TensorSketch(BLOCKS, 64, seed=0)
    assert set(sketch.column_sketch) == {"q", "down", "embed"}
    assert not torch.equal(sketch.row_sketch["q"].buckets[:12], sketch.row_sketch["k"].buckets)


def test_dense_reference_is_a_projection_with_unit_expected_norm_and_independent_columns():
    columns = torch.cat([block for _, block in rademacher_columns(64, 0, "w", 3000, step=1024)])
    assert columns.shape == (3000, 64)
    torch.testing.assert_close(columns.norm(dim=1), torch.ones(3000))
    assert (columns @ columns.T - torch.eye(3000)).abs().max() < 6 * 64**-0.5


def test_sketch_does_not_depend_on_the_process_or_its_hash_seed():
    code = (
        "import torch; from hf_prism.sketch import *;"
        "print(TensorSketch([Block('w', 5, 6, 'w')], 16, 7).apply({'w': torch.arange(30.).reshape(5, 6)}).tolist())"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": str(i)}
        ).stdout
        for i in (1, 2)
    }
    assert len(runs) == 1


@pytest.mark.parametrize("dim", [0, -4, 6, 1023])
def test_dimensions_that_cannot_be_folded_twice_are_refused(dim):
    with pytest.raises(ValueError, match=f"dim={dim}.*multiple of 4"):
        TensorSketch(BLOCKS, dim, 0)
