"""Components that select by masks, compared with medkit's own Trainer."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from trained import Classifier

import medjax_torch
from medjax_torch import BatchData

pytest.importorskip("medkit")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import medkit.training

DRAW = np.random.default_rng(0)
LENGTH = 7


def item(count):
    labels = np.full(LENGTH, -100)
    labels[:count] = DRAW.integers(0, 3, count)
    return {"x": DRAW.normal(size=(LENGTH, 6)).astype("float32"), "labels": labels}


ITEMS = [item(int(count)) for count in DRAW.integers(0, LENGTH + 1, 100)]


class Active(Classifier):
    """Tags the positions that have a label, and returns only their logits."""

    def collate(self, examples):
        columns = {
            name: torch.from_numpy(np.stack([example[name] for example in examples]))
            for name in ("x", "labels")
        }
        return BatchData(columns)

    def forward(self, batch, return_loss, eval_mode):
        self.model.train(not eval_mode)
        labels = batch["labels"].view(-1)
        active = labels != -100
        logits = self.model(batch["x"]).view(-1, 3)[active]
        loss = F.cross_entropy(logits, labels[active]) if return_loss else None
        return BatchData(logits=logits), loss


class Shares:
    """Counts the predictions of each class."""

    def prepare_batch(self, model_output, input_batch):
        assert len(model_output["logits"]) == (input_batch["labels"] != -100).sum()
        return {"predicted": model_output["logits"].argmax(-1).tolist()}

    def compute(self, all_data):
        return {"ones": float(np.mean([p == 1 for p in all_data["predicted"]]))}


def trained(module, folder, **arguments):
    component = Active()
    config = module.TrainerConfig(
        output_dir=str(folder),
        learning_rate=1e-2,
        nb_training_epochs=4,
        batch_size=4,
        seed=3,
        do_metrics_in_training=True,
    )
    trainer = module.Trainer(
        component, config, ITEMS, ITEMS[:20], metrics_computer=Shares(), **arguments
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return trainer, trainer.train()


def test_one_graph_serves_a_hundred_counts_with_medkits_numbers(tmp_path):
    options = medjax_torch.Options(order="medkit")
    ours, history = trained(medjax_torch, tmp_path / "ours", options=options, callback=[])
    theirs, expected = trained(medkit.training, tmp_path / "theirs")
    for row, other in zip(history, expected, strict=True):
        for phase in ("train", "eval"):
            assert row[phase]["loss"] == pytest.approx(other[phase]["loss"], rel=2e-4)
            assert row[phase]["ones"] == pytest.approx(other[phase]["ones"], abs=0.02)
    weights = dict(theirs.component.model.named_parameters())
    for name, value in ours.component.model.named_parameters():
        torch.testing.assert_close(value, weights[name], rtol=1e-3, atol=1e-4)
    cost = ours.conversion_cost
    assert (cost.nb_graphs, cost.nb_compilations) == (2, 2)


class ByLength(Active):
    """Reads the count as a number, so each count needs its own graph."""

    def forward(self, batch, return_loss, eval_mode):
        outputs, _ = super().forward(batch, False, eval_mode)
        logits = outputs["logits"]
        return BatchData(), logits.pow(2).sum() / (len(logits) + 1)


def test_too_many_exact_counts_stop_training_with_a_remedy(tmp_path):
    config = medjax_torch.TrainerConfig(output_dir=tmp_path, batch_size=4, seed=1)
    options = medjax_torch.Options(max_variants=2, verify=False)
    trainer = medjax_torch.Trainer(ByLength(), config, ITEMS, ITEMS[:8], options=options)
    with pytest.raises(medjax_torch.graph.TraceError, match="more than 2 ways: 3 graphs were"):
        trainer.train()


def test_dropout_among_selected_rows_trains(tmp_path):
    component = Active(dropout=0.3)
    component.model = nn.Sequential(*component.model, nn.Dropout(0.1))
    config = medjax_torch.TrainerConfig(
        output_dir=tmp_path, batch_size=10, seed=1, learning_rate=1e-2, nb_training_epochs=3
    )
    trainer = medjax_torch.Trainer(component, config, ITEMS, ITEMS[:20], callback=[])
    history = trainer.train()
    assert history[-1]["train"]["loss"] < history[0]["train"]["loss"]
