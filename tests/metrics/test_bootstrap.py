import math

import numpy as np
import pytest

from medjax.metrics import (
    GOLD,
    Accuracy,
    ClassificationMetrics,
    Difference,
    Gold,
    Interval,
    MetricsComputer,
    SpanMetrics,
    UnitMetrics,
    Units,
    _resamples,
    bootstrap,
    format_scores,
    paired_bootstrap,
    span_scores,
)

TAGS = ("O", "B-a", "I-a", "B-b", "I-b", "B-c")


class General:
    """Scores by `compute` only, so that each resample is computed from its columns."""

    def __init__(self, metrics):
        self.prepare_batch = metrics.prepare_batch
        self.compute = metrics.compute


class OverAllLabels(General):
    """As `General`, where a label that a resample tells nothing of has the scores of all data."""

    def __init__(self, metrics, columns):
        super().__init__(metrics)
        whole = metrics.compute(columns)
        self.compute = lambda resample: with_all_labels(metrics.compute(resample), whole)


def with_all_labels(scores, whole):
    for average in (name for name in whole if name.startswith("macro_")):
        measure = average.removeprefix("macro")
        averages = {f"{kind}{measure}" for kind in ("micro", "macro", "weighted")}
        names = [name for name in whole if name.endswith(measure) and name not in averages]
        values = np.array([scores.get(name, math.nan) for name in names])
        values = np.where(np.isnan(values), [whole[name] for name in names], values)
        defined = values[~np.isnan(values)]
        scores[average] = defined.mean() if len(defined) else math.nan
    return scores


class GeneralByDocument(General):
    """As `General`, for rows of documents: a document that is drawn again is another document."""

    def __init__(self, metrics):
        super().__init__(metrics)
        self.compute = lambda columns: metrics.compute(self._renumbered(columns))

    def _renumbered(self, columns):
        seen, golds = {}, []
        for gold in columns[GOLD]:
            key = str(gold)
            seen[key] = seen.get(key, 0) + 1
            golds.append(gold._replace(document=1000 * gold.document + seen[key]))
        return {**columns, GOLD: golds}


def classified(seed, *, multi_label, nb_rows=30, nb_labels=3):
    draw = np.random.default_rng(seed)
    metrics = ClassificationMetrics(TAGS[:nb_labels], multi_label=multi_label)
    logits = draw.normal(size=(nb_rows, nb_labels)).round(1)
    if multi_label:
        targets = draw.random((nb_rows, nb_labels)) < np.array([0.5, 0.1, 0.03])[:nb_labels]
        return metrics, metrics.prepare_batch({"logits": logits}, {"targets": targets * 1.0})
    labels = draw.choice(
        nb_labels, size=nb_rows, p=[0.8, 0.2 - 0.05 * (nb_labels - 2)] + [0.05] * (nb_labels - 2)
    )
    return metrics, metrics.prepare_batch({"logits": logits}, {"labels": labels})


def tagged(seed, *, nb_rows=25):
    draw = np.random.default_rng(seed)

    def tags():
        probable = [0.5, 0.2, 0.1, 0.1, 0.08, 0.02]
        return [
            draw.choice(TAGS, size=draw.integers(6), p=probable).tolist() for _ in "x" * nb_rows
        ]

    y_true = tags()
    y_pred = [
        [new if draw.random() < 0.3 else tag for tag, new in zip(row, other, strict=False)]
        + row[len(other) :]
        for row, other in zip(y_true, tags(), strict=True)
    ]
    return SpanMetrics(TAGS), {"y_true": y_true, "y_pred": y_pred}


def annotated(seed):
    """Return columns of documents of two windows each, in any order."""
    metrics, columns = tagged(seed, nb_rows=24)
    golds = []
    for row, tags in enumerate(columns["y_true"]):
        first = 100 * (row % 2)
        words = [(first + 2 * n, first + 2 * n + 1) for n in range(len(tags))]
        entities = [("a", first, first + 1), ("b", first + 2, first + 3)][: len(tags)]
        golds.append(Gold(row // 2, words, entities))
    order = np.random.default_rng(seed).permutation(24)
    return metrics, {
        name: [values[row] for row in order] for name, values in {**columns, GOLD: golds}.items()
    }


def assert_close(fast, general):
    assert set(fast) == set(general)
    for name in fast:
        np.testing.assert_allclose(fast[name], general[name], rtol=1e-12, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("by_group", [False, True])
@pytest.mark.parametrize(
    ("metrics", "columns"),
    [
        classified(0, multi_label=False),
        classified(1, multi_label=False, nb_labels=2),
        classified(2, multi_label=True),
        classified(3, multi_label=True, nb_labels=1),
        tagged(4),
    ],
)
def test_weighed_scores_equal_those_of_resampled_columns(metrics, columns, by_group):
    nb_units = len(next(iter(columns.values())))
    settings = {"groups": [f"patient {unit % 7}" for unit in range(nb_units)]} if by_group else {}
    fast = bootstrap(metrics, columns, nb_resamples=60, seed=5, **settings)
    reference = OverAllLabels(metrics, columns)
    general = bootstrap(reference, columns, nb_resamples=60, seed=5, **settings)
    assert not isinstance(reference, UnitMetrics)
    assert_close(fast, general)
    assert {name: interval.value for name, interval in fast.items()} == {
        name: pytest.approx(value, nan_ok=True) for name, value in metrics.compute(columns).items()
    }


def test_documents_are_drawn_with_all_their_windows():
    metrics, columns = annotated(6)
    fast = bootstrap(metrics, columns, nb_resamples=60)
    order = sorted(range(24), key=lambda row: columns[GOLD][row].document)
    in_order = {name: [values[row] for row in order] for name, values in columns.items()}
    documents = [gold.document for gold in in_order[GOLD]]
    general = bootstrap(GeneralByDocument(metrics), in_order, groups=documents, nb_resamples=60)
    assert_close(fast, general)
    assert len(metrics.units(columns).truth) == 12


def test_numbered_documents_are_in_the_order_of_their_numbers():
    metrics, columns = annotated(6)
    backwards = {name: values[::-1] for name, values in columns.items()}
    patients = [document // 2 for document in range(12)]
    expected = bootstrap(metrics, columns, groups=patients, nb_resamples=60)
    assert_close(bootstrap(metrics, backwards, groups=patients, nb_resamples=60), expected)
    found = paired_bootstrap(metrics, columns, backwards, nb_resamples=60)
    assert {difference.p for difference in found.values()} == {1.0}


@pytest.mark.parametrize(("metrics", "columns"), [classified(0, multi_label=False), tagged(1)])
def test_differences_equal_those_of_resampled_columns(metrics, columns):
    columns = {name: values * 20 for name, values in columns.items()}  # no resample lacks a label
    other = {**columns}
    for name in set(columns) - {"labels", "y_true"}:
        rows = columns[name]
        other[name] = [row if n % 3 else row[::-1] for n, row in enumerate(rows)]
    fast = paired_bootstrap(metrics, columns, other, nb_resamples=20)
    general = paired_bootstrap(General(metrics), columns, other, nb_resamples=20)
    assert_close(fast, general)
    swapped = paired_bootstrap(metrics, other, columns, nb_resamples=20)
    for name, found in fast.items():
        expected = Difference(-found.value, -found.high, -found.low, found.p)
        np.testing.assert_allclose(swapped[name], expected, atol=1e-12)


def test_the_number_of_resamples_at_once_does_not_matter(monkeypatch):
    metrics, columns = classified(0, multi_label=False)
    whole = bootstrap(metrics, columns, nb_resamples=50)
    monkeypatch.setattr(_resamples, "_MAX_WEIGHTS", 7 * 30)
    assert_close(whole, bootstrap(metrics, columns, nb_resamples=50))
    monkeypatch.setattr(_resamples, "_MAX_WEIGHTS", 1)
    assert_close(whole, bootstrap(metrics, columns, nb_resamples=50))


def test_resamples_are_known_numbers():
    columns = {"labels": [1] * 10, "predictions": [1] * 4 + [0] * 6}
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(3)))
    rates = [np.mean(generator.integers(10, size=10) < 4) for _ in range(200)]
    interval = bootstrap(Accuracy(), columns, nb_resamples=200, level=0.9, seed=3)["accuracy"]
    assert interval == Interval(0.4, *np.quantile(rates, [0.05, 0.95]))
    assert generator.integers(10, size=8).tolist() == [7, 1, 8, 8, 5, 5, 5, 6]


def test_intervals_cover_the_true_rate_as_often_as_they_say():
    draw = np.random.default_rng(0)
    covered = 0
    for seed in range(300):
        columns = {"labels": [1] * 80, "predictions": (draw.random(80) < 0.7).astype(int).tolist()}
        interval = bootstrap(Accuracy(), columns, nb_resamples=200, level=0.9, seed=seed)
        covered += interval["accuracy"].low <= 0.7 <= interval["accuracy"].high
    assert 0.84 <= covered / 300 <= 0.95


def test_a_group_of_all_units_of_a_patient_widens_the_interval():
    correct = np.repeat(np.random.default_rng(1).integers(2, size=20), 10).tolist()
    columns = {"labels": [1] * 200, "predictions": correct}
    by_unit = bootstrap(Accuracy(), columns)["accuracy"]
    by_patient = bootstrap(Accuracy(), columns, groups=np.repeat(range(20), 10).tolist())
    wide = by_patient["accuracy"]
    assert wide.high - wide.low > 2 * (by_unit.high - by_unit.low)


def test_equal_models_do_not_differ_and_unequal_ones_do():
    truth = [0, 1] * 30
    good = {"labels": truth, "predictions": truth}
    poor = {"labels": truth, "predictions": [0] * 60}
    assert paired_bootstrap(Accuracy(), good, good)["accuracy"] == Difference(0.0, 0.0, 0.0, 1.0)
    found = paired_bootstrap(Accuracy(), good, poor, nb_resamples=200)["accuracy"]
    assert found.p == 1 / 200
    assert 0.3 < found.low < found.value == 0.5 < found.high < 0.7


def test_undefined_scores_have_no_bounds():
    metrics = ClassificationMetrics(("a", "b"), multi_label=True)
    targets = np.zeros((40, 2))
    targets[0, 0] = 1
    logits = np.random.default_rng(0).normal(size=(40, 2))
    columns = metrics.prepare_batch({"logits": logits}, {"targets": targets})
    found = bootstrap(metrics, columns, nb_resamples=500)
    assert np.isnan(found["b_auroc"]).all()
    assert np.isfinite(found["a_auroc"]).all()  # a document is in 63% of the resamples
    targets[:, 0] = 0
    columns = metrics.prepare_batch({"logits": logits}, {"targets": targets})
    difference = paired_bootstrap(metrics, columns, columns, nb_resamples=50)["macro_auroc"]
    assert np.isnan(difference).all()

    class Rare:
        prepare_batch = None

        def compute(self, columns):
            return {"x": 1.0 if columns["i"].count(0) > 1 else math.nan}

    interval = bootstrap(Rare(), {"i": [0, 0, 1, 2, 3, 4, 5, 6]}, nb_resamples=200)["x"]
    assert interval.value == 1.0
    assert math.isnan(interval.low) == math.isnan(interval.high)


class Disagreeing(SpanMetrics):
    """Changes `compute` and forgets `units`."""

    def compute(self, all_data):
        return {"micro_f1-score": 1.0}


def test_units_that_do_not_agree_with_compute_are_refused():
    _, columns = tagged(0)
    with pytest.raises(ValueError, match=r"Disagreeing\.units gives .* must override both"):
        bootstrap(Disagreeing(TAGS), columns)


def test_a_metrics_computer_of_ones_own_can_have_units():
    class Recall:
        def prepare_batch(self, model_output, input_batch):
            return {"hits": input_batch["hits"]}

        def compute(self, all_data):
            return {"recall": sum(all_data["hits"]) / len(all_data["hits"])}

        def units(self, all_data):
            hits = np.array(all_data["hits"])
            return Units([1] * len(hits), lambda w: {"recall": w @ hits / w.sum(axis=1)})

    assert isinstance(Recall(), UnitMetrics)
    assert isinstance(Recall(), MetricsComputer)
    columns = {"hits": [1.0, 0.0, 1.0, 1.0]}
    assert_close(bootstrap(Recall(), columns), bootstrap(General(Recall()), columns))


@pytest.mark.parametrize(
    ("columns", "settings", "message"),
    [
        ({"labels": [1], "predictions": [1]}, {}, "found 1 units to draw from"),
        ({"labels": [], "predictions": []}, {}, "found 0 units"),
        ({"labels": [1, 1], "predictions": [1]}, {}, "found 2 labels and 1 predictions"),
        ({}, {}, r"found the columns \[\]; expected 'labels' and 'predictions'"),
        ({"labels": [1, 1], "predictions": [1, 1]}, {"groups": "aa"}, "found 1 groups"),
        ({"labels": [1, 1], "predictions": [1, 1]}, {"groups": "abc"}, "groups for 3 units"),
        ({"labels": [1, 1], "predictions": [1, 1]}, {"groups": ["a", None]}, "item 1 is None"),
        ({"labels": [1, 1], "predictions": [1, 1]}, {"groups": [math.nan, "a"]}, "item 0 is nan"),
        ({"labels": [1, 1], "predictions": [1, 1]}, {"level": 95}, "level is 95"),
        ({"labels": [1, 1], "predictions": [1, 1]}, {"nb_resamples": 0}, "nb_resamples is 0"),
    ],
)
def test_what_cannot_be_resampled_is_refused(columns, settings, message):
    with pytest.raises(ValueError, match=message):
        bootstrap(Accuracy(), columns, **settings)
    with pytest.raises(ValueError, match=message):
        paired_bootstrap(Accuracy(), columns, columns, **settings)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"labels": [1, 1], "predictions": [1]}, "'labels': 2, 'predictions': 1"),
        ({}, "the columns have the lengths {}"),
    ],
)
def test_without_units_the_columns_need_a_row_each(columns, message):
    with pytest.raises(ValueError, match=message):
        bootstrap(General(Accuracy()), columns)


def test_empty_columns_with_units_are_refused():
    with pytest.raises(ValueError, match="found 0 units"):
        bootstrap(SpanMetrics(TAGS), {"y_true": [], "y_pred": []})
    with pytest.raises(ValueError, match="found 0 units"):
        bootstrap(ClassificationMetrics(TAGS), {"labels": [], "probabilities": []})


def test_models_are_compared_on_the_same_units():
    metrics, columns = classified(0, multi_label=False)
    shorter = {name: values[:-1] for name, values in columns.items()}
    with pytest.raises(ValueError, match="model a has 30 units, model b 29"):
        paired_bootstrap(metrics, columns, shorter)
    labels = columns["labels"]
    other = {**columns, "labels": [(labels[0] + 1) % 3, *labels[1:]]}
    with pytest.raises(ValueError, match="unit 0 is annotated with"):
        paired_bootstrap(metrics, columns, other)


def test_accuracy_is_compared_on_the_same_annotation():
    columns = {"labels": [1, 0, 1], "predictions": [1, 1, 1]}
    other = {"labels": [1, 1, 0], "predictions": [1, 1, 1]}
    with pytest.raises(
        ValueError, match="unit 1 is annotated with 0 for model a and 1 for model b"
    ):
        paired_bootstrap(Accuracy(), columns, other)


def test_accuracy_of_resamples_is_that_of_their_columns():
    labels = np.random.default_rng(0).integers(3, size=(2, 50)).tolist()
    columns = dict(zip(("labels", "predictions"), labels, strict=True))
    for groups in (None, [n // 4 for n in range(50)]):
        fast = bootstrap(Accuracy(), columns, groups=groups, nb_resamples=100)
        slow = bootstrap(General(Accuracy()), columns, groups=groups, nb_resamples=100)
        assert fast["accuracy"] == pytest.approx(slow["accuracy"], rel=1e-12)


def test_intervals_as_text():
    assert str(Interval(0.8123, 0.79, 0.834)) == "0.812 [0.790, 0.834]"
    assert str(Difference(-0.01, -0.02, 0.004, 0.2)) == "-0.010 [-0.020, +0.004] p=0.200"
    columns = {"y_true": [["B-a"], ["O"]], "y_pred": [["B-a"], ["B-a"]]}
    table = format_scores(bootstrap(SpanMetrics(TAGS), columns)).splitlines()
    row = "a 0.500 [0.000, 1.000] 1.000 [0.000, 1.000] 0.667 [0.000, 1.000] 1"
    assert " ".join(table[1].split()) == row
    plain = format_scores(span_scores(columns["y_true"], columns["y_pred"])).splitlines()
    assert plain[1].split() == ["a", "0.5000", "1.0000", "0.6667", "1"]


def test_units_without_a_group_are_drawn_one_by_one():
    columns = {"labels": [1] * 12, "predictions": [1, 0] * 6}
    alone = bootstrap(Accuracy(), columns, nb_resamples=200)["accuracy"]
    assert bootstrap(Accuracy(), columns, groups=[""] * 12, nb_resamples=200)["accuracy"] == alone
    together = ["p", "p", *[""] * 10]
    by_group = bootstrap(Accuracy(), columns, groups=together, nb_resamples=200)["accuracy"]
    assert by_group != alone
