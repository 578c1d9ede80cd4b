"""Callbacks that read and change the state of the optimizer, which is on the device."""

import copy
import functools
import io

import pytest
import torch
from plain_loop import Loop, check, ours
from trained import Classifier

with_momentum = functools.partial(Classifier, torch.optim.SGD, momentum=0.9)
OPTIMIZERS = {
    "SGD": with_momentum,
    "AdamW": Classifier,
    "traced": functools.partial(Classifier, torch.optim.Adafactor),
}


def clear(trainer):
    def on_epoch_begin(epoch):
        if epoch == 2:
            trainer.optimizer.state.clear()

    return {"on_epoch_begin": on_epoch_begin}


def reload(trainer):
    saved = {}

    def on_epoch_begin(epoch):
        if epoch == 2:
            saved["state"] = copy.deepcopy(trainer.optimizer.state_dict())
        if epoch == 4:
            trainer.optimizer.load_state_dict(saved["state"])

    return {"on_epoch_begin": on_epoch_begin}


def forget_one(trainer):
    def on_step_end(step, nb_batches, phase):
        if phase == "train" and step == 1:
            trainer.optimizer.state.pop(trainer.component.model[0].weight)

    return {"on_step_end": on_step_end}


def write_in_place(trainer):
    def on_step_end(step, nb_batches, phase):
        if phase == "train":
            for entries in trainer.optimizer.state.values():
                for value in entries.values():
                    if torch.is_tensor(value) and value.dim():
                        value.mul_(0.5)

    return {"on_step_end": on_step_end}


def replace(trainer):
    def on_epoch_end(metrics, epoch, epoch_duration):
        for entries in trainer.optimizer.state.values():
            for name, value in entries.items():
                if torch.is_tensor(value) and value.dim():
                    entries[name] = torch.zeros_like(value)

    return {"on_epoch_end": on_epoch_end}


@pytest.mark.parametrize("events", [clear, reload, forget_one, write_in_place, replace])
@pytest.mark.parametrize(
    "component",
    [pytest.param(c, marks=pytest.mark.slow) if n == "SGD" else c for n, c in OPTIMIZERS.items()],
    ids=OPTIMIZERS,
)
def test_what_callbacks_do_to_the_state_is_done(tmp_path, component, events):
    check(tmp_path, component, events, epochs=4, lr=0.02)


def test_the_state_is_current_when_it_is_read(tmp_path):
    seen = {}

    def events(trainer):
        def on_step_end(step, nb_batches, phase):
            if phase == "train":
                weight = trainer.component.model[0].weight
                norm = trainer.optimizer.state[weight]["exp_avg"].norm()
                seen.setdefault(type(trainer), []).append(norm)

        return {"on_step_end": on_step_end}

    check(tmp_path, Classifier, events)
    ((_, actual), (_, expected)) = seen.items()
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-7)
    assert len(set(actual)) == len(actual)


def test_the_state_can_be_copied_and_is_torchs_own_afterwards(tmp_path):
    copies = []

    def events(trainer):
        def on_epoch_end(metrics, epoch, epoch_duration):
            file = io.BytesIO()
            torch.save(trainer.optimizer.state_dict(), file)
            copies.append(copy.deepcopy(trainer.optimizer).state)
            copies.append(copy.copy(trainer.optimizer.state))

        return {"on_epoch_end": on_epoch_end}

    trainer = ours(tmp_path, Classifier(), events)
    kinds = {type(state) for state in [*copies, trainer.optimizer.state]}
    assert kinds == {type(torch.optim.SGD([torch.ones(1)]).state)}
    loop = Loop(Classifier(), 0.05)
    loop.train(lambda _: {})
    for index, entries in loop.optimizer.state_dict()["state"].items():
        own = trainer.optimizer.state_dict()["state"][index]
        torch.testing.assert_close(own["exp_avg"], entries["exp_avg"], rtol=1e-4, atol=1e-6)
