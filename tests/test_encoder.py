"""A sequence classifier that answers as a generator: its label in words is the one that transformers gives."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import save_tiny_model
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DebertaV2Tokenizer,
    PreTrainedTokenizerFast,
    pipeline,
)

from hf_prism.encoder import THREE, TWO, EncoderGenerator, is_classifier, label_word
from hf_prism.generation import Request, RequestLog, Response, Sampling


QUANTITIES = ("no", "some", "most", "all")
THINGS = ("dogs", "cats", "birds", "boats", "trees", "cars", "children", "teachers")
DOINGS = ("sleep", "run", "shine", "break", "grow", "sing", "wait", "fall")
SPECIAL = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}


def truth(first: str, second: str) -> str:
    """What "first of them do it" says about "second of them do it", by the smallest and largest share it allows."""
    if (first == "no") != (second == "no"):
        return "contradiction"
    return "entailment" if QUANTITIES.index(first) >= QUANTITIES.index(second) else "neutral"


def grammar() -> list[dict[str, str]]:
    """Every pair there is, in an order without meaning."""
    pairs = [
        {"premise": f"{a} {thing} {doing} .", "hypothesis": f"{b} {thing} {doing} .", "label": truth(a, b)}
        for a in QUANTITIES
        for b in QUANTITIES
        for thing in THINGS
        for doing in DOINGS
    ]
    random.Random(0).shuffle(pairs)
    return pairs


def word_piece() -> PreTrainedTokenizerFast:
    """As BERT's."""
    tokenizer = Tokenizer(models.WordPiece(unk_token=SPECIAL["unk"]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(
        texts(), trainers.WordPieceTrainer(vocab_size=120, special_tokens=[*SPECIAL.values()])
    )
    cls, sep = SPECIAL["cls"], SPECIAL["sep"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls} $A {sep} $B:1 {sep}:1",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in (cls, sep)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **{f"{name}_token": token for name, token in SPECIAL.items()}
    )


def unigram() -> DebertaV2Tokenizer:
    """As DeBERTa-v3's: pieces with their log probabilities, words and, far less likely, their letters."""
    words = Counter(f"▁{word}" for text in texts() for word in text.split())
    total = sum(words.values())
    pieces = [(word, math.log(count / total)) for word, count in sorted(words.items())]
    letters = [(letter, -20.0) for letter in sorted({letter for word in words for letter in word} - set(words))]
    return DebertaV2Tokenizer(vocab=[(token, 0.0) for token in SPECIAL.values()] + pieces + letters)


def texts() -> list[str]:
    return [f"{pair['premise']} {pair['hypothesis']}" for pair in grammar()]


def save_classifier(path: Path, kind: str = "deberta-v2", labels: Any = THREE, seed: int = 0, **changes: Any) -> str:
    """A small random classifier; `labels=None` leaves transformers' LABEL_0, LABEL_1, ..."""
    tokenizer = unigram() if kind == "deberta-v2" else word_piece()
    sizes: dict[str, Any] = {
        "vocab_size": 128,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 48,
        "pad_token_id": tokenizer.pad_token_id,
        "initializer_range": 0.5,
    }
    if kind == "deberta-v2":
        sizes |= {
            "relative_attention": True,
            "position_biased_input": False,
            "pos_att_type": ["p2c", "c2p"],
            "position_buckets": 16,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
        }
    if labels is not None:
        sizes |= {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    torch.manual_seed(seed)
    config = AutoConfig.for_model(kind, **{**sizes, **changes})
    AutoModelForSequenceClassification.from_config(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)


def ask(premise: str, hypothesis: str) -> Request:
    return Request(tuple({"role": "user", "content": text} for text in (premise, hypothesis)), Sampling(), 0)


def requests_of(pairs: list[dict[str, str]]) -> list[Request]:
    return [ask(pair["premise"], pair["hypothesis"]) for pair in pairs]


def answers(generator: EncoderGenerator, requests: list[Request]) -> list[Response]:
    found = dict(generator.generate(requests))
    assert sorted(found) == list(range(len(requests)))
    return [found[i] for i in range(len(requests))]


def uneven() -> list[dict[str, str]]:
    """Pairs of many lengths."""
    return [
        {"premise": " ".join([pair["premise"]] * (1 + i % 4)), "hypothesis": pair["hypothesis"]}
        for i, pair in enumerate(grammar()[:60])
    ]


@pytest.mark.parametrize("kind", ["deberta-v2", "bert"])
def test_answers_are_those_of_the_pipeline_of_transformers(tmp_path, kind):
    model = save_classifier(tmp_path / "model", kind, ["CONTRADICTION", "Neutral", "entailment"])
    reference = pipeline("text-classification", model=model, device="cpu")
    expected = [
        reference({"text": pair["premise"], "text_pair": pair["hypothesis"]})["label"].lower() for pair in uneven()
    ]
    assert len(set(expected)) > 1
    responses = answers(EncoderGenerator(model, device="cpu", batch_size=7), requests_of(uneven()))
    assert [response.text for response in responses] == expected
    tokenizer = AutoTokenizer.from_pretrained(model)
    lengths = [len(tokenizer(pair["premise"], pair["hypothesis"])["input_ids"]) for pair in uneven()]
    assert [response.prompt_tokens for response in responses] == lengths
    assert {response.finish_reason for response in responses} == {"stop"}


@pytest.mark.parametrize("kind", ["deberta-v2", "bert"])
def test_the_company_of_a_pair_in_its_batch_changes_only_the_last_bits(tmp_path, kind, monkeypatch):
    logits: list[torch.Tensor] = []
    generator = EncoderGenerator(save_classifier(tmp_path / "model", kind), device="cpu", batch_size=60)
    inner = generator._model.forward

    def forward(**inputs: Any) -> Any:
        output = inner(**inputs)
        logits.append(output.logits)
        return output

    monkeypatch.setattr(generator._model, "forward", forward)
    requests = requests_of(uneven())
    together = [response.text for response in answers(generator, requests)]
    alone = []
    for request in requests:
        alone += [response.text for response in answers(generator, [request])]
    assert together == alone
    sizes = [len(generator._encode([(0, request)])[0].encoding["input_ids"]) for request in requests]
    order = sorted(range(len(requests)), key=lambda i: (-sizes[i], i))
    assert len(set(sizes)) > 3
    torch.testing.assert_close(logits[0], torch.cat(logits[1:])[order], rtol=1e-4, atol=1e-4)


def test_a_pair_beyond_the_limit_is_an_error_of_its_request_and_never_cut(tmp_path):
    model = save_classifier(tmp_path / "model", "bert", max_position_embeddings=24)
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer("a", "b", truncation=True, max_length=8)  # is saved with the tokenizer
    tokenizer.save_pretrained(model)
    assert json.loads((tmp_path / "model" / "tokenizer.json").read_text())["truncation"]
    short = {"premise": "all dogs sleep .", "hypothesis": "some dogs sleep ."}
    long = {"premise": "all dogs sleep . " * 9, "hypothesis": "some dogs sleep ."}
    fits, refused = answers(EncoderGenerator(model, device="cpu"), requests_of([short, long]))
    assert fits.finish_reason == "stop" and fits.prompt_tokens > 8
    assert refused.finish_reason == "error" and refused.text == ""
    assert refused.error and f"{refused.prompt_tokens} tokens, over the limit of 24" in refused.error


def test_another_max_length_is_another_name_so_that_a_log_never_keeps_an_error_that_is_none(tmp_path):
    model = save_classifier(tmp_path / "model")
    pair = [ask("all dogs sleep . " * 3, "some dogs sleep .")]
    log = RequestLog(tmp_path / "requests.jsonl")
    assert log.complete(EncoderGenerator(model, device="cpu", max_length=8), pair)[0].finish_reason == "error"
    assert log.complete(EncoderGenerator(model, device="cpu"), pair)[0].finish_reason == "stop"


def test_relative_positions_read_more_than_they_were_trained_on_where_asked(tmp_path):
    model = save_classifier(tmp_path / "model")
    pair = [ask("all dogs sleep . " * 20, "some dogs sleep .")]
    assert answers(EncoderGenerator(model, device="cpu"), pair)[0].finish_reason == "error"
    response = answers(EncoderGenerator(model, device="cpu", max_length=200), pair)[0]
    assert response.finish_reason == "stop" and response.prompt_tokens > 48


def test_positions_that_begin_behind_the_padding_token_do_not_count(tmp_path):
    """RoBERTa has 48 positions here, of which it can use 47 at a padding id of 0."""
    model = save_classifier(tmp_path / "model", "roberta", type_vocab_size=2)
    generator = EncoderGenerator(model, device="cpu")
    assert generator.max_length == 47
    premise = "dogs"
    while generator._encode([(0, ask(premise, "dogs"))])[0].length < 47:
        premise += " dogs"
    assert answers(generator, [ask(premise, "dogs")])[0].prompt_tokens == 47
    with pytest.raises(ValueError, match="max_length is 48, but .* reads 47 tokens at most"):
        EncoderGenerator(model, max_length=48).check()


@pytest.mark.parametrize(
    ("written", "word"),
    [
        ("entailment", "entailment"),
        (" CONTRADICTION", "contradiction"),
        ("not_entailment", "not_entailment"),
        ("Not Entailment", "not_entailment"),
        ("non-entailment", "not_entailment"),
        ("neutral", "neutral"),
    ],
)
def test_labels_are_spelled_one_way(written, word):
    assert label_word(written) == word


def test_two_labels_answer_with_not_entailment(tmp_path):
    model = save_classifier(tmp_path / "model", labels=["ENTAILMENT", "not-entailment"])
    assert {r.text for r in answers(EncoderGenerator(model, device="cpu"), requests_of(uneven()))} == set(TWO)


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        (None, "does not say which label is which .LABEL_0, LABEL_1.; set id2label"),
        (["positive", "negative"], "tells positive, negative apart, which are not the labels of inference"),
        (["entailment", "Entailment", "neutral"], "not the labels of inference"),
        (["entailment", "contradiction"], "not the labels of inference"),
    ],
)
def test_labels_that_are_not_known_are_refused_before_the_weights_are_read(tmp_path, labels, problem):
    model = save_classifier(tmp_path / "model", labels=labels)
    (tmp_path / "model" / "model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=problem):
        EncoderGenerator(model).check()


def test_check_reads_no_weights(tmp_path):
    model = save_classifier(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"damaged")
    EncoderGenerator(model).check()
    with pytest.raises(ValueError, match="the weights of .* could not be loaded"):
        answers(EncoderGenerator(model, device="cpu"), requests_of(uneven()))


def test_a_model_that_is_no_classifier_is_refused(tmp_path):
    model = save_tiny_model(tmp_path / "causal")
    with pytest.raises(ValueError, match="no sequence classifier .Qwen2ForCausalLM."):
        EncoderGenerator(model).check()


def test_whether_a_model_is_a_classifier_is_read_from_its_configuration(tmp_path):
    classifier = save_classifier(tmp_path / "classifier")
    (tmp_path / "classifier" / "model.safetensors").unlink()
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    assert is_classifier(classifier)
    assert not is_classifier(save_tiny_model(tmp_path / "causal"))
    assert not is_classifier("embedded") and not is_classifier(str(adapter))
    with pytest.raises(ValueError, match="the configuration of nobody/nothing could not be loaded"):
        is_classifier("nobody/nothing")


def test_a_head_that_is_not_in_the_weights_is_an_error_and_never_random(tmp_path):
    from safetensors.torch import load_file, save_file

    model = save_classifier(tmp_path / "model", "bert")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if "classifier" not in name}
    save_file(kept, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="lacks the weights classifier.bias"):
        answers(EncoderGenerator(model, device="cpu"), requests_of(uneven()))


def test_a_tokenizer_without_files_is_an_error_that_names_what_deberta_needs(tmp_path, monkeypatch):
    model = save_classifier(tmp_path / "model")
    (tmp_path / "model" / "tokenizer.json").unlink()
    monkeypatch.setattr("hf_prism.encoder._is_installed", lambda _: False)
    with pytest.raises(ValueError, match="the tokenizer of .*pip install sentencepiece protobuf"):
        EncoderGenerator(model).check()
    monkeypatch.setattr("hf_prism.encoder._is_installed", lambda _: True)
    with pytest.raises(ValueError, match="the tokenizer of ") as caught:
        EncoderGenerator(model).check()
    assert "pip install" not in str(caught.value)


def test_weights_that_are_not_numbers_are_an_error(tmp_path):
    model = save_classifier(tmp_path / "model", "bert")
    broken = AutoModelForSequenceClassification.from_pretrained(model)
    broken.classifier.weight.data.fill_(float("nan"))
    broken.save_pretrained(model)
    with pytest.raises(RuntimeError, match="computes no finite numbers"):
        answers(EncoderGenerator(model, device="cpu"), requests_of(uneven()))


@pytest.mark.parametrize("roles", [("user",), ("system", "user"), ("user", "assistant"), ("user", "user", "user")])
def test_a_request_that_is_no_pair_is_refused(tmp_path, roles):
    request = Request(tuple({"role": role, "content": "all dogs sleep ."} for role in roles), Sampling(), 0)
    with pytest.raises(ValueError, match="request 1 holds messages of .*the premise and the hypothesis"):
        answers(EncoderGenerator(save_classifier(tmp_path / "model"), device="cpu"), [ask("dogs", "cats"), request])


def test_a_half_precision_checkpoint_is_read_in_full_precision(tmp_path):
    model = save_classifier(tmp_path / "model")
    AutoModelForSequenceClassification.from_pretrained(model, dtype=torch.float16).save_pretrained(model)
    assert EncoderGenerator(model, device="cpu")._model.dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "problem"), [({"batch_size": 0}, "at least 1"), ({"revision": "v1"}, "local folder")]
)
def test_options_that_cannot_be_are_refused(tmp_path, options, problem):
    with pytest.raises(ValueError, match=problem):
        EncoderGenerator(save_classifier(tmp_path / "model"), **options)
