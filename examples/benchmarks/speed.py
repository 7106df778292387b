# /// script
# dependencies = ["hf-prism[bench]"]
# ///
"""What does featurizing cost against a training step on the same rows and batches, and against other libraries?

Run as:

    python examples/benchmarks/speed.py                                      # embedded proxy, float32
    python examples/benchmarks/speed.py --shape 0.5b --dtype bfloat16        # Qwen2.5-0.5B's shape, random weights
    python examples/benchmarks/speed.py --shape 7b --dtype bfloat16          # on a GPU
    python examples/benchmarks/speed.py --tokens 800 --rounds 1              # a quick look

The rounds are interleaved, ratios are taken within a round. A training step is forward and backward with labels over
full logits, without an optimizer. Featurizing starts from raw rows: its time includes rendering and tokenising. What
is timed on a part of the work and multiplied says so. examples/benchmarks/README.md says how the peers are run.
"""

import importlib.metadata
import io
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import torch
from common import (
    DEVICE,
    Proxy,
    Rounds,
    Rows,
    arguments,
    check,
    collate,
    column_mapping,
    describe,
    limit_memory,
    machine,
    number,
    synchronize,
    table,
    train,
    trainable,
    training_loss,
    write,
)
from transformers import PreTrainedModel

from hf_prism.gradients import Batch, PerExampleGradients


DIM = 1024
TRAK_BLOCK = 128  # columns of the projection that BasicProjector holds at a time: eight blocks
TRAK_BYTES = 2**31  # of that block; a longer gradient is projected in part, and the time multiplied
LAYERS = r"\.layers\..*_proj\.weight$"  # what bergson covers: every nn.Linear under the head, without biases

TRAINING, FEATURIZE, FLOOR = "training step", "featurize", "hooks without a sketch"
SAME_LAYERS = "featurize, linear weights only"
TRAK, TRAK_CUDA = "TRAK batch-1 loop, BasicProjector", "TRAK batch-1 loop, CudaProjector"
BERGSON, BERGSON_FROZEN, BERGSON_GLOBAL = "bergson", "bergson, embedding frozen", "bergson, one vector a row"
FUNC = "torch.func per-example gradients"

Contender = Callable[[], float | None]


class Ignore:
    """An accumulator that takes everything and keeps nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args, **kwargs: None


def training_step(proxy: Proxy, rows: Rows) -> Contender:
    def run() -> None:
        with trainable(proxy.model):
            train(proxy.model, rows.batches)

    return run


def featurize(proxy: Proxy, rows: Rows, **options: Any) -> Contender:
    featurizer = proxy.featurizer(dim=DIM, **options)

    def run() -> None:
        featurizer(rows.columns)

    return run


def hooks(proxy: Proxy, rows: Rows) -> Contender:
    engine = PerExampleGradients(proxy.model)

    def run() -> None:
        for batch in rows.batches:
            engine(batch, Ignore())

    return run


def trak(proxy: Proxy, rows: Rows, cuda: bool) -> tuple[Contender, str]:
    """The whole gradient of one row by autograd, and TRAK's projection of it; times the number of rows."""
    from trak.projectors import BasicProjector, CudaProjector, ProjectionType

    batch, size = collate([rows.median]), sum(parameter.numel() for parameter in proxy.model.parameters())
    part = size if cuda else min(size, TRAK_BYTES // (4 * TRAK_BLOCK))
    # Two blocks, since a projector of one block would keep it and draw no signs in its calls.
    columns = DIM if cuda else 2 * TRAK_BLOCK
    times = DIM / columns * size / part
    state: dict[str, Any] = {}

    def projector() -> Any:
        if cuda:
            return CudaProjector(size, DIM, 0, ProjectionType.rademacher, torch.device(DEVICE, 0), 8)
        return BasicProjector(part, columns, 0, ProjectionType.rademacher, torch.device(DEVICE), TRAK_BLOCK)

    def run() -> float:
        if not state:
            state["projector"] = projector()  # in the first, untimed call: it draws a block
        synchronize()
        started = time.perf_counter()
        with trainable(proxy.model) as parameters:
            gradients = torch.autograd.grad(training_loss(proxy.model, batch), parameters)
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients]).unsqueeze(0)
        synchronize()
        between = time.perf_counter()
        state["projector"].project(flat.float() if cuda else flat[:, :part], model_id=0)
        synchronize()
        ended = time.perf_counter()
        return len(rows.encoded) * (between - started + times * (ended - between))

    note = f"one row of {batch.lengths[0]} tokens, times {len(rows.encoded)} rows"
    if not cuda:
        note += f"; two of eight blocks times {DIM // columns}"
    if part < size:
        note += f"; of {part / 1e6:.1f} M parameters times {size / part:.1f}"
    return run, note


def bergson(proxy: Proxy, rows: Rows, folder: Path, name: str) -> tuple[Contender, str]:
    """bergson's in-memory collector on the same batches, already tokenised, on every nn.Linear under the head."""
    from bergson import CollectorComputer, GradientProcessor, IndexConfig, InMemoryCollector
    from datasets import Dataset

    target, dim = ("global", DIM) if name == BERGSON_GLOBAL else ("per_module", 16)
    size = sum(
        block.rows * block.columns for block in PerExampleGradients(proxy.model, parameters=LAYERS).structure.blocks
    )
    if target == "global" and size > 1e7:
        raise RuntimeError(f"left out: it draws {size * dim / 1e9:,.0f} billion signs for every batch")
    labels = [Batch.collate([r.input_ids], [r.completion_mask]).supervised[0].tolist() for r in rows.encoded]
    labels = [
        [token if learned else -100 for token, learned in zip(row.input_ids, mask, strict=True)]
        for row, mask in zip(rows.encoded, labels, strict=True)
    ]
    data = Dataset.from_dict({"input_ids": [row.input_ids for row in rows.encoded], "labels": labels})
    config = IndexConfig(run_path=str(folder / name), projection_dim=dim, loss_reduction="mean")
    config.partial_run_path.mkdir(parents=True, exist_ok=True)
    processor = GradientProcessor(projection_dim=dim, projection_target=target)
    same = {block.name for block in PerExampleGradients(proxy.model, parameters=LAYERS).structure.blocks}

    def run() -> None:
        with _starts_graph(proxy.model, frozen=name == BERGSON_FROZEN), redirect_stderr(io.StringIO()):
            collector = InMemoryCollector(model=proxy.model.base_model, cfg=config, processor=processor, data=data)
            computer = CollectorComputer(proxy.model, data, collector=collector, batches=rows.plan, cfg=config)
            computer.run_with_collector_hooks()
        covered = {f"model.{module}.weight" for module in collector.target_info}
        if covered != same:
            raise RuntimeError(f"bergson covers other layers: {sorted(covered ^ same)[:4]}")
        if not all(gradients.any() for gradients in collector.gradients.values()):
            raise RuntimeError("bergson left a layer without a gradient")

    numbers = f"one vector of {dim}" if target == "global" else f"{len(same)} x {dim} x {dim} numbers"
    graph = "the embedding's output only" if name == BERGSON_FROZEN else "the embedding, as bergson sets models up"
    return run, f"{len(same)} linear weights, {numbers} a row; gradient also of {graph}; tokenising not included"


@contextmanager
def _starts_graph(model: PreTrainedModel, frozen: bool) -> Iterator[None]:
    """Make backward reach every layer: by the embedding's gradient, which is bergson's way, or by a cheaper one."""
    if frozen:
        model.enable_input_require_grads()
        model.base_model.norm.weight.requires_grad_(True)  # bergson asks for a trainable parameter
    else:
        model.get_input_embeddings().requires_grad_(True)
    try:
        yield
    finally:
        if frozen:
            model.disable_input_require_grads()
        model.zero_grad(set_to_none=True)
        model.requires_grad_(False)


def per_example(proxy: Proxy, rows: Rows) -> tuple[Contender, str]:
    """Materialised gradients of a few rows by vmap(grad), nothing done with them; scaled to all rows by tokens."""
    from torch.func import functional_call, grad, vmap

    count = min(len(rows.encoded), 8 if sum(p.numel() for p in proxy.model.parameters()) < 5e7 else 2)
    ordered = sorted(rows.encoded, key=lambda row: len(row.input_ids))
    middle = max(0, (len(ordered) - count) // 2)
    chosen = ordered[middle : middle + count]
    batch = collate(chosen)
    labels = batch.input_ids.masked_fill(~batch.supervised, -100)
    parameters = {name: parameter.detach() for name, parameter in proxy.model.named_parameters()}

    def loss(parameters: dict, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        inputs = {"input_ids": ids.unsqueeze(0), "labels": labels.unsqueeze(0), "use_cache": False}
        return functional_call(proxy.model, parameters, kwargs=inputs).loss

    share = sum(batch.lengths) / rows.tokens

    def run() -> float:
        synchronize()
        started = time.perf_counter()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "There is a performance drop")
            vmap(grad(loss), in_dims=(None, 0, 0))(parameters, batch.input_ids, labels)
        synchronize()
        return (time.perf_counter() - started) / share

    return run, f"gradients only, no sketch; {count} rows of {sum(batch.lengths)} tokens, times {1 / share:.1f}"


def contenders(proxy: Proxy, rows: Rows, folder: Path, mapping: dict[str, str]) -> tuple[dict[str, Contender], dict]:
    """Every contender with a note on what it did. A peer that is not installed fails when it is first run."""
    ours = {"column_mapping": mapping or None}
    runs: dict[str, Contender] = {
        TRAINING: training_step(proxy, rows),
        FEATURIZE: featurize(proxy, rows, **ours),
        FLOOR: hooks(proxy, rows),
        SAME_LAYERS: featurize(proxy, rows, parameters=LAYERS, **ours),
    }
    notes = {
        TRAINING: "forward and backward over full logits, no optimizer",
        FEATURIZE: f"from raw rows to {DIM} numbers, all parameters, self-check outside",
        FLOOR: "forward and backward with frozen weights and taps: the floor",
        SAME_LAYERS: "the parameters that bergson covers",
    }
    peers: dict[str, Callable[[], tuple[Contender, str]]] = {
        BERGSON: lambda: bergson(proxy, rows, folder, BERGSON),
        BERGSON_FROZEN: lambda: bergson(proxy, rows, folder, BERGSON_FROZEN),
        BERGSON_GLOBAL: lambda: bergson(proxy, rows, folder, BERGSON_GLOBAL),
        FUNC: lambda: per_example(proxy, rows),
        TRAK: lambda: trak(proxy, rows, cuda=False),
    }
    if DEVICE == "cuda":
        peers[TRAK_CUDA] = lambda: trak(proxy, rows, cuda=True)
    for name, make in peers.items():
        try:
            runs[name], notes[name] = make()
        except Exception as error:
            runs[name], notes[name] = _raiser(error), ""
    return runs, notes


def _raiser(error: Exception) -> Contender:
    def run() -> None:
        raise error

    return run


def versions(*names: str) -> dict[str, str | None]:
    installed = {}
    for name in names:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            installed[name] = None
    return installed


def summary(rounds: Rounds, rows: Rows, notes: dict[str, str]) -> list[dict[str, Any]]:
    found = []
    for name in rounds.contenders:
        entry: dict[str, Any] = {"contender": name, "note": notes[name], "error": rounds.errors.get(name)}
        if name not in rounds.errors:
            seconds = statistics.median(rounds.seconds[name])
            entry |= {
                "seconds": seconds,
                "all_seconds": rounds.seconds[name],
                "tokens_per_second": rows.tokens / seconds,
            }
            entry |= {"of_training_step": rounds.ratio(name, TRAINING), "gpu_peak_gib": rounds.peak_gib.get(name)}
        found.append(entry)
    return found


def spread(ratio: dict[str, float] | None, unit: str = "") -> str:
    if ratio is None:
        return "-"
    return f"{number(ratio['median'])}{unit} ({number(ratio['min'])} to {number(ratio['max'])})"


def main() -> None:
    parser = arguments(
        __doc__.splitlines()[0], "tokens of a round (default: 65,536 on a GPU, 8,192 or 1,024 on a CPU)"
    )
    options = parser.parse_args()
    check(options)
    mapping = column_mapping(options)
    logging.disable(logging.INFO)
    limit_memory(None)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        proxy = Proxy(folder / "proxy", options.shape, options.dtype, options.layers)
        rows = Rows(proxy.featurizer(column_mapping=mapping or None), options.tokens, options.data)
        described = {**machine(), **versions("traker", "bergson", "fast_jl")}
        print(f"{describe(described)}, traker {described['traker']}, bergson {described['bergson']}")
        print(f"Proxy: {proxy.title}\nRows: {rows.title}\n", flush=True)
        runs, notes = contenders(proxy, rows, folder, mapping)
        rounds = Rounds(runs, options.rounds)
    found = summary(rounds, rows, notes)
    lines = []
    for entry in found:
        if entry["error"]:
            lines.append([entry["contender"], "-", "-", "-", "-", f"did not run: {entry['error']}"])
            continue
        peak = number(entry["gpu_peak_gib"]) if entry["gpu_peak_gib"] else "-"
        figures = [number(entry["seconds"]), number(entry["tokens_per_second"]), spread(entry["of_training_step"])]
        lines.append([entry["contender"], *figures, peak, entry["note"]])
    print(f"\nMedians of {options.rounds} interleaved rounds; ratios within a round: median (smallest to largest)\n")
    print(table(["contender", "seconds", "tokens/s", "/ training step", "GPU peak GiB", "what"], lines))
    pairs = [(TRAK, FEATURIZE), (TRAK_CUDA, FEATURIZE), (FUNC, FEATURIZE)]
    pairs += [(name, SAME_LAYERS) for name in (BERGSON, BERGSON_FROZEN, BERGSON_GLOBAL)]
    pairs = [pair for pair in pairs if pair[0] in runs]
    factors = {f"{peer} / {own}": rounds.ratio(peer, own) for peer, own in pairs}
    print("\n" + table(["how many times faster", ""], [[name, spread(r, " x")] for name, r in factors.items()]))
    name = f"speed-{options.shape}-{options.dtype}-{DEVICE}.json"
    result = {"benchmark": "speed", "machine": described, "proxy": proxy.title, "rows": rows.title}
    result |= {"tokens": rows.tokens, "rounds": options.rounds, "contenders": found, "factors": factors}
    write(options.output or Path("out/benchmarks") / name, result)


if __name__ == "__main__":
    main()
