import json
import sys

import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics as oracle
from scipy.special import expit, softmax

from medjax import ROW_MASK
from medjax.checkpoint.columns_json import column_to_json, from_json
from medjax.metrics import ClassificationMetrics, choose_thresholds, format_scores

LABELS = ("cold", "flu", "gout", "none")


def drawn(seed, *, multi_label, nb_rows=60, nb_labels=4):
    """Return metrics, logits and a batch with labels that the logits partly predict."""
    draw = np.random.default_rng(seed)
    truth = (draw.random((nb_rows, nb_labels)) < 0.3).astype(np.float32)
    if not multi_label:
        truth = np.eye(nb_labels)[draw.integers(nb_labels, size=nb_rows)]
    logits = (truth * 2 + draw.normal(size=truth.shape)).round(1).astype(np.float32)
    metrics = ClassificationMetrics(LABELS[:nb_labels], multi_label=multi_label)
    if multi_label:
        return metrics, logits, {"targets": truth}
    return metrics, logits, {"labels": truth.argmax(axis=1)}


def scores_of(metrics, logits, batch):
    return metrics.compute(metrics.prepare_batch({"logits": logits}, batch))


def expected_f1(labels, truth, predicted):
    """Return what scikit-learn gives for each average and label."""
    measures = ("precision", "recall", "f1-score")
    scores = {}
    for average in ("micro", "macro", "weighted", None):
        found = oracle.precision_recall_fscore_support(
            truth, predicted, average=average, labels=range(len(labels)), zero_division=0
        )
        for measure, values in zip(measures, found[:3], strict=True):
            if average:
                scores[f"{average}_{measure}"] = values
            else:
                names = [f"{label}_{measure}" for label in labels]
                scores |= dict(zip(names, values, strict=True))
    return scores


def naive_calibration_error(confidence, correct):
    error = 0.0
    for number in range(15):
        low, high = number / 15, (number + 1) / 15
        inside = (confidence > low) & (confidence <= high) | ((number == 0) & (confidence == 0))
        if inside.any():
            error += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    return error


@pytest.mark.parametrize("nb_labels", [2, 3, 4])
@pytest.mark.parametrize("seed", range(4))
def test_scores_of_one_label_equal_scikit_learn(seed, nb_labels):
    metrics, logits, batch = drawn(seed, multi_label=False, nb_labels=nb_labels)
    scores = scores_of(metrics, logits, batch)
    truth, predicted = batch["labels"], logits.argmax(axis=1)
    probabilities = softmax(logits.astype(np.float64), axis=1)
    expected = expected_f1(metrics.labels, truth, predicted)
    assert {name: scores[name] for name in expected} == expected
    of_labels = {"auroc": [], "auprc": []}
    for number, label in enumerate(metrics.labels):
        of_labels["auroc"].append(oracle.roc_auc_score(truth == number, probabilities[:, number]))
        of_labels["auprc"].append(
            oracle.average_precision_score(truth == number, probabilities[:, number])
        )
        for measure, values in of_labels.items():
            assert scores[f"{label}_{measure}"] == pytest.approx(values[-1], rel=1e-14)
        assert scores[f"{label}_support"] == (truth == number).sum()
    for measure, values in of_labels.items():
        assert scores[f"macro_{measure}"] == pytest.approx(np.mean(values), rel=1e-14)
    if nb_labels > 2:
        whole = oracle.roc_auc_score(truth, probabilities, multi_class="ovr", average="macro")
        assert scores["macro_auroc"] == pytest.approx(whole, rel=1e-14)
    assert scores["accuracy"] == oracle.accuracy_score(truth, predicted)
    assert scores["cohen-kappa"] == oracle.cohen_kappa_score(truth, predicted)
    brier = np.mean(np.sum((probabilities - np.eye(nb_labels)[truth]) ** 2, axis=1))
    if nb_labels == 2:
        brier = oracle.brier_score_loss(truth, probabilities[:, 1])
    assert scores["brier-score"] == pytest.approx(brier, rel=1e-14)
    error = naive_calibration_error(probabilities.max(axis=1), predicted == truth)
    assert scores["calibration-error"] == pytest.approx(error, rel=1e-12)
    assert scores["support"] == len(truth)


@pytest.mark.parametrize("nb_labels", [1, 2, 4])
@pytest.mark.parametrize("seed", range(4))
def test_scores_of_several_labels_equal_scikit_learn(seed, nb_labels):
    metrics, logits, batch = drawn(seed, multi_label=True, nb_labels=nb_labels)
    scores = scores_of(metrics, logits, batch)
    truth = batch["targets"].astype(int)
    probabilities = expit(logits.astype(np.float64))
    predicted = (probabilities >= 0.5).astype(int)
    if nb_labels > 1:
        expected = expected_f1(metrics.labels, truth, predicted)
        assert {name: scores[name] for name in expected} == expected
        for average in ("auroc", "auprc"):
            compute = {"auroc": "roc_auc_score", "auprc": "average_precision_score"}[average]
            whole = getattr(oracle, compute)(truth, probabilities, average="macro")
            assert scores[f"macro_{average}"] == pytest.approx(whole, rel=1e-14)
    else:
        for name in ("micro", "macro", "weighted", metrics.labels[0]):
            assert scores[f"{name}_f1-score"] == oracle.f1_score(truth[:, 0], predicted[:, 0])
    assert scores["accuracy"] == oracle.accuracy_score(truth, predicted)
    columns = zip(truth.T, probabilities.T, strict=True)
    brier = np.mean([oracle.brier_score_loss(true, p) for true, p in columns])
    assert scores["brier-score"] == pytest.approx(brier, rel=1e-14)
    error = naive_calibration_error(probabilities.ravel(), truth.ravel())
    assert scores["calibration-error"] == pytest.approx(error, rel=1e-12)
    assert scores["support"] == truth.sum()
    assert "cohen-kappa" not in scores


@pytest.mark.skipif(
    not hasattr(oracle, "confusion_matrix_at_thresholds"), reason="scikit-learn before 1.8"
)
def test_the_brier_score_of_many_labels_equals_scikit_learn():
    metrics, logits, batch = drawn(0, multi_label=False)
    columns = metrics.prepare_batch({"logits": logits}, batch)
    expected = oracle.brier_score_loss(columns["labels"], columns["probabilities"], labels=range(4))
    assert metrics.compute(columns)["brier-score"] == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("module", [np, jnp])
def test_batches_and_padding_rows_do_not_matter(multi_label, module):
    metrics, logits, batch = drawn(1, multi_label=multi_label)
    name = "targets" if multi_label else "labels"
    whole = metrics.prepare_batch({"logits": logits}, batch)
    columns = {"labels": [], "probabilities": []}
    for first in range(0, 60, 7):
        rows = np.minimum(np.arange(first, first + 7), 59)
        mask = (np.arange(first, first + 7) < 60).astype(np.float32)
        part = {name: module.asarray(batch[name][rows]), ROW_MASK: module.asarray(mask)}
        prepared = metrics.prepare_batch({"logits": module.asarray(logits[rows])}, part)
        for column, values in prepared.items():
            columns[column] += values
    assert columns == whole
    assert metrics.compute(columns) == metrics.compute(whole)
    stored = {n: from_json(json.loads(json.dumps(column_to_json(n, columns[n])))) for n in columns}
    assert stored == columns


def test_rows_labelled_ignored_do_not_count():
    metrics = ClassificationMetrics(LABELS[:2])
    logits = np.array([[1.0, 0.0], [np.nan, 0.0], [0.0, 1.0]])
    columns = metrics.prepare_batch({"logits": logits}, {"labels": np.array([0, -100, 0])})
    assert columns["labels"] == [0, 0]
    assert metrics.compute(columns)["accuracy"] == 0.5


def test_extreme_logits_have_exact_probabilities():
    metrics = ClassificationMetrics(LABELS[:2], multi_label=True)
    batch = {"targets": np.array([[1.0, 0.0], [0.0, 1.0]])}
    logits = np.array([[1000.0, -1000.0], [-np.inf, np.inf]], np.float32)
    columns = metrics.prepare_batch({"logits": logits}, batch)
    assert columns["probabilities"] == [[1.0, 0.0], [0.0, 1.0]]
    single = ClassificationMetrics(LABELS[:2])
    columns = single.prepare_batch({"logits": logits[:1]}, {"labels": np.array([0])})
    assert columns["probabilities"] == [[1.0, 0.0]]


def test_undefined_scores_are_nan_and_left_out_of_means():
    metrics = ClassificationMetrics(LABELS[:3], multi_label=True)
    targets = np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    scores = scores_of(metrics, np.array([[1.0, 0, 0], [0, 1, 0]]), {"targets": targets})
    assert scores["cold_auroc"] == scores["macro_auroc"] == 1.0
    assert np.isnan([scores["flu_auroc"], scores["gout_auroc"], scores["gout_auprc"]]).all()
    assert scores["flu_auprc"] == scores["macro_auprc"] == 1.0
    assert scores["gout_precision"] == scores["gout_recall"] == 0.0

    scores = scores_of(metrics, np.zeros((2, 3)), {"targets": np.zeros((2, 3))})
    assert np.isnan([scores["macro_auroc"], scores["macro_auprc"]]).all()

    single = ClassificationMetrics(LABELS[:2])
    scores = scores_of(single, np.array([[1.0, 0.0]]), {"labels": np.array([0])})
    assert np.isnan([scores["macro_auroc"], scores["cohen-kappa"]]).all()
    assert scores["accuracy"] == 1.0


@pytest.mark.parametrize("multi_label", [False, True])
def test_without_documents_the_names_are_the_same(multi_label):
    metrics, logits, batch = drawn(0, multi_label=multi_label)
    scores = metrics.compute({"labels": [], "probabilities": []})
    assert set(scores) == set(scores_of(metrics, logits, batch))
    assert scores["accuracy"] == scores["macro_f1-score"] == scores["support"] == 0.0
    assert np.isnan([scores[n] for n in ("brier-score", "calibration-error", "macro_auroc")]).all()


@pytest.mark.parametrize(
    ("labels", "settings", "message"),
    [
        ("ab", {}, "expected at least 2 names"),
        (["a"], {}, "expected at least 2 names"),
        ([], {"multi_label": True}, "expected at least 1 names"),
        (["a", "a"], {}, "expected different names"),
        (["a", "macro"], {}, "'macro' has the name of an average"),
        (["a", "b"], {"threshold": 0.4}, "it needs multi_label"),
        (["a", "b"], {"multi_label": True, "threshold": [0.4]}, "shape \\(1,\\); expected one"),
        (["a", "b"], {"multi_label": True, "threshold": [0.4, 1.5]}, "between 0 and 1"),
        (["a", "b"], {"multi_label": True, "threshold": float("nan")}, "between 0 and 1"),
        (["a", "b"], {"multi_label": True, "threshold": {"a": 0.1}}, "thresholds for \\['a'\\]"),
    ],
)
def test_wrong_settings_are_refused(labels, settings, message):
    with pytest.raises(ValueError, match=message):
        ClassificationMetrics(labels, **settings)


@pytest.mark.parametrize(
    ("multi_label", "logits", "batch", "message"),
    [
        (False, np.zeros((1, 2)), {}, "in the batch; expected 'labels'"),
        (True, np.zeros((1, 2)), {"labels": [0]}, "expected 'targets'"),
        (False, np.zeros((1, 3)), {"labels": [0]}, r"shape \(1, 3\); expected \(1, 2\)"),
        (False, np.zeros((1, 2)), {"labels": [[0, 1]]}, "or set multi_label=True"),
        (True, np.zeros((1, 2)), {"targets": [0]}, "expected one 0 or 1 per label"),
        (False, np.zeros((1, 2)), {"labels": [2]}, "found 2 among the true labels; expected 0 to"),
        (False, np.zeros((1, 2)), {"labels": [-1]}, "found -1"),
        (True, np.zeros((1, 2)), {"targets": [[0.5, 1]]}, "found 0.5"),
        (False, np.array([[0, np.nan]]), {"labels": [0]}, "row 0 has the logits"),
        (True, np.array([[0, np.nan]]), {"targets": [[0, 1]]}, "row 0 has the logits"),
    ],
)
def test_wrong_batches_are_refused(multi_label, logits, batch, message):
    metrics = ClassificationMetrics(LABELS[:2], multi_label=multi_label)
    with pytest.raises(ValueError, match=message):
        metrics.prepare_batch({"logits": logits}, {n: np.array(v) for n, v in batch.items()})


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"labels": [0]}, "expected 'probabilities'"),
        ({"labels": [0, 1], "probabilities": [[0.5, 0.5]]}, r"expected \(2, 2\)"),
        ({"labels": [7], "probabilities": [[0.5, 0.5]]}, "found 7"),
        ({"labels": [1], "probabilities": [[-1.0, 2.0]]}, "not between 0 and 1"),
    ],
)
def test_wrong_columns_are_refused(columns, message):
    with pytest.raises(ValueError, match=message):
        ClassificationMetrics(LABELS[:2]).compute(columns)


def test_the_missing_output_is_named():
    with pytest.raises(ValueError, match="in the output; expected 'logits'"):
        ClassificationMetrics(LABELS).prepare_batch({}, {"labels": np.array([0])})


def test_scikit_learn_is_asked_for_at_once(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=r"pip install 'medjax\[scores\]'"):
        ClassificationMetrics(LABELS)


@pytest.mark.parametrize("seed", range(6))
def test_no_other_threshold_has_a_better_f1(seed):
    draw = np.random.default_rng(seed)
    truth = draw.integers(2, size=(40, 3))
    probabilities = draw.random((40, 3)).round(1 + seed % 2)
    columns = {"labels": truth.tolist(), "probabilities": probabilities.tolist()}
    chosen = choose_thresholds(columns, LABELS[:3])
    metrics = ClassificationMetrics(LABELS[:3], multi_label=True, threshold=chosen)
    scores = metrics.compute(columns)
    as_array = np.array([chosen[label] for label in LABELS[:3]])
    again = ClassificationMetrics(LABELS[:3], multi_label=True, threshold=as_array)
    assert again.compute(columns) == scores
    for column, label in enumerate(LABELS[:3]):
        p = probabilities[:, column]
        values = np.unique([0.0, 1.0, *p])
        candidates = (values[1:] + values[:-1]) / 2
        f1 = [oracle.f1_score(truth[:, column], p >= t, zero_division=0) for t in candidates]
        best = candidates[np.isclose(f1, max(f1), rtol=0, atol=1e-15)]
        assert scores[f"{label}_f1-score"] == pytest.approx(max(f1), rel=1e-15)
        assert chosen[label] == best[np.abs(best - 0.5).argmin()]


def test_thresholds_of_degenerate_labels():
    def chosen(labels, probabilities):
        columns = {"labels": [[x] for x in labels], "probabilities": [[x] for x in probabilities]}
        return choose_thresholds(columns, ["a"])["a"]

    assert chosen([0, 0], [0.9, 0.2]) == 0.5
    assert chosen([1, 1], [0.3, 0.2]) == 0.1
    assert chosen([1, 0], [1.0, 0.0]) == 0.5
    assert chosen([1, 0], [0.3, 0.3]) == 0.15
    above = np.nextafter(0.3, 1)
    assert chosen([1, 0], [above, 0.3]) == above
    with pytest.raises(ValueError, match="at least one document"):
        choose_thresholds({"labels": [], "probabilities": []}, ["a"])
    with pytest.raises(ValueError, match=r"labels have shape \(1,\)"):
        choose_thresholds({"labels": [1], "probabilities": [[0.1]]}, ["a"])


def test_scores_of_a_classification_as_a_table():
    metrics, logits, batch = drawn(0, multi_label=False, nb_labels=2)
    lines = format_scores(scores_of(metrics, logits, batch)).splitlines()
    assert lines[0].split() == ["precision", "recall", "f1-score", "auroc", "auprc", "support"]
    assert [line.split()[0] for line in lines if line] == [
        "precision", "cold", "flu", "micro", "macro", "weighted",
        "accuracy", "brier-score", "calibration-error", "cohen-kappa",
    ]  # fmt: skip
    assert lines[3].split()[4:] == ["-", "-", "60"]
