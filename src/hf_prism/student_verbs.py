"""What the verbs on students do: train one, evaluate one, compare several."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .inputs import quiet_libraries
from .options import add_answers, add_student


if TYPE_CHECKING:
    from .evaluation import Evaluation, Student
    from .student_recipe import StudentRecipe


def evaluate(options: argparse.Namespace) -> int:
    """Ask a model the items of benchmarks, and tell how many it answers right."""
    from . import ranks
    from .benchmarks import BENCHMARKS, find
    from .evaluation import evaluate as evaluated
    from .generation import Sampling

    specs = [spec.strip() for spec in options.benchmarks.split(",") if spec.strip()]
    if not specs:
        raise ValueError(f"--benchmarks names none; there are {', '.join(BENCHMARKS)}.")
    if options.lm_eval:
        from .lm_eval_tasks import write_tasks

        _refuse(
            options, ("samples", "temperature", "top_p", "system_prompt", "max_samples"), "the task files of --lm-eval"
        )

        written = write_tasks(
            [find(spec, prompt=options.prompt) for spec in specs], options.lm_eval, options.max_tokens
        )
        _show(options, f"Task files for lm-eval: {', '.join(map(str, written))}", {"tasks": list(map(str, written))})
        return 0
    quiet_libraries()
    done = evaluated(
        _student(options),
        specs,
        options.output,
        samples=options.samples,
        sampling=Sampling(options.temperature, options.top_p, options.max_tokens),
        seed=options.seed,
        prompt=options.prompt,
        system_prompt=options.system_prompt,
        max_items=options.max_samples,
        report=lambda text: print(text, file=sys.stderr),
    )
    if ranks.is_first():
        _show(options, "\n".join(evaluation_lines(done)), {**done.as_dict(), "output": str(done.directory)})
    return 0


def _student(options: argparse.Namespace) -> Student:
    """The model to evaluate, on the backend that was asked for."""
    from . import ranks
    from .evaluation import local_student

    if options.backend == "server":
        from .server import ServerGenerator

        _refuse(options, ("revision", "dtype", "device", "batch_size", "no_chat_template"), "--backend server")

        return ServerGenerator(
            options.model,
            base_url=options.base_url,
            provider=options.provider,
            api_key_env=options.api_key_env,
            concurrency=options.concurrency,
        )
    _refuse(options, ("base_url", "provider", "api_key_env", "concurrency"), f"--backend {options.backend}")
    if options.backend == "vllm":
        from .offline_vllm import VLLMGenerator

        _refuse(options, ("dtype", "device", "batch_size", "no_chat_template"), "--backend vllm")

        return VLLMGenerator(options.model, revision=options.revision)
    device = options.device or ranks.join().device
    chosen: dict[str, Any] = {"batch_size": options.batch_size}
    chosen |= {"dtype": options.dtype} if options.dtype != "float32" else {}
    chosen |= {"chat_template": False} if options.no_chat_template else {}
    return local_student(options.model, revision=options.revision, device=device, **chosen)


def _refuse(options: argparse.Namespace, names: Sequence[str], by: str) -> None:
    """An option that cannot apply is an error, not dropped in silence."""
    parser = argparse.ArgumentParser()
    add_student(parser)
    add_answers(parser)
    given = [f"--{name.replace('_', '-')}" for name in names if getattr(options, name) != parser.get_default(name)]
    if given:
        raise ValueError(f"{', '.join(given)} cannot apply to {by}. Leave it out.")


def compare_models(options: argparse.Namespace) -> int:
    """Tell which of several evaluated models is better, and how sure that is."""
    from . import files
    from .model_comparison import compare_models as compared

    directories = _named(options.runs)
    result = compared(directories, seed=options.seed)
    lines = comparison_lines(result.models, result.differences)
    if options.output:
        from . import figures
        from .student_figures import comparison_figure

        output = Path(options.output).expanduser()
        if output.is_file():
            raise ValueError(f"--output {output} is a file. Name a folder.")
        output.mkdir(parents=True, exist_ok=True)
        files.write_json(output / "compare-models.json", result.as_dict())
        picture = figures.save_figure(comparison_figure(result), output / "compare-models.png")
        lines.append(f"Files: {output / 'compare-models.json'}, {picture.name}")
    _show(options, "\n".join(lines), result.as_dict())
    return 0


def _named(runs: list[str]) -> dict[str, str]:
    """Directories by a short name, all different."""
    named: dict[str, str] = {}
    for run in runs:
        name, equals, path = run.partition("=")
        if not equals or Path(run).exists():
            path = run
            folder = Path(run).resolve()
            name = folder.parent.name if folder.name == "evaluation" else folder.name
        if name in named:
            raise ValueError(f"two evaluations are called {name!r}: give them names, {name}-2={path}.")
        named[name] = path
    return named


def distill(options: argparse.Namespace) -> int:
    """Train the student of a recipe, evaluate it, and push it if asked."""
    from . import ranks
    from .settings import parse_changes
    from .student_recipe import StudentRecipe
    from .student_run import run

    changes = parse_changes(options.set)
    named = {"output": options.output, "push_to": options.push_to}
    changes |= {name: value for name, value in named.items() if value is not None}
    if options.private:
        changes["private"] = True
    recipe = StudentRecipe.load(options.recipe, changes)
    quiet_libraries()
    done = run(recipe, dry_run=options.dry_run)
    if options.dry_run and ranks.is_first():
        _show(options, "Nothing was written: a dry run.", {"dry_run": True, "output": str(recipe.output)})
    elif done is not None:
        _show(options, "\n".join(student_lines(done, recipe)), dict(done))
    return 0


def study(options: argparse.Namespace) -> int:
    """Make the runs of a study, and write what they say of every measure."""
    from .settings import parse_changes
    from .study import study as made
    from .study_page import verdict
    from .study_recipe import StudyRecipe
    from .study_report import write_study_report
    from .study_runs import LEAST_RUNS

    changes = parse_changes(options.set)
    changes |= {"output": options.output} if options.output else {}
    recipe = StudyRecipe.load(options.recipe, changes)
    quiet_libraries()
    runs = made(recipe, dry_run=options.dry_run)
    if runs is None:
        _show(options, "Nothing was written: a dry run.", {"dry_run": True, "output": str(recipe.output)})
        return 0
    if (made_now := len(recipe.plan())) < LEAST_RUNS:
        told = f"{made_now} runs are too few for a report, which needs {LEAST_RUNS}. File: {runs}"
        _show(options, told, {"runs": made_now, "output": str(recipe.output)})
        return 0
    page, findings = write_study_report(runs, recipe.output)
    files = f"Files: {runs}, findings.json, {page.name}, and pictures"
    _show(options, f"{verdict(findings)}\n{files}", {**findings.as_dict(), "output": str(recipe.output)})
    return 0


DRAWN = ("samples", "temperature", "top_p", "max_tokens")
"""What two evaluations may differ in and still be compared, which is told."""


# ---- what is printed -------------------------------------------------------------------------------------------------


def _show(options: argparse.Namespace, text: str, result: dict[str, Any]) -> None:
    print(text, file=sys.stderr if options.json else sys.stdout)
    if options.json:
        print(json.dumps(result))


def percent(value: float | None, error: float | None = None) -> str:
    """`62.4 ± 2.2 %`."""
    if value is None:
        return "-"
    return f"{100 * value:.1f} %" if error is None else f"{100 * value:.1f} ± {100 * error:.1f} %"


def evaluation_lines(done: Evaluation) -> list[str]:
    """Accuracies with their standard errors, and what may be wrong with them."""
    setting = done.setting
    how = (
        "greedy"
        if setting["temperature"] == 0
        else f"temperature {setting['temperature']:g}, {setting['samples']} samples"
    )
    lines = [f"{done.model}, {how}; ± is the standard error over items and samples"]
    for name, each in done.benchmarks.items():
        low, high = each["interval"] or (float("nan"), float("nan"))
        line = (
            f"  {name:27} {percent(each['accuracy'], each['standard_error']):16} ({percent(low)} to {percent(high)})"
        )
        if each["majority"]:
            line += f", majority of {each['samples']} {percent(each['majority']['accuracy'], each['majority']['standard_error'])}"
        lines.append(f"{line}, n = {each['problems']:,}")
        told = {"without an answer": each["invalid"], "cut off": each["truncated"], "undecided": each["undecided"]}
        if any(told.values()):
            lines.append(
                f"  {'':27} " + ", ".join(f"{percent(share)} {what}" for what, share in told.items() if share)
            )
        if each["errors"]:
            lines.append(
                f"  {'':27} {each['errors']:,} requests were refused, and count as wrong: see the column error"
            )
    if len(done.benchmarks) > 1:
        lines.append(f"  {'mean':27} {percent(done.mean['accuracy'], done.mean['standard_error'])}")
    return [*lines, f"  {'files':27} {done.directory}/result.json, verdicts/, requests.jsonl"]


def comparison_lines(
    models: Mapping[str, Mapping[str, Any]], differences: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """A line for each model and benchmark, and for each difference."""
    first = next(iter(models))
    lines = []
    for other, found in differences.items():
        lines.append(f"{other} less {first}:")
        drawn = {name: (models[first]["setting"][name], models[other]["setting"][name]) for name in DRAWN}
        told = [f"{name} {before} and {after}" for name, (before, after) in drawn.items() if before != after]
        lines += [f"  note: they were asked differently: {', '.join(told)}"] if told else []
        for name, gap in found.items():
            line = f"  {name:27} {100 * gap['difference']:+.1f} points"
            if gap["interval"]:
                line += f" ({100 * gap['interval'][0]:+.1f} to {100 * gap['interval'][1]:+.1f})"
            if "p_value" in gap:
                told = {model: models[model]["benchmarks"][name] for model in (first, other)}
                shown = [percent(each["accuracy"], each["standard_error"]) for each in told.values()]
                line += f", from {shown[0]} to {shown[1]}; better at {gap['better']:,}, worse at {gap['worse']:,} of "
                line += f"{gap['problems']:,} items, p = {gap['p_value']:.2g}"
            lines.append(line)
    return [*lines, "Brackets hold 95 % intervals of the difference, item by item; ± is a standard error."]


def student_lines(done: Mapping[str, Any], recipe: StudentRecipe) -> list[str]:
    """What the training came to."""
    lines = [
        f"{done['model']}: {done['base']} after {done['steps']:,} steps on {done['rows']:,} rows of {done['data']}",
        f"  {'loss':27} {done['train_loss']:.4f}, the mean of all steps",
        f"  {'time':27} {done['seconds']:,.0f} s",
    ]
    if done.get("g_vendi"):
        lines.append(
            f"  {'G-Vendi of the data':27} {done['g_vendi']['g_vendi']:,.1f} of {done['g_vendi']['n']:,} rows"
        )
    for name, each in (done.get("evaluation") or {}).items():
        before = (done.get("base_evaluation") or {}).get(name)
        told = percent(each["accuracy"], each["standard_error"])
        was = f", the base {percent(before['accuracy'], before['standard_error'])}" if before else ""
        lines.append(f"  {name:27} {told}{was}, n = {each['problems']:,}")
    if done.get("pushed_to"):
        lines.append(f"  {'pushed':27} {done['pushed_to']}, commit {done['commit']}")
    return [*lines, f"  {'files':27} {recipe.output}/model, result.json, log.jsonl"]
