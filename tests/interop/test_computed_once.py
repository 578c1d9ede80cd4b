"""What forward computes at its first call and keeps: trained as in torch, or refused by name."""

import functools

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from trained import Tagger, make

from medjax_torch import BatchData, Options, Trainer
from medjax_torch.graph import TraceError

LENGTHS = (5, 9, 5, 7)
"""The length of the rows of each batch: a table grows, and then is longer than two of them."""


def rows(lengths=LENGTHS):
    draw = np.random.default_rng(0)
    ids = [draw.integers(1, 20, length) for length in lengths for _ in range(4)]
    return [{"input_ids": row.tolist(), "labels": (row % 3).tolist()} for row in ids]


class InOrder(Trainer):
    def get_dataloader(self, data, shuffle):
        return super().get_dataloader(data, shuffle=False)


class Keeping(Tagger):
    """Adds to the embeddings what `table` returns for a length."""

    nothing = None

    def __init__(self, table):
        super().__init__()
        self.optimizer = torch.optim.SGD
        self.table, self.kept, self.by_length, self.length = table, None, {}, 0
        self.model.register_buffer("mask", None, persistent=False)
        self.model.register_buffer("rates", torch.tensor([1.0, 0.3, 0.1, 0.03]))

    @functools.cached_property
    def scales(self):
        return torch.linspace(0.5, 1.5, 8)

    def forward(self, batch, return_loss, eval_mode):
        self.model.train(not eval_mode)
        embedded = self.model[0](batch["input_ids"])
        self.batch, self.embedded = batch, embedded
        logits = self.model[2](embedded + self.table(self, embedded.size(1)))
        del self.batch, self.embedded
        return BatchData(logits=logits), F.cross_entropy(logits.mT, batch["labels"])


def waves(length):
    table = torch.zeros(length, 8)
    angles = torch.arange(length)[:, None] / 10 ** torch.arange(4)
    table[:, 0::2], table[:, 1::2] = angles.sin(), angles.cos()
    return table


def grown(self, length):
    if self.kept is None or self.kept.size(0) < length:
        self.kept = waves(length)
    return self.kept[:length]


def by_length(self, length):
    if length not in self.by_length:
        self.by_length[length] = waves(length)
    return self.by_length[length]


def of_class(self, length):
    if self.nothing is None:
        self.nothing = torch.tensor([1.0, 2.0] * 4)
    return self.nothing


def in_buffer(self, length):
    if self.model.mask is None or self.model.mask.size(0) != length:
        self.model.mask = torch.triu(torch.full((length, length), -1.0), 1)
    return self.model.mask @ waves(length)


def with_length(self, length):
    if length > self.length:
        self.kept, self.length = waves(length), length
    return self.kept[:length]


def of_buffer(self, length):
    if length != self.length:
        self.length = length
        angles = torch.arange(length)[:, None] * self.model.rates
        self.kept = torch.cat([angles.cos(), angles.sin()], dim=-1)
    return self.kept


def cached(self, length):
    return self.scales


def before_a_value_is_read(self, length):
    scales = self.scales
    return scales if self.batch["labels"].max() > 1 else 2 * scales


CACHES = [grown, by_length, of_class, in_buffer, with_length, of_buffer, cached]


def in_torch(component):
    """Return the losses of two epochs, those of an evaluation after each, and the weights."""
    data = rows()
    batches = [component.collate(data[first : first + 4]) for first in range(0, len(data), 4)]
    optimizer = component.configure_optimizer(0.05)
    losses = []
    for _ in range(2):
        each = []
        for batch in batches:
            _, loss = component.forward(batch, return_loss=True, eval_mode=False)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            each.append(loss.item())
        with torch.no_grad():
            seen = [component.forward(batch, True, True)[1].item() for batch in batches]
        losses.append((np.mean(each), np.mean(seen)))
    return losses, component.model.state_dict()


def trained(folder, component, callback=None, lengths=LENGTHS, **options):
    options = Options(length_ladder=tuple(sorted({*lengths})), **options)
    data = rows(lengths)
    settings = {"learning_rate": 0.05, "nb_training_epochs": 2, "batch_size": 4, "kind": InOrder}
    settings["callback"] = callback or []
    trainer = make(folder, component, train=data, evaluated=data, options=options, **settings)
    history = trainer.train()
    return [(row["train"]["loss"], row["eval"]["loss"]) for row in history], trainer


SLOW = (of_buffer, in_buffer, with_length, of_class, by_length, cached)
TABLES = [pytest.param(t, marks=pytest.mark.slow) if t in SLOW else t for t in CACHES]


@pytest.mark.parametrize("table", [*TABLES, before_a_value_is_read], ids=lambda t: t.__name__)
def test_a_table_that_forward_fills_at_its_first_call_trains_as_in_torch(tmp_path, table, caplog):
    expected, state = in_torch(Keeping(table))
    component = Keeping(table)
    losses, _ = trained(tmp_path, component, verify=table is grown)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    for name, value in component.model.state_dict().items():
        torch.testing.assert_close(value, state[name], rtol=1e-4, atol=1e-6)
    assert "stores something" not in caplog.text
    assert (component.kept, component.by_length, component.length) == (None, {}, 0)
    assert component.model.mask is None
    assert not {"scales", "nothing"} & vars(component).keys()


def as_given(self, length):
    """Keep what the first batch was."""
    if self.kept is None or self.kept.size(0) != length:
        self.kept = self.embedded.detach().mean(0)
    return self.kept


def beside_a_length(self, length):
    if length != self.length:
        self.length, self.kept = length, self.batch["input_ids"][:1].T / 20.0
    return self.kept


def of_weights(self, length):
    if self.kept is None:
        self.kept = self.model[0].weight[0].detach().clone()
    return self.kept


def drawn(self, length):
    if self.kept is None:
        self.kept = torch.randn(8)
    return self.kept


def after_a_value_is_read(self, length):
    if self.kept is None:
        self.kept = torch.ones(8) * (2 if self.batch["labels"].max() > 1 else 3)
    return self.kept


def by_longest(self, length):
    """Divide by the longest length seen, which is another one in torch from the second batch on."""
    if self.kept is None or self.kept.size(0) < length:
        self.kept = torch.arange(length)[:, None] / length
    return self.kept[:length]


def collected(self, length):
    self.kept = torch.ones(8) if self.kept is None else self.kept + 1
    return self.kept


def later(self, length):
    """Add nothing at the first call."""
    if self.kept is None:
        self.kept = torch.ones(8)
        return 0.0
    return self.kept


MEMORIES = [as_given, beside_a_length, of_weights, drawn, after_a_value_is_read]


@pytest.mark.parametrize("table", [*MEMORIES, by_longest, collected, later])
def test_a_table_that_depends_on_more_is_refused_by_name(tmp_path, table):
    with pytest.raises(TraceError, match=r"both reads and changes (length, )?kept"):
        trained(tmp_path, Keeping(table), verify=False)


def test_a_zero_head_hides_no_table(tmp_path):
    component = Keeping(later)
    torch.nn.init.zeros_(component.model[2].weight)
    with pytest.raises(TraceError, match="both reads and changes kept"):
        trained(tmp_path, component, verify=False)


class Renewing:
    """Changes the rates that a table was computed from."""

    def __init__(self, component):
        self.component = component

    def __getattr__(self, name):
        return lambda *args, **kwargs: None

    def on_epoch_end(self, metrics, epoch, epoch_duration):
        self.component.model.rates.mul_(2)


def of_rates(self, length):
    if self.kept is None:
        self.kept = torch.cat([self.model.rates, self.model.rates])
    return self.kept


def test_a_change_of_what_a_table_was_computed_from_is_refused(tmp_path):
    """In torch the table stays as it was."""
    component = Keeping(of_rates)
    with pytest.raises(TraceError, match="kept"):
        trained(tmp_path, component, Renewing(component), lengths=(5, 5), verify=False)


class Announcing(Tagger):
    """Prints a number of the first batch."""

    is_first = True

    def __init__(self):
        super().__init__()
        self.is_first = True

    def forward(self, batch, return_loss, eval_mode):
        outputs, loss = super().forward(batch, return_loss, eval_mode)
        if self.is_first:
            print(outputs["logits"].mean().item())
            self.is_first = False
        return outputs, loss


def test_a_first_batch_is_printed(tmp_path):
    settings = {"lengths": (5, 5), "verify": False}
    plain, _ = trained(tmp_path / "plain", Tagger(), **settings)
    printing, _ = trained(tmp_path / "printing", Announcing(), **settings)
    assert printing == plain
