"""Cards of datasets and models: our YAML keys and one block of text of ours in them, and every other byte the user's.

What stands between the two markers is written anew by every push. The YAML is edited as text, so that comments, order
and quoting of the user's keys stay, and then parsed to see that it came out as meant.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import yaml


BEGIN, END = "<!-- hf_prism:begin -->", "<!-- hf_prism:end -->"


def merged_card(
    old: bytes,
    repo_id: str,
    *,
    block: str,
    tags: Sequence[str],
    num_rows: int,
    data_files: str = "data/train-*",
    license: str | None = None,
) -> str:
    """A dataset card with our YAML keys and our block in it; every other byte as it was.

    Args:
        old: The README.md as it is, empty where there is none.
        repo_id: `USER/NAME`, for the title of a new card and for errors.
        block: Markdown between the markers.
        tags: To be among the tags.
        num_rows: For the size category.
        data_files: The pattern of the files that are the split train.
        license: Set where the card names none yet.

    Raises:
        ValueError: A card that cannot be merged: not UTF-8, broken YAML, a marker too few or too many.

    Example:
        >>> print(merged_card(b"", "user/rows", block="Two rows.", tags=["hf_prism"], num_rows=2).splitlines()[-3:])
        ['<!-- hf_prism:begin -->', 'Two rows.', '<!-- hf_prism:end -->']
    """
    return with_keys(old, repo_id, block, lambda theirs: _our_keys(theirs, tags, num_rows, data_files, license))


def with_keys(old: bytes, repo_id: str, block: str, our_keys: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> str:
    """The card of any repository, with our block and the keys that `our_keys` makes of those that are there.

    Raises:
        ValueError: As `merged_card`.
    """
    where = f"README.md of {repo_id}"
    try:
        text = old.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} is not UTF-8 text ({error}). Repair it on the Hub, or delete it.") from error
    if not text.strip():
        text = f"# {repo_id.split('/')[1]}\n"
    newline = "\r\n" if "\r\n" in text else "\n"
    match = re.match(r"(\ufeff?\s*---[ \t]*\r?\n)(.*?)(^---[ \t]*(?:\r?\n|\Z))", text, re.DOTALL | re.MULTILINE)
    head, front, tail = match.groups() if match else (f"---{newline}", "", f"---{newline}")
    body = text[match.end() :] if match else text
    front = _merged_yaml(front, our_keys, newline, where)
    return head + front + tail + _with_block(body, block, newline, where)


def _with_block(body: str, block: str, newline: str, where: str) -> str:
    """The text with the block between its markers, or at the end where there are none."""
    block = block.replace("<!-- hf_prism:", "&lt;!-- hf_prism:").strip()  # a marker inside would end it too early
    block = newline.join([BEGIN, *block.replace("\r\n", "\n").split("\n"), END])
    begins, ends = ([m.span() for m in re.finditer(rf"^{marker}", body, re.MULTILINE)] for marker in (BEGIN, END))
    if not begins and not ends:
        gap = newline * (2 - body.endswith("\n")) if body.strip() else ""
        return body + gap + block + newline
    if len(begins) != 1 or len(ends) != 1 or begins[0] > ends[0]:
        raise ValueError(
            f"{where} holds {BEGIN} {len(begins)} times and {END} {len(ends)} times, so it is not known what between "
            "them is to be replaced. Leave one of each, in this order, each at the start of a line; or delete them all."
        )
    return body[: begins[0][0]] + block + body[ends[0][1] :]


def _our_keys(
    old: Mapping[str, Any], ours: Sequence[str], num_rows: int, data_files: str, license: str | None
) -> dict[str, Any]:
    """The values of the keys that a push sets; None for one that goes."""
    tags = _listed(old.get("tags"))
    configs = _listed(old.get("configs"))
    mine: dict[str, Any] = next(filter(_is_default, configs), {})
    others = [f for f in _listed(mine.get("data_files")) if isinstance(f, dict) and f.get("split") != "train"]
    files = [{"split": "train", "path": data_files}, *others]
    default = {"config_name": "default", **mine, "data_files": files}
    # Sizes and types that are no longer true would keep the dataset from loading.
    described = [info for info in _listed(old.get("dataset_info")) if not _is_default(info)]
    return {
        "license": old.get("license") or license,
        "tags": tags + [tag for tag in ours if tag not in tags],
        "size_categories": [_size_category(num_rows)],
        "configs": [default if c is mine else c for c in configs] if mine else [default, *configs],
        "dataset_info": described or None,
    }


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _is_default(entry: Any) -> bool:
    return isinstance(entry, dict) and entry.get("config_name", "default") == "default"


def _size_category(num_rows: int) -> str:
    powers = [f"{number}{unit}" for unit in "KMB" for number in (1, 10, 100)] + ["1T"]
    reached = len(str(num_rows)) - 3
    return f"{powers[reached - 1]}<n<{powers[reached]}" if reached > 0 else "n<1K"


def _merged_yaml(
    text: str, our_keys: Callable[[Mapping[str, Any]], Mapping[str, Any]], newline: str, where: str
) -> str:
    """The front matter with some keys set; the lines of all others stay as they are, comments included."""
    try:
        old = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"the YAML at the top of {where} is broken: {error}. Repair it on the Hub.") from error
    if not isinstance(old, dict):
        raise ValueError(f"the YAML at the top of {where} is no mapping of keys: {old!r}. Repair it on the Hub.")
    changed = {key: value for key, value in our_keys(old).items() if old.get(key) != value}
    expected = {key: value for key, value in {**old, **changed}.items() if value is not None or key not in changed}
    try:
        for key, value in changed.items():
            text = _with_key(text, key, value, newline)
        done = yaml.safe_load(text) == expected
    except yaml.YAMLError:
        done = False
    if not done:
        raise ValueError(
            f"the keys {', '.join(changed)} cannot be set in the YAML at the top of {where}. Write it in the usual way, "
            "one key a line, without braces around it and without anchors in those keys."
        )
    return text


def _with_key(text: str, key: str, value: Any, newline: str) -> str:
    entry = "" if value is None else yaml.safe_dump({key: value}, sort_keys=False, allow_unicode=True)
    entry = entry.replace("\n", newline)
    node = yaml.compose(text)
    starts = {name.value: name.start_mark.index for name, _ in node.value} if node else {}
    if key not in starts:
        return text + ("" if not text or text.endswith("\n") else newline) + entry
    start = starts[key]
    stop = min((other for other in starts.values() if other > start), default=len(text))
    lines = text[start:stop].splitlines(keepends=True)
    while len(lines) > 1 and (not lines[-1].strip() or lines[-1].startswith("#")):
        lines.pop()  # belongs to what follows
    return text[:start] + entry + text[start + len("".join(lines)) :]


def markdown_table(left: str, right: str, cells: Mapping[str, str]) -> str:
    """A table of two columns with these headings."""
    return table((left, right), cells.items())


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    first, *others = [f"| {' | '.join(line)} |" for line in (headings, *rows)]
    return "\n".join([first, "|" + "---|" * len(headings), *others])


def code(value: Any) -> str:
    """A value as a Python literal in a code span, with nothing in it that could end the span, the cell or the line."""
    text = value if isinstance(value, str) and re.fullmatch(r"[\w./:+@-]+", value, re.ASCII) else repr(value)
    return "`" + text.replace("`", r"\x60").replace("|", r"\x7c").replace("<!--", r"\x3c!--") + "`"


def fenced(text: str, language: str) -> str:
    """A code block that nothing in the text can end."""
    longest = max(map(len, re.findall("`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{text.strip()}\n{fence}"
