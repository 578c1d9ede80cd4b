"""What ready components refuse: labels, folders and weights that would compute something else."""

import json
import re

import jax
import numpy as np
import pytest
import trained_folders

from medjax.components import (
    RelationClassification,
    TextClassification,
    TokenClassification,
    load_component,
)
from medjax.text import Document, Entity

LABELS = ["cardiology", "neurology", "surgery"]
MULTI = "multi_label_classification"
TEXT = "Aspirin relieved her headache."
NOTE = Document(TEXT, (Entity("Drug", 0, 7), Entity("Sign", 21, 29)), "note")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return trained_folders.write_encoder(tmp_path_factory.mktemp("refusals") / "encoder")


def test_a_kind_of_problem_that_medjax_has_not_is_refused(encoder, tmp_path):
    plain = TextClassification.from_pretrained(encoder, LABELS)
    plain.save(tmp_path, plain.init(jax.random.key(0)))
    file = tmp_path / "config.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"problem_type": "regression"}))
    with pytest.raises(ValueError, match=r"json: problem_type is 'regression'; expected 'single_l"):
        TextClassification.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"problem_type is 'regression'"):
        load_component(tmp_path)
    asked = TextClassification.from_pretrained(tmp_path, problem_type=MULTI)
    assert asked.is_multi_label
    file.write_text(json.dumps(content | {"problem_type": None}))
    assert not TextClassification.from_pretrained(tmp_path).is_multi_label


@pytest.mark.parametrize("labels", [set(LABELS), frozenset(LABELS)])
def test_classes_without_an_order_are_refused(encoder, labels):
    for kind in (TextClassification, TokenClassification):
        with pytest.raises(
            ValueError, match=r"labels is the set .* has no order; expected a list, so that"
        ):
            kind.from_pretrained(encoder, labels)
    with pytest.raises(ValueError, match="has no order; expected a list"):
        RelationClassification.from_pretrained(encoder, labels, [("Drug", "Sign")])


def test_classes_that_look_the_same_are_told(encoder, caplog):
    make = (
        TextClassification.from_pretrained,
        TokenClassification.from_pretrained,
        lambda *args: RelationClassification.from_pretrained(*args, [("Drug", "Sign")]),
    )
    for from_pretrained in make:
        caplog.clear()
        from_pretrained(encoder, ["décès", "deces"])
        assert "encoded in two ways" not in caplog.text
        from_pretrained(encoder, ["heart failure", "heart\xa0failure", "heart"])
        assert r"the labels 'heart failure' and 'heart\xa0failure' both read" in caplog.text
        caplog.clear()
        from_pretrained(encoder, ["d\xe9c", "de\u0301c", "x"])
        assert r"the labels 'd\xe9c' and 'de\u0301c' both read" in caplog.text


@pytest.mark.parametrize(
    ("write", "item"),
    [
        (trained_folders.write_tagger, TEXT),
        (trained_folders.write_classifier, TEXT),
        (trained_folders.write_relations, NOTE),
    ],
)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_predict_nothing(write, item, value, encoder, tmp_path):
    component, variables = load_component(write(tmp_path / "model", encoder))
    predict = component.predictor(variables)
    assert len(predict([item])) == 1
    broken = jax.tree.map(np.array, variables)
    broken["params"]["classifier"]["bias"][1] = value
    with pytest.raises(ValueError, match=r"computes (nan|inf) for a text; expected finite"):
        component.predict(broken, [item])


def test_relations_of_entities_outside_of_the_text_are_not_predicted(encoder, tmp_path):
    component, variables = load_component(
        trained_folders.write_relations(tmp_path / "model", encoder)
    )
    drug, sign = NOTE.entities
    outside = NOTE._replace(entities=(drug, sign._replace(end=999)))
    with pytest.raises(ValueError, match=r"'note' has Sign at 21 to 999; expected 0 <= start"):
        component.predict(variables, [NOTE, outside])


@pytest.mark.parametrize(
    ("write", "trained", "asked", "told"),
    [
        (
            trained_folders.write_classifier,
            {"problem_type": MULTI},
            {"problem_type": "single_label_classification"},
            "problem_type is 'multi_label_classification'; expected 'single_label_classification'",
        ),
        (
            trained_folders.write_classifier,
            {"pooling": "max"},
            {"pooling": "mean"},
            "window_pooling is 'max'; expected 'mean'",
        ),
        (
            trained_folders.write_tagger,
            {"tag_subtokens": True},
            {"tag_subtokens": False},
            "tag_subtokens is True; expected False",
        ),
        (trained_folders.write_relations, {}, {"context": 7}, "context is 200; expected 7"),
        (
            trained_folders.write_relations,
            {},
            {"kinds": [("Sign", "Drug")]},
            "kinds is [['Drug', 'Sign']]; expected (('Sign', 'Drug'),)",
        ),
    ],
)
def test_weights_of_a_component_with_other_settings_are_not_loaded(
    write, trained, asked, told, encoder, tmp_path
):
    folder = write(tmp_path / "model", encoder, **trained)
    component, variables = load_component(folder)
    other = type(component).from_pretrained(folder, **asked)
    with pytest.raises(ValueError, match=re.escape(f"config.json: {told}, as in this component")):
        other.load(folder)
    # A folder that does not say is read as before.
    config = json.loads((folder / "config.json").read_text())
    for name in ("problem_type", "window_pooling", "tag_subtokens", "relation_candidates"):
        config.pop(name, None)
    (folder / "config.json").write_text(json.dumps(config))
    jax.tree.map(np.testing.assert_array_equal, other.load(folder), variables)


def test_what_decides_after_the_model_has_read_may_differ(encoder, tmp_path):
    folder = trained_folders.write_relations(tmp_path / "relations", encoder)
    other = RelationClassification.from_pretrained(folder, reach=7, max_length=32)
    assert other.load(folder)
    both = [("Sign", "Drug"), ("Drug", "Sign")]
    made = RelationClassification.from_pretrained(encoder, ["Relieves"], both)
    folder = trained_folders.save(made, tmp_path / "both")
    assert RelationClassification.from_pretrained(folder, kinds=both[::-1]).load(folder)
    folder = trained_folders.write_classifier(tmp_path / "several", encoder, problem_type=MULTI)
    component, _ = load_component(folder)
    tuned = component.with_thresholds(dict.fromkeys(component.labels, 0.25))
    assert tuned.load(folder)
