"""A model behind an OpenAI-compatible server: vLLM, TGI, SGLang, `transformers serve`, or a provider of Hugging Face.

Servers are busy, restart, drop connections and cut their answers short, so each request is tried again with growing
pauses. What a server refuses for one request is that request's response; what it refuses for all is an error.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import re
import threading
import time
from collections.abc import Coroutine, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager, suppress
from email.utils import parsedate_to_datetime
from queue import SimpleQueue
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from huggingface_hub import AsyncInferenceClient, get_token, is_offline_mode
from huggingface_hub.errors import HfHubHTTPError

from .access import LOGIN, HTTPError
from .generation import Request, Response, Sampling


TRIES = 8
FIRST_WAIT, LONGEST_WAIT = 1.0, 600.0
"""Seconds between tries: the first, doubled each time; and what a server that names a time may ask for at most."""

PASSING = (408, 409, 425, 429)
"""Refusals that another try may change, besides all from 500 on."""

FATAL = (401, 402, 404)
"""Refusals that are never about one request: the key, the credits, the address or the model."""

FIRST = 8
"""If so many requests, the first ones sent, are all refused alike, it is the setting and not the requests."""

PER_CLIENT = 64
"""Requests that share a client; its pool holds 100 connections, and more would wait for one another."""

CHARACTERS_PER_TOKEN = 4
"""To count the tokens of a server that does not."""


class _Outcome(NamedTuple):
    position: int
    response: Response
    status: int
    taken: asyncio.Event


class _Broken(Exception):
    """An answer that cannot be read."""


class ServerGenerator:
    """A model behind an OpenAI-compatible server.

    Each request is sent on its own, with its own seed; `concurrency` of them are under way at a time. Thoughts that the
    server hands out apart from the answer are put back before it. Where it counts no tokens, four characters are taken
    for one.

    `transformers serve` heeds the temperature only where the model's generation_config.json says `"do_sample": true`.

    The model, and the extra body where there is one, are its name in the log. The address is not, so that a run goes on
    when the model moves to another machine.

    Args:
        model: What the server calls it.
        base_url: The address of the server, such as `http://127.0.0.1:8000/v1`; None for a provider of Hugging Face.
        provider: Which provider; by default the Hub chooses.
        api_key_env: The environment variable that holds the key. By default Hugging Face gets its own token, and any
            other server none.
        concurrency: The most requests under way at a time.
        timeout: Seconds until a request counts as lost.
        extra_body: More fields for each request, such as `{"top_k": 20}`.

    Raises:
        ValueError: An impossible argument.

    Example:
        >>> ServerGenerator("Qwen/Qwen2.5-72B-Instruct", base_url="http://127.0.0.1:8000/v1").check()  # doctest: +SKIP
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        provider: str | None = None,
        api_key_env: str | None = None,
        concurrency: int = 32,
        timeout: float = 600.0,
        extra_body: Mapping[str, Any] | None = None,
    ) -> None:
        if base_url is not None and not re.match(r"https?://[^/]", base_url):
            raise ValueError(f"base_url is {base_url!r}; it must be an address such as http://127.0.0.1:8000/v1")
        if base_url is not None and provider is not None:
            raise ValueError(
                f"base_url is {base_url!r} and provider {provider!r}; a model has one of them, drop the other"
            )
        if concurrency < 1:
            raise ValueError(f"concurrency is {concurrency}; at least 1 request must be under way")
        if not timeout > 0:
            raise ValueError(f"timeout is {timeout} seconds; it must be above 0")
        self.model, self.base_url, self.provider, self.api_key_env = model, base_url, provider, api_key_env
        self.concurrency, self.timeout, self.extra_body = concurrency, timeout, dict(extra_body or {})
        self.name = f"{model} {json.dumps(self.extra_body, sort_keys=True)}" if self.extra_body else model
        self._knows_server = False

    def check(self) -> None:
        """Ask for a single token.

        Raises:
            ValueError: Nobody there, a key or a model that the server does not accept, or no such server at all.
        """
        request = Request(({"role": "user", "content": "Hi"},), Sampling(max_tokens=1), seed=0)

        async def ask() -> tuple[Response, int]:
            async with self._client() as client:
                return await self._try(client, request)

        self._check_online()
        try:
            with ThreadPoolExecutor(1) as thread:  # the caller may run an event loop already
                response, status = thread.submit(asyncio.run, ask()).result()
        except HfHubHTTPError:
            return  # busy, or still loading the model; `generate` is patient
        except TimeoutError as error:
            raise ValueError(
                f"{self._where} gave no answer to a request for one token within {self.timeout:g} seconds. Raise timeout if "
                "it is still loading the model."
            ) from error
        except HTTPError as error:
            raise ValueError(f"{self._where} cannot be reached ({_shown(error)}). {self._start}") from error
        except _Broken as error:
            raise ValueError(
                f"{self._where} answers, but not as an OpenAI-compatible server does ({error}). Is the address right? It "
                "usually ends in /v1."
            ) from error
        if response.error is not None:
            raise self._problem(status, response.error)

    def rendered(self, request: Request) -> None:
        """None: only the server knows the text that its model reads."""

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[int, Response]]:
        """Yield the position and the response of each request as they come.

        Raises:
            ValueError: The server accepts no request: the key, the credits, the model or the address is wrong.
            RuntimeError: A request failed too often. Those under way were still yielded.
        """
        self._check_online()
        outcomes: SimpleQueue[_Outcome | None] = SimpleQueue()
        with _running(self._send(requests, outcomes)) as sending:
            arriving = _taken(outcomes, sending.get_loop())
            for outcome in self._released(arriving, min(FIRST, len(requests))):
                yield outcome.position, outcome.response
        sending.result()

    def close(self) -> None:
        """Nothing is held between calls."""

    async def _send(self, requests: Sequence[Request], outcomes: SimpleQueue[_Outcome | None]) -> None:
        """Have `concurrency` workers take requests from one iterator, each the next when it is free."""
        pending = _numbered(requests)

        async def work(client: AsyncInferenceClient) -> None:
            try:
                for position, request in pending:
                    outcome = _Outcome(position, *await self._ask(client, request), asyncio.Event())
                    outcomes.put(outcome)
                    await outcome.taken.wait()  # till it is logged, so that never more than `concurrency` can be lost
            except BaseException:
                pending.close()  # nobody begins another request; those under way come to their end
                raise

        try:
            async with AsyncExitStack() as stack:
                workers = min(self.concurrency, len(requests))
                num_clients = -(-workers // PER_CLIENT)
                clients = [await stack.enter_async_context(self._client()) for _ in range(num_clients)]
                work_done = (work(clients[i % num_clients]) for i in range(workers))
                for result in await asyncio.gather(*work_done, return_exceptions=True):
                    if result is not None:
                        raise result
        finally:
            outcomes.put(None)

    async def _ask(self, client: AsyncInferenceClient, request: Request) -> tuple[Response, int]:
        """Try until the server answers or refuses."""
        for attempt in itertools.count(1):
            asked = 0.0
            try:
                response, status = await self._try(client, request)
                break
            except HfHubHTTPError as error:
                reason = f"{error.response.status_code} {self._reason(error)}"
                asked = _retry_after(error.response.headers)
            except TimeoutError:
                reason = f"no answer within {self.timeout:g} seconds"
            except (HTTPError, _Broken) as error:
                reason = _shown(error)
            if attempt == TRIES or asked > LONGEST_WAIT:
                wait = f", and asks to wait {asked:,.0f} seconds" if asked > LONGEST_WAIT else ""
                raise RuntimeError(
                    f"{self._where} did not answer a request in {attempt} tries{wait} (the last time: {reason}). What came "
                    "before is logged: see to the server, then give the same command; it goes on from there."
                )
            # Those who collided must not meet again, so the wait is partly random.
            await asyncio.sleep(asked + FIRST_WAIT * 2 ** (attempt - 1) * random.SystemRandom().uniform(0.5, 1.0))
        else:
            raise AssertionError("unreachable")
        if status in FATAL:
            raise self._problem(status, str(response.error))
        return response, status

    async def _try(self, client: AsyncInferenceClient, request: Request) -> tuple[Response, int]:
        """Send a request once: the response or the refusal, with its status; an exception where another try may help."""
        sampling = request.sampling
        try:
            async with asyncio.timeout(self.timeout):  # the client's own starts anew with every byte that comes
                output = await client.chat_completion(
                    messages=list(request.messages),  # type: ignore[arg-type]
                    model=self.model,
                    temperature=sampling.temperature,
                    top_p=sampling.top_p,
                    max_tokens=sampling.max_tokens,
                    seed=request.seed,
                    extra_body=self.extra_body,
                )
        except HfHubHTTPError as error:
            status = error.response.status_code
            if status in PASSING or status >= 500:
                raise
            return Response("", finish_reason="error", error=f"{status} {self._reason(error)}"), status
        except ValueError as error:
            if self.base_url is None and type(error) is ValueError:
                raise  # of the client, which knows no such provider, or no such model there
            raise _Broken(f"the answer is no JSON object: {_shown(error)}") from error
        try:
            return _response(output, request), 200
        except (AttributeError, TypeError) as error:  # a list or a number where an object belongs
            raise _Broken(f"the answer is no chat completion: {str(dict(output))[:300]}") from error

    def _released(self, outcomes: Iterator[_Outcome], first: int) -> Iterator[_Outcome]:
        """Hold refusals back until it is clear that they are about their requests, since they are logged for good.

        It is clear once a request was answered, or the `first` ones were refused, each for a reason of its own.
        """
        held: list[_Outcome] = []
        for outcome in outcomes:
            held.append(outcome)
            if not self._knows_server and outcome.response.error is not None:
                refused = [outcome for outcome in held if outcome.position < first]
                if len(refused) < first:
                    continue
                self._check_refusals(refused)
            self._knows_server = True
            yield from held
            held.clear()
        yield from held

    def _check_refusals(self, refused: list[_Outcome]) -> None:
        """Raise if all of them are one and the same, and either speak of the setting or are many."""
        status, reason = refused[0].status, str(refused[0].response.error)
        alike = {re.sub(r"\d+", "0", str(outcome.response.error)) for outcome in refused}
        if len(alike) == 1 and (status == 403 or self._is_about_model(reason) or len(refused) >= FIRST):
            raise self._problem(status, reason)

    def _is_about_model(self, reason: str) -> bool:
        return bool(re.search(rf"['\"`]{re.escape(self.model)}['\"`]|model_not_(found|supported)", reason))

    def _problem(self, status: int, reason: str) -> ValueError:
        """What the user has to change when the server refuses every request."""
        if status in (401, 403):
            return ValueError(f"{self._where} does not let you use {self.model}: {reason}. {self._credentials}")
        if status == 402:
            return ValueError(
                f"the credits at {self._where} are used up: {reason}. What came is logged; add some, and give the same command."
            )
        if status == 404 or self._is_about_model(reason):
            return ValueError(
                f"{self._where} has no model {self.model!r}: {reason}. Give the name that the server was started with, and "
                "check the address; it usually ends in /v1."
            )
        return ValueError(
            f"{self._where} refuses every request: {reason}. Is something asked for that {self.model} does not offer (a system "
            "message, a field of extra_body), or does no prompt fit its context?"
        )

    @property
    def _where(self) -> str:
        return self.base_url or f"the provider {self.provider or '(auto)'} of Hugging Face"

    @property
    def _start(self) -> str:
        if self.base_url is None:
            return "Check the network."
        return f"Is it running? Start it, e.g. by `vllm serve {self.model}` or `transformers serve {self.model}`."

    @property
    def _credentials(self) -> str:
        if self.api_key_env:
            return f"Check the key in the environment variable {self.api_key_env}."
        if self.base_url is None or _is_hugging_face(self.base_url):
            return f"{LOGIN}; it needs the permission to call Inference Providers."
        return "Put its key into an environment variable, and name that as api_key_env."

    def _client(self) -> AsyncInferenceClient:
        return AsyncInferenceClient(
            base_url=self.base_url, provider=self.provider, api_key=self._key(), timeout=self.timeout  # type: ignore[arg-type]
        )  # fmt: skip

    def _key(self) -> str | None:
        if self.api_key_env is not None:
            if key := os.environ.get(self.api_key_env):
                return key
            raise ValueError(
                f"the environment variable {self.api_key_env}, which is to hold the key of {self._where}, is not set. Set it, "
                "or drop api_key_env if the server needs no key."
            )
        if self.base_url is not None and not _is_hugging_face(self.base_url):
            return "none"  # without one the client would send the token of Hugging Face to somebody else
        if self.base_url is None and get_token() is None:
            raise ValueError(f"{self._where} needs a token, and there is none. {LOGIN}.")
        return None

    def _check_online(self) -> None:
        self._key()
        if is_offline_mode():
            raise ValueError(
                f"HF_HUB_OFFLINE is set, so that huggingface_hub sends nothing to {self._where}, not even on this machine. "
                "Unset it; models and data sets in the cache are found all the same."
            )

    def _reason(self, error: HfHubHTTPError) -> str:
        """What the server says; never with the key, which some repeat."""
        text = " ".join((error.response.text or str(error)).split())
        with suppress(ValueError, KeyError, TypeError, AttributeError):
            body = json.loads(text)
            inner = body.get("error") or body.get("detail") or body["message"]
            text = str(inner.get("message") or inner) if isinstance(inner, dict) else str(inner)
        for secret in (os.environ.get(self.api_key_env or ""), get_token()):
            text = text.replace(secret, "***") if secret else text
        return text[:500].rstrip(".")


def _numbered(requests: Sequence[Request]) -> Generator[tuple[int, Request], None, None]:
    yield from enumerate(requests)


def _taken(outcomes: SimpleQueue[_Outcome | None], loop: asyncio.AbstractEventLoop) -> Iterator[_Outcome]:
    """The outcomes until there is None; when the next one is asked for, whoever waits for the last one is told."""
    while outcome := outcomes.get():
        yield outcome
        loop.call_soon_threadsafe(outcome.taken.set)


@contextmanager
def _running(coroutine: Coroutine[Any, Any, None]) -> Iterator[asyncio.Task[None]]:
    """Run a coroutine in a thread, with a loop of its own since the caller may have one; the end of the block cancels it."""
    loop = asyncio.new_event_loop()
    task = loop.create_task(coroutine)

    def run() -> None:
        with suppress(Exception, asyncio.CancelledError):  # whoever waits for the task gets its exception
            loop.run_until_complete(task)
        loop.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield task
    finally:
        with suppress(RuntimeError):  # the loop is closed, all is done
            loop.call_soon_threadsafe(task.cancel)
        thread.join()


def _response(output: Any, request: Request) -> Response:
    """Read a completion; `n` is never asked for, so that only the first choice counts."""
    if not output.choices:
        raise _Broken(f"the answer holds no choice: {str(output.get('error') or dict(output))[:300]}")
    choice = output.choices[0]
    message = choice.message
    if message is None:
        raise _Broken("the choice holds no message")
    reason, content = choice.finish_reason or "stop", message.content or ""
    # Servers call the thoughts `reasoning_content` or `reasoning`.
    thoughts = message.get("reasoning_content") or message.get("reasoning") or ""
    usage = output.usage or {}
    prompt = "".join(message.get("content") or "" for message in request.messages)
    return Response(
        text=_with_thoughts(thoughts, content, cut_off=reason == "length"),
        finish_reason=reason,
        prompt_tokens=_num_tokens(usage.get("prompt_tokens"), prompt),
        completion_tokens=_num_tokens(usage.get("completion_tokens"), thoughts + content),
    )


def _with_thoughts(thoughts: str, content: str, cut_off: bool) -> str:
    if "</think>" in content:  # all in one; where the prompt opened the thoughts, only their end is there
        return content if "<think>" in content else f"<think>\n{content}"
    if not thoughts:
        return content
    opened = f"<think>\n{thoughts.strip()}\n"
    return opened if cut_off and not content else f"{opened}</think>\n\n{content}"


def _num_tokens(counted: Any, text: str) -> int:
    return counted if isinstance(counted, int) else -(-len(text) // CHARACTERS_PER_TOKEN)


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that the server asks to wait: it gives a number or a date."""
    given = headers.get("retry-after", "").strip()
    with suppress(ValueError):
        return max(0.0, float(given))
    with suppress(ValueError):
        return max(0.0, parsedate_to_datetime(given).timestamp() - time.time())
    return 0.0


def _is_hugging_face(url: str) -> bool:
    return bool(re.search(r"(^|\.)(huggingface\.co|huggingface\.cloud|hf\.space)$", urlsplit(url).hostname or ""))


def _shown(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:300] if str(error) else type(error).__name__
