"""``load_component``: which component a folder holds, with which settings."""

import pytest
import trained_folders
from safetensors.numpy import load_file, save_file

from medjax.components import RelationClassification, load_component


def test_a_model_without_a_head_is_refused(tmp_path):
    folder = trained_folders.write_encoder(tmp_path / "headless")
    tensors = load_file(folder / "model.safetensors")
    kept = {name: leaf for name, leaf in tensors.items() if not name.startswith("classifier")}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="headless is no trained component: found weights without"):
        load_component(folder)


def test_settings_of_training_are_used_in_prediction(tmp_path):
    encoder = trained_folders.write_encoder(tmp_path / "encoder")
    folder = trained_folders.write_tagger(
        tmp_path / "tagger", encoder, max_length=24, tag_subtokens=True, tagging_scheme="bilou"
    )
    tagger, _ = load_component(folder)
    assert (tagger.max_length, tagger.tag_subtokens, tagger.tagging_scheme) == (24, True, "bilou")
    assert load_component(folder, max_length=48).component.max_length == 48
    relations = trained_folders.write_relations(tmp_path / "rel", encoder, max_length=40, reach=7)
    component, _ = load_component(relations)
    assert isinstance(component, RelationClassification)
    assert (component.max_length, component.reach) == (40, 7)
    # A classifier that starts from one of relations is one of texts, though it has its fields.
    texts = trained_folders.write_classifier(tmp_path / "texts", relations)
    assert not isinstance(load_component(texts).component, RelationClassification)
