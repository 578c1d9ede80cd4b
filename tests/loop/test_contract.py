"""Mistakes are reported before training starts, with messages of medjax's own."""

import re

import jax
import numpy as np
import optax
import pytest
import torch
from tiny import (
    FEATURES,
    collate_points,
    collate_sentences,
    config,
    mlp,
    points,
    sentences,
    tagger,
)

import medjax
from medjax import BatchData, Mean, Options
from medjax.loop.contract import warn_of_versions

DATA, EVAL = points(8), points(4, seed=1)


class Scores:
    def prepare_batch(self, output, batch):
        return {"predicted": list(output["logits"].argmax(-1)), "true": list(batch["labels"])}

    def compute(self, columns):
        return {"micro_f1-score": 0.5, "Drug_recall": 0.1, "best_label": "Drug"}


def train(folder, component=None, *, data=DATA, eval_data=EVAL, **more):
    fields = {
        name: more.pop(name)
        for name in list(more)
        if name in medjax.TrainerConfig.__dataclass_fields__
    }
    more = {"callback": []} | more
    return medjax.train(component or mlp(), config(folder, **fields), data, eval_data, **more)


@pytest.fixture
def out(tmp_path):
    """A folder that must not be there after a mistake."""
    yield tmp_path / "out"
    assert not any((tmp_path / "out").glob("*"))


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
