"""The command `hf-prism`: thin verbs, each one function call of the library."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from datasets import Dataset

    from .featurizer import GradientFeaturizer
    from .vendi import VendiScore

PAPER_PROXY = "Qwen/Qwen2.5-0.5B-Instruct"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit status: 0, 2 for bad input, 1 for anything else."""
    from . import ranks

    options = _parser().parse_args(arguments)
    try:
        status = options.run(options)
        ranks.leave()
        return status
    except (ValueError, FileNotFoundError, FileExistsError, NotADirectoryError) as error:
        print(f"hf-prism {options.verb}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"hf-prism {options.verb}: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 1
    except (RuntimeError, OSError, MemoryError) as error:
        print(f"hf-prism {options.verb}: failed: {type(error).__name__}: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    from . import __version__

    parser = argparse.ArgumentParser(
        prog="hf-prism", description="Diversity of fine-tuning data in gradient space (arXiv 2505.20161)."
    )
    parser.add_argument("--version", action="version", version=f"hf-prism {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    verb = _verb(
        verbs, "score", score, "the G-Vendi of a dataset", "g_vendi(featurize(dataset, featurizer, directory))"
    )
    _add_data(verb)
    _add_featurizer(verb)
    verb.add_argument(
        "--order", type=float, default=1.0, help="order q of the Vendi score: 0.5, 1, 2 or inf (default 1)"
    )
    _add_output(verb)
    _add_json(verb)

    verb = _verb(
        verbs, "featurize", featurize, "the gradient of every row", "featurize(dataset, featurizer, directory)"
    )
    _add_data(verb)
    _add_featurizer(verb)
    verb.add_argument("--output", metavar="DIR", required=True, help="run directory; resumed if it holds the same run")
    verb.add_argument(
        "--shard",
        metavar="I/N",
        help="compute the I-th of N parts and wait for no other; for schedulers that start independent jobs. Under "
        "torchrun or accelerate launch the processes share the work without it",
    )
    _add_json(verb)

    verb = _verb(
        verbs, "doctor", doctor, "check a proxy, and how it reads your rows", "doctor.examine(featurizer, rows, print)"
    )
    verb.add_argument("--dataset", metavar="DATA", help="rows to check it on; default: built-in problems")
    _add_rows(verb)
    _add_featurizer(verb)

    verb = _verb(verbs, "demo", demo, "score three small built-in datasets; needs no network", "")
    verb.add_argument("--output", metavar="DIR", default="hf-prism-demo", help="where the picture goes")
    verb.add_argument("--seed", type=int, default=0, help="seed of the problems and of the sketch (default 0)")
    _add_json(verb)
    return parser


def _verb(verbs: Any, name: str, run: Any, summary: str, python: str) -> argparse.ArgumentParser:
    parser = verbs.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
    parser.set_defaults(run=run)
    if python:
        parser.epilog = f"In Python: hf_prism.{python}"
    return parser


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA", help="Hub id, JSONL, Parquet or CSV file, or saved dataset folder")
    _add_rows(parser)


def _add_rows(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--split", help="which split; default: the only one, else train")
    parser.add_argument(
        "--column",
        metavar="NAME=COLUMN",
        action="append",
        default=[],
        help="read prompt, completion, messages, text or id from that column; may be repeated",
    )
    parser.add_argument("--prompt-template", metavar="TEXT", help="make the prompt from columns: 'Premise: {premise}'")
    parser.add_argument("--completion-template", metavar="TEXT", help="make the completion from columns: '{label}'")
    parser.add_argument("--max-samples", metavar="N", type=int, help="score a random subset of N rows, kept in order")


def _add_featurizer(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", default=PAPER_PROXY, help=f"proxy: Hub id, path, or 'embedded' (default {PAPER_PROXY})"
    )
    parser.add_argument("--revision", help="branch, tag or commit of the proxy")
    parser.add_argument("--dim", type=int, default=1024, help="length of the gradient vectors (default 1024)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sketch and of --max-samples (default 0)")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"], help="of the proxy's forward")
    parser.add_argument("--max-length", type=int, help="longest row in tokens (default: the proxy's limit)")
    parser.add_argument("--on-long", default="error", choices=["error", "skip", "truncate"], help="rows over that")
    parser.add_argument("--on-empty", default="error", choices=["error", "skip"], help="rows with nothing to learn")
    parser.add_argument("--assistant-turns", default="last", choices=["last", "all"], help="which turns are learned")
    parser.add_argument("--no-chat-template", action="store_true", help="concatenate prompt and completion")
    parser.add_argument("--parameters", default="all", help="'all' or a regular expression over parameter names")
    parser.add_argument("--device", help="torch device (default: cuda if there is one)")
    parser.add_argument("--trust-remote-code", action="store_true", help="run code from the proxy's repository")


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", metavar="DIR", help="run directory; default: one in the Hugging Face cache")


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object, the last line of standard output")


def _column_mapping(pairs: Sequence[str]) -> dict[str, str | None]:
    mapping: dict[str, str | None] = {}
    for pair in pairs:
        name, separator, column = pair.partition("=")
        if not separator:
            raise ValueError(f"--column {pair!r} must be NAME=COLUMN, for example --column completion=solution.")
        mapping[name] = column or None
    return mapping


def _with_newlines(template: str | None) -> str | None:
    """A backslash and an n, as typed between a shell's quotes, is a line break."""
    return template.replace("\\n", "\n") if template else template


def _featurizer(options: argparse.Namespace) -> GradientFeaturizer:
    from .featurizer import GradientFeaturizer

    _quiet_libraries()
    return GradientFeaturizer(
        options.model,
        revision=options.revision,
        dim=options.dim,
        seed=options.seed,
        dtype=options.dtype,
        max_length=options.max_length,
        column_mapping=_column_mapping(options.column),
        prompt_template=_with_newlines(options.prompt_template),
        completion_template=_with_newlines(options.completion_template),
        chat_template=False if options.no_chat_template else None,
        on_long=options.on_long,
        on_empty=options.on_empty,
        parameters=options.parameters,
        device=options.device,
        assistant_turns=options.assistant_turns,
        trust_remote_code=options.trust_remote_code,
    )


def _quiet_libraries() -> None:
    """Keep the progress bars of libraries out of ours."""
    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()


def _dataset(options: argparse.Namespace, data: str) -> Dataset:
    from .rows import load_rows

    _quiet_libraries()
    return load_rows(data, split=options.split, max_samples=options.max_samples, seed=options.seed)


def score(options: argparse.Namespace) -> int:
    """Featurize if need be, score, draw, and keep `result.json` beside the features."""
    from . import files, ranks, report, runner
    from .vendi import Covariance, vendi

    vendi([1.0], options.order)  # a wrong order is an error now, not after the work
    if runner.is_run_directory(options.data):
        _refuse(
            options, "is a run directory, whose rows are featurized already", _add_rows, _add_featurizer, _add_output
        )
        if not ranks.is_first():
            return 0
        features, directory, lines = runner.load_features(options.data), Path(options.data), []
        feature_id = runner.feature_id_of(directory)
    else:
        dataset = _dataset(options, options.data)
        if "gradient" in dataset.column_names:
            _refuse(options, "has a column `gradient`, so that no proxy is run", _add_featurizer, but=("seed",))
            return _score_column(options, dataset) if ranks.is_first() else 0
        done = runner.run(dataset, _featurizer(options), options.output)
        if done.rank:
            return 0  # of the processes that featurized together, one scores
        features, directory, feature_id = done.features, done.directory, done.feature_id
        lines = _survey_lines(done, options.model)
    covariance = Covariance(features.features["gradient"].length, feature_id=feature_id)
    result = covariance.update(features, ids=features["id"]).score(options.order)
    files.write_json(directory / "result.json", _plain(result))
    figure = report.score_figure({Path(options.data).name: (result, covariance.spectrum(), features)})
    picture = report.save_figure(figure, directory / "score.png")
    lines += [f"  files                       {directory / 'result.json'}, {picture.name}"]
    _show(options, report.summary(result, lines=lines), _plain(result))
    return 0


def _score_column(options: argparse.Namespace, dataset: Dataset) -> int:
    """Score the `gradient` column that a dataset brings, from an earlier `map` or from elsewhere."""
    from . import files, report
    from .vendi import g_vendi

    ids = dataset["id"] if "id" in dataset.column_names else None
    feature_id = (dataset.data.schema.metadata or {}).get(b"feature_id", b"").decode() or None
    result = g_vendi(dataset, order=options.order, ids=ids, feature_id=feature_id)
    told = f"of feature_id {feature_id}" if feature_id else "whose feature_id is unknown"
    lines = [f"  rows read                   the data's own gradient column, {told}; no proxy was run"]
    if options.output:
        Path(options.output).mkdir(parents=True, exist_ok=True)
        files.write_json(Path(options.output) / "result.json", _plain(result))
    _show(options, report.summary(result, lines=lines), _plain(result))
    return 0


def _refuse(options: argparse.Namespace, why: str, *groups: Any, but: Sequence[str] = ()) -> None:
    """Gradients are scored as they are; an option on how to make them would otherwise be dropped in silence."""
    parser = argparse.ArgumentParser()
    for add in groups:
        add(parser)
    defaults = {name: value for name, value in vars(parser.parse_args([])).items() if name not in but}
    given = [f"--{name.replace('_', '-')}" for name in defaults if getattr(options, name) != defaults[name]]
    if given:
        raise ValueError(
            f"{options.data} {why}: {', '.join(given)} cannot apply. Leave it out, or give the data that the gradients "
            "were made from."
        )


def _plain(result: VendiScore) -> dict[str, Any]:
    """The score as JSON knows it: there is no infinity."""
    return result.as_dict() | ({"order": "inf"} if result.order == math.inf else {})


def _survey_lines(done: Any, model: str) -> list[str]:
    found = done.survey
    parts = [
        f"{len(found.skipped):,} skipped" if found.skipped else "",
        f"{len(found.truncated):,} truncated" if found.truncated else "",
        f"{found.num_repeats:,} repeats" if found.num_repeats else "",
    ]
    told = ", ".join(part for part in parts if part) or "none skipped, truncated or repeated"
    return [
        f"  rows read                   {len(found.ids):,} ({told})",
        f"  proxy                       {model}, feature_id {done.feature_id}",
    ]


def featurize(options: argparse.Namespace) -> int:
    """Featurize into a run directory."""
    from . import runner

    dataset = _dataset(options, options.data)
    done = runner.run(dataset, _featurizer(options), options.output, shard=options.shard)
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
    _show(options, "\n".join([told, *_survey_lines(done, options.model)]), result)
    return 0


def doctor(options: argparse.Namespace) -> int:
    """Examine a proxy; exit status 1 where something is wrong."""
    from . import doctor as checks
    from .tasks.procedural import generate

    featurizer = _featurizer(options)
    options.max_samples = options.max_samples or checks.NOISE_ROWS
    rows = list(_dataset(options, options.dataset)) if options.dataset else generate(checks.NOISE_ROWS, seed=0)
    problems = checks.examine(featurizer, [dict(row) for row in rows], print)
    print("\n" + ("All is well." if not problems else "\n".join(f"PROBLEM: {problem}" for problem in problems)))
    return 1 if problems else 0


def demo(options: argparse.Namespace) -> int:
    """Score three procedural datasets of equal size with the embedded proxy."""
    from . import files, report, runner
    from .demo import datasets_of_rising_diversity
    from .featurizer import GradientFeaturizer
    from .rows import load_rows
    from .vendi import Covariance

    _quiet_libraries()
    output = Path(options.output)
    output.mkdir(parents=True, exist_ok=True)
    featurizer = GradientFeaturizer("embedded", seed=options.seed)
    scores: dict[str, Any] = {}
    for name, rows in datasets_of_rising_diversity(options.seed).items():
        print(f"{name}: {len(rows)} rows, such as\n    {rows[0]['prompt']}\n    {rows[2]['prompt']}", file=sys.stderr)
        features = runner.run(load_rows(rows), featurizer).features
        covariance = Covariance(featurizer.dim, feature_id=featurizer.feature_id).update(features, ids=features["id"])
        scores[name] = (covariance.score(), covariance.spectrum(), features)
    picture = report.save_figure(report.score_figure(scores), output / "demo.png")
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


def _show(options: argparse.Namespace, text: str, result: dict[str, Any]) -> None:
    print(text, file=sys.stderr if options.json else sys.stdout)
    if options.json:
        print(json.dumps(result))
