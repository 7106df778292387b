"""What made a set of gradients: the identity of the featurizer, carried in the Arrow schema of its features.

Vectors compare only under one feature_id (DESIGN 2). The id is a digest, so the fields it was made from travel with it:
where two ids differ, an error can say in what.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Origin:
    """The featurizer that made some gradients.

    Attributes:
        feature_id: Its digest; None where the gradients do not say.
        identity: The fields of that digest that are known without the model; empty where the gradients do not say.
    """

    feature_id: str | None = None
    identity: Mapping[str, Any] = field(default_factory=dict)

    def metadata(self) -> dict[bytes, bytes]:
        """The entries of an Arrow schema that say it."""
        if self.feature_id is None:
            return {}
        return {b"feature_id": self.feature_id.encode(), b"identity": json.dumps(dict(self.identity)).encode()}

    def stamp(self, features: Dataset) -> Dataset:
        """The same dataset, memory-mapped as before, with the origin in its schema."""
        metadata = {**(features.data.schema.metadata or {}), **self.metadata()}
        stamped = features.data.replace_schema_metadata(metadata)
        return type(features)(stamped, info=features.info, split=features.split, fingerprint=features._fingerprint)


def origin_of(vectors: Any) -> Origin:
    """The origin of features, from the schema of a `datasets.Dataset`; unknown for any other container.

    `featurize` and `load_features` write it. `Dataset.map(featurizer)` cannot, and `Dataset.select` drops it.

    Example:
        >>> origin_of([[1.0, 0.0]]).feature_id is None
        True
    """
    schema = getattr(getattr(vectors, "data", None), "schema", None)
    metadata = getattr(schema, "metadata", None) or {}
    if b"feature_id" not in metadata:
        return Origin()
    return Origin(metadata[b"feature_id"].decode(), json.loads(metadata.get(b"identity", b"{}")))


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
    names = [name for name in {**one, **other} if one.get(name) != other.get(name)]
    if not names:
        return "What differs is the model's own structure."
    return "What differs: " + "; ".join(f"{name}: {one.get(name)!r} and {other.get(name)!r}" for name in names) + "."
