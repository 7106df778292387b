"""The command `hf-prism`: its verbs and their options."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from . import options as shared
from .options import PAPER_PROXY as PAPER_PROXY


VERBS = {
    "distill": "student_verbs.distill",
    "evaluate": "student_verbs.evaluate",
    "compare-models": "student_verbs.compare_models",
    "study": "student_verbs.study",
}
"""Where the verbs that `hf_prism.verbs` has not got are."""

METHODS = ("greedy", "round_robin", "inverse_cluster_size", "random")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit status: 0, 2 for bad input, 1 for anything else."""
    from . import ranks

    options = _parser().parse_args(arguments)
    try:
        module, _, function = VERBS.get(options.verb, f"verbs.{options.verb}").rpartition(".")
        status = getattr(import_module(f"hf_prism.{module}"), function)(options)
        ranks.leave()
        return status
    except (ValueError, FileNotFoundError, FileExistsError, NotADirectoryError) as error:
        print(f"hf-prism {options.verb}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"hf-prism {options.verb}: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 1
    except (RuntimeError, OSError, MemoryError, ImportError) as error:
        print(f"hf-prism {options.verb}: failed: {type(error).__name__}: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    from . import __version__

    parser = argparse.ArgumentParser(
        prog="hf-prism", description="Diversity of fine-tuning data in gradient space (arXiv 2505.20161)."
    )
    parser.add_argument("--version", action="version", version=f"hf-prism {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    # In the order in which one meets them.
    for add in (
        _score,
        _featurize,
        _compare,
        _select,
        _report,
        _synthesize,
        _distill,
        _evaluate,
        _compare_models,
        _study,
    ):
        add(verbs)
    _doctor(verbs)
    _demo(verbs)
    return parser


def _score(verbs: Any) -> None:
    verb = _verb(verbs, "score", "the G-Vendi of a dataset", "g_vendi(featurize(dataset, featurizer, directory))")
    shared.add_data(verb)
    shared.add_featurizer(verb)
    shared.add_seed(verb)
    shared.add_order(verb)
    shared.add_output(verb)
    shared.add_json(verb)


def _featurize(verbs: Any) -> None:
    verb = _verb(verbs, "featurize", "the gradient of every row", "featurize(dataset, featurizer, directory)")
    shared.add_data(verb)
    shared.add_featurizer(verb)
    shared.add_seed(verb)
    verb.add_argument("--output", metavar="DIR", required=True, help="run directory; resumed if it holds the same run")
    verb.add_argument(
        "--shard",
        metavar="I/N",
        help="compute the I-th of N parts and wait for no other; for schedulers that start independent jobs. Under "
        "torchrun or accelerate launch the processes share the work without it",
    )
    shared.add_push(verb, "the gradients")
    shared.add_json(verb)


def _compare(verbs: Any) -> None:
    verb = _verb(
        verbs, "compare", "which of several datasets is more diverse", 'compare({"a": features, "b": others})'
    )
    shared.add_data(verb, several=True)
    shared.add_featurizer(verb)
    shared.add_seed(verb, "the sketch, of --max-samples and of the rows compared")
    shared.add_order(verb)
    shared.add_output(verb, "where compare.json, compare.png and a run directory for each dataset go")
    shared.add_json(verb)


def _select(verbs: Any) -> None:
    verb = _verb(verbs, "select", "exactly K diverse rows of a dataset", "select(features, k)")
    shared.add_data(verb)
    verb.add_argument("-k", metavar="K", type=int, required=True, help="how many rows")
    verb.add_argument(
        "--method",
        default="greedy",
        choices=METHODS,
        help="greedy (default): the rows of the greatest log-determinant; round_robin: one row of each cluster in turn; "
        "inverse_cluster_size: drawn, rows of small clusters more often; random: the control",
    )
    verb.add_argument("--quality", metavar="COLUMN", help="prefer rows by this column of numbers at or above 0")
    verb.add_argument("--group", metavar="COLUMN", help="take rows of each group of this column in proportion")
    verb.add_argument(
        "--quota",
        metavar="GROUP=N",
        action="append",
        default=[],
        help="exactly N rows of this group; may be repeated, the other groups share what is left",
    )
    verb.add_argument("--clusters", metavar="N", type=int, help="number of clusters (default: a tenth of the rows)")
    shared.add_source(verb)
    shared.add_featurizer(verb)
    shared.add_seed(verb, "the sketch, of --max-samples and of the choice")
    shared.add_output(verb, "where selected.parquet and selection.json go; default: the run directory")
    shared.add_push(verb, "the chosen rows")
    shared.add_json(verb)


def _report(verbs: Any) -> None:
    verb = _verb(verbs, "report", "a page that shows what is in a dataset", "")
    verb.epilog = (
        "In Python: from hf_prism.report import examine, write_report; write_report(examine(features), directory)"
    )
    shared.add_data(verb)
    verb.add_argument("--label", metavar="COLUMN", help="labels of the rows, for the entropy of their skills")
    shared.add_source(verb)
    shared.add_featurizer(verb)
    shared.add_seed(verb, "the sketch, of --max-samples and of the rows shown")
    shared.add_output(verb, "where report.html and its pictures go; default: the run directory")
    shared.add_json(verb)


def _synthesize(verbs: Any) -> None:
    verb = _verb(
        verbs,
        "synthesize",
        "grow a dataset where it is sparse in gradient space",
        'PrismaticSynthesizer(MathTask(), generator, solver, featurizer).run(seeds, "DIR", target_size=N)',
    )
    verb.add_argument("recipe", metavar="RECIPE", help="YAML file, such as those in examples/recipes")
    shared.add_set(verb, "generator.model=MODEL")
    verb.add_argument("--dry-run", action="store_true", help="say what it would cost, send and compute nothing")
    verb.add_argument("--seed", type=int, help="seed of every draw and request; default: the recipe's")
    shared.add_output(verb, "run directory, in place of the recipe's; resumed if it holds the same run")
    shared.add_push(verb, "every round")
    shared.add_json(verb)


def _distill(verbs: Any) -> None:
    verb = _verb(
        verbs, "distill", "train a student on a dataset, and evaluate it", 'distill(rows, base="MODEL", output="DIR")'
    )
    verb.add_argument("recipe", metavar="RECIPE", help="YAML file, such as sft_small.yaml in examples/recipes")
    shared.add_set(verb, "base=MODEL or training.learning_rate=1.0e-5")
    verb.add_argument(
        "--dry-run", action="store_true", help="check and show everything up to the first step, and stop"
    )
    shared.add_output(verb, "run directory, in place of the recipe's; resumed if it holds the same run")
    verb.add_argument("--push-to", metavar="USER/NAME", help="push the student to the Hub, as a model with a card")
    verb.add_argument("--private", action="store_true", help="push it as a private one")
    shared.add_json(verb)


def _study(verbs: Any) -> None:
    verb = _verb(
        verbs,
        "study",
        "which measure of diversity predicts generalisation, over many small students",
        'study.study(StudyRecipe.load("recipe.yaml"))',
    )
    verb.add_argument("recipe", metavar="RECIPE.yaml", help="what to do; see examples/recipes/study_*.yaml")
    verb.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="change a key of the recipe, such as every=10 for every tenth run; may be repeated",
    )
    verb.add_argument("--dry-run", action="store_true", help="check everything, tell the plan and the cost, and stop")
    shared.add_output(verb, "run directory, in place of the recipe's; resumed if it holds the same study")
    shared.add_json(verb)


def _evaluate(verbs: Any) -> None:
    verb = _verb(
        verbs,
        "evaluate",
        "the accuracy of a model on benchmarks, with error bars",
        'evaluation.evaluate(TransformersGenerator("MODEL"), ["math500"], "DIR")',
    )
    shared.add_student(verb)
    verb.add_argument(
        "--benchmarks",
        metavar="NAME,...",
        required=True,
        help="names such as math500 (an unknown one lists all), NAME@REVISION, NAME=FILE for a copy of one, or a file of "
        "your own with prompt and answer, or premise, hypothesis and label",
    )
    shared.add_answers(verb)
    shared.add_seed(verb, "every draw")
    verb.add_argument("--output", metavar="DIR", required=True, help="run directory; resumed if it holds the same run")
    verb.add_argument(
        "--lm-eval", metavar="DIR", help="write task files for lm-eval of these benchmarks there, and evaluate nothing"
    )
    shared.add_json(verb)


def _compare_models(verbs: Any) -> None:
    verb = _verb(
        verbs,
        "compare-models",
        "which of several evaluated models is better",
        'model_comparison.compare_models({"base": "DIR", "student": "DIR"})',
    )
    verb.add_argument(
        "runs", metavar="DIR", nargs="+", help="--output of `hf-prism evaluate`; NAME=DIR gives it a name"
    )
    shared.add_seed(verb, "the tests")
    shared.add_output(verb, "where compare-models.json and compare-models.png go")
    shared.add_json(verb)


def _doctor(verbs: Any) -> None:
    verb = _verb(verbs, "doctor", "check a proxy, and how it reads your rows", "")
    verb.epilog = "In Python: from hf_prism.doctor import examine; examine(featurizer, rows, print)"
    verb.add_argument("--dataset", metavar="DATA", help="rows to check it on; default: built-in problems")
    shared.add_rows(verb)
    shared.add_featurizer(verb)
    shared.add_seed(verb)


def _demo(verbs: Any) -> None:
    verb = _verb(verbs, "demo", "score three small built-in datasets; needs no network", "")
    verb.add_argument("--output", metavar="DIR", default="hf-prism-demo", help="where the picture goes")
    shared.add_seed(verb, "the problems and of the sketch")
    shared.add_json(verb)


def _verb(verbs: Any, name: str, summary: str, python: str) -> argparse.ArgumentParser:
    parser = verbs.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
    if python:
        parser.epilog = f"In Python: hf_prism.{python}"
    return parser
