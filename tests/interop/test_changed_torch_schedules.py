"""torch's schedulers in a resumed run, with arguments, functions or steps that have changed."""

import functools

import pytest
import torch
from torch.optim import lr_scheduler
from trained import make

import medjax
from medjax_torch import Options
from medjax_torch.session.resumed_schedulers import Counted, FreshScheduler
from medjax_torch.session.torch_settings import torch_settings


class Falls:
    """A factor that reaches 0 after a number of steps."""

    def __init__(self, steps):
        self.steps = steps

    def __call__(self, step):
        return max(0.0, 1 - step / self.steps)

    def factor(self, step):
        return self(step)


class Rates(medjax.TrainerCallback):
    """Records the rates at the beginnings of epochs."""

    def __init__(self):
        self.seen = []

    def on_epoch_begin(self, epoch):
        self.seen.append(self.trainer.optimizer.param_groups[0]["lr"])


def falling(steps):
    return lambda optimizer: lr_scheduler.LambdaLR(optimizer, lambda n: max(0.0, 1 - n / steps))


def cosine(steps):
    return lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, steps)


def in_sequence(steps):
    def build(optimizer):
        parts = [lr_scheduler.ConstantLR(optimizer, 0.5, 2), falling(steps)(optimizer)]
        return lr_scheduler.SequentialLR(optimizer, parts, [1])

    return build


def chained(steps):
    def build(optimizer):
        parts = [falling(steps)(optimizer), lr_scheduler.ExponentialLR(optimizer, 0.9)]
        return lr_scheduler.ChainedScheduler(parts)

    return build


def by(kind, *arguments, **more):
    return lambda optimizer: kind(optimizer, *arguments, **more)


def built(build, rate=0.1):
    """Return an optimizer and a scheduler, new."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate, momentum=0.9)
    return optimizer, build(optimizer)


def stepped(optimizer, scheduler, count):
    """Return what a scheduler sets in a number of steps."""
    found = []
    for _ in range(count):
        optimizer.step()
        scheduler.step()
        group = optimizer.param_groups[0]
        found.append((group["lr"], group["momentum"]))
    return found


def resumed(first, then, nb_steps, counted=None, rates=(0.1, 0.1), left=None):
    """Return an optimizer and a scheduler that goes on from the steps of another.

    A callback of the first run may have left another rate.
    """
    before, saved = built(first, rates[0])
    old = torch_settings(before, saved)["torch scheduler"]
    stepped(before, saved, nb_steps)
    if left is not None:
        before.param_groups[0]["lr"] = left
    optimizer, scheduler = built(then, rates[1])
    new = torch_settings(optimizer, scheduler)["torch scheduler"]
    fresh = FreshScheduler(scheduler)
    optimizer.load_state_dict(before.state_dict())
    scheduler.load_state_dict(saved.state_dict())
    fresh.follow(scheduler, old, new, counted or Counted("epoch", "epoch", nb_steps))
    return optimizer, scheduler


CHANGED = {
    "LambdaLR": (falling(2), falling(5)),
    "object": (by(lr_scheduler.LambdaLR, Falls(2)), by(lr_scheduler.LambdaLR, Falls(5))),
    "method": (
        by(lr_scheduler.LambdaLR, Falls(2).factor),
        by(lr_scheduler.LambdaLR, Falls(5).factor),
    ),
    "partial": tuple(
        by(lr_scheduler.LambdaLR, functools.partial(lambda n, steps: 1 - n / steps, steps=steps))
        for steps in (4, 9)
    ),
    "CosineAnnealingLR": (cosine(2), cosine(5)),
    "PolynomialLR": (by(lr_scheduler.PolynomialLR, 2), by(lr_scheduler.PolynomialLR, 5)),
    "LinearLR": (by(lr_scheduler.LinearLR, 1.0, 0.0, 2), by(lr_scheduler.LinearLR, 1.0, 0.0, 5)),
    "StepLR": (by(lr_scheduler.StepLR, 1, 0.5), by(lr_scheduler.StepLR, 1, 0.9)),
    "MultiStepLR": (by(lr_scheduler.MultiStepLR, [1, 3]), by(lr_scheduler.MultiStepLR, [2, 4])),
    "CosineAnnealingWarmRestarts": (
        by(lr_scheduler.CosineAnnealingWarmRestarts, 2),
        by(lr_scheduler.CosineAnnealingWarmRestarts, 5),
    ),
    "OneCycleLR": (
        by(lr_scheduler.OneCycleLR, 0.2, total_steps=4),
        by(lr_scheduler.OneCycleLR, 0.2, total_steps=9),
    ),
    "CyclicLR": (
        by(lr_scheduler.CyclicLR, 0.1, 0.2, step_size_up=2),
        by(lr_scheduler.CyclicLR, 0.1, 0.2, step_size_up=5),
    ),
    "SequentialLR": (in_sequence(2), in_sequence(5)),
    "ChainedScheduler": (chained(2), chained(5)),
}


@pytest.mark.parametrize(("first", "then"), CHANGED.values(), ids=CHANGED)
def test_a_changed_scheduler_goes_on_as_a_new_one_would(caplog, first, then):
    optimizer, scheduler = resumed(first, then, 2)
    assert "goes on where a new one would be after 2 steps, each after an epoch" in caplog.text
    found = [(optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"])]
    found += stepped(optimizer, scheduler, 2)
    assert found == stepped(*built(then), 4)[1:]


@pytest.mark.parametrize("build", [pair[0] for pair in CHANGED.values()], ids=CHANGED)
def test_a_scheduler_that_stays_as_it_was_keeps_the_rates_that_others_have_set(caplog, build):
    expected = built(build)
    stepped(*expected, 2)
    expected[0].param_groups[0]["lr"] = 0.123
    found = resumed(build, build, 2, left=0.123)
    assert found[0].param_groups[0]["lr"] == 0.123
    assert stepped(*found, 1) == stepped(*expected, 1)
    assert "Resuming" not in caplog.text


def test_a_function_is_the_same_after_the_rate_has_changed(caplog):
    _, scheduler = resumed(falling(5), falling(5), 2, rates=(0.1, 0.01))
    assert scheduler.base_lrs == [0.01]
    assert scheduler.get_last_lr() == [pytest.approx(0.01 * 0.6)]
    settings = torch_settings(*built(falling(5), 0.01))["torch scheduler"]
    fresh = FreshScheduler(built(falling(5), 0.01)[1])
    fresh.follow(scheduler, settings, settings, Counted("epoch", "epoch", 2))
    assert "Resuming" not in caplog.text


def test_a_class_of_the_user_takes_its_arguments_and_says_that_the_rate_stays(caplog):
    class Halves(lr_scheduler.LRScheduler):
        def __init__(self, optimizer, factor):
            self.factor = factor
            super().__init__(optimizer)

        def get_lr(self):
            return [group["lr"] * self.factor for group in self.optimizer.param_groups]

    _, scheduler = resumed(by(Halves, 0.0), by(Halves, 0.5), 1)
    assert scheduler.factor == 0.5
    assert "the learning rate stays 0.0 until the scheduler Halves sets another" in caplog.text
    with pytest.raises(medjax.MismatchError, match=r"lr_scheduler_interval was 'step' .* 'epoch'"):
        resumed(by(Halves, 0.5), by(Halves, 0.5), 1, Counted("step", "epoch", 1))


def trained(folder, epochs, build, interval="epoch"):
    """Return the rates of epochs of a run that may be resumed."""
    rates = Rates()
    trainer = make(
        folder,
        nb_training_epochs=epochs,
        lr_scheduler_builder=build,
        learning_rate=0.1,
        callback=rates,
        options=Options(lr_scheduler_interval=interval),
    )
    rates.trainer = trainer
    trainer.train(resume="auto")
    return trainer, rates.seen


def test_a_schedule_made_longer_trains_on_from_the_first_new_epoch(tmp_path):
    trained(tmp_path, 2, falling(2))
    _, rates = trained(tmp_path, 4, falling(5))
    assert rates == pytest.approx([0.06, 0.04])


@pytest.mark.parametrize("intervals", [("epoch", "step"), ("step", "epoch")], ids="-to-".join)
def test_a_scheduler_counts_what_is_done_in_its_new_unit(tmp_path, caplog, intervals):
    first, _ = trained(tmp_path, 2, falling(1000), intervals[0])
    done = {"epoch": 2, "step": 2 * len(first.train_dataloader)}[intervals[1]]
    _, rates = trained(tmp_path, 3, falling(1000), intervals[1])
    assert rates == pytest.approx([0.1 * (1 - done / 1000)])
    assert f"lr_scheduler_interval was {intervals[0]!r} and is {intervals[1]!r}" in caplog.text
