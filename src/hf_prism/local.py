"""A model in this process, through transformers.

The seed of a request decides its text together with its messages only: which requests share its batch, and in what order
they come, changes nothing but the last bits of the probabilities. `generate` of transformers cannot promise that, since
one state of random numbers serves the whole batch; so tokens are drawn here, and it takes those.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .generation import Request, Response


if TYPE_CHECKING:
    import torch

    from .proxy import ProxyModel

WINDOW = 4
"""Batches that are sorted by length together; more would leave less padding, and let a budget be overrun further."""

FIRST_CANDIDATES = 64
"""The likeliest tokens looked at first: nearly always they hold enough of the probability, and sorting all costs more
than a small model."""


class _Prompt(NamedTuple):
    position: int
    request: Request
    ids: list[int]


class TransformersGenerator:
    """A causal language model with a chat template, run by transformers in this process.

    Made for small models and first tries: a large one answers many times faster behind a server such as vLLM. Nothing but
    the sampling of a request decides how tokens are drawn; of the model's own generation configuration the repetition
    penalty stays.

    Args:
        model: A Hub id, a folder, or `"embedded"` for the small model that ships with the package.
        revision: Branch, tag or commit of a Hub id.
        dtype: Of the weights, `"float32"` or `"bfloat16"`.
        device: Where it runs; by default CUDA where there is one, else the CPU.
        batch_size: How many requests are answered at once.
        chat_template: False for a model that was trained on plain text: it reads the contents of the messages as they
            are, after the tokenizer's BOS, if it adds one.

    Attributes:
        name: See `pin`.

    Raises:
        ValueError: There is no such model or revision.

    Example:
        >>> from hf_prism.generation import Request, Sampling
        >>> question = {"role": "user", "content": "Anna has 3 apples and buys 4 more. How many apples has she now?"}
        >>> request = Request((question,), Sampling(max_tokens=64), seed=0)
        >>> for position, response in TransformersGenerator("embedded").generate([request]):  # doctest: +SKIP
        ...     print(position, response.finish_reason)
        0 stop
    """

    def __init__(
        self,
        model: str,
        *,
        revision: str | None = None,
        dtype: str = "float32",
        device: str | None = None,
        batch_size: int = 32,
        chat_template: bool = True,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; a batch holds at least 1 request")
        self.name, self._commit = pin(model, revision)
        self.name += "" if dtype == "float32" else f" {dtype}"
        self.name += "" if chat_template else " without chat template"
        self.model, self.dtype, self.device, self.batch_size = model, dtype, device, batch_size
        self.chat_template = chat_template

    @cached_property
    def _proxy(self) -> ProxyModel:
        """Configuration and tokenizer; the weights are read on first use."""
        from .proxy import ProxyModel

        proxy = ProxyModel(self.model, revision=self._commit, dtype=self.dtype, device=self.device)
        if self.chat_template and not proxy.tokenizer.chat_template:
            raise ValueError(
                f"{self.model} has no chat template, so it answers no questions: name an instruct model, or pass "
                "chat_template=False (--no-chat-template) to one that was trained on plain text"
            )
        return proxy

    def check(self) -> None:
        """Read configuration and tokenizer.

        Raises:
            ValueError: There is no such model, it is no causal language model, or has no chat template.
        """
        _ = self._proxy

    def close(self) -> None:
        """Drop the model from memory."""
        self.__dict__.pop("_proxy", None)

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[int, Response]]:
        """Yield the position and the response of each request, batch by batch.

        A response ends where the model's context does; a prompt that fills the context by itself is an error of its
        request.

        Raises:
            ValueError: The model cannot be loaded, or its chat template refuses the messages.
            RuntimeError: A batch does not fit into the memory of the device.
        """
        numbered = enumerate(requests)
        while window := list(islice(numbered, WINDOW * self.batch_size)):
            prompts = [self._encode(position, request) for position, request in window]
            for prompt in prompts:
                if len(prompt.ids) >= self._context:
                    yield prompt.position, self._too_long(prompt)
            fitting = [prompt for prompt in prompts if len(prompt.ids) < self._context]
            fitting.sort(key=lambda prompt: (-len(prompt.ids), prompt.position))
            for start in range(0, len(fitting), self.batch_size):
                batch = fitting[start : start + self.batch_size]
                for prompt, response in zip(batch, self._complete(batch), strict=True):
                    yield prompt.position, response

    @property
    def _context(self) -> int:
        return self._proxy.max_length

    def _too_long(self, prompt: _Prompt) -> Response:
        error = f"the prompt has {len(prompt.ids):,} tokens, which fill the context of {self.name} ({self._context:,} tokens)"
        return Response("", finish_reason="error", prompt_tokens=len(prompt.ids), error=error)

    def rendered(self, request: Request) -> str:
        """The text that the model reads.

        Raises:
            ValueError: Its chat template refuses the messages.
        """
        if not self.chat_template:
            return "".join(message["content"] for message in request.messages)
        from jinja2 import TemplateError

        messages = list(request.messages)
        try:
            text = self._proxy.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except TemplateError as error:
            raise ValueError(
                f"the chat template of {self.name} refuses the messages ({error}): "
                f"{', '.join(message['role'] for message in messages)}"
            ) from error
        return str(text)

    def _encode(self, position: int, request: Request) -> _Prompt:
        try:
            text = self.rendered(request)
        except ValueError as error:
            raise ValueError(f"request {position}: {error}") from error
        ids: list[int] = self._proxy.tokenizer(text, add_special_tokens=False)["input_ids"]  # type: ignore[assignment]
        if not self.chat_template and self._proxy.renderer.adds_bos:  # a template writes all special tokens itself
            ids = [self._proxy.tokenizer.bos_token_id, *ids]  # type: ignore[list-item]
        return _Prompt(position, request, ids)

    def _complete(self, batch: Sequence[_Prompt]) -> list[Response]:
        import torch
        from transformers import GenerationConfig

        model = self._proxy.model
        width = max(len(prompt.ids) for prompt in batch)
        ends = self._ends
        input_ids = torch.full((len(batch), width), ends[0])
        attention_mask = torch.zeros_like(input_ids)
        for row, prompt in enumerate(batch):
            input_ids[row, width - len(prompt.ids) :] = torch.tensor(prompt.ids)
            attention_mask[row, width - len(prompt.ids) :] = 1
        limits = [min(prompt.request.sampling.max_tokens, self._context - len(prompt.ids)) for prompt in batch]
        draw = Draw([prompt.request for prompt in batch], width)
        try:
            with torch.inference_mode():
                output: Any = model.generate(  # type: ignore[operator]
                    input_ids.to(model.device),
                    attention_mask=attention_mask.to(model.device),
                    generation_config=GenerationConfig(
                        do_sample=False,  # `draw` leaves one token
                        num_beams=1,
                        # The defaults; the model's own would bring a warning that they are ignored.
                        temperature=1.0,
                        top_p=1.0,
                        top_k=50,
                        use_cache=True,
                        max_new_tokens=max(limits),
                        eos_token_id=ends,
                        pad_token_id=ends[0],
                    ),
                    logits_processor=[draw],  # type: ignore[arg-type]
                )
        except torch.OutOfMemoryError as error:
            raise RuntimeError(
                f"{len(batch)} requests of up to {width:,} tokens, with answers of up to {max(limits):,}, do not fit into the "
                f"memory of {model.device}. Lower batch_size (now {self.batch_size}); the same command goes on."
            ) from error
        rows = output[:, width:].tolist()
        return [self._response(*row) for row in zip(batch, rows, limits, strict=True)]

    @cached_property
    def _ends(self) -> list[int]:
        """The tokens that end a response."""
        config = self._proxy.model.generation_config
        given = getattr(config, "eos_token_id", None)
        ends = given if isinstance(given, list) else [given]
        # Some configurations name the end of a text only, and leave the end of a turn to the tokenizer.
        known = {end for end in (*ends, self._proxy.tokenizer.eos_token_id) if isinstance(end, int)}
        if not known:
            raise ValueError(
                f"{self.name} names no token that ends a response (eos_token); its answers would never end"
            )
        return sorted(known)

    def _response(self, prompt: _Prompt, row: list[int], limit: int) -> Response:
        end = next((i for i, token in enumerate(row[:limit]) if token in self._ends), None)
        ids = row[:limit] if end is None else row[:end]
        text = str(self._proxy.tokenizer.decode(ids, skip_special_tokens=True))
        if self._opens_thoughts(prompt):
            text = f"<think>\n{text}"
        return Response(
            text=text,
            finish_reason="length" if end is None else "stop",
            prompt_tokens=len(prompt.ids),
            completion_tokens=len(ids) + (end is not None),
        )

    def _opens_thoughts(self, prompt: _Prompt) -> bool:
        """Whether the chat template wrote the `<think>` that the response would begin with."""
        return str(self._proxy.tokenizer.decode(prompt.ids[-8:])).rstrip().endswith("<think>")


class Draw:
    """A logits processor that leaves the one token that each request draws.

    The noise of a token depends on the seed of its request and on its place in the response, and the likeliest token
    after noise wins (the exponential form of the Gumbel trick). So probabilities that differ in their last bits give the
    same token, except where two are equally good to the last bit.

    Args:
        requests: One for each row.
        width: Where the responses begin.
    """

    def __init__(self, requests: Sequence[Request], width: int) -> None:
        import torch

        samplings = [request.sampling for request in requests]
        self.seeds = [request.seed if request.sampling.temperature else None for request in requests]
        self.width = width
        # Of a greedy row only the likeliest token is a candidate.
        self.temperature = torch.tensor([[sampling.temperature or 1.0] for sampling in samplings])
        self.top_p = torch.tensor([[sampling.top_p if sampling.temperature else 0.0] for sampling in samplings])

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return scores that are minus infinity but for one token a row."""
        import torch

        probabilities = torch.softmax(scores.float() / self.temperature.to(scores.device), dim=-1)
        candidates, tokens = self._nucleus(probabilities)
        noise = torch.from_numpy(self._noise(input_ids.shape[1] - self.width, scores.shape[-1])).to(scores.device)
        # Noise may round to zero, and so may a probability; nothing is divided by it.
        chosen = (candidates / noise.gather(1, tokens).clamp_min(1e-30)).argmax(dim=-1, keepdim=True)
        return torch.full_like(scores, float("-inf")).scatter(1, tokens.gather(1, chosen), 0.0)

    def _nucleus(self, probabilities: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The probabilities of the likeliest tokens, zero beyond those that reach `top_p` together; and the tokens."""
        import torch

        top_p = self.top_p.to(probabilities.device)
        number, size = FIRST_CANDIDATES, probabilities.shape[-1]
        while True:
            values, tokens = probabilities.topk(min(number, size), dim=-1)
            before = values.cumsum(dim=-1) - values
            if number >= size or bool((before[:, -1:] >= top_p).all()):
                inside = before < top_p
                inside[:, 0] = True
                return torch.where(inside, values, 0.0), tokens
            number *= 16

    def _noise(self, step: int, size: int) -> np.ndarray:
        """Exponential noise for each row and token, the same on every machine."""
        noise = np.ones((len(self.seeds), size), dtype=np.float32)
        for row, seed in enumerate(self.seeds):
            if seed is not None:
                generator = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, step]))
                generator.standard_exponential(out=noise[row], dtype=np.float32)
        return noise


def pin(model: str, revision: str | None) -> tuple[str, str | None]:
    """What a log knows the model by, and its commit, the one that `revision` stands for now.

    A folder has no commit: it is known by its name and a hash of its files, so that it may be moved. A full commit is
    taken as it is, so that a log can be replayed where the model cannot be reached.

    Raises:
        ValueError: There is no such model or revision, or a revision is given for a folder.
    """
    from .checkpoint import content_hash, load_problem, local_folder, resolve_commit

    if folder := local_folder(model):
        if revision:
            raise ValueError(f"revision={revision!r} needs a Hub id, but {model} is a local folder")
        return f"{folder.resolve().name}@{content_hash(folder, 'generation_config.json')[:12]}", None
    commit = revision
    if not revision or not re.fullmatch(r"[0-9a-f]{40}", revision):
        try:
            commit = resolve_commit(model, revision)
        except Exception as error:  # the layers below raise many types
            raise ValueError(load_problem(model, None, "configuration", error)) from error
    return f"{model}@{commit}", commit
