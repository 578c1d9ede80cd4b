"""Attributes of a Trainer that are replaced before and during training."""

import dataclasses

import pytest
import torch
from plain_loop import ours
from trained import DATA, Accuracy, Classifier, make, same, weights

from medjax_torch import Options

REPLACEMENTS = {
    "optimizer": lambda t: torch.optim.SGD(t.component.model.parameters(), lr=0.5),
    "train_dataloader": lambda t: t.get_dataloader(DATA[:8], shuffle=False),
    "metrics_computer": lambda t: Accuracy(),
    "config": lambda t: dataclasses.replace(t.config, gradient_accumulation_steps=3),
    "component": lambda t: Classifier(),
    "options": lambda t: Options(order="medkit"),
    "lr_scheduler": lambda t: torch.optim.lr_scheduler.StepLR(t.optimizer, 1),
}


@pytest.mark.parametrize("name", REPLACEMENTS)
def test_what_a_run_cannot_exchange_is_refused_by_name(tmp_path, name):
    def events(trainer):
        def on_epoch_begin(epoch):
            if epoch == 2:
                setattr(trainer, name, REPLACEMENTS[name](trainer))

        return {"on_epoch_begin": on_epoch_begin}

    advice = ".*with add_param_group for" if name == "optimizer" else ""
    with pytest.raises(ValueError, match=f"trainer.{name} was replaced during training{advice}"):
        ours(tmp_path, Classifier(), events)


def test_an_equal_configuration_is_no_other(tmp_path):
    def events(trainer):
        def on_epoch_begin(epoch):
            trainer.config = dataclasses.replace(trainer.config)

        return {"on_epoch_begin": on_epoch_begin}

    assert ours(tmp_path, Classifier(), events).nb_training_epochs == 3


def test_the_number_of_epochs_may_be_set_before_training(tmp_path):
    trainer = make(tmp_path / "set", nb_training_epochs=2)
    trainer.nb_training_epochs = 4
    assert len(trainer.train()) == 4
    other = make(tmp_path / "configured", nb_training_epochs=4)
    other.train()
    assert same(weights(trainer.component), weights(other.component))
    third = make(tmp_path / "configuration", nb_training_epochs=2)
    third.config = dataclasses.replace(third.config, nb_training_epochs=3)
    assert len(third.train()) == 3
