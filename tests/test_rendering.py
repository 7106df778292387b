"""What the proxy reads and which tokens count, over the chat templates of well-known families."""

from __future__ import annotations

import random
import string
from importlib.util import find_spec
from pathlib import Path

import pytest
from helpers import (
    ALPACA,
    CHATML,
    DEEPSEEK_R1,
    GEMMA,
    LLAMA3,
    MISTRAL,
    PHI3,
    QWEN2,
    QWEN3,
    TEXTS,
    ZEPHYR,
    tiny_tokenizer,
)
from transformers import ByT5Tokenizer

from hf_prism.rendering import Renderer
from hf_prism.samples import RowError, Sample


# name, template, BOS, EOS, what precedes the completion in its turn, what ends the turn
FAMILIES = [
    ("chatml", CHATML, None, "<|im_end|>", "", "<|im_end|>\n"),
    ("qwen2", QWEN2, None, "<|im_end|>", "", "<|im_end|>\n"),
    ("qwen3", QWEN3, None, "<|im_end|>", "<think>\n\n</think>\n\n", "<|im_end|>\n"),
    ("llama3", LLAMA3, "<|begin_of_text|>", "<|eot_id|>", "", "<|eot_id|>"),
    ("mistral", MISTRAL, "<s>", "</s>", " ", "</s>"),
    ("gemma", GEMMA, "<bos>", "<|endoftext|>", "", "<end_of_turn>\n"),
    ("phi3", PHI3, "<s>", "<|endoftext|>", "", "<|end|>\n<|endoftext|>"),
    ("zephyr", ZEPHYR, "<s>", "</s>", "", "</s>\n"),
    ("alpaca", ALPACA, "<s>", "</s>", "", "\n\n"),
    ("deepseek-r1", DEEPSEEK_R1, "<s>", "</s>", "", "</s>"),
    ("none", None, None, "<|endoftext|>", "", "<|endoftext|>"),
    ("none with BOS", None, "<s>", "</s>", "", "</s>"),
]
NAMES = [family[0] for family in FAMILIES]

COMPLETIONS = ["72 clips", "Natalia sold 48/2 = 24 clips.\n#### 72", "déjà vu — 数学 🙂", "bar", "a\n\n\n b", "x  y"]


def learned(renderer, sample, where="row"):
    """All ids, and the learned ones decoded span by span."""
    tokens = renderer.tokenize([renderer.render(sample, where)])[0]
    spans, previous = [], False
    for token, counts in zip(tokens.input_ids, tokens.completion_mask, strict=True):
        if counts and not previous:
            spans.append([])
        if counts:
            spans[-1].append(token)
        previous = counts
    return tokens.input_ids, [renderer.tokenizer.decode(span) for span in spans]


@pytest.mark.parametrize("name, template, bos, eos, before, end", FAMILIES, ids=NAMES)
@pytest.mark.parametrize("completion", COMPLETIONS)
def test_learned_tokens_are_exactly_the_completion_and_its_end(name, template, bos, eos, before, end, completion):
    tokenizer = tiny_tokenizer(chat_template=template, bos=bos, eos=eos, add_bos=bos is not None)
    ids, spans = learned(Renderer(tokenizer), Sample(prompt="How many foo?\n", completion=completion))
    assert spans == [before + completion + end]
    if template is not None:  # transformers' own rendering and tokenisation of the conversation
        messages = [{"role": "user", "content": "How many foo?\n"}, {"role": "assistant", "content": completion}]
        assert ids == tokenizer.apply_chat_template(messages, tokenize=True)["input_ids"]
    else:
        assert ids == tokenizer("How many foo?\n" + completion + eos)["input_ids"]


@pytest.mark.parametrize("name, template, bos, eos, before, end", FAMILIES, ids=NAMES)
def test_bos_stands_once_and_first(name, template, bos, eos, before, end):
    tokenizer = tiny_tokenizer(chat_template=template, bos=bos, eos=eos, add_bos=bos is not None)
    ids, _ = learned(Renderer(tokenizer), Sample(prompt="How many?", completion="72"))
    if bos is not None:
        writes_bos = template is None or "bos_token" in template
        assert ids.count(tokenizer.bos_token_id) == int(writes_bos)
        assert (ids[0] == tokenizer.bos_token_id) == writes_bos


@pytest.mark.parametrize("name, template, bos, eos, before, end", FAMILIES, ids=NAMES)
def test_random_texts_are_learned_whole(name, template, bos, eos, before, end):
    """Also where white space is trimmed and tokens merge across the boundary."""
    tokenizer = tiny_tokenizer(chat_template=template, bos=bos, eos=eos, add_bos=bos is not None)
    renderer, rng = Renderer(tokenizer), random.Random(0)
    alphabet = string.ascii_lowercase[:6] + "  \n\n#é数<>|[]/" + "".join(TEXTS)[:40]
    samples = []
    for _ in range(150):
        prompt, completion = ("".join(rng.choices(alphabet, k=rng.randint(1, 30))) for _ in range(2))
        if completion.strip():
            samples.append(Sample(prompt=prompt, completion=completion))
    for sample, tokens in zip(samples, renderer.tokenize([renderer.render(s) for s in samples]), strict=True):
        first = tokens.completion_mask.index(True)
        assert all(tokens.completion_mask[first:])  # one span, to the end
        supervised = tokenizer.decode(tokens.input_ids[first:])
        wanted = "".join(str(sample.completion).split()) + "".join(end.split())
        assert "".join(supervised.split()).endswith(wanted)
        prompt = tokenizer.decode(tokens.input_ids[:first])
        if template is None:
            assert prompt + supervised == (bos or "") + str(sample.prompt) + str(sample.completion) + eos


def test_a_token_that_straddles_the_boundary_is_learned():
    tokenizer = tiny_tokenizer(["foobar foobar foobar foobar"] * 8, chat_template=None)
    assert len(tokenizer("foobar")["input_ids"]) == 1 and len(tokenizer("foo")["input_ids"]) > 1  # the merge happens
    ids, spans = learned(Renderer(tokenizer), Sample(prompt="x foo", completion="bar"))
    assert ids == tokenizer("x foobar<|endoftext|>")["input_ids"]  # the sequence is never cut where it would not be
    assert spans == [" foobar<|endoftext|>"]


def test_pad_equal_to_eos_hides_no_end():
    tokenizer = tiny_tokenizer(chat_template=None)
    assert tokenizer.pad_token == tokenizer.eos_token
    assert learned(Renderer(tokenizer), Sample(prompt="a\n", completion="b"))[1] == ["b<|endoftext|>"]


def test_eos_is_not_doubled():
    tokenizer = tiny_tokenizer(chat_template=None, bos="<s>", add_bos=True)
    plain = learned(Renderer(tokenizer), Sample(prompt="a\n", completion="b"))
    assert learned(Renderer(tokenizer), Sample(prompt="a\n", completion="b<|endoftext|>")) == plain
    assert learned(Renderer(tokenizer), Sample(prompt="<s>a\n", completion="b"))[0] == plain[0]


def test_text_counts_whole():
    tokenizer = tiny_tokenizer(bos="<s>", add_bos=True)
    ids, spans = learned(Renderer(tokenizer), Sample(text="The quick fox"))
    assert tokenizer.decode(ids) == "<s>The quick fox<|endoftext|>" and spans == ["The quick fox<|endoftext|>"]


def test_strings_and_messages_read_the_same():
    renderer = Renderer(tiny_tokenizer(chat_template=QWEN2))
    user, assistant = {"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"}
    alike = [
        Sample(prompt="1+1?", completion="2"),
        Sample(prompt=[user], completion="2"),
        Sample(prompt="1+1?", completion=[assistant]),
        Sample(messages=[user, assistant]),
    ]
    assert len({str(learned(renderer, sample)) for sample in alike}) == 1


def test_chat_template_argument_overrides_or_switches_off():
    tokenizer = tiny_tokenizer(chat_template=CHATML, bos="<s>")
    sample = Sample(prompt="1+1?", completion="2")
    assert learned(Renderer(tokenizer, LLAMA3), sample)[1] == ["2<|eot_id|>"]
    ids, spans = learned(Renderer(tokenizer, False), sample)
    assert tokenizer.decode(ids) == "1+1?2<|endoftext|>" and spans == ["2<|endoftext|>"]
    with pytest.raises(ValueError, match="chat_template is True"):
        Renderer(tokenizer, True)  # type: ignore[arg-type]


TWO_TURNS = [
    {"role": "user", "content": "How many?"},
    {"role": "assistant", "content": "48 clips"},
    {"role": "user", "content": "And now?"},
    {"role": "assistant", "content": "72 clips"},
]


@pytest.mark.parametrize(
    "template, inner_end, last_start, last_end",
    [
        (CHATML, "<|im_end|>\n", "", "<|im_end|>\n"),
        (QWEN3, "<|im_end|>\n", "<think>\n\n</think>\n\n", "<|im_end|>\n"),
        (LLAMA3, "<|eot_id|>", "", "<|eot_id|>"),
        (MISTRAL, "</s>", " ", "</s>"),
        (GEMMA, "<end_of_turn>\n", "", "<end_of_turn>\n"),
        (PHI3, "<|end|>\n", "", "<|end|>\n</s>"),  # the final EOS belongs to the conversation, not to inner turns
        (ZEPHYR, "</s>\n", "", "</s>\n"),
        (DEEPSEEK_R1, "</s>", "", "</s>"),
    ],
    ids=["chatml", "qwen3", "llama3", "mistral", "gemma", "phi3", "zephyr", "deepseek-r1"],
)
def test_every_assistant_turn_on_request(template, inner_end, last_start, last_end):
    tokenizer = tiny_tokenizer(chat_template=template, bos="<s>", eos="</s>")
    inner_start = " " if template is MISTRAL else ""
    wanted = [inner_start + "48 clips" + inner_end, last_start + "72 clips" + last_end]
    ids, spans = learned(Renderer(tokenizer, assistant_turns="all"), Sample(messages=TWO_TURNS))
    assert spans == wanted
    assert ids == tokenizer.apply_chat_template(TWO_TURNS, tokenize=True)["input_ids"]
    assert learned(Renderer(tokenizer), Sample(messages=TWO_TURNS)) == (ids, wanted[1:])


def test_earlier_thoughts_that_a_template_drops_are_an_error_that_names_the_turn():
    thinking = [dict(message) for message in TWO_TURNS]
    thinking[1]["content"] = "<think>\nhalf of 48\n</think>\n\n48 clips"
    tokenizer = tiny_tokenizer(chat_template=QWEN3)
    with pytest.raises(RowError, match=r"row 7: message 1: the chat template drops or rewrites .*half of 48"):
        learned(Renderer(tokenizer, assistant_turns="all"), Sample(messages=thinking), "row 7")
    # As context of the last turn they are dropped in inference too, and nothing learned is lost.
    assert learned(Renderer(tokenizer), Sample(messages=thinking))[1][0].endswith("72 clips<|im_end|>\n")


def test_thoughts_stay_in_the_completion_or_the_row_is_refused():
    thought = "<think>\n48 + 24\n</think>\n\n72"
    ids, spans = learned(Renderer(tiny_tokenizer(chat_template=QWEN3)), Sample(prompt="?", completion=thought))
    assert spans == [thought + "<|im_end|>\n"]
    with pytest.raises(RowError, match="drops or rewrites"):
        learned(Renderer(tiny_tokenizer(chat_template=DEEPSEEK_R1, bos="<s>")), Sample(prompt="?", completion=thought))


def test_thoughts_that_the_generation_prompt_opens_are_learned_from_there():
    """Qwen3-Thinking and its kin: the prompt ends in "<think>\\n", which is also how the completion begins."""
    thinking = CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
    tokenizer = tiny_tokenizer(chat_template=thinking)
    sample = Sample(prompt="?", completion="<think>\n48 + 24\n</think>\n\n72")
    assert learned(Renderer(tokenizer), sample)[1] == ["48 + 24\n</think>\n\n72<|im_end|>\n"]
    assert learned(Renderer(tokenizer), Sample(prompt="?", completion="72"))[1] == ["72<|im_end|>\n"]


def test_slow_tokenizers_are_masked_by_the_token_prefix():
    tokenizer = ByT5Tokenizer()  # a token a byte, and no character offsets
    assert not tokenizer.is_fast
    ids, spans = learned(Renderer(tokenizer), Sample(prompt="é?", completion="72"))
    assert spans == ["72</s>"] and tokenizer.decode(ids) == "é?72</s>"


def test_a_template_that_rewrites_the_prompt_is_refused():
    forgetful = "{% for m in messages %}{{ m.role + ':' + (m.content if loop.last else '...') + '\n' }}{% endfor %}"
    with pytest.raises(RowError, match="row 3: .* differently once that is answered: first 'How.*then '\\.\\.\\."):
        Renderer(tiny_tokenizer(chat_template=forgetful)).render(Sample(prompt="How", completion="so"), "row 3")


def test_the_date_that_a_template_writes_does_not_move():
    """Llama 3.2's template, and others, write today's date; gradients of tomorrow must equal those of today."""
    dated = "{{ strftime_now('%d %b %Y') }}|{{ strftime_now('%Y-%m-%d') }}\n" + CHATML
    renderer = Renderer(tiny_tokenizer(chat_template=dated))
    assert renderer.render(Sample(prompt="a", completion="b")).text.startswith(
        "26 Jul 2024|2024-07-26\n<|im_start|>user"
    )


def real_templates():
    spec = find_spec("trl")
    folder = Path(spec.submodule_search_locations[0], "chat_templates") if spec else Path()  # type: ignore[index]
    return [p for p in sorted(folder.glob("*.jinja")) if not p.name.startswith(("idefics", "llava", "smolvlm"))]


@pytest.mark.parametrize("path", real_templates(), ids=lambda path: path.stem)
@pytest.mark.parametrize("turns", ["last", "all"])
def test_real_templates_are_masked_by_content(path, turns):
    """The templates of real models, as far as TRL ships them: text-only families."""
    tokenizer = tiny_tokenizer(chat_template=path.read_text(), bos="<s>", eos="</s>")
    ids, spans = learned(Renderer(tokenizer, assistant_turns=turns), Sample(messages=TWO_TURNS))
    for span, content in zip(reversed(spans), ["72 clips", "48 clips"], strict=False):
        assert content in span and "How many" not in span and "And now" not in span
    assert len(spans) == (2 if turns == "all" else 1)


def test_messages_without_a_template_need_one():
    with pytest.raises(RowError, match="row 5: the row holds messages, but there is no chat template"):
        Renderer(tiny_tokenizer(chat_template=None)).render(Sample(messages=TWO_TURNS), "row 5")


@pytest.mark.parametrize("template, roles", [(MISTRAL, "user user assistant"), (GEMMA, "system user assistant")])
def test_messages_that_the_template_refuses_are_named(template, roles):
    messages = [{"role": role, "content": "x"} for role in roles.split()]
    with pytest.raises(
        RowError, match=f"row 2: the chat template refuses the messages .roles {roles.replace(' ', ', ')}"
    ):
        Renderer(tiny_tokenizer(chat_template=template, bos="<bos>")).render(Sample(messages=messages), "row 2")


def test_batched_tokenisation_equals_single():
    renderer = Renderer(tiny_tokenizer(chat_template=QWEN2), assistant_turns="all")
    samples = [Sample(prompt="a", completion=c) for c in COMPLETIONS] + [Sample(messages=TWO_TURNS), Sample(text="b")]
    renderings = [renderer.render(sample) for sample in samples]
    assert renderer.tokenize(renderings) == [renderer.tokenize([rendering])[0] for rendering in renderings]
    assert renderer.tokenize([]) == []
