"""Variables of a Lora given to the component itself, and targets that other models have not."""

import re

import jax
import numpy as np
import pytest
from tiny import config

import medjax
from medjax.components import Lora, TextClassification
from medjax.export import export_component
from medjax.text import LabelledText

TEXTS = [LabelledText("Chest pain.", ("yes",)), LabelledText("No fever.", ("no",))]
TOLD = r"those of a Lora, with frozen weights .*; expected .*: give lora\.merged\(variables\)"


@pytest.fixture(scope="module")
def classifier(tiny_folder):
    return TextClassification.from_pretrained(tiny_folder, ["no", "yes"], max_length=32)


@pytest.fixture(scope="module")
def lora(classifier):
    return Lora(classifier.component, rank=2)


@pytest.fixture(scope="module")
def variables(lora):
    return lora.init(jax.random.key(0))


USES = {
    "predict": lambda c, v, _: c.predict(v, ["Chest pain."]),
    "evaluate": lambda c, v, folder: medjax.evaluate(c.component, v, config(folder), TEXTS),
    "export": lambda c, v, folder: export_component(c, v, folder / "exported"),
    "save": lambda c, v, folder: c.save(folder, v),
}


@pytest.mark.parametrize("use", USES)
def test_variables_that_are_not_merged_are_refused(use, classifier, variables, tmp_path):
    with pytest.raises(ValueError, match=TOLD):
        USES[use](classifier, variables, tmp_path)
    assert not [*tmp_path.iterdir()]


def test_merged_variables_are_taken(classifier, lora, variables, tmp_path):
    options = medjax.Options(length_ladder=(16,))
    settings = config(tmp_path)
    own = medjax.evaluate(classifier.component, lora.merged(variables), settings, TEXTS,
                          options=options)  # fmt: skip
    assert own == medjax.evaluate(lora.component, variables, settings, TEXTS, options=options)


def kernels(*modules):
    params = {}
    for module in modules:
        *parts, last = module.split("/")
        inner = params
        for part in parts:
            inner = inner.setdefault(part, {})
        inner[last] = {"kernel": np.ones((2, 2), np.float32)}
    return lambda key: {"params": params}


@pytest.mark.parametrize(
    ("modules", "told"),
    [
        (
            ["layer_0/attention/query_key_value", "layer_0/attention/output", "layer_0/output"],
            "expected ends of ['output', 'query_key_value']: those of attention are "
            "['attention/output', 'attention/query_key_value']; this model has one matrix for "
            "all, so give targets=('attention/query_key_value',)",
        ),
        (
            ["layer_0/attention/q", "layer_0/output"],
            "expected ends of ['output', 'q']: those of attention are ['attention/q']",
        ),
        (["first", "second"], "expected ends of ['first', 'second']"),
    ],
)
def test_a_wrong_target_is_told_what_to_take(modules, told, classifier):
    base = classifier.component._replace(init=kernels(*modules))
    with pytest.raises(ValueError, match=re.escape(told) + "$"):
        Lora(base).init(jax.random.key(0))
