"""What forward reads and changes outside of attributes with numbers: compared with a torch loop."""

import itertools
import os
from collections import defaultdict

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from trained import DATA, Classifier, make

from medjax_torch import BatchData, Trainer
from medjax_torch.callbacks import TrainerCallback
from medjax_torch.graph import TraceError

STEP = 0
COUNTS = {"n": 0}
CRITERION = nn.CrossEntropyLoss(weight=torch.ones(3))
WEIGHTS = {"classes": torch.ones(3)}


class Settings:
    """An object with numbers of its own, in other objects, and computed from them."""

    def __init__(self):
        self.alpha, self.calls = 1.0, 0

    @property
    def doubled(self):
        return 2 * self.alpha

    def __call__(self):
        self.calls += 1
        return self.calls


SETTINGS, NESTED = Settings(), Settings()
NESTED.inner = Settings()


class Counting(Classifier):
    """Adds a term to the loss from the eleventh call on, as `count` says."""

    shared = 0

    def __init__(self, count, held=None):
        super().__init__(optimizer=torch.optim.SGD)
        self.count, self.held = count, held

    def forward(self, batch, return_loss, eval_mode):
        outputs, loss = super().forward(batch, return_loss, eval_mode)
        term = self.model[0].weight.pow(2).sum()
        return outputs, loss + (0.0 if self.count(self) <= 10 else 1.0) * term


def lazily(self):
    if not hasattr(self, "n"):
        self.n = 0
    self.n += 1
    return self.n


def from_none(self):
    self.held = 0 if self.held is None else self.held + 1
    return self.held


def by_get(self):
    self.held["train"] = self.held.get("train", 0) + 1
    return self.held["train"]


def by_default(self):
    self.held["train"] += 1
    return self.held["train"]


def in_array(self):
    self.held[0] += 1
    return float(self.held[0])


def appended(self):
    self.held.append(1)
    return len(self.held)


def added(self):
    self.held.add(len(self.held))
    return len(self.held)


def global_number(self):
    global STEP
    STEP += 1
    return STEP


def global_dict(self):
    COUNTS["n"] += 1
    return COUNTS["n"]


def class_attribute(self):
    type(self).shared += 1
    return self.shared


def advanced(self):
    return next(self.held)


def called(self):
    return SETTINGS()


def in_closure():
    n = 0

    def count(self):
        nonlocal n
        n += 1
        return n

    return count


@pytest.mark.parametrize(
    ("count", "held", "name"),
    [
        (lazily, None, "n"),
        (from_none, None, "held"),
        (by_get, {}, "held.train"),
        (by_default, defaultdict(int), "held.train"),
        (in_array, np.zeros(1), "held"),
        (appended, [], "held"),
        (added, set(), "held"),
        (global_number, None, "STEP"),
        (global_dict, None, "COUNTS.n"),
        (class_attribute, None, "Counting.shared"),
        (advanced, itertools.count(), "held"),
        (called, None, "SETTINGS.calls"),
        (in_closure(), None, "count.n"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_counter_is_refused_by_name_wherever_it_is(tmp_path, count, held, name):
    with pytest.raises(TraceError, match=rf"both reads and changes {name}: .*torch.clamp"):
        make(tmp_path, Counting(count, held)).train()
    assert (STEP, COUNTS, Counting.shared, SETTINGS.calls) == (0, {"n": 0}, 0, 0)


def cached(self):
    if self.held is None:
        self.held = 7
    return self.held


def logged(self):
    self.held.append(torch.zeros(()))
    return 20


@pytest.mark.parametrize(("count", "held"), [(cached, None), (logged, [])])
def test_what_is_computed_once_or_only_stored_is_no_counter(tmp_path, count, held):
    make(tmp_path, Counting(count, held)).train()


class InOrder(Trainer):
    def get_dataloader(self, data, shuffle):
        return super().get_dataloader(data, shuffle=False)


class AtEpochs(TrainerCallback):
    def __init__(self, change, owner):
        self.change, self.owner = change, owner

    def on_epoch_begin(self, epoch):
        self.change(self.owner, epoch)

    def on_epoch_end(self, metrics, epoch, epoch_duration):
        pass


class Reading(Classifier):
    def __init__(self, loss):
        super().__init__(optimizer=torch.optim.SGD)
        self.loss = loss

    def configure_optimizer(self, lr):
        self.kept = super().configure_optimizer(lr)
        return self.kept

    def forward(self, batch, return_loss, eval_mode):
        self.model.train(not eval_mode)
        logits = self.model(batch["x"])
        return BatchData(logits=logits), self.loss(self, logits, batch["y"])


def set_criterion(component, epoch):
    global CRITERION
    CRITERION = nn.CrossEntropyLoss(weight=torch.tensor([1.0, epoch, 1 / epoch]))


def write_criterion(component, epoch):
    CRITERION.weight.copy_(torch.tensor([1.0, epoch, 1 / epoch]))


def write_entry(component, epoch):
    WEIGHTS["classes"][1] = epoch


def write_memory(component, epoch):
    WEIGHTS["classes"].numpy()[1] = epoch


def set_rate(component, epoch):
    component.kept.param_groups[0]["lr"] = 0.05 / epoch


def set_nested(component, epoch):
    NESTED.inner.alpha = 1.0 / epoch


def set_variable(component, epoch):
    os.environ["MEDJAX_TEST_SCALE"] = str(epoch)


def weighed(self, logits, labels):
    return F.cross_entropy(logits, labels, weight=WEIGHTS["classes"])


CHANGES = {
    "criterion replaced": (set_criterion, lambda self, z, y: CRITERION(z, y)),
    "criterion written": (write_criterion, lambda self, z, y: CRITERION(z, y)),
    "tensor in a dict": (write_entry, weighed),
    "array over a tensor": (write_memory, weighed),
    "own optimizer": (
        set_rate,
        lambda self, z, y: F.cross_entropy(z, y) * self.kept.param_groups[0]["lr"],
    ),
    "nested": (set_nested, lambda self, z, y: F.cross_entropy(z, y) * NESTED.inner.alpha),
    "property": (set_nested, lambda self, z, y: F.cross_entropy(z, y) * NESTED.inner.doubled),
    "environment": (
        set_variable,
        lambda self, z, y: F.cross_entropy(z, y) * float(os.environ["MEDJAX_TEST_SCALE"]),
    ),
}
SLOW = ("criterion written", "own optimizer", "property")


def losses_in_torch(component, loss_of, change, owner):
    optimizer = component.configure_optimizer(0.05)
    losses = []
    for epoch in (1, 2, 3):
        change(owner, epoch)
        each = []
        for first in range(0, 40, 8):
            loss = loss_of(component.collate(DATA[first : first + 8]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            each.append(loss.item())
        losses.append(np.mean(each))
    return losses


def train_losses(folder, component, kind, change, owner=None):
    trainer = make(
        folder,
        component,
        train=DATA[:40],
        evaluated=DATA[:8],
        kind=kind,
        learning_rate=0.05,
        nb_training_epochs=3,
    )
    trainer.callback = AtEpochs(change, trainer if owner == "trainer" else component)
    return [row["train"]["loss"] for row in trainer.train()]


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in CHANGES]
)
def test_changes_outside_of_the_component_count_in_the_next_step(tmp_path, monkeypatch, name):
    change, loss = CHANGES[name]
    monkeypatch.setenv("MEDJAX_TEST_SCALE", "1")

    def reset():
        WEIGHTS["classes"] = torch.ones(3)
        NESTED.inner.alpha = 1.0
        set_criterion(None, 1.0)

    reset()
    component = Reading(loss)
    expected = losses_in_torch(
        component, lambda batch: component.forward(batch, True, False)[1], change, component
    )
    reset()
    assert train_losses(tmp_path, Reading(loss), InOrder, change) == pytest.approx(
        expected, rel=1e-4
    )


class Distilling(InOrder):
    """An override that reads what the trainer itself has."""

    weight = 1.0

    def make_forward_pass(self, inputs, eval_mode):
        outputs, loss = super().make_forward_pass(inputs, eval_mode)
        return outputs, loss * self.weight + self.teacher(inputs["x"]).mean().detach()


def test_an_override_reads_the_current_attributes_of_the_trainer(tmp_path):
    def change(owner, epoch):
        owner.weight = 0.5**epoch
        with torch.no_grad():
            owner.teacher.weight.fill_(epoch)

    class Owner:
        teacher = nn.Linear(6, 3).requires_grad_(False)

    def loss_of(batch):
        own = component.forward(batch, True, False)[1] * Owner.weight
        return own + Owner.teacher(batch["x"]).mean().detach()

    component = Classifier(optimizer=torch.optim.SGD)
    expected = losses_in_torch(component, loss_of, change, Owner)
    torch.nn.init.zeros_(Owner.teacher.weight)

    class WithTeacher(Distilling):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.teacher = Owner.teacher

    other = Classifier(optimizer=torch.optim.SGD)
    losses = train_losses(tmp_path, other, WithTeacher, change, "trainer")
    assert losses == pytest.approx(expected, rel=1e-4)
