"""The evaluate metric, against an eigen-decomposition written out here."""

import inspect
import multiprocessing
import warnings

import evaluate
import numpy as np
import pytest
from datasets import Dataset

from hf_prism.metric import TEXT_OPTIONS, GVendi


KEYS = ["g_vendi", "g_vendi_debiased", "interval", "order", "n", "dim", "saturation", "feature_id"]
ROWS = np.random.default_rng(0).standard_normal((60, 8)).astype(np.float32) * np.linspace(0.2, 3, 8, dtype=np.float32)


def textbook(rows, order=1.0):
    """exp of the Renyi entropy of the eigenvalues of the Gram matrix of the unit rows, over n."""
    rows = np.asarray(rows, dtype=np.float64)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    p = np.linalg.eigvalsh(unit @ unit.T / len(unit))
    p = p[p > 1e-12]
    if order == 1:
        return np.exp(-(p * np.log(p)).sum())
    return 1 / p.max() if np.isinf(order) else (p**order).sum() ** (1 / (1 - order))


def same(first, second, rel=1e-9):
    """Equal results, numbers within `rel`."""
    assert first.keys() == second.keys()
    for key, value in first.items():
        exact = value is None or isinstance(value, str) or key == "notes"
        assert second[key] == (value if exact else pytest.approx(value, rel=rel)), key
    return True


@pytest.fixture
def metric(tmp_path):
    return GVendi(cache_dir=str(tmp_path))


def test_result_has_the_frozen_keys_in_order(metric):
    result = metric.compute(gradients=ROWS, feature_id="abc")
    assert [key for key in result if key != "notes"] == KEYS
    assert (result["n"], result["dim"], result["order"], result["feature_id"]) == (60, 8, 1.0, "abc")
    assert result["saturation"] == pytest.approx(result["g_vendi"] / 8)
    assert metric.name == "g_vendi"


@pytest.mark.parametrize("order", [0.5, 1, 2, float("inf")])
def test_score_equals_the_textbook_for_every_order(metric, order):
    assert metric.compute(gradients=ROWS, order=order)["g_vendi"] == pytest.approx(textbook(ROWS, order), rel=1e-6)


@pytest.mark.parametrize("container", ["list", "tensor", "bfloat16", "float16", "float64", "column", "dataset"])
def test_any_container_gives_the_same_score(metric, container):
    import torch

    dataset = Dataset.from_dict({"gradient": ROWS.tolist()})
    gradients = {
        "list": ROWS.tolist(),
        "tensor": torch.tensor(ROWS, requires_grad=True),
        "bfloat16": torch.tensor(ROWS).bfloat16(),
        "float16": ROWS.astype(np.float16),
        "float64": ROWS.astype(np.float64) * 1e200,  # beyond float32
        "column": dataset["gradient"],
        "dataset": dataset,
    }[container]
    rel = {"bfloat16": 1e-2, "float16": 1e-3}.get(container, 1e-6)
    assert metric.compute(gradients=gradients)["g_vendi"] == pytest.approx(textbook(ROWS), rel=rel)


def test_added_rows_score_as_computed_at_once(metric):
    ids = [f"r{i}" for i in range(60)]
    once = metric.compute(gradients=ROWS, ids=ids)
    metric.add_batch(gradients=ROWS[:25], ids=ids[:25])
    metric.add(gradients=ROWS[25], ids=ids[25])
    metric.add_batch(gradients=ROWS[26:26], ids=[])
    metric.add_batch(gradients=ROWS[26:40].tolist(), ids=ids[26:40])
    added = metric.compute(gradients=ROWS[40:], ids=ids[40:])
    assert same(added, once)


def test_more_rows_than_one_arrow_batch(metric):
    rows = np.random.default_rng(1).standard_normal((9000, 3), dtype=np.float32)
    result = metric.compute(gradients=rows)
    assert result["n"] == 9000
    unit = rows.astype(np.float64) / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    p = np.linalg.eigvalsh(unit.T @ unit / 9000)
    assert result["g_vendi"] == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-6)


def test_result_in_memory_is_the_same(tmp_path):
    metric = GVendi(cache_dir=str(tmp_path), keep_in_memory=True)
    assert metric.compute(gradients=ROWS)["g_vendi"] == pytest.approx(textbook(ROWS), rel=1e-6)


def test_one_row_scores_one(metric):
    assert metric.compute(gradients=ROWS[:1])["g_vendi"] == 1.0


def test_none_rows_are_left_out(metric):
    """A featurizer with on_empty="skip" leaves None; ids keep their rows."""
    result = metric.compute(gradients=[ROWS[0], None, ROWS[1]], ids=["a", "b", "c"])
    assert result["n"] == 2
    assert result["g_vendi"] == pytest.approx(textbook(ROWS[:2]), rel=1e-6)


def test_ids_reach_the_jackknife_groups(metric):
    """The interval follows the grouping, the grouping follows the ids, whatever the order of the rows."""
    rows, ids = np.repeat(ROWS, 5, axis=0) + np.arange(300)[:, None] % 7 * 0.01, [f"r{i}" for i in range(300)]
    first = metric.compute(gradients=rows, ids=ids)["interval"]
    assert metric.compute(gradients=rows[::-1], ids=ids[::-1])["interval"] == pytest.approx(first, rel=1e-9)
    assert metric.compute(gradients=rows, ids=ids[::-1])["interval"] != pytest.approx(first, rel=1e-9)


BAD = {
    "nothing": ({}, "nothing to score"),
    "misspelt input": ({"gradient": ROWS}, r"nothing to score \(keywords given: \['gradient'\]\)"),
    "no rows": ({"gradients": []}, "0 rows"),
    "no texts": ({"prompts": [], "completions": []}, "0 rows"),
    "only None": ({"gradients": [None]}, "at least one row"),
    "NaN": ({"gradients": [[1.0, 2.0], [1.0, float("nan")]]}, "row 1 holds NaN"),
    "zero row": ({"gradients": [[1.0, 2.0], [0.0, 0.0]]}, "row 1 is all zeros"),
    "zero row with id": ({"gradients": [[1.0], [0.0]], "ids": ["a", "b"]}, "row 1 .*'b'"),
    "ragged": ({"gradients": [[1.0, 2.0], [1.0]]}, "row 1 has shape"),
    "one vector": ({"gradients": [1.0, 2.0]}, r"list of d numbers"),
    "text as gradients": ({"gradients": ["a", "b"]}, "numbers"),
    "two kinds": ({"gradients": ROWS, "prompts": ["a"], "completions": ["b"]}, "either gradients, or both"),
    "half a text": ({"prompts": ["a"]}, "either gradients, or both"),
    "ids alone": ({"ids": ["a"]}, "either gradients, or both"),
    "lengths": ({"prompts": ["a", "b"], "completions": ["c"]}, "'prompts': 2, 'completions': 1"),
    "length of ids": ({"gradients": ROWS, "ids": ["a"]}, "'gradients': 60, 'ids': 1"),
    "repeated ids": ({"gradients": ROWS[:2], "ids": [7, 7]}, "'7' is repeated"),
    "not a list": ({"prompts": "a", "completions": "b"}, "prompts is one string, 'a'"),
    "null text": ({"prompts": ["a", None], "completions": ["b", "c"]}, r"prompts\[1\] is NoneType"),
    "messages": ({"prompts": [[{"role": "user"}]], "completions": ["b"]}, r"prompts\[0\] is list"),
    "order": ({"gradients": ROWS, "order": 0}, "order 0"),
    "model": ({"prompts": ["a"], "completions": ["b"], "model_id": "./no/such/model"}, "no/such/model"),
}


@pytest.mark.parametrize("inputs, message", BAD.values(), ids=BAD.keys())
def test_bad_input_is_named_and_leaves_nothing_behind(metric, inputs, message, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match=message):
            metric.compute(**inputs)
    assert not list(tmp_path.rglob("*.arrow"))
    assert metric.compute(gradients=ROWS[:5])["n"] == 5


def test_a_bad_batch_adds_none_of_its_rows(metric):
    """Rows are checked in blocks of thousands; the good blocks before a bad one must not stay."""
    metric.add_batch(gradients=ROWS)
    rows = np.ones((9000, 8), dtype=np.float32)
    rows[8999, 0] = np.inf
    with pytest.raises(ValueError, match="row 8999 holds NaN or infinity"):
        metric.add_batch(gradients=rows)
    with pytest.raises(ValueError, match=r"\['gradients'\].*one kind of rows|after rows with \['gradients'\]"):
        metric.add_batch(prompts=["a"], completions=["b"])
    assert metric.compute()["g_vendi"] == pytest.approx(textbook(ROWS), rel=1e-6)


def test_batches_of_different_width_are_an_error(metric):
    metric.add_batch(gradients=ROWS)
    metric.add_batch(gradients=ROWS[:, :4])
    with pytest.raises(ValueError, match="row 60 has 4 numbers"):
        metric.compute()


def test_unused_keyword_is_reported_not_swallowed(metric):
    with pytest.warns(UserWarning, match=r"\['dims'\]"):
        metric.compute(gradients=ROWS, dims=3)


def test_combines_with_other_metrics(metric, tmp_path):
    other = type("Other", (GVendi,), {"__doc__": "Another metric."})(cache_dir=str(tmp_path))
    both = evaluate.combine([metric, other], force_prefix=True)
    both.add_batch(gradients=ROWS, predictions=[1])
    result = both.compute()
    assert result["g_vendi_g_vendi"] == result["other_g_vendi"] == pytest.approx(textbook(ROWS), rel=1e-6)
    with pytest.warns(UserWarning, match="average"):
        both.compute(gradients=ROWS, predictions=[1], references=[1], average="macro")


def test_unknown_configuration_is_an_error():
    with pytest.raises(ValueError, match="no configuration 'texts'"):
        GVendi("texts")


def _rank(rank, folder, results):
    metric = GVendi(cache_dir=folder, num_process=2, process_id=rank, experiment_id="test", timeout=60)
    for rows in np.array_split(ROWS[rank::2], 3):
        metric.add_batch(gradients=rows)
    results.put((rank, metric.compute()))


def test_two_processes_score_all_rows_on_the_main_one(tmp_path):
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    processes = [context.Process(target=_rank, args=(rank, str(tmp_path), results)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    by_rank = dict(results.get() for _ in processes)
    assert by_rank[1] is None
    assert by_rank[0]["n"] == 60
    assert by_rank[0]["g_vendi"] == pytest.approx(textbook(ROWS), rel=1e-6)


def test_text_options_are_options_of_the_featurizer():
    from hf_prism.featurizer import GradientFeaturizer

    assert set(TEXT_OPTIONS) - {"model_id"} <= set(inspect.signature(GradientFeaturizer).parameters)


TEXTS = {
    "prompts": ["Tom has 2 apples and buys 3. How many?", "What is 7 times 6?", "What is 7 times 6?"],
    "completions": ["2 + 3 = 5", "7 * 6 = 42", "The answer is 42."],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny random proxy on disk."""
    from helpers import save_tiny_model

    path = tmp_path_factory.mktemp("proxy")
    save_tiny_model(path, "qwen2")
    return str(path)


def test_texts_score_as_their_gradients(metric, folder):
    from hf_prism import GradientFeaturizer

    featurizer = GradientFeaturizer(folder, dim=64, seed=3)
    rows = [{"prompt": p, "completion": c} for p, c in zip(*TEXTS.values(), strict=True)]
    gradients = [featurizer(row)["gradient"] for row in rows]
    result = metric.compute(**TEXTS, model_id=folder, dim=64, seed=3)
    assert result["g_vendi"] == pytest.approx(textbook(gradients), rel=1e-5)
    assert (result["n"], result["dim"], result["feature_id"]) == (3, 64, featurizer.feature_id)

    metric.add_batch(prompts=TEXTS["prompts"][:1], completions=TEXTS["completions"][:1])
    metric.add(prompts=TEXTS["prompts"][1], completions=TEXTS["completions"][1])
    metric.add(prompts=TEXTS["prompts"][2], completions=TEXTS["completions"][2])
    assert same(metric.compute(model_id=folder, dim=64, seed=3), result, rel=1e-5)
    assert metric.compute(gradients=ROWS)["g_vendi"] == pytest.approx(textbook(ROWS), rel=1e-6)  # and back


def test_bad_text_is_named_by_its_row(metric, folder):
    texts = TEXTS | {"completions": ["5", "", "42"]}
    with pytest.raises(ValueError, match="row 1"):
        metric.compute(**texts, model_id=folder)
    result = metric.compute(**texts, model_id=folder, on_empty="skip")
    assert result["n"] == 2


def test_embedded_proxy_scores_texts(metric):
    repeated = metric.compute(prompts=["What is 2 + 3?"] * 6, completions=["5"] * 6, model_id="embedded")
    varied = metric.compute(**TEXTS, model_id="embedded")
    assert repeated["g_vendi"] == pytest.approx(1, abs=1e-4)
    assert varied["g_vendi"] > 1.5
