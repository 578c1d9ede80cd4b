"""What weights mean is stored with them: a run resumes no checkpoint of other classes."""

import dataclasses

import pytest
from resumed_runs import run
from tiny import config, mlp

import medjax
from medjax.components import (
    ClassificationLoss,
    Lora,
    RelationClassification,
    TextClassification,
    TokenClassification,
)
from medjax.loop.fold_identity import settings_of_folds
from medjax.metrics import Accuracy
from medjax.schedules import constant
from medjax.text import Document, Entity, LabelledText, Relation

TEXTS = [LabelledText("Chest pain.", ("yes",)), LabelledText("No chest pain.", ("no",))] * 4


def named(*names):
    return mlp()._replace(identity={"classes": list(names)})


def test_classes_in_another_order_are_refused(tmp_path):
    run(tmp_path, epochs=1, component=named("a", "b", "c"))
    told = r"saved with classes \['a', 'b', 'c'\], but now it is \['b', 'a', 'c'\].*resume=None"
    for epochs in (1, 2):  # nothing is left to do in the first case
        with pytest.raises(medjax.MismatchError, match=told):
            run(tmp_path, epochs=epochs, component=named("b", "a", "c"), resume="auto")
    assert len(run(tmp_path, epochs=2, component=named("a", "b", "c"), resume="auto").history) == 2


@pytest.mark.parametrize("names", [["a", "b", "c"], None])
def test_a_checkpoint_that_does_not_say_goes_on(tmp_path, names):
    run(tmp_path, epochs=1, component=mlp())
    component = named(*names) if names else mlp()
    assert len(run(tmp_path, epochs=2, component=component, resume="auto").history) == 2


def classifier(folder, labels, **options):
    options = {"max_length": 32, **options}
    return TextClassification.from_pretrained(folder, labels, **options).component


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        pytest.param(
            {"labels": ["no", "yes"]},
            {"labels": ["yes", "no"]},
            "classes",
            marks=pytest.mark.slow,
        ),
        (
            {"labels": ["no", "yes"]},
            {"labels": ["no", "yes"], "problem_type": "multi_label_classification"},
            "problem_type",
        ),
        pytest.param(
            {"labels": ["no", "yes"]},
            {"labels": ["no", "yes"], "pooling": "max"},
            "window_pooling",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"labels": ["no", "yes"], "alpha": 4},
            {"labels": ["yes", "no"], "alpha": 4},
            "classes",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"labels": ["no", "yes"], "alpha": 4},
            {"labels": ["no", "yes"], "alpha": 8},
            "alpha",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_ready_components_say_what_their_weights_mean(tiny_folder, tmp_path, first, second, told):
    def train(settings, epochs, resume=None):
        settings = dict(settings)
        alpha = settings.pop("alpha", None)
        component = classifier(tiny_folder, **settings)
        if alpha is not None:
            component = Lora(component, rank=2, alpha=alpha).component
        return medjax.train(
            component,
            config(tmp_path, nb_training_epochs=epochs),
            TEXTS,
            options=medjax.Options(length_ladder=(32,)),
            callback=[],
            resume=resume,
        )

    train(first, 1)
    with pytest.raises(medjax.MismatchError, match=f"saved with {told} "):
        train(second, 2, resume="auto")
    assert len(train(first, 2, resume="auto").history) == 2


RELATED = [
    Document(
        "Aspirin relieved her headache, not the cough.",
        (Entity("Drug", 0, 7), Entity("Sign", 21, 29), Entity("Sign", 39, 44)),
        "note",
        (Relation("Relieves", 0, 1),),
    )
] * 4

KINDS = [("Drug", "Sign")]


def relations(folder, kinds=KINDS, **settings):
    made = RelationClassification.from_pretrained(folder, ["Relieves"], kinds, max_length=32)
    return dataclasses.replace(made, **settings).component


def test_what_reading_relations_depends_on_is_part_of_the_identity(tiny_folder):
    own = relations(tiny_folder)
    assert own.identity == {
        "classes": ["no relation", "Relieves"],
        "problem_type": "single_label_classification",
        "kinds": [["Drug", "Sign"]],
        "reach": 300,
        "context": 200,
        "marks": own.load.__self__.marks,
    }
    assert own.reading == {"max_length": 32}
    one, other = [("Drug", "Sign"), ("Drug", "Drug")], [("Drug", "Drug"), ("Drug", "Sign")]
    assert relations(tiny_folder, one).identity == relations(tiny_folder, other).identity


def test_marks_and_candidates_of_another_run_are_refused(tiny_folder, tmp_path):
    component = mlp()._replace(identity=relations(tiny_folder).identity)
    run(tmp_path, epochs=1, component=component)
    for name, value in {"context": 20, "reach": 5, "marks": "+=|~"}.items():
        other = mlp()._replace(identity=relations(tiny_folder, **{name: value}).identity)
        with pytest.raises(medjax.MismatchError, match=f"saved with {name} .*, but now it is"):
            run(tmp_path, epochs=2, component=other, resume="auto")
    older = mlp()._replace(identity={"classes": component.identity["classes"]})
    run(tmp_path / "older", epochs=1, component=older)
    whole = run(tmp_path / "older", epochs=2, component=component, resume="auto")
    assert len(whole.history) == 2


def text(folder, **settings):
    return classifier(folder, ["no", "yes"], **settings)


def tags(folder, **settings):
    return TokenClassification.from_pretrained(folder, **settings).component


def lora(folder, **settings):
    return Lora(text(folder), rank=2, **settings).component


WEIGHTED = ClassificationLoss(class_weights={"no": 2.0, "yes": 1.0})


@pytest.mark.parametrize(
    ("make", "data", "settings"),
    [
        (text, TEXTS, {"loss": WEIGHTED}),
        (text, TEXTS, {"max_length": 16}),
        (text, TEXTS, {"pooling": "max"}),
        (lora, TEXTS, {"alpha": 3.0}),
        (tags, RELATED, {"tag_subtokens": True}),
        (tags, RELATED, {"max_length": 16}),
        (relations, RELATED, {"reach": 25}),
        (relations, RELATED, {"context": 10}),
        (relations, RELATED, {"negatives": 0.5}),
        (relations, RELATED, {"marks": "+=|~"}),
        (relations, RELATED, {"kinds": [("Sign", "Drug"), *KINDS]}),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_folds_depend_on_the_settings_of_ready_components(make, data, settings, tiny_folder):
    def recorded(component):
        return settings_of_folds(
            component, config("out"), medjax.Options(), data, Accuracy(), constant()
        )

    own, other = recorded(make(tiny_folder)), recorded(make(tiny_folder, **settings))
    assert own == recorded(make(tiny_folder))
    assert {name for name in own if own[name] != other[name]} & {"component", "rows"}
