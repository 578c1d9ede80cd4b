"""Recurrent layers that unpack to the longest row train as those that unpack to the batch."""

import logging

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from trained import Tagger, make

from medjax_torch import BatchData, Options
from medjax_torch.batches.padding import Ragged, resized_with_sizes
from medjax_torch.graph.longest_row import sizes_before

DATA = [
    {"input_ids": row, "labels": [each % 3 for each in row]}
    for row in (
        [1, 2],
        [3],
        [4, 5, 6],
        [7, 8],
        [9],
        [1, 3, 5],
        [2, 4],
        [6],
        [8, 7],
        [5],
        [3, 1],
        [2],
    )
]


class Recurrent(Tagger):
    """Tags with a recurrent layer over packed rows.

    As many columns as `beyond` says follow the longest row if the first has an even or odd length.
    """

    def __init__(self, takes_total=False, beyond=(0, 0)):
        super().__init__()
        self.model = nn.ModuleList([self.model, nn.GRU(3, 3, batch_first=True)])
        self.takes_total, self.beyond = takes_total, beyond

    def configure_optimizer(self, lr):
        return torch.optim.SGD(self.model.parameters(), lr=lr)

    def collate(self, examples):
        batch = super().collate(examples)
        further = self.beyond[len(examples[0]["labels"]) % 2]
        return BatchData(
            input_ids=F.pad(batch["input_ids"], (0, further)),
            labels=F.pad(batch["labels"], (0, further), value=-100),
        )

    def forward(self, batch, return_loss, eval_mode):
        self.model.train(not eval_mode)
        embed, layer = self.model
        ids = batch["input_ids"]
        lengths = (ids != 0).sum(1)
        packed = pack_padded_sequence(embed(ids), lengths, batch_first=True, enforce_sorted=False)
        total = {"total_length": ids.size(1)} if self.takes_total else {}
        logits, _ = pad_packed_sequence(layer(packed)[0], batch_first=True, **total)
        loss = F.cross_entropy(logits.mT, batch["labels"][:, : logits.size(1)])
        return BatchData(logits=logits), loss


class Sizes:
    """Collects the shapes of outputs and labels."""

    def __init__(self):
        self.seen = []

    def prepare_batch(self, model_output, input_batch):
        self.seen.append((model_output["logits"].shape[1], input_batch["labels"].shape[1]))
        return {"row": [0]}

    def compute(self, all_data):
        return {}


def trained(folder, count=12, **options):
    sizes = Sizes()
    trainer = make(
        folder,
        Recurrent(**options),
        train=DATA[:count],
        evaluated=DATA[: count // 2],
        batch_size=2,
        options=Options(length_ladder=(4,)),
        nb_training_epochs=1,
        metrics_computer=sizes,
    )
    return trainer.train(), trainer, sizes.seen


def test_without_total_length_batches_are_padded_as_with_it(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "medjax"):
        expected, _, _ = trained(tmp_path / "with", takes_total=True)
        actual, trainer, sizes = trained(tmp_path / "without")
    assert "exact shapes" not in caplog.text
    assert len(trainer.prepare().converted.variants.graphs) == 2
    assert all(output == label for output, label in sizes)
    assert actual[0]["train"]["loss"] == pytest.approx(expected[0]["train"]["loss"], rel=1e-6)
    assert actual[0]["eval"]["loss"] == pytest.approx(expected[0]["eval"]["loss"], rel=1e-6)


@pytest.mark.parametrize("beyond", [(0, 2), (2, 0)])
def test_columns_beyond_the_longest_row_are_not_unpacked(tmp_path, beyond):
    _, _, sizes = trained(tmp_path, 8, beyond=beyond)
    assert {label - output for output, label in sizes} == {0, 2}


def test_sizes_before_padding_are_told_unless_two_axes_disagree():
    assert sizes_before([(5, 8), (5, 8), (3, 4)]) == {
        "size before padding to 8": torch.tensor(5),
        "size before padding to 4": torch.tensor(3),
    }
    assert sizes_before([(5, 8), (6, 8)]) == {}


def test_only_padded_batches_have_these_columns():
    ragged = Ragged((("ids", 1),), {"ids": 0}, (4,))
    batch = {"ids": torch.ones(2, 3)}
    assert resized_with_sizes(batch, [(ragged, 3)]) is batch
    padded = resized_with_sizes(batch, [(ragged, 4)])
    np.testing.assert_array_equal(padded["ids"][:, 3], 0)
    assert list(padded) == ["ids", "size before padding to 4"]
