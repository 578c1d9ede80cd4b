"""A schedule of `medjax.schedules` over a torch optimizer, resumed with other settings."""

import json

import pytest
import torch
from trained import DATA, Accuracy, Classifier, make, same, weights

import medjax
from medjax_torch import Options


class Steady(Classifier):
    """Its optimizer has a rate of its own, whatever the configured one is."""

    def __init__(self, rate):
        super().__init__(torch.optim.SGD)
        self.rate = rate

    def configure_optimizer(self, lr):
        return super().configure_optimizer(self.rate)


def halving(mode="min"):
    """Return a schedule that halves the rate after every second epoch."""
    return medjax.reduce_on_plateau(mode=mode, factor=0.5, patience=1, threshold=1e9)


def configured(rate):
    return Classifier(torch.optim.SGD), {"learning_rate": rate}


def of_its_own(rate):
    return Steady(rate), {}


def after(folder, schedules, rates, settings_of=configured, **more):
    """Return the weights after three epochs, and a fourth with another schedule and rate."""
    for epochs, schedule, rate in zip((3, 4), schedules, rates, strict=True):
        component, settings = settings_of(rate)
        make(
            folder,
            component,
            nb_training_epochs=epochs,
            lr_scheduler_builder=schedule,
            **settings,
            **more,
        ).train(resume="auto")
    return weights(component)


@pytest.mark.parametrize(
    ("settings_of", "options"),
    [
        (configured, Options()),
        (of_its_own, Options(warmup_steps=12)),
        pytest.param(configured, Options(warmup_steps=12), marks=pytest.mark.slow),
        pytest.param(of_its_own, Options(), marks=pytest.mark.slow),
    ],
)
def test_a_plateau_schedule_starts_again_from_a_changed_rate(tmp_path, settings_of, options):
    schedules = {"plateau": halving(), "constant": None}
    ends = {
        name: after(
            tmp_path / name, (halving(), schedule), (0.1, 0.01), settings_of, options=options
        )
        for name, schedule in schedules.items()
    }
    assert same(ends["plateau"], ends["constant"])


def test_a_rate_by_epoch_is_that_of_the_current_function(tmp_path, caplog):
    first = medjax.schedules.by_epoch(lambda epoch: 0.1)
    then = medjax.schedules.by_epoch(lambda epoch: 0.01)
    changed = after(tmp_path / "changed", (first, then), (0.01, 0.01))
    assert "the rate set for epoch 4 was 0.1 and is 0.01 now" in caplog.text
    assert same(changed, after(tmp_path / "constant", (first, None), (0.01, 0.01)))


@pytest.mark.parametrize(
    "schedule",
    [halving(), medjax.schedules.by_epoch(lambda epoch: 0.1 * 0.5**epoch), None],
    ids=["plateau", "by epoch", "constant"],
)
def test_what_stays_as_it_was_ends_as_if_uninterrupted(tmp_path, caplog, schedule):
    options = Options(warmup_steps=20)
    resumed = after(tmp_path / "parts", (schedule, schedule), (0.1, 0.1), options=options)
    assert "Resuming" not in caplog.text
    component, settings = configured(0.1)
    make(
        tmp_path / "complete",
        component,
        nb_training_epochs=4,
        lr_scheduler_builder=schedule,
        options=options,
        **settings,
    ).train()
    assert same(resumed, weights(component))


def test_what_a_plateau_schedule_saw_of_another_metric_is_dropped(tmp_path, caplog):
    def run(epochs, metric, mode):
        trainer = make(
            tmp_path,
            Classifier(torch.optim.SGD),
            nb_training_epochs=epochs,
            metrics_computer=Accuracy(),
            metric_to_track_lr=metric,
            lr_scheduler_builder=halving(mode),
        )
        history = trainer.train(resume="auto")
        saved = json.loads((trainer.last_checkpoint / "training_state.json").read_text())
        return history, saved["progress"]["schedule"]

    _, before = run(3, "loss", "min")
    history, found = run(4, "accuracy", "max")
    assert "what it had seen of the metric is dropped" in caplog.text
    assert found["learning_rate"] == before["learning_rate"]
    assert found["best"] == history[-1]["eval"]["accuracy"]


@pytest.mark.parametrize("metric", ["loss", "accuracy"])
def test_a_plateau_of_torch_drops_what_it_saw_of_another_metric(tmp_path, caplog, metric):
    def plateau(optimizer):
        return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode="min", patience=5)

    def trainer(epochs, metric):
        return make(
            tmp_path,
            nb_training_epochs=epochs,
            lr_scheduler_builder=plateau,
            metrics_computer=Accuracy(),
            metric_to_track_lr=metric,
        )

    trainer(2, "loss").train()
    second = trainer(3, metric)
    history = second.train(resume="auto")
    best = min(row["eval"]["loss"] for row in history)
    expected = best if metric == "loss" else history[-1]["eval"][metric]
    assert second.lr_scheduler.best == pytest.approx(expected)
    assert ("what ReduceLROnPlateau has seen" in caplog.text) == (metric != "loss")


def test_a_plateau_of_torch_drops_what_it_saw_of_other_evaluation_data(tmp_path, caplog):
    def trainer(epochs, nb_evaluated):
        return make(
            tmp_path,
            nb_training_epochs=epochs,
            lr_scheduler_builder=torch.optim.lr_scheduler.ReduceLROnPlateau,
            evaluated=DATA[:nb_evaluated],
        )

    trainer(2, 20).train()
    second = trainer(3, 4)
    history = second.train(resume="auto")
    assert second.lr_scheduler.best == pytest.approx(history[-1]["eval"]["loss"])
    told = "number of evaluation items was 20 and is 4 now: what ReduceLROnPlateau has seen of the"
    assert told in caplog.text
    assert second.best_checkpoint == second.last_checkpoint
