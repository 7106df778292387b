"""Imports go downward only, and the core stays light (DESIGN 1)."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import hf_prism


SOURCE = Path(hf_prism.__file__).parent

# Each module may import those of its own line that stand before it, and those of the lines above.
LEVELS = [
    [
        "registration",
        "files",
        "origin",
        "samples",
        "kinds",
        "rows",
        "sketch",
        "vectors",
        "moments",
        "jackknife",
        "debiasing",
        "vendi",
        "accuracy",
        "resampling",
        "correlation",
        "effects",
        "composition",
        "paired",
        "comparison",
        "nearest",
        "near_duplicates",
        "families",
        "clustering",
        "few_shot",
        "greedy",
        "selection",
        "rendering",
        "checkpoint",
        "run_directory",
        "ranks",
        "batches",
        "access",
        "cards",
        "run_config",
        "worker",
        "answers",
        "units",
        "normal_form",
        "verification",
        "generation",
        "curation",
        "personas",
        "settings",
    ],
    [
        "proxy",
        "structure",
        "gradients",
        "baselines",
        "server",
        "local",
        "offline_vllm",
        "encoder",
        "pairs",
        "tasks",
        "tasks.blocks",
        "tasks.task",
        "tasks.math",
        "tasks.nli",
        "tasks.lexicon",
        "tasks.families",
        "tasks.favourites",
        "tasks.styles",
        "tasks.chains",
        "tasks.deductions",
        "tasks.procedural",
        "tasks.recognition",
        "tasks.gym",
        "tasks.simulation",
        "benchmarks",
        "grading",
    ],
    ["featurizer"],
    ["runner", "metric"],
    [
        "findings",
        "figures",
        "page",
        "report",
        "pushing",
        "hub",
        "run_card",
        "rounds",
        "synthesis_directory",
        "synthesis_pool",
        "synthesis_round",
        "synthesis",
        "recipe",
        "pricing",
        "doctor",
        "demo",
        "evaluation",
        "model_comparison",
        "watching",
        "training_run",
        "footprint",
        "supervision",
        "trainer_checks",
        "student_model",
        "distillation",
        "classification",
        "student_recipe",
        "student_card",
        "student_figures",
        "student_hub",
        "student_run",
        "lm_eval_tasks",
        "study_recipe",
        "solutions",
        "study_run",
        "study",
        "study_runs",
        "study_findings",
        "study_figures",
        "study_page",
        "study_report",
    ],
    ["options", "inputs", "verbs", "student_verbs", "cli", "__main__", "space.g_vendi"],
]
ORDER = [module for level in LEVELS for module in level]


def modules() -> list[str]:
    names = [".".join(path.relative_to(SOURCE).with_suffix("").parts) for path in SOURCE.rglob("*.py")]
    return sorted(name.removesuffix(".__init__") for name in names if name != "__init__")


def imported(module: str) -> set[str]:
    """The modules of this package that `module` imports, anywhere in its file."""
    path = SOURCE.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    package = ["hf_prism", *module.split(".")][: None if path.name == "__init__.py" else -1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            found |= {name, *(f"{name}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name.removeprefix("hf_prism.") for name in found} & set(modules())


@pytest.mark.parametrize("module", modules())
def test_imports_go_downward_only(module):
    assert module in ORDER, f"{module} has no place in the layers: give it one in DESIGN's table and here"
    upward = {other for other in imported(module) if ORDER.index(other) >= ORDER.index(module)} - {module}
    assert not upward


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("hf_prism.baselines", ["torch", "datasets", "evaluate", "transformers", "sentence_transformers", "scipy"]),
        ("hf_prism.comparison", ["torch", "datasets", "evaluate", "transformers"]),
        ("hf_prism.hub", ["torch", "datasets", "evaluate", "transformers"]),
        ("hf_prism", ["numpy", "torch", "datasets", "evaluate", "transformers"]),
        ("hf_prism.cli", ["numpy", "torch", "datasets", "evaluate", "transformers"]),
        ("hf_prism.vendi", ["torch", "datasets", "evaluate", "transformers"]),
        ("hf_prism.sketch", ["datasets", "evaluate", "transformers"]),
        ("hf_prism.runner", ["evaluate", "trl", "matplotlib", "gradio"]),
    ],
)
def test_importing_a_module_does_not_import_what_it_does_not_need(module, heavy):
    code = f"import {module}, sys; print(*[name for name in {heavy} if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not loaded
