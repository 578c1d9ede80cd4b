"""Scores that are tensors, as torchmetrics returns them, and others that are no numbers."""

import json
import logging
from fractions import Fraction

import pytest
import torch
from trained import make

from medjax_torch import Options
from medjax_torch.callbacks import EarlyStopping, MetricsWriter


class Computed:
    """Its accuracy improves, then falls; the rest is what users return beside it."""

    def __init__(self, values=(0.25, 0.75, 0.5, 0.375), **others):
        self.values, self.others = list(values), others

    def prepare_batch(self, model_output, input_batch):
        return {"predicted": model_output["logits"].argmax(-1)}

    def compute(self, all_data):
        accuracy = torch.tensor(self.values.pop(0))
        return {"accuracy": accuracy, **self.others}


FIELDS = {"checkpoint_metric": "accuracy", "minimize_checkpoint_metric": False}


def test_tensors_are_scores(tmp_path):
    per_class = torch.tensor([0.5, 1.0], dtype=torch.bfloat16)
    computer = Computed(per_class=per_class, share=Fraction(1, 4))
    stopping = EarlyStopping("accuracy", patience=2, minimize=False)
    callbacks = [MetricsWriter(tmp_path / "log"), stopping]
    settings = {"metrics_computer": computer, "callback": callbacks, **FIELDS}
    trainer = make(tmp_path / "run", nb_training_epochs=5, **settings)
    history = trainer.train()
    assert [float(row["eval"]["accuracy"]) for row in history] == [0.25, 0.75, 0.5, 0.375]
    assert all(row["eval"]["per_class"] is per_class for row in history)
    assert trainer.best_checkpoint.name.startswith("checkpoint_002")
    rows = [
        json.loads(line) for line in (tmp_path / "log" / "metrics.jsonl").read_text().splitlines()
    ]
    assert [row["eval/accuracy"] for row in rows] == [0.25, 0.75, 0.5, 0.375]


def test_a_resumed_run_has_their_numbers(tmp_path, caplog):
    caplog.set_level(logging.WARNING, logger="medjax")
    settings = {**FIELDS, "metric_to_track_lr": "accuracy"}

    def plateau(optimizer):
        return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode="max", patience=0)

    def run(epochs, values):
        computer = Computed(values, matrix=torch.eye(2), kinds={"b"})
        others = {"metrics_computer": computer, "lr_scheduler_builder": plateau, **settings}
        trainer = make(tmp_path, nb_training_epochs=epochs, **others)
        return trainer, trainer.train(resume="auto")

    run(2, [0.25, 0.75])
    trainer, history = run(4, [0.5, 0.375])
    first, last = history[0]["eval"], history[-1]["eval"]
    expected = {"accuracy": 0.25, "matrix": [[1.0, 0.0], [0.0, 1.0]], "kinds": "{'b'}"}
    assert {name: first[name] for name in expected} == expected
    assert isinstance(last["matrix"], torch.Tensor)
    assert last["kinds"] == {"b"}
    assert trainer.best_checkpoint.name.startswith("checkpoint_002")
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(1e-4)
    assert caplog.text.count("the metric 'kinds' of eval is or contains a set") == 1


def test_a_checkpoint_metric_that_is_no_number_is_refused(tmp_path):
    computer = Computed(f1=torch.ones(2))
    trainer = make(
        tmp_path, metrics_computer=computer, checkpoint_metric="f1", options=Options(verify=False)
    )
    with pytest.raises(ValueError, match=r"'f1' is tensor\(\[1., 1.\]\); expected a number"):
        trainer.train()
