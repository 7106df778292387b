"""What each verb of the command does: options in, one function call of the library, result out."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .inputs import (
    Gradients,
    column_of,
    dataset_of,
    featurizer_of,
    gradients_of,
    is_ready,
    quiet_libraries,
    survey_lines,
)
from .options import check_push, quotas_of


if TYPE_CHECKING:
    from datasets import Dataset

    from .pricing import Price
    from .recipe import Recipe
    from .synthesis import PrismaticSynthesizer, Synthesis
    from .vendi import VendiScore


def score(options: argparse.Namespace) -> int:
    """Featurize if need be, score, draw, and keep `result.json` beside the features."""
    from . import figures, files, report
    from .vendi import Covariance, vendi

    vendi([1.0], options.order)  # a wrong order is an error now, not after the work
    found = gradients_of(options, options.data, options.output)
    if found is None:
        return 0
    dim = _dim(found.features)
    covariance = Covariance(dim, feature_id=found.feature_id).update(found.features, found.ids)
    result = covariance.score(options.order)
    lines = list(found.lines)
    if found.directory:
        files.write_json(found.directory / "result.json", _plain(result))
        figure = figures.score_figure({found.name: (result, covariance.spectrum(), found.features)})
        picture = figures.save_figure(figure, found.directory / "score.png")
        lines.append(f"  files                       {found.directory / 'result.json'}, {picture.name}")
    _show(options, report.summary(result, lines=lines), _plain(result))
    return 0


def featurize(options: argparse.Namespace) -> int:
    """Featurize into a run directory, and push it if asked."""
    from . import hub, runner

    if check_push(options):
        if options.shard:
            raise ValueError("--push-to needs all rows: leave out --shard, or push when all shards are there.")
        hub.check_can_push(options.push_to, manifest=hub.FEATURES_FILE)
    dataset = dataset_of(options, options.data)
    done = runner.run(dataset, featurizer_of(options), options.output, shard=options.shard)
    if done.rank:
        return 0
    result = {
        "skipped": len(done.survey.skipped),
        "truncated": len(done.survey.truncated),
        "repeats": done.survey.num_repeats,
        "dim": options.dim,
        "feature_id": done.feature_id,
        "output": str(done.directory),
        "complete": done.is_complete,
    }
    if done.is_complete:
        result = {"rows": len(done.features), **result}
        told = f"{len(done.features):,} gradients in {done.directory}"
    else:
        result = {"rows": done.num_rows, **result, "missing_chunks": done.num_missing}
        told = (
            f"{done.num_rows:,} rows of shard {options.shard} featurized in {done.directory}; {done.num_missing} of "
            f"{done.num_chunks} chunks of the run are still missing. The last shard completes it; the same command "
            "without --shard computes whatever is missing."
        )
    lines = [told, *survey_lines(done, options.model)]
    if options.push_to:
        source = options.data if not Path(options.data).exists() else None
        commit = hub.push_features(done.features, options.push_to, private=options.private, source=source)
        result |= {"pushed_to": options.push_to, "commit": commit}
        lines.append(f"  pushed                      {options.push_to}, commit {commit}")
    _show(options, "\n".join(lines), result)
    return 0


def compare(options: argparse.Namespace) -> int:
    """Compare datasets at equal size; with --output also `compare.json` and `compare.png`."""
    from . import figures, files
    from .comparison import compare as compared
    from .origin import origin_of, require_same_origin
    from .vendi import vendi

    vendi([1.0], options.order)
    names = _names(options.data)
    output = Path(options.output) if options.output else None
    if output and output.is_file():
        raise ValueError(f"--output {output} is a file. Name a folder.")
    ready = {data: is_ready(data) for data in options.data}
    found: dict[str, Gradients | None] = {}
    # What is featurized already comes first: if it does not compare, nothing is computed.
    for data, name in sorted(zip(options.data, names, strict=True), key=lambda each: not ready[each[0]]):
        place = str(output / name) if output and not ready[data] else None
        found[name] = gradients_of(options, data, place, alone=all(ready.values()))
        require_same_origin({name: origin_of(each.features) for name, each in found.items() if each})
    features = {name: each.features for name in names if (each := found[name])}
    if len(features) < len(names):
        return 0  # of the processes that featurized together, one compares
    result = compared(features, order=options.order, seed=options.seed)
    lines = _comparison_lines(result)
    if output:
        output.mkdir(parents=True, exist_ok=True)
        files.write_json(output / "compare.json", result.as_dict())
        picture = figures.save_figure(figures.comparison_figure(result), output / "compare.png")
        lines.append(f"Files: {output / 'compare.json'}, {picture.name}")
    _show(options, "\n".join(lines), {**result.as_dict(), **({"output": str(output)} if output else {})})
    return 0


def select(options: argparse.Namespace) -> int:
    """Choose rows; `selected.parquet` has them, `selection.json` says how they were chosen."""
    from . import files, hub
    from .rows import write_parquet
    from .selection import Demand
    from .selection import select as selected

    quotas = quotas_of(options.quota) or None

    def check(rows: Dataset) -> None:
        quality, groups = (column_of(rows, getattr(options, name), f"--{name}") for name in ("quality", "group"))
        Demand(
            len(rows),
            options.k,
            quality=quality,
            groups=groups,
            quotas=quotas,
            n_clusters=options.clusters,
            seed=options.seed,
        )

    if check_push(options):
        hub.check_can_push(options.push_to, manifest=hub.ROWS_FILE)
    found = gradients_of(options, options.data, options.output, source=options.source, check=check)
    if found is None:
        return 0
    directory = found.needs_directory(options)
    chosen = selected(
        found.features,
        options.k,
        method=options.method,
        quality=found.column(options.quality, "--quality"),
        groups=found.column(options.group, "--group"),
        quotas=quotas,
        n_clusters=options.clusters,
        seed=options.seed,
    )
    places = sorted(chosen.indices.tolist())
    rows = (found.features if found.rows is None else found.rows).select(places)
    ids = None if found.ids is None else [found.ids[place] for place in chosen.indices.tolist()]
    result = {**chosen.metadata, "quality": options.quality, "group": options.group}
    write_parquet(rows, directory / "selected.parquet")
    details = {**result, "ids": ids, "positions": chosen.indices.tolist(), "clusters": chosen.clusters.tolist()}
    files.write_json(directory / "selection.json", details)
    lines = [*_selection_lines(result), *found.lines, f"  files                       {directory}/selected.parquet"]
    lines[-1] += f" ({'the features of the chosen rows' if found.rows is None else 'the chosen rows'}), selection.json"
    if options.push_to:
        body = hub.selection_card(result)
        commit = hub.push_rows(rows, options.push_to, body=body, metadata=result, private=options.private)
        result |= {"pushed_to": options.push_to, "commit": commit}
        lines.append(f"  pushed                      {options.push_to}, commit {commit}")
    short = {name: value for name, value in result.items() if not name.startswith("cluster_")}
    _show(options, "\n".join(lines), {**short, "output": str(directory)})
    return 0


def synthesize(options: argparse.Namespace) -> int:
    """Grow the seeds of a recipe round by round, and push every round if asked."""
    from .recipe import Recipe
    from .settings import parse_changes

    changes = parse_changes(options.set)
    named = {"output": options.output, "seed": options.seed, "push_to": options.push_to}
    changes |= {name: value for name, value in named.items() if value is not None}
    if options.private:
        changes["private"] = True
    recipe = Recipe.load(options.recipe, changes)
    quiet_libraries()
    if options.dry_run:
        cost = _price(recipe)
        _show(options, "\n".join(cost.lines()), cost.as_dict())
        return 0
    done = _synthesized(recipe)
    result = {**done.as_dict(), "output": str(done.directory)}
    if recipe.content.get("push_to"):
        result["pushed_to"] = recipe.content["push_to"]
    _show(options, "\n".join(_synthesis_lines(done, recipe)), result)
    return 0


def _price(recipe: Recipe) -> Price:
    import inspect

    from .pricing import price
    from .synthesis import PrismaticSynthesizer, read_seeds

    made, arguments = recipe.task_arguments()
    task = made(**arguments)
    defaults = inspect.signature(PrismaticSynthesizer).parameters
    numbers = {
        name: recipe.content.get(name, defaults[name].default)
        for name in ("shots", "problems", "requests", "solutions")
    }
    limits = {name: recipe.sampling(name).max_tokens for name in ("generator", "solver") if recipe.content.get(name)}
    return price(
        task,
        read_seeds(recipe.seeds(), task, shots=numbers["shots"]),
        target_size=recipe.content["target_size"],
        generator_tokens=limits["generator"],
        solver_tokens=limits.get("solver"),
        dim=recipe.section("proxy").get("dim", 1024),
        **numbers,
    )


def _synthesized(recipe: Recipe) -> Synthesis:
    """Check everything that can be checked before the first request, then run."""
    from .synthesis_directory import SynthesisDirectory

    content = recipe.content
    synthesizer, seeds = recipe.synthesizer(), recipe.seeds()
    push = _pusher(recipe, synthesizer, seeds) if content.get("push_to") else lambda synthesis: None
    last = [summary["pool_size"] for _, summary in SynthesisDirectory(content["output"]).whole_rounds()][-1:]
    if not last or last[0] < content["target_size"]:  # else no model is needed any more
        synthesizer.check()
    return synthesizer.run(
        seeds, content["output"], target_size=content["target_size"], on_round=push, **recipe.limits()
    )


def _pusher(recipe: Recipe, synthesizer: PrismaticSynthesizer, seeds: Dataset) -> Callable[[Synthesis], None]:
    """A function that pushes the rounds done so far; that it may is found out now."""
    from .rounds import check_can_push_run, push_rounds
    from .synthesis import read_seeds
    from .synthesis_directory import run_id_of

    content = recipe.content
    rows = read_seeds(seeds, synthesizer.task, shots=synthesizer.shots, few_shot=synthesizer.examples)
    run_id = run_id_of(synthesizer.config(rows))
    check_can_push_run(content["push_to"], run_id)

    def push(synthesis: Synthesis) -> None:
        accepted: list[Dataset | None] = list(synthesis.accepted())
        if not content.get("include_seeds", True):
            accepted[0] = None
        if len(accepted) == 1 or not any(accepted):
            return  # no round yet, or none that accepted anything
        facts = {
            "run": run_id,
            "task": synthesizer.task.name,
            "strategy": synthesizer.strategy,
            "generator": synthesizer.generator.name,
            "solver": synthesizer.solver.name if synthesizer.solver else None,
            "proxy": synthesizer.featurizer.identity,
            "feature_id": synthesizer.featurizer.feature_id,
            "simulation": recipe.is_simulation,
            "recipe": recipe.public_text(),
        }
        push_rounds(
            accepted,
            content["push_to"],
            summaries=synthesis.rounds,
            facts=facts,
            license=content.get("license"),
            private=bool(content.get("private")),
        )

    return push


def report(options: argparse.Namespace) -> int:
    """Write the page `report.html` and its pictures."""
    from .report import examine, write_report

    def check(rows: Dataset) -> None:
        column_of(rows, options.label, "--label")

    found = gradients_of(options, options.data, options.output, source=options.source, check=check)
    if found is None:
        return 0
    directory = found.needs_directory(options)
    findings = examine(
        found.features,
        found.texts(),
        labels=found.column(options.label, "--label"),
        name=found.name,
        proxy=found.proxy,
        seed=options.seed,
    )
    page = write_report(findings, directory)
    _show(options, f"{findings.headline}\nOpen {page}", {**_plain(findings.score), "report": str(page)})
    return 0


def doctor(options: argparse.Namespace) -> int:
    """Examine a proxy; exit status 1 where something is wrong."""
    from . import doctor as checks
    from .tasks.procedural import generate

    featurizer = featurizer_of(options)
    options.max_samples = options.max_samples or checks.NOISE_ROWS
    rows = list(dataset_of(options, options.dataset)) if options.dataset else generate(checks.NOISE_ROWS, seed=0)
    problems = checks.examine(featurizer, [dict(row) for row in rows], print)
    print("\n" + ("All is well." if not problems else "\n".join(f"PROBLEM: {problem}" for problem in problems)))
    return 1 if problems else 0


def demo(options: argparse.Namespace) -> int:
    """Score three procedural datasets of equal size with the embedded proxy."""
    from . import figures, files, runner
    from .demo import datasets_of_rising_diversity
    from .featurizer import GradientFeaturizer
    from .rows import load_rows
    from .vendi import Covariance

    quiet_libraries()
    output = Path(options.output)
    output.mkdir(parents=True, exist_ok=True)
    featurizer = GradientFeaturizer("embedded", seed=options.seed)
    scores: dict[str, Any] = {}
    for name, rows in datasets_of_rising_diversity(options.seed).items():
        print(f"{name}: {len(rows)} rows, such as\n    {rows[0]['prompt']}\n    {rows[2]['prompt']}", file=sys.stderr)
        features = runner.run(load_rows(rows), featurizer).features
        covariance = Covariance(featurizer.dim, feature_id=featurizer.feature_id).update(features, ids=features["id"])
        scores[name] = (covariance.score(), covariance.spectrum(), features)
    picture = figures.save_figure(figures.score_figure(scores), output / "demo.png")
    results = {name: result.as_dict() for name, (result, _, _) in scores.items()}
    files.write_json(output / "result.json", results)
    width = max(map(len, scores))
    table = [f"{'':{width}}  G-Vendi   95 % interval"]
    for name, (result, _, _) in scores.items():
        low, high = result.interval
        table.append(f"{name:{width}}  {result.g_vendi:7.1f}   {low:.1f} to {high:.1f}")
    note = f"\nEqual n, one proxy: these scores compare. Picture: {picture}"
    _show(options, "\n".join(table) + note, results)
    return 0


# ---- what is printed -------------------------------------------------------------------------------------------------


def _show(options: argparse.Namespace, text: str, result: dict[str, Any]) -> None:
    print(text, file=sys.stderr if options.json else sys.stdout)
    if options.json:
        print(json.dumps(result))


def _plain(result: VendiScore) -> dict[str, Any]:
    """The score as JSON knows it: there is no infinity."""
    return result.as_dict() | ({"order": "inf"} if result.order == math.inf else {})


def _comparison_lines(result: Any) -> list[str]:
    width = max(map(len, result.scores))
    score = "G-Vendi" if result.order == 1 else f"order {result.order:g}"
    lines = [f"{'':{width}}  {score:7}   95 % interval    rows (of which {result.n:,} compared)"]
    for name, each in result.scores.items():
        low, high = each.interval or (math.nan, math.nan)
        told = f"{low:.1f} to {high:.1f}" if each.interval else "none"
        lines.append(f"{name:{width}}  {each.g_vendi:7.1f}   {told:15}  {result.sizes[name]:,}")
    for pair in result.pairs:
        lines += ["", pair.verdict, pair.mixture_verdict, *(f"  note: {note}" for note in pair.notes)]
    return [*lines, "", *(f"note: {note}" for note in result.notes)]


def _synthesis_lines(done: Synthesis, recipe: Recipe) -> list[str]:
    told = done.as_dict()
    candidates = sum(each.candidates for each in done.rounds[1:])
    accepted = sum(each.verdicts["accepted"] for each in done.rounds[1:])
    low, high = told["interval"] or (math.nan, math.nan)
    first = done.rounds[0]
    lines = [
        f"{told['rows']:,} rows after {len(done.rounds) - 1} rounds"
        + (" of a simulation" if recipe.is_simulation else "")
        + (f"; stopped: {done.stopped}" if done.stopped != "target" else ""),
        f"  accepted                    {accepted:,} of {candidates:,} candidates",
        f"  G-Vendi                     {told['g_vendi']:,.1f} ({low:,.1f} to {high:,.1f}); of the {first.pool_size:,} seeds "
        f"{first.g_vendi:,.1f}. They grow with the number of rows too",
        f"  spent                       {told['requests']:,} requests, {told['tokens']:,} tokens",
        f"  files                       {done.directory}/pool.parquet, rounds/, requests.jsonl",
    ]
    if recipe.content.get("push_to"):
        lines.append(f"  pushed                      {recipe.content['push_to']}, one commit a round")
    return lines


def _selection_lines(result: dict[str, Any]) -> list[str]:
    stability = result["stability"]
    touched = sum(count > 0 for count in result["cluster_chosen"])
    lines = [
        f"{result['k']:,} of {result['n']:,} rows chosen by {result['method']}",
        f"  G-Vendi of the chosen       {result['g_vendi']:,.1f}; of as many random rows {result['g_vendi_random']:,.1f}",
        f"  clusters reached            {touched:,} of {len(result['cluster_sizes']):,}",
    ]
    if stability["seeds"]:
        told = f"{stability['agreement']:.0%} of the rows, {stability['by_chance']:.0%} by chance"
        lines.append(f"  chosen again by seed {stability['seeds'][0]:<6} {told}")
    return lines


def _names(data: Sequence[str]) -> list[str]:
    """A short name for each of several datasets, all different."""
    if len(data) < 2:
        raise ValueError(f"nothing to compare {data[0]} with: give two or more datasets.")
    places = [str(Path(name).resolve()) if Path(name).exists() else name for name in data]
    if len(set(places)) < len(places):
        raise ValueError(f"{max(data, key=data.count)} is given twice: compare different datasets.")
    stems = [Path(place).stem for place in places]
    names = [
        f"{Path(place).parent.name}-{stem}" if stems.count(stem) > 1 else stem
        for place, stem in zip(places, stems, strict=True)
    ]
    # Of those still equal the second is name-2. A name is also that of a folder.
    return [name if names.index(name) == i else f"{name}-{i + 1}" for i, name in enumerate(names)]


def _dim(features: Dataset) -> int:
    from .vectors import number_blocks

    blocks = number_blocks(features)
    for _, rows in blocks:
        return rows.shape[1]
    raise ValueError("none of the rows has a gradient: nothing to score.")
