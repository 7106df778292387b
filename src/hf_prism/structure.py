"""Which parameters a causal LM has, and how the gradient of each is read off a batched backward pass.

One dry run on two short rows of token ids tells which layers see (batch, time, features), which of them share an input
and which run in the head. What the closed forms do not cover is left to autograd, one sample at a time: no parameter
is dropped without being named.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from .sketch import Block


@dataclass(frozen=True)
class Layer:
    """A module whose per-sample gradient has a closed form.

    Attributes:
        kind: "linear" (input and output gradient), "embedding" (ids and looked-up rows) or "norm" (affine in its
            weight).
        weight: Name of the weight parameter, or None where it is not covered.
        bias: Name of the bias parameter, or None.
        offset: Norms only: the weight w that makes `forward` linear is `w + offset` (1 for Gemma, else 0).
    """

    kind: str
    weight: str | None
    bias: str | None
    offset: int = 0


@dataclass
class Structure:
    """How each covered parameter is handled.

    Attributes:
        blocks: Every covered parameter, in the model's order.
        layers: Modules with a closed form, by module name.
        by_autograd: Parameters without one. Their presence makes batches run one sample at a time.
        transposed: Weights stored as (in, out), those of GPT-2's Conv1D.
        num_parameters: Number of elements covered, and of the whole model.
    """

    blocks: list[Block] = field(default_factory=list)
    layers: dict[str, Layer] = field(default_factory=dict)
    by_autograd: list[str] = field(default_factory=list)
    transposed: set[str] = field(default_factory=set)
    num_parameters: tuple[int, int] = (0, 0)

    @property
    def groups(self) -> list[list[str]]:
        """Names of the parameters that share an input hash, one list a group of two or more."""
        members: dict[str, list[str]] = {}
        for block in self.blocks:
            members.setdefault(block.group, []).append(block.name)
        return [names for names in members.values() if len(names) > 1]


def select_parameters(model: nn.Module, parameters: str) -> dict[str, nn.Parameter]:
    """Return the parameters that `parameters` asks for, tied weights once, by their first name.

    Args:
        model: The proxy.
        parameters: "all", or a regular expression searched for in the parameter names (`"lora"`, `r"layers\\.23\\."`).

    Raises:
        ValueError: No parameter matches; or the model carries LoRA weights and `parameters` is "all".
    """
    named = dict(model.named_parameters())
    if parameters == "all":
        adapters = [name for name in named if "lora_" in name]
        if adapters:
            raise ValueError(
                f"The proxy carries a LoRA adapter ({len(adapters)} parameters such as {adapters[0]!r}). Say what to "
                "differentiate: parameters='lora' for the adapter alone, parameters='.' for adapter and base weights."
            )
        return named
    check_choice(parameters)
    chosen = {name: parameter for name, parameter in named.items() if re.search(parameters, name)}
    if not chosen:
        examples = ", ".join(list(named)[:3])
        tied = [name for name, _ in model.named_parameters(remove_duplicate=False) if re.search(parameters, name)]
        hint = f" {tied[0]} is tied to a parameter that comes first: ask for that one's name." if tied else ""
        raise ValueError(
            f"parameters={parameters!r} matches no parameter of the proxy; names look like {examples}.{hint}"
        )
    return chosen


def check_choice(parameters: str) -> None:
    """Refuse a choice of parameters that is no regular expression; needs no model.

    Raises:
        ValueError: See above.
    """
    try:
        re.compile(parameters)
    except (re.error, TypeError) as error:
        raise ValueError(f"parameters={parameters!r} is not a regular expression: {error}.") from error


def backbone_of(model: nn.Module) -> nn.Module:
    """Return the part of a causal LM that ends in hidden states, which its head then reads.

    Raises:
        ValueError: The model has no such part.
    """
    # Some models call their head "decoder", some hide the backbone from `get_decoder`.
    known = [model.get_decoder(), model.base_model] if isinstance(model, PreTrainedModel) else []
    for module in (*known, *model.children()):
        if isinstance(module, PreTrainedModel) and module is not model:
            return module
    raise ValueError(f"{type(model).__name__} has no decoder under its head; is it a causal language model?")


def run_backbone(model: nn.Module, ids: Tensor) -> Any:
    """Run token ids (batch, time) through the backbone, and return its output with `last_hidden_state`.

    Explicit (batch, time) position ids go to every model that takes them; without them learned positions would be
    shared by the whole batch.
    """
    backbone = backbone_of(model)
    takes = inspect.signature(backbone.forward).parameters.values()
    if any(taken.name == "position_ids" or taken.kind is taken.VAR_KEYWORD for taken in takes):
        positions = torch.arange(ids.shape[1], device=ids.device).expand(ids.shape)
        return backbone(input_ids=ids, position_ids=positions, use_cache=False)
    return backbone(input_ids=ids, use_cache=False)


def head_logits(model: nn.Module, output_type: Callable, hidden: Tensor) -> Tensor:
    """Apply the model's own head to hidden states (1, tokens, features): logits (1, tokens, vocabulary).

    The whole model is called with its backbone replaced by these states, so that every rule it has for its logits
    (soft-capping, scaling, bias) applies.
    """
    backbone = backbone_of(model)
    backbone.forward = lambda *args, **kwargs: output_type(last_hidden_state=hidden)
    try:
        return model(input_ids=hidden.new_zeros(hidden.shape[:2], dtype=torch.long), use_cache=False).logits
    finally:
        del backbone.forward


@dataclass
class _Call:
    """What a module was called with in the dry run; `input` is None where that is not one positional argument."""

    input: Any
    output: Any
    in_head: bool


def discover(model: nn.Module, parameters: str = "all") -> Structure:
    """Find how the gradient of each asked-for parameter is obtained, by one dry run.

    Args:
        model: A causal LM in eval mode.
        parameters: See `select_parameters`.
    """
    chosen = select_parameters(model, parameters)
    name_of = {id(parameter): name for name, parameter in chosen.items()}
    calls = _dry_run(model)
    uses: dict[str, list[str]] = {name: [] for name in chosen}
    layers: dict[str, Layer] = {}
    for module_name, module in model.named_modules():
        owned = {key: name_of[id(p)] for key, p in module.named_parameters(recurse=False) if id(p) in name_of}
        if not owned:
            continue
        for parameter_name in owned.values():
            uses[parameter_name].append(module_name)
        layer = _classify(module, owned, calls.get(module_name, []))
        if layer is not None:
            layers[module_name] = layer
    # A parameter is in closed form only if every module that owns it is.
    by_autograd = [name for name, users in uses.items() if not users or any(user not in layers for user in users)]
    layers = {module_name: _without(layer, by_autograd) for module_name, layer in layers.items()}
    groups = _shared_inputs(layers, calls, uses)
    conv1d = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, Conv1D)}
    transposed = conv1d & set(chosen)
    blocks = [_block(name, p, name in transposed, groups.get(name, name)) for name, p in chosen.items()]
    total = sum(parameter.numel() for parameter in model.parameters())
    return Structure(blocks, layers, by_autograd, transposed, (sum(p.numel() for p in chosen.values()), total))


def _dry_run(model: nn.Module) -> dict[str, list[_Call]]:
    calls: dict[str, list[_Call]] = {}
    in_head = False

    def record(name: str) -> Callable:
        def hook(module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
            only = args[0] if len(args) == 1 and not kwargs else None
            calls.setdefault(name, []).append(_Call(only, output, in_head))

        return hook

    handles = [
        module.register_forward_hook(record(name), with_kwargs=True)
        for name, module in model.named_modules()
        if next(module.parameters(recurse=False), None) is not None
    ]
    device = next(model.parameters()).device
    vocabulary = model.get_input_embeddings().weight.shape[0]  # pyright: ignore
    ids = (torch.arange(16, device=device).view(2, 8) + 5) % vocabulary
    try:
        with torch.no_grad():
            output = run_backbone(model, ids)
            in_head = True
            head_logits(model, type(output), output.last_hidden_state[:1, :3])
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _classify(module: nn.Module, owned: dict[str, str], calls: list[_Call]) -> Layer | None:
    """Return the closed form of a module's gradient, or None where autograd must serve."""
    if not set(owned) <= {"weight", "bias"} or not calls:
        return None
    weight, bias = owned.get("weight"), owned.get("bias")
    if not all(isinstance(call.input, Tensor) and isinstance(call.output, Tensor) for call in calls):
        return None
    by_token = all(call.input.shape[:2] == ((1, 3) if call.in_head else (2, 8)) for call in calls)
    by_row = all(call.input.shape[0] == (1 if call.in_head else 2) for call in calls)
    if type(module).forward in (nn.Linear.forward, Conv1D.forward):
        return Layer("linear", weight, bias) if by_token and calls[0].input.ndim == 3 else None
    if isinstance(module, nn.Embedding):
        return Layer("embedding", weight, bias) if by_token and _looks_up_rows(module, calls[0]) else None
    offset = _norm_offset(module, calls[0]) if by_row else None
    return None if offset is None else Layer("norm", weight, bias, offset)


def _looks_up_rows(module: nn.Embedding, call: _Call) -> bool:
    if call.input.dtype not in (torch.int32, torch.int64) or module.sparse or module.max_norm is not None:
        return False
    with torch.no_grad():
        table = module.weight[call.input.reshape(-1)]
        return call.input.ndim == 2 and torch.equal(look_up(module, table, call.input), call.output)


def look_up(module: nn.Embedding, table: Tensor, ids: Tensor) -> Tensor:
    """Run an embedding's own forward on a table that holds the row of each position, (ids.numel(), features).

    The gradient of the table is then that of each position, with the scale that some models (Gemma) apply inside.
    """
    positions = torch.arange(ids.numel(), device=ids.device).view(ids.shape)
    padding_idx, module.padding_idx = module.padding_idx, None
    try:
        with swapped_parameters(module, {"weight": table}):
            return type(module).forward(module, positions)
    finally:
        module.padding_idx = padding_idx


def _norm_offset(module: nn.Module, call: _Call) -> int | None:
    """Return c such that the module is linear in `weight + c` elementwise over the last dimension, else None."""
    size = call.input.shape[-1]
    own = dict(module.named_parameters(recurse=False))
    if any(module.children()) or call.output.shape != call.input.shape or "weight" not in own:
        return None
    if any(parameter.shape != (size,) for parameter in own.values()):
        return None
    probe = torch.linspace(-1, 2, 3 * size, device=call.input.device).reshape(3, *[1] * (call.input.ndim - 2), size)
    probe = probe.to(call.input.dtype)
    with torch.no_grad():
        for offset in (0, 1):
            zero = norm_response(module, probe, torch.full_like(own["weight"], -offset))
            one = norm_response(module, probe, torch.full_like(own["weight"], 1 - offset))
            half = norm_response(module, probe, torch.full_like(own["weight"], 0.5 - offset))
            if not zero.any() and one.any() and torch.allclose(2 * half, one, rtol=1e-2):
                return offset
    return None


def norm_response(module: nn.Module, x: Tensor, weight: Tensor) -> Tensor:
    """Return the norm's output for another weight and no bias: what its weight multiplies, where the weight is one."""
    replaced = {"weight": weight} | ({"bias": torch.zeros_like(weight)} if "bias" in module._parameters else {})
    with swapped_parameters(module, replaced):
        return type(module).forward(module, x)


@contextmanager
def swapped_parameters(module: nn.Module, tensors: dict[str, Tensor]) -> Iterator[None]:
    """Within the block the module's own parameters are replaced by plain tensors."""
    saved = {key: module._parameters[key] for key in tensors}
    module._parameters.update(tensors)  # pyright: ignore[reportArgumentType,reportCallIssue]
    try:
        yield
    finally:
        module._parameters.update(saved)


def _without(layer: Layer, names: list[str]) -> Layer:
    weight = None if layer.weight in names else layer.weight
    bias = None if layer.bias in names else layer.bias
    return Layer(layer.kind, weight, bias, layer.offset)


def _shared_inputs(
    layers: dict[str, Layer], calls: dict[str, list[_Call]], uses: dict[str, list[str]]
) -> dict[str, str]:
    """Map each weight to the first weight that reads the same input tensor.

    Tied weights, and layers that run more than once, keep a group of their own.
    """
    first_reader: dict[int, str] = {}
    groups: dict[str, str] = {}
    for module_name, layer in layers.items():
        if layer.kind != "linear" or layer.weight is None:
            continue
        alone = len(calls[module_name]) > 1 or len(uses[layer.weight]) > 1
        reader = layer.weight if alone else first_reader.setdefault(id(calls[module_name][0].input), layer.weight)
        groups[layer.weight] = reader
    return groups


def _block(name: str, parameter: nn.Parameter, transposed: bool, group: str) -> Block:
    if parameter.ndim < 2:
        return Block(name, 0, parameter.numel(), name)
    rows, columns = parameter.numel() // parameter.shape[-1], parameter.shape[-1]
    return Block(name, columns, rows, group) if transposed else Block(name, rows, columns, group)
