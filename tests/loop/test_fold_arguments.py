"""Cross-validation: what may be given for strata and groups, what is refused before training."""

import re

import numpy as np
import pytest
from tiny import collate_points, config, mlp, points

import medjax
from medjax import Accuracy, CrossValidation, cross_validate
from medjax.loop.folds import make_folds
from medjax.metrics import DOCUMENT
from medjax.metrics.groups import number_groups

STRATA = ["rare" if n % 5 == 0 else "common" for n in range(20)]


class Series(list):
    """Has a truth value for each item and none as a whole, as the columns of pandas have."""

    def __bool__(self):
        raise ValueError("The truth value of a Series is ambiguous.")


@pytest.mark.parametrize("column", [np.array, Series])
def test_strata_and_groups_may_be_columns_of_tables(column, caplog):
    groups = [f"p{n // 2}" for n in range(20)]
    expected = make_folds(20, 5, STRATA, groups, seed=1)
    found = make_folds(20, 5, column(STRATA), column(groups), seed=1)
    assert [fold.tolist() for fold in found] == [fold.tolist() for fold in expected]
    assert "strata has 'rare' 4 times in 5 folds" in caplog.text


class Missing:
    """Compares as pandas.NA does."""

    def __eq__(self, other):
        return self

    def __ne__(self, other):
        return self

    __hash__ = object.__hash__

    def __bool__(self):
        raise TypeError("boolean value of NA is ambiguous")

    def __repr__(self):
        return "<NA>"


@pytest.mark.parametrize("unknown", [None, float("nan"), np.float32("nan"), Missing()])
def test_unknown_groups_are_refused(unknown):
    with pytest.raises(ValueError, match=r"the group of item 1 is (None|nan|.*nan.*|<NA>); exp"):
        number_groups(["p1", unknown, "p2"])


@pytest.mark.parametrize(
    ("nb_items", "groups", "told"),
    [
        (1, None, "found 1 item to make folds of; expected at least 2"),
        (3, ["p", "p", "p"], "found 1 group to make folds of; expected at least 2"),
        (3, None, "nb_folds is 5; expected 2 to 3, the number of items"),
    ],
)
def test_too_few_items_are_told(nb_items, groups, told):
    with pytest.raises(ValueError, match=told):
        make_folds(nb_items, 5, None, groups, seed=1)


class Trains(medjax.TrainerCallback):
    """Counts the runs."""

    def __init__(self):
        self.runs = 0

    def on_train_begin(self, *_):
        self.runs += 1


def validate(folder, metrics, component, callback):
    settings = config(folder, nb_training_epochs=1, batch_size=8, seed=3)
    return cross_validate(
        component, settings, points(12), metrics,
        nb_folds=2, groups=[n // 2 for n in range(12)], callback=callback,
    )  # fmt: skip


def test_groups_that_no_column_tells_are_refused_before_training(tmp_path):
    trains = Trains()
    with pytest.raises(ValueError, match=f"expected '{DOCUMENT}' among them, to draw groups"):
        validate(tmp_path, Accuracy(), mlp(), trains)
    assert trains.runs == 0
    assert not [*tmp_path.iterdir()]


def test_what_cannot_be_told_of_one_item_is_refused_after_the_first_fold(tmp_path):
    class Late(Accuracy):
        """Fails on outputs that are 0."""

        def prepare_batch(self, output, batch):
            if not np.any(output["logits"]):
                raise ZeroDivisionError
            return super().prepare_batch(output, batch)

    trains = Trains()
    with pytest.raises(ValueError, match="do not tell which item"):
        validate(tmp_path, Late(), mlp(), trains)
    assert trains.runs == 1


def test_groups_are_drawn_where_items_know_their_position(tmp_path):
    def expand(data, *, training=True):
        items = [{**data[n], DOCUMENT: n} for n in range(len(data))]
        return medjax.ExpandedData(items, range(len(items)))

    def collate(examples):
        batch = collate_points(examples)
        batch[DOCUMENT] = [example[DOCUMENT] for example in examples]
        return batch

    component = mlp(collate=collate)._replace(expand=expand)
    assert validate(tmp_path, Accuracy(), component, []).columns[DOCUMENT] == [*range(12)]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (
            "Rare_f1-score",
            "'Rare_f1-score' is missing in the scores of 2 of 3 folds, number 1, 3: its label may "
            "not occur there. Take the interval of all items together, intervals['Rare_f1-score']",
        ),
        ("acuracy", "no fold has the score 'acuracy'; did you mean 'accuracy'? There are ['Rare"),
        ("x", "no fold has the score 'x'. There are ['Rare_f1-score', 'accuracy']"),
    ],
)
def test_a_mean_of_scores_that_folds_lack_is_refused(name, told):
    scores = [{"accuracy": 0.5}, {"accuracy": 1.0, "Rare_f1-score": 1.0}, {"accuracy": 0.75}]
    result = CrossValidation(scores, {}, {})
    assert result.mean("accuracy")[0] == 0.75
    with pytest.raises(ValueError, match=re.escape(told)):
        result.mean(name)
