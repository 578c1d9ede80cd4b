"""Mistakes about metrics are reported, before training where that is possible."""

import re

import jax
import numpy as np
import pytest
from scored_points import DATA, Scores, train
from tiny import config, mlp

import medjax
from medjax import Options


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"checkpoint_metric": "f1"}, "checkpoint_metric follows the metric 'f1'; without a metr"),
        ({"checkpoint_metric": "eval_loss"}, "'eval_loss'; without a metrics_computer there is o"),
        (
            {"checkpoint_metric": "eval_micro_f1-score", "metrics_computer": Scores()},
            "no evaluation gives; did you mean 'micro_f1-score'?",
        ),
        (
            {"checkpoint_metric": "micro_f1", "metrics_computer": Scores()},
            "no evaluation gives; did you mean 'micro_f1-score'?",
        ),
        (
            {
                "schedule": medjax.reduce_on_plateau(),
                "metric_to_track_lr": "accuracy",
                "metrics_computer": Scores(),
            },
            "the schedule, by TrainerConfig.metric_to_track_lr, follows the metric 'accuracy'",
        ),
        (
            {"eval_data": None, "options": Options(early_stopping_patience=2)},
            "Options.early_stopping_patience with checkpoint_metric follows the evaluation metric",
        ),
        (
            {"eval_data": None, "schedule": medjax.reduce_on_plateau()},
            "the evaluation metric 'loss', but there is no evaluation data",
        ),
        ({"eval_data": None, "checkpoint_metric": "f1"}, "but there is no evaluation data"),
    ],
)
def test_metrics_that_will_not_come(arguments, message, out):
    with pytest.raises(ValueError, match=re.escape(message)):
        train(out, **arguments)


def test_a_score_of_a_label_that_the_sample_lacks_may_come(tmp_path):
    class Late(Scores):
        calls = 0

        def compute(self, columns):
            return super().compute(columns) | {"Rare_recall": 0.3}

        def __deepcopy__(self, memo):
            return Scores()

    result = train(tmp_path, checkpoint_metric="Rare_recall", metrics_computer=Late())
    assert result.best_checkpoint is not None


def test_the_computer_is_asked_for_names_by_a_copy(tmp_path):
    class Counting(Scores):
        calls = 0

        def compute(self, columns):
            self.calls += 1
            return super().compute(columns)

    computer = Counting()
    train(tmp_path, checkpoint_metric="micro_f1-score", metrics_computer=computer)
    assert computer.calls == 2  # one for each epoch


def test_a_checkpoint_metric_must_be_a_number(out):
    with pytest.raises(
        ValueError, match="Checkpoint metric 'best_label' is 'Drug'; expected a num"
    ):
        train(out, checkpoint_metric="best_label", metrics_computer=Scores())


def test_a_metric_that_is_no_number_is_written_where_it_can_be(tmp_path):
    options = Options(log_dir=tmp_path / "logs")
    result = train(tmp_path / "out", metrics_computer=Scores(), options=options)
    assert result.history[0]["eval"]["best_label"] == "Drug"
    assert "Drug" in (tmp_path / "logs" / "metrics.csv").read_text()
    assert '"eval/best_label": "Drug"' in (tmp_path / "logs" / "metrics.jsonl").read_text()


def test_the_best_epoch_that_was_not_saved_is_said(tmp_path, caplog):
    class Rising(Scores):
        epoch = 0

        def compute(self, columns):
            self.epoch += 1
            return {"f1": [0.1, 0.2, 0.9, 0.3][self.epoch - 1]}

    fields = {"checkpoint_metric": "f1", "minimize_checkpoint_metric": False}
    train(
        tmp_path / "a",
        metrics_computer=Rising(),
        nb_training_epochs=4,
        checkpoint_period=2,
        **fields,
    )
    assert "the best evaluation was that of epoch 3 (f1 0.9), which was not saved" in caplog.text
    caplog.clear()
    train(tmp_path / "b", metrics_computer=Rising(), **fields)
    assert "not saved" not in caplog.text


def test_a_score_that_is_followed_in_the_wrong_direction_is_told_before_training(tmp_path, caplog):
    def followed(folder, *, minimize, mode):
        stopping = medjax.EarlyStopping("Drug_recall", 9, minimize=minimize)
        train(folder, metrics_computer=Scores(), callback=[stopping],
              schedule=medjax.reduce_on_plateau(mode=mode), nb_training_epochs=2,
              checkpoint_metric="micro_f1-score", minimize_checkpoint_metric=minimize,
              options=Options(early_stopping_patience=9))  # fmt: skip

    followed(tmp_path / "a", minimize=True, mode="max")
    told = [record.getMessage() for record in caplog.records if "by its name" in record.message]
    assert [text.partition(":")[0] for text in told] == [
        "checkpoint_metric is 'micro_f1-score'",
        "the metric of EarlyStopping is 'Drug_recall'",
        "metric_to_track_lr is 'loss'",
    ]
    assert [text.partition("; set ")[2] for text in told] == [
        "TrainerConfig(minimize_checkpoint_metric=False)",
        "EarlyStopping(minimize=False)",
        "reduce_on_plateau(mode='min')",
    ]
    caplog.clear()
    followed(tmp_path / "b", minimize=False, mode="min")
    train(tmp_path / "c", eval_data=None, minimize_checkpoint_metric=False)  # follows nothing
    assert "by its name" not in caplog.text


class Scored:
    """A metrics computer that returns what it is made with."""

    def __init__(self, scores=None, prepared=None):
        self.scores = {"n": 1.0} if scores is None else scores
        self.prepared = {"y": [1]} if prepared is None else prepared

    def prepare_batch(self, output, batch):
        return self.prepared

    def compute(self, columns):
        return self.scores


@pytest.mark.parametrize("metric", ["loss", "n"])
def test_a_score_does_not_take_the_place_of_the_loss(out, metric):
    computer = Scored({"loss": 9.0, "n": 1.0})
    with pytest.raises(ValueError, match="a score called 'loss', which would take the place"):
        train(out, metrics_computer=computer, checkpoint_metric=metric)
    variables = mlp().init(jax.random.key(0))
    with pytest.raises(ValueError, match="a score called 'loss'"):
        medjax.evaluate(mlp(), variables, config(out), DATA, metrics_computer=computer)


@pytest.mark.parametrize(
    ("computer", "message"),
    [
        (Scored(scores=3.0), "compute returned 3.0 of type float; expected a dict of scores"),
        (Scored(prepared=[1]), "prepare_batch returned [1] of type list; expected a dict of colum"),
        (Scored(prepared={"y": 4.0}), "returned 4.0 of type float for the column 'y'; expected a"),
        (Scored(prepared={"y": "abc"}), "returned 'abc' of type str for the column 'y'; expected"),
        (Scored(prepared={"y": np.array(1)}), "of type ndarray for the column 'y'; expected a li"),
    ],
)
def test_what_a_metrics_computer_returns(out, computer, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        train(out, metrics_computer=computer)


def test_a_checkpoint_metric_that_is_never_a_number_is_said(tmp_path, caplog):
    train(tmp_path, metrics_computer=Scored({"n": float("nan")}), checkpoint_metric="n")
    (told,) = [r.message for r in caplog.records if "checkpoint metric" in r.message]
    assert "'n' was not a number (nan) in any evaluation" in told
    assert "branched off" not in caplog.text
