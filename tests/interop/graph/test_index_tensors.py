"""Indices that are integers in tensors of shape (), which torch reads as numbers."""

import pytest
import torch
from medkit_runs import largest_difference
from torch import nn
from torch.nn import functional as F
from trained import DATA, Classifier, make

from medjax_torch import BatchData


class Counted(Classifier):
    """A buffer counts the batches; its value chooses entries of a trained table."""

    size = 64

    def __init__(self):
        super().__init__(optimizer=torch.optim.SGD)
        draw = torch.Generator().manual_seed(0)
        self.table = nn.Parameter(torch.rand(self.size, 3, 4, generator=draw))
        self.model.register_buffer("n", torch.zeros((), dtype=torch.long))
        self.model.register_buffer("kept", torch.zeros(self.size, 3))

    def configure_optimizer(self, lr):
        return self.optimizer([*self.model.parameters(), self.table], lr=lr)

    def chosen(self, n, batch):
        return self.table[n].mean(1)

    def forward(self, batch, return_loss, eval_mode):
        self.model.train(not eval_mode)
        if not eval_mode:
            self.model.n += 1
        logits = self.model(batch["x"]) * self.chosen(self.model.n, batch)
        return BatchData(logits=logits), F.cross_entropy(logits, batch["y"])


class Forms(Counted):
    """Every place of an index that such tensors may have."""

    def chosen(self, n, batch):
        one, row = n % 3, batch["y"][0]
        forms = [
            self.table[n, :, 1],
            self.table[-1 - n].sum(1),
            self.table[..., n % 4][n],
            self.table[n, ..., one],
            self.table[n, None, one, 1:3].sum(),
            self.table[0, one][None, one.int()],
            self.table[5, None, :, one - 4].sum(0),
            self.table[n, row, 2],
            self.table[None, n, 1, ..., None, row, None].sum(),
        ]
        return sum(forms)


class Written(Counted):
    """Rows that the index writes and later batches read."""

    def chosen(self, n, batch):
        value = self.model[0](batch["x"]).mean(0)
        if self.model.training:
            with torch.no_grad():
                self.model.kept[n] = value[:3]
                self.model.kept[n % 7, 1] = 0.5
                self.model.kept[8:, n % 3] = value[:1]
                self.model.kept[n - 1, :2] = torch.ones(1, 1, 2)
                self.model.kept[-1 - n] += 1
        own = torch.zeros(4, 3)
        own[n % 4] = value[3:6]
        return self.table[n].sum(1) + self.model.kept.sum(0) + own.sum(0)


class Replaced(Counted):
    """A row is read and used, also through a view, before it is written."""

    def chosen(self, n, batch):
        row = self.model.kept[n % 3]
        total = self.table[n].sum(1) + row + row.view(1, -1).sum(0)
        with torch.no_grad():
            self.model.kept[n % 3] = 0.5 * row + 1
        return total


@pytest.mark.parametrize("component", [Counted, Forms, Written, Replaced])
def test_values_and_gradients_are_those_of_torch(tmp_path, component):
    fields = {"batch_size": 8, "nb_training_epochs": 3}
    assert largest_difference(tmp_path, component, DATA[:24], DATA[:8], **fields) < 1e-5


@pytest.mark.parametrize("component", [Counted, Written])
def test_one_graph_serves_all_values(tmp_path, component):
    trainer = make(tmp_path, component(), train=DATA[:24], nb_training_epochs=2)
    trainer.train()
    assert [graph.train for graph in trainer.prepare().converted.variants.graphs].count(True) == 1
    assert trainer.component.model.n.item() == 6


class Short(Counted):
    size = 3


def test_an_index_out_of_range_is_not_finite(tmp_path):
    with pytest.raises(RuntimeError, match=r"not finite in epoch 2, batch 0"):
        make(tmp_path, Short(), train=DATA[:16]).train()


class InPlace(Counted):
    def chosen(self, n, batch):
        row = self.model.kept[n]
        row.add_(1)
        return self.table[n].sum(1) + row


class Moved(Counted):
    """torch changes two rows: the one that was read, and the next."""

    def chosen(self, n, batch):
        place = n.clone()
        row = self.model.kept[place]
        row += 1
        place += 1
        self.model.kept[place] = row
        return self.table[n].sum(1)


@pytest.mark.parametrize("component", [InPlace, Moved])
def test_a_write_to_what_was_read_is_refused_by_line(tmp_path, component):
    with pytest.raises(RuntimeError, match=r"in place to what it has .* row = self.model.kept\["):
        make(tmp_path, component(), train=DATA[:16]).train()


class Stale(Counted):
    """torch's view has what is written after it was read."""

    def chosen(self, n, batch):
        before = self.model.kept[n]
        view = before.view(1, -1)
        with torch.no_grad():
            self.model.kept[n] = self.model[0](batch["x"]).mean(0)[:3]
        total = self.table[n].sum(1)
        return total + self.used(before, view)


USES = {
    "alone": lambda row, view: row * 2,
    "in a list": lambda row, view: torch.stack([row, row]).sum(0),
    "by name": lambda row, view: torch.mul(input=row, other=2),
    "through a view": lambda row, view: view.sum(0),
}


@pytest.mark.parametrize("use", USES)
def test_a_use_of_what_was_read_before_a_write_is_refused_by_line(tmp_path, use):
    component = Stale()
    component.used = USES[use]
    match = r"has read at an index .* before = self.model.kept\[n\], and has written"
    with pytest.raises(RuntimeError, match=match):
        make(tmp_path, component, train=DATA[:16]).train()
