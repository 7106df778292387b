"""A model server on loopback: enough of OpenAI's protocol for the real clients. It logs what it gets, and fails where a
test tells it to.

    with serve(lambda body: "\\boxed{4}") as server:
        server.fail(status=429, headers={"Retry-After": "1"})
        ServerGenerator("tiny", base_url=server.url).check()
        assert [received.status for received in server.received] == [429, 200]

An answer may be a text, a message (a dict with `content`), or a whole body (a dict with `choices`). It is made in the
thread of its request, so it may sleep. Without an answer the server repeats the question and the seed.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


Answer = Callable[[dict[str, Any]], "str | dict[str, Any]"]


@dataclass
class Received:
    """A request, and what became of it.

    Attributes:
        body: What was asked.
        headers: By name in lower case.
        at: When it came, in seconds of `time.monotonic`.
        status: Of the answer; 0 until it is given, or where the connection was dropped.
    """

    body: dict[str, Any]
    headers: dict[str, str]
    at: float
    status: int = 0

    @property
    def question(self) -> str:
        """The content of the last message."""
        return self.body["messages"][-1]["content"]


@dataclass
class Fault:
    """What happens to the next requests, or to some of them.

    Attributes:
        status: Of the answer.
        headers: Of the answer.
        body: In place of a completion; text is sent as it is.
        delay: Seconds until the answer.
        drop: Close the connection; 0 before the answer, else after so many bytes of its body.
        drip: Seconds between the bytes of the body.
        times: How many requests it happens to.
        when: To which requests, by their body.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str | dict[str, Any] | list[Any] | None = None
    delay: float = 0.0
    drop: int | None = None
    drip: float = 0.0
    times: float = 1
    when: Callable[[dict[str, Any]], bool] = lambda body: True


class CompletionsServer:
    """The server, and what tests do with it.

    Attributes:
        url: What generators take as `base_url`.
        received: Every request, in the order they came.
        most_at_once: The most requests that were under way at a time.
        api_key: Which key is accepted; None for any.
        model: Which model there is; None for any.
    """

    def __init__(self, answer: Answer | None = None) -> None:
        self.answer = answer or (lambda body: f"{body['messages'][-1]['content']} ({body.get('seed')})")
        self.received: list[Received] = []
        self.faults: list[Fault] = []
        self.most_at_once = self.at_once = 0
        self.api_key: str | None = None
        self.model: str | None = None
        self.lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"owner": self}))
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def fail(self, status: int = 200, **options: Any) -> Fault:
        """Arrange for a `Fault`, and return it."""
        fault = Fault(status, **options)
        self.faults.append(fault)
        return fault

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def questions(self) -> list[str]:
        """What was asked and answered, in the order it came."""
        return [received.question for received in self.received if received.status == 200]

    def take_fault(self, body: dict[str, Any]) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.times > 0 and fault.when(body):
                    fault.times -= 1
                    return fault
        return None

    def refusal(self, received: Received) -> Fault | None:
        if self.api_key is not None and received.headers.get("authorization") != f"Bearer {self.api_key}":
            return Fault(401, body=_error("Incorrect API key provided"))
        if self.model is not None and received.body["model"] != self.model:
            return Fault(404, body=_error(f"The model `{received.body['model']}` does not exist."))
        return None

    def completion(self, body: dict[str, Any]) -> dict[str, Any]:
        answer = self.answer(body)
        if isinstance(answer, dict) and "choices" in answer:
            return answer
        message = answer if isinstance(answer, dict) else {"content": answer}
        prompt = sum(len(message["content"].split()) for message in body["messages"])
        written = len((message["content"] or "").split())
        return {
            "id": "chatcmpl-0",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", **message}}],
            "usage": {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written},
        }


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error"}}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512  # all of a test's connections may come at once

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that give up are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    owner: CompletionsServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._send(Fault(500, body={"error": "no list of models, as of `transformers serve` with an empty cache"}))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        headers = {name.lower(): value for name, value in self.headers.items()}
        received = Received(body, headers, time.monotonic())
        server = self.owner
        with server.lock:
            server.received.append(received)
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
        try:
            fault = self._answer(received)
        finally:  # before the answer leaves, since the client sends its next request as soon as it has it
            with server.lock:
                server.at_once -= 1
        if fault.drop == 0:
            self.close_connection = True
        else:
            received.status = fault.status
            self._send(fault)

    def _answer(self, received: Received) -> Fault:
        """What is sent back."""
        if self.path != "/v1/chat/completions":
            return Fault(404, body={"detail": "Not Found"})
        fault = self.owner.refusal(received) or self.owner.take_fault(received.body) or Fault()
        time.sleep(fault.delay)
        if fault.body is None and fault.drop != 0:
            body = self.owner.completion(received.body) if fault.status == 200 else _error("told to fail")
            return replace(fault, body=body)
        return fault

    def _send(self, answer: Fault) -> None:
        content = (answer.body if isinstance(answer.body, str) else json.dumps(answer.body)).encode()
        headers = {"Content-Type": "application/json", "Content-Length": str(len(content)), **answer.headers}
        with suppress(BrokenPipeError, ConnectionResetError):
            self.send_response(answer.status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            for byte in content[: answer.drop] if answer.drip else ():
                self.wfile.write(bytes([byte]))
                time.sleep(answer.drip)
            if not answer.drip:
                self.wfile.write(content[: answer.drop])
        if answer.drop is not None:
            self.close_connection = True


@contextmanager
def serve(answer: Answer | None = None) -> Iterator[CompletionsServer]:
    """Start a server, and stop it after the block."""
    server = CompletionsServer(answer)
    try:
        yield server
    finally:
        server.close()
