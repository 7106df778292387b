"""The Hugging Face Hub: gradients and selected rows as datasets, pushed in one commit and read back with their identity.

    data/train-*.parquet   the rows, in shards of bounded size, with explicit Features in their schema
    features.json          of gradients: feature_id, its fields, rows, dim and the checksum of each shard
    hf_prism.json          of other rows: what the caller says about them
    README.md              YAML merged into the user's, and one block of text between two markers

A push changes all of them or none (one commit), and everything else of the user's stays: text outside the markers, other
YAML keys, other files. Old shards go in the same commit. Who pushes at the same time wins or loses as a whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
from huggingface_hub import HfApi, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from . import pushing, run_directory
from .access import LOGIN, HTTPError, files_to_change, patiently
from .cards import code, markdown_table, merged_card
from .origin import Origin, origin_of
from .pushing import CARD, FEATURES_FILE, ROWS_FILE, SHARD, Held, Shard, check_not_taken, write_shards
from .vendi import Covariance, VendiScore


if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class _Push:
    """What a repository is to hold."""

    repo_id: str
    shards: Mapping[Path, Shard]  # by where they lie now
    manifest: str  # the name of the JSON file
    content: Mapping[str, Any]  # of that file
    block: str  # of the card
    tags: Sequence[str]

    @property
    def num_rows(self) -> int:
        return sum(shard.rows for shard in self.shards.values())


def push_features(
    features: Dataset | str | Path,
    repo_id: str,
    *,
    private: bool = False,
    token: str | None = None,
    source: str | None = None,
) -> str:
    """Push gradients as a dataset on the Hub, in one commit. The same gradients again make no new commit.

    Args:
        features: What `featurize` or `load_features` returned, or a run directory; columns besides `id` and `gradient`
            go along as they are.
        repo_id: `USER/NAME` of the dataset; made if there is none.
        private: Whether a new dataset is private. An existing public one is then refused.
        token: Of the Hub; default, the one logged in with.
        source: Hub id (`USER/NAME` or `USER/NAME:CONFIG`) of the dataset that was featurized, for the card.

    Returns:
        The id of the commit, which `load_features(..., revision=)` takes.

    Raises:
        ValueError: As `check_can_push`; no features, or of unknown feature_id; rows without a usable gradient; a
            repository that holds something else; a card that cannot be merged.

    Example:
        >>> push_features("runs/gsm8k", "user/gsm8k-gradients")  # doctest: +SKIP
        '0c1f6d...'
    """
    from datasets import Dataset, Features, List, Value

    _check_source(source)
    check_can_push(repo_id, token)
    rows = features if isinstance(features, Dataset) else run_directory.load_features(features)
    origin = _check_features(rows)
    score = _score(rows, origin)
    kinds = Features({**rows.features, "gradient": List(Value("float32"), length=score.dim)})
    with TemporaryDirectory() as folder:
        # Gradients do not compress.
        shards = write_shards(rows, kinds, Path(folder), origin=origin, compression="none", use_dictionary=False)
        content = {
            "feature_id": origin.feature_id,
            "identity": dict(origin.identity),
            "rows": score.n,
            "dim": score.dim,
            **({"source": source} if source else {}),
            "shards": [asdict(shard) for shard in shards.values()],
        }
        block = _features_block(repo_id, origin, score, source)
        return _push(_Push(repo_id, shards, FEATURES_FILE, content, block, ("hf_prism", "gradients")), private, token)


def push_rows(
    rows: Dataset,
    repo_id: str,
    *,
    body: str,
    metadata: Mapping[str, Any],
    private: bool = False,
    token: str | None = None,
) -> str:
    """Push a dataset as it is, in one commit. The same rows, body and metadata again make no new commit.

    Args:
        rows: Pushed with their Features; only `timestamp[s]`, which Parquet lacks, comes back as `timestamp[ms]`.
        repo_id: `USER/NAME` of the dataset; made if there is none.
        body: Markdown of the generated part of the card.
        metadata: JSON values, for the file `hf_prism.json`.
        private: Whether a new dataset is private. An existing public one is then refused.
        token: Of the Hub; default, the one logged in with.

    Returns:
        The id of the commit.

    Raises:
        ValueError: As `check_can_push`; no rows; a repository that holds something else; a card that cannot be merged.

    Example:
        >>> push_rows(chosen, "user/gsm8k-1000", body="1,000 rows.", metadata={"k": 1000})  # doctest: +SKIP
        '5be02a...'
    """
    check_can_push(repo_id, token, manifest=ROWS_FILE)
    if len(rows) == 0:
        raise ValueError(f"no rows to push to {repo_id}: the dataset is empty.")
    with TemporaryDirectory() as folder:
        shards = write_shards(rows, rows.features, Path(folder))
        return _push(_Push(repo_id, shards, ROWS_FILE, metadata, body, ("hf_prism",)), private, token)


def selection_card(metadata: Mapping[str, Any]) -> str:
    """Markdown that says how rows were chosen, for the `body` of `push_rows`.

    Args:
        metadata: Of a `Selection`. Its lists are left to `hf_prism.json`.

    Example:
        >>> print(selection_card({"method": "greedy", "k": 100, "cluster_sizes": [3, 1]}).splitlines()[-1])
        | `k` | `100` |
    """
    rounded = {name: round(value, 4) if isinstance(value, float) else value for name, value in metadata.items()}
    fields = {code(name): code(value) for name, value in rounded.items() if not isinstance(value, list)}
    return (
        "Rows chosen from a larger pool by the directions of their gradients, by hf_prism "
        "([arXiv:2505.20161](https://arxiv.org/abs/2505.20161)). `g_vendi` is the effective number of different "
        "directions among them, `g_vendi_random` that of as many random rows of the pool; compare them with nothing of "
        f"another k or feature_id. `{ROWS_FILE}` has the counts by cluster.\n\n"
        + markdown_table("field", "value", fields)
    )


def load_features(source: str | Path, *, revision: str | None = None, token: str | None = None) -> Dataset:
    """Load gradients from a run directory or from the Hub, memory-mapped, with the identity of their featurizer.

    Args:
        source: A run directory, or the Hub id of what `push_features` pushed; a folder of that name comes first.
        revision: Branch, tag or commit on the Hub.
        token: Of the Hub; default, the one logged in with.

    Returns:
        A dataset with the columns that were pushed, among them `id` and `gradient` (dim float32), whose `origin_of` is
        that of the features pushed.

    Raises:
        ValueError: Nothing there, no features in it, or files that do not belong together.

    Example:
        >>> load_features("user/gsm8k-gradients").column_names  # doctest: +SKIP
        ['id', 'gradient', 'gradient_norm', 'loss', 'num_tokens']
    """
    if _is_local(source):
        if revision is not None:
            raise ValueError(f"revision={revision!r} needs a Hub id, but {source} is a folder.")
        return run_directory.load_features(source)
    return _load_pushed(str(source), revision, token)


def holds_features(source: str) -> bool:
    """Whether a name that is no file or folder here is that of a dataset on the Hub with features in it."""
    if Path(source).expanduser().exists() or not re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        return False
    try:
        return HfApi().file_exists(source, FEATURES_FILE, repo_type="dataset")
    except (HTTPError, OfflineModeIsEnabled, HFValidationError):
        # Without the Hub, what was loaded before is still there. Who reads the rows says what is wrong.
        return isinstance(try_to_load_from_cache(source, FEATURES_FILE, repo_type="dataset"), str)


def check_can_push(repo_id: str, token: str | None = None, *, manifest: str = FEATURES_FILE) -> None:
    """Find out, before anything is computed, whether a push to a dataset can succeed.

    Args:
        repo_id: `USER/NAME`; it need not exist yet.
        token: Of the Hub; default, the one logged in with.
        manifest: `FEATURES_FILE` for gradients, `ROWS_FILE` for rows: one dataset holds one of them.

    Raises:
        ValueError: Not an id, no token or one that may not write, somebody else's namespace or dataset, a dataset that
            holds something else; the message says which, and what to do.
    """
    check_not_taken(repo_id, files_to_change(repo_id, token), manifest)


def _check_source(source: str | None) -> None:
    try:
        validate_repo_id(source.partition(":")[0] if source is not None else None)
    except HFValidationError as error:
        raise ValueError(
            f"source={source!r} is no Hub id ({error}). Leave it out for data that is not on the Hub: the path of a file "
            "here would help nobody who reads the card."
        ) from error


def _check_features(features: Dataset) -> Origin:
    """Where the gradients come from, made sure that they can be pushed."""
    from datasets import List, Value

    kinds = features.features
    if missing := [name for name in ("id", "gradient") if name not in kinds]:
        raise ValueError(
            f"these are no features: they have the columns {features.column_names}, but no {' and no '.join(missing)}. "
            "Push what `featurize` or `load_features` returned."
        )
    if kinds["id"] != Value("string"):
        raise ValueError(f"the column id holds {kinds['id']}; ids are strings. Cast it: `features.cast_column(...)`.")
    if not (isinstance(kinds["gradient"], List) and kinds["gradient"].feature == Value("float32")):
        raise ValueError(f"the column gradient holds {kinds['gradient']}, not lists of float32. Cast it first.")
    if len(features) == 0:
        raise ValueError("no features to push: the dataset is empty.")
    origin = origin_of(features)
    if origin.feature_id is None:
        raise ValueError(
            "these features do not say which featurizer made them, so nobody could compare them. `featurize` records it; "
            "after `map(featurizer)` do so with `Origin(featurizer.feature_id, featurizer.identity).stamp(features)` "
            "(hf_prism.origin)."
        )
    return origin


def _score(features: Dataset, origin: Origin) -> VendiScore:
    """The score of the card; on the way every id and every gradient is checked."""
    length = features.features["gradient"].length
    dim = length if length >= 0 else len(features[0]["gradient"] or [])
    covariance = Covariance(dim, feature_id=origin.feature_id).update(features, ids=features["id"])
    if covariance.n < len(features):
        raise ValueError(
            f"{len(features) - covariance.n} of {len(features)} rows have no gradient (the featurizer skipped them). Drop "
            'them: `features.filter(lambda row: row["gradient"] is not None)`.'
        )
    return covariance.score()


# The commit.


def _push(push: _Push, private: bool, token: str | None) -> str:
    return pushing.push(push.repo_id, lambda held: _attempt(push, held), private=private, token=token)


def _attempt(push: _Push, held: Held) -> str:
    """One try: our shards in place of the old ones, our JSON file, our part of the card."""
    check_not_taken(push.repo_id, held.files, push.manifest)
    card = merged_card(held.read(CARD), push.repo_id, block=push.block, tags=push.tags, num_rows=push.num_rows)
    changes: dict[str, Path | bytes | None] = {shard.file: path for path, shard in push.shards.items()}
    changes[push.manifest] = json.dumps(push.content, indent=2).encode() + b"\n"
    changes[CARD] = card.encode()
    changes |= dict.fromkeys(sorted(name for name in held.files - set(changes) if re.fullmatch(SHARD, name)))
    return held.change(changes, f"{push.num_rows:,} rows by hf_prism")


# What a card says.


def _features_block(repo_id: str, origin: Origin, score: VendiScore, source: str | None) -> str:
    interval = f", 95 % interval {score.interval[0]:,.1f} to {score.interval[1]:,.1f}" if score.interval else ""
    debiased = score.g_vendi_debiased
    facts = {
        "rows n, dimension d": f"{score.n:,}, {score.dim:,}",
        "G-Vendi": f"{score.g_vendi:,.1f}{interval}",
        "without the sketch's bias": f"{debiased:,.1f}" if debiased is not None else "not offered here",
        "saturation": f"{score.saturation:.0%} of min(n, d)",
        "feature_id": code(origin.feature_id),
        "source": f"[{source}](https://huggingface.co/datasets/{source.partition(':')[0]})" if source else "not named",
    }
    fields = {code(name): code(value) for name, value in origin.identity.items()}
    made_by = markdown_table("field", "value", fields) if fields else "The fields behind the feature_id are not known."
    notes = "".join(f"- {note}.\n" for note in score.notes)
    return f"""\
Gradients of a small language model (the proxy) on the rows of a dataset, one row each, sketched to d numbers and scaled to
unit length: the directions in which the rows would push a model. Made by hf_prism for G-Vendi, the effective number of
different directions ([arXiv:2505.20161](https://arxiv.org/abs/2505.20161)).

{markdown_table("", "", facts)}

{notes}- G-Vendi compares only with scores of the same n, d and feature_id; the interval is for another sample of the same size.

### What made them

{made_by}

### How to use them

{_usage(repo_id, source)}"""


def _usage(repo_id: str, source: str | None) -> str:
    return f"""\
```python
from hf_prism.hub import load_features

features = load_features({repo_id!r})  # id, gradient and more, memory-mapped; revision= pins a commit
```

`features["id"]` are the ids that `hf_prism.rows.row_ids(dataset).ids` gives for the dataset they were made from: a column
`id`, else a hash of the row's content. They join the two, in whatever order:

```python
from hf_prism.rows import load_rows, matching_rows

dataset = load_rows({source or "SOURCE"!r})
dataset = dataset.select(matching_rows(features["id"], dataset))  # row i belongs to features[i]
```

For other column names or templates, give `matching_rows` the `RowFormat` that the gradients were made with.

```python
import evaluate
import hf_prism
from hf_prism.origin import origin_of

feature_id = origin_of(features).feature_id
g_vendi = evaluate.load("g_vendi")
result = g_vendi.compute(gradients=features["gradient"], ids=features["id"], feature_id=feature_id)
```"""


# Reading back.


def _is_local(source: str | Path) -> bool:
    """Whether it names a folder: one that is there, or nothing that a Hub id can look like."""
    name = str(source)
    return (
        isinstance(source, Path)
        or Path(name).expanduser().is_dir()
        or name.startswith((".", "~"))
        or name.count("/") > 1
    )


def _load_pushed(repo_id: str, revision: str | None, token: str | None) -> Dataset:
    from datasets import Dataset

    commit, manifest = _manifest(repo_id, revision, token)
    paths = [_download(repo_id, shard["file"], commit, token) for shard in manifest["shards"]]
    made = {(pq.read_schema(path).metadata or {}).get(b"feature_id", b"none").decode() for path in paths}
    features = Dataset.from_parquet(paths)  # type: ignore[arg-type]  # through the cache of datasets, hence memory-mapped
    assert isinstance(features, Dataset)
    dim = getattr(features.features.get("gradient"), "length", None)
    found = {"rows": len(features), "dim": dim, "feature_id": " and ".join(sorted(made))}
    wrong = [
        f"{name} is {value!r}, not {manifest[name]!r}" for name, value in found.items() if value != manifest[name]
    ]
    if wrong:
        raise ValueError(
            f"the files of {repo_id} at {commit} do not belong together: by its {FEATURES_FILE}, {'; '.join(wrong)}. Was a "
            "file changed by hand? Load an earlier commit with revision=, or push the features again."
        )
    return Origin(manifest["feature_id"], manifest["identity"]).stamp(features)


def _download(repo_id: str, name: str, revision: str | None, token: str | None) -> str:
    return patiently(lambda: hf_hub_download(repo_id, name, repo_type="dataset", revision=revision, token=token))


def _manifest(repo_id: str, revision: str | None, token: str | None) -> tuple[str, dict[str, Any]]:
    """The commit, and what its features.json says."""
    try:
        path = _download(repo_id, FEATURES_FILE, revision, token)
    except HFValidationError as error:
        raise ValueError(f"{repo_id!r} is no run directory here and no Hub id: {error}") from error
    except RevisionNotFoundError as error:
        raise ValueError(f"the dataset {repo_id} has no revision {revision!r}.") from error
    except RepositoryNotFoundError as error:
        raise ValueError(
            f"{repo_id!r} is no run directory here, and the Hub shows you no dataset of that name. Check the spelling; if "
            f"it is private or gated, ask for access. {LOGIN}."
        ) from error
    except LocalEntryNotFoundError as error:
        raise ValueError(
            f"{repo_id!r} is no run directory here, was not loaded before, and the Hub could not be reached: {error}"
        ) from error
    except EntryNotFoundError as error:
        held = HfApi(token=token).list_repo_files(repo_id, repo_type="dataset", revision=revision)
        raise ValueError(_no_features(repo_id, f"it has no {FEATURES_FILE}", held)) from error
    manifest = _parse(Path(path))
    if manifest is None:
        held = HfApi(token=token).list_repo_files(repo_id, repo_type="dataset", revision=revision)
        raise ValueError(_no_features(repo_id, f"its {FEATURES_FILE} is something else", held))
    return Path(path).parent.name, manifest


def _parse(path: Path) -> dict[str, Any] | None:
    """The content of a features.json as `push_features` writes it, None if it is none."""
    try:
        content = json.loads(path.read_bytes())
        kinds = {"feature_id": str, "identity": dict, "rows": int, "dim": int, "shards": list}
        whole = all(isinstance(content[name], kind) for name, kind in kinds.items()) and content["shards"]
        return content if whole and all(isinstance(shard["file"], str) for shard in content["shards"]) else None
    except (ValueError, KeyError, TypeError):
        return None


def _no_features(repo_id: str, problem: str, held: Sequence[str]) -> str:
    names = [name for name in held if name != ".gitattributes"]
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    return (
        f"the dataset {repo_id} holds no features: {problem}. It holds: {shown or 'nothing'}. Features are a "
        f"{FEATURES_FILE} and data/train-*.parquet, as `push_features` writes them. To make them of this dataset's rows: "
        f"`hf-prism featurize {repo_id} --output DIR`."
    )
