"""Features say what made them, and two sets that do not compare say why."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, concatenate_datasets, load_from_disk
from helpers import save_tiny_model

from hf_prism import GradientFeaturizer, featurize, load_features
from hf_prism.origin import Origin, origin_of, require_same_origin
from hf_prism.rows import load_rows


ONE = Origin("aaaa", {"dim": 64, "seed": 0, "proxy.model": "x"})
OTHER = Origin("bbbb", {"dim": 128, "seed": 0, "proxy.model": "x"})


def test_what_featurize_writes_is_the_featurizers_own_identity(tmp_path):
    save_tiny_model(tmp_path / "proxy")
    rows = Dataset.from_list([{"prompt": f"{i} clips?", "completion": f"{i}"} for i in range(6)])
    featurizer = GradientFeaturizer(str(tmp_path / "proxy"), dim=64, prompt_template="Q: {prompt}")
    features = featurize(rows, featurizer, tmp_path / "run", progress=False)
    for loaded in (features, load_features(tmp_path / "run")):
        assert origin_of(loaded) == featurizer.origin
    assert featurizer.origin.feature_id == GradientFeaturizer(str(tmp_path / "proxy"), dim=64).feature_id
    assert featurizer.origin.identity["prompt_template"] == "Q: {prompt}"


def test_a_stamped_dataset_is_the_same_dataset_with_an_origin(tmp_path):
    Dataset.from_dict({"id": ["a", "b"], "gradient": [[1.0, 0.0], [0.0, 1.0]]}).save_to_disk(tmp_path / "d")
    plain = Dataset.load_from_disk(tmp_path / "d")
    stamped = ONE.stamp(plain)
    assert origin_of(stamped) == ONE and origin_of(plain) == Origin()
    assert stamped.to_list() == plain.to_list() and stamped.features == plain.features
    assert stamped.cache_files == plain.cache_files  # still memory-mapped


def test_the_origin_stays_through_what_people_do_to_datasets(tmp_path):
    plain = Dataset.from_dict({"id": ["a", "b"], "gradient": [[1.0, 0.0], [0.0, 1.0]]})
    features = ONE.stamp(plain)
    features.save_to_disk(tmp_path / "d")
    later = {
        "select": features.select([1]),
        "shuffle": features.shuffle(seed=0),
        "map": features.map(lambda row: {"score": 1.0}),
        "with_format": features.with_format("numpy"),
        "rename": features.rename_column("id", "name"),
        "disk": load_from_disk(str(tmp_path / "d")),
        "concatenate": concatenate_datasets([features, features.select([0])]),
        "twice": ONE.stamp(OTHER.stamp(features)),
    }
    assert {name: origin_of(dataset) for name, dataset in later.items()} == dict.fromkeys(later, ONE)
    with pytest.raises(ValueError, match="dim: 64 and 128"):
        origin_of(concatenate_datasets([features, OTHER.stamp(plain)]))


def test_a_selection_keeps_its_order_and_its_origin():
    features = Dataset.from_dict({"id": ["a", "b", "c"]}).select([2, 0])
    assert ONE.stamp(features)["id"][:] == ["c", "a"]


def test_parquet_and_arrow_files_say_their_origin(tmp_path):
    table = pa.table({"id": ["a"]}).replace_schema_metadata(ONE.metadata())
    pq.write_table(table, tmp_path / "rows.parquet")
    with pa.ipc.new_stream(str(tmp_path / "rows.arrow"), table.schema) as stream:
        stream.write_table(table)
    assert origin_of(load_rows(tmp_path / "rows.parquet")) == origin_of(load_rows(tmp_path / "rows.arrow")) == ONE


def test_vectors_of_no_dataset_have_no_known_origin():
    assert origin_of([[1.0]]) == Origin() and Origin().metadata() == {}


def test_unknown_origins_go_with_any_and_different_ones_name_the_fields():
    assert require_same_origin({"a": Origin(), "b": ONE, "c": ONE}) == ONE
    assert require_same_origin({"a": Origin()}) == Origin()
    with pytest.raises(
        ValueError, match="'a' and 'c' do not compare: feature_id aaaa and bbbb.*dim: 64 and 128"
    ) as told:
        require_same_origin({"a": ONE, "b": Origin(), "c": OTHER})
    assert "seed" not in str(told.value)
    with pytest.raises(ValueError, match="structure"):
        require_same_origin({"a": ONE, "b": Origin("cccc", ONE.identity)})
    with pytest.raises(ValueError, match="not known"):
        require_same_origin({"a": ONE, "b": Origin("cccc")})
