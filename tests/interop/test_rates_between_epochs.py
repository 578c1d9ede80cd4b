"""A learning rate that is set once, or last before the end of an epoch, stays in the next."""

import functools

import pytest
import torch
from plain_loop import check, ours
from trained import Classifier, same, weights

from medjax_torch import Options

sgd = functools.partial(Classifier, torch.optim.SGD)


def warm_up(optimizer):
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, step / 2))


def milestones(optimizer):
    return torch.optim.lr_scheduler.MultiStepLR(optimizer, [1, 7])


@pytest.mark.parametrize("scheduler", [warm_up, milestones])
@pytest.mark.parametrize("component", [sgd, Classifier], ids=["SGD", "AdamW"])
def test_a_scheduler_that_stops_changing_within_an_epoch(tmp_path, component, scheduler):
    check(tmp_path, component, scheduler=scheduler, epochs=4)


@pytest.mark.parametrize("event", ["on_train_begin", "on_step_begin"])
def test_a_rate_set_once(tmp_path, event):
    def events(trainer):
        calls = []

        def once(**_):
            if not calls:
                trainer.optimizer.param_groups[0]["lr"] = 0.2
            calls.append(1)

        return {event: once}

    check(tmp_path, sgd, events)


def test_a_resumed_run_keeps_the_rate(tmp_path):
    options = Options(lr_scheduler_interval="step")
    complete, parts = sgd(), sgd()
    ours(tmp_path / "complete", complete, scheduler=milestones, options=options, epochs=4)
    ours(tmp_path / "parts", sgd(), scheduler=milestones, options=options, epochs=2)
    ours(tmp_path / "parts", parts, scheduler=milestones, options=options, epochs=4, resume="auto")
    assert same(weights(parts), weights(complete))
