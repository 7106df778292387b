# /// script
# requires-python = ">=3.11"
# dependencies = ["hf-prism"]
# ///
"""What G-Vendi owes to the proxy, to the sketch, to the number of rows and to the mask: a finished study scored again.

Run as:

    python examples/study/ablations.py examples/recipes/study_math.yaml --every 3 --output runs/ablations_math.json \\
        --proxy "less trained=runs/bases/math_early" --proxy "other family=runs/bases/math_gpt2"

No student is trained. Every third subset of the study is drawn again, scored in each variant, and the scores are
correlated with the accuracies that the study has. `random weights` and `exact` need no further model: the one is the
study's proxy before any training, the other its gradients without a sketch.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import torch
from datasets import Dataset
from subsets import each_subset
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from hf_prism import GradientFeaturizer, ProxyModel, runner
from hf_prism.correlation import correlate
from hf_prism.proxy import EncodedRow
from hf_prism.study_recipe import PlannedRun, StudyRecipe
from hf_prism.vendi import Covariance, vendi


@dataclass(frozen=True)
class Variant:
    """One way to score a subset; what is None is as in the study."""

    name: str
    model: str | None = None
    dim: int = 1024
    seed: int = 0
    rows: int | None = None
    whole_text: bool = False
    exact: bool = False


def variants(proxies: dict[str, str], scratch: Path, base: str) -> Iterator[Variant]:
    yield Variant("as in the study")
    yield Variant("exact gradients, no sketch", exact=True)
    for dim in (64, 256, 4096):
        yield Variant(f"d = {dim:,}", dim=dim)
    yield Variant("another seed of the sketch", seed=1)
    for rows in (64, 128, 256):
        yield Variant(f"{rows} of the rows", rows=rows)
    yield Variant("loss of prompt and completion", whole_text=True)
    yield Variant("random weights", model=str(random_weights(base, scratch)))
    for name, folder in proxies.items():
        yield Variant(name, model=folder)


def random_weights(base: str, scratch: Path) -> Path:
    """The architecture and tokenizer of a model, with new weights."""
    torch.manual_seed(0)
    folder = scratch / "random"
    AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


def score(rows: Dataset, variant: Variant, proxy: dict[str, Any]) -> float:
    """G-Vendi of a subset in a variant."""
    if variant.rows:
        # Rows of a subset come in the order of the pool, skeleton by skeleton: any of them, not the first.
        order = np.random.Generator(np.random.Philox(0)).permutation(len(rows))[: variant.rows]
        rows = rows.select(sorted(order.tolist()))
    if variant.whole_text:
        rows = Dataset.from_list([{"text": f"{row['prompt']}\n{row['completion']}"} for row in rows])
    options = {
        **proxy,
        **({"model": variant.model} if variant.model else {}),
        "dim": variant.dim,
        "seed": variant.seed,
    }
    if variant.exact:
        return vendi(np.linalg.eigvalsh(gram(rows, options["model"])))
    with tempfile.TemporaryDirectory() as folder:
        featurizer = GradientFeaturizer(**options)
        features = runner.run(rows, featurizer, Path(folder) / "features", progress=False).features
        return vendi(Covariance(variant.dim).update(features, features["id"]).spectrum())


def gram(rows: Dataset, model: str) -> np.ndarray:
    """Cosines of the whole gradients, by autograd row by row, over n: its trace is 1."""
    proxy = ProxyModel(model)
    proxy.model.requires_grad_(True)
    gradients = torch.empty(len(rows), sum(weight.numel() for weight in proxy.model.parameters()))
    for place, row in enumerate(rows):
        encoded = proxy.encode_rows([dict(row)])[0]
        assert isinstance(encoded, EncodedRow)
        ids, mask = torch.tensor([encoded.input_ids]), torch.tensor(encoded.completion_mask, dtype=torch.bool)
        proxy.model.zero_grad()
        logits = proxy.model(ids).logits[0, :-1][mask[1:]]
        torch.nn.functional.cross_entropy(logits, ids[0, 1:][mask[1:]]).backward()
        whole = torch.cat([weight.grad.flatten() for weight in proxy.model.parameters()])
        gradients[place] = whole / whole.norm()
    return (gradients @ gradients.T / len(rows)).double().numpy()


def work(recipe: StudyRecipe, run: PlannedRun, rows: Dataset, variant: Variant) -> float:
    return score(rows, variant, recipe.proxy())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="of a study that is finished")
    parser.add_argument("--every", type=int, default=3, help="take every N-th of its runs")
    parser.add_argument("--proxy", action="append", default=[], metavar="NAME=FOLDER", help="another proxy")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--runs", help="runs.parquet of the study; by default that of its output")
    parser.add_argument(
        "--output", type=Path, required=True, help="JSON file; variants that it holds are not made again"
    )
    args = parser.parse_args()
    recipe = StudyRecipe.load(args.recipe, {"every": args.every})
    known = parquet.read_table(args.runs or recipe.output / "runs.parquet").to_pylist()
    outcome = {row["run"]: row["ood"] for row in known}
    plan = recipe.plan()
    done = json.loads(args.output.read_text()) if args.output.exists() else []
    proxies = dict(each.split("=", 1) for each in args.proxy)
    with tempfile.TemporaryDirectory() as scratch:
        with each_subset(recipe, args.workers) as every:
            for variant in variants(proxies, Path(scratch), recipe.proxy()["model"]):
                if variant.name in {each["name"] for each in done}:
                    continue
                scores = every(work, plan, variant)
                found = correlate(scores, [outcome[run.name] for run in plan])
                line = {**asdict(variant), "rho": found.rho, "interval": found.interval, "n": found.n}
                line |= {"model": Path(variant.model).name if variant.model else None}
                line |= {"scores": dict(zip([run.name for run in plan], scores, strict=True))}
                done.append(line)
                args.output.parent.mkdir(parents=True, exist_ok=True)
                args.output.write_text(json.dumps(done, indent=1))
                low, high = found.interval
                print(f"{variant.name:32} rho {found.rho:.3f} ({low:.3f} to {high:.3f}), {found.n} runs", flush=True)


if __name__ == "__main__":
    main()
