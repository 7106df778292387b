"""The diversity measures that people use otherwise, to set beside G-Vendi: plain functions, and one table of them.

Each measure is a function of one input to one number. `MEASURES` says which input each reads and how to read the number;
`measure` evaluates all whose input is given. None depends on the order of the rows, apart from rounding. Like G-Vendi
most depend on the number of rows, or of words: compare only at equal size.

NumPy only; `embed` alone needs more.
"""

from __future__ import annotations

import gzip
import math
import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np

from .vectors import unit_blocks, unit_rows
from .vendi import Covariance, vendi


WORD = re.compile(r"\w+|[^\w\s]")
"""A word: a run of letters, digits and underscores, or one sign of punctuation."""

ROWS_AT_A_TIME = 256  # of DCScore: 205 MB of similarities for 100,000 rows


@dataclass(frozen=True)
class Measure:
    """One line of `MEASURES`."""

    name: str
    "in words, for people"
    key: str
    "in results of `measure`"
    reads: str
    'the input it takes: "texts", "gradients", "embeddings", "clusters", "labels", "loss" or "gradient_norm"'
    function: Callable[[Any], float]
    "from that input, with the default parameters"
    reads_as: str
    "what a higher or lower value means"
    source: str
    "where it comes from"


def distinct_n(texts: Sequence[str], n: int = 2) -> float:
    """Distinct word n-grams of all texts, over all their n-grams: Li et al. 2016, arXiv 1510.03055, who report n = 1, 2.

    Between 0 and 1, **and it falls as the data grow**, because new n-grams become rare: compare at equal size only. The
    paper divides by the number of words; divided by that of n-grams, as is usual now, it is 1 where nothing repeats.

    Args:
        texts: one text a row. A text is lower-cased, and its words are those of `WORD`: runs of letters, digits and
            underscores, and every sign of punctuation alone. What is written without spaces is one long word.
        n: words in an n-gram. An n-gram lies within one text; shorter texts have none.

    Raises:
        ValueError: no rows, a row that is not text, all texts shorter than n words, n below 1.

    Example:
        >>> distinct_n(["a b a b"])  # a b, b a, a b
        0.6666666666666666
    """
    counts = _ngram_counts(texts, n)
    return len(counts) / int(counts.sum())


def ngram_entropy(texts: Sequence[str], n: int = 4) -> float:
    """Entropy of the word n-grams of all texts, in nats: Ent-n of Zhang et al. 2018, arXiv 1809.05972, who report n = 4.

    At most the logarithm of the number of n-grams, which it reaches where nothing repeats: so it grows with the data.

    Args:
        texts: one text a row, split into words as for `distinct_n`.
        n: words in an n-gram.

    Raises:
        ValueError: as `distinct_n`.

    Example:
        >>> round(ngram_entropy(["a b", "b a"], n=1), 4)  # log 2
        0.6931
    """
    return _entropy(_ngram_counts(texts, n))


def compression_ratio(texts: Sequence[str]) -> float:
    """Bytes of all texts, joined by newlines, over their bytes after gzip: Shaib et al. 2024, arXiv 2403.00553.

    Higher is more redundant, so less diverse. gzip (level 9) looks back 32 kB: of larger data it sees only repeats that
    stand near each other. So that the order of the rows does not matter, the texts are joined in the order of a hash of
    the text and of how many equal ones came before: as if shuffled. Another build of zlib may differ in the third digit.
    The authors' own program joins by spaces, and compresses twice, which changes little.

    Args:
        texts: one text a row.

    Raises:
        ValueError: no rows, a row that is not text, only empty texts.

    Example:
        >>> compression_ratio(["abcabcabc " * 10] * 10) > 10
        True
    """
    seen: Counter[bytes] = Counter()
    hashed: list[tuple[bytes, bytes]] = []
    for text in _texts(texts):
        content = text.encode("utf-8", "surrogatepass")
        hashed.append((blake2b(content, digest_size=16, key=seen[content].to_bytes(8)).digest(), content))
        seen[content] += 1
    if not any(seen):
        raise ValueError(f"all {len(hashed)} texts are empty: there is nothing to compress. Is this the right column?")
    joined = b"\n".join(content for _, content in sorted(hashed))
    return len(joined) / len(gzip.compress(joined))


def word_vendi(texts: Sequence[str], dim: int = 1024) -> float:
    """Vendi score of the words of the texts, with the cosine of their counts as kernel: Friedman and Dieng 2023,
    arXiv 2210.02410, who compare texts by their n-grams.

    The effective number of texts with different words, between 1 and min(n, dim). Words are counted in buckets by their
    hash, which keeps the cost at O(n dim^2), whatever the vocabulary; words that share a bucket count as one.

    Args:
        texts: one text a row, split into words as for `distinct_n`.
        dim: buckets.

    Raises:
        ValueError: no rows, a row that is not text.

    Example:
        >>> round(word_vendi(["a b", "b a", "c d"]), 4)  # two texts of one kind, one of another
        1.8899
    """
    counts = np.zeros((len(texts), dim))
    buckets: dict[str, int] = {}
    for row, text in enumerate(_texts(texts)):
        for word in WORD.findall(text.lower()) or [""]:  # texts without a word are alike
            if word not in buckets:
                buckets[word] = (
                    int(blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest(), 16) % dim
                )
            counts[row, buckets[word]] += 1
    return embedding_vendi(counts)


def embed(texts: Sequence[str], model: Any) -> np.ndarray:
    """Embeddings of texts by a model of sentence-transformers, for the measures that read "embeddings".

    Args:
        texts: one text a row. Most models cut long texts off, see `max_seq_length` of the model.
        model: name or folder of a model, such as `sentence-transformers/all-mpnet-base-v2`, which computes in float32;
            or a loaded `SentenceTransformer`, which computes as it is, to use it more than once.

    Returns:
        (n, d) float32, not normalised unless the model does so.

    Raises:
        ValueError: sentence-transformers is not installed, the model cannot be loaded, no rows, a row that is
            empty or not text.
    """
    rows = _texts(texts)
    if empty := [row for row, text in enumerate(rows) if not text.strip()]:
        raise ValueError(
            f"row {empty[0]} is empty ({len(empty)} such rows): it has no embedding. Fill it or drop the row."
        )
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise ValueError('embeddings need sentence-transformers: pip install "hf-prism[embeddings]"') from error
    if not isinstance(model, SentenceTransformer):
        try:
            model = SentenceTransformer(str(model)).float()
        except (OSError, ValueError) as error:
            raise ValueError(
                f"the embedding model {str(model)!r} could not be loaded: {str(error).strip()[:500]}"
            ) from error
    return model.encode(rows, convert_to_numpy=True, show_progress_bar=False).astype(np.float32, copy=False)


def embedding_vendi(embeddings: Any) -> float:
    """Vendi score of text embeddings, with the cosine as kernel: Friedman and Dieng 2023, arXiv 2210.02410.

    The effective number of different rows, between 1 and min(n, d). It is `vendi.g_vendi` of the embeddings.

    Args:
        embeddings: (n, d) numbers in any container of `vectors.number_blocks`, such as the result of `embed`. None rows
            are left out.

    Raises:
        ValueError: no rows, NaN, infinity or zero rows, rows of different width.

    Example:
        >>> round(embedding_vendi([[1.0, 0.0], [0.0, 1.0]]), 6)
        2.0
    """
    rows = unit_rows(embeddings)
    return vendi(Covariance(rows.shape[1]).update(rows).spectrum())  # the score's other parts cost 20 spectra more


def mean_pairwise_distance(vectors: Any) -> float:
    """Mean of 1 - cosine over all pairs of rows: Tevet and Berant 2021, arXiv 2004.02990, on sentence embeddings.

    Between 0, where all directions are the same, and n / (n - 1): 1 for rows at right angles. Computed from the sum of
    the unit rows, in O(n d). It sees only that sum: two opposite groups of equal rows score as high as it gets.

    Args:
        vectors: (n, d) numbers, gradients or embeddings, in any container of `vectors.number_blocks`. None rows are
            left out.

    Raises:
        ValueError: fewer than two rows, and as `embedding_vendi`.

    Example:
        >>> round(mean_pairwise_distance([[1.0, 0.0], [0.0, 2.0], [1.0, 0.0]]), 6)
        0.666667
    """
    n, total = 0, np.zeros(1)
    for _, rows in unit_blocks(vectors):
        n, total = n + len(rows), total + rows.sum(axis=0)
    if n < 2:
        raise ValueError(f"the mean distance of pairs needs at least two rows, and there is {n}: add rows.")
    # |sum of u|^2 is n plus the cosines of the n (n - 1) ordered pairs. For equal rows rounding alone can go below 0.
    return max(0.0, 1 - (float(total @ total) - n) / (n * (n - 1)))


def dcscore(embeddings: Any, temperature: float = 1.0) -> float:
    """DCScore: trace of the row-wise softmax of the similarities, Zhu et al. 2025, arXiv 2502.08512.

    Each row is classified among all rows, and the score sums the probabilities with which rows are told apart. The kernel
    is the cosine, the temperature 1, as in the authors' examples (github.com/BlueWhaleLab/DCScore); they offer other
    kernels too. 1 where all rows are the same, n where all are told apart. At temperature 1 no row is: n rows at right
    angles score n e / (n - 1 + e), which stays below e = 2.72 however many they are.

    Args:
        embeddings: (n, d) numbers in any container of `vectors.number_blocks`. None rows are left out.
        temperature: what the cosines are divided by, at least 1e-6.

    Time is O(n^2 d), memory n d numbers and 256 n more.

    Raises:
        ValueError: a temperature below 1e-6, and as `embedding_vendi`.

    Example:
        >>> round(dcscore([[1.0, 0.0], [0.0, 1.0]]), 4)  # 2 e / (1 + e)
        1.4621
    """
    if not 1e-6 <= temperature < math.inf:
        raise ValueError(
            f"temperature {temperature!r} must be a number of at least 1e-6, such as 1: what it divides, differences of "
            "cosines, are rounded to 1e-16."
        )
    rows = unit_rows(embeddings)
    sums, space = np.empty(len(rows)), np.empty((min(ROWS_AT_A_TIME, len(rows)), len(rows)))
    for start in range(0, len(rows), ROWS_AT_A_TIME):
        some = rows[start : start + ROWS_AT_A_TIME]
        part = np.matmul(some, rows.T, out=space[: len(some)])
        part -= 1  # the cosine of a row with itself, and the largest: the diagonal of exp is 1, and nothing overflows
        part /= temperature
        np.exp(part, out=part)
        part.sum(axis=1, out=sums[start : start + len(some)])
    return math.fsum(1 / sums)


def partition_entropy(clusters: Any) -> float:
    """Entropy of the shares of the clusters, in nats: Sem-Ent of Han et al. 2022, arXiv 2210.05725.

    At most log of the number of clusters, where all are equally large. Sem-Ent takes the clusters of embeddings found on
    the training data of a dialogue model; any clusters will do, but compare at the same number of clusters only.

    Args:
        clusters: (n,) whole numbers, such as `SphericalKMeans.labels_`. Rows with -1 have no cluster and are left out.

    Raises:
        ValueError: no rows, no row with a cluster, a label that is not a whole number from -1 up.

    Example:
        >>> round(partition_entropy([0, 0, 7, 7, -1]), 4)  # log 2
        0.6931
    """
    labels = _cells(clusters, "cluster labels")
    for row, label in enumerate(labels):
        if isinstance(label, bool) or not isinstance(label, int) or label < -1:
            raise ValueError(
                f"row {row} has the cluster label {label!r}: labels are whole numbers from 0 up, and -1 where a row has "
                "no cluster."
            )
    counts = Counter(label for label in labels if label != -1)
    if not counts:
        raise ValueError(f"all {len(labels)} rows have the cluster label -1: no row is in a cluster.")
    return _entropy(counts.values())


def skill_set_entropy(labels: Any) -> float:
    """Entropy of the sets of skills that the rows are labelled with, in nats: a baseline of Jung et al. 2025,
    arXiv 2505.20161, who let a large model name the skills of each row.

    Rows with the same set of labels are one category, whatever the order and the repeats in it; a label alone is a set
    of one. At most log n, so with many labels a row it measures n more than anything else.

    Args:
        labels: one a row: text or a number, or a list of them. An empty list is a set too.

    Raises:
        ValueError: no rows; None, NaN or something else in place of a label.

    Example:
        >>> round(skill_set_entropy([["algebra", "primes"], ["primes", "algebra"], "algebra", "algebra"]), 4)  # log 2
        0.6931
    """
    return _entropy(Counter(_label_set(cell, row) for row, cell in enumerate(_cells(labels, "labels"))).values())


def mean_perplexity(loss: Any) -> float:
    """Mean over the rows of exp(loss), the perplexity of the row's completion under the proxy: Jelinek et al. 1977.

    How surprising the data are to the proxy: noise and hard rows raise it as different ones do. A few surprising rows can
    make up most of the mean.

    Args:
        loss: (n,) mean negative log-likelihood of a row's tokens in nats, the column `loss` of features.

    Raises:
        ValueError: no rows, a cell that is not a finite number, a loss so large that exp(loss) is not.

    Example:
        >>> round(mean_perplexity([math.log(2), math.log(4)]), 6)
        3.0
    """
    losses = _numbers(loss, "loss")
    top = max(losses)
    try:
        scale = math.exp(top)
    except OverflowError as error:
        raise ValueError(
            f"row {losses.index(top)} has the loss {top!r}, whose perplexity exp(loss) is beyond floating point: the loss "
            "must be the mean over the row's tokens, not their sum. Else drop the row."
        ) from error
    return scale * (math.fsum(math.exp(x - top) for x in losses) / len(losses))


def mean_gradient_norm(gradient_norm: Any) -> float:
    """Mean over the rows of the length of the gradient under the proxy: GraNd of Paul et al. 2021, arXiv 2107.07075.

    How strongly rows push the proxy, in whatever direction. GraNd averages over several initialisations; this is one
    proxy.

    Args:
        gradient_norm: (n,) numbers at or above 0, the column `gradient_norm` of features.

    Raises:
        ValueError: no rows, a cell that is not a finite number, or a negative one.

    Example:
        >>> mean_gradient_norm([1.0, 3.0])
        2.0
    """
    norms = _numbers(gradient_norm, "gradient norm")
    if min(norms) < 0:
        raise ValueError(
            f"row {norms.index(min(norms))} has the gradient norm {min(norms)!r}: a length is at least 0."
        )
    return math.fsum(norm / len(norms) for norm in norms)


MORE = "higher is more diverse"
LESS = "lower is more diverse"
NEITHER = "not a diversity measure by itself"

MEASURES: tuple[Measure, ...] = (
    Measure("distinct-2", "distinct_2", "texts", distinct_n, MORE, "Li et al. 2016, arXiv 1510.03055"),
    Measure("4-gram entropy", "ngram_entropy_4", "texts", ngram_entropy, MORE, "Zhang et al. 2018, arXiv 1809.05972"),
    Measure("compression ratio", "compression_ratio", "texts", compression_ratio, LESS, "Shaib et al. 2024, arXiv 2403.00553"),
    Measure("word Vendi", "word_vendi", "texts", word_vendi, MORE, "Friedman and Dieng 2023, arXiv 2210.02410"),
    Measure("embedding Vendi", "embedding_vendi", "embeddings", embedding_vendi, MORE, "Friedman and Dieng 2023, arXiv 2210.02410"),
    Measure("embedding distance", "embedding_distance", "embeddings", mean_pairwise_distance, MORE, "Tevet and Berant 2021, arXiv 2004.02990"),
    Measure("DCScore", "dcscore", "embeddings", dcscore, MORE, "Zhu et al. 2025, arXiv 2502.08512"),
    Measure("gradient distance", "gradient_distance", "gradients", mean_pairwise_distance, MORE, "Tevet and Berant 2021, arXiv 2004.02990"),
    Measure("partition entropy", "partition_entropy", "clusters", partition_entropy, MORE, "Han et al. 2022, arXiv 2210.05725"),
    Measure("skill-set entropy", "skill_set_entropy", "labels", skill_set_entropy, MORE, "Jung et al. 2025, arXiv 2505.20161"),
    Measure("mean perplexity", "mean_perplexity", "loss", mean_perplexity, NEITHER, "Jelinek et al. 1977"),
    Measure("mean gradient norm", "mean_gradient_norm", "gradient_norm", mean_gradient_norm, NEITHER, "Paul et al. 2021, arXiv 2107.07075"),
)  # fmt: skip
"""The distances are means over pairs of rows, see `mean_pairwise_distance`."""


def measure(**inputs: Any) -> dict[str, float]:
    """Every measure of `MEASURES` whose input is given, with its default parameters.

    Args:
        inputs: columns of the same rows under the names that measures read: `texts`, `gradients`, `embeddings`,
            `clusters`, `labels`, `loss`, `gradient_norm`. None counts as not given.

    Returns:
        The values by the key of the measure, in the order of `MEASURES`.

    Raises:
        ValueError: no input or one of another name, inputs of different length, and what the measures raise.

    Example:
        >>> found = measure(clusters=[0, 1, 1], gradient_norm=[1.0, 2.0, 3.0])
        >>> {key: round(value, 4) for key, value in found.items()}
        {'partition_entropy': 0.6365, 'mean_gradient_norm': 2.0}
    """
    known = tuple(dict.fromkeys(line.reads for line in MEASURES))
    if unknown := [name for name in inputs if name not in known]:
        raise ValueError(f"no measure reads {', '.join(unknown)}: give one or more of {', '.join(known)}.")
    given = {name: values for name, values in inputs.items() if values is not None}
    if not given:
        raise ValueError(f"nothing to measure: give one or more of {', '.join(known)}.")
    lengths = {name: len(values) for name, values in given.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{length} of {name}" for name, length in lengths.items())
        raise ValueError(f"the inputs have different numbers of rows, {found}: give columns of the same rows.")
    return {line.key: line.function(given[line.reads]) for line in MEASURES if line.reads in given}


def _entropy(counts: Iterable[int]) -> float:
    """In nats. Sorted, so that the order in which categories came up does not matter."""
    shares = np.sort(np.fromiter(counts, dtype=np.float64))
    shares /= shares.sum()
    return abs(float(shares @ np.log(shares)))


def _ngram_counts(texts: Sequence[str], n: int) -> np.ndarray:
    """How often each n-gram occurs, in any order. Words and n-grams are numbered: tuples would take far more memory."""
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ValueError(f"n must be a whole number of words of at least 1, got {n!r}.")
    numbers: dict[str, int] = {}
    words, lengths = array("q"), []
    for text in _texts(texts):
        found = WORD.findall(text.lower())
        words.extend(numbers.setdefault(word, len(numbers)) for word in found)
        lengths.append(len(found))
    if max(lengths) < n:
        raise ValueError(
            f"the longest of {len(lengths)} texts has {max(lengths)} words, so there are no n-grams of {n}: lower n, or "
            "give longer texts."
        )
    ids = np.frombuffer(words, dtype=np.int64)
    ends = np.repeat(np.cumsum(lengths), lengths)
    starts = np.flatnonzero(ends - np.arange(len(ids)) >= n)
    grams = ids[starts]
    for place in range(1, n):
        grams = np.unique(grams * len(numbers) + ids[starts + place], return_inverse=True)[1]
    return np.unique(grams, return_counts=True)[1]


def _texts(texts: Sequence[str]) -> list[str]:
    rows = _cells(texts, "texts")
    for row, text in enumerate(rows):
        if not isinstance(text, str):
            raise ValueError(
                f"row {row} holds {text!r} in place of text: fill it, drop the row, or name another column."
            )
    return rows


def _numbers(values: Any, what: str) -> list[float]:
    rows = _cells(values, f"{what} values")
    for row, value in enumerate(rows):
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(
                f"row {row} has the {what} {value!r}: a finite number is needed. A row that the featurizer skipped has "
                "None; drop such rows."
            )
    return [float(value) for value in rows]


def _cells(values: Any, what: str) -> list[Any]:
    """The cells of a column as Python's own values."""
    if isinstance(values, str):
        raise ValueError(f"{what} must be one for each row; found the single text {values[:60]!r}: give a list.")
    cells = [cell.item() if isinstance(cell, np.generic) else cell for cell in values]
    if not cells:
        raise ValueError(f"no {what}: at least one row is needed.")
    return cells


def _label_set(cell: Any, row: int) -> frozenset[Any]:
    labels = cell.tolist() if isinstance(cell, np.ndarray) else cell
    labels = labels if isinstance(labels, list | tuple | set | frozenset) else [labels]
    for label in labels:
        if not isinstance(label, str | int | float) or label != label:
            raise ValueError(
                f"row {row} holds the label {label!r}: a label is text or a number, and a row has one or a list of them. "
                "Fill it or drop the row."
            )
    return frozenset(labels)
