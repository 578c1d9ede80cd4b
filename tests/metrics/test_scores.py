import json

import jax.numpy as jnp
import numpy as np
import pytest

from medjax.checkpoint.columns_json import column_to_json, from_json
from medjax.metrics import (
    Accuracy,
    ClassificationMetrics,
    Gold,
    SpanMetrics,
    TranscriptionMetrics,
    character_error_rate,
    entity_confusion,
    entity_scores,
    format_scores,
    label_confusion,
    span_scores,
    word_error_rate,
)
from medjax.metrics.direction import is_higher_better
from medjax.text import Entity

TAGS = ("O", "B-a", "I-a", "B-b", "I-b")


def test_scores_without_any_span_are_zero():
    scores = span_scores([["O", "O"]], [["O", "O"]])
    assert scores.pop("accuracy") == 1.0
    assert set(scores.values()) == {0}
    assert span_scores([], [])["accuracy"] == 0.0


def test_the_same_span_in_another_sentence_is_wrong():
    assert span_scores([["B-a"], ["O"]], [["O"], ["B-a"]])["micro_f1-score"] == 0.0


@pytest.mark.parametrize(
    ("y_pred", "message"),
    [([["O"]], "found 1 predicted sentences; expected 2"), ([["O"], []], "sentence 1 has 0")],
)
def test_sentences_of_different_lengths_are_refused(y_pred, message):
    with pytest.raises(ValueError, match=message):
        span_scores([["O"], ["O"]], y_pred)


def test_a_label_named_like_an_average_is_refused():
    with pytest.raises(ValueError, match="'macro' has the name of an average"):
        span_scores([["B-macro"]], [["O"]])


@pytest.mark.parametrize("module", [np, jnp])
def test_span_metrics_of_logits_and_of_predictions(module):
    labels = module.array([[-100, 1, 2, 0, -100], [-100, 3, -100, -100, -100]])
    predictions = module.array([[4, 1, 2, 3, 4], [0, 1, 4, 4, 4]])
    logits = module.eye(5)[predictions]
    metrics = SpanMetrics(TAGS)
    expected = {
        "y_true": [["B-a", "I-a", "O"], ["B-b"]],
        "y_pred": [["B-a", "I-a", "B-b"], ["B-a"]],
    }
    assert metrics.prepare_batch({"predictions": predictions}, {"labels": labels}) == expected
    assert metrics.prepare_batch({"logits": logits}, {"labels": labels}) == expected
    assert metrics.compute(expected)["a_recall"] == 1.0


def test_windows_of_a_document_are_joined_in_any_order():
    metrics = SpanMetrics(TAGS)
    rows = [  # document, words, entities that start there, labels, predictions
        (7, [(9, 11), (12, 14)], [], [2, 0], [2, 0]),
        (7, [(0, 4), (5, 8)], [("a", 5, 11)], [0, 1], [0, 1]),
        (3, [(0, 2)], [("b", 0, 2), ("b", 4, 5)], [3], [3]),
        (None, [(0, 2)], [("a", 0, 2)], [1], [0]),
        (None, [], [("a", 0, 1)], [], []),
    ]
    columns = {"y_true": [], "y_pred": [], "gold": []}
    for document, words, entities, labels, predictions in rows:
        batch = {"labels": np.array([labels], int), "gold": [(document, words, entities)]}
        prepared = metrics.prepare_batch({"predictions": np.array([predictions], int)}, batch)
        for name, values in prepared.items():
            columns[name] += values
    assert metrics.entities(columns) == (
        [[("a", 5, 11)], [("b", 0, 2), ("b", 4, 5)], [("a", 0, 2)], [("a", 0, 1)]],
        [[("a", 5, 11)], [("b", 0, 2)], [], []],
    )
    scores = metrics.compute(columns)
    assert (scores["support"], scores["micro_recall"], scores["micro_precision"]) == (5, 2 / 5, 1.0)
    assert scores["accuracy"] == 5 / 6


def test_the_axis_of_a_single_label_may_be_left_out():
    metrics = SpanMetrics(("O-a", "B-a", "I-a"))
    flat = np.array([[1, 2, 0, -100]])
    for ids in (flat, flat[..., None]):
        scores = metrics.compute(metrics.prepare_batch({"predictions": ids}, {"labels": ids}))
        assert (scores["a_f1-score"], scores["support"], scores["accuracy"]) == (1.0, 1, 1.0)
    wrong = flat[..., None].repeat(2, axis=-1)
    with pytest.raises(ValueError, match=r"labels have shape \(1, 4, 2\); expected \(rows, length"):
        metrics.prepare_batch({"predictions": wrong}, {"labels": wrong})


def test_rows_without_an_annotation_among_others_are_refused():
    columns = {"y_true": [["O"], ["O"]], "y_pred": [["O"], ["O"]], "gold": [(0, [(0, 1)], [])]}
    with pytest.raises(
        ValueError, match="annotations for 1 rows and tags for 2; expected the same number"
    ):
        SpanMetrics(TAGS).compute(columns)


def test_annotations_survive_a_checkpoint():
    column = [Gold(4, [(0, 3)], [("a", 0, 3)]), Gold(None, [], [])]
    stored = json.loads(json.dumps(column_to_json("gold", column)))
    assert from_json(stored) == column


def test_a_row_needs_one_label_per_word():
    with pytest.raises(ValueError, match="a row has 1 labels for 2 words"):
        SpanMetrics(TAGS).prepare_batch(
            {"predictions": np.array([[0]])},
            {"labels": np.array([[0]]), "gold": [(0, [(0, 1), (1, 2)], [])]},
        )


def test_entities_are_compared_by_label_start_and_end():
    gold = [[Entity("a", 0, 3), Entity("b", 4, 6)], [Entity("a", 0, 3)]]
    predicted = [[Entity("a", 0, 3, 0.9), Entity("b", 4, 7, 0.8)], [Entity("b", 0, 3, 0.7)]]
    scores = entity_scores(gold, predicted)
    assert (scores["micro_precision"], scores["a_recall"], scores["b_recall"]) == (1 / 3, 1 / 2, 0)
    assert "accuracy" not in scores
    confusion = entity_confusion(gold, predicted)
    assert confusion.same_span == {("a", "a"): 1, ("a", "b"): 1}
    assert (confusion.partial, confusion.missed, confusion.spurious) == ({"b": 1}, {}, {})
    with pytest.raises(ValueError, match="predictions for 1 documents; expected 2"):
        entity_scores(gold, predicted[:1])


def test_padding_rows_do_not_count():
    batch = {"labels": np.array([[1], [1]]), "row_mask": np.array([1.0, 0.0], np.float32)}
    output = {"predictions": np.array([[1], [0]])}
    annotated = batch | {"gold": [(0, [(0, 1)], []), (1, [(0, 1)], [])]}
    assert SpanMetrics(TAGS).prepare_batch(output, annotated)["gold"] == [(0, [(0, 1)], [])]
    assert SpanMetrics(TAGS).prepare_batch(output, batch)["y_true"] == [["B-a"]]
    assert Accuracy().compute(Accuracy().prepare_batch(output, batch)) == {"accuracy": 1.0}


def test_span_metrics_checks_tags_and_ids():
    with pytest.raises(ValueError, match="L-a"):
        SpanMetrics(("O", "L-a"), "iob2")
    with pytest.raises(ValueError, match="found tag ids from 7 to 7; expected 0 to 4"):
        SpanMetrics(TAGS).prepare_batch(
            {"predictions": np.array([[7]])}, {"labels": np.array([[0]])}
        )


@pytest.mark.parametrize(
    ("output", "batch", "message"),
    [
        ({"predictions": np.zeros((2, 3))}, {}, "expected 'labels'"),
        ({"loss": 0}, {"labels": np.zeros((2, 3))}, "expected 'predictions' or 'logits'"),
        (
            {"predictions": np.zeros((2, 3))},
            {"labels": np.zeros((2, 4))},
            "one prediction per label",
        ),
    ],
)
def test_missing_columns_and_wrong_shapes_are_refused(output, batch, message):
    with pytest.raises(ValueError, match=message):
        Accuracy().prepare_batch(output, batch)


def test_accuracy_is_computed_over_all_batches():
    accuracy = Accuracy()
    columns = {"labels": [], "predictions": []}
    for labels, logits in (([0, 1], [[2, 1], [2, 1]]), ([1], [[0, 3]])):
        prepared = accuracy.prepare_batch({"logits": np.array(logits)}, {"labels": labels})
        for name, values in prepared.items():
            columns[name] += values
    assert accuracy.compute(columns) == {"accuracy": 2 / 3}
    assert accuracy.compute({"labels": [], "predictions": []}) == {"accuracy": 0.0}


def test_accuracy_keeps_the_documents_of_rows_with_one_label_each():
    batch = {
        "labels": np.array([1, -100, 0, 1]),
        "document": [7, 3, 5, 0],
        "row_mask": np.array([1.0, 1.0, 1.0, 0.0], np.float32),
    }
    prepared = Accuracy().prepare_batch({"predictions": np.array([1, 1, 1, 1])}, batch)
    assert prepared == {"labels": [1, 0], "predictions": [1, 1], "document": [7, 5]}
    tokens = {"labels": np.array([[1, 0]]), "document": [7]}
    prepared = Accuracy().prepare_batch({"predictions": np.array([[1, 1]])}, tokens)
    assert "document" not in prepared


def test_accuracy_needs_a_prediction_for_each_label():
    columns = {"labels": [1, 0], "predictions": [1]}
    for scored in (Accuracy().compute, Accuracy().units):
        with pytest.raises(ValueError, match="found 2 labels and 1 predictions; expected one"):
            scored(columns)


def test_confusion_counts_each_true_span_once():
    true = [["B-a", "I-a", "O", "B-b", "O", "B-b", "I-b", "B-a", "O"]]
    pred = [["B-a", "I-a", "O", "B-a", "O", "B-b", "O", "O", "B-b"]]
    confusion = label_confusion(true, pred)
    assert confusion.labels == ("a", "b")
    assert confusion.same_span == {("a", "a"): 1, ("b", "a"): 1}
    assert confusion.partial == {"b": 1}
    assert confusion.missed == {"a": 1}
    assert confusion.spurious == {"b": 1}


def test_several_labels_on_one_span_are_each_compared_with_their_own():
    both = [("a", 0, 4), ("b", 0, 4)]
    for predicted in (both, both[::-1]):
        confusion = entity_confusion([both], [predicted])
        assert confusion.same_span == {("a", "a"): 1, ("b", "b"): 1}
        assert (confusion.partial, confusion.missed, confusion.spurious) == ({}, {}, {})


@pytest.mark.parametrize(
    ("true", "predicted", "same_span", "partial"),
    [
        ("ab", "b", {("b", "b"): 1}, {"a": 1}),
        ("ab", "cb", {("b", "b"): 1, ("a", "c"): 1}, {}),
        ("ba", "dc", {("a", "c"): 1, ("b", "d"): 1}, {}),
        ("a", "cb", {("a", "b"): 1}, {}),
        ("aa", "a", {("a", "a"): 1}, {}),
    ],
)
def test_a_predicted_span_stands_for_one_true_span(true, predicted, same_span, partial):
    spans = [[(label, 0, 4) for label in labels] for labels in (true, predicted)]
    confusion = entity_confusion(spans[:1], spans[1:])
    assert (confusion.same_span, confusion.partial) == (same_span, partial)
    assert (confusion.missed, confusion.spurious) == ({}, {})


def test_labels_with_underscores_appear_in_the_table_of_scores():
    table = format_scores(span_scores([["B-adverse_event"]], [["B-adverse_event"]]))
    assert table.splitlines()[1].split() == ["adverse_event", "1.0000", "1.0000", "1.0000", "1"]


@pytest.mark.parametrize(
    ("reference", "hypothesis", "edits"),
    [
        ("kitten", "sitting", 3),
        ("", "ab", 2),
        ("ab", "", 2),
        ("abcd", "abcd", 0),
        ("intention", "execution", 5),
    ],
)
def test_character_errors(reference, hypothesis, edits):
    rate = character_error_rate([reference, "x"], [hypothesis, "x"])
    assert rate == edits / (len(reference) + 1)


def test_word_errors_are_summed_over_the_corpus():
    assert word_error_rate(["a b c", "d"], ["a x c", "d e f"]) == 3 / 4


def test_word_error_rate_needs_words_and_as_many_hypotheses_as_references():
    with pytest.raises(ValueError, match="found no word in 1 references"):
        word_error_rate([" "], ["a"])
    with pytest.raises(ValueError, match="found 1 hypotheses; expected 2"):
        word_error_rate(["a", "b"], ["a"])


def test_an_entity_that_is_annotated_or_predicted_twice_counts_once():
    once = [Entity("Drug", 0, 4), Entity("Sign", 5, 9, score=0.5)]
    twice = [*once, Entity("Drug", 0, 4, score=0.9)]
    for true, predicted in ((twice, once), (once, twice), (twice, twice)):
        scores = entity_scores([true], [predicted])
        assert scores == entity_scores([once], [once])
        assert (scores["micro_f1-score"], scores["Drug_support"]) == (1.0, 1)
        assert entity_confusion([true], [predicted]) == entity_confusion([once], [once])
    assert entity_scores([twice], [[]])["support"] == 2


@pytest.mark.parametrize(
    ("names", "is_higher"),
    [
        ("accuracy macro_f1 val_balancedAccuracy f1-score cohen_kappa BLEU mcc error_recall", True),
        ("loss eval_loss wer CER der word_error_rate accuracy_loss macro_brier_score rmse", False),
        ("falling support neg_log_loss power order epoch 1", None),
    ],
)
def test_a_name_tells_which_score_is_better(names, is_higher):
    assert {name: is_higher_better(name) for name in names.split()} == dict.fromkeys(
        names.split(), is_higher
    )


def test_the_names_of_all_own_scores_tell():
    rows = {"labels": [0, 1, 1, 0], "probabilities": [[0.9, 0.1], [0.2, 0.8]] * 2}
    speech = TranscriptionMetrics(list).compute({"references": ["a"], "hypotheses": ["b"]})
    gold = [[Entity("Drug", 0, 4)]]
    scores = [
        *Accuracy().compute({"labels": [1], "predictions": [1]}),
        *span_scores([["B-loss"]], [["B-error"]]),
        *entity_scores(gold, gold),
        *ClassificationMetrics(("error", "wer")).compute(rows),
    ]
    told = {name: is_higher_better(name) for name in scores}
    assert {name for name, known in told.items() if known is None} <= {
        name for name in told if name.endswith("support")
    }
    lower = {name for name, is_higher in told.items() if is_higher is False}
    assert all("brier" in name or "calibration" in name for name in lower)
    assert {is_higher_better(name) for name in speech} == {False}
