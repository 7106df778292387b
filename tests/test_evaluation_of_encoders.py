"""Encoders are evaluated like any other model: the pairs are those of the benchmark, and what cannot apply is refused."""

import json

import pytest
from test_encoder import THREE, TWO, grammar, save_classifier

from hf_prism.cli import main
from hf_prism.encoder import EncoderGenerator
from hf_prism.evaluation import evaluate
from hf_prism.generation import Sampling
from hf_prism.rows import load_rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoders")
    pairs = [{"id": str(i), **pair} for i, pair in enumerate(grammar()[:24])]
    two = [{**pair, "label": pair["label"] if pair["label"] == THREE[0] else TWO[1]} for pair in pairs]
    for name, rows in {"three": pairs, "two": two}.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "sums.jsonl").write_text('{"prompt": "1 + 1?", "answer": "2"}\n')
    save_classifier(folder / "of_three")
    save_classifier(folder / "of_two", labels=TWO)
    return folder


@pytest.mark.parametrize(("model", "benchmark"), [("of_three", "three"), ("of_three", "two"), ("of_two", "two")])
def test_verdicts_are_those_of_the_pipeline_of_transformers(folder, tmp_path, model, benchmark):
    from transformers import pipeline

    data = str(folder / f"{benchmark}.jsonl")
    assert (
        main(["evaluate", "--model", str(folder / model), "--benchmarks", data, "--output", str(tmp_path / "run")])
        == 0
    )
    rows = [json.loads(line) for line in open(data)]
    classify = pipeline("text-classification", str(folder / model))
    said = [classify({"text": row["premise"], "text_pair": row["hypothesis"]}) for row in rows]
    labels = [(each[0] if isinstance(each, list) else each)["label"] for each in said]
    if benchmark == "two":
        labels = [label if label == THREE[0] else TWO[1] for label in labels]
    kept = [dict(row) for row in load_rows(str(tmp_path / "run/verdicts" / f"{benchmark}.parquet"))]
    assert [row["answer"] for row in kept] == labels
    right = [label == row["label"] for label, row in zip(labels, rows, strict=True)]
    assert [row["verdict"] == "right" for row in kept] == right
    assert "[SEP]" in kept[0]["rendered"] and rows[0]["premise"].split()[0].lower() in kept[0]["rendered"].lower()


REFUSED = {
    "problems": (["--benchmarks", "sums.jsonl"], "an encoder labels pairs; the benchmark sums has problems"),
    "a prompt": (["--benchmarks", "three.jsonl", "--prompt", "{premise}"], "no prompt, no temperature"),
    "a temperature": (["--benchmarks", "three.jsonl", "--temperature", "0.5"], "no prompt, no temperature"),
    "half precision": (["--benchmarks", "three.jsonl", "--dtype", "bfloat16"], "dtype cannot apply"),
    "several samples": (["--benchmarks", "three.jsonl", "--samples", "3"], "3 samples are all alike"),
}


@pytest.mark.parametrize(("arguments", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_apply_to_an_encoder_is_refused(folder, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(folder)
    status = main(["evaluate", "--model", str(folder / "of_three"), "--output", str(tmp_path / "run"), *arguments])
    assert status == 2 and message in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_an_encoder_of_two_labels_is_not_asked_for_three(folder, tmp_path):
    student = EncoderGenerator(str(folder / "of_two"))
    with pytest.raises(
        ValueError, match="knows entailment and not_entailment only; the benchmark three has three labels"
    ):
        evaluate(student, [str(folder / "three.jsonl")], tmp_path / "run", sampling=Sampling(0, 1, 8))
