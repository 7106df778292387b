r"""Copies: of texts already in a pool, and of the items of benchmarks.

Both are decided on the same normalised tokens, so that `\dfrac{1}{2}`, `\frac12` and `½`, or `1,000` and `1{,}000`, are
the same text, and 3 and 4 apples are not. A duplicate is decided by the Jaccard similarity of word n-grams, a
contamination by the share of an item's word n-grams that a text holds. Hashes only propose, except that word n-grams
stand for each other where their 64-bit hashes are equal.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from .rows import READERS, describe, load_rows


SHINGLE = 3
"""Words in an n-gram of `Deduplicator`: at a threshold of 0.8, one word in 29 may differ."""

RECALL = 0.99
"""Least probability that a duplicate at exactly the threshold is found; one above it is found more surely."""

COMMON = 10
"""An n-gram that more different items have than this says nothing."""

EVIDENCE = 8
"""Least number of n-grams that count, of an item and in a hit."""


# ---- tokens ---------------------------------------------------------------------------------------------------------

# Commands that say how something looks, not what it is.
LAYOUT = frozenset(
    """left right middle big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr Biggl Biggr displaystyle textstyle limits
    nolimits quad qquad text textrm textbf textit textsf texttt textnormal mathrm mathbf mathit mathsf mathbb mathcal
    boldsymbol bm mbox hbox operatorname emph rm bf it hline noindent newline par nonumber ldots dots cdots dotsc dotsb
    thinspace negthinspace centering item lbrace rbrace ensuremath""".split()
)
SAME = {
    **dict.fromkeys(("times", "cdot", "ast"), "*"),
    **dict.fromkeys(("le", "leq", "leqslant"), "<="),
    **dict.fromkeys(("ge", "geq", "geqslant"), ">="),
    **dict.fromkeys(("ne", "neq"), "!="),
    **dict.fromkeys(("vert", "lvert", "rvert", "mid"), "|"),
    **dict.fromkeys(("dbinom", "tbinom"), "binom"),
    **dict.fromkeys(("to", "rightarrow"), "to"),
    "div": "/", "lt": "<", "gt": ">", "lbrack": "[", "rbrack": "]", "degree": "degrees", "varnothing": "emptyset",
}  # fmt: skip
SYMBOLS = {
    "×": "*", "·": "*", "⋅": "*", "∗": "*", "÷": "/", "≤": "<=", "⩽": "<=", "≥": ">=", "⩾": ">=", "≠": "!=", "°": "degrees",
    "√": "sqrt", "∞": "infty", "±": "pm", "∈": "in", "∪": "cup", "∩": "cap", "∑": "sum", "∫": "int", "∠": "angle",
    "△": "triangle", "⌊": "lfloor", "⌋": "rfloor", "⌈": "lceil", "⌉": "rceil", "→": "to", "≡": "equiv", "≈": "approx",
    "∅": "emptyset", "⊂": "subset", "⊥": "perp", "∥": "parallel", "π": "pi", "θ": "theta", "α": "alpha", "β": "beta",
    "γ": "gamma", "λ": "lambda", "μ": "mu", "σ": "sigma", "φ": "phi", "ω": "omega",
}  # fmt: skip
# Before NFKC, which would make x2 of x².
PLAIN = str.maketrans(
    {"’": "'", "‘": "'", "ʼ": "'", "½": " 1/2", "¼": " 1/4", "¾": " 3/4", "⅓": " 1/3", "⅔": " 2/3", "⁄": "/", "∕": "/"}
    | dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\u00ad", "")
)
RAISED = re.compile("[⁰¹²³⁴-⁹]+|[₀-₉]+")

CHARACTER = r"[\u3040-\u30ff\u3400-\u9fff]"  # of a script that writes no spaces
SYMBOL = f"[{''.join(SYMBOLS)}]"
LETTER = rf"(?:(?!{CHARACTER}|{SYMBOL})[^\W\d_])"
LEXER = re.compile(
    rf"""
    \\(?:begin|end|[hv]space)\*?\s*\{{[^{{}}]*\}}
    | (?P<fraction>\\[dtc]?frac(?![a-zA-Z])(?:\s*\d)?)
    | (?P<degrees>\^\s*\{{?\s*\\circ(?![a-zA-Z])\s*\}}?)
    | \\(?P<command>[a-zA-Z]+)
    | (?P<percent>\\?%)
    | (?P<digit>(?<=\\log_)\d(?=\d))
    | (?P<number>(?:[1-9]\d{{0,2}}(?:(?:,\\!|\{{,\}}|\\,|,)\d{{3}})+(?!\d)|\d+)(?:\.\d+)?|(?<!\w)\.\d+)
    | \\. | \*\*
    | (?P<symbol>{SYMBOL})
    | (?P<word>{CHARACTER}|{LETTER}+(?:'{LETTER}+)*)
    | (?P<open>\{{) | (?P<close>\}})
    | (?P<minus>(?<![-–])[-−–‐‑](?![-–]|{LETTER}{{2}}))
    | (?P<operator>[<>!]=|_+|[<>=^*/+()\[\]|]|(?<=[\d)}}])!|(?<=[\d)}}]\s)!|(?<![^\W\d_]{{2}})(?<=[^\W\d_])!)
    """,
    re.VERBOSE | re.DOTALL,
)
SEPARATORS = str.maketrans("", "", ",{}\\!")


def tokens(text: str) -> list[str]:
    r"""The words, numbers and operators of a text, the same for every way to write them.

    Case, white space, punctuation, fonts, `$`, `\left`, spacing commands, thousands separators, curly quotes and Unicode
    compatibility forms are gone; numbers, operators and parentheses stay, since they make another problem of it. Every
    Chinese or Japanese character is a word.

    Example:
        >>> tokens(r"What is $\dfrac{1}{2}\cdot 1{,}000\,$?") == tokens(r"what is \(½ × 1,000\)")
        True
    """
    return [token for token, _, _ in _lexed(_plain(text))]


def _plain(text: str) -> str:
    if text.isascii():
        return text
    text = RAISED.sub(lambda run: ("_" if run[0] >= "₀" else "^") + run[0], text.translate(PLAIN))
    return unicodedata.normalize("NFKC", text)


def _lexed(text: str) -> Iterator[tuple[str, int, int]]:
    """Tokens, and where in the text each starts and ends."""
    numerators: list[bool] = []  # of the open braces, which of them end in a fraction bar
    numerator = False
    for match in LEXER.finditer(text):
        kind, value = match.lastgroup, match[0]
        start, end = match.span()
        if kind == "word":
            yield value.casefold().replace("'", ""), start, end
        elif kind == "digit":
            yield value, start, end
        elif kind == "number":
            number = value.translate(SEPARATORS)
            yield "0" + number if number[0] == "." else number, start, end
        elif kind == "operator":
            yield value[0] if value[0] == "_" else value, start, end
        elif kind == "minus":
            yield "-", start, end
        elif kind == "command":
            name = match["command"]
            if name not in LAYOUT:
                yield SAME.get(name, name.casefold()), start, end
        elif kind == "symbol":
            yield SYMBOLS[value], start, end
        elif kind == "percent":
            yield "percent", start, end
        elif kind == "degrees":
            yield "degrees", start, end
        elif kind == "open":
            numerators.append(numerator)
        elif kind == "close" and numerators and numerators.pop():
            yield "/", start, end
        elif kind == "fraction" and value[-1].isdigit():
            yield value[-1], start, end
            yield "/", start, end
        numerator = kind == "fraction" and not value[-1].isdigit()


# ---- n-grams --------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1 << 17)
def _token_hash(token: str) -> int:
    return int.from_bytes(hashlib.blake2b(token.encode(errors="surrogatepass"), digest_size=8).digest(), "little")


def _grams(words: Sequence[str], n: int) -> np.ndarray:
    """A 64-bit hash of each n-gram, in order: (len(words) - n + 1,) uint64, the same in every process."""
    hashes = np.array([_token_hash(word) for word in words], dtype=np.uint64)
    count = max(0, len(words) - n + 1)
    grams = np.full(count, n, dtype=np.uint64)
    for i in range(n):
        grams = (grams ^ hashes[i : i + count]) * np.uint64(0xFF51AFD7ED558CCD)
        grams ^= grams >> np.uint64(32)
    return grams


def _require_text(text: Any, where: str) -> None:
    if not isinstance(text, str):
        raise ValueError(f"{where} is {text!r} of type {type(text).__name__}, not text: give a string.")


def _require_share(threshold: Any) -> None:
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 < threshold <= 1:
        raise ValueError(f"threshold {threshold!r} is not a share above 0 and up to 1: give a number such as 0.8.")


# ---- duplicates -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Duplicate:
    """What a text is a copy of.

    Attributes:
        of: The name of the earlier text.
        kind: `"exact"`, the same tokens in the same order, or `"near"`.
        share: The Jaccard similarity of their word n-grams; 1 if exact.
    """

    of: str
    kind: str
    share: float


class Deduplicator:
    """Finds what a text is a copy of among the texts added before.

    Exact: the same `tokens`. Near: the Jaccard similarity of the sets of word 3-grams, numbers and operators included, is
    at least the threshold. At 0.8 a text of 50 words is near after a change in one place, and not after two: a problem
    with one other number may be a copy, one with all its numbers changed is not; whether that is worth having is for the
    filter of gradients to say. A text of fewer than three words has only exact copies.

    Locality-sensitive hashing proposes earlier texts and the similarity itself decides, so that nothing below the
    threshold is ever reported. What has exactly the threshold is proposed with a probability of at least 0.99 (0.998 at
    the defaults), what is more similar with a greater one. Hashes are seeded: the same earlier texts give the same
    answer, in whatever order they came. A million texts of 45 words take 7 GB.

    Args:
        threshold: Least Jaccard similarity of a near-duplicate, above 0 and up to 1.
        num_perm: Hashes a text. More of them propose fewer texts in vain, at a higher price each.

    Raises:
        ValueError: A threshold that is no share, or one too low to be reached with so few hashes; a name added twice;
            a text that is not one.

    Example:
        >>> earlier = Deduplicator()
        >>> earlier.add("row 1", "Ann has 1,000 apples. How many are left?")
        >>> earlier.match("Ann has 1000 apples; how many are left?")
        Duplicate(of='row 1', kind='exact', share=1.0)
    """

    def __init__(self, *, threshold: float = 0.8, num_perm: int = 128) -> None:
        try:
            from datasketch import MinHashLSH
        except ImportError as error:
            raise ImportError(
                "near duplicates are found with datasketch, which is not installed: pip install 'hf-prism[synthesis]'."
            ) from error
        _require_share(threshold)
        if isinstance(num_perm, bool) or not isinstance(num_perm, int) or num_perm < 2:
            raise ValueError(f"num_perm {num_perm!r} is not a whole number of at least 2: give a number such as 128.")
        self.threshold = threshold
        self._num_perm = num_perm
        self._proposals = MinHashLSH(num_perm=num_perm, params=_bands(threshold, num_perm))
        self._exact: dict[bytes, str] = {}
        self._shingles: dict[str, np.ndarray] = {}

    def add(self, name: str, text: str) -> None:
        """Let later texts be compared with this one."""
        _require_text(text, f"text {name!r}")
        if name in self._shingles:
            raise ValueError(f"the name {name!r} was added before: give every text a name of its own.")
        digest, shingles, minhash = _fingerprint(text, self._num_perm)
        self._exact[digest] = min(name, self._exact.get(digest, name))
        self._shingles[name] = shingles
        if len(shingles):
            self._proposals.insert(name, minhash, check_duplication=False)

    def match(self, text: str) -> Duplicate | None:
        """The most similar earlier text, or None. Of several alike, the one whose name comes first."""
        _require_text(text, "the text")
        digest, shingles, minhash = _fingerprint(text, self._num_perm)
        if digest in self._exact:
            return Duplicate(self._exact[digest], "exact", 1.0)
        if not len(shingles):
            return None
        names: list[Any] = self._proposals.query(minhash)
        share, name = min(((-_jaccard(shingles, self._shingles[name]), name) for name in names), default=(0.0, ""))
        return Duplicate(name, "near", -share) if -share >= self.threshold else None


@lru_cache(maxsize=1)  # `match` and then `add` of the same text
def _fingerprint(text: str, num_perm: int) -> tuple[bytes, np.ndarray, Any]:
    """A digest of the tokens, the set of shingles as a sorted array, and its MinHash."""
    words = tokens(text)
    digest = hashlib.blake2b("\0".join(words).encode(errors="surrogatepass"), digest_size=16).digest()
    shingles = np.unique(_grams(words, SHINGLE))
    minhash = _empty_minhash(num_perm).copy()
    if len(shingles):
        minhash.update_batch((shingles & np.uint64(0xFFFFFFFF)).tolist())
    return digest, shingles, minhash


@lru_cache
def _empty_minhash(num_perm: int) -> Any:
    from datasketch import MinHash

    return MinHash(num_perm, seed=1, hashfunc=int)


def _jaccard(one: np.ndarray, other: np.ndarray) -> float:
    both = len(np.intersect1d(one, other, assume_unique=True))
    return both / (len(one) + len(other) - both)


def _bands(threshold: float, num_perm: int) -> tuple[int, int]:
    """Bands and their size: the largest bands, which propose least in vain, that keep the recall at the threshold."""
    sizes = [r for r in range(1, num_perm // 2 + 1) if 1 - (1 - threshold**r) ** (num_perm // r) >= RECALL]
    if not sizes:
        raise ValueError(
            f"threshold {threshold!r} is too low for num_perm {num_perm}: fewer than {RECALL:.0%} of the duplicates would be "
            "found. Raise one of them."
        )
    return num_perm // sizes[-1], sizes[-1]


# ---- contamination --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hit:
    """An item of a benchmark that a text holds.

    Attributes:
        benchmark: The name of the benchmark.
        item: The id of the item in it.
        matched: The longest passage of the text that is made of n-grams of the item.
        share: How much of the item's n-grams the text holds.
    """

    benchmark: str
    item: str
    matched: str
    share: float


@dataclass(frozen=True)
class _Item:
    benchmark: str
    name: str
    words: tuple[str, ...]
    grams: np.ndarray  # all of them, sorted


class Decontaminator:
    """Finds items of benchmarks in texts, whole or reworded, alone or within a longer text.

    The share of an item is how many of its distinct word n-grams the text holds. N-grams that more than ten different
    items have, such as "find the sum of", count for nothing. From the threshold on it is a hit. An item with fewer than
    eight n-grams that count must be there whole, word for word. Figures (`[asy] ... [/asy]`) and the labels `Premise:`,
    `Hypothesis:`, `Problem:` and `Question:` are no part of a text.

    The defaults were chosen by examples/benchmarks/decontamination.py on MATH-500, GSM8K, AIME, AMC and OlympiadBench. Of
    clean rows by the same authors, from other parts of MATH and GSM8K, under 1 % are hits: by eye, three in five are the
    problem of an item with other numbers or names, the others share its stock phrases. `share` and `matched` tell.

    Args:
        benchmarks: By name, the ids and texts of the items, as `load_benchmarks` gives them.
        threshold: Share from which on it is a hit, above 0 and up to 1.
        n: Words in an n-gram.

    Raises:
        ValueError: No benchmarks, one without items, an item without words, a text that is not one, a threshold that is
            no share.

    Example:
        >>> benchmarks = {"aime": [("7", r"Find the sum of all primes $p$ with $p^2 \\le 1{,}000$ and $p \\ne 2$.")]}
        >>> hit = Decontaminator(benchmarks).match("Easy: find the sum of all primes p with p^{2} ≤ 1000 and p≠2!")
        >>> hit.item, hit.share, hit.matched
        ('7', 1.0, 'find the sum of all primes p with p^{2} ≤ 1000 and p≠2')
    """

    def __init__(
        self, benchmarks: Mapping[str, Iterable[tuple[str, str]]], *, threshold: float = 0.45, n: int = 3
    ) -> None:
        _require_share(threshold)
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise ValueError(f"n {n!r} is not a whole number of at least 1: give a number of words such as 3.")
        self.threshold, self.n = threshold, n
        self._items = [_item(name, *item, n) for name, items in _filled(benchmarks) for item in items]
        distinct = {item.words: item.grams for item in self._items}
        spread = Counter(gram for grams in distinct.values() for gram in grams.tolist())
        self._holders: dict[int, list[int]] = {}  # by n-gram that counts, the items that have it
        self._totals: list[int] = []
        self._whole: dict[
            int, dict[int, list[int]]
        ] = {}  # by length and hash of their first words, items to find whole
        for i, item in enumerate(self._items):
            counting = [gram for gram in item.grams.tolist() if spread[gram] <= COMMON]
            self._totals.append(len(counting))
            if len(counting) < EVIDENCE:
                length = min(n, len(item.words))
                first = int(_grams(item.words[:length], length)[0])
                self._whole.setdefault(length, {}).setdefault(first, []).append(i)
                continue
            for gram in counting:
                self._holders.setdefault(gram, []).append(i)

    def match(self, text: str) -> Hit | None:
        """The worst hit, or None: the item of the highest share, of several the longest, of several the first given."""
        _require_text(text, "the text")
        words = tokens(_without_figures(text))
        grams = _grams(words, self.n)
        shares = {i: (share, None) for i, share in self._shares(grams)} | {
            i: (1.0, start) for i, start in self._whole_items(words)
        }
        if not shares:
            return None
        worst = max(shares, key=lambda i: (shares[i][0], len(self._items[i].words), -i))
        item, (share, start) = self._items[worst], shares[worst]
        span = _longest_run(grams, item.grams, self.n) if start is None else (start, start + len(item.words))
        return Hit(item.benchmark, item.name, _passage(text, *span), share)

    def _shares(self, grams: np.ndarray) -> Iterator[tuple[int, float]]:
        found: Counter[int] = Counter()
        for gram in set(grams.tolist()):
            found.update(self._holders.get(gram, ()))
        for i, count in found.items():
            share = count / self._totals[i]
            if share >= self.threshold and count >= EVIDENCE:
                yield i, share

    def _whole_items(self, words: list[str]) -> Iterator[tuple[int, int]]:
        """Items that are there word for word, and where."""
        for length, by_start in self._whole.items():
            for start, gram in enumerate(_grams(words, length).tolist()):
                for i in by_start.get(gram, ()):
                    item = self._items[i].words
                    if tuple(words[start : start + len(item)]) == item:
                        yield i, start


NO_WORDS = re.compile(
    r"\[asy\].*?\[/asy\]|^[ \t]*\**(?:premise|hypothesis|problem|question)\**[ \t]*:",
    re.DOTALL | re.MULTILINE | re.I,
)


def _without_figures(text: str) -> str:
    return NO_WORDS.sub(" ", text)


def _filled(benchmarks: Mapping[str, Iterable[tuple[str, str]]]) -> list[tuple[str, list[tuple[str, str]]]]:
    filled = [(name, list(items)) for name, items in benchmarks.items()]
    if not filled:
        raise ValueError("there are no benchmarks, so that no text would ever be a hit: give at least one.")
    if empty := [name for name, items in filled if not items]:
        raise ValueError(f"benchmark {empty[0]!r} has no items: leave it out, or read it again.")
    return filled


def _item(benchmark: str, name: str, text: str, n: int) -> _Item:
    where = f"item {name!r} of benchmark {benchmark!r}"
    _require_text(text, where)
    words = tuple(tokens(_without_figures(text)))
    if not words:
        raise ValueError(f"{where} holds no words ({text[:60]!r}): drop it, or read another column.")
    return _Item(benchmark, str(name), words, np.unique(_grams(words, n)))


def _longest_run(grams: np.ndarray, of: np.ndarray, n: int) -> tuple[int, int]:
    """Start and end, in words, of the longest stretch of which every n-gram is one of `of`; the first of several."""
    inside = np.concatenate([[False], np.isin(grams, of), [False]])
    starts, ends = np.flatnonzero(np.diff(inside)).reshape(-1, 2).T
    longest = int((ends - starts).argmax())
    return int(starts[longest]), int(ends[longest]) + n - 1


def _passage(text: str, start: int, end: int) -> str:
    plain = _plain(_without_figures(text))
    spans = [(first, last) for _, first, last in _lexed(plain)]
    return plain[spans[start][0] : spans[end - 1][1]]


# ---- benchmarks -----------------------------------------------------------------------------------------------------

COLUMNS = (("prompt",), ("question",), ("problem",), ("premise", "hypothesis"))


def load_benchmarks(sources: Sequence[str]) -> dict[str, list[tuple[str, str]]]:
    """Read the items of benchmarks, for `Decontaminator`.

    A Hub data set of several splits gives its split `test`; where it has none, what `load_rows` takes.

    Args:
        sources: Files or Hub ids as in `load_rows`, with a column `prompt`, `question` or `problem`, or `premise` and
            `hypothesis`. The stem of each, such as `math500` of `data/math500.jsonl`, names the benchmark.

    Returns:
        By name, the id and the text of each item. The id is that of the column `id`, without one the number of the row.

    Raises:
        ValueError: Sources that cannot be read, or of the same name; none of these columns; a cell without text.
    """
    if isinstance(sources, str):
        raise ValueError(f"sources is one text, {sources!r}: give a list of paths or Hub ids.")
    benchmarks: dict[str, list[tuple[str, str]]] = {}
    named: dict[str, str] = {}
    for source in map(str, sources):
        name = Path(source).stem if Path(source).suffix.lower() in READERS else Path(source).name
        if name in named:
            raise ValueError(f"{named[name]} and {source} are both called {name!r}: rename one, or leave one out.")
        named[name] = source
        benchmarks[name] = _read_items(source)
    return benchmarks


def _read_items(source: str) -> list[tuple[str, str]]:
    try:
        dataset = load_rows(source, split="test")
    except ValueError:  # no splits, or none of this name; what else is wrong is said again
        dataset = load_rows(source)
    columns = next((columns for columns in COLUMNS if set(columns) <= set(dataset.column_names)), None)
    if columns is None:
        raise ValueError(
            f"{source} has no column prompt, question or problem, nor premise and hypothesis; columns found: "
            f"{', '.join(dataset.column_names)}. Rename the one that holds the problem."
        )
    items = []
    for i, row in enumerate(dataset.with_format(None)):
        cells, name = dict(row), dict(row).get("id", i)  # type: ignore[arg-type]
        if name is None:
            raise ValueError(f"{source}, row {i}: the id is null; fill it, or drop the column.")
        for column in columns:
            if not isinstance(cells[column], str) or not cells[column].strip():
                raise ValueError(
                    f"{source}, {describe(i, str(name))}: {column} is {cells[column]!r}, not a text; drop the row or fill it."
                )
        items.append((str(name), "\n".join(cells[column] for column in columns)))
    return items
