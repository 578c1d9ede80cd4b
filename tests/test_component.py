"""What help() and repr() show of TrainableComponent and ExpandedData."""

import pydoc

import pytest
from tiny import mlp

import medjax
from medjax.text import Document


@pytest.fixture(scope="module")
def help_text():
    return pydoc.plain(pydoc.render_doc(medjax.TrainableComponent))


@pytest.mark.parametrize(
    "signature",
    [
        "init(key) -> variables",
        "preprocess(item) -> example",
        "collate(examples) -> batch",
        "forward(variables, input_batch, key, *, return_loss, eval_mode) -> (outputs, loss,",
        "configure_optimizer(learning_rate) -> optax.GradientTransformation",
        "save(path, variables) -> None",
        "load(path) -> variables",
        "expand(data, *, training) -> ExpandedData",
    ],
)
def test_help_shows_the_signature_of_every_slot(help_text, signature):
    assert signature in help_text


def test_help_names_the_protocols_of_the_slots(help_text):
    assert "ForwardRef" not in help_text
    for protocol in ("Init", "Forward", "ConfigureOptimizer"):
        assert f"medjax.component.{protocol}" in help_text


def test_repr_of_a_component_names_its_functions():
    shown = repr(mlp())
    assert shown.startswith("TrainableComponent(init=")
    assert "expand=None" in shown
    assert len(shown) < 500


def test_repr_of_expanded_data_shows_sizes_instead_of_items():
    document = Document("fever " * 1000)
    data = medjax.ExpandedData([document] * 5, [0, 0, 1, 1, 1], ["a note"])
    assert repr(data) == "ExpandedData(5 items from 2 of the dataset, 1 notes)"
