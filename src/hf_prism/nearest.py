"""The nearest of many centres for each row, by cosine: exact, at the speed of a matrix product in bfloat16.

The score of a pair, row x and centre c, both float32 of unit length, is x.c with exact products, summed in float64 in an
order fixed by the length alone. The nearest centre is that of the greatest score, and of the lowest number among equals.
It is a function of the row and the centres: blocks, threads and the device have no part in it.

A product in bfloat16 finds the few centres that can be the nearest, and only these are scored. With x = x' + r and
c = c' + s, x' and c' in bfloat16, Cauchy-Schwarz gives |x.c - x'.c'| <= |r| |c'| + |x| |s|. |r| and |s| are measured, .0017
each on dense rows. The product's float32 sums add at most d 2^-22, its rounding to bfloat16 at most 2^-9. Where this leaves
too many centres, the product is repeated in float64.

The same bounds say what cannot change. A row keeps its nearest centre's score, and its rivals' bound: no other centre scores
above it. A centre that moved by less than the difference cannot overtake, and is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


ROWS_AT_A_TIME = {"cpu": 512, "cuda": 8192}
"""Rows compared with centres at a time. Like the next two, it changes no label and no score."""

PAIRS_AT_A_TIME = {"cpu": 256, "cuda": 65536}
"""Pairs scored at a time: on a CPU, as many as stay in its cache."""

GROUP = 64
"""Centres of which only the greatest product is looked at, unless it is near enough."""

NOWHERE = 2**62
"""In place of the number of a centre that is not there; greater than any."""


def fast_dtype(device: torch.device | str) -> torch.dtype:
    """bfloat16 where the device multiplies it faster than float32, else float32."""
    if torch.device(device).type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if native else torch.float32


def pair_scores(rows: Tensor, chosen: Tensor, centers: Tensor, places: Tensor) -> Tensor:
    """The scores of the chosen (m,) of the rows with as many centres at these places, (m,) float64."""
    size = PAIRS_AT_A_TIME[rows.device.type]
    parts = zip(chosen.split(size), places.split(size), strict=True)
    return torch.cat(
        [ordered_sum(rows.index_select(0, i).double().mul_(centers.index_select(0, j))) for i, j in parts]
    )


def ordered_sum(terms: Tensor) -> Tensor:
    """The sum over the last dimension of (m, d), second half onto first until one is left; `terms` is used up.

    Only additions of single numbers: no library chooses the order.
    """
    width = terms.shape[1]
    while width > 1:
        half = (width + 1) // 2
        terms[:, : width - half] += terms[:, half:width]
        width = half
    return terms[:, 0]


class Centers:
    """Some of the centres, in an order that suits, and what comparing with them takes.

    Args:
        vectors: (m, d) float32 of unit length.
        numbers: (m,) int64, the number of each among all `total` centres; by default all of them in their order.
        total: how many there are.
    """

    def __init__(self, vectors: Tensor, numbers: Tensor | None = None, total: int | None = None) -> None:
        self.vectors = vectors
        self.numbers = torch.arange(len(vectors), device=vectors.device) if numbers is None else numbers
        self.fast = vectors.to(fast_dtype(vectors.device))
        self.error = float(rounding(vectors).max())
        self.places = torch.full((total or len(vectors),), NOWHERE, device=vectors.device)
        self.places[self.numbers] = torch.arange(len(vectors), device=vectors.device)

    def products(self, rows: Tensor, count: int, dtype: torch.dtype) -> Tensor:
        """Of the first `count` centres and rows: (groups, GROUP, rows), -inf for centres that are not there."""
        centers = (self.fast if dtype == self.fast.dtype else self.vectors.to(dtype))[:count]
        products = rows.new_empty(-(-count // GROUP) * GROUP, len(rows), dtype=dtype)
        torch.mm(centers, rows.to(dtype).T, out=products[:count])
        products[count:] = -torch.inf
        return products.view(-1, GROUP, len(rows))


class Nearest:
    """The nearest centre of each of (n, d) float32 unit rows, while the centres come and move.

    Attributes:
        labels: (n,) int64, the number of the nearest centre so far, -1 before there is one.
        scores: (n,) float64, the row's score with it.
        rivals: (n,) float64; no other centre has a greater score than this.
    """

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows
        self.labels = torch.full((len(rows),), -1, device=rows.device)
        self.scores = torch.full((len(rows),), -torch.inf, dtype=torch.float64, device=rows.device)
        self.rivals = self.scores.clone()
        self.rounding = torch.cat([rounding(part) for part in self._parts(rows)]) if len(rows) else self.scores

    def add(self, centers: Centers) -> None:
        """Take new centres into account, beside those seen before."""
        step = ROWS_AT_A_TIME[self.rows.device.type]
        for start in range(0, len(self.rows), step):
            chosen = slice(start, start + step)
            self._compare(chosen, self.rows[chosen], centers, len(centers.vectors))

    def better(self, centers: Centers) -> tuple[Tensor, Tensor, Tensor]:
        """Every pair with a greater score than the row's: rows, places of the centres and scores, (m,) each."""
        found, step = [], ROWS_AT_A_TIME[self.rows.device.type]
        for start in range(0, len(self.rows), step):
            part = slice(start, start + step)
            rows, known = self.rows[part], self.scores[part]
            *_, row, place = _search(rows, self.rounding[part], known, centers, len(centers.vectors), nearest=False)
            score = pair_scores(rows, row, centers.vectors, place)
            more = score > known[row]
            found.append((start + row[more], place[more], score[more]))
        empty = self.labels[:0], self.labels[:0], self.scores[:0]
        row, place, score = (torch.cat(parts) for parts in zip(empty, *found, strict=True))
        return row, place, score

    def adopt(self, row: Tensor, number: Tensor, score: Tensor) -> None:
        """Add centres of which these are all pairs that `better` finds, and no rival is known any more."""
        self.labels, self.scores = _nearest(self.labels, self.scores, row, number, score)
        self.rivals.fill_(torch.inf)

    def follow(self, centers: Tensor, movement: Tensor) -> None:
        """Take into account that every centre has moved: to (k, d) `centers`, by (k,) `movement`, 0 if it is the same."""
        moved = (movement[self.labels] > 0).nonzero().flatten()
        self.scores[moved] = pair_scores(self.rows, moved, centers, self.labels[moved])
        farthest = movement.argsort(descending=True, stable=True)
        distances, centers_by_movement = movement[farthest], Centers(centers.index_select(0, farthest), farthest)
        lead = self.scores - self.rivals
        order = lead.argsort(stable=True)
        for chosen in self._parts(order) if len(order) else ():
            # All whose movement is at least the least lead of these rows; the comparison is for equal scores too.
            count = int((distances >= lead[chosen[0]]).sum())
            # What is left out may have come nearer; what is not is about to be compared, and bounds itself.
            self.rivals[chosen] = self.rivals[chosen] + distances[count] if count < len(distances) else -torch.inf
            if count:
                self._compare(chosen, self.rows.index_select(0, chosen), centers_by_movement, count)

    def _compare(self, chosen: Tensor | slice, rows: Tensor, centers: Centers, count: int) -> None:
        """Compare the chosen rows with the first `count` centres."""
        labels, scores = self.labels[chosen], self.scores[chosen]
        products, best, error, row, place = _search(rows, self.rounding[chosen], scores, centers, count, nearest=True)
        other = centers.numbers[place] != labels[row]  # its score is known
        row, place = row[other], place[other]
        found = pair_scores(rows, row, centers.vectors, place)
        label, self.scores[chosen] = _nearest(labels, scores, row, centers.numbers[place], found)
        self.labels[chosen] = label

        # The rest of the products bounds the rivals, and so does the score of the centre that was the nearest.
        place = centers.places[label]
        row = (place < count).nonzero().flatten()
        group, member = place[row] // GROUP, place[row] % GROUP
        products[group, member, row] = -torch.inf
        best[group, row] = products[group, :, row].amax(1).double()
        rivals = torch.maximum(self.rivals[chosen], best.amax(0) + error)
        self.rivals[chosen] = torch.where(label != labels, torch.maximum(rivals, scores + _sum_error(rows)), rivals)

    def _parts(self, rows: Tensor) -> tuple[Tensor, ...]:
        return rows.split(ROWS_AT_A_TIME[self.rows.device.type])


def repeated(vectors: Tensor, limit: float) -> Tensor:
    """Which of (m, d) vectors have a score above `limit` with one before them: (m,) bool."""
    found, centers = torch.zeros(len(vectors), dtype=torch.bool, device=vectors.device), Centers(vectors)
    step = ROWS_AT_A_TIME[vectors.device.type]
    for start in range(0, len(vectors), step):
        rows = vectors[start : start + step]
        known = torch.full((len(rows),), limit, dtype=torch.float64, device=rows.device)
        *_, row, place = _search(rows, rounding(rows), known, centers, start + len(rows), nearest=False)
        row, place = row[place < start + row], place[place < start + row]
        found[start + row[pair_scores(rows, row, vectors, place) > limit]] = True
    return found


def _search(
    rows: Tensor, lost: Tensor, known: Tensor, centers: Centers, count: int, *, nearest: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The pairs of rows and the first `count` centres that can have a score of at least the `known` one of the row, and,
    if only the nearest centre is wanted, can be it.

    Returns the products, the greatest of each group, their error, and rows and places of the pairs.
    """
    fast = centers.fast.dtype, product_error(lost, centers)
    exact = torch.float64, torch.full_like(lost, _sum_error(rows))  # where centres, or rows, are nearly equal
    for dtype, error in (fast, exact):
        products = centers.products(rows, count, dtype)
        best = products.amax(1).double()
        if dtype != torch.float64:
            best.clamp_(max=1)  # as scores are; above 1 bfloat16 is coarser
        # Before there is a known score, anything counts but the -inf of centres that are not there.
        least = torch.maximum(best.amax(0) - error, known) if nearest else known.clamp(min=-1)
        row, place = _candidates(products, best, least - error)
        if len(row) <= len(rows) * max(8, count // 16):
            break
    return products, best, error, row, place


def _nearest(labels: Tensor, scores: Tensor, row: Tensor, number: Tensor, score: Tensor) -> tuple[Tensor, Tensor]:
    """Labels and scores of rows after pairs with more centres came in."""
    highest = scores.scatter_reduce(0, row, score, "amax")
    first = score == highest[row]
    still = torch.where(scores == highest, labels, NOWHERE)
    return still.scatter_reduce(0, row[first], number[first], "amin"), highest


def product_error(lost: Tensor, centers: Centers) -> Tensor:
    """How far a fast product can be from the score of a row that lost so much in `rounding`, whatever rounded it: also
    float32 taken as TF32 or bfloat16."""
    return lost * (1 + 2**-7) + centers.error + 2**-9 + centers.vectors.shape[1] * 2.0**-22


def rounding(vectors: Tensor) -> Tensor:
    """How much of each of (m, d) vectors is lost in bfloat16, as a length, float64 and rounded up."""
    return (vectors - vectors.bfloat16()).norm(dim=1).double() * (1 + 1e-3)


def _sum_error(rows: Tensor) -> float:
    return 8 * rows.shape[1] * 2.0**-53


def _candidates(products: Tensor, best: Tensor, least: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and places of the centres with a product of at least `least`, one a row; `best` is the greatest of each group."""
    group, row = (best >= least).nonzero(as_tuple=True)
    pair, member = (products[group, :, row] >= least[row, None]).nonzero(as_tuple=True)
    return row[pair], group[pair] * GROUP + member


@contextmanager
def float32_sums() -> Iterator[None]:
    """Within the block, products in bfloat16 are summed in float32 throughout, also where a GPU splits the sum."""
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_bf16_reduced_precision_reduction
    matmul.allow_bf16_reduced_precision_reduction = False
    try:
        yield
    finally:
        matmul.allow_bf16_reduced_precision_reduction = before
