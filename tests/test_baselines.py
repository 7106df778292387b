"""Every measure against a count by hand, a closed form or another library, and what must not change it."""

from __future__ import annotations

import doctest
import gzip
import inspect
import math
import random
import re
import shutil
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import datasets
import numpy as np
import pytest
import scipy.sparse
import scipy.spatial.distance
import scipy.special
import scipy.stats
from helpers import TEXTS, tiny_config, tiny_tokenizer
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.metrics import mutual_info_score
from sklearn.metrics.pairwise import cosine_similarity

from hf_prism import baselines, g_vendi
from hf_prism.baselines import (
    MEASURES,
    compression_ratio,
    dcscore,
    distinct_n,
    embed,
    embedding_vendi,
    mean_gradient_norm,
    mean_pairwise_distance,
    mean_perplexity,
    measure,
    ngram_entropy,
    partition_entropy,
    skill_set_entropy,
    word_vendi,
)


DOCS = Path(__file__).parents[1] / "docs" / "baselines.md"
WORDS = "the cat sat on a mat and Then 12 3.5 dogs, don't? run_fast é ... 7".split()


def random_texts(n: int, seed: int = 0) -> list[str]:
    """Texts of no to eleven words, of which some repeat."""
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randrange(12))) for _ in range(n)]


def random_rows(n: int, dim: int, seed: int = 0) -> np.ndarray:
    """Rows of various lengths around one direction."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((n, dim)) + 0.5) * rng.uniform(0.1, 10, (n, 1))


def columns(n: int, seed: int = 0) -> dict[str, list]:
    """Something for every measure."""
    rng = np.random.default_rng(seed)
    skills = [[str(s) for s in rng.choice(["a", "b", "c"], rng.integers(0, 3))] for _ in range(n)]
    return {
        "texts": random_texts(n, seed),
        "gradients": random_rows(n, 16, seed).tolist(),
        "embeddings": random_rows(n, 5, seed + 1).tolist(),
        "clusters": rng.integers(-1, 6, n).tolist(),
        "labels": skills,
        "loss": rng.exponential(2, n).tolist(),
        "gradient_norm": rng.exponential(2, n).tolist(),
    }


# ---- texts ------------------------------------------------------------------------------------------------------------


def test_ngram_measures_are_those_counted_by_hand():
    texts = ["A b, a b.", "a b", "c", ""]  # bigrams: ab b, ,a ab b. ab
    assert distinct_n(texts) == 4 / 6
    assert ngram_entropy(texts, n=2) == pytest.approx(-(0.5 * math.log(0.5) + 3 / 6 * math.log(1 / 6)), rel=1e-14)
    assert distinct_n(texts, n=1) == 5 / 9
    assert distinct_n(["a b c d e"], n=5) == 1 and ngram_entropy(["a b c d e"], n=5) == 0


def test_ngram_measures_are_those_published():
    # Card of the measurement lsy641/distinct, which splits at spaces: so without its punctuation.
    texts = ["Hi", "I am sorry to hear that", "I dont know", "Do you know who that person is"]
    assert distinct_n(texts, n=1) == pytest.approx(0.8235294117647058, rel=1e-14)
    # The authors' example for Ent-1 in hyperconnect/sem-ent, which is in bits.
    bits = -(4 / 5 * math.log2(2 / 5) + 1 / 5 * math.log2(1 / 5))
    assert ngram_entropy(["Hello", "Hello World", "World Hi"], n=1) == pytest.approx(bits * math.log(2), rel=1e-14)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7])
def test_ngram_measures_agree_with_scikit_learn(n):
    texts = random_texts(300)
    vectorizer = CountVectorizer(ngram_range=(n, n), token_pattern=r"\w+|[^\w\s]")
    counts = scipy.sparse.csr_array(vectorizer.fit_transform(texts)).sum(axis=0)
    assert distinct_n(texts, n) == pytest.approx(len(counts) / counts.sum(), rel=1e-14)
    assert ngram_entropy(texts, n) == pytest.approx(scipy.stats.entropy(counts), rel=1e-12)


def test_ngrams_are_those_the_papers_report():
    assert inspect.signature(distinct_n).parameters["n"].default == 2
    assert inspect.signature(ngram_entropy).parameters["n"].default == 4


def test_distinct_n_falls_with_size_and_halves_when_every_row_is_there_twice():
    texts = random_texts(200)
    assert distinct_n(texts + texts) == pytest.approx(distinct_n(texts) / 2, rel=1e-14)
    assert distinct_n(texts) < distinct_n(texts[:50]) < distinct_n(texts[:10])


def test_compression_ratio_is_bytes_over_gzipped_bytes():
    text = "One text has no order of rows: é, 7.\n" * 3
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    packed = packer.compress(text.encode()) + packer.flush()
    assert compression_ratio([text]) == len(text.encode()) / len(packed)
    assert len(text.encode()) == len(text) + 3  # bytes, not characters
    same = "\n".join(["again"] * 400).encode()
    assert compression_ratio(["again"] * 400) == len(same) / len(gzip.compress(same))


@pytest.mark.skipif(not shutil.which("gzip"), reason="needs the program gzip")
def test_compression_ratio_is_that_of_the_program_gzip_on_a_shuffled_file():
    texts = random_texts(2000)
    random.Random(1).shuffle(texts)
    joined = "\n".join(texts).encode()
    packed = subprocess.run(["gzip", "-9", "-n"], input=joined, capture_output=True, check=True).stdout
    assert compression_ratio(texts) == pytest.approx(len(joined) / len(packed), rel=0.01)


def test_compression_ratio_sees_only_repeats_that_gzip_sees():
    """Equal rows must not be sorted side by side: the measure is that of a shuffled file."""
    rng = random.Random(0)
    texts = ["".join(rng.choices("abcdefghijklmnop", k=1000)) for _ in range(400)]  # 12 windows of gzip
    assert compression_ratio(texts + texts) < 1.15 * compression_ratio(texts)
    assert compression_ratio(texts[:8] * 2) > 1.6 * compression_ratio(texts[:8])


def test_surrogates_of_broken_json_are_text():
    assert compression_ratio(["\ud800 broken", "not"]) > 0 and distinct_n(["\ud800 a", "a"], n=1) > 0


# ---- vectors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n, dim", [(12, 40), (40, 12)])
def test_embedding_vendi_is_the_entropy_of_the_cosine_kernel(n, dim):
    rows = random_rows(n, dim)
    shares = np.linalg.eigvalsh(cosine_similarity(rows) / n)
    assert embedding_vendi(rows) == pytest.approx(math.exp(scipy.stats.entropy(shares.clip(0))), rel=1e-10)
    assert embedding_vendi(rows) == pytest.approx(g_vendi(rows).g_vendi, rel=1e-12)


def test_mean_pairwise_distance_is_that_of_all_pairs():
    rows = random_rows(2500, 7)  # three blocks
    expected = scipy.spatial.distance.pdist(rows, "cosine").mean()
    assert mean_pairwise_distance(rows) == pytest.approx(expected, rel=1e-12)
    assert mean_pairwise_distance(np.eye(5)) == pytest.approx(1, rel=1e-14)
    assert mean_pairwise_distance([[1.0, 2.0], [-2.0, -4.0]]) == pytest.approx(2, rel=1e-14)
    equal = [mean_pairwise_distance(np.tile(rows[0], (n, 1))) for n in range(2, 200)]
    assert min(equal) >= 0 and max(equal) < 1e-12  # rounding must not make a distance negative


@pytest.mark.parametrize("temperature", [0.05, 1.0, 3.0])
def test_dcscore_is_the_trace_of_the_softmax(temperature, monkeypatch):
    rows = random_rows(100, 6)
    expected = np.trace(scipy.special.softmax(cosine_similarity(rows) / temperature, axis=1))
    assert dcscore(rows, temperature) == pytest.approx(expected, rel=1e-12)
    monkeypatch.setattr(baselines, "ROWS_AT_A_TIME", 7)
    assert dcscore(rows, temperature) == pytest.approx(expected, rel=1e-12)


def test_dcscore_has_its_closed_forms():
    assert dcscore(np.ones((30, 4))) == pytest.approx(1, rel=1e-12)
    assert dcscore(np.eye(30)) == pytest.approx(30 * math.e / (29 + math.e), rel=1e-12)
    assert dcscore(np.eye(30), temperature=0.01) == pytest.approx(30, rel=1e-12)
    assert dcscore([[2.0, 1.0]]) == pytest.approx(1, rel=1e-12)


def test_dcscore_and_distance_never_hold_all_pairs():
    rows = random_rows(4000, 4)
    tracemalloc.start()
    dcscore(rows)
    mean_pairwise_distance(rows)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4000 * 4000 * 8 / 8


def test_rows_without_a_vector_are_left_out():
    rows = random_rows(9, 3).tolist()
    holes = [None, *rows[:4], None, *rows[4:]]
    for function in (embedding_vendi, mean_pairwise_distance, dcscore):
        assert function(holes) == pytest.approx(function(rows), rel=1e-12)


@pytest.mark.parametrize("function", [embedding_vendi, mean_pairwise_distance, dcscore])
def test_vectors_without_a_direction_are_refused(function):
    for bad in ([math.nan, 1.0], [0.0, 0.0]):
        with pytest.raises(ValueError, match="row 1"):
            function([[1.0, 2.0], bad, [1.0, 0.0]])
    with pytest.raises(ValueError, match="at least"):
        function([])


def test_one_row_has_no_pair():
    with pytest.raises(ValueError, match="at least two rows, and there is 1"):
        mean_pairwise_distance([[1.0, 2.0]])


@pytest.mark.parametrize("temperature", [0, -1.0, math.nan, math.inf, 1e-9])
def test_temperature_must_divide(temperature):
    with pytest.raises(ValueError, match="temperature"):
        dcscore(np.eye(3), temperature)


# ---- labels and numbers -----------------------------------------------------------------------------------------------


def test_partition_entropy_is_that_of_the_shares():
    labels = np.random.default_rng(0).integers(0, 9, 500)
    assert partition_entropy(labels) == pytest.approx(mutual_info_score(labels, labels), rel=1e-12)
    assert partition_entropy(np.repeat([3, 5, 8], [2, 1, 1])) == pytest.approx(1.5 * math.log(2), rel=1e-14)
    assert partition_entropy([-1, 4, -1, 9]) == pytest.approx(math.log(2), rel=1e-14)
    assert partition_entropy([0, 0]) == 0


@pytest.mark.parametrize("bad", [None, 1.5, -2, "a", True, math.nan])
def test_cluster_labels_are_whole_numbers(bad):
    with pytest.raises(ValueError, match="row 2 has the cluster label"):
        partition_entropy([0, 1, bad])


def test_rows_in_no_cluster_have_no_entropy():
    with pytest.raises(ValueError, match="all 2 rows have the cluster label -1"):
        partition_entropy([-1, -1])


def test_skill_sets_are_sets():
    labels = [["algebra", "primes"], ("primes", "algebra", "primes"), "algebra", ["algebra"], [], [7]]
    # {algebra, primes} twice, {algebra} twice, {} and {7} once
    assert skill_set_entropy(labels) == pytest.approx(2 / 3 * math.log(3) + 1 / 3 * math.log(6), rel=1e-14)
    assert skill_set_entropy(["x", "y", "y", "x"]) == pytest.approx(math.log(2), rel=1e-14)
    assert skill_set_entropy(np.array(["x", "y"])) == pytest.approx(math.log(2), rel=1e-14)
    assert skill_set_entropy(np.array([[1, 2], [2, 1]])) == 0


@pytest.mark.parametrize("bad", [None, math.nan, ["a", None], {"a": 1}, [["a"]]])
def test_labels_are_text_or_numbers(bad):
    with pytest.raises(ValueError, match="row 1 holds the label"):
        skill_set_entropy(["a", bad])


def test_mean_perplexity_and_norm_are_means_over_rows():
    assert mean_perplexity([0.0, math.log(3), math.log(8)]) == pytest.approx(4, rel=1e-14)
    assert mean_gradient_norm([1, 2.5, 4]) == pytest.approx(2.5, rel=1e-14)
    losses = np.random.default_rng(0).exponential(3, 1000).astype(np.float32)
    assert mean_perplexity(losses) == pytest.approx(np.exp(losses.astype(np.float64)).mean(), rel=1e-12)


def test_perplexity_beyond_floating_point_names_the_row():
    with pytest.raises(ValueError, match=r"row 1 has the loss 710\.0"):
        mean_perplexity([1.0, 710.0, 3.0])
    assert mean_perplexity([709.7, 709.7]) == pytest.approx(math.exp(709.7), rel=1e-12)  # their sum is beyond it


@pytest.mark.parametrize("function", [mean_perplexity, mean_gradient_norm])
@pytest.mark.parametrize("bad", [None, math.nan, math.inf, "1.0", True])
def test_numbers_are_finite_numbers(function, bad):
    with pytest.raises(ValueError, match="row 1 has the .*finite"):
        function([1.0, bad, 2.0])


def test_a_length_is_not_negative():
    with pytest.raises(ValueError, match=r"row 1 has the gradient norm -0\.5"):
        mean_gradient_norm([1.0, -0.5])


# ---- bad texts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [distinct_n, ngram_entropy, compression_ratio])
@pytest.mark.parametrize("bad", [None, 3, math.nan, ["a"]])
def test_texts_are_text(function, bad):
    with pytest.raises(ValueError, match="row 1 holds .* in place of text"):
        function(["a b c d e", bad])


def test_texts_shorter_than_the_ngram_are_an_error():
    with pytest.raises(ValueError, match="longest of 2 texts has 3 words, so there are no n-grams of 4"):
        ngram_entropy(["a b c", "d"])
    with pytest.raises(ValueError, match="longest of 1 texts has 0 words"):
        distinct_n([" "])
    with pytest.raises(ValueError, match="all 2 texts are empty"):
        compression_ratio(["", ""])


@pytest.mark.parametrize("n", [0, -1, 1.5, True])
def test_ngrams_have_a_whole_number_of_words(n):
    with pytest.raises(ValueError, match="n must be a whole number"):
        distinct_n(["a b"], n)


# ---- the table --------------------------------------------------------------------------------------------------------


def test_measure_evaluates_what_is_given():
    given = columns(40)
    assert list(measure(**given)) == [line.key for line in MEASURES]
    assert measure(loss=[0.0, 0.0], texts=None) == {"mean_perplexity": 1.0}
    for line in MEASURES:
        assert measure(**{line.reads: given[line.reads]})[line.key] == line.function(given[line.reads])
    assert len({line.key for line in MEASURES}) == len(MEASURES)


def test_word_vendi_is_the_entropy_of_the_spectrum_of_the_cosines_of_word_counts():
    words = [f"w{i}" for i in range(12)]  # few enough that no two share a bucket
    draw = random.Random(3)
    texts = [" ".join(draw.choices(words, k=9)) for _ in range(40)]
    counts = np.array([[text.split().count(word) for word in words] for text in texts], dtype=float)
    counts /= np.linalg.norm(counts, axis=1, keepdims=True)
    shares = np.linalg.eigvalsh(counts @ counts.T / 40)
    shares = shares[shares > 1e-12]
    assert word_vendi(texts) == pytest.approx(math.exp(-(shares @ np.log(shares))), rel=1e-9)
    assert word_vendi(["A b!", "b a !"]) == pytest.approx(1)  # neither case nor order counts
    assert word_vendi(["", " "]) == pytest.approx(1)


def test_every_measure_cites_its_source_in_its_docstring():
    for line in MEASURES:
        text = " ".join((line.function.__doc__ or "").split())
        author, year, *arxiv = re.findall(r"^\w+|\b\d{4}\b(?=,|$)|\d{4}\.\d{5}", line.source)
        assert author in text and year in text and all(number in text for number in arxiv)
        assert line.reads_as in (baselines.MORE, baselines.LESS, baselines.NEITHER)


def test_order_of_rows_changes_nothing():
    given, order = columns(400), np.random.default_rng(1).permutation(400)
    shuffled = measure(**{name: [values[i] for i in order] for name, values in given.items()})
    rounding = {"word_vendi", "embedding_vendi", "embedding_distance", "gradient_distance", "dcscore"}
    for key, value in measure(**given).items():
        assert shuffled[key] == pytest.approx(value, rel=1e-12) if key in rounding else shuffled[key] == value, key


def test_every_row_twice_changes_only_what_counts_rows():
    n, given = 100, columns(100)
    once, twice = measure(**given), measure(**{name: values * 2 for name, values in given.items()})
    assert twice["distinct_2"] == pytest.approx(once["distinct_2"] / 2, rel=1e-12)
    for key in ("embedding_distance", "gradient_distance"):  # n of the 2 n - 1 others of a row are none of its copies
        assert twice[key] == pytest.approx(once[key] * 2 * (n - 1) / (2 * n - 1), rel=1e-12)
    assert twice["compression_ratio"] > once["compression_ratio"]
    counting = {"distinct_2", "embedding_distance", "gradient_distance", "compression_ratio"}
    for key in set(once) - counting:
        assert twice[key] == pytest.approx(once[key], rel=1e-12), key


def test_columns_come_in_any_container():
    given = columns(30)
    expected = measure(**given)
    dataset = datasets.Dataset.from_dict(given)
    assert measure(**{name: dataset[name] for name in given}) == pytest.approx(expected, rel=1e-12)
    arrays = {name: np.array(values) if name not in ("labels",) else values for name, values in given.items()}
    assert measure(**arrays) == pytest.approx(expected, rel=1e-12)


def test_unknown_missing_and_unequal_inputs_are_named():
    with pytest.raises(ValueError, match="no measure reads text: give .* texts, embeddings, gradients, clusters"):
        measure(text=["a"])
    with pytest.raises(ValueError, match="nothing to measure"):
        measure()
    with pytest.raises(ValueError, match="nothing to measure"):
        measure(texts=None)
    with pytest.raises(ValueError, match="2 of clusters, 3 of loss"):
        measure(clusters=[0, 1], loss=[1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="one for each row; found the single text 'abc'"):
        measure(texts="abc")


@pytest.mark.parametrize("name", ["texts", "gradients", "embeddings", "clusters", "labels", "loss", "gradient_norm"])
def test_no_rows_are_an_error(name):
    with pytest.raises(ValueError, match="at least (one|two)"):
        measure(**{name: []})


def test_importing_needs_numpy_only():
    code = "import hf_prism.baselines, sys; print(*{'torch', 'datasets', 'scipy', 'sentence_transformers'} & set(sys.modules))"
    assert not subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


# ---- embeddings -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> str:
    """A tiny encoder on disk; sentence-transformers takes the mean over the tokens of an encoder that says nothing else."""
    pytest.importorskip("sentence_transformers")
    import torch
    from transformers import AutoModel

    folder = str(tmp_path_factory.mktemp("encoder"))
    torch.manual_seed(0)
    AutoModel.from_config(tiny_config("bert")).save_pretrained(folder)
    tiny_tokenizer(chat_template=None).save_pretrained(folder)
    return folder


def test_embed_is_the_mean_of_the_last_hidden_states(encoder):
    import torch
    from transformers import AutoModel, AutoTokenizer

    model, tokenizer = AutoModel.from_pretrained(encoder).eval(), AutoTokenizer.from_pretrained(encoder)
    with torch.no_grad():
        states = [model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0) for text in TEXTS]
    embeddings = embed(TEXTS, encoder)
    assert embeddings.dtype == np.float32 and embeddings.shape == (len(TEXTS), 32)
    np.testing.assert_allclose(embeddings, torch.stack(states).numpy(), atol=1e-5)
    assert 1 < embedding_vendi(embeddings) <= len(TEXTS)


def test_a_model_that_is_stored_in_bfloat16_embeds_in_float32(encoder, tmp_path):
    import torch
    from transformers import AutoModel, AutoTokenizer

    AutoModel.from_pretrained(encoder).bfloat16().save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    tokenizer.save_pretrained(tmp_path)
    model = AutoModel.from_pretrained(tmp_path, dtype=torch.float32).eval()
    with torch.no_grad():
        states = [model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0) for text in TEXTS]
    np.testing.assert_allclose(embed(TEXTS, str(tmp_path)), torch.stack(states).numpy(), atol=1e-5)


def test_embed_takes_a_loaded_model_and_names_bad_rows_and_models(encoder, tmp_path):
    from sentence_transformers import SentenceTransformer

    np.testing.assert_allclose(embed(TEXTS, SentenceTransformer(encoder)), embed(TEXTS, encoder), atol=1e-6)
    with pytest.raises(ValueError, match="row 1 holds None in place of text"):
        embed(["a", None], encoder)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"row 1 is empty \(2 such rows\)"):
        embed(["a", "", "\n"], encoder)
    with pytest.raises(ValueError, match="nothing-here.* could not be loaded"):
        embed(["a"], str(tmp_path / "nothing-here"))


def test_embed_without_sentence_transformers_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ValueError, match=r'pip install "hf-prism\[embeddings\]"'):
        embed(["a"], "any")


# ---- docs -------------------------------------------------------------------------------------------------------------


def test_examples_of_the_docstrings_hold():
    assert doctest.testmod(baselines).failed == 0


def test_docs_list_every_measure():
    rows = re.findall(
        r"^\| (.+?) \| `(\w+)` \| (\w+) \| (.+?) \| (.+?) \| .+ \|$", DOCS.read_text(encoding="utf-8"), re.M
    )
    assert rows == [(line.name, line.key, line.reads, line.reads_as, line.source) for line in MEASURES]


def test_snippet_of_the_docs_prints_what_it_says(capsys):
    ((code, output),) = re.findall(
        r"```python\n(.*?)```\n\n```text\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL
    )
    exec(code, {})
    assert capsys.readouterr().out == output
