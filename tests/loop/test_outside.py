"""Values that forward or a schedule reads from outside and a callback sets while a run goes on."""

import logging

import numpy as np
import optax
import pytest
from tiny import (
    CLASSES,
    FEATURES,
    as_it_is,
    collate_points,
    config,
    load_arrays,
    points,
    save_arrays,
)

import medjax
from medjax import BatchData, Mean, Options, TrainableComponent, distributed
from medjax.data.order import epoch_order
from medjax.loop.outside import Outside


class Penalty:
    """An object outside whose attribute the loss reads, as one anneals it in torch."""

    def __init__(self, weight=0.0):
        self.weight = weight


class Sets(medjax.TrainerCallback):
    """Sets the weight of a penalty at an event, to a value that the event decides."""

    def __init__(self, penalty, event, value):
        self.penalty, self.value = penalty, value
        setattr(self, event, self._set)

    def _set(self, **facts):
        self.penalty.weight = self.value(facts)


def penalized(penalty, traces=None):
    """Return a linear classifier whose loss reads the weight of the penalty."""

    def forward(variables, batch, key, /, *, return_loss, eval_mode):
        if traces is not None:
            traces.append(eval_mode)
        w = variables["params"]["w"]
        logits = batch["x"] @ w
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["labels"])
        losses = losses + penalty.weight * (w**2).sum()
        return BatchData(logits=logits), Mean.of(losses, batch["row_mask"]), {}

    def init(key):
        return {"params": {"w": np.full((FEATURES, CLASSES), 0.5, np.float32)}}

    return TrainableComponent(
        init, as_it_is, collate_points, forward, optax.sgd, save_arrays, load_arrays
    )


def rows_of(result):
    return [tuple(part["loss"] for part in row.values()) for row in result.history]


def by_hand(weight_of, nb_epochs):
    """Return the losses of a plain loop in numpy, with a penalty that depends on the epoch."""
    data, held_out = points(8), points(5, seed=2)
    w = np.full((FEATURES, CLASSES), 0.5)

    def loss_and_slope(items, weight):
        x = np.stack([item["x"] for item in items]).astype(float)
        logits = x @ w
        p = np.exp(logits - logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        hot = np.eye(CLASSES)[[item["label"] for item in items]]
        loss = -np.log((p * hot).sum(1)).mean() + weight * (w**2).sum()
        return loss, x.T @ (p - hot) / len(items) + 2 * weight * w

    found = []
    for epoch in range(1, nb_epochs + 1):
        losses = []
        for batch in np.reshape(epoch_order(7, epoch, 8), (2, 4)):
            loss, slope = loss_and_slope([data[i] for i in batch], weight_of(epoch))
            losses.append(loss)
            w = w - 0.1 * slope
        found.append((np.mean(losses), loss_and_slope(held_out, weight_of(epoch))[0]))
    return found


@pytest.mark.parametrize(
    ("event", "steps_per_dispatch"),
    [
        ("on_epoch_begin", 1),
        ("on_epoch_end", 2),
        pytest.param("on_epoch_begin", 2, marks=pytest.mark.slow),
        pytest.param("on_epoch_end", 1, marks=pytest.mark.slow),
    ],
)
def test_an_annealed_value_is_used_in_the_next_epoch(tmp_path, event, steps_per_dispatch):
    penalty = Penalty()
    ahead = int(event == "on_epoch_end")

    def train(folder, nb_epochs, resume=None):
        callback = Sets(penalty, event, lambda facts: float(facts["epoch"] - 1 + ahead))
        return medjax.train(
            penalized(penalty),
            config(tmp_path / folder, nb_training_epochs=nb_epochs),
            points(8),
            points(5, seed=2),
            callback=[callback],
            options=Options(steps_per_dispatch=steps_per_dispatch, length_window=0),
            resume=resume,
        )

    expected = by_hand(lambda epoch: epoch - 1, 4)
    penalty.weight = 0.0
    np.testing.assert_allclose(rows_of(train("whole", 4)), expected, rtol=1e-5)
    penalty.weight = 0.0
    train("parts", 2)
    np.testing.assert_allclose(rows_of(train("parts", 4, "auto")), expected, rtol=1e-5)


def test_a_value_set_as_training_begins_is_not_kept_under_the_one_before(tmp_path):
    penalty = Penalty()
    component = penalized(penalty)

    def train(folder, *callbacks):
        settings = config(tmp_path / folder, nb_training_epochs=1)
        return rows_of(
            medjax.train(component, settings, points(8), points(5), callback=list(callbacks))
        )

    train("set", Sets(penalty, "on_train_begin", lambda _: 3.0))
    penalty.weight = 0.0
    assert train("plain") == rows_of(
        medjax.train(
            penalized(penalty),
            config(tmp_path / "fresh", nb_training_epochs=1),
            points(8),
            points(5),
            callback=[],
        )
    )


def test_a_change_within_an_epoch_counts_from_the_evaluation_on_and_is_told(tmp_path, caplog):
    penalty = Penalty()
    component = penalized(penalty)

    def train(folder, *callbacks):
        settings = config(tmp_path / folder, nb_training_epochs=1)
        return rows_of(
            medjax.train(component, settings, points(8), points(5), callback=list(callbacks))
        )[0]

    from_first_batch = Sets(penalty, "on_step_end", lambda _: 3.0)
    plain = train("plain")
    with caplog.at_level(logging.WARNING, "medjax"):
        changed = train("changed", from_first_batch)
    assert changed[0] == plain[0]
    assert changed[1] > plain[1] + 1
    (told,) = [r.message for r in caplog.records if "reads from outside changed" in r.message]
    assert "within the training of epoch 1" in told


def test_programs_traced_after_a_change_within_an_epoch_are_not_kept(tmp_path):
    penalty = Penalty()
    component = penalized(penalty)

    def train(folder, *callbacks):
        settings = config(tmp_path / folder, nb_training_epochs=1)
        return rows_of(medjax.train(component, settings, points(8), callback=list(callbacks)))

    train("changed", Sets(penalty, "on_step_begin", lambda _: 3.0))
    penalty.weight = 0.0
    (plain,) = by_hand(lambda _: 0.0, 1)
    np.testing.assert_allclose(train("plain"), [plain[:1]], rtol=1e-5)


def test_a_schedule_that_a_callback_changes_is_used_in_the_next_epoch(tmp_path):
    rate = Penalty(0.1)
    result = medjax.train(
        penalized(Penalty()),
        config(tmp_path, nb_training_epochs=3),
        points(8),
        points(5),
        schedule=lambda step: rate.weight,
        callback=[Sets(rate, "on_epoch_end", lambda _: 0.0)],
    )
    held_out = [loss for _, loss in rows_of(result)]
    assert held_out[0] == held_out[1] == held_out[2]


def test_what_only_a_trace_changes_traces_nothing_anew(tmp_path, caplog):
    traces = []
    result = medjax.train(
        penalized(Penalty(), traces),
        config(tmp_path, nb_training_epochs=3),
        points(8),
        points(5),
        callback=[],
    )
    assert result.nb_compilations == 2
    assert "outside" not in caplog.text


def test_compilations_of_all_programs_are_counted_once(tmp_path):
    penalty = Penalty()
    result = medjax.train(
        penalized(penalty),
        config(tmp_path, nb_training_epochs=4),
        points(8),
        points(5),
        callback=[Sets(penalty, "on_epoch_begin", lambda facts: float(facts["epoch"] % 2))],
    )
    assert result.nb_compilations == 4  # two values, training and evaluation


def test_a_change_in_some_processes_only_is_refused(monkeypatch):
    values = [0]
    outside = Outside(lambda: list(values))
    monkeypatch.setattr(distributed, "exchange", lambda value: [value, ""])
    assert not outside.has_changed()
    values[0] = 1
    with pytest.raises(RuntimeError, match=r"has changed in the processes \[0\] of 2 only"):
        outside.has_changed()
