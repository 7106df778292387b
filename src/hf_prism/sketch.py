"""Seeded, device-independent linear sketches of gradients into d numbers.

The gradient of a linear layer on one sample is a sum of outer products, ``G = sum_t delta_t a_t^T``, with ``a_t`` the
layer's input and ``delta_t`` the gradient of its output at token t. TensorSketch (Pham & Pagh, 2013) sketches G without
forming it:

    y = irfft( sum_layers sum_t rfft(CS_out delta_t) * rfft(CS_in a_t) )

with CS a CountSketch into d buckets. Inner products of sketches are unbiased estimates of the inner products of the
gradients, so the sketch takes the place of the dense Rademacher projection of the paper (section 3) at a small
fraction of its cost.

Hashes and signs are raw Philox bits keyed by (seed, name, side): the same on every machine, device and batch size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


ALGORITHM = "tensorsketch-1"
"""Name and version of the map. It is part of every feature_id; change it when any hash, sign or rule changes."""


TOKENS_AT_A_TIME = {"cpu": 256, "cuda": 8192}
"""Tokens sketched at a time: on a CPU, as many as keep the buffers in its cache; on a GPU, enough to fill it. It
changes the last bits only."""


def random_words(seed: int, *key: str | int, count: int) -> np.ndarray:
    """Return `count` uint64 of the Philox stream keyed by `seed` and `key`, the same on every machine."""
    digest = hashlib.sha256("\0".join([ALGORITHM, str(seed), *map(str, key)]).encode()).digest()
    return np.random.Philox(key=np.frombuffer(digest[:16], dtype="<u8").astype(np.uint64)).random_raw(count)


@dataclass(frozen=True)
class Block:
    """One parameter as the sketch sees it.

    Attributes:
        name: Name of the parameter (tied weights: their first name).
        rows: Number of outputs of a matrix; 0 for a vector (norm weights, biases).
        columns: Number of inputs of a matrix; length of a vector. Parameters with more than two dimensions (fused
            experts) are the matrix `(-1, shape[-1])`.
        group: Name of the first layer that reads the same input. Layers of one group share their input hash.
    """

    name: str
    rows: int
    columns: int
    group: str

    @property
    def is_vector(self) -> bool:
        return self.rows == 0


class CountSketch:
    """A signed hash of `size` coordinates into `dim` buckets.

    Within each run of `dim` coordinates the hash is a random permutation, so that coordinates collide only across
    runs: the estimate stays unbiased and its variance is at most that of independent hashes. It also makes the sum
    order of every bucket fixed, hence the result deterministic on any device.

    Args:
        size: Number of coordinates.
        dim: Number of buckets.
        seed: Seed of the map.
        key: What is hashed (parameter name, side).

    Example:
        >>> CountSketch(3, 4, 0, "weight", "in")(torch.eye(3)).abs().sum(-1)
        tensor([1., 1., 1.])
    """

    def __init__(self, size: int, dim: int, seed: int, *key: str):
        runs = -(-size // dim)
        words = random_words(seed, *key, count=runs * dim).reshape(runs, dim)
        self.size, self.dim = size, dim
        # The top bit is the sign; the order of the remaining bits is the permutation.
        buckets = np.argsort(words & np.uint64(2**63 - 1), axis=1, kind="stable").reshape(-1)[:size]
        signs = 1.0 - 2.0 * (words.reshape(-1)[:size] >> np.uint64(63)).astype(np.float32)
        self.buckets = torch.from_numpy(buckets)
        self.signs = torch.from_numpy(signs)

    def to(self, device: torch.device) -> CountSketch:
        self.buckets, self.signs = self.buckets.to(device), self.signs.to(device)
        return self

    def __call__(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """Sketch the last dimension: (..., size) of any float dtype to (..., dim) float32, added to `out` if given."""
        out = x.new_zeros((*x.shape[:-1], self.dim), dtype=torch.float32) if out is None else out
        for start in range(0, self.size, self.dim):
            run = slice(start, min(start + self.dim, self.size))
            out.index_add_(-1, self.buckets[run], x[..., run] * self.signs[run])
        return out


class TensorSketch:
    """The linear map from a model's gradient to `dim` numbers.

    Args:
        blocks: The parameters it covers.
        dim: Number of output coordinates d, a multiple of 4 (so that the sketch can be folded twice).
        seed: Seed of all hashes and signs.
        device: Where the sketch is computed. The map does not depend on it.

    Example:
        >>> sketch = TensorSketch([Block("weight", 3, 2, "weight")], dim=8, seed=0)
        >>> sketch.apply({"weight": torch.eye(3)[:, :2]}).shape
        torch.Size([8])
    """

    def __init__(self, blocks: list[Block], dim: int, seed: int, device: torch.device | str = "cpu"):
        if dim < 4 or dim % 4:
            raise ValueError(f"dim={dim}: the sketch dimension must be a positive multiple of 4, for example 1024.")
        self.dim, self.seed, self.device = dim, seed, torch.device(device)
        self.blocks = {block.name: block for block in blocks}
        self.group_sizes: dict[str, int] = {}
        self.row_sketch: dict[str, CountSketch] = {}
        self.column_sketch: dict[str, CountSketch] = {}
        for block in blocks:
            if block.is_vector:
                self.row_sketch[block.name] = self._count_sketch(block.columns, block.name, "vector")
                continue
            self.group_sizes[block.group] = self.group_sizes.get(block.group, 0) + 1
            self.row_sketch[block.name] = self._count_sketch(block.rows, block.name, "out")
            if block.group not in self.column_sketch:
                self.column_sketch[block.group] = self._count_sketch(block.columns, block.group, "in")
        # rfft of the unit vectors: the sketch of a one-hot coordinate in bucket h is row h.
        self.phases = torch.fft.rfft(torch.eye(dim, device=self.device))

    def _count_sketch(self, size: int, *key: str) -> CountSketch:
        return CountSketch(size, self.dim, self.seed, *key).to(self.device)

    def accumulator(self, batch_size: int) -> SketchAccumulator:
        """Return an empty sum of sketches for `batch_size` samples."""
        return SketchAccumulator(self, batch_size)

    def apply(self, gradients: dict[str, Tensor]) -> Tensor:
        """Sketch a materialised gradient of one sample: tensors by parameter name to a (dim,) float32 vector.

        Matrices are oriented (out, in), as in `Block`. Slower than the accumulator; it is the same map.
        """
        total = self.accumulator(1)
        for name, gradient in gradients.items():
            total.add_gradient(name, gradient)
        return total.result()[0]


class SketchAccumulator:
    """The sketches of a batch while its gradient streams by, layer by layer.

    `segments` says which sample each token belongs to: None where tensors are (batch, time, features), else an
    ascending (tokens,) index, on the host, for tensors of shape (1, tokens, features).
    """

    def __init__(self, sketch: TensorSketch, batch_size: int):
        self.sketch, self.batch_size = sketch, batch_size
        self.spectrum = torch.zeros(batch_size, sketch.dim // 2 + 1, dtype=torch.complex64, device=sketch.device)
        self.direct = torch.zeros(batch_size, sketch.dim, device=sketch.device)
        # Output gradients of layers whose group is still incomplete.
        self.waiting: dict[str, list[tuple[str, Tensor]]] = {}

    def add_linear(self, name: str, inputs: Tensor, deltas: Tensor, segments: Tensor | None) -> None:
        """Add a linear layer: inputs (batch, time, in) and output gradients (batch, time, out)."""
        group = self.sketch.blocks[name].group
        members = self.waiting.setdefault(group, [])
        members.append((name, deltas))
        if len(members) < self.sketch.group_sizes[group]:
            return
        del self.waiting[group]
        columns = self.sketch.column_sketch[group]
        for part in self._parts(inputs.shape[:2]):
            rows = None
            for member, delta in members:
                rows = self.sketch.row_sketch[member](delta[part], out=rows)
            assert rows is not None
            products = torch.fft.rfft(rows).mul_(torch.fft.rfft(columns(inputs[part])))
            self._add(products, part, segments)

    def add_embedding(self, name: str, ids: Tensor, deltas: Tensor) -> None:
        """Add an embedding: ids (batch, time) and gradients of the rows looked up (batch, time, features)."""
        rows, columns = self.sketch.row_sketch[name], self.sketch.column_sketch[self.sketch.blocks[name].group]
        for part in self._parts(ids.shape):
            token = ids[part]
            one_hot = self.sketch.phases[rows.buckets[token]]
            products = torch.fft.rfft(columns(deltas[part]) * rows.signs[token].unsqueeze(-1)).mul_(one_hot)
            self._add(products, part, None)

    def add_vector(self, name: str, gradients: Tensor) -> None:
        """Add the gradients of a vector parameter, one row a sample: (batch, size)."""
        self.direct += self.sketch.row_sketch[name](gradients)

    def add_gradient(self, name: str, gradient: Tensor) -> None:
        """Add the materialised gradient of a parameter (batches of one sample)."""
        block = self.sketch.blocks[name]
        if block.is_vector:
            return self.add_vector(name, gradient.reshape(1, -1))
        rows, columns = self.sketch.row_sketch[name], self.sketch.column_sketch[block.group]
        matrix = gradient.reshape(block.rows, block.columns).T.unsqueeze(0)
        for part in self._parts(matrix.shape[:2]):
            _, column = part
            one_hot = self.sketch.phases[columns.buckets[column]]
            products = torch.fft.rfft(rows(matrix[part]) * columns.signs[column].unsqueeze(-1)).mul_(one_hot)
            self._add(products, part, None)

    def _parts(self, shape: Sequence[int]) -> Iterator[tuple[slice, slice]]:
        """Cut (batch, time) into pieces of so many tokens: several whole samples, or a stretch of one."""
        batch, time = shape
        tokens = TOKENS_AT_A_TIME.get(self.sketch.device.type, TOKENS_AT_A_TIME["cuda"])
        samples = max(1, tokens // time)
        for first in range(0, batch, samples):
            for start in range(0, time, tokens):
                yield slice(first, min(first + samples, batch)), slice(start, min(start + tokens, time))

    def _add(self, products: Tensor, part: tuple[slice, slice], segments: Tensor | None) -> None:
        """Add a piece's products (samples, tokens, frequencies), summed over each sample's tokens."""
        # Sums and matrix products have a fixed order, which a scatter on a GPU does not.
        real = torch.view_as_real(products).flatten(2)
        if segments is None:
            samples, total = part[0], real.sum(dim=1)
        else:
            of_token = segments[part[1]]
            first, last = int(of_token[0]), int(of_token[-1])
            samples = slice(first, last + 1)
            member = torch.nn.functional.one_hot(of_token - first, last - first + 1).T
            total = member.to(real.device, torch.float32) @ real[0]
        self.spectrum[samples] += torch.view_as_complex(total.unflatten(1, (-1, 2)))

    def result(self) -> Tensor:
        """Return the sketches, (batch, dim) float32."""
        assert not self.waiting, f"layers without their companions: {self.waiting}"
        return torch.fft.irfft(self.spectrum, n=self.sketch.dim) + self.direct


def rademacher_columns(
    dim: int, seed: int, name: str, size: int, *, step: int = 65536
) -> Iterator[tuple[slice, Tensor]]:
    """Yield the dense Rademacher projection of one parameter in blocks of (coordinates, dim), entries +-1/sqrt(dim).

    The paper's projection (section 3), regenerated from the seed and the coordinate: the reference that TensorSketch
    is measured against. It costs `dim` random bits for each parameter of the model.
    """
    for start in range(0, size, step):
        stop = min(start + step, size)
        words = random_words(seed, name, "dense", start, count=-(-(stop - start) * dim // 64))
        bits = np.unpackbits(words.astype("<u8").view(np.uint8), bitorder="little")[: (stop - start) * dim]
        signs = torch.from_numpy(bits.reshape(stop - start, dim)).float().mul_(-2).add_(1)
        yield slice(start, stop), signs.mul_(dim**-0.5)
