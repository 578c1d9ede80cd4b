"""Parameters that join the optimizer late, with gradients that torch has kept for them."""

import logging

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from trained import DATA, Classifier, make

from medjax_torch import BatchData

SAID = "the optimizer has got"


class Later(Classifier):
    """Forward uses a second model that is in no group at first."""

    def __init__(self):
        super().__init__()
        self.extra = nn.Linear(6, 3)

    def forward(self, batch, return_loss, eval_mode):
        self.model.train(not eval_mode)
        logits = self.model(batch["x"]) + self.extra(batch["x"])
        return BatchData(logits=logits), F.cross_entropy(logits, batch["y"])


class Adds:
    """Adds the weight of `extra` at the second epoch, or before the first, and then its bias."""

    def __init__(self, *, before_training=False, before=lambda parameter: None):
        self.before_training, self.before = before_training, before

    def add(self, parameter):
        self.before(parameter)
        self.trainer.optimizer.add_param_group({"params": [parameter]})

    def on_train_begin(self, config):
        if self.before_training:
            self.add(self.trainer.component.extra.weight)

    def on_epoch_begin(self, epoch):
        if epoch == 2 and not self.before_training:
            self.add(self.trainer.component.extra.weight)
        if epoch == 3:
            self.add(self.trainer.component.extra.bias)


def said(tmp_path, callback, caplog, epochs=2, component=None):
    caplog.set_level(logging.WARNING, logger="medjax")
    settings = {"train": DATA[:16], "evaluated": DATA[:8], "nb_training_epochs": epochs}
    component = component or Later()
    trainer = make(tmp_path, component, callback=callback, **settings)
    callback.trainer = trainer
    start = component.extra.weight.detach().clone()
    trainer.train()
    assert not torch.equal(start, component.extra.weight)
    return [message for message in caplog.messages if SAID in message]


def test_one_warning_names_each(tmp_path, caplog):
    first, second = said(tmp_path, Adds(), caplog, epochs=4)
    assert f"{SAID} extra.weight, which forward has used" in first
    assert f"{SAID} extra.bias, which forward has used" in second
    assert "Set parameter.grad = None before" in first


def test_no_warning_before_the_first_batch(tmp_path, caplog):
    assert said(tmp_path, Adds(before_training=True), caplog) == []


def test_no_warning_where_they_were_frozen_until_then(tmp_path, caplog):
    component = Later()
    component.extra.requires_grad_(False)

    adds = Adds(before=lambda parameter: parameter.requires_grad_(True))
    assert said(tmp_path, adds, caplog, epochs=3, component=component) == []


def test_where_they_are_cleared_torch_does_the_same(tmp_path):
    pytest.importorskip("medkit")
    from living_runs import both

    def callbacks(component, trainer):
        def on_epoch_begin(epoch):
            if epoch == 2:
                for parameter in component.extra.parameters():
                    parameter.grad = None
                group = {"params": component.extra.parameters(), "lr": 0.2}
                trainer.optimizer.add_param_group(group)

        return {"on_epoch_begin": on_epoch_begin}

    ours, _ = both(tmp_path, Later, callbacks)
    assert ours.extra.weight.grad is None
