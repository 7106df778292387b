"""What the featurizing benchmarks share: the proxy at a given shape, the rows, the training step, rounds and tables."""

import argparse
import importlib.metadata
import json
import os
import platform
import resource
import statistics
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, Qwen2Config

import hf_prism
from hf_prism import GradientFeaturizer, ProxyModel
from hf_prism.batches import plan_batches
from hf_prism.gradients import Batch
from hf_prism.proxy import EncodedRow
from hf_prism.rows import load_rows
from hf_prism.tasks.procedural import generate


EMBEDDED = Path(hf_prism.__file__).parent / "embedded"
# hidden size, layers, heads, key-value heads, intermediate size, vocabulary, tied embeddings: the published Qwen2.5
QWEN = {
    "0.5b": (896, 24, 14, 2, 4864, 151_936, True),
    "1.5b": (1536, 28, 12, 2, 8960, 151_936, True),
    "7b": (3584, 28, 28, 4, 18_944, 152_064, False),
}
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


# ---- the proxy ------------------------------------------------------------------------------------------------------


def config_of(shape: str, layers: int | None = None, positions: int | None = None) -> Qwen2Config:
    """The architecture of a proxy, with fewer layers or more positions where asked for."""
    if shape == "embedded":
        config = AutoConfig.from_pretrained(EMBEDDED)
    else:
        hidden, depth, heads, kv_heads, intermediate, vocabulary, tied = QWEN[shape]
        config = Qwen2Config(
            hidden_size=hidden,
            num_hidden_layers=depth,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            intermediate_size=intermediate,
            vocab_size=vocabulary,
            max_position_embeddings=32_768,
            rope_parameters={"rope_type": "default", "rope_theta": 1e6},
            tie_word_embeddings=tied,
            architectures=["Qwen2ForCausalLM"],
        )
    if layers:
        config.num_hidden_layers = layers
        config.layer_types = config.layer_types[:1] * layers
    if positions:
        config.max_position_embeddings = positions
    return config


class Proxy:
    """A model at a given shape, and featurizers that hold it.

    The embedded shape is the shipped proxy. Any other has random weights that exist in memory only: the folder holds
    its configuration and the embedded tokenizer, and featurizers are handed the model, so that nothing is downloaded
    and no gigabytes are written. Times and memory do not depend on what the weights are.
    """

    def __init__(self, folder: Path, shape: str, dtype: str, layers: int | None = None, positions: int | None = None):
        self.dtype, self.positions = dtype, positions
        self.random = shape != "embedded" or bool(layers or positions)
        self.folder = str(folder) if self.random else "embedded"
        if not self.random:
            self.model: PreTrainedModel = ProxyModel("embedded", dtype=dtype, device=DEVICE).model
            return
        config = config_of(shape, layers, positions)
        config.save_pretrained(folder)
        AutoTokenizer.from_pretrained(EMBEDDED).save_pretrained(folder)
        torch.manual_seed(0)
        with torch.device(DEVICE):
            model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype), attn_implementation="sdpa")
        model.config.use_cache = False
        self.model = model.requires_grad_(False).eval()

    def featurizer(self, **options: Any) -> GradientFeaturizer:
        options |= {"max_length": self.positions} if self.positions else {}
        featurizer = GradientFeaturizer(self.folder, dtype=self.dtype, device=DEVICE, **options)
        featurizer.proxy.__dict__["model"] = self.model  # where the cached property keeps it
        return featurizer

    @property
    def title(self) -> str:
        config = self.model.config.get_text_config()
        size = sum(parameter.numel() for parameter in self.model.parameters())
        return (
            f"{size / 1e6:,.1f} M parameters (hidden {config.hidden_size}, {config.num_hidden_layers} layers, "
            f"vocabulary {config.vocab_size:,}; {'random weights' if self.random else 'the shipped proxy'}), {self.dtype}"
        )


# ---- the rows -------------------------------------------------------------------------------------------------------


class Rows:
    """Raw rows worth some number of tokens, and the batches that the featurizer makes of them."""

    def __init__(self, featurizer: GradientFeaturizer, tokens: int, data: str | None = None):
        raw = _word_problems(tokens) if data is None else _from_file(data, tokens)
        encoded = [row for row in featurizer.proxy.encode_rows(raw) if isinstance(row, EncodedRow)]
        if len(encoded) != len(raw):
            raise SystemExit(
                f"{data}: {len(raw) - len(encoded)} rows cannot be used; the benchmark needs rows that fit"
            )
        total, count = 0, 0
        while count < len(encoded) and (count == 0 or total + len(encoded[count].input_ids) <= tokens):
            total += len(encoded[count].input_ids)
            count += 1
        self.tokens, self.encoded = total, encoded[:count]
        self.columns = {name: [row[name] for row in raw[:count]] for name in raw[0]}
        plan = plan_batches([len(row.input_ids) for row in self.encoded])
        self.plan = [list(batch) for batch in plan]
        self.batches = [collate([self.encoded[i] for i in batch]) for batch in self.plan]

    @property
    def title(self) -> str:
        lengths = sorted(len(row.input_ids) for row in self.encoded)
        learned = sum(row.num_tokens for row in self.encoded) / self.tokens
        return (
            f"{len(lengths)} rows of {lengths[0]} to {lengths[-1]} tokens (median {lengths[len(lengths) // 2]}), "
            f"{self.tokens:,} tokens without padding, {learned:.0%} learned, {len(self.plan)} batches"
        )

    @property
    def median(self) -> EncodedRow:
        """The row of median length, which stands for all where only one can be timed."""
        return sorted(self.encoded, key=lambda row: len(row.input_ids))[len(self.encoded) // 2]


def _word_problems(tokens: int) -> list[dict[str, Any]]:
    return [{key: row[key] for key in ("prompt", "completion")} for row in generate(max(8, tokens // 30))]


def _from_file(data: str, tokens: int) -> list[dict[str, Any]]:
    return [dict(row) for row in load_rows(data, max_samples=max(8, tokens // 30))]


def collate(rows: Sequence[EncodedRow]) -> Batch:
    return Batch.collate([row.input_ids for row in rows], [row.completion_mask for row in rows], DEVICE)


# ---- the training step ----------------------------------------------------------------------------------------------


def training_loss(model: PreTrainedModel, batch: Batch) -> Tensor:
    """What a trainer does with a batch: right padding, an attention mask, labels of -100 outside the completion."""
    positions = torch.arange(batch.input_ids.shape[1], device=batch.input_ids.device)
    attention_mask = (positions < torch.tensor(batch.lengths, device=positions.device).unsqueeze(1)).long()
    labels = batch.input_ids.masked_fill(~batch.supervised, -100)
    output = model(
        input_ids=batch.input_ids,
        attention_mask=attention_mask,
        position_ids=positions.expand(batch.input_ids.shape),
        labels=labels,
        use_cache=False,
    )
    return output.loss


def train(model: PreTrainedModel, batches: Sequence[Batch]) -> None:
    """Forward and backward over full logits, gradients of all parameters, no optimizer."""
    for batch in batches:
        training_loss(model, batch).backward()
        model.zero_grad(set_to_none=True)


@contextmanager
def trainable(model: PreTrainedModel) -> Iterator[list[Tensor]]:
    """Within the block every parameter asks for its gradient."""
    parameters = list(model.requires_grad_(True).parameters())
    try:
        yield parameters  # type: ignore[misc]
    finally:
        model.zero_grad(set_to_none=True)
        model.requires_grad_(False)


# ---- rounds ---------------------------------------------------------------------------------------------------------


class Rounds:
    """Times contenders in interleaved rounds: every round runs each one once, in rotating order.

    A contender is called without arguments, and is wall-clocked unless it returns seconds itself (work done on a part
    and multiplied). One that raises is named with its error and left out from then on.
    """

    def __init__(self, contenders: dict[str, Callable[[], float | None]], rounds: int):
        self.contenders = contenders
        self.seconds: dict[str, list[float]] = {name: [] for name in contenders}
        self.peak_gib: dict[str, float] = {}
        self.errors: dict[str, str] = {}
        for name in contenders:  # the first call builds hashes, projections and buffers, and checks itself
            self._run(name)
        self.seconds = {name: [] for name in contenders}
        for number in range(rounds):
            names = list(contenders)
            for name in names[number % len(names) :] + names[: number % len(names)]:
                self._run(name)
            print(f"round {number + 1} of {rounds} done", flush=True)

    def _run(self, name: str) -> None:
        if name in self.errors:
            return
        if DEVICE == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        synchronize()
        started = time.perf_counter()
        try:
            scaled = self.contenders[name]()
            synchronize()
        except Exception as error:  # whatever a peer raises is its result
            self.errors[name] = one_line(error)
            return
        self.seconds[name].append(time.perf_counter() - started if scaled is None else scaled)
        if DEVICE == "cuda":
            self.peak_gib[name] = max(self.peak_gib.get(name, 0), torch.cuda.max_memory_allocated() / 2**30)

    def ratio(self, name: str, reference: str) -> dict[str, float] | None:
        """Median, smallest and largest ratio of two contenders within a round."""
        if name in self.errors or reference in self.errors:
            return None
        pairs = zip(self.seconds[name], self.seconds[reference], strict=True)
        ratios = [seconds / other for seconds, other in pairs]
        return {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}


def synchronize() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def one_line(error: BaseException) -> str:
    """The error in one line; the traceback goes to the file named by HF_PRISM_BENCH_TRACE, for whoever asks why."""
    if trace := os.environ.get("HF_PRISM_BENCH_TRACE"):
        with open(trace, "a") as file:
            traceback.print_exception(error, file=file)
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


def limit_memory(gib: float | None) -> float:
    """Make an allocation over the budget an error instead of a killed process (CPU only); returns the budget in GiB."""
    if DEVICE == "cuda":
        return torch.cuda.mem_get_info()[0] / 2**30
    gib = gib or 0.9 * _available_gib()
    limit = int(gib * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.getrlimit(resource.RLIMIT_DATA)[1]))
    return gib


def _available_gib() -> float:
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for line in Path("/proc/meminfo").read_text().splitlines() if Path("/proc/meminfo").exists() else []:
        if line.startswith("MemAvailable"):
            free = 1024 * int(line.split()[1])
    return free / 2**30


# ---- results --------------------------------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """What a figure needs beside it to mean anything."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    found = dict(line.split("\t:", 1) if "\t:" in line else line.partition(":")[::2] for line in lines if ":" in line)
    found = {key.strip(): value.strip() for key, value in found.items()}
    half = {"avx512_bf16", "amx_bf16", "asimdhp", "bf16"} & set(found.get("flags", found.get("Features", "")).split())
    described = {
        "cpu": found.get("model name", platform.processor() or platform.machine()),
        "family_model": f"{found.get('cpu family', '?')}/{found.get('model', '?')}",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "bf16_instructions": sorted(half),
        "load_average": round(os.getloadavg()[0], 2),
        "torch": torch.__version__,
        "transformers": importlib.metadata.version("transformers"),
        "python": platform.python_version(),
    }
    if DEVICE == "cuda":
        described |= {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    return described


def describe(found: dict[str, Any]) -> str:
    gpu = f"GPU: {found['gpu']}, CUDA {found['cuda']}. " if "gpu" in found else ""
    return (
        f"{gpu}CPU: {found['cpu']} (family/model {found['family_model']}), {found['cores']} cores, {found['threads']} "
        f"threads, {found['capability']}, bf16 instructions {', '.join(found['bf16_instructions']) or 'none'}; "
        f"load {found['load_average']}; torch {found['torch']}, transformers {found['transformers']}"
    )


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "/") for cell in line) + " |" for line in lines)


def number(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 1 else f"{value:.3f}"


def write(path: Path, result: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(f"\nwritten: {path}")


def arguments(description: str, tokens: str) -> argparse.ArgumentParser:
    """The options that the featurizing benchmarks share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--shape", choices=["embedded", *QWEN], default="embedded")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--layers", type=int, help="cut the depth, for a slow machine; the table says so")
    parser.add_argument("--tokens", type=int, help=tokens)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data", help="rows to read instead of the procedural word problems")
    parser.add_argument("--column", action="append", default=[], metavar="NAME=COLUMN", help="as for hf-prism score")
    parser.add_argument("--output", type=Path, help="JSON file (default: out/benchmarks/...)")
    return parser


def check(options: argparse.Namespace) -> None:
    """Refuse what cannot run here, and fill in the defaults that depend on the machine."""
    if options.shape == "7b" and DEVICE != "cuda":
        raise SystemExit(
            "--shape 7b needs a GPU: a 7B training step takes minutes and 60 GiB on a CPU. Use 0.5b here."
        )
    if options.rounds < 1 or (options.tokens is not None and options.tokens < 1):
        raise SystemExit("--rounds and --tokens must be at least 1")
    if options.tokens is None:
        options.tokens = 65_536 if DEVICE == "cuda" else 8_192 if options.shape == "embedded" else 1_024


def column_mapping(options: argparse.Namespace) -> dict[str, str]:
    wrong = [text for text in options.column if "=" not in text]
    if wrong:
        raise SystemExit(f"--column {wrong[0]}: write NAME=COLUMN, such as prompt=question")
    return dict(text.split("=", 1) for text in options.column)
