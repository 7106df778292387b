"""Which rows of the pool a generator is shown (PAPER, Prismatic Synthesis, step 2).

Rows are taken in the order of the hashes of their ids, and random numbers from a seeded stream of raw bits for each
request: neither the order of the rows nor the number of requests made before changes what a request shows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .clustering import sparse_clusters
from .samples import near
from .vectors import id_hashes


CHOICES = ("uniform", "level", "sparse_clusters")
SPARSE_RATIO = 0.1
"""Share of the clusters that `"sparse_clusters"` draws from: the paper's code, `select_fewshot_examples`."""


class FewShot:
    """Draws the examples of requests from a pool.

    - `"uniform"`: every row alike.
    - `"level"`: rows with probabilities proportional to their level, the default of the paper's code.
    - `"sparse_clusters"`: the rows of one of the smallest tenth of the clusters, filled up from the clusters nearest to it.

    Args:
        choice: One of these.
        shots: Examples a request.
        ids: (n,) of the pool.
        levels: (n,) numbers at or above 0, for `"level"`.
        labels: (n,) the cluster of each row, for `"sparse_clusters"`.
        centers: (k, d) of unit length, for `"sparse_clusters"`.
        seed: Of the draws.

    Raises:
        ValueError: another choice; fewer rows than shots, or than shots of a level above 0.

    Example:
        >>> FewShot("uniform", 2, ["a", "b", "c"], seed=0).draw(0).tolist()
        [2, 0]
    """

    def __init__(
        self,
        choice: str,
        shots: int,
        ids: Sequence[str],
        *,
        levels: Sequence[float] | None = None,
        labels: np.ndarray | None = None,
        centers: np.ndarray | None = None,
        seed: int = 0,
    ) -> None:
        if choice not in CHOICES:
            raise ValueError(
                f"few_shot is {choice!r}{near(choice, CHOICES)}; it is one of {', '.join(map(repr, CHOICES))}."
            )
        if len(ids) < shots:
            raise ValueError(f"a request shows {shots} examples, but the pool has {len(ids)} rows: give more seeds.")
        self.choice, self.shots, self.seed = choice, shots, seed
        self.order = np.argsort(id_hashes(list(ids), len(ids)), kind="stable")
        weights = np.ones(len(ids))
        if choice == "level":
            if levels is None:
                raise ValueError("few_shot='level' needs a column `level` of numbers in the seeds.")
            weights = np.asarray(levels, dtype=np.float64)
            if np.count_nonzero(weights > 0) < shots or not (np.isfinite(weights) & (weights >= 0)).all():
                raise ValueError(
                    f"levels must be numbers at or above 0, and at least {shots} (the shots) above 0; they go from "
                    f"{weights.min()} to {weights.max()}."
                )
        self.heights = np.cumsum(weights[self.order])
        if choice == "sparse_clusters":
            assert labels is not None and centers is not None
            sizes = np.bincount(labels, minlength=len(centers))
            self.sparse = np.flatnonzero(sparse_clusters(sizes, SPARSE_RATIO, seed))
            self.labels, self.centers = labels[self.order], centers

    def draw(self, request: int) -> np.ndarray:
        """(shots,) different positions in the pool, in the order in which they are shown."""
        stream = np.random.Philox([self.seed, request])
        places = self._of_a_cluster(stream) if self.choice == "sparse_clusters" else self._weighted(stream)
        return self.order[places]

    def _weighted(self, stream: np.random.Philox) -> list[int]:
        """Places drawn one after the other in proportion to their weights; one that comes again is drawn anew."""
        drawn: list[int] = []
        while len(drawn) < self.shots:
            place = int(np.searchsorted(self.heights, _uniform(stream) * self.heights[-1], side="right"))
            if place not in drawn:
                drawn.append(place)
        return drawn

    def _of_a_cluster(self, stream: np.random.Philox) -> list[int]:
        """Places of one sparse cluster in a drawn order, then of the next nearest one, until there are enough."""
        first = self.sparse[int(_uniform(stream) * len(self.sparse))]
        drawn: list[int] = []
        for cluster in np.argsort(-(self.centers @ self.centers[first]), kind="stable"):
            members = np.flatnonzero(self.labels == cluster)
            drawn += members[np.argsort(stream.random_raw(len(members)), kind="stable")].tolist()
            if len(drawn) >= self.shots:
                break
        return drawn[: self.shots]


def _uniform(stream: np.random.Philox) -> float:
    """A number at or above 0 and below 1, from raw bits, whose stream NumPy promises to keep."""
    return (int(stream.random_raw()) >> 11) * 2.0**-53
