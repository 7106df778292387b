"""Whatever a server does, every answer is logged once, no request is lost, and what it refuses for good says why.

The server is `completions_server.py`; the client is the real one, over real HTTP.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from email.utils import formatdate
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from completions_server import CompletionsServer, serve
from helpers import save_tiny_model
from huggingface_hub import constants

from hf_prism import server as server_module
from hf_prism.generation import Budget, BudgetSpent, Request, RequestLog, Response, Sampling
from hf_prism.server import ServerGenerator


@pytest.fixture(autouse=True)
def online(monkeypatch):
    """Requests are sent, and tried again after a moment."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(server_module, "FIRST_WAIT", 0.01)
    monkeypatch.setenv("HF_TOKEN", "hf_ours")


@pytest.fixture
def server():
    with serve() as running:
        yield running


def ask(text: str = "2 + 2?", seed: int = 0, **sampling: Any) -> Request:
    return Request(({"role": "user", "content": text},), Sampling(**sampling), seed)


def questions(count: int) -> list[Request]:
    return [ask(f"q{i}", seed=i) for i in range(count)]


def generator(server: CompletionsServer, **options: Any) -> ServerGenerator:
    return ServerGenerator("tiny", **{"base_url": server.url, "timeout": 10.0, **options})


def completed(model: ServerGenerator, requests: Sequence[Request]) -> list[Response]:
    """Responses by position, each of which must come once."""
    pairs = list(model.generate(requests))
    assert sorted(position for position, _ in pairs) == list(range(len(requests)))
    return [response for _, response in sorted(pairs, key=lambda pair: pair[0])]


def test_each_request_is_sent_as_it_is_with_its_own_seed(server):
    requests = [
        Request(
            ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "a"}), Sampling(0.0, 1.0, 7), 5
        ),
        ask("b", seed=2**63 - 1),
    ]
    responses = completed(generator(server, extra_body={"top_k": 20}), requests)
    assert responses == [Response("a (5)", "stop", 3, 2), Response(f"b ({2**63 - 1})", "stop", 1, 2)]
    body = next(received.body for received in server.received if received.question == "a")
    assert body["messages"] == list(requests[0].messages)
    given = {name: body[name] for name in ("model", "temperature", "top_p", "max_tokens", "seed", "top_k")}
    assert given == {"model": "tiny", "temperature": 0.0, "top_p": 1.0, "max_tokens": 7, "seed": 5, "top_k": 20}
    assert body.get("n") is None and not body.get("stream")


def test_the_name_says_what_is_asked_of_whom_but_not_where():
    here, there = (ServerGenerator("m", base_url=f"http://{host}/v1") for host in ("a", "b"))
    assert here.name == there.name == "m"
    assert ServerGenerator("m", extra_body={"b": 1, "a": 2}).name == 'm {"a": 2, "b": 1}'


# --- another try

WAITING: list[tuple[str, dict[str, Any]]] = [
    ("busy", {"status": 429}),
    ("request time-out", {"status": 408}),
    ("conflict", {"status": 409}),
    ("broken", {"status": 500}),
    ("loading", {"status": 503, "body": "not JSON at all"}),
    ("gateway", {"status": 502, "body": "<html>Bad Gateway</html>"}),
    ("overloaded", {"status": 529}),
    ("a page in place of an answer", {"body": "<html>Welcome</html>"}),
    ("truncated JSON", {"body": '{"choices": [{"message": {"content": "4'}),
    ("no object", {"body": [1, 2]}),
    ("empty choices", {"body": {"choices": []}}),
    ("an error in place of choices", {"body": {"error": {"message": "upstream"}}}),
    ("no message", {"body": {"choices": [{"finish_reason": "stop"}]}}),
    ("a message that is none", {"body": {"choices": [{"message": "4"}]}}),
    ("dropped before the answer", {"drop": 0}),
    ("dropped within the answer", {"drop": 20}),
]


@pytest.mark.parametrize(("fault"), [fault for _, fault in WAITING], ids=[name for name, _ in WAITING])
def test_another_try_follows_what_may_pass(server, fault):
    server.fail(times=2, **fault)
    assert completed(generator(server), [ask("a")]) == [Response("a (0)", "stop", 1, 2)]
    assert len(server.received) == 3


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_seconds_are_waited_for(server, status):
    server.fail(status, headers={"Retry-After": "1"})
    completed(generator(server), questions(1))
    first, second = server.received
    assert 1.0 <= second.at - first.at < 3


def test_retry_after_dates_are_waited_for(server, monkeypatch):
    monkeypatch.setattr(server_module.time, "time", lambda: 1_000_000_000.25)
    server.fail(429, headers={"Retry-After": formatdate(1_000_000_001, usegmt=True)})
    completed(generator(server), questions(1))
    first, second = server.received
    assert 0.75 <= second.at - first.at < 3


def test_a_slow_answer_is_given_up_and_asked_for_again(server):
    server.fail(delay=2.0)
    started = time.monotonic()
    assert completed(generator(server, timeout=0.5), [ask("a")])[0].text == "a (0)"
    assert time.monotonic() - started < 1.9
    assert len(server.received) == 2


def test_an_answer_that_only_trickles_is_given_up(server):
    server.fail(drip=0.1)
    started = time.monotonic()
    assert completed(generator(server, timeout=0.5), [ask("a")])[0].text == "a (0)"
    assert time.monotonic() - started < 5
    assert len(server.received) == 2


def test_pauses_grow(server, monkeypatch):
    monkeypatch.setattr(server_module, "FIRST_WAIT", 0.1)
    server.fail(500, times=4)
    completed(generator(server), questions(1))
    at = [received.at for received in server.received]
    pauses = [later - earlier for earlier, later in zip(at, at[1:], strict=False)]
    for attempt, pause in enumerate(pauses):
        assert 0.05 * 2**attempt <= pause < 0.1 * 2**attempt + 0.3


def test_after_too_many_tries_the_others_are_logged_and_the_same_command_goes_on(server, tmp_path, monkeypatch):
    monkeypatch.setattr(server_module, "TRIES", 3)
    server.answer = lambda body: time.sleep(0.5) or body["messages"][-1]["content"]
    fault = server.fail(500, times=float("inf"), when=lambda body: body["messages"][-1]["content"] == "q1")
    log, requests = RequestLog(tmp_path / "requests.jsonl"), questions(20)
    with pytest.raises(RuntimeError, match=r"did not answer a request in 3 tries.*500 told to fail.*the same command"):
        log.complete(generator(server, concurrency=4), requests)
    assert log.num_requests == 3  # q0, q2 and q3 were under way, and nobody began another
    assert Counter(received.question for received in server.received) == {"q0": 1, "q1": 3, "q2": 1, "q3": 1}
    fault.times = 0
    server.received.clear()
    server.answer = lambda body: body["messages"][-1]["content"]
    responses = log.complete(generator(server), requests)
    assert [response.text for response in responses] == [f"q{i}" for i in range(20)]
    assert Counter(server.questions()) == Counter(f"q{i}" for i in range(20) if i not in (0, 2, 3))


def test_a_server_that_asks_for_too_long_is_not_waited_for(server):
    server.fail(429, headers={"Retry-After": "86400"})
    with pytest.raises(RuntimeError, match="asks to wait 86,400 seconds"):
        completed(generator(server), questions(1))
    assert len(server.received) == 1


# --- what an answer says


def message(**parts: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", **parts}}]}


ANSWERS: list[tuple[str, dict[str, Any], str]] = [
    ("thoughts of vLLM and DeepSeek", message(content="4", reasoning_content=" two and two \n"), "<think>\ntwo and two\n</think>\n\n4"),
    ("thoughts of OpenRouter", message(content="4", reasoning="two and two"), "<think>\ntwo and two\n</think>\n\n4"),
    ("thoughts within", message(content="<think>\nhm\n</think>\n\n4"), "<think>\nhm\n</think>\n\n4"),
    ("thoughts opened by the prompt", message(content="hm\n</think>\n\n4"), "<think>\nhm\n</think>\n\n4"),
    ("no thoughts", message(content="4", reasoning=None), "4"),
    ("nothing", message(content=None), ""),
    ("more choices than asked for", {"choices": message(content="first")["choices"] + message(content="second")["choices"]}, "first"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "text"), [case[1:] for case in ANSWERS], ids=[case[0] for case in ANSWERS])
def test_the_text_is_what_the_model_wrote_with_its_thoughts_before(server, body, text):
    server.fail(body=body)
    assert completed(generator(server), [ask()])[0].text == text


def test_thoughts_that_were_cut_off_stay_open(server):
    body = message(content=None, reasoning_content="and then")
    body["choices"][0]["finish_reason"] = "length"
    server.fail(body=body)
    response = completed(generator(server), [ask()])[0]
    assert (response.text, response.finish_reason) == ("<think>\nand then\n", "length")


def test_tokens_are_the_servers_and_else_an_estimate(server):
    server.fail(
        body={**message(content="4"), "usage": {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}}
    )
    server.fail(body=message(content="x" * 10, reasoning="y" * 10))
    counted, estimated = completed(generator(server, concurrency=1), [ask("z" * 9), ask("z" * 9, seed=1)])
    assert (counted.prompt_tokens, counted.completion_tokens) == (100, 50)
    assert (estimated.prompt_tokens, estimated.completion_tokens) == (3, 5)  # four characters each


# --- refusals


@pytest.mark.parametrize("status", [400, 413, 422, 403])
def test_what_is_refused_for_one_request_is_its_response(server, tmp_path, status):
    detail = {"error": {"message": "This model's maximum context length is 4096 tokens"}}
    server.fail(status, body=detail, times=9, when=lambda body: body["messages"][-1]["content"] in ("q0", "q5"))
    log = RequestLog(tmp_path / "requests.jsonl")
    responses = log.complete(generator(server), questions(12))
    refused = [i for i, response in enumerate(responses) if response.finish_reason == "error"]
    assert refused == [0, 5]
    assert responses[5].error == f"{status} This model's maximum context length is 4096 tokens"
    assert len(server.received) == 12  # no other try


def test_refusals_that_come_before_the_first_answer_do_not_stop_the_run(server):
    """They come at once, answers take their time; and many prompts may be too long."""
    server.answer = lambda body: time.sleep(0.4) or "4"
    server.fail(400, times=99, when=lambda body: body["messages"][-1]["content"] not in ("q3", "q30"))
    responses = completed(generator(server, concurrency=8), questions(40))
    assert [i for i, response in enumerate(responses) if not response.error] == [3, 30]


REFUSALS: list[tuple[int, Any, str]] = [
    (
        401,
        {"error": {"message": "bad key"}},
        r"does not let you use tiny: 401 bad key|does not let you use tiny: bad key",
    ),
    (402, {"error": "no money"}, "credits at .* are used up"),
    (403, {"error": "not for you"}, "does not let you use tiny"),
    (404, {"detail": "Not Found"}, "has no model 'tiny'.*usually ends in /v1"),
    (404, {"error": {"message": "The model `tiny` does not exist."}}, "has no model 'tiny'"),
    (400, {"detail": "Server is pinned to 'other'; requested 'tiny'."}, "has no model 'tiny': .*pinned to 'other'"),
    (400, {"error": {"message": "Unrecognized request argument supplied: seed"}}, "refuses every request: .*seed"),
    (422, {"detail": "Unexpected fields in the request: {'top_k'}"}, "refuses every request: .*top_k.*extra_body"),
    (400, {"error": {"message": "your prompt has 999 tokens, too many"}}, "does no prompt fit its context"),
]


@pytest.mark.parametrize(("status", "body", "problem"), REFUSALS)
def test_what_is_refused_for_every_request_is_an_error_and_not_logged(server, tmp_path, status, body, problem):
    server.fail(status, body=body, times=float("inf"))
    log = RequestLog(tmp_path / "requests.jsonl")
    with pytest.raises(ValueError, match=problem):
        log.complete(generator(server), questions(100))
    assert log.num_requests == 0
    with pytest.raises(ValueError, match=problem):
        generator(server).check()


def test_a_key_that_expires_is_an_error_and_not_a_response(server, tmp_path):
    log = RequestLog(tmp_path / "requests.jsonl")
    server.fail(401, times=99, when=lambda body: body["seed"] >= 20)
    with pytest.raises(ValueError, match="does not let you use tiny"):
        log.complete(generator(server, concurrency=4), questions(40))
    assert log.num_requests == 20


def test_few_refusals_that_do_not_speak_of_the_model_are_responses(server):
    server.fail(400, body={"error": "too long"}, times=99)
    assert [response.error for response in completed(generator(server), questions(2))] == ["400 too long"] * 2


def test_the_key_comes_from_the_environment_and_goes_nowhere_else(server, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-secret")
    server.api_key = "sk-secret"
    log = RequestLog(tmp_path / "requests.jsonl")
    echo = {"error": {"message": "sk-secret asks for too much"}}
    server.fail(400, body=echo, when=lambda body: body["messages"][-1]["content"] == "q1")
    responses = log.complete(generator(server, api_key_env="MY_KEY"), questions(3))
    assert responses[1].error == "400 *** asks for too much" and responses[2].text == "q2 (2)"
    assert "sk-secret" not in log.path.read_text()
    monkeypatch.setenv("MY_KEY", "sk-wrong")
    with pytest.raises(ValueError, match="Check the key in the environment variable MY_KEY") as caught:
        generator(server, api_key_env="MY_KEY").check()
    assert "sk-wrong" not in str(caught.value)


def test_the_token_of_hugging_face_is_not_sent_to_others(server):
    completed(generator(server), questions(2))
    assert {received.headers.get("authorization") for received in server.received} == {"Bearer none"}
    assert not any("hf_ours" in str(received.headers) for received in server.received)


@pytest.mark.parametrize(
    ("url", "is_ours"),
    [
        ("https://router.huggingface.co/v1", True),
        ("https://abc.us-east-1.aws.endpoints.huggingface.cloud/v1", True),
        ("https://user-space.hf.space", True),
        ("https://huggingface.co.evil.com/v1", False),
        ("https://nothuggingface.co/v1", False),
        ("https://api.openai.com/v1", False),
    ],
)
def test_whose_address_is_of_hugging_face(url, is_ours):
    key = ServerGenerator("m", base_url=url)._key()
    assert key is None if is_ours else key == "none"  # for None the client takes the token


BAD: list[tuple[Callable[[], Any], str]] = [
    (lambda: ServerGenerator("m", base_url="localhost:8000"), "base_url is 'localhost:8000'"),
    (lambda: ServerGenerator("m", base_url="http://a/v1", provider="together"), "drop the other"),
    (lambda: ServerGenerator("m", concurrency=0), "concurrency is 0"),
    (lambda: ServerGenerator("m", timeout=0), "timeout is 0"),
    (lambda: ServerGenerator("m", base_url="http://a/v1", api_key_env="NO_SUCH_KEY").check(), "NO_SUCH_KEY.*is not set"),
    (lambda: ServerGenerator("m", base_url="http://127.0.0.1:9/v1").check(), r"127.0.0.1:9/v1 cannot be reached.*Is it running.*vllm serve m"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "problem"), BAD)
def test_bad_input_is_named(make, problem):
    with pytest.raises(ValueError, match=problem):
        make()


def test_a_provider_needs_a_token(monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(server_module, "get_token", lambda: None)
    with pytest.raises(ValueError, match="needs a token, and there is none. Log in"):
        ServerGenerator("m", provider="together").check()


def test_offline_mode_is_named_as_the_cause(server, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for act in (generator(server).check, lambda: list(generator(server).generate(questions(1)))):
        with pytest.raises(ValueError, match="HF_HUB_OFFLINE is set.*not even on this machine"):
            act()
    assert not server.received


# --- the preflight


def test_the_preflight_costs_one_token_and_takes_a_busy_server_for_a_good_one(server):
    generator(server).check()
    assert [received.body["max_tokens"] for received in server.received] == [1]
    server.fail(503)
    generator(server).check()
    assert len(server.received) == 2


def test_the_preflight_finds_what_is_no_model_server(server):
    server.fail(body="<html>Welcome</html>")
    with pytest.raises(ValueError, match="not as an OpenAI-compatible server"):
        generator(server).check()
    server.fail(delay=1)
    with pytest.raises(ValueError, match="no answer to a request for one token within 0.2 seconds"):
        generator(server, timeout=0.2).check()


# --- many at once


@pytest.mark.parametrize("concurrency", [1, 3, 150])
def test_no_more_requests_are_under_way_than_asked_for(server, concurrency):
    """Nor fewer: also with more than the hundred connections of one client's pool."""
    server.answer = lambda body: time.sleep(0.01 if concurrency < 10 else 0.7) or "4"
    server.fail(500, times=2)
    completed(generator(server, concurrency=concurrency), questions(max(12, 2 * concurrency)))
    assert server.most_at_once == concurrency


def test_it_runs_inside_a_running_event_loop(server):
    async def notebook() -> list[Response]:
        generator(server).check()
        return completed(generator(server), questions(3))

    assert len(asyncio.run(notebook())) == 3


def test_a_caller_that_stops_early_leaves_nothing_running(server):
    server.answer = lambda body: time.sleep(0.05) or "4"
    responses = generator(server, concurrency=2).generate(questions(50))
    next(responses)
    responses.close()  # type: ignore[attr-defined]
    sent = len(server.received)
    time.sleep(0.3)
    assert len(server.received) == sent <= 5


def test_a_budget_stops_sending_and_logs_what_was_under_way(server, tmp_path):
    server.answer = lambda body: time.sleep(0.1) or "one two three four"  # with the question, five tokens
    log = RequestLog(tmp_path / "requests.jsonl")
    with pytest.raises(BudgetSpent, match="budget of 50 tokens is spent"):
        log.complete(generator(server, concurrency=4), questions(100), budget=Budget(tokens=50))
    assert log.num_requests == len(server.received)  # none is lost
    assert 10 <= log.num_requests < 10 + 4
    with pytest.raises(BudgetSpent, match="budget of 30 requests"):
        log.complete(generator(server, concurrency=4), questions(100), budget=Budget(requests=30))
    assert len(server.received) == log.num_requests == 30


def test_a_killed_run_asks_again_only_for_what_was_under_way(server, tmp_path):
    server.answer = lambda body: time.sleep(0.05) or "4"
    path, concurrency = tmp_path / "requests.jsonl", 4
    code = """if True:
        import sys
        from hf_prism.generation import Request, RequestLog, Sampling
        from hf_prism.server import ServerGenerator
        requests = [Request(({"role": "user", "content": f"q{i}"},), Sampling(), i) for i in range(60)]
        generator = ServerGenerator("tiny", base_url=sys.argv[1], concurrency=4)
        RequestLog(sys.argv[2]).complete(generator, requests)
    """
    command = [sys.executable, "-c", code, server.url, str(path)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "0"}
    with subprocess.Popen(command, env=environment) as first:
        while len(server.received) < 30 and first.poll() is None:
            time.sleep(0.005)
        first.send_signal(signal.SIGKILL)
    assert first.returncode == -signal.SIGKILL
    time.sleep(0.2)  # the server finishes what was under way
    logged, sent = path.read_bytes().count(b"\n"), len(server.received)
    assert sent - concurrency <= logged < 60
    subprocess.run(command, env=environment, check=True)
    times = Counter(received.question for received in server.received)
    assert set(times) == {f"q{i}" for i in range(60)} and max(times.values()) <= 2
    assert len(server.received) == sent + 60 - logged
    again = subprocess.run([*command[:3], "http://127.0.0.1:9/v1", str(path)], env=environment)
    assert again.returncode == 0  # all is logged, so that nobody is asked


def test_the_pool_of_a_client_is_as_large_as_we_think():
    import huggingface_hub.utils._http as http

    pool = http.get_async_session()._transport._pool  # type: ignore[attr-defined]
    assert pool._max_connections >= server_module.PER_CLIENT


# --- the real thing


def test_transformers_serve_completes_requests(tmp_path):
    from processes import free_port

    folder, port = save_tiny_model(tmp_path / "model"), free_port()
    configuration = tmp_path / "model" / "generation_config.json"  # without this, the server never samples
    configuration.write_text(json.dumps({**json.loads(configuration.read_text()), "do_sample": True}))
    command = [str(Path(sys.executable).parent / "transformers"), "serve", folder, "--host", "127.0.0.1"]
    command += ["--port", str(port), "--device", "cpu", "--dtype", "float32"]
    model = ServerGenerator(folder, base_url=f"http://127.0.0.1:{port}/v1", concurrency=2, timeout=60.0)
    with (tmp_path / "server.log").open("w") as output:
        server = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, "HF_HOME": str(tmp_path)}
        )
    try:
        with pytest.raises(ValueError, match="cannot be reached"):
            model.check()  # it takes a while to start
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline and server.poll() is None:
            try:
                model.check()
                break
            except ValueError:
                time.sleep(0.3)
        requests = [ask("How many clips?", seed=seed, max_tokens=5 + seed) for seed in range(3)]
        log = RequestLog(tmp_path / "requests.jsonl")
        responses = log.complete(model, requests)
        assert [response.completion_tokens for response in responses] == [5, 6, 7], (
            tmp_path / "server.log"
        ).read_text()
        assert {response.finish_reason for response in responses} == {"length"}
        assert len({response.text for response in responses} - {""}) == 3
        assert {response.prompt_tokens for response in responses} == {15}
        with pytest.raises(ValueError, match="has no model 'other'.*pinned"):
            ServerGenerator("other", base_url=model.base_url).check()
    finally:
        server.kill()
        server.wait()


def test_the_client_takes_what_we_give_it():
    """Arguments of the real client, in case a later version renames them."""
    import inspect

    asked = inspect.signature(huggingface_hub.AsyncInferenceClient.chat_completion).parameters
    assert {"messages", "model", "temperature", "top_p", "max_tokens", "seed", "extra_body"} <= set(asked)
    made = inspect.signature(huggingface_hub.AsyncInferenceClient.__init__).parameters
    assert {"base_url", "provider", "api_key", "timeout"} <= set(made)
