"""What made a set of gradients: the identity of the featurizer, carried in files and in datasets.

Vectors compare only under one feature_id (DESIGN 2). The id is a digest, so the fields it was made from travel with it:
where two ids differ, an error can say in what. In Arrow and Parquet files it is in the schema's metadata. `datasets` drops
that when it opens a file, but keeps the description of a dataset through `select`, `map`, `save_to_disk` and
`concatenate_datasets`: in memory the origin is a line of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from datasets import Dataset

MARK = "hf_prism origin: "
TEMPLATES = ("prompt_template", "completion_template")


@dataclass(frozen=True)
class Origin:
    """The featurizer that made some gradients.

    Attributes:
        feature_id: Its digest; None where the gradients do not say.
        identity: The fields of that digest that are known without the model, and the templates that made a row's text of
            its columns, on which it does not depend; empty where the gradients do not say.
    """

    feature_id: str | None = None
    identity: Mapping[str, Any] = field(default_factory=dict)

    def metadata(self) -> dict[bytes, bytes]:
        """The entries of an Arrow schema that say it; none where it is unknown."""
        if self.feature_id is None:
            return {}
        return {b"feature_id": self.feature_id.encode(), b"identity": json.dumps(dict(self.identity)).encode()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[bytes, bytes] | None) -> Origin:
        """What the metadata of an Arrow schema says."""
        if not metadata or b"feature_id" not in metadata:
            return cls()
        return cls(metadata[b"feature_id"].decode(), json.loads(metadata.get(b"identity", b"{}")))

    def stamp(self, features: Dataset) -> Dataset:
        """The same dataset, memory-mapped as before, that says its origin."""
        info = features.info.copy()
        other = [line for line in (info.description or "").splitlines() if not line.startswith(MARK)]
        fields = {"feature_id": self.feature_id, "identity": dict(self.identity)}
        info.description = "\n".join([*other, *([MARK + json.dumps(fields)] if self.feature_id else [])])
        return type(features)(
            features.data,
            info=info,
            split=features.split,
            indices_table=features._indices,
            fingerprint=features._fingerprint,
        )


def origin_of(vectors: Any) -> Origin:
    """The origin of features that are a `datasets.Dataset`; unknown for any other container.

    `featurize` and `load_features` write it, and it stays through `select`, `map` and the like. `Dataset.map(featurizer)`
    cannot write it.

    Raises:
        ValueError: the dataset was put together from gradients of different origin.

    Example:
        >>> origin_of([[1.0, 0.0]]).feature_id is None
        True
    """
    description = getattr(getattr(vectors, "info", None), "description", None) or ""
    lines = sorted({line for line in description.splitlines() if line.startswith(MARK)})
    origins = {f"part {i}": Origin(**json.loads(line.removeprefix(MARK))) for i, line in enumerate(lines)}
    return require_same_origin(origins)


def require_same_origin(origins: Mapping[str, Origin]) -> Origin:
    """The one origin of several sets of gradients; one that does not say is taken at its word.

    Args:
        origins: By the name under which an error speaks of the set.

    Raises:
        ValueError: two have different feature_ids; the message names the fields that differ.
    """
    known = {name: origin for name, origin in origins.items() if origin.feature_id is not None}
    if not known:
        return Origin()
    first, one = next(iter(known.items()))
    for name, other in known.items():
        if other.feature_id != one.feature_id:
            raise ValueError(
                f"the gradients of {first!r} and {name!r} do not compare: feature_id {one.feature_id} and "
                f"{other.feature_id}. {_difference(one.identity, other.identity)} Featurize both alike."
            )
    return one


def _difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    if not one or not other:
        return "What differs is not known: one of them does not carry its fields."
    names = [name for name in {**one, **other} if name not in TEMPLATES and one.get(name) != other.get(name)]
    if not names:
        return "What differs is the model's own structure."
    return "What differs: " + "; ".join(f"{name}: {one.get(name)!r} and {other.get(name)!r}" for name in names) + "."
