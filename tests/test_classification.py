"""Encoders that learn inference: from exactly the rows that are said, to a student whose labels mean what they say."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from datasets import ClassLabel, Dataset
from helpers import save_tiny_model
from processes import free_port
from safetensors.torch import load_file, save_file
from test_encoder import answers, grammar, requests_of, save_classifier
from transformers import AutoModelForSequenceClassification, AutoTokenizer, TrainingArguments, pipeline

from hf_prism import classification, files, training_run
from hf_prism.classification import OWNED, _activations, train_classifier
from hf_prism.encoder import THREE, TWO, EncoderGenerator
from hf_prism.kinds import check_keywords
from hf_prism.pairs import encode, read_pairs
from hf_prism.samples import RowError
from hf_prism.watching import NonFiniteLossError


RECIPE = Path(__file__).parents[1] / "examples" / "recipes" / "nli_deberta.yaml"
PAIRS = grammar()
QUICK = {"max_steps": 3, "per_device_train_batch_size": 8, "learning_rate": 1e-3}


class Heard(list):
    """Everything that was reported."""

    def __call__(self, text: str) -> None:
        self.append(text)

    @property
    def text(self) -> str:
        return "\n".join(self)


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A pretrained encoder of DeBERTa's kind, as its weights come: without a head."""
    return encoder(tmp_path_factory.mktemp("base") / "deberta", "deberta-v2")


def encoder(path: Path, kind: str, **changes: Any) -> str:
    save_classifier(path, kind, initializer_range=0.05, **changes)
    model = AutoModelForSequenceClassification.from_pretrained(path)
    model.base_model.save_pretrained(path)
    return str(path)


def train(base: str, output: Path, rows: Any = PAIRS[:64], heard: Any = lambda text: None, **options: Any) -> Any:
    training = {**QUICK, **options.pop("training", {})}
    rows = rows if isinstance(rows, Dataset) else Dataset.from_list(rows)
    return train_classifier(rows, base, output, training=training, report=heard, **options)


def weights(model: str | Path) -> dict[str, torch.Tensor]:
    return load_file(Path(model) / "model.safetensors")


def log_of(output: Path) -> list[dict[str, Any]]:
    """What was logged, times aside."""
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


# Learning


@pytest.mark.parametrize(("kind", "labels"), [("deberta-v2", THREE), ("bert", TWO)])
def test_a_student_learns_pairs_that_it_has_not_seen(tmp_path, heard, kind, labels):
    start = encoder(tmp_path / "base", kind)
    seen, held_out = PAIRS[:768], PAIRS[768:]
    training = {"max_steps": 250, "per_device_train_batch_size": 32, "learning_rate": 3e-3}
    student = train(start, tmp_path / "run", seen, heard, labels=labels, training=training)

    generator = EncoderGenerator(str(student.model), device="cpu")
    said = [response.text for response in answers(generator, requests_of(held_out))]
    gold = [
        pair["label"] if labels == THREE or pair["label"] == "entailment" else "not_entailment" for pair in held_out
    ]
    confusion = Counter(zip(gold, said, strict=True))
    right = sum(count for (truth, answer), count in confusion.items() if truth == answer)
    assert right / len(held_out) > 0.95, confusion
    for label in labels:  # a permuted head would be as sure of itself
        row = {answer: confusion[label, answer] for answer in labels}
        assert max(row, key=row.__getitem__) == label, confusion

    reference = pipeline("text-classification", model=str(student.model), device="cpu")
    pairs = [{"text": pair["premise"], "text_pair": pair["hypothesis"]} for pair in held_out[:40]]
    assert [reference(pair)["label"] for pair in pairs] == said[:40]

    assert (student.rows, student.skipped, student.truncated, student.steps) == (768, 0, 0, 250)
    tokenizer = AutoTokenizer.from_pretrained(start)
    assert student.tokens == sum(len(tokenizer(p["premise"], p["hypothesis"])["input_ids"]) for p in seen)
    assert log_of(tmp_path / "run")[-1]["loss"] < 0.2 < 0.5 < log_of(tmp_path / "run")[0]["loss"]
    counts = Counter(pair["label"] for pair in seen)
    if labels == TWO:
        others = f"{counts['contradiction']:,} contradiction, {counts['neutral']:,} neutral"
        assert f"turned into not_entailment: {others}" in heard.text
    else:
        assert f"2 = contradiction {counts['contradiction']:,} (" in heard.text


def test_the_same_seed_gives_the_same_numbers_and_another_one_others(tmp_path, base):
    runs = {name: tmp_path / name for name in ("first", "again", "other")}
    for name, output in runs.items():
        train(base, output, training={"logging_steps": 1, "seed": 7 if name == "other" else 42})
    assert log_of(runs["first"]) == log_of(runs["again"]) != log_of(runs["other"])
    first, again = weights(runs["first"] / "model"), weights(runs["again"] / "model")
    assert all(torch.equal(tensor, again[name]) for name, tensor in first.items())


def without_dropout(path: Path) -> str:
    return encoder(path, "deberta-v2", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)


def curves(output: Path) -> list[list[float]]:
    return [[line[name] for line in log_of(output)] for name in ("loss", "grad_norm")]


def test_batches_that_are_accumulated_weigh_as_one(tmp_path):
    start = without_dropout(tmp_path / "base")
    for size, number in ((8, 1), (2, 4)):
        options = {"per_device_train_batch_size": size, "gradient_accumulation_steps": number, "logging_steps": 1}
        train(start, tmp_path / f"{size}", training=options)
    assert curves(tmp_path / "2") == [pytest.approx(each, rel=1e-4) for each in curves(tmp_path / "8")]


TOGETHER = """
import sys
sys.path.insert(0, {tests!r})
from test_classification import train, Path
from hf_prism.ranks import leave
train({base!r}, Path({output!r}), **{options!r})
leave()
"""


def test_two_processes_train_as_one_at_an_equal_global_batch(tmp_path):
    start = without_dropout(tmp_path / "base")
    for name, size in (("one", 8), ("two", 4)):
        options = {
            "training": {"per_device_train_batch_size": size, "logging_steps": 1, "max_steps": 6, "save_steps": 4}
        }
        if name == "one":
            train(start, tmp_path / name, **options)
            continue
        code = TOGETHER.format(
            tests=str(Path(__file__).parent), base=start, output=str(tmp_path / name), options=options
        )
        port = free_port()
        team = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        ranks = [
            subprocess.Popen(
                [sys.executable, "-c", code],
                env={**os.environ, **team, "ACCELERATE_USE_CPU": "true", "RANK": str(i), "LOCAL_RANK": str(i)},
                stderr=subprocess.PIPE,
                text=True,
            )
            for i in range(2)
        ]
        errors = [rank.communicate(timeout=120)[1] for rank in ranks]
        assert [rank.returncode for rank in ranks] == [0, 0], errors
    assert curves(tmp_path / "two") == [pytest.approx(each, rel=1e-4) for each in curves(tmp_path / "one")]
    one, two = (weights(tmp_path / name / "model") for name in ("one", "two"))
    assert all(torch.allclose(tensor, two[name], atol=1e-5) for name, tensor in one.items())


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from test_classification import train, PAIRS, Path
from hf_prism import training_run
sync = training_run._sync
def dying(folder):
    if folder.name == "checkpoint-20":
        os.kill(os.getpid(), signal.SIGKILL)
    sync(folder)
training_run._sync = dying
train({base!r}, Path({output!r}), **{options!r})
"""


def test_a_run_that_was_killed_while_it_wrote_a_checkpoint_ends_as_if_it_had_not_been(tmp_path, base, heard):
    options = {"training": {"max_steps": 25, "save_steps": 10, "logging_steps": 5}}
    train(base, tmp_path / "whole", **options)
    code = KILLED.format(tests=str(Path(__file__).parent), base=base, output=str(tmp_path / "killed"), options=options)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    student = train(base, tmp_path / "killed", heard=heard, **options)
    assert "checkpoint-20 was not written whole" in heard.text
    assert student.steps == 25
    assert log_of(tmp_path / "killed") == log_of(tmp_path / "whole")
    expected = weights(tmp_path / "whole" / "model")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(student.model).items())


def test_a_finished_run_is_returned_and_another_configuration_refused(tmp_path, base, heard, monkeypatch):
    student = train(base, tmp_path / "run", facts={"data": "pairs"})
    assert json.loads((tmp_path / "run" / "result.json").read_text())["data"] == "pairs"
    with pytest.raises(ValueError, match="another configuration. training.learning_rate: 0.001 there, 0.5 now"):
        train(base, tmp_path / "run", training={"learning_rate": 0.5})
    with pytest.raises(ValueError, match="another configuration. data.digest"):
        train(base, tmp_path / "run", PAIRS[64:128])
    monkeypatch.setattr(classification, "_load", lambda *_: pytest.fail("the weights were read"))
    assert train(base, tmp_path / "run", heard=heard, training={"logging_steps": 2}) == student
    assert "finished" in heard.text


def test_half_precision_weights_of_a_base_are_trained_in_full_precision(tmp_path, base):
    AutoModelForSequenceClassification.from_pretrained(base, dtype=torch.float16).base_model.save_pretrained(
        tmp_path / "half"
    )
    AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path / "half")
    for dtype in ("float32", "bfloat16"):
        student = train(str(tmp_path / "half"), tmp_path / dtype, dtype=dtype)
        assert {tensor.dtype for tensor in weights(student.model).values()} == {torch.float32}
    first, second = (weights(tmp_path / dtype / "model")["classifier.weight"] for dtype in ("float32", "bfloat16"))
    assert not torch.equal(first, second)  # it does compute in bfloat16
    torch.testing.assert_close(first, second, atol=0.01, rtol=0.1)


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_rows(tmp_path, base, monkeypatch):
    token = AutoTokenizer.from_pretrained(base).convert_tokens_to_ids("▁boats")
    load = classification._load

    def poisoned(*args: Any) -> Any:
        model = load(*args)
        model.get_input_embeddings().register_forward_hook(
            lambda module, ids, out: out.masked_fill((ids[0] == token)[..., None], float("nan"))
        )
        return model

    monkeypatch.setattr(classification, "_load", poisoned)
    others = [pair for pair in PAIRS if "boats" not in pair["premise"]][:31]
    bad = next(pair for pair in PAIRS if "boats" in pair["premise"])
    rows = [{**pair, "id": f"pair-{i}"} for i, pair in enumerate([*others, bad])]
    with pytest.raises(NonFiniteLossError, match=r"step [1-4]: the loss is nan.*row 31 \(id 'pair-31'\)") as caught:
        train(base, tmp_path / "run", rows, training={"max_steps": 4})
    assert str(caught.value).count("(id ") == 8  # the rows of that batch and no others
    assert not (tmp_path / "run" / "model").exists()


# The head


def test_the_head_of_a_classifier_with_the_same_labels_is_kept_in_its_own_order(tmp_path, heard):
    order = ["CONTRADICTION", "entailment", "Neutral"]
    start = save_classifier(tmp_path / "base", "bert", order)
    student = train(start, tmp_path / "run", heard=heard, training={"learning_rate": 0.0})
    assert "the head of" in heard.text and "is kept" in heard.text and "new weights" not in heard.text
    assert torch.equal(weights(start)["classifier.weight"], weights(student.model)["classifier.weight"])
    before = answers(EncoderGenerator(start, device="cpu"), requests_of(PAIRS[:50]))
    after = answers(EncoderGenerator(str(student.model), device="cpu"), requests_of(PAIRS[:50]))
    assert len({response.text for response in before}) > 1
    assert [r.text for r in before] == [r.text for r in after]


@pytest.mark.parametrize("kind", ["bert", "roberta", "deberta-v2"])
@pytest.mark.parametrize(
    ("labels", "said"),
    [(TWO, "entailment, not_entailment"), (None, "LABEL_0, LABEL_1, LABEL_2"), (["a", "b", "c"], "a, b, c")],
)
def test_a_head_for_other_labels_is_replaced_and_said_so(tmp_path, heard, kind, labels, said):
    start = save_classifier(tmp_path / "base", kind, labels, **({"num_labels": 3} if labels is None else {}))
    student = train(start, tmp_path / "run", heard=heard, training={"learning_rate": 0.0})
    assert f"tells {said} apart; it is replaced by a new one for entailment, neutral, contradiction" in heard.text
    last = "classifier.out_proj.weight" if kind == "roberta" else "classifier.weight"
    assert last in heard.text.partition("new weights, random by seed 42: ")[2]
    old, new = weights(start), weights(student.model)
    assert new[last].shape[0] == 3 and not torch.equal(old[last][:2], new[last][:2])
    assert all(torch.equal(tensor, new[name]) for name, tensor in old.items() if not name.startswith("classifier"))
    assert EncoderGenerator(str(student.model)).labels == list(THREE)


def test_a_checkpoint_that_lacks_weights_of_the_encoder_is_refused(tmp_path, base):
    tensors = {name: tensor for name, tensor in weights(base).items() if "layer.1." not in name}
    AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path / "torn")
    (tmp_path / "torn" / "config.json").write_text((Path(base) / "config.json").read_text())
    save_file(tensors, tmp_path / "torn" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="do not fit its configuration, .*layer.1.* would be random"):
        train(str(tmp_path / "torn"), tmp_path / "run")


def test_a_base_that_cannot_be_a_classifier_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="causal language model .Qwen2ForCausalLM.*student: sft"):
        train(save_tiny_model(tmp_path / "causal"), tmp_path / "run")
    (tmp_path / "vit").mkdir()
    (tmp_path / "vit" / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(ValueError, match="makes no sequence classifier of .*model type vit"):
        train(str(tmp_path / "vit"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


# Rows and labels


def labelled(*labels: Any, feature: Any = None, **columns: Any) -> Dataset:
    """Rows with these labels."""
    rows = [{**pair, **columns, "label": label} for pair, label in zip(PAIRS, labels, strict=False)]
    dataset = Dataset.from_list(rows)
    return dataset.cast_column("label", feature) if feature else dataset


def test_numbers_are_read_by_the_names_that_the_dataset_gives_them():
    feature = ClassLabel(names=["Contradiction", "NEUTRAL", "entailment"])
    assert read_pairs(labelled(2, 0, 1, 0, feature=feature)).labels == [
        "entailment",
        "contradiction",
        "neutral",
        "contradiction",
    ]
    with pytest.raises(RowError, match="row 1: 'label' is -1, which stands for no label; drop such rows"):
        read_pairs(labelled(2, -1, feature=feature))


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        ((0, 1), "row 0: 'label' is the number 0, and which label that is differs from dataset to dataset"),
        (("neutral", "entailement"), "row 1: the label 'entailement' is none of .*did you mean 'entailment'"),
        (("neutral", "-"), "row 1: the label '_' is none of|row 1: the label '-' is none of"),
        (("neutral", None), "row 1: 'label' is null, not text"),
        (("neutral", "not_entailment"), "row 1: .*does not say neutral or contradiction; ask for two labels"),
        (("neutral", "Neutral"), "all 2 rows are labelled neutral: there is nothing to tell apart"),
    ],
)
def test_labels_that_say_nothing_are_errors_that_name_the_row(labels, problem):
    with pytest.raises(ValueError, match=problem):
        read_pairs(labelled(*labels))


def test_three_labels_become_two_and_two_stay():
    pairs = read_pairs(labelled("entailment", "neutral", "contradiction", "not_entailment", "neutral"), TWO)
    assert pairs.labels == ["entailment", *["not_entailment"] * 4]
    assert pairs.mapped == {"neutral": 2, "contradiction": 1}


def test_a_label_that_no_row_has_is_said(tmp_path, base, heard):
    train(base, tmp_path / "run", [pair for pair in PAIRS[:64] if pair["label"] != "neutral"], heard)
    assert "no row is labelled neutral" in heard.text


@pytest.mark.parametrize(
    ("columns", "mapping", "problem"),
    [
        (["premise", "hypothesis"], {}, "no column 'label'; columns found: premise, hypothesis"),
        (["sentence1", "sentence2", "gold_label"], {}, "Name them: {premise: sentence1, hypothesis: sentence2, label: gold_label} .in a recipe the key columns"),
        (["premise", "hypothesis", "label"], {"premise": "premises"}, "no column 'premises' .did you mean 'premise'"),
        (["premise", "hypothesis", "label"], {"premis": "premise"}, "no name 'premis'.*did you mean 'premise'"),
    ],
)  # fmt: skip
def test_missing_columns_are_errors_that_show_those_there_are(columns, mapping, problem):
    rows = Dataset.from_dict({column: ["a", "b"] for column in columns})
    with pytest.raises(ValueError, match=problem):
        read_pairs(rows, column_mapping=mapping)


@pytest.mark.parametrize(("cell", "problem"), [(None, "is null"), (" ", "is empty"), (3, "is 3 of type int")])
def test_a_text_that_is_none_is_an_error_that_names_the_row(cell, problem):
    rows = Dataset.from_dict({"id": ["a"], "s": [cell], "hypothesis": ["x"], "label": ["neutral"]})
    with pytest.raises(RowError, match=rf"row 0 \(id 'a'\): 'premise' \(column 's'\) {problem}"):
        read_pairs(rows, column_mapping={"premise": "s"})


def with_long(number: int = 3) -> list[dict[str, str]]:
    """Pairs of which some, with the ids long-0, long-1, ..., are longer than the 48 tokens of the model."""
    long = [{**PAIRS[i], "premise": "all dogs sleep . " * 20, "id": f"long-{i}"} for i in range(number)]
    short = [{**pair, "id": f"short-{i}"} for i, pair in enumerate(PAIRS[3:43])]
    return [short[0], *long, *short[1:]]


@pytest.mark.parametrize("on_long", ["skip", "truncate"])
def test_long_pairs_meet_their_policy_and_every_row_is_counted(tmp_path, base, heard, on_long):
    student = train(base, tmp_path / "run", with_long(), heard, on_long=on_long)
    skipped, cut = (3, 0) if on_long == "skip" else (0, 3)
    assert (student.rows, student.skipped, student.truncated) == (43 - skipped, skipped, cut)
    shown = "3 (row 1 (id 'long-0'), row 2 (id 'long-1'), row 3 (id 'long-2'))"
    assert f"{43 - skipped} kept, {shown if skipped else 0} skipped and {shown if cut else 0} cut" in heard.text
    left = list(files.read_lines(student.output / "left_out.jsonl"))
    assert [line["id"] for line in left] == ["long-0", "long-1", "long-2"]
    assert {line["reason"] for line in left} == {"too_long" if skipped else "truncated"}
    if skipped:
        assert [line["row"] for line in left] == [1, 2, 3]
        assert all(re.search(r"row \d .*: \d+ tokens, over the limit of 48", line["detail"]) for line in left)
    saved = json.loads((student.model / "tokenizer.json").read_text())
    assert saved["truncation"] is None  # what was cut here is not cut for everybody


def test_rows_without_ids_have_one_each_by_their_content():
    rows = [{name: pair[name] for name in ("premise", "hypothesis", "label")} for pair in PAIRS[:30]]
    first, again = read_pairs(Dataset.from_list(rows)).ids, read_pairs(Dataset.from_list(rows[::-1])).ids
    assert first == again[::-1] and len(set(first)) == len({(row["premise"], row["hypothesis"]) for row in rows})


def test_what_is_kept_of_a_cut_pair_is_the_head_of_its_longer_part(base):
    tokenizer = AutoTokenizer.from_pretrained(base)
    pairs = read_pairs(Dataset.from_list(with_long(1)))
    encoded = encode(pairs, tokenizer, THREE, 20, "truncate", 128)
    (cut,) = encoded.cut
    ids = encoded.dataset[encoded.kept.index(cut)]["input_ids"]
    whole = tokenizer(pairs.premises[cut], pairs.hypotheses[cut])["input_ids"]
    tail = len(tokenizer(pairs.hypotheses[cut], add_special_tokens=False)["input_ids"]) + 2
    assert ids == whole[: 20 - tail] + whole[-tail:]


def test_a_long_pair_is_an_error_that_names_it_where_nothing_else_was_said(tmp_path, base):
    with pytest.raises(
        RowError, match=r"row 1 \(id 'long-0'\): \d+ tokens, over the limit of 48; so are 3 of 43 rows"
    ):
        train(base, tmp_path / "run", with_long())
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="every pair is longer than 6 tokens"):
        train(base, tmp_path / "run", max_length=6, on_long="skip")


def test_the_preflight_shows_what_will_be_learned_and_standard_output_stays_empty(tmp_path, base, heard, capsys):
    train(base, tmp_path / "run", heard=heard)
    tokenizer = AutoTokenizer.from_pretrained(base)
    first = tokenizer.decode(tokenizer(PAIRS[0]["premise"], PAIRS[0]["hypothesis"])["input_ids"])
    assert f"as the student reads it: {first} -> {PAIRS[0]['label']}" in heard.text
    assert first.startswith("[CLS]") and first.endswith("[SEP]")
    lengths = [len(tokenizer(p["premise"], p["hypothesis"])["input_ids"]) for p in PAIRS[:64]]
    assert f"least {min(lengths)}, 50 % " in heard.text and f"{sum(lengths)} in all" in heard.text
    count = sum(tensor.numel() for tensor in weights(tmp_path / "run" / "model").values())
    assert "3 steps of 8 pairs\nmemory, roughly: " in heard.text and f"for each of {count:,} weights" in heard.text
    assert "disk: 0 checkpoints" in heard.text
    assert "step 3 of 3: loss " in heard.text and not capsys.readouterr().out


@pytest.mark.parametrize("kind", ["deberta-v2", "bert"])
@pytest.mark.parametrize(("hidden", "length"), [(64, 96), (256, 40)])
def test_the_memory_that_is_told_is_near_what_autograd_keeps(tmp_path, kind, hidden, length):
    sizes = {"hidden_size": hidden, "intermediate_size": 4 * hidden, "num_attention_heads": hidden // 16}
    save_classifier(tmp_path / "model", kind, max_position_embeddings=128, **sizes)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").train()
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(input_ids=torch.randint(5, 60, (8, length)), labels=torch.zeros(8, dtype=torch.long)).loss
    counted = sum(size for place, size in kept.items() if place not in own)
    assert loss.requires_grad and _activations(model.config, 8, length, 4) == pytest.approx(counted, rel=0.3)


# Options


@pytest.mark.parametrize(
    ("training", "problem"),
    [
        ({"learning_rat": 1}, "'learning_rat' is no keyword of TrainingArguments .did you mean 'learning_rate'"),
        ({"output_dir": "x"}, "output_dir is not set here; the key `output` names the directory"),
        ({"bf16": True}, "bf16 is not set here; the key `dtype`"),
        ({"push_to_hub": True}, "push_to_hub is not set here; the key `push_to`"),
        ({"eval_strategy": "steps"}, "eval_strategy is not set here; the key `evaluation`"),
        ({"hub_token": "hf_secret"}, "hub_token is not set here; the key `push_to`"),
        ({"learning_rate": "1e-5"}, "learning_rate is '1e-5', .* write 1.0e-5"),
        ({"learning_rate": float("inf")}, "learning_rate is inf; it must be a number that is finite"),
        ({"per_device_train_batch_size": 0}, "per_device_train_batch_size is 0; it must be at least 1"),
        ({"lr_scheduler_type": "cosin"}, "training: "),
    ],
)
def test_keywords_that_cannot_be_are_refused_before_anything_is_written(tmp_path, base, training, problem):
    with pytest.raises(ValueError, match=problem):
        train(base, tmp_path / "run", training=training)
    assert not (tmp_path / "run").exists()


def test_no_keyword_takes_a_secret():
    names = set(inspect.signature(TrainingArguments).parameters)
    assert {name for name in names if name.startswith(("hub_", "push_to_")) or name.endswith("_token")} <= set(OWNED)


def test_a_path_of_this_machine_is_not_written_down(tmp_path, base):
    train(base, tmp_path / "run", training={"run_name": str(tmp_path / "mine"), "length_column_name": str(tmp_path)})
    assert str(tmp_path) not in (tmp_path / "run" / "config.json").read_text()


def test_every_keyword_that_is_set_here_is_one():
    assert set(OWNED) <= set(inspect.signature(TrainingArguments).parameters)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"dtype": "float16"}, "dtype is 'float16'; it must be one of 'float32', 'bfloat16'"),
        ({"on_long": "cut"}, "on_long is 'cut'"),
        ({"labels": ("yes", "no")}, "labels are yes, no; they must be entailment"),
        ({"labels": "entailment"}, "labels are entailment"),
        ({"labels": 5}, "labels is 5, which is a whole number; it must be text or a list"),
        ({"labels": None}, "labels is None, which is nothing"),
        ({"dtype": 16}, "dtype is 16, which is a whole number; it must be text"),
        (
            {"max_length": "512"},
            "max_length is '512', which is text; it must be a whole number or null. Write it without",
        ),
        ({"revision": 5}, "revision is 5"),
        ({"max_length": 3}, "max_length is 3; a pair needs at least 5 tokens"),
        ({"revision": "main"}, "revision='main' needs a Hub id"),
    ],
)
def test_options_that_cannot_be_are_refused(tmp_path, base, options, problem):
    with pytest.raises(ValueError, match=problem):
        train(base, tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_a_full_disk_is_found_before_the_first_step(tmp_path, base, monkeypatch):
    monkeypatch.setattr(training_run.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(ValueError, match="not enough space for checkpoints: .* has 1.0 kB free, the run needs"):
        train(base, tmp_path / "run", training={"save_steps": 1})
    assert not (tmp_path / "run" / "log.jsonl").exists()


def test_the_recipe_is_one_of_this_function():
    from hf_prism import student_recipe

    student_recipe.StudentRecipe.load(RECIPE)
    recipe = yaml.safe_load(RECIPE.read_text())
    assert recipe.pop("student") == "classification"
    own = {"data", "split", "max_samples", "evaluation", "proxy", "push_to", "private", "license"}
    assert {*recipe} - own <= set(inspect.signature(train_classifier).parameters)
    TrainingArguments(use_cpu=True, **check_keywords(recipe["training"], TrainingArguments, OWNED))
    assert sorted(recipe["labels"]) in (sorted(TWO), sorted(THREE))
