"""A model in this process, through vLLM: the fastest way on a GPU that has nothing else to do.

vLLM does not give its memory back, so where the same process needs the GPU afterwards, run `vllm serve MODEL` beside it
and use `ServerGenerator`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from importlib.util import find_spec
from itertools import islice
from typing import Any

from .generation import Request, Response
from .local import pin


PORTION = 1024
"""Requests that vLLM gets at once: enough to keep it busy; what comes is logged portion by portion."""


class VLLMGenerator:
    """A model run by vLLM in this process.

    Args:
        model: A Hub id or a folder.
        revision: Branch, tag or commit of a Hub id.
        engine: More arguments for `vllm.LLM`, such as `{"tensor_parallel_size": 4, "max_model_len": 16384}`.

    Attributes:
        name: See `pin`.

    Raises:
        ValueError: There is no such model or revision.

    Example:
        >>> VLLMGenerator("Qwen/Qwen2.5-72B-Instruct", engine={"tensor_parallel_size": 8}).check()  # doctest: +SKIP
    """

    def __init__(self, model: str, *, revision: str | None = None, engine: Mapping[str, Any] | None = None) -> None:
        self.name, self._commit = pin(model, revision)
        self.model, self.engine = model, dict(engine or {})

    @cached_property
    def _llm(self) -> Any:
        self.check()
        from vllm import LLM  # type: ignore[import-not-found]

        return LLM(model=self.model, revision=self._commit, **self.engine)

    def check(self) -> None:
        """Make sure that vLLM is installed.

        Raises:
            ValueError: It is not.
        """
        if find_spec("vllm") is None:
            raise ValueError(
                "VLLMGenerator needs vLLM, which is not installed: pip install vllm. It brings its own versions of torch and "
                "transformers; to keep yours, install it elsewhere, run `vllm serve MODEL` and use ServerGenerator."
            )

    def rendered(self, request: Request) -> str:
        """The text that the model reads, by the chat template of its tokenizer."""
        return str(
            self._tokenizer.apply_chat_template(list(request.messages), tokenize=False, add_generation_prompt=True)
        )

    @cached_property
    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.model, revision=self._commit or "main")

    def close(self) -> None:
        """Drop the engine. vLLM gives the memory of the GPU back when the process ends."""
        self.__dict__.pop("_llm", None)

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[int, Response]]:
        """Yield the position and the response of each request, portion by portion.

        Raises:
            ValueError: vLLM is not installed, or the model cannot be loaded, or it refuses every request alike.
        """
        _ = self._llm  # what keeps it from loading is not about a request
        numbered, has_answered = enumerate(requests), False
        while portion := list(islice(numbered, PORTION)):
            responses = list(self._complete(portion))
            errors = [response.error for _, response in responses if response.error]
            if not has_answered and len(errors) == len(responses) > 1:
                raise ValueError(f"vLLM refuses every request to {self.name}; the first one: {errors[0]}")
            has_answered = True
            yield from responses

    def _complete(self, portion: list[tuple[int, Request]]) -> Iterator[tuple[int, Response]]:
        """vLLM refuses a whole call for one prompt that is too long, so halve until it stands alone."""
        try:
            outputs = self._chat([request for _, request in portion])
        except ValueError as error:
            if len(portion) == 1:
                yield portion[0][0], Response("", finish_reason="error", error=str(error))
                return
            middle = len(portion) // 2
            yield from self._complete(portion[:middle])
            yield from self._complete(portion[middle:])
            return
        for (position, _), output in zip(portion, outputs, strict=True):
            yield position, _response(output)

    def _chat(self, requests: Sequence[Request]) -> list[Any]:
        from vllm import SamplingParams  # type: ignore[import-not-found]

        params = [
            SamplingParams(
                n=1,
                temperature=request.sampling.temperature,
                top_p=request.sampling.top_p,
                max_tokens=request.sampling.max_tokens,
                seed=request.seed,
            )
            for request in requests
        ]
        return self._llm.chat([list(request.messages) for request in requests], params, use_tqdm=False)


def _response(output: Any) -> Response:
    completion = output.outputs[0]
    text = completion.text
    if "</think>" in text and "<think>" not in text:  # the chat template opened the thoughts
        text = f"<think>\n{text}"
    return Response(
        text=text,
        finish_reason=completion.finish_reason or "stop",
        prompt_tokens=len(output.prompt_token_ids or ()),
        completion_tokens=len(completion.token_ids),
    )
