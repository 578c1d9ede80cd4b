"""The batch by which the names of metrics are checked before training changes nothing."""

import random

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from trained import Accuracy, Classifier, make, same, weights

from medjax_torch.session.contract import check_metrics


class Drawing(Classifier):
    """Leaves a batch norm in training mode, counts its calls, and draws on the host."""

    def __init__(self):
        super().__init__()
        self.model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Linear(16, 3))
        self.model.register_buffer("calls", torch.zeros(()))
        self.draws = True

    def forward(self, batch, return_loss, eval_mode):
        outputs, loss = super().forward(batch, return_loss, eval_mode=False)
        self.model.calls += 1
        if self.draws:
            loss = loss * (1 + random.random() + float(np.random.rand()))
        return outputs, loss


def followed(folder, metric, draws=True):
    component = Drawing()
    component.draws = draws
    return make(
        folder,
        component,
        checkpoint_metric=metric,
        minimize_checkpoint_metric=False,
        metrics_computer=Accuracy(),
    )


def test_the_check_leaves_component_and_generators_as_they_were(tmp_path):
    trainer = followed(tmp_path, "accuracy")
    trainer.component.model.eval()
    before = weights(trainer.component)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    check_metrics(trainer)
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    assert after == states
    assert same(before, weights(trainer.component))
    assert not trainer.component.model.training


def test_training_does_not_depend_on_the_metric_that_is_followed(tmp_path):
    ends = []
    for metric in ("loss", "accuracy"):
        trainer = followed(tmp_path / metric, metric, draws=False)
        trainer.train()
        ends.append(weights(trainer.component))
    assert same(*ends)


def test_scores_that_are_followed_in_the_wrong_direction_are_told(tmp_path, caplog):
    """medkit minimises and torch's scheduler does, unless they are told otherwise."""

    def followed(folder, mode, **settings):
        trainer = make(
            folder,
            Classifier(),
            checkpoint_metric="accuracy",
            metric_to_track_lr="accuracy",
            metrics_computer=Accuracy(),
            lr_scheduler_builder=lambda optimizer: ReduceLROnPlateau(optimizer, mode=mode),
            **settings,
        )
        trainer.train()

    followed(tmp_path / "a", "min")
    told = [record.getMessage() for record in caplog.records if "by its name" in record.message]
    assert sorted(text.partition("; set ")[2] for text in told) == [
        "ReduceLROnPlateau(mode='max')",
        "TrainerConfig(minimize_checkpoint_metric=False)",
    ]
    caplog.clear()
    followed(tmp_path / "b", "max", minimize_checkpoint_metric=False)
    assert "by its name" not in caplog.text
