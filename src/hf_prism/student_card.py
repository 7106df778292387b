"""What the card of a student says: what it was made from, how good it is, and the commands that made it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from .benchmarks import BENCHMARKS, MATH_PROMPT, NLI_PROMPT
from .cards import code, fenced, markdown_table, table


MODEL_TAGS = ("hf_prism", "distillation")
NAMES = {
    "math500": "MATH-500", "aime24": "AIME 2024", "aime25": "AIME 2025", "amc23": "AMC 2023", "math2": "MATH²",
    "olympiadbench": "OlympiadBench", "gsm8k": "GSM8K", "gsm8k_platinum": "GSM8K-Platinum", "hans": "HANS",
    "anli_r1": "ANLI R1", "anli_r2": "ANLI R2", "anli_r3": "ANLI R3", "wanli": "WANLI", "snli": "SNLI",
    "snli_hard": "SNLI-hard", "mnli": "MNLI matched", "mnli_mismatched": "MNLI mismatched", "folio": "FOLIO",
    "conjnli": "ConjNLI", "control": "ConTRoL",
}  # fmt: skip
"""How the benchmarks of the table are written."""


def card_keys(old: Mapping[str, Any], facts: Mapping[str, Any], license: str | None) -> dict[str, Any]:
    """The YAML keys of the card, given those that are there; None for a key that goes.

    A base or dataset is named only if it is on the Hub: a path of this machine would be a broken link.
    """
    kind = facts["student"]
    hub_base = None if facts["base_is_local"] else facts["base"]
    results = [
        {
            "task": {"type": "text-classification" if kind == "classification" else "text-generation"},
            "dataset": {"name": _title(name, found), "type": _dataset(name, found)},
            "metrics": [{"type": "accuracy", "name": "pass@1", "value": round(100 * found["accuracy"], 2)}],
        }
        for name, found in (facts.get("evaluation") or {}).items()
    ]
    tags = [*_listed(old.get("tags"))]
    return {
        "license": old.get("license") or license,
        "library_name": "transformers",
        "pipeline_tag": "text-classification" if kind == "classification" else "text-generation",
        "base_model": hub_base or old.get("base_model"),
        "datasets": _with(
            old.get("datasets"), facts["data"].partition(":")[0] if facts.get("data_revision") else None
        ),
        "tags": tags + [tag for tag in MODEL_TAGS if tag not in tags],
        "model-index": _index(old.get("model-index"), facts["name"], results),
    }


def _title(name: str, found: Mapping[str, Any]) -> str:
    """How a benchmark is written; a file that happens to be called like one is not it."""
    return NAMES.get(name, name) if name in BENCHMARKS and found["source"] == BENCHMARKS[name].source else name


def _dataset(name: str, found: Mapping[str, Any]) -> str:
    """The Hub id of a benchmark; its name where it was read from a file."""
    return found["source"].partition(":")[0] if "/" in found["source"] else name


def _with(old: Any, name: str | None) -> list[Any] | None:
    """The list that is there, and this name in it."""
    names = _listed(old)
    return (names + [name] if name and name not in names else names) or None


def _index(old: Any, name: str, results: Sequence[Any]) -> list[Any] | None:
    """The results that are there of other models, and these."""
    others = [each for each in _listed(old) if not (isinstance(each, dict) and each.get("name") == name)]
    return ([*others, {"name": name, "results": list(results)}] if results else _listed(old)) or None


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def student_card(repo_id: str, facts: Mapping[str, Any]) -> str:
    """Markdown for the generated part of the card.

    Args:
        repo_id: `USER/NAME` of the model.
        facts: What `result.json` of the run holds, and `student`, `name`, `base_is_local`.
    """
    return f"""\
{code(facts["base_name"])}, trained on {facts["rows"]:,} rows of {_data(facts)} by hf_prism: \
{"an encoder that labels pairs" if facts["student"] == "classification" else "supervised fine-tuning on the completions"}.

### Accuracy

{_evaluation(facts)}

### How to use it

{_usage(repo_id, facts)}

### The data

{markdown_table("what", "value", _data_table(facts))}

### The training

{markdown_table("what", "value", _training_table(facts))}

The recipe. `hf-prism distill recipe.yaml` trains it again:

{fenced(facts["recipe"], "yaml")}

{_commands(repo_id, facts)}

### Licence

That of this model is what `license` says at the top of this card; where it says nothing, none was given. The licences of the \
base and of the data, and of what generated the data, set terms of their own."""


def _data(facts: Mapping[str, Any]) -> str:
    return code(facts["data"]) + (f" at {code(facts['data_revision'])}" if facts.get("data_revision") else "")


def percent(value: float, error: float | None = None) -> str:
    """`62.4 ± 2.2`, in per cent."""
    return f"{100 * value:.1f}" if error is None else f"{100 * value:.1f} ± {100 * error:.1f}"


def _evaluation(facts: Mapping[str, Any]) -> str:
    found: Mapping[str, Any] = facts.get("evaluation") or {}
    if not found:
        return "Not evaluated yet."
    base: Mapping[str, Any] = facts.get("base_evaluation") or {}
    headings = ["benchmark", "n", "accuracy, %", "95 % interval"]
    voted = any(each["majority"] for each in found.values())
    headings += ["majority, %"] if voted else []
    headings += ["of the base, %"] if base else []
    lines = []
    for name, each in found.items():
        low, high = each["interval"] or (None, None)
        line = [
            NAMES[name] if _title(name, each) != name else code(name),
            f"{each['problems']:,}",
            percent(each["accuracy"], each["standard_error"]),
            "" if low is None or high is None else f"{percent(low)} to {percent(high)}",
        ]
        if voted:
            line.append(percent(each["majority"]["accuracy"], each["majority"]["standard_error"]))
        if base:
            before = base.get(name)
            line.append(percent(before["accuracy"], before["standard_error"]) if before else "")
        lines.append(line)
    setting = facts["evaluation_setting"]
    drawn = (
        "greedy"
        if setting["temperature"] == 0
        else f"temperature {setting['temperature']:g}, top-p {setting['top_p']:g}"
    )
    prompts = sorted({each["prompt"] for each in found.values()})
    wrong = {"without an answer": "invalid", "cut off": "truncated", "undecided": "undecided"}
    shares = ", ".join(
        f"{percent(sum(each[key] for each in found.values()) / len(found))} % {told}" for told, key in wrong.items()
    )
    return f"""\
{table(headings, lines)}

± is the standard error over problems and samples. {setting["samples"]} {"sample" if setting["samples"] == 1 else "samples"} of \
each problem, {drawn}, at most {setting["max_tokens"]:,} tokens. Of the responses, {shares}. \
The prompt{"s" if len(prompts) > 1 else ""}: {"; ".join(code(each) for each in prompts)}."""


def _usage(repo_id: str, facts: Mapping[str, Any]) -> str:
    task = "text-classification" if facts["student"] == "classification" else "text-generation"
    call = (
        'student({"text": "It rains.", "text_pair": "The street is wet."})'
        if facts["student"] == "classification"
        else 'student([{"role": "user", "content": "How many primes are below 30?"}], max_new_tokens=2048)'
    )
    return f"""\
```python
from transformers import pipeline

student = pipeline("{task}", {repo_id!r})
{call}
```"""


def _data_table(facts: Mapping[str, Any]) -> dict[str, str]:
    told = {
        "dataset": _data(facts),
        "digest of its rows": code(facts["rows_digest"]),
        "rows learned from": f"{facts['rows']:,}",
        "rows left out": f"{facts['skipped']:,}",
        "rows cut off": f"{facts['truncated']:,}",
    }
    if score := facts.get("g_vendi"):
        low, high = score["interval"] or (None, None)
        interval = "" if low is None or high is None else f" ({low:,.1f} to {high:,.1f})"
        told["G-Vendi"] = f"{score['g_vendi']:,.1f}{interval} of {score['n']:,} rows at dim {score['dim']:,}"
        told["proxy, feature_id"] = f"{code(score['proxy'])}, {code(score['feature_id'])}"
    return told


def _training_table(facts: Mapping[str, Any]) -> dict[str, str]:
    return {
        "base": code(facts["base_name"]),
        "steps": f"{facts['steps']:,}",
        "tokens of the rows, and of them learned": f"{facts['tokens']:,}, {facts['learned_tokens']:,}",
        "mean loss of all steps": f"{facts['train_loss']:.4f}",
        "time": f"{facts['seconds']:,.0f} s",
    }


def _commands(repo_id: str, facts: Mapping[str, Any]) -> str:
    found: Mapping[str, Any] = facts.get("evaluation") or {}
    if not found:
        return ""
    setting = facts["evaluation_setting"]
    specs = [
        name if _title(name, each) != name or each["source"] == name else each["source"]
        for name, each in found.items()
    ]
    prompts = {each["prompt"] for each in found.values()}
    parts = ["hf-prism", "evaluate", "--model", repo_id, "--benchmarks", ",".join(specs)]
    parts += ["--samples", str(setting["samples"]), "--temperature", f"{setting['temperature']:g}"]
    parts += ["--top-p", f"{setting['top_p']:g}", "--max-tokens", str(setting["max_tokens"])]
    if len(prompts) == 1 and prompts.isdisjoint({MATH_PROMPT, NLI_PROMPT}):
        parts += ["--prompt", *prompts]
    for flag, key in {"--system-prompt": "system_prompt", "--max-samples": "max_items"}.items():
        parts += [flag, str(setting[key])] if setting.get(key) else []
    parts += ["--no-chat-template"] if facts.get("chat_template") is False else []
    parts += ["--seed", str(setting["seed"]), "--output", "evaluation"]
    line = " ".join(map(shlex.quote, parts))
    return f"The evaluation again (a benchmark with a suffix is a file):\n\n{fenced(line, 'bash')}"
