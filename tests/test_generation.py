"""Requests and their log: nothing that came is asked for again, nothing is lost, no limit is overrun. And the two
generators that run in this process."""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers import DEEPSEEK_R1, MISTRAL, save_tiny_model, tiny_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from hf_prism import generation
from hf_prism.generation import Budget, BudgetSpent, Request, RequestLog, Response, Sampling
from hf_prism.local import Draw, TransformersGenerator, pin
from hf_prism.offline_vllm import VLLMGenerator


def ask(text: str = "2 + 2?", seed: int = 0, **sampling: Any) -> Request:
    return Request(({"role": "user", "content": text},), Sampling(**sampling), seed)


REQUESTS = [ask(f"question {i}", seed=i) for i in range(6)]


@dataclass
class Echo:
    """Repeats each question, last first where told so; remembers what it was asked."""

    name: str = "echo@1"
    backwards: bool = False
    asked: list[str] = field(default_factory=list)
    before: Callable[[Request], None] = lambda request: None
    closed: bool = False

    def check(self) -> None:
        pass

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[int, Response]]:
        positions = range(len(requests))
        try:
            for position in reversed(positions) if self.backwards else positions:
                request = requests[position]
                self.asked.append(request.messages[0]["content"])
                self.before(request)
                yield position, Response(f"<{request.messages[0]['content']}>", prompt_tokens=3, completion_tokens=7)
        finally:
            self.closed = True

    def close(self) -> None:
        pass


class Unreachable:
    """Only says its name."""

    name = "echo@1"

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} was used")


def texts(responses: Sequence[Response]) -> list[str]:
    return [response.text for response in responses]


ECHOED = [f"<question {i}>" for i in range(6)]


# --- keys


def test_a_key_is_the_digest_of_everything_that_decides_the_response():
    spelled = (
        '{"model": "m@1", "messages": [{"content": "2 + 2?", "role": "user"}], '
        '"sampling": {"temperature": 1.0, "top_p": 0.95, "max_tokens": 2048}, "seed": 7}'
    )
    assert ask(seed=7).key("m@1") == hashlib.sha256(spelled.encode()).hexdigest()[:16] == "18fdc78b54bfba68"


def test_every_part_changes_the_key_and_no_spelling_does():
    others = [
        ask("2 + 3?"),
        ask(seed=1),
        ask(temperature=0.5),
        ask(top_p=1.0),
        ask(max_tokens=10),
        Request(({"role": "system", "content": "2 + 2?"},), Sampling(), 0),
        Request(({"role": "user", "content": "2 + 2?"},) * 2, Sampling(), 0),
    ]
    keys = [request.key("m") for request in [ask(), *others]] + [ask().key("m@2")]
    assert len(set(keys)) == len(keys)
    respelled = Request(({"content": "2 + 2?", "role": "user"},), Sampling(temperature=1, top_p=0.95), 0)
    assert respelled.key("m") == ask().key("m")


BAD: list[tuple[Callable[[], Any], str]] = [
    (lambda: Sampling(temperature=-1), "temperature is -1"),
    (lambda: Sampling(temperature=math.nan), "temperature is nan"),
    (lambda: Sampling(top_p=0), "top_p is 0"),
    (lambda: Sampling(top_p=95), "top_p is 95"),
    (lambda: Sampling(max_tokens=0), "max_tokens is 0"),
    (lambda: Request((), Sampling(), 0), "at least one message"),
    (lambda: ask(seed=-1), "seed is -1"),
    (lambda: ask(seed=2**63), "seed is 9223372036854775808"),
    (lambda: Budget(tokens=-5), "a budget of -5 tokens"),
    (lambda: TransformersGenerator("embedded", batch_size=0), "batch_size is 0"),
    (lambda: TransformersGenerator("embeded").name, "did you mean 'embedded'"),
    (lambda: TransformersGenerator("embedded", revision="main").name, "needs a Hub id"),
    (lambda: TransformersGenerator("nobody/nothing").name, "nobody/nothing"),
    (lambda: TransformersGenerator("embedded", dtype="float8").check(), "dtype is 'float8'"),
]


@pytest.mark.parametrize(("make", "message"), BAD)
def test_bad_input_is_named(make, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        make()


# --- the log


@pytest.mark.parametrize("backwards", [False, True])
def test_responses_come_in_the_order_of_requests(tmp_path, backwards):
    log = RequestLog(tmp_path / "requests.jsonl")
    responses = log.complete(Echo(backwards=backwards), REQUESTS)
    assert texts(responses) == ECHOED
    assert texts(responses[2:4]) == ECHOED[2:4] and responses[-1].text == ECHOED[-1] and len(responses) == 6


def test_a_line_holds_request_and_response(tmp_path):
    log = RequestLog(tmp_path / "requests.jsonl")
    request = ask("wie viel? 🙂 \ud800", seed=5, temperature=0.5, max_tokens=9)
    assert log.complete(Echo(), [request])[0].text == "<wie viel? 🙂 \ud800>"
    entry = json.loads((tmp_path / "requests.jsonl").read_text())
    assert list(entry) == ["key", "model", "messages", "sampling", "seed", "response", "seconds"]
    assert entry["key"] == request.key("echo@1") and entry["model"] == "echo@1" and entry["seed"] == 5
    assert entry["messages"] == list(request.messages)
    assert entry["sampling"] == {"temperature": 0.5, "top_p": 0.95, "max_tokens": 9}
    assert Response(**entry["response"]) == Response("<wie viel? 🙂 \ud800>", "stop", 3, 7)
    assert 0 <= entry["seconds"] < 10


def test_what_is_logged_is_not_asked_for_again(tmp_path):
    RequestLog(tmp_path / "requests.jsonl").complete(Echo(), REQUESTS[:4])
    again = Echo()
    assert texts(RequestLog(tmp_path / "requests.jsonl").complete(again, REQUESTS)) == ECHOED
    assert again.asked == ["question 4", "question 5"]


def test_a_full_log_needs_no_model_and_no_right_to_write(tmp_path):
    path = tmp_path / "requests.jsonl"
    RequestLog(path).complete(Echo(), REQUESTS)
    before = path.read_bytes()
    with path.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)  # somebody writes: reading is free
        replay = RequestLog(path).complete(Unreachable(), REQUESTS, budget=Budget(0, 0, 0.0))  # type: ignore[arg-type]
    assert texts(replay) == ECHOED
    assert path.read_bytes() == before


def test_another_model_is_asked_anew(tmp_path):
    log = RequestLog(tmp_path / "requests.jsonl")
    log.complete(Echo(), REQUESTS)
    other = Echo(name="echo@2")
    log.complete(other, REQUESTS[:2])
    assert len(other.asked) == 2


def test_equal_requests_are_asked_once(tmp_path):
    echo = Echo()
    responses = RequestLog(tmp_path / "requests.jsonl").complete(echo, [ask("a"), ask("b"), ask("a")])
    assert texts(responses) == ["<a>", "<b>", "<a>"]
    assert echo.asked == ["a", "b"]


def test_no_requests_need_nothing(tmp_path):
    assert list(RequestLog(tmp_path / "requests.jsonl").complete(Unreachable(), [])) == []  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_every_torn_line_is_asked_for_again_and_spoils_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr(generation.files.os, "fsync", lambda descriptor: None)  # hundreds of files
    RequestLog(tmp_path / "whole.jsonl").complete(Echo(), REQUESTS[:3])
    whole = (tmp_path / "whole.jsonl").read_bytes()
    second_last = whole[:-1].rindex(b"\n") + 1
    for length in range(second_last, len(whole) + 1):
        path = tmp_path / f"{length}.jsonl"
        path.write_bytes(whole[:length])
        echo = Echo()
        assert texts(RequestLog(path).complete(echo, REQUESTS)) == ECHOED
        # The last line is complete with or without its newline.
        assert len(echo.asked) == (3 if length >= len(whole) - 1 else 4), whole[second_last:length]
        assert texts(RequestLog(path).complete(Unreachable(), REQUESTS)) == ECHOED  # type: ignore[arg-type]


def test_damage_in_the_middle_costs_its_line_only(tmp_path):
    path = tmp_path / "requests.jsonl"
    RequestLog(path).complete(Echo(), REQUESTS)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1], lines[3], lines[4] = b"\x00\xff" * 40 + b"\n", b'{"key": "x"}\n', b"[1]\n"
    path.write_bytes(b"".join(lines))
    echo = Echo()
    assert texts(RequestLog(path).complete(echo, REQUESTS)) == ECHOED
    assert echo.asked == ["question 1", "question 3", "question 4"]


def test_of_two_lines_with_one_key_the_first_counts(tmp_path):
    path = tmp_path / "requests.jsonl"
    RequestLog(path).complete(Echo(), REQUESTS[:1])
    path.write_text(path.read_text() + path.read_text().replace("<question 0>", "something else"))
    log = RequestLog(path)
    assert texts(log.complete(Unreachable(), REQUESTS[:1])) == ["<question 0>"]  # type: ignore[arg-type]
    assert (log.num_requests, log.num_tokens) == (2, 20)  # both were paid for


def test_what_came_before_an_error_is_logged_and_the_generator_is_closed(tmp_path):
    def fail(request: Request) -> None:
        if request.seed == 3:
            raise OSError("the line is dead")

    echo = Echo(before=fail)
    log = RequestLog(tmp_path / "requests.jsonl")
    with pytest.raises(OSError, match="the line is dead"):
        log.complete(echo, REQUESTS)
    again = Echo()
    assert texts(log.complete(again, REQUESTS)) == ECHOED
    assert again.asked == ["question 3", "question 4", "question 5"]


def test_the_generator_is_closed_when_the_log_cannot_be_written(tmp_path, monkeypatch):
    def full(*_: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(generation.files, "append_lines", full)
    echo = Echo()
    with pytest.raises(OSError, match="no space left") as caught:
        RequestLog(tmp_path / "requests.jsonl").complete(echo, REQUESTS)
    assert caught.tb and echo.closed  # at once: the traceback still holds the frame of the loop
    assert echo.asked == ["question 0"]


def test_a_response_is_on_the_disk_before_the_next_is_taken(tmp_path, monkeypatch):
    path, synced = tmp_path / "requests.jsonl", []
    monkeypatch.setattr(generation.files.os, "fsync", lambda descriptor: synced.append(path.stat().st_size))
    seen: list[tuple[int, int]] = []
    echo = Echo(before=lambda request: seen.append((path.read_bytes().count(b"\n"), len(synced))))
    RequestLog(path).complete(echo, REQUESTS)
    assert seen == [(i, i) for i in range(6)]


def test_a_generator_that_leaves_requests_out_is_an_error(tmp_path):
    class Lazy(Echo):
        def generate(self, requests: Sequence[Request]) -> Iterator[tuple[int, Response]]:
            return iter([(1, Response("one"))])

    with pytest.raises(RuntimeError, match="left 5 of 6 requests"):
        RequestLog(tmp_path / "requests.jsonl").complete(Lazy(), REQUESTS)
    assert len((tmp_path / "requests.jsonl").read_text().splitlines()) == 1


def test_two_processes_cannot_write_to_one_log(tmp_path):
    path = tmp_path / "requests.jsonl"
    code = """if True:
        import sys
        from hf_prism.generation import Request, RequestLog, Response, Sampling
        class Slow:
            name = "echo@1"
            def generate(self, requests):
                print("waiting", flush=True)
                sys.stdin.readline()
                yield 0, Response("<question 0>")
        request = Request(({"role": "user", "content": "question 0"},), Sampling(), 0)
        RequestLog(sys.argv[1]).complete(Slow(), [request])
    """
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin is not None and other.stdout is not None
        assert other.stdout.readline() == "waiting\n"
        log, echo = RequestLog(path), Echo()
        with pytest.raises(ValueError, match="requests.jsonl is in use: another process"):
            log.complete(echo, REQUESTS)
        assert not echo.asked
        other.stdin.write("\n")
    assert other.returncode == 0
    assert texts(log.complete(echo, REQUESTS)) == ECHOED  # and it sees what the other one wrote
    assert echo.asked == [f"question {i}" for i in range(1, 6)]


def test_a_line_that_is_still_being_written_is_read_when_it_is_whole(tmp_path):
    path, log = tmp_path / "requests.jsonl", RequestLog(tmp_path / "requests.jsonl")
    RequestLog(tmp_path / "whole.jsonl").complete(Echo(), REQUESTS[:2])
    whole = (tmp_path / "whole.jsonl").read_bytes()
    path.write_bytes(whole[:-40])
    assert texts(log.complete(Unreachable(), REQUESTS[:1])) == ECHOED[:1]  # type: ignore[arg-type]
    path.write_bytes(whole)
    assert texts(log.complete(Unreachable(), REQUESTS[:2])) == ECHOED[:2]  # type: ignore[arg-type]


def test_what_another_process_logged_until_the_lock_was_ours_is_seen(tmp_path, monkeypatch):
    path, other = tmp_path / "requests.jsonl", tmp_path / "other.jsonl"
    RequestLog(other).complete(Echo(), REQUESTS[:5])
    monkeypatch.setattr(generation.fcntl, "flock", lambda *_: path.write_bytes(other.read_bytes()))
    echo = Echo()
    assert texts(RequestLog(path).complete(echo, REQUESTS)) == ECHOED
    assert echo.asked == ["question 5"]


def test_responses_are_not_held_in_memory(tmp_path):
    class Talker(Echo):
        def generate(self, requests: Sequence[Request]) -> Iterator[tuple[int, Response]]:
            for position in range(len(requests)):
                yield position, Response("thought " * 50_000)

    import tracemalloc

    log, requests = RequestLog(tmp_path / "requests.jsonl"), [ask(seed=i) for i in range(40)]
    tracemalloc.start()
    try:
        responses = log.complete(Talker(), requests)
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert (tmp_path / "requests.jsonl").stat().st_size > 16_000_000
    assert held < 1_000_000
    assert len(responses[39].text) == 400_000


def test_progress_is_shown_where_it_has_a_name(tmp_path, capsys):
    log = RequestLog(tmp_path / "requests.jsonl")
    log.complete(Echo(), REQUESTS[:3])
    assert capsys.readouterr().err == ""
    log.complete(Echo(), REQUESTS, progress="Solving")
    shown = capsys.readouterr().err
    assert "Solving" in shown and "3/6" in shown


# --- the budget


def test_a_budget_of_requests_counts_what_is_logged(tmp_path):
    log, echo = RequestLog(tmp_path / "requests.jsonl"), Echo()
    log.complete(echo, REQUESTS[:2])
    with pytest.raises(BudgetSpent, match=r"budget of 5 requests is spent \(5 so far\).*goes on from there"):
        log.complete(echo, REQUESTS, budget=Budget(requests=5))
    assert len(echo.asked) == 5
    with pytest.raises(BudgetSpent):
        RequestLog(log.path).complete(echo, REQUESTS, budget=Budget(requests=5))
    assert len(echo.asked) == 5
    assert texts(log.complete(echo, REQUESTS, budget=Budget(requests=6))) == ECHOED  # exactly enough is enough
    assert len(echo.asked) == 6


def test_a_budget_of_tokens_counts_prompts_and_responses(tmp_path):
    log, echo = RequestLog(tmp_path / "requests.jsonl"), Echo()
    with pytest.raises(BudgetSpent, match=r"budget of 31 tokens is spent \(40 so far\)"):
        log.complete(echo, REQUESTS, budget=Budget(tokens=31))
    assert len(echo.asked) == 4  # of 3 + 7 tokens each
    assert texts(log.complete(echo, REQUESTS, budget=Budget(tokens=60))) == ECHOED


def test_a_budget_of_seconds_counts_from_when_it_was_made(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    budget = Budget(seconds=30)

    def work(request: Request) -> None:
        now[0] += 11

    log, echo = RequestLog(tmp_path / "requests.jsonl"), Echo(before=work)
    with pytest.raises(BudgetSpent, match=r"budget of 30 seconds is spent \(33 so far\)"):
        log.complete(echo, REQUESTS, budget=budget)
    assert len(echo.asked) == 3
    seconds = [json.loads(line)["seconds"] for line in log.path.read_text().splitlines()]
    assert seconds == [11, 11, 11]


# --- the generator of transformers


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model whose probabilities are far from uniform, and far from certain."""
    return save_tiny_model(tmp_path_factory.mktemp("tiny"), initializer_range=0.3)


@pytest.fixture(scope="module")
def tiny(folder):
    return TransformersGenerator(folder, device="cpu", batch_size=16)


def completed(generator: Any, requests: Sequence[Request]) -> list[Response]:
    """Responses by position, each of which must come once."""
    pairs = list(generator.generate(requests))
    assert sorted(position for position, _ in pairs) == list(range(len(requests)))
    return [response for _, response in sorted(pairs, key=lambda pair: pair[0])]


MIXED = [
    ask(f"How many clips? {'half as many ' * (i % 7)}", seed=100 + i, temperature=(1.0, 0.7, 0.0)[i % 3], max_tokens=8 + i)
    for i in range(24)
]  # fmt: skip


def test_a_request_gets_the_same_text_whatever_its_batch(folder, tiny):
    together = completed(tiny, MIXED)
    alone = [completed(tiny, [request])[0] for request in MIXED]
    shuffled = completed(TransformersGenerator(folder, device="cpu", batch_size=5), MIXED[::-1])[::-1]
    assert together == alone == shuffled
    assert len({response.text for response in together}) > 20


def test_the_seed_decides_the_text(tiny):
    sampled = completed(tiny, [ask(seed=seed, max_tokens=12) for seed in range(20)])
    assert len({response.text for response in sampled}) == 20
    greedy = completed(tiny, [ask(seed=seed, max_tokens=12, temperature=0) for seed in range(20)])
    assert len({response.text for response in greedy}) == 1


def test_greedy_is_the_greedy_of_generate(folder, tiny):
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for request in MIXED[:8]:
        inputs = tokenizer.apply_chat_template(
            list(request.messages), add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        with torch.no_grad():
            output = model.generate(**inputs, do_sample=False, max_new_tokens=20)[0, inputs["input_ids"].shape[1] :]
        mine = completed(tiny, [Request(request.messages, Sampling(temperature=0, max_tokens=20), 5)])[0]
        assert mine.text == tokenizer.decode(output, skip_special_tokens=True)
        assert mine.prompt_tokens == inputs["input_ids"].shape[1]


def reference(logits: np.ndarray, temperature: float, top_p: float) -> np.ndarray:
    """The probabilities of tokens, by the definition of nucleus sampling."""
    scaled = np.exp(logits.astype(np.float64) / temperature)
    probabilities = scaled / scaled.sum()
    kept, total = [], 0.0
    for token in np.argsort(-probabilities):
        if total >= top_p:
            break
        kept.append(token)
        total += probabilities[token]
    filtered = np.zeros_like(probabilities)
    filtered[kept] = probabilities[kept] / total
    return filtered


def assert_drawn_from(counts: np.ndarray, probabilities: np.ndarray) -> None:
    """A chi-square test at five standard deviations; tokens outside the nucleus must not occur at all."""
    assert counts[probabilities == 0].sum() == 0
    expected = probabilities * counts.sum()
    common = expected >= 5
    observed = np.append(counts[common], counts[~common].sum())
    expected = np.append(expected[common], expected[~common].sum())
    observed, expected = observed[expected > 0], expected[expected > 0]
    freedom = len(expected) - 1
    assert ((observed - expected) ** 2 / expected).sum() < freedom + 5 * math.sqrt(2 * freedom)


@pytest.mark.parametrize(
    ("vocabulary", "temperature", "top_p"),
    [(8, 1.0, 1.0), (8, 0.6, 0.8), (8, 2.0, 0.5), (300, 1.0, 0.9), (300, 1.3, 1.0)],
)
def test_tokens_are_drawn_from_the_nucleus(vocabulary, temperature, top_p):
    logits = np.random.default_rng(0).normal(0, 1.0, vocabulary).astype(np.float32)
    requests = [ask(seed=seed, temperature=temperature, top_p=top_p) for seed in range(4000)]
    draw, scores = Draw(requests, width=5), torch.from_numpy(logits).expand(4000, -1)
    counts = np.zeros(vocabulary)
    for length in (5, 6, 7):
        drawn = draw(torch.zeros(4000, length, dtype=torch.long), scores)
        assert (torch.isfinite(drawn).sum(dim=1) == 1).all()
        counts += np.bincount(drawn.argmax(dim=1).numpy(), minlength=vocabulary)
    probabilities = reference(logits, temperature, top_p)
    assert (probabilities > 0).sum() > (64 if vocabulary == 300 else 1)  # the likeliest 64 do not do
    assert_drawn_from(counts, probabilities)


def test_noise_that_rounds_to_zero_draws_nothing_from_outside(monkeypatch):
    monkeypatch.setattr(Draw, "_noise", lambda self, step, size: np.zeros((1, size), dtype=np.float32))
    drawn = Draw([ask(top_p=0.5)], width=0)(torch.zeros(1, 1, dtype=torch.long), torch.tensor([[0.0, 1.0, 3.0, 2.0]]))
    assert drawn.argmax().item() == 2  # alone more than half


def test_draws_at_different_places_are_independent():
    """Of one request, and of requests whose seeds are neighbours."""
    requests = [ask(seed=seed, top_p=1.0) for seed in range(6000)]
    draw, scores = Draw(requests, width=0), torch.zeros(6000, 4)
    first, second = (draw(torch.zeros(6000, n, dtype=torch.long), scores).argmax(dim=1).numpy() for n in (1, 2))
    uniform = np.full(16, 1 / 16)
    assert_drawn_from(np.bincount(4 * first + second, minlength=16), uniform)
    assert_drawn_from(np.bincount(4 * first[:-1] + first[1:], minlength=16), uniform)


def test_texts_follow_the_probabilities_of_the_model(folder, tiny):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer.apply_chat_template(
        list(ask().messages), add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    with torch.no_grad():
        logits = model(**inputs).logits[0, -1].numpy()
    by_text: Counter[str] = Counter()
    for token, probability in enumerate(reference(logits, 0.8, 0.9)):
        by_text[tokenizer.decode([token], skip_special_tokens=True)] += probability  # type: ignore[assignment]
    generator = TransformersGenerator(folder, device="cpu", batch_size=250)
    requests = [ask(seed=seed, temperature=0.8, top_p=0.9, max_tokens=1) for seed in range(2000)]
    counted = Counter(response.text for response in completed(generator, requests))
    names = sorted(by_text.keys() | counted.keys())
    assert 2 < sum(by_text[name] > 0.01 for name in names)
    assert_drawn_from(np.array([counted[n] for n in names], dtype=float), np.array([by_text[n] for n in names]))


def test_a_response_is_cut_at_its_own_limit_or_at_its_end(folder, tiny):
    """Rows of one batch have limits of their own; what ends by itself says so and counts the token that ends it."""
    responses = completed(tiny, [ask(seed=3, max_tokens=n) for n in (1, 5, 30)])
    assert [response.completion_tokens for response in responses] == [1, 5, 30]
    assert {response.finish_reason for response in responses} == {"length"}
    question = "Anna has 3 apples. She buys 4 more apples. How many apples does Anna have now?"
    embedded = completed(
        TransformersGenerator("embedded", device="cpu"), [ask(question, temperature=0, max_tokens=n) for n in (200, 3)]
    )
    assert [response.finish_reason for response in embedded] == ["stop", "length"]
    whole, cut = embedded
    tokenizer = AutoTokenizer.from_pretrained(Path(generation.__file__).parent / "embedded")
    assert whole.completion_tokens == len(tokenizer(whole.text)["input_ids"]) + 1
    assert whole.text.startswith(cut.text) and cut.completion_tokens == 3


def test_a_prompt_beyond_the_context_is_an_error_of_its_request_only(folder):
    generator = TransformersGenerator(folder, device="cpu")  # 256 positions
    long = ask("clips " * 400, max_tokens=5)
    nearly = ask("clips " * 110, max_tokens=500)
    responses = completed(generator, [ask(max_tokens=5), long, nearly])
    assert [response.finish_reason for response in responses] == ["length", "error", "length"]
    assert "tokens, which fill the context of" in str(responses[1].error) and responses[1].text == ""
    assert responses[2].prompt_tokens + responses[2].completion_tokens == 256


def test_thoughts_that_the_template_opens_are_part_of_the_text(tmp_path):
    folder = save_tiny_model(tmp_path, tokenizer=tiny_tokenizer(chat_template=DEEPSEEK_R1, bos="<s>"))
    response = completed(TransformersGenerator(folder, device="cpu"), [ask(max_tokens=4)])[0]
    assert response.text.startswith("<think>\n") and response.completion_tokens == 4


def test_a_model_is_known_by_its_content_wherever_it_lies(tmp_path, folder):
    name, commit = pin(folder, None)
    assert name.startswith("tiny") and commit is None
    copy = save_tiny_model(tmp_path / "a" / "model", seed=1)
    Path(copy).rename(tmp_path / "model")
    moved = pin(str(tmp_path / "model"), None)
    assert moved == pin(save_tiny_model(tmp_path / "b" / "model", seed=1), None)
    assert moved != pin(save_tiny_model(tmp_path / "c" / "model", seed=2), None)
    commit = "0123456789abcdef0123456789abcdef01234567"
    assert TransformersGenerator("nobody/nothing", revision=commit).name == f"nobody/nothing@{commit}"  # unreachable


def test_a_model_that_cannot_chat_is_refused(tmp_path):
    plain = save_tiny_model(tmp_path / "plain", tokenizer=tiny_tokenizer(chat_template=None))
    with pytest.raises(ValueError, match="has no chat template"):
        TransformersGenerator(plain, device="cpu").check()
    strict = save_tiny_model(tmp_path / "strict", tokenizer=tiny_tokenizer(chat_template=MISTRAL, bos="<s>"))
    twice = Request(({"role": "user", "content": "a"},) * 2, Sampling(), 0)
    with pytest.raises(ValueError, match=r"request 1: .*refuses the messages .*roles must alternate.*user, user"):
        list(TransformersGenerator(strict, device="cpu").generate([ask(max_tokens=1), twice]))


def test_a_budget_ends_local_work_between_windows(tmp_path, folder):
    generator = TransformersGenerator(folder, device="cpu", batch_size=2)
    requests = [ask(seed=seed, max_tokens=3) for seed in range(40)]
    log = RequestLog(tmp_path / "requests.jsonl")
    with pytest.raises(BudgetSpent):
        log.complete(generator, requests, budget=Budget(tokens=1))
    assert 1 <= log.num_requests <= 8
    assert len(log.complete(generator, requests)) == 40


# --- the generator of vLLM, against the signatures of its release 0.33


def stub_vllm(monkeypatch: pytest.MonkeyPatch, context: int = 50) -> list[Any]:
    calls: list[Any] = []

    @dataclass
    class SamplingParams:
        n: int = 1
        temperature: float = 1.0
        top_p: float = 1.0
        top_k: int = 0
        min_p: float = 0.0
        seed: int | None = None
        max_tokens: int | None = 16
        stop: Any = None

    class LLM:
        def __init__(self, model: str, *, revision: str | None = None, tensor_parallel_size: int = 1) -> None:
            calls.append(("LLM", model, revision, tensor_parallel_size))

        def chat(
            self, messages, sampling_params=None, use_tqdm=True, lora_request=None, priority=None, chat_template=None
        ):
            assert sampling_params is not None and len(messages) == len(sampling_params) and not use_tqdm
            assert all(isinstance(conversation, list) for conversation in messages)
            calls.append(("chat", [conversation[-1]["content"] for conversation in messages], sampling_params))
            for conversation in messages:
                if len(conversation[-1]["content"]) > context:
                    raise ValueError("The decoder prompt is longer than the maximum model length")
            return [
                SimpleNamespace(
                    prompt_token_ids=[1, 2, 3],
                    outputs=[
                        SimpleNamespace(text=f"{m[-1]['content']} {p.seed}", token_ids=(4, 5), finish_reason="length")
                    ],
                )
                for m, p in zip(messages, sampling_params, strict=True)
            ]

    module = ModuleType("vllm")
    module.LLM, module.SamplingParams = LLM, SamplingParams  # type: ignore[attr-defined]
    module.__spec__ = SimpleNamespace(name="vllm")  # type: ignore[assignment]
    monkeypatch.setitem(sys.modules, "vllm", module)
    return calls


def test_vllm_gets_each_request_with_its_own_seed(monkeypatch, folder):
    calls = stub_vllm(monkeypatch)
    generator = VLLMGenerator(folder, engine={"tensor_parallel_size": 2})
    responses = completed(generator, [ask("a", seed=5, temperature=0.5, top_p=0.9, max_tokens=99), ask("b", seed=6)])
    assert responses == [Response("a 5", "length", 3, 2), Response("b 6", "length", 3, 2)]
    assert calls[0] == ("LLM", folder, None, 2) and len(calls) == 2
    first = calls[1][2][0]
    assert (first.n, first.temperature, first.top_p, first.seed, first.max_tokens) == (1, 0.5, 0.9, 5, 99)


def test_vllm_is_pinned_to_the_commit_of_its_name(monkeypatch):
    calls = stub_vllm(monkeypatch)
    commit = "0123456789abcdef0123456789abcdef01234567"
    generator = VLLMGenerator("user/model", revision=commit)
    completed(generator, [ask("a")])
    assert calls[0] == ("LLM", "user/model", commit, 1) and generator.name == f"user/model@{commit}"


def test_one_prompt_too_long_for_vllm_costs_no_other(monkeypatch, folder):
    stub_vllm(monkeypatch)
    requests = [ask("x" * 60 if i in (3, 17) else f"q{i}", seed=i) for i in range(20)]
    responses = completed(VLLMGenerator(folder), requests)
    assert [i for i, response in enumerate(responses) if response.error] == [3, 17]
    assert responses[4].text == "q4 4" and responses[3].finish_reason == "error"
    with pytest.raises(ValueError, match=r"refuses every request.*longer than the maximum"):
        completed(VLLMGenerator(folder), [ask("x" * 60, seed=seed) for seed in range(3)])


def test_without_vllm_the_command_to_install_it_is_named(monkeypatch, folder):
    monkeypatch.delitem(sys.modules, "vllm", raising=False)
    with pytest.raises(ValueError, match="pip install vllm"):
        VLLMGenerator(folder).check()


def test_generators_import_their_libraries_late():
    code = (
        "import sys, hf_prism.generation, hf_prism.local, hf_prism.offline_vllm\n"
        "print(*[name for name in ('torch', 'transformers', 'datasets', 'vllm', 'huggingface_hub') if name in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == []
    )
