"""Callbacks that cannot have the effect that they would have in torch are warned."""

import pytest
from plain_loop import ours
from torch import nn
from trained import Classifier

from medjax_torch import Options


def clipping(trainer):
    def on_step_end(step, nb_batches, phase):
        nn.utils.clip_grad_norm_(trainer.component.model.parameters(), 0.01)

    return {"on_step_end": on_step_end}


@pytest.mark.parametrize(("accumulation", "times"), [(1, 0), (2, 1)])
def test_gradients_are_not_there_while_batches_accumulate(tmp_path, caplog, accumulation, times):
    ours(tmp_path, Classifier(), clipping, accumulation=accumulation)
    assert caplog.text.count("set Options(max_grad_norm=...)") == times


def rate_by(event):
    def events(trainer):
        def on_step_begin(step, nb_batches, phase):
            if phase == "train":
                trainer.optimizer.param_groups[0]["lr"] *= 0.9

        def on_step_end(step, nb_batches, phase):
            on_step_begin(step, nb_batches, phase)

        def at_end_of_call(step, nb_batches, phase):
            if (step + 1) % 3 == 0 or step + 1 == nb_batches:
                on_step_begin(step, nb_batches, phase)

        def on_epoch_begin(epoch):
            trainer.optimizer.param_groups[0]["lr"] *= 0.9

        return {event if event.startswith("on") else "on_step_end": locals()[event]}

    return events


@pytest.mark.parametrize(
    ("event", "times"),
    [("on_step_begin", 1), ("on_step_end", 1), ("at_end_of_call", 0), ("on_epoch_begin", 0)],
)
def test_settings_that_change_within_a_call(tmp_path, caplog, event, times):
    options = Options(steps_per_dispatch=3)
    ours(tmp_path, Classifier(), rate_by(event), options=options)
    assert caplog.text.count("all of them with the same settings") == times
