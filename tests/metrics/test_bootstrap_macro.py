"""Macro averages of resamples: over the labels of the whole data, whatever a resample lacks."""

import math

import numpy as np
import pytest

from medjax.metrics import (
    PAIR,
    ClassificationMetrics,
    Difference,
    Interval,
    PairGold,
    RelationMetrics,
    SpanMetrics,
    bootstrap,
    paired_bootstrap,
)

TAGS = ("O", "B-a", "B-b")
RARE = {"y_true": [["B-a"], ["B-a"], ["B-b"]]}
MISSED = {**RARE, "y_pred": [["B-a"], ["B-a"], ["O"]]}
FOUND = {**RARE, "y_pred": [["O"], ["B-a"], ["B-b"]]}


@pytest.mark.parametrize(
    ("columns", "weights", "recalls"),
    [
        (MISSED, [2, 1, 0], (1.0, math.nan, (1 + 0) / 2)),
        (MISSED, [0, 0, 3], (math.nan, 0.0, (1 + 0) / 2)),
        (FOUND, [1, 2, 0], (2 / 3, math.nan, (2 / 3 + 1) / 2)),
        (FOUND, [0, 0, 3], (math.nan, 1.0, (1 / 2 + 1) / 2)),
        (FOUND, [1, 1, 1], (1 / 2, 1.0, (1 / 2 + 1) / 2)),
    ],
)
def test_a_label_that_a_resample_lacks_has_its_score_of_all_data_in_macro(
    columns, weights, recalls
):
    pairs = [("Drug" if tag == "B-b" else "Test") for [tag] in columns["y_true"]]
    relations = RelationMetrics(("none", "Test", "Drug"))
    golds = [PairGold(number, (0, 1), label, ()) for number, label in enumerate(pairs)]
    found = [
        label if predicted == ["B-b" if label == "Drug" else "B-a"] else "none"
        for label, predicted in zip(pairs, columns["y_pred"], strict=True)
    ]
    cases = [
        (SpanMetrics(TAGS).units(columns), ("a", "b")),
        (relations.units({PAIR: golds, "y_pred": found}), ("Test", "Drug")),
    ]
    for units, labels in cases:
        scores = units.weigh(np.array([weights], np.float64))
        names = [f"{name}_recall" for name in (*labels, "macro")]
        np.testing.assert_allclose([scores[name][0] for name in names], recalls)


def test_a_rare_label_that_is_missed_does_not_widen_the_interval():
    columns = {name: [*values[:1] * 19, values[2]] for name, values in MISSED.items()}
    assert bootstrap(SpanMetrics(TAGS), columns)["macro_recall"] == Interval(0.5, 0.5, 0.5)
    better = {**columns, "y_pred": columns["y_true"]}
    difference = paired_bootstrap(SpanMetrics(TAGS), columns, better)["macro_recall"]
    assert difference == Difference(-0.5, -0.5, -0.5, 1 / 1000)


def test_an_area_that_a_resample_does_not_define_is_that_of_all_data_in_macro():
    targets = np.array([[1, 0], [0, 0], [1, 0], [0, 1]], float)
    logits = np.array([[2, 3], [1, 1], [0, 0], [-1, 2]], float)
    metrics = ClassificationMetrics(("a", "b"), multi_label=True)
    units = metrics.units(metrics.prepare_batch({"logits": logits}, {"targets": targets}))
    # Of the pairs of a true and another text, a has 3 of 4 in order, b 2 of 3.
    scores = units.weigh(np.array([[1, 1, 1, 1], [1, 1, 2, 0]], float))
    assert math.isnan(scores["b_auroc"][1])
    expected = [(3 / 4 + 2 / 3) / 2, (1 / 3 + 2 / 3) / 2]
    np.testing.assert_allclose(scores["macro_auroc"], expected)
    of_a = [(1 + 2 / 3) / 2, (1 + 2 * 3 / 4) / 3]
    np.testing.assert_allclose(scores["macro_auprc"], (np.array(of_a) + 1 / 2) / 2)
