"""The featurizer gives the same vectors through every door, and `datasets` caches it correctly."""

import json
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import datasets
import numpy as np
import pytest
import torch
from helpers import CHATML, save_tiny_model, tiny_tokenizer

from hf_prism import GradientFeaturizer
from hf_prism.batches import BATCH_TOKENS, plan_batches
from hf_prism.gradients import Batch, autograd_gradients
from hf_prism.proxy import EncodedRow
from hf_prism.samples import RowError


ROWS = [
    {
        "prompt": f"How many clips did Natalia sell in May? {'She sold half as many. ' * (i % 4)}{i}",
        "completion": f"{i} clips" * (1 + i % 3),
    }
    for i in range(12)
]


@pytest.fixture(scope="module")
def proxy(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("proxy")
    save_tiny_model(path, "qwen2", tokenizer=tiny_tokenizer(chat_template=CHATML))
    return str(path)


@pytest.fixture(scope="module")
def featurizer(proxy) -> GradientFeaturizer:
    return GradientFeaturizer(proxy, dim=64)


@pytest.fixture(scope="module")
def expected(featurizer) -> np.ndarray:
    """Unit vectors from plain autograd, one row at a time, through the map applied to the whole gradient."""
    rows = featurizer.proxy.encode_rows(ROWS)
    batch = Batch.collate([r.input_ids for r in rows], [r.completion_mask for r in rows])
    engine = featurizer.engine
    vectors = [featurizer.sketch.apply(g) for _, g in autograd_gradients(engine.model, batch, engine.structure)]
    return torch.nn.functional.normalize(torch.stack(vectors), dim=1).numpy()


def assert_same(got, expected):
    np.testing.assert_allclose(np.asarray(got, dtype=np.float64), expected, rtol=0, atol=1e-5)


def test_every_way_in_gives_the_autograd_vectors(featurizer, expected):
    plain = datasets.Dataset.from_list(ROWS)
    assert_same(featurizer({name: [row[name] for row in ROWS] for name in ROWS[0]})["gradient"], expected)
    assert_same([featurizer(row)["gradient"] for row in ROWS[:2]], expected[:2])
    assert_same(plain.map(featurizer)["gradient"], expected)
    assert_same(plain.map(featurizer, batched=True, batch_size=5)["gradient"], expected)
    streamed = plain.to_iterable_dataset().map(featurizer, batched=True, batch_size=5)
    assert_same([row["gradient"] for row in streamed], expected)
    assert_same([row["gradient"] for row in plain.to_iterable_dataset().map(featurizer)], expected)


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("batched", [False, True], ids=["rows", "batches"])
def test_formatted_data_sets_give_the_same_vectors(featurizer, expected, kind, batched):
    conversations = [
        {"messages": [{"role": role, "content": row[name]} for role, name in (("user", "prompt"), ("assistant", "completion"))]}
        for row in ROWS[:3]
    ]  # fmt: skip
    for rows in (ROWS[:3], conversations):
        mapped = datasets.Dataset.from_list(rows).with_format(kind).map(featurizer, batched=batched)
        assert_same(mapped.with_format(None)["gradient"], expected[:3])


def test_batches_are_told_from_rows_whatever_the_other_columns_hold(featurizer, expected):
    others = [{**row, "meta": {"source": "x"}, "tags": ["a", "b"]} for row in ROWS]
    table = datasets.Dataset.from_list(others)
    streamed = table.to_iterable_dataset()
    assert_same([row["gradient"] for row in streamed.map(featurizer, batched=True, batch_size=5)], expected)
    assert_same([row["gradient"] for row in streamed.map(featurizer)], expected)
    assert_same(featurizer(table[:])["gradient"], expected)
    assert_same(featurizer({name: table[name] for name in table.column_names})["gradient"], expected)
    assert_same(featurizer(table[1])["gradient"], expected[1])


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (ROWS, "list is neither a row nor a batch"),
        ("a prompt", "str is neither a row nor a batch.*input_columns"),
        ({"prompt": ["a", "b"], "completion": ["c"]}, "different numbers of rows.*'prompt': 2, 'completion': 1"),
        ({"messages": [], "tags": ["x"]}, "different numbers of rows"),
        ({}, "columns found: none"),
    ],
)
def test_what_is_no_row_and_no_batch_is_refused(featurizer, rows, said):
    with pytest.raises(ValueError, match=said):
        featurizer(rows)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"dim": 6}, "dim=6.*multiple of 4"),
        ({"dim": 64.0}, "dim=64.0 must be a whole number"),
        ({"seed": "0"}, "seed='0' must be a whole number"),
        ({"seed": None}, "seed=None must be a whole number"),
        ({"parameters": "("}, "not a regular expression"),
        ({"device": "gpu"}, "device='gpu' is no torch device"),
    ],
)
def test_impossible_options_are_refused_before_the_model_is_loaded(proxy, option, said):
    with pytest.raises(ValueError, match=said):
        GradientFeaturizer(proxy, **{"dim": 64, **option})


def test_a_device_that_is_not_there_is_refused(proxy, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="device='cuda:1': torch sees no CUDA device"):
        GradientFeaturizer(proxy, dim=64, device="cuda:1")(ROWS[0])


def test_nothing_asks_for_cuda_before_the_model_is_needed(proxy, monkeypatch):
    """Asking in a parent process makes CUDA unusable in the workers that it forks."""
    monkeypatch.setattr(torch.cuda, "is_available", None)
    featurizer = GradientFeaturizer(proxy, dim=64)
    featurizer.proxy.encode_rows(ROWS)
    assert pickle.loads(pickle.dumps(featurizer)).identity == featurizer.identity


def test_threads_take_turns(proxy, expected):
    shared = GradientFeaturizer(proxy, dim=64)
    with ThreadPoolExecutor(3) as pool:
        assert_same([row["gradient"] for row in pool.map(shared, ROWS)], expected)


def test_self_check_never_runs_plain_autograd_on_a_long_row(proxy, monkeypatch):
    lengths = []

    def reference(model, batch, *args):
        lengths.extend(batch.lengths)
        return autograd_gradients(model, batch, *args)

    monkeypatch.setattr("hf_prism.gradients.autograd_gradients", reference)
    monkeypatch.setattr("hf_prism.featurizer.CHECK_TOKENS", 16)
    GradientFeaturizer(proxy, dim=64)({"prompt": ["clips " * 60], "completion": ["clips " * 60]})
    assert lengths == [16]


def test_columns_are_unit_vectors_with_the_norm_loss_and_count_of_autograd(featurizer):
    out = featurizer(ROWS[3])
    assert list(out) == ["gradient", "gradient_norm", "loss", "num_tokens"]
    assert out["gradient"].dtype == np.float32 and out["gradient"].shape == (64,)
    assert np.linalg.norm(out["gradient"].astype(float)) == pytest.approx(1, abs=1e-6)
    encoded = featurizer.proxy.encode(ROWS[3])
    batch = Batch.collate([encoded.input_ids], [encoded.completion_mask])
    ((loss, gradient),) = autograd_gradients(featurizer.engine.model, batch, featurizer.engine.structure)
    assert out["loss"] == pytest.approx(loss, rel=1e-5)
    assert out["gradient_norm"] == pytest.approx(featurizer.sketch.apply(gradient).norm().item(), rel=1e-4)
    assert out["num_tokens"] == sum(encoded.completion_mask[1:])


def test_features_describe_what_map_writes(featurizer):
    plain = datasets.Dataset.from_list(ROWS)
    mapped = plain.map(featurizer, batched=True, features=datasets.Features({**plain.features, **featurizer.features}))
    assert mapped.features["gradient"] == datasets.List(datasets.Value("float32"), length=64)


def test_two_worker_processes_give_the_same_vectors(proxy, featurizer, expected):
    featurizer(ROWS[0])  # the parent has used its threads: a worker that inherits them must not hang
    plain = datasets.Dataset.from_list(ROWS)
    assert_same(plain.map(featurizer, batched=True, num_proc=2, with_rank=True)["gradient"], expected)


MAP_SCRIPT = """
import datasets, hf_prism.featurizer as module, json, sys
calls = []
original = module.GradientFeaturizer.featurize_rows
module.GradientFeaturizer.featurize_rows = lambda self, rows: (calls.append(len(rows)), original(self, rows))[1]
ds = datasets.load_from_disk(sys.argv[1])
ds.map(module.GradientFeaturizer(**json.loads(sys.argv[2])), batched=True)
print(sum(calls))
"""


def test_a_second_process_hits_the_cache_and_any_change_of_the_numbers_misses_it(proxy, tmp_path):
    data = tmp_path / "data"
    datasets.Dataset.from_list(ROWS[:3]).save_to_disk(data)

    def computed(**options) -> int:
        arguments = [sys.executable, "-c", MAP_SCRIPT, str(data), json.dumps({"model": proxy, "dim": 64, **options})]
        return int(subprocess.run(arguments, capture_output=True, text=True, check=True).stdout)

    assert computed() == 3
    assert computed() == 0
    assert computed(seed=1) == 3
    assert computed(chat_template=CHATML.replace("<|im_end|>\n", "<|im_end|>")) == 3
    save_tiny_model(tmp_path / "other", "qwen2", tokenizer=tiny_tokenizer(chat_template=CHATML), seed=1)
    assert computed(model=str(tmp_path / "other")) == 3


def test_pickle_carries_the_configuration_and_not_the_model(featurizer):
    featurizer(ROWS[0])
    state = pickle.dumps(featurizer)
    assert len(state) < 5000
    copy = pickle.loads(state)
    assert copy.identity == featurizer.identity and "proxy" not in vars(copy)
    assert copy.feature_id == featurizer.feature_id


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"dim": 128}, {"dtype": "bfloat16"}, {"parameters": "layers"}, {"max_length": 100}]
)
def test_feature_id_changes_with_everything_that_changes_the_numbers(proxy, featurizer, change):
    assert GradientFeaturizer(proxy, **{"dim": 64, **change}).feature_id != featurizer.feature_id


def test_feature_id_does_not_change_with_what_leaves_the_numbers_alone(proxy, featurizer, tmp_path):
    save_tiny_model(tmp_path, "qwen2", tokenizer=tiny_tokenizer(chat_template=CHATML))
    moved = GradientFeaturizer(str(tmp_path), dim=64, device="cpu", column_mapping={"prompt": "question"})
    assert moved.feature_id == featurizer.feature_id


def test_skipped_and_truncated_rows_stay_in_place_and_are_flagged(proxy):
    rows = [ROWS[0], {"prompt": "x", "completion": ""}, {"prompt": "x", "completion": "clips " * 200}]
    featurizer = GradientFeaturizer(proxy, dim=64, max_length=100, on_long="truncate", on_empty="skip")
    out = datasets.Dataset.from_list(rows).map(featurizer, batched=True)
    assert out["num_tokens"][1] == 0 and out["gradient"][1] is None
    assert out["truncated"] == [False, False, True]
    assert_same(out["gradient"][0], GradientFeaturizer(proxy, dim=64)(ROWS[0])["gradient"])


def test_zero_and_non_finite_gradients_follow_the_policy(proxy, monkeypatch):
    skipping = GradientFeaturizer(proxy, dim=64, on_empty="skip")
    skipping(ROWS[0])
    for parameter in skipping.engine.model.parameters():
        parameter.data.zero_()  # every gradient vanishes but the head's; then it too
    monkeypatch.setattr(skipping, "_checked", True)
    zero = skipping(ROWS[:2][0])
    assert zero["gradient"] is None and zero["num_tokens"] == 0
    strict = GradientFeaturizer(proxy, dim=64)
    strict(ROWS[0])
    next(strict.engine.model.parameters()).data.fill_(float("nan"))
    with pytest.raises(ValueError, match="row 0.*not finite"):
        strict(ROWS[0])


def test_self_check_stops_before_anything_is_computed(proxy):
    featurizer = GradientFeaturizer(proxy, dim=64)
    original = featurizer.proxy.model.loss_function
    featurizer.proxy.model.loss_function = lambda logits, labels, **kwargs: original(2 * logits, labels, **kwargs)
    with pytest.raises(RuntimeError, match="differ from autograd.*doctor"):
        featurizer(ROWS[0])


def test_batches_hold_like_lengths_within_the_budget_and_every_row_once():
    lengths = np.random.default_rng(0).integers(1, 3000, 500).tolist()
    batches = plan_batches(lengths)
    assert sorted(i for batch in batches for i in batch) == list(range(500))
    assert all(len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= BATCH_TOKENS for batch in batches)
    padded = sum(len(batch) * max(lengths[i] for i in batch) for batch in batches)
    assert padded < 1.1 * sum(lengths)
    assert plan_batches(lengths, one_by_one=True) == [[i] for i in sorted(range(500), key=lambda i: (-lengths[i], i))]


def encoded_rows(featurizer: GradientFeaturizer) -> list[EncodedRow]:
    return featurizer.proxy.encode_rows([{"prompt": "x" * k, "completion": f"{k} clips"} for k in range(3, 14)])


CUDA_ERROR = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
CPU_ERROR = RuntimeError("[enforce fail at alloc_cpu.cpp] . DefaultCPUAllocator: can't allocate memory: you tried")


def out_of_memory_beyond(featurizer: GradientFeaturizer, tokens: int, monkeypatch, error=CUDA_ERROR) -> list[int]:
    """Let the engine fail as torch does on batches of more tokens; return the list of the sizes it was asked for."""
    engine, asked = featurizer.engine, []

    def limited(batch, accumulator, **options):
        asked.append(len(batch.lengths))
        if batch.input_ids.numel() > tokens:
            raise error
        return engine(batch, accumulator, **options)

    limited.model = engine.model
    monkeypatch.setitem(featurizer.__dict__, "engine", limited)
    return asked


@pytest.mark.parametrize("error", [CUDA_ERROR, CPU_ERROR], ids=["cuda", "cpu"])
def test_a_batch_that_does_not_fit_into_memory_is_divided_with_the_same_numbers(proxy, monkeypatch, error):
    featurizer = GradientFeaturizer(proxy, dim=64)
    rows = encoded_rows(featurizer)
    alone = [featurizer.featurize_batch([row])[0] for row in rows]
    longest = max(len(row.input_ids) for row in rows)
    asked = out_of_memory_beyond(featurizer, 3 * longest, monkeypatch, error)
    results, parts = featurizer.featurize_batches([rows, rows])
    assert parts == {0: [3, 3, 3, 2], 1: [3, 3, 3, 2]}
    assert asked == [11, 6, 3, 3, 5, 3, 2, 3, 3, 3, 2], "the second batch begins with what the first one learned"
    for batch in results:
        for got, expected in zip(batch, alone, strict=True):
            np.testing.assert_allclose(got["gradient"], expected["gradient"], rtol=0, atol=1e-5)
            assert got["loss"] == pytest.approx(expected["loss"], rel=1e-5)
    fresh = GradientFeaturizer(proxy, dim=64)  # with memory enough, but told the division
    again, replayed = fresh.featurize_batches([rows, rows], parts)
    assert replayed == parts
    for one, two in zip([r for b in results for r in b], [r for b in again for r in b], strict=True):
        np.testing.assert_array_equal(one["gradient"], two["gradient"])


def test_a_row_that_alone_does_not_fit_into_memory_is_named_with_the_fix(proxy, monkeypatch):
    featurizer = GradientFeaturizer(proxy, dim=64)
    row = featurizer.proxy.encode(ROWS[0], "row 7 (id 'x')")
    featurizer.featurize_batch([row])
    out_of_memory_beyond(featurizer, 1, monkeypatch)
    with pytest.raises(RowError, match=r"row 7 \(id 'x'\).*do not fit into the memory of cpu.*max_length"):
        featurizer.featurize_batch([row])


def test_a_row_over_the_token_budget_is_recomputed_layer_by_layer_to_the_same_bits(proxy, monkeypatch):
    featurizer = GradientFeaturizer(proxy, dim=64)
    row = featurizer.proxy.encode(ROWS[0])
    stored = featurizer.featurize_batch([row])[0]
    calls, layers = [], featurizer.engine.model.model.layers
    for number, layer in enumerate(layers):
        layer.register_forward_pre_hook(lambda *_, number=number: calls.append(number))
        layer.mlp.register_forward_pre_hook(lambda *_, number=number: calls.append(number))
    monkeypatch.setattr("hf_prism.batches.BATCH_TOKENS", len(row.input_ids) - 1)
    long = featurizer.featurize_batch([row])[0]
    once = [number for number in range(len(layers)) for _ in range(2)]
    assert calls == once + [*reversed(range(len(layers)))], "each MLP ran again in the backward pass"
    np.testing.assert_array_equal(stored["gradient"], long["gradient"])
    assert stored["loss"] == long["loss"]


def test_lora_adapter_folder_is_put_onto_its_base_and_differentiated_by_name(proxy, tmp_path):
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(proxy)
    torch.manual_seed(0)
    tuned = peft.get_peft_model(base, peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    tuned.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="LoRA adapter.*parameters='lora'"):
        GradientFeaturizer(str(tmp_path), dim=64)(ROWS[0])
    featurizer = GradientFeaturizer(str(tmp_path), dim=64, parameters="lora")
    assert featurizer.identity["proxy.adapter"] and featurizer.identity["proxy.content"]
    got = featurizer(ROWS[0])
    encoded = featurizer.proxy.encode(ROWS[0])
    labels = torch.tensor(
        [[i if m else -100 for i, m in zip(encoded.input_ids, encoded.completion_mask, strict=True)]]
    )
    loss = tuned(input_ids=torch.tensor([encoded.input_ids]), labels=labels).loss
    assert got["loss"] == pytest.approx(loss.item(), rel=1e-5)
