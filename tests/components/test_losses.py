"""Class weights, label smoothing, focal loss: against torch, and as laws."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from medjax import Mean
from medjax.components import (
    ClassificationLoss,
    TextClassification,
    TokenClassification,
    balanced_weights,
)
from medjax.text import LabelledText

CLASSES = ("a", "b", "c", "d")
WEIGHTS = {"a": 0.5, "c": 3.0}
RANDOM = np.random.RandomState(0)
LOGITS = (3 * RANDOM.normal(size=(12, 4))).astype(np.float32)
LABELS = RANDOM.randint(0, 4, size=12)
TARGETS = RANDOM.randint(0, 2, size=(12, 4)).astype(np.float32)


def in_order(weights):
    return torch.tensor([weights.get(name, 1.0) for name in CLASSES])


@pytest.mark.parametrize(
    ("weights", "smoothing"), list(itertools.product([{}, WEIGHTS], [0.0, 0.1, 0.5]))
)
def test_exclusive_classes_as_in_torch(weights, smoothing):
    loss = ClassificationLoss(class_weights=weights, label_smoothing=smoothing)
    theirs = torch.nn.CrossEntropyLoss(in_order(weights), label_smoothing=smoothing)
    logits = torch.tensor(LOGITS, requires_grad=True)
    expected = theirs(logits, torch.tensor(LABELS))
    expected.backward()

    def ours(logits):
        return loss.of_labels(logits, jnp.array(LABELS), jnp.ones(12), CLASSES).compute()

    actual, gradient = jax.value_and_grad(ours)(jnp.array(LOGITS))
    np.testing.assert_allclose(actual, expected.item(), rtol=1e-6)
    np.testing.assert_allclose(gradient, logits.grad.numpy(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("weights", "having"), list(itertools.product([{}, WEIGHTS], [{}, {"b": 7.0}]))
)
def test_any_number_of_classes_as_in_torch(weights, having):
    loss = ClassificationLoss(class_weights=weights, pos_weight=having)
    theirs = torch.nn.BCEWithLogitsLoss(in_order(weights), pos_weight=in_order(having))
    expected = theirs(torch.tensor(LOGITS), torch.tensor(TARGETS)).item()
    actual = loss.of_targets(jnp.array(LOGITS), jnp.array(TARGETS), jnp.ones(12), CLASSES)
    np.testing.assert_allclose(actual.compute(), expected, rtol=1e-6)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_loss_by_its_formula(gamma):
    loss = ClassificationLoss(focal_gamma=gamma)
    p = torch.softmax(torch.tensor(LOGITS), -1)[range(12), LABELS].numpy()
    mean = loss.of_labels(jnp.array(LOGITS), jnp.array(LABELS), jnp.ones(12), CLASSES)
    np.testing.assert_allclose(mean.compute(), ((1 - p) ** gamma * -np.log(p)).mean(), rtol=1e-5)
    p = torch.sigmoid(torch.tensor(LOGITS)).numpy()
    p = np.where(TARGETS > 0, p, 1 - p)
    mean = loss.of_targets(jnp.array(LOGITS), jnp.array(TARGETS), jnp.ones(12), CLASSES)
    np.testing.assert_allclose(mean.compute(), ((1 - p) ** gamma * -np.log(p)).mean(), rtol=1e-4)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_loss_of_a_certain_label_has_a_finite_gradient(gamma):
    def ours(logits):
        loss = ClassificationLoss(focal_gamma=gamma)
        return loss.of_labels(logits, jnp.array([0]), jnp.ones(1), CLASSES).total

    value, gradient = jax.value_and_grad(ours)(jnp.array([[90.0, 0.0, 0.0, 0.0]]))
    assert value == 0
    assert np.isfinite(gradient).all()


ALL = ClassificationLoss(class_weights=WEIGHTS, label_smoothing=0.1, focal_gamma=1.5)


@pytest.mark.parametrize("kind", ["labels", "targets"])
def test_the_loss_does_not_depend_on_batches_or_padding(kind):
    def of(rows, extra=0):
        logits = np.concatenate([LOGITS[rows], np.full((extra, 4), 9, np.float32)])
        counts = jnp.array([1.0] * len(rows) + [0.0] * extra)
        if kind == "labels":
            labels = np.concatenate([LABELS[rows], np.full(extra, -100)])
            return ALL.of_labels(jnp.array(logits), jnp.array(labels), counts, CLASSES)
        targets = np.concatenate([TARGETS[rows], np.ones((extra, 4), np.float32)])
        return ALL.of_targets(jnp.array(logits), jnp.array(targets), counts, CLASSES)

    whole = of(range(12)).compute()
    parts = [of(range(5), extra=3), of(range(5, 7), extra=6), of(range(7, 12))]
    joined = Mean(sum(p.total for p in parts), sum(p.weight for p in parts)).compute()
    np.testing.assert_allclose(joined, whole, rtol=1e-6)


def test_balanced_weights_are_those_of_scikit_learn():
    sklearn = pytest.importorskip("sklearn.utils.class_weight")
    labels = [CLASSES[n] for n in LABELS]
    expected = sklearn.compute_class_weight("balanced", classes=np.unique(labels), y=labels)
    assert balanced_weights(labels) == pytest.approx(
        dict(zip(np.unique(labels), expected, strict=True))
    )


def test_accumulated_batches_have_the_gradient_of_one_large_batch(tiny_folder):
    classifier = TextClassification.from_pretrained(
        tiny_folder, ["no", "yes"], loss=ClassificationLoss(class_weights={"yes": 4.0})
    )
    texts = [LabelledText(f"Note {n}.", ("yes" if n % 3 else "no",)) for n in range(6)]
    variables = classifier.init(jax.random.key(0))

    def total(params, chosen):
        batch = classifier.collate([classifier.preprocess(text) for text in chosen])
        batch["row_mask"] = np.ones(len(chosen), np.float32)
        how = {"return_loss": True, "eval_mode": True}  # dropout would differ by batch
        loss = classifier.forward({"params": params}, batch, jax.random.key(0), **how)[1]
        return loss.total, loss.weight

    def gradient(chosen):
        by_params = jax.grad(lambda params: total(params, chosen), has_aux=True)
        return by_params(variables["params"])

    whole, weight = gradient(texts)
    assert float(weight) == 4 * 4 + 2
    parts = [gradient(texts[first : first + 2]) for first in (0, 2, 4)]
    summed = jax.tree.map(lambda *leaves: sum(leaves), *[part for part, _ in parts])
    assert sum(float(part) for _, part in parts) == float(weight)
    for one, other in zip(*map(jax.tree.leaves, (summed, whole)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_a_tagger_takes_weights_of_tags(tiny_folder):
    loss = ClassificationLoss(class_weights={"O": 0.25})
    tagger = TokenClassification.from_pretrained(tiny_folder, loss=loss)
    assert tagger.loss == loss
    assert hash(tagger.component.forward) == hash(tagger.component.forward)
    with pytest.raises(ValueError, match="class_weights has 'Problem'; expected some of"):
        TokenClassification.from_pretrained(
            tiny_folder, loss=ClassificationLoss(class_weights={"Problem": 2.0})
        )


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"class_weights": "balanced"}, "class_weights is 'balanced'; expected weights by class"),
        ({"class_weights": {"a": -1.0}}, "expected finite weights of at least 0"),
        ({"pos_weight": {"a": float("nan")}}, "expected finite weights of at least 0"),
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0; expected 0.0 to below 1.0"),
        ({"focal_gamma": -0.1}, "focal_gamma is -0.1; expected at least 0.0"),
    ],
)
def test_values_out_of_range_are_refused(fields, told):
    with pytest.raises(ValueError, match=re.escape(told)):
        ClassificationLoss(**fields)


def test_weights_without_effect_are_refused():
    with pytest.raises(ValueError, match="expected class_weights instead"):
        ClassificationLoss(pos_weight={"a": 2.0}).check(CLASSES, multi_label=False)


def test_smoothing_is_not_rounded_with_the_targets():
    loss = ClassificationLoss(label_smoothing=0.002)
    logits, counts, targets = jnp.array([[9.0, -9.0]]), jnp.ones(1), jnp.array([[1, 0]])
    exact, rounded = (
        loss.of_targets(logits, targets.astype(dtype), counts, ("a", "b")).compute()
        for dtype in (jnp.float32, jnp.bfloat16)
    )
    assert float(rounded) == float(exact)
