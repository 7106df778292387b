"""Features say what made them, and two sets that do not compare say why."""

import pytest
from datasets import Dataset
from helpers import save_tiny_model

from hf_prism import GradientFeaturizer, featurize, load_features
from hf_prism.origin import Origin, origin_of, require_same_origin


ONE = Origin("aaaa", {"dim": 64, "seed": 0, "proxy.model": "x"})
OTHER = Origin("bbbb", {"dim": 128, "seed": 0, "proxy.model": "x"})


def test_what_featurize_writes_is_the_featurizers_own_identity(tmp_path):
    save_tiny_model(tmp_path / "proxy")
    rows = Dataset.from_list([{"prompt": f"{i} clips?", "completion": f"{i}"} for i in range(6)])
    featurizer = GradientFeaturizer(str(tmp_path / "proxy"), dim=64)
    features = featurize(rows, featurizer, tmp_path / "run", progress=False)
    for loaded in (features, load_features(tmp_path / "run")):
        assert origin_of(loaded) == Origin(featurizer.feature_id, featurizer.identity)


def test_a_stamped_dataset_is_the_same_dataset_with_an_origin(tmp_path):
    Dataset.from_dict({"id": ["a", "b"], "gradient": [[1.0, 0.0], [0.0, 1.0]]}).save_to_disk(tmp_path / "d")
    plain = Dataset.load_from_disk(tmp_path / "d")
    stamped = ONE.stamp(plain)
    assert origin_of(stamped) == ONE and origin_of(plain) == Origin()
    assert stamped.to_list() == plain.to_list() and stamped.features == plain.features
    assert stamped.cache_files == plain.cache_files  # still memory-mapped


def test_vectors_of_no_dataset_have_no_known_origin():
    assert origin_of([[1.0]]) == Origin() and Origin().metadata() == {}


def test_unknown_origins_go_with_any_and_different_ones_name_the_fields():
    assert require_same_origin({"a": Origin(), "b": ONE, "c": ONE}) == ONE
    assert require_same_origin({"a": Origin()}) == Origin()
    with pytest.raises(ValueError, match="'a' and 'c' do not compare: feature_id aaaa and bbbb.*dim: 64 and 128") as told:
        require_same_origin({"a": ONE, "b": Origin(), "c": OTHER})
    assert "seed" not in str(told.value)
    with pytest.raises(ValueError, match="structure"):
        require_same_origin({"a": ONE, "b": Origin("cccc", ONE.identity)})
    with pytest.raises(ValueError, match="not known"):
        require_same_origin({"a": ONE, "b": Origin("cccc")})
