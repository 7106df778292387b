# /// script
# dependencies = ["hf-prism"]
# ///
"""Is the sketch as good as a dense random projection? Compare both with the exact Gram matrix of real gradients.

Run as (two cores, about half an hour for each proxy):

    python examples/benchmarks/fidelity.py --proxy embedded
    python examples/benchmarks/fidelity.py --proxy gpt2        # trained by this script, another architecture
    python examples/benchmarks/fidelity.py --proxy embedded --rows 100 --seeds 1    # a quick look

Every row's whole gradient comes from plain autograd and is kept on disk (4 bytes a parameter and row). The dense
Rademacher projection of the paper is regenerated block by block. Rows come from HF_PRISM_DATA (../shared/data).
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config

import hf_prism
from hf_prism import ProxyModel
from hf_prism.gradients import Batch, PerExampleGradients, autograd_gradients
from hf_prism.rows import load_rows
from hf_prism.sketch import TensorSketch, rademacher_columns
from hf_prism.tasks.procedural import generate
from hf_prism.vendi import g_vendi


DATA = Path(os.environ.get("HF_PRISM_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
MIXTURE = {"gsm8k_train.jsonl": 0.6, "math_test_rest.jsonl": 0.2, "snli_dev.jsonl": 0.2}
NLI = {"prompt_template": "Premise: {premise}\nHypothesis: {hypothesis}", "completion_template": "{label}"}
MAX_LENGTH = 320  # keeps the reference, one backward pass a row, affordable
EMBEDDED = Path(hf_prism.__file__).parent / "embedded"


def train_gpt2(folder: Path, steps: int = 250) -> None:
    """Train a small GPT-2 (LayerNorm, biases, learned positions, Conv1D) on procedural problems."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED)
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=160, n_layer=4, n_head=4, n_positions=1024)
    model = AutoModelForCausalLM.from_config(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    texts = [f"{row['prompt']}\n{row['completion']}" for row in generate(steps * 16, seed=1)]
    for step in range(steps):
        batch = tokenizer(texts[step * 16 : step * 16 + 16], return_tensors="pt", padding=True)
        labels = batch.input_ids.masked_fill(batch.attention_mask == 0, -100)
        loss = model(**batch, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    print(f"trained GPT-2 proxy: {sum(p.numel() for p in model.parameters()):,} parameters, loss {loss.item():.2f}")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def encoded_rows(folder: str, count: int) -> list:
    """Rows of the mixture, up to MAX_LENGTH tokens."""
    rows = []
    for name, share in MIXTURE.items():
        options = NLI if "premise" in load_rows(DATA / name, max_samples=1).column_names else {}
        proxy = ProxyModel(folder, max_length=MAX_LENGTH, on_long="skip", on_empty="skip", **options)
        data = load_rows(DATA / name, max_samples=3 * round(share * count), seed=0)
        kept = [row for row in proxy.encode_rows([dict(row) for row in data]) if hasattr(row, "input_ids")]
        rows += kept[: round(share * count)]
    return rows


def write_gradients(engine: PerExampleGradients, rows: list, path: Path) -> np.memmap:
    """The (rows, parameters) matrix of autograd gradients, on disk."""
    size = engine.structure.num_parameters[0]
    matrix = np.memmap(path, dtype=np.float32, mode="w+", shape=(len(rows), size))
    for i, row in enumerate(rows):
        batch = Batch.collate([row.input_ids], [row.completion_mask])
        ((_, gradient),) = autograd_gradients(engine.model, batch, engine.structure)
        matrix[i] = torch.cat([g.reshape(-1) for g in gradient.values()]).numpy()
    return matrix


def exact_and_dense(matrix: np.memmap, engine: PerExampleGradients, dim: int, seeds: range) -> tuple[Tensor, list]:
    """The exact Gram matrix, and the dense projection for each seed, a block of parameters at a time."""
    gram = torch.zeros(len(matrix), len(matrix), dtype=torch.float64)
    dense = [torch.zeros(len(matrix), dim) for _ in seeds]
    start = 0
    for block in engine.structure.blocks:
        size = max(block.rows, 1) * block.columns
        for part in _parts(size):
            x = torch.from_numpy(np.ascontiguousarray(matrix[:, start + part.start : start + part.stop]))
            gram += (x @ x.T).double()
        for total, seed in zip(dense, seeds, strict=True):
            for part, signs in rademacher_columns(dim, seed, block.name, size):
                x = torch.from_numpy(np.ascontiguousarray(matrix[:, start + part.start : start + part.stop]))
                total += x @ signs
        start += size
    return gram, dense


def _parts(size: int, step: int = 2**17) -> list[slice]:
    return [slice(start, min(start + step, size)) for start in range(0, size, step)]


def sketched(engine: PerExampleGradients, rows: list, dim: int, seed: int) -> Tensor:
    """TensorSketches by the streamed path, in batches of 8."""
    sketch, out = TensorSketch(engine.structure.blocks, dim, seed), []
    for start in range(0, len(rows), 8):
        part = rows[start : start + 8]
        total = sketch.accumulator(len(part))
        engine(Batch.collate([r.input_ids for r in part], [r.completion_mask for r in part]), total)
        out.append(total.result())
    return torch.cat(out)


def cosines(vectors: Tensor) -> Tensor:
    """Cosines of all pairs i < j, from (n, d) vectors."""
    unit = torch.nn.functional.normalize(vectors.double(), dim=1)
    return (unit @ unit.T)[tuple(torch.triu_indices(len(unit), len(unit), 1))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--proxy", choices=["embedded", "gpt2"], default="embedded")
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    started = time.time()
    with tempfile.TemporaryDirectory() as temporary:
        folder = "embedded"
        if options.proxy == "gpt2":
            folder = str(Path(temporary) / "gpt2")
            train_gpt2(Path(folder))
        rows = encoded_rows(folder, options.rows)
        engine = PerExampleGradients(ProxyModel(folder).model)
        matrix = write_gradients(engine, rows, Path(temporary) / "gradients")
        gram, dense = exact_and_dense(matrix, engine, options.dim, range(options.seeds))
        tensor = [sketched(engine, rows, options.dim, seed) for seed in range(options.seeds)]
    scale = gram.diagonal().rsqrt()
    exact = (gram * scale * scale.unsqueeze(1))[tuple(torch.triu_indices(len(gram), len(gram), 1))]
    law = ((1 - exact**2).square().mean() / options.dim).sqrt().item()
    eigenvalues = np.linalg.eigvalsh((gram * scale * scale.unsqueeze(1)).numpy() / len(gram)).clip(1e-300)
    result = {
        "proxy": options.proxy,
        "parameters": engine.structure.num_parameters[0],
        "rows": len(rows),
        "dim": options.dim,
        "exact_g_vendi": float(np.exp(-(eigenvalues * np.log(eigenvalues)).sum())),
        "law_rmse": law,
        "dense_rmse": [(cosines(y) - exact).square().mean().sqrt().item() for y in dense],
        "tensorsketch_rmse": [(cosines(y) - exact).square().mean().sqrt().item() for y in tensor],
        "dense_g_vendi": [g_vendi(y).g_vendi for y in dense],
        "tensorsketch_g_vendi": [g_vendi(y).g_vendi for y in tensor],
        "seconds": round(time.time() - started),
    }
    ratio = np.mean(result["tensorsketch_rmse"]) / law
    vendi = np.mean(result["tensorsketch_g_vendi"]) / np.mean(result["dense_g_vendi"]) - 1
    print(
        "| proxy | rows | d | law | dense RMSE | TensorSketch RMSE | / law | G-Vendi dense | TensorSketch | difference |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    print(
        f"| {options.proxy} ({result['parameters'] / 1e6:.1f} M) | {len(rows)} | {options.dim} | {law:.5f} | "
        f"{np.mean(result['dense_rmse']):.5f} | {np.mean(result['tensorsketch_rmse']):.5f} | {ratio:.3f} | "
        f"{np.mean(result['dense_g_vendi']):.2f} ± {np.std(result['dense_g_vendi']):.2f} | "
        f"{np.mean(result['tensorsketch_g_vendi']):.2f} ± {np.std(result['tensorsketch_g_vendi']):.2f} | {vendi:+.2%} |"
    )
    if options.output:
        options.output.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
