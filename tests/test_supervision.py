"""What a student learns: the completion and its end, in TRL's own labels, over the templates of well-known families."""

from __future__ import annotations

import random

import pytest
from helpers import CHATML, DEEPSEEK_R1, GEMMA, QWEN3, save_tiny_model, tiny_model, tiny_tokenizer
from test_rendering import COMPLETIONS, FAMILIES, TWO_TURNS
from trl import SFTConfig, SFTTrainer

from hf_prism.proxy import ProxyModel
from hf_prism.rows import load_rows
from hf_prism.samples import RowError
from hf_prism.supervision import check_row, preflight, show, supervise


STOPPING = [family for family in FAMILIES if family[0] != "alpaca"]  # which ends its turns with a line break only
ROWS = [{"prompt": f"How many foo {i}?", "completion": text} for i, text in enumerate(COMPLETIONS)]


def proxy_of(path, template=CHATML, bos=None, eos="<|im_end|>", **options):
    tokenizer = tiny_tokenizer(chat_template=template, bos=bos, eos=eos, add_bos=bos is not None)
    return ProxyModel(save_tiny_model(path, tokenizer=tokenizer), **options)


@pytest.fixture
def proxy(tmp_path):
    return proxy_of(tmp_path)


def trl_labels(supervision, proxy, output, **options):
    """The labels that TRL's own preparation and collator give the model, row by row."""
    args = SFTConfig(
        str(output), use_cpu=True, bf16=False, report_to="none", max_length=None, completion_only_loss=True, **options
    )
    trainer = SFTTrainer(tiny_model(), args=args, train_dataset=supervision.dataset, processing_class=proxy.tokenizer)
    rows = [trainer.data_collator([row])["labels"] for row in trainer.train_dataset]
    batch = next(iter(trainer.get_train_dataloader()))
    shuffled = {tuple(t for t in labels if t != -100) for labels in batch["labels"].tolist()}
    alone = [[t for t in labels[0].tolist() if t != -100] for labels in rows]
    assert shuffled <= {tuple(labels) for labels in alone}  # batched and padded they are the same
    return alone


@pytest.mark.parametrize("name, template, bos, eos, before, end", STOPPING, ids=[f[0] for f in STOPPING])
def test_the_labels_that_trl_gives_the_model_are_exactly_the_completion_and_its_end(
    name, template, bos, eos, before, end, tmp_path
):
    proxy = proxy_of(tmp_path / "model", template, bos, eos)
    supervision = supervise(load_rows(ROWS), proxy)
    labels = trl_labels(supervision, proxy, tmp_path / "run")
    assert [proxy.tokenizer.decode(row) for row in labels] == [before + text + end for text in COMPLETIONS]
    assert proxy.tokenizer.decode([supervision.end_id]) in end  # type: ignore[list-item]


def test_thoughts_are_learned_where_the_template_keeps_them(tmp_path):
    thought = "<think>\n48 + 24\n</think>\n\n72"
    proxy = proxy_of(tmp_path / "model", QWEN3)
    supervision = supervise(load_rows([{"prompt": "How many?", "completion": thought}]), proxy)
    labels = trl_labels(supervision, proxy, tmp_path / "run")
    assert proxy.tokenizer.decode(labels[0]) == thought + "<|im_end|>\n"


def test_thoughts_that_the_generation_prompt_opens_pass_the_check(tmp_path):
    opening = CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
    rows = [{"prompt": "How many?", "completion": "<think>\n48 + 24\n</think>\n\n72"}]
    proxy = proxy_of(tmp_path / "model", opening)
    assert "[[48 + 24\n</think>\n\n72<|im_end|>\n]]" in show(supervise(load_rows(rows), proxy).dataset[0], proxy)


def test_a_template_that_drops_the_answer_is_an_error_that_names_the_row(tmp_path):
    silent = CHATML.replace("{{ m.content }}", "{{ m.content if m.role == 'user' else '' }}")
    with pytest.raises(RowError, match="row 0: message 1: the chat template drops or rewrites .*72 clips"):
        supervise(load_rows(ROWS), proxy_of(tmp_path / "a", silent))
    thinking = [{"id": "t", "prompt": "?", "completion": "<think>\n1\n</think>\n\n72"}]
    with pytest.raises(RowError, match=r"row 0 \(id 't'\).*drops or rewrites"):
        supervise(load_rows(thinking), proxy_of(tmp_path / "b", DEEPSEEK_R1, "<s>", "</s>"))


def test_a_template_without_an_end_is_an_error(tmp_path):
    """The student would write on for ever."""
    endless = CHATML.replace("<|im_end|>\n{% endfor", "\n{% endfor")
    with pytest.raises(ValueError, match=r"row 0: the completion ends with '\\n', which holds no special token"):
        supervise(load_rows(ROWS), proxy_of(tmp_path, endless))


@pytest.mark.parametrize("name, template, bos, eos, before, end", STOPPING, ids=[f[0] for f in STOPPING])
def test_a_mask_that_is_off_by_one_token_fails_the_check(name, template, bos, eos, before, end, tmp_path):
    proxy = proxy_of(tmp_path, template, bos, eos)
    row = {"prompt": "How many foo ?", "completion": "72 clips were sold"}
    encoded = proxy.encode(row)
    ids, mask = encoded.input_ids, [int(counts) for counts in encoded.completion_mask]  # type: ignore[union-attr]
    first = mask.index(1)
    last = len(mask) - 1
    while proxy.tokenizer.decode(ids[last]).isspace():  # a line break behind the end token is no loss
        last -= 1

    def check(changed):
        return check_row(row, {"input_ids": ids, "completion_mask": changed}, proxy, "row 5", truncated=False)

    assert check(mask) is not None
    late, early, endless = mask.copy(), mask.copy(), mask.copy()
    content = next(i for i in range(first, len(ids)) if "7" in proxy.tokenizer.decode(ids[first : i + 1]))
    late[first : content + 1] = [0] * (content + 1 - first)
    question = max(i for i in range(first) if "?" in proxy.tokenizer.decode(ids[i:first]))
    early[question:first] = [1] * (first - question)
    endless[last:] = [0] * (len(mask) - last)
    for wrong in (late, early, endless, [0, *[1] * last]):
        with pytest.raises(ValueError, match="row 5: the learned tokens decode to"):
            check(wrong)


def test_nothing_is_dropped_in_silence(tmp_path):
    proxy = proxy_of(tmp_path, max_length=40, on_long="skip", on_empty="skip")
    rng = random.Random(0)
    rows = [
        {"id": f"r{i}", "prompt": "How many?", "completion": "foobar clips " * rng.choice([0, 1, 2, 30])}
        for i in range(300)  # more than one batch of the tokenizer
    ]
    supervision = supervise(load_rows(rows), proxy)
    assert len(supervision.dataset) + len(supervision.skipped) == supervision.num_rows == 300
    assert {left.id for left in supervision.skipped if left.reason == "empty"} == {
        row["id"] for row in rows if not row["completion"]
    }
    assert {left.id for left in supervision.skipped if left.reason == "too_long"} == {
        row["id"] for row in rows if len(row["completion"]) > 100
    }
    kept = [row["id"] for row in rows if 0 < len(row["completion"]) < 100]
    assert supervision.dataset["id"][:] == kept  # in their order
    assert [rows[i]["id"] for i in supervision.dataset["row"]] == kept
    assert supervision.name(1) == f"row {supervision.dataset['row'][1]} (id {kept[1]!r})"
    text = preflight(supervision, proxy)
    for reason in ("empty", "too_long"):
        left = [entry for entry in supervision.skipped if entry.reason == reason]
        assert f"Skipped as {reason.replace('_', ' ')}: {len(left)} (ids {left[0].id}," in text


def test_the_errors_of_the_policies_are_the_default(tmp_path):
    long = [*ROWS, {"prompt": "x", "completion": "foobar clips " * 50}]
    with pytest.raises(RowError, match="row 6: .* over the limit of 60"):
        supervise(load_rows(long), proxy_of(tmp_path / "a", max_length=60))
    with pytest.raises(RowError, match="row 1: the completion is empty"):
        supervise(load_rows([ROWS[0], {"prompt": "x", "completion": " "}]), proxy_of(tmp_path / "b"))
    with pytest.raises(ValueError, match="none of the 1 rows is left to learn from; the first: row 0"):
        supervise(load_rows(long[-1:]), proxy_of(tmp_path / "c", max_length=40, on_long="skip"))


def test_truncated_rows_keep_their_beginning_and_are_named(tmp_path):
    proxy = proxy_of(tmp_path, max_length=30, on_long="truncate")
    rows = [*ROWS[:1], {"prompt": "x", "completion": "foobar clips " * 50}]
    supervision = supervise(load_rows(rows), proxy)
    whole = ProxyModel(str(tmp_path), max_length=256, on_long="truncate").encode(rows[1])
    assert len(supervision.truncated) == 1 and supervision.dataset["id"][1] == supervision.truncated[0]
    assert supervision.dataset[1]["input_ids"] == whole.input_ids[:30]  # type: ignore[union-attr]
    assert f"1 of them cut at 30 tokens (ids {supervision.truncated[0]})" in preflight(supervision, proxy)


def test_a_token_that_nothing_predicts_is_never_learned(proxy):
    """A text without BOS begins with one; so a count of learned tokens is that of loss terms."""
    supervision = supervise(load_rows([{"text": "The quick brown fox"}]), proxy)
    mask = supervision.dataset[0]["completion_mask"]
    assert mask == [0] + [1] * (len(mask) - 1)
    assert supervision.learned.tolist() == [len(mask) - 1]


def test_every_assistant_turn_on_request(tmp_path):
    proxy = proxy_of(tmp_path, assistant_turns="all")
    supervision = supervise(load_rows([{"messages": TWO_TURNS}]), proxy)
    shown = show(supervision.dataset[0], proxy)
    assert shown.count("[[") == 2 and "[[48 clips<|im_end|>\n]]" in shown and "[[72 clips<|im_end|>\n]]" in shown


def test_rows_without_completions_are_refused(proxy):
    with pytest.raises(
        ValueError, match=r"neither prompt \+ completion.*columns found: prompt, answer.*completion=answer"
    ):
        supervise(load_rows([{"prompt": "x", "answer": "y"}]), proxy)
    with pytest.raises(RowError, match="row 1: 'completion' is null"):
        supervise(load_rows([ROWS[0], {"prompt": "x", "completion": None}]), proxy)


def test_the_preflight_shows_what_is_learned_and_counts_right(proxy):
    supervision = supervise(load_rows(ROWS), proxy)
    text = preflight(supervision, proxy)
    assert (
        "  | <|im_start|>user\n  | How many foo 0?<|im_end|>\n  | <|im_start|>assistant\n  | [[72 clips<|im_end|>\n"
        in text
    )
    lengths = sorted(len(proxy.encode(row).input_ids) for row in ROWS)  # type: ignore[union-attr]
    learned = sum(proxy.encode(row).num_tokens for row in ROWS)  # type: ignore[union-attr]
    assert f"min {lengths[0]}, median {lengths[2]}, 90 % {lengths[-1]}, 99 % {lengths[-1]}, max {lengths[-1]}" in text
    assert f"{sum(lengths)} in all, {learned} learned" in text
    assert "Rows: 6, of which 6 are learned, 0 of them cut" in text


def test_the_end_token_is_the_first_special_one_of_the_turn(tmp_path):
    """Gemma ends its turns with another token than the tokenizer's EOS."""
    proxy = proxy_of(tmp_path, GEMMA, "<bos>", "<|endoftext|>")
    end = supervise(load_rows(ROWS), proxy).end_id
    assert proxy.tokenizer.convert_ids_to_tokens(end) == "<end_of_turn>"  # type: ignore[arg-type]
