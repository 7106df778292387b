"""Options that several verbs of the command share, and what they mean."""

from __future__ import annotations

import argparse
from collections.abc import Sequence


PAPER_PROXY = "Qwen/Qwen2.5-0.5B-Instruct"


def add_data(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    """The DATA argument, and how its rows are read."""
    told = (
        "Hub id, JSONL, Parquet or CSV file, saved dataset folder, or gradients: a run directory, or pushed to the Hub"
    )
    parser.add_argument("data", metavar="DATA", nargs="+" if several else None, help=told)
    add_rows(parser)


def add_rows(parser: argparse.ArgumentParser) -> None:
    """How rows are read."""
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
    parser.add_argument("--max-samples", metavar="N", type=int, help="use a random subset of N rows, kept in order")


def add_featurizer(parser: argparse.ArgumentParser) -> None:
    """How gradients are made."""
    parser.add_argument(
        "--model", default=PAPER_PROXY, help=f"proxy: Hub id, path, or 'embedded' (default {PAPER_PROXY})"
    )
    parser.add_argument("--revision", help="branch, tag or commit of the proxy")
    parser.add_argument("--dim", type=int, default=1024, help="length of the gradient vectors (default 1024)")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"], help="of the proxy's forward")
    parser.add_argument("--max-length", type=int, help="longest row in tokens (default: the proxy's limit)")
    parser.add_argument("--on-long", default="error", choices=["error", "skip", "truncate"], help="rows over that")
    parser.add_argument("--on-empty", default="error", choices=["error", "skip"], help="rows with nothing to learn")
    parser.add_argument("--assistant-turns", default="last", choices=["last", "all"], help="which turns are learned")
    parser.add_argument("--no-chat-template", action="store_true", help="concatenate prompt and completion")
    parser.add_argument("--parameters", default="all", help="'all' or a regular expression over parameter names")
    parser.add_argument("--device", help="torch device (default: cuda if there is one)")
    parser.add_argument("--trust-remote-code", action="store_true", help="run code from the proxy's repository")


def add_set(parser: argparse.ArgumentParser, example: str) -> None:
    """Other values for the keys of a recipe."""
    told = f"another value for a key of the recipe, such as {example}; may be repeated"
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help=told)


def add_student(parser: argparse.ArgumentParser) -> None:
    """A model that answers, and where it runs."""
    parser.add_argument("--model", metavar="MODEL", required=True, help="Hub id, folder, or what the server calls it")
    parser.add_argument("--revision", help="branch, tag or commit of a Hub id")
    parser.add_argument(
        "--backend",
        default="transformers",
        choices=["transformers", "server", "vllm"],
        help="transformers (default; for an encoder too), an OpenAI-compatible server, or vLLM in this process",
    )
    parser.add_argument("--base-url", metavar="URL", help="of the server, such as http://127.0.0.1:8000/v1")
    parser.add_argument("--provider", help="of Hugging Face's Inference Providers, instead of a URL")
    parser.add_argument("--api-key-env", metavar="NAME", help="environment variable with the server's key")
    parser.add_argument("--concurrency", type=int, default=32, help="requests at a time to a server (default 32)")
    parser.add_argument("--batch-size", type=int, default=32, help="answers at a time with transformers (default 32)")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"], help="of the weights")
    parser.add_argument("--device", help="torch device (default: cuda if there is one)")
    parser.add_argument("--no-chat-template", action="store_true", help="for a student trained on plain text")


def add_answers(parser: argparse.ArgumentParser) -> None:
    """How benchmarks are asked, and answers drawn."""
    parser.add_argument("--samples", metavar="K", type=int, default=1, help="answers to each item (default 1)")
    parser.add_argument("--temperature", type=float, default=0.0, help="0, the default, takes the likeliest token")
    parser.add_argument(
        "--top-p", type=float, default=1.0, help="draw from the likeliest tokens of this share (default 1)"
    )
    parser.add_argument("--max-tokens", type=int, default=4096, help="longest answer (default 4096)")
    parser.add_argument(
        "--prompt", metavar="TEXT", help="another prompt: '{problem}', or a text with {premise} and {hypothesis}"
    )
    parser.add_argument("--system-prompt", metavar="TEXT", help="a system message before each prompt")
    parser.add_argument("--max-samples", metavar="N", type=int, help="a random subset of N items of each benchmark")


def add_seed(parser: argparse.ArgumentParser, of: str = "the sketch and of --max-samples") -> None:
    """The one seed of a command."""
    parser.add_argument("--seed", type=int, default=0, help=f"seed of {of} (default 0)")


def add_order(parser: argparse.ArgumentParser) -> None:
    """The order of the Vendi score."""
    told = "order q of the Vendi score: 0.5, 1, 2 or inf (default 1)"
    parser.add_argument("--order", type=float, default=1.0, help=told)


def add_source(parser: argparse.ArgumentParser) -> None:
    """The rows of gradients that come without them."""
    told = "with gradients as DATA: the rows that they were made from, found by id"
    parser.add_argument("--source", metavar="DATA", help=told)


def add_output(parser: argparse.ArgumentParser, told: str = "run directory; default: one in the cache") -> None:
    """Where files go."""
    parser.add_argument("--output", metavar="DIR", help=told)


def add_push(parser: argparse.ArgumentParser, what: str) -> None:
    """Pushing to the Hub."""
    parser.add_argument("--push-to", metavar="USER/NAME", help=f"push {what} to the Hub, as a dataset")
    parser.add_argument("--private", action="store_true", help="push it as a private one")


def add_json(parser: argparse.ArgumentParser) -> None:
    """Output for programs."""
    parser.add_argument("--json", action="store_true", help="print one JSON object, the last line of standard output")


def column_mapping(pairs: Sequence[str]) -> dict[str, str | None]:
    """`--column NAME=COLUMN` as a mapping; `id=` is no column."""
    mapping: dict[str, str | None] = {}
    for pair in pairs:
        name, separator, column = pair.partition("=")
        if not separator:
            raise ValueError(f"--column {pair!r} must be NAME=COLUMN, for example --column completion=solution.")
        mapping[name] = column or None
    return mapping


def quotas_of(pairs: Sequence[str]) -> dict[str, int]:
    """`--quota GROUP=N` as a mapping; a group's name may hold `=`."""
    quotas = {}
    for pair in pairs:
        group, separator, count = pair.rpartition("=")
        if not separator or not count.isdecimal():
            raise ValueError(f"--quota {pair!r} must be GROUP=N, for example --quota algebra=500.")
        if group in quotas:
            raise ValueError(f"--quota names the group {group!r} twice.")
        quotas[group] = int(count)
    return quotas


def check_push(options: argparse.Namespace) -> bool:
    """Whether something is to be pushed."""
    if options.private and not options.push_to:
        raise ValueError("--private is about --push-to USER/NAME, which is missing.")
    return bool(options.push_to)


def with_newlines(template: str | None) -> str | None:
    """A backslash and an n, as typed between a shell's quotes, is a line break."""
    return template.replace("\\n", "\n") if template else template


def refuse(options: argparse.Namespace, data: str, why: str, *, rows: bool, samples: bool = False) -> None:
    """Gradients are used as they are; an option on how to make them would otherwise be dropped in silence.

    Args:
        options: Of the command.
        data: The gradients, as typed.
        why: What they are.
        rows: Whether no rows are read either.
        samples: Whether all rows are needed, since those of all gradients are looked for.

    Raises:
        ValueError: an option on the featurizer, or on reading rows, differs from its default.
    """
    parser = argparse.ArgumentParser()
    if rows:
        add_rows(parser)
    elif samples:
        parser.add_argument("--max-samples")
    add_featurizer(parser)
    if rows and options.verb == "score":  # which draws nothing
        add_seed(parser)
    defaults = vars(parser.parse_args([]))
    given = [f"--{name.replace('_', '-')}" for name in defaults if getattr(options, name) != defaults[name]]
    if given:
        raise ValueError(
            f"{data} {why}: {', '.join(given)} cannot apply. Leave it out, or give the data that the gradients "
            "were made from."
        )
