"""What optimizer, scheduler, callbacks and modules say is what holds, as in torch."""

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler
from trained import Classifier, make, same, weights

import medjax
from medjax_torch import Options
from medjax_torch.conversion import graph_cache


class SetsGroups(medjax.TrainerCallback):
    """Sets values in the groups of an optimizer when an epoch begins."""

    def __init__(self, **values):
        self.values, self.trainer = values, None

    def on_epoch_begin(self, epoch):
        for group in self.trainer.optimizer.param_groups:
            group.update(self.values)


def goes_on(folder, component, **settings):
    """Train for one epoch, then with this component and these settings for two more."""
    make(folder, Classifier(), nb_training_epochs=1).train()
    callback = settings.get("callback")
    trainer = make(folder, component, nb_training_epochs=3, **settings)
    if callback is not None:
        callback.trainer = trainer
    trainer.train(resume="auto")
    return weights(component)


@pytest.mark.parametrize(
    ("changed", "options"),
    [
        pytest.param({"lr": 0.04}, {}, id="rate"),
        pytest.param(
            {"weight_decay": 0.5}, {"weight_decay": 0.5}, id="decay", marks=pytest.mark.slow
        ),
    ],
)
def test_what_is_changed_for_a_resumed_run_is_in_force(tmp_path, changed, options):
    rate = {"learning_rate": changed["lr"]} if "lr" in changed else {}
    resumed = goes_on(tmp_path / "changed", Classifier(**options), **rate)
    callback = SetsGroups(**changed)
    set_later = goes_on(tmp_path / "set later", Classifier(), callback=callback)
    kept = goes_on(tmp_path / "kept", Classifier())
    assert same(resumed, set_later)
    assert not same(resumed, kept)


@pytest.mark.parametrize("interval", ["epoch", "step"])
def test_a_rate_that_is_a_tensor_may_be_changed_in_place(tmp_path, interval):
    class WithTensor(Classifier):
        def configure_optimizer(self, lr):
            return super().configure_optimizer(torch.tensor(lr))

    ends = []
    for kind in (WithTensor, Classifier):
        component = kind()
        make(
            tmp_path / kind.__name__,
            component,
            options=Options(lr_scheduler_interval=interval),
            lr_scheduler_builder=lambda optimizer: lr_scheduler.StepLR(optimizer, 1, 0.5),
        ).train()
        ends.append(weights(component))
    assert same(*ends)


def test_a_rate_that_is_a_tensor_may_be_changed_for_a_resumed_run(tmp_path):
    class WithTensor(Classifier):
        def configure_optimizer(self, lr):
            return super().configure_optimizer(torch.tensor(lr))

    ends = []
    for kind in (WithTensor, Classifier):
        folder = tmp_path / kind.__name__
        make(folder, kind(), nb_training_epochs=1).train()
        component = kind()
        make(folder, component, nb_training_epochs=2, learning_rate=0.04).train(resume="auto")
        ends.append(weights(component))
    assert same(*ends)


def rates_of(trainer, epochs):
    """Return the rates that a new scheduler like the trainer's gives in torch alone."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([parameter], lr=trainer.config.learning_rate)
    scheduler = trainer.builder(optimizer)
    for _ in range(epochs):
        optimizer.step()
        scheduler.step()
    return optimizer.param_groups[0]["lr"]


def multi_step(milestones):
    return lambda optimizer: lr_scheduler.MultiStepLR(optimizer, milestones)


def one_cycle(total):
    return lambda optimizer: lr_scheduler.OneCycleLR(optimizer, 0.02, total_steps=total)


def warm_restart(optimizer):
    parts = [
        lr_scheduler.LambdaLR(optimizer, lambda epoch: 1.0 + epoch),
        lr_scheduler.ExponentialLR(optimizer, 0.5),
    ]
    return lr_scheduler.SequentialLR(optimizer, parts, [2])


@pytest.mark.parametrize(
    ("first", "then", "rate"),
    [
        (multi_step([2, 4]), multi_step([3, 7]), 0.01),
        (one_cycle(4), one_cycle(9), 0.01),
        (warm_restart, warm_restart, 0.04),
    ],
    ids=["milestones", "phases", "parts"],
)
def test_a_changed_scheduler_follows_its_new_arguments(tmp_path, first, then, rate):
    make(tmp_path, nb_training_epochs=1, lr_scheduler_builder=first).train()
    trainer = make(tmp_path, nb_training_epochs=4, lr_scheduler_builder=then, learning_rate=rate)
    trainer.train(resume="auto")
    trainer.builder = then
    rate = trainer.optimizer.param_groups[0]["lr"]
    assert rate == pytest.approx(rates_of(trainer, epochs=4))


def test_a_schedule_holds_the_rate_from_the_first_epoch(tmp_path):
    schedule = medjax.schedules.by_epoch(lambda epoch: 1e-4 * 2.0**epoch)
    ends = []
    for rate in (1e-2, 1e-4):  # the optimizer's own rate, which the schedule replaces
        component = Classifier(torch.optim.SGD)
        make(
            tmp_path / str(rate), component, learning_rate=rate, lr_scheduler_builder=schedule
        ).train()
        ends.append(weights(component))
    for name, value in ends[0].items():
        np.testing.assert_allclose(value, ends[1][name], rtol=1e-6, atol=1e-8)


def test_a_warm_up_reaches_groups_behind_one_with_a_rate_of_0(tmp_path):
    class Frozen(Classifier):
        def configure_optimizer(self, lr):
            first, last = self.model[0].parameters(), self.model[3].parameters()
            return torch.optim.SGD([{"params": first, "lr": 0.0}, {"params": last}], lr=lr)

    class Alone(Classifier):
        def configure_optimizer(self, lr):
            return torch.optim.SGD(self.model[3].parameters(), lr=lr)

    ends = []
    for kind in (Frozen, Alone):
        component = kind()
        options = Options(warmup_steps=20)
        make(tmp_path / kind.__name__, component, nb_training_epochs=1, options=options).train()
        ends.append(weights(component))
    assert same(*ends)


def test_weights_that_a_callback_writes_before_it_saves_are_kept(tmp_path):
    class Halves(medjax.TrainerCallback):
        def __init__(self, saves):
            self.saves, self.trainer = saves, None

        def on_epoch_end(self, metrics, epoch, epoch_duration):
            with torch.no_grad():
                for parameter in self.trainer.component.model.parameters():
                    parameter.mul_(0.5)
            if self.saves:
                self.trainer.save(epoch)

    ends = []
    for saves in (False, True):
        callback = Halves(saves)
        callback.trainer = trainer = make(tmp_path / str(saves), callback=callback)
        trainer.train()
        ends.append(weights(trainer.component))
    assert same(*ends)


def test_callbacks_find_modules_in_the_mode_in_which_torch_leaves_them(tmp_path):
    found = {"train": [], "eval": []}

    class Looks(medjax.TrainerCallback):
        def on_step_end(self, step_idx, nb_batches, phase):
            found[phase].append([part.training for part in component.model.modules()])

        def on_epoch_end(self, metrics, epoch, epoch_duration):
            found["eval"].append([part.training for part in component.model.modules()])
            component.model.train()  # the next forward sets it again

    component = Classifier(dropout=0.5)
    component.model.eval()
    make(tmp_path, component, callback=Looks(), nb_training_epochs=2).train()
    parts = len([*component.model.modules()])
    assert all(modes == [True] * parts for modes in found["train"])
    assert all(modes == [False] * parts for modes in found["eval"])
    assert len(found["train"]) == 2 * 6


def test_modes_that_a_module_looks_at_to_set_them_trace_nothing_again(tmp_path, monkeypatch):
    class Looks(torch.nn.Sequential):
        """Looks whether its mode changes, as models of transformers do."""

        def train(self, mode=True):
            assert self.training != mode or self.training == mode
            return super().train(mode)

    traced = []

    def counting(*args, **options):
        traced.append(options["train"])
        return trace(*args, **options)

    trace = graph_cache.trace
    monkeypatch.setattr(graph_cache, "trace", counting)
    counts = []
    for kind in (torch.nn.Sequential, Looks):
        component = Classifier(dropout=0.5)
        component.model = kind(*component.model)
        make(tmp_path / kind.__name__, component).train()
        counts.append(len(traced))
        traced.clear()
    assert counts[0] == counts[1]
