"""Weights and buffers that callbacks read and write while a component trains."""

import copy

import numpy as np
import pytest
import torch
from living_runs import both, train
from torch import nn
from trained import POINTS, Classifier

import medjax_torch
from medjax_torch.graph import TraceError


def clamp_each_step(component, trainer):
    def on_step_end(step, nb_batches, phase):
        for parameter in component.model.parameters():
            parameter.data.clamp_(-0.2, 0.2)

    return {"on_step_end": on_step_end}


def load_at_the_beginning(component, trainer):
    def on_train_begin(config):
        with torch.no_grad():
            for parameter in component.model.parameters():
                parameter.mul_(0.5)

    return {"on_train_begin": on_train_begin}


def clamp_kept_views(component, trainer):
    kept = [parameter.data for parameter in component.model.parameters()]

    def on_step_end(step, nb_batches, phase):
        for view in kept:
            view.clamp_(-0.2, 0.2)

    return {"on_step_end": on_step_end}


def shrink_kept_views_after_each_epoch(component, trainer):
    kept = [parameter.data for parameter in component.model.parameters()]

    def on_epoch_end(metrics, epoch, epoch_duration):
        for view in kept:
            view.mul_(0.5)

    return {"on_epoch_end": on_epoch_end}


def write_by_numpy(component, trainer):
    kept = component.model[0].weight.detach().numpy()

    def on_step_end(step, nb_batches, phase):
        np.clip(kept, -0.2, 0.2, out=kept)

    return {"on_step_end": on_step_end}


def load_at_the_end(component, trainer):
    def on_train_end():
        with torch.no_grad():
            for parameter in component.model.parameters():
                parameter.mul_(0.5)

    return {"on_train_end": on_train_end}


def clamp_after_each_epoch(component, trainer):
    def on_epoch_end(metrics, epoch, epoch_duration):
        component.model[0].weight.data.clamp_(-0.2, 0.2)

    return {"on_epoch_end": on_epoch_end}


@pytest.mark.parametrize(
    "callbacks",
    [
        shrink_kept_views_after_each_epoch,
        load_at_the_end,
        clamp_after_each_epoch,
        clamp_each_step,
        load_at_the_beginning,
        clamp_kept_views,
        write_by_numpy,
    ],
)
def test_weights_written_by_a_callback_are_used(tmp_path, callbacks):
    both(tmp_path, Classifier, callbacks)


def average_and_swap(component, trainer):
    """An exponential moving average that replaces the weights during evaluation."""
    average = copy.deepcopy(component.model)
    evaluate = trainer.evaluation_epoch

    def on_step_end(step, nb_batches, phase):
        if phase == "train":
            for kept, parameter in zip(
                average.parameters(), component.model.parameters(), strict=True
            ):
                kept.data.lerp_(parameter.data, 0.3)

    def evaluation_epoch(loader):
        saved = copy.deepcopy(component.model.state_dict())
        component.model.load_state_dict(average.state_dict())
        try:
            return evaluate(loader)
        finally:
            component.model.load_state_dict(saved)

    trainer.evaluation_epoch = evaluation_epoch
    return {"on_step_end": on_step_end}


def test_averaged_weights_can_be_swapped_in_for_evaluation(tmp_path):
    both(tmp_path, Classifier, average_and_swap)


def test_a_callback_sees_the_current_weights(tmp_path):
    seen = {}

    def callbacks(component, trainer):
        sums = seen.setdefault(trainer.__module__.partition(".")[0], [])

        def on_step_end(step, nb_batches, phase):
            with torch.no_grad():
                sums.append(float(component.model(POINTS[:4]).sum()))

        return {"on_step_end": on_step_end}

    both(tmp_path, Classifier, callbacks)
    np.testing.assert_allclose(seen["medjax_torch"], seen["medkit"], rtol=1e-4, atol=1e-5)


class Normed(Classifier):
    def __init__(self):
        super().__init__(optimizer=torch.optim.SGD)
        self.model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))


def reset_statistics(component, trainer):
    def on_epoch_begin(epoch):
        if epoch == 2:
            component.model[1].reset_running_stats()

    return {"on_epoch_begin": on_epoch_begin}


def register_again(component, trainer):
    def on_epoch_begin(epoch):
        if epoch == 2:
            component.model[1].register_buffer("running_mean", torch.full((8,), 0.5))

    return {"on_epoch_begin": on_epoch_begin}


@pytest.mark.parametrize("callbacks", [reset_statistics, register_again])
def test_buffers_can_be_written_and_registered_again(tmp_path, callbacks):
    both(tmp_path, Normed, callbacks)


def test_a_replaced_parameter_is_refused_by_name(tmp_path):
    def callbacks(component, trainer):
        def on_epoch_begin(epoch):
            if epoch == 2:
                component.model[3] = nn.Linear(16, 3)

        return {"on_epoch_begin": on_epoch_begin}

    with pytest.raises(TraceError, match=r"model\.3\.weight of the component was replaced"):
        train(medjax_torch, tmp_path, Classifier(), callbacks)


@pytest.mark.parametrize("steps", [1, 3])
def test_weights_read_within_a_call_of_several_steps_are_warned_about(tmp_path, caplog, steps):
    def callbacks(component, trainer):
        def on_step_end(step, nb_batches, phase):
            if phase == "train":
                component.model[0].weight.sum().item()

        return {"on_step_end": on_step_end}

    options = medjax_torch.Options(steps_per_dispatch=steps)
    with caplog.at_level("WARNING", "medjax"):
        train(medjax_torch, tmp_path, Classifier(), callbacks, options=options)
    warnings = [text for text in caplog.messages if "steps_per_dispatch" in text]
    assert len(warnings) == (steps > 1)


def test_looks_between_epochs_need_no_warning(tmp_path, caplog):
    def callbacks(component, trainer):
        def on_epoch_end(metrics, epoch, epoch_duration):
            component.model[0].weight.sum().item()

        return {"on_epoch_end": on_epoch_end}

    options = medjax_torch.Options(steps_per_dispatch=3)
    with caplog.at_level("WARNING", "medjax"):
        train(medjax_torch, tmp_path, Classifier(), callbacks, options=options)
    assert not [text for text in caplog.messages if "steps_per_dispatch" in text]


def test_a_parameter_of_another_shape_is_refused_by_name(tmp_path):
    def callbacks(component, trainer):
        def on_epoch_begin(epoch):
            if epoch == 2:
                component.model[0].weight.data = torch.zeros(2)

        return {"on_epoch_begin": on_epoch_begin}

    with pytest.raises(ValueError, match=r"weight was given the shape \(2,\)"):
        train(medjax_torch, tmp_path, Classifier(), callbacks)


def test_an_error_of_a_callback_is_not_hidden_by_writing_weights_back(tmp_path):
    def callbacks(component, trainer):
        def on_epoch_begin(epoch):
            if epoch == 2:
                component.model[0].weight.data = torch.zeros(2)
                raise RuntimeError("the first cause")

        return {"on_epoch_begin": on_epoch_begin}

    with pytest.raises(RuntimeError, match="the first cause") as caught:
        train(medjax_torch, tmp_path, Classifier(), callbacks)
    assert any("could not be written back" in note for note in caught.value.__notes__)
