"""What weights mean is stored with them: a run resumes no checkpoint of other classes."""

import pytest
from resumed_runs import run
from tiny import config, mlp

import medjax
from medjax.components import Lora, TextClassification
from medjax.text import LabelledText

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
