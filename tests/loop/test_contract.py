"""Mistakes are reported before training starts, with messages of medjax's own."""

import re

import jax
import numpy as np
import optax
import pytest
import torch
from scored_points import DATA, EVAL, Scores, train
from tiny import (
    FEATURES,
    collate_points,
    collate_sentences,
    config,
    mlp,
    sentences,
    tagger,
)

import medjax
from medjax import BatchData, Mean, Options
from medjax.loop.contract import warn_of_versions


def wrong_forward(change):
    """Return a component whose forward pass returns something else."""
    component = mlp()

    def forward(*args, **kwargs):
        return change(*component.forward(*args, **kwargs))

    return component._replace(forward=forward)


def with_tensor(batch):
    return BatchData({**batch, "x": torch.from_numpy(batch["x"])})


@pytest.mark.parametrize(
    ("component", "message"),
    [
        (object(), "component is <object object at"),
        (mlp()._replace(configure_optimizer=optax.adam(1e-3)), "configure_optimizer is an optimiz"),
        (mlp()._replace(save=None), "component.save is None of type NoneType; expected a function"),
        (mlp()._replace(identity=["a"]), "component.identity is ['a'] of type list; expected None"),
        (mlp()._replace(reading={"a": {1}}), "component.reading is {'a': {1}} of type dict; exp"),
        (mlp()._replace(identity={"a": {1}}), "component.identity is {'a': {1}} of type dict; exp"),
        (mlp(preprocess=lambda item: 3), "component.preprocess returned a int; expected a dict"),
        (
            mlp(collate=lambda examples: dict(collate_points(examples))),
            "component.collate returned a dict; expected a medjax.BatchData",
        ),
        (
            wrong_forward(lambda outputs, loss, _: (outputs, loss)),
            "forward returned 2 values; expected three",
        ),
        (
            wrong_forward(lambda outputs, loss, _: outputs),
            "returned BatchData; expected three",
        ),
        (
            wrong_forward(lambda outputs, loss, c: (outputs, loss.compute(), c)),
            "expected a medjax.Mean as second value, the loss: Mean.of(losses, weights)",
        ),
        (
            wrong_forward(lambda outputs, loss, c: (dict(outputs), loss, c)),
            "forward returned a dict; expected",
        ),
        (
            wrong_forward(lambda outputs, loss, _: (outputs, loss, None)),
            "a dict of collections as third",
        ),
        (
            wrong_forward(lambda outputs, loss, _: (outputs, loss, {"intermediates": {"h": 0.0}})),
            "returned the collection 'intermediates', which component.init did not return; it "
            "returned [] besides params",
        ),
        (
            wrong_forward(lambda outputs, loss, c: (outputs, Mean(outputs["logits"], 1.0), c)),
            "returned a loss with arrays of shapes {'total': (1, 3), 'weight': ()}; expected sums",
        ),
        (
            mlp(collate=lambda examples: with_tensor(collate_points(examples))),
            "component.collate returned the column 'x' as a torch.Tensor; expected a numpy array",
        ),
    ],
)
def test_slots_of_a_component(component, message, out):
    with pytest.raises(ValueError, match=re.escape(message)):
        train(out, component)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"metrics_computer": Scores},
            "metrics_computer is the class Scores; expected",
        ),
        ({"metrics_computer": object()}, "expected an object with the method prepare_batch"),
        ({"options": {"max_steps": 1}}, "options is {'max_steps': 1} of type dict; expected a med"),
        (
            {"callback": medjax.EarlyStopping},
            "callback is the class EarlyStopping; expected",
        ),
    ],
)
def test_other_arguments(arguments, message, out):
    with pytest.raises(ValueError, match=re.escape(message)):
        train(out, **arguments)


def test_a_dict_is_no_configuration(out):
    message = "config is {'output_dir': 'out'} of type dict; expected a medjax.TrainerConfig"
    with pytest.raises(ValueError, match=re.escape(message)):
        medjax.train(mlp(), {"output_dir": "out"}, DATA)
    with pytest.raises(ValueError, match="metrics_computer is the class"):
        medjax.evaluate(mlp(), {}, config(out), DATA, metrics_computer=Scores)


def test_a_tagger_is_asked_for_its_component(out, tmp_path):
    class Holder:
        component = mlp()

    with pytest.raises(ValueError, match=r"functions; give its attribute \.component"):
        train(out, Holder())


def test_features_as_long_as_labels_that_are_not_padded_with_them(out):
    def collate(examples):
        batch = collate_sentences(examples)
        del batch["length"]
        batch["features"] = np.zeros((*batch["labels"].shape, 20), np.float32)
        del batch["input_ids"]
        return batch

    plain = tagger()

    def forward(variables, batch, key, /, *, return_loss, eval_mode):
        ids = batch["features"].argmax(-1)
        inputs = BatchData({**batch, "input_ids": ids})
        return plain.forward(variables, inputs, key, return_loss=return_loss, eval_mode=eval_mode)

    component = plain._replace(collate=collate, forward=forward)
    message = (
        r"the column 'labels' is padded from length \d+ to \d+, and 'features' of the same length "
        r"is not: give Options\(padding={'features': 0}\) to pad it too, or {'labels': None}"
    )
    with pytest.raises(ValueError, match=message):
        train(out, component, data=sentences(8))
    train(out.parent / "padded", component, data=sentences(8), eval_data=sentences(4),
          options=Options(padding={"features": 0}))  # fmt: skip


def test_the_note_of_a_failing_forward_names_the_columns(out):
    def forward(*_, **__):
        message = "my own mistake"
        raise TypeError(message)

    with pytest.raises(TypeError, match="my own mistake") as caught:
        train(out, mlp()._replace(forward=forward))
    assert any(f"'x': (1, {FEATURES})" in note for note in caught.value.__notes__)


def test_a_release_that_computes_wrongly_is_named(caplog):
    warn_of_versions("0.10.1")
    assert not caplog.records
    warn_of_versions("0.10.2")
    assert "jaxlib 0.10.2 is installed: it gives wrong results on CPUs" in caplog.text


def column_labels(examples):
    batch = collate_points(examples)
    return BatchData({**batch, "labels": batch["labels"][:, None]})


def flattened():
    """Return a component with one label for each row, in a column of its own axis."""
    component = mlp(collate=column_labels)

    def forward(variables, batch, key, **flags):
        batch = BatchData({**batch, "labels": batch["labels"][:, 0]})
        return component.forward(variables, batch, key, **flags)

    return component._replace(forward=forward)


def test_labels_of_rows_that_would_be_padded_are_refused(out):
    told = r"the column 'labels' with shape \(1, 1\), which is padded with -100 to length \d+, as"
    with pytest.raises(ValueError, match=told):
        train(out, flattened())
    variables = mlp().init(jax.random.key(0))
    with pytest.raises(ValueError, match=told):
        medjax.evaluate(flattened(), variables, config(out), EVAL)


def test_labels_of_rows_that_are_not_padded_train(tmp_path):
    options = Options(padding={"labels": None})
    result = train(tmp_path, flattened(), options=options)
    assert result.history == train(tmp_path / "plain", options=options).history


def test_a_collection_of_other_shapes_is_refused(out):
    plain = mlp()

    def init(key):
        return {**plain.init(key), "stats": {"n": np.zeros(3, np.float32)}}

    def forward(*args, **kwargs):
        outputs, loss, _ = plain.forward(*args, **kwargs)
        return outputs, loss, {"stats": {"n": np.zeros((2, 3), np.float32)}}

    with pytest.raises(ValueError, match=r"'stats' with the shapes .*\(2, 3\).*expected those of"):
        train(out, plain._replace(init=init, forward=forward))
