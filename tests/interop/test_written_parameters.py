"""Components whose forward writes to trained parameters, compared with medkit's Trainer."""

import pytest
import torch
from medkit_runs import largest_difference
from torch import nn
from torch.nn import functional as F
from trained import Classifier, make

from medjax_torch import BatchData, Options
from medjax_torch.graph import TraceError

_draw = torch.Generator().manual_seed(0)
DATA = [
    {"ids": torch.randint(0, 12, (5,), generator=_draw), "label": int(label)}
    for label in torch.randint(0, 3, (14,), generator=_draw)
]


class Bag(Classifier):
    """Classifies identifiers into three classes."""

    def __init__(self, **options):
        super().__init__(optimizer=torch.optim.SGD, momentum=0.9)
        torch.manual_seed(1)
        self.model = nn.Sequential(nn.Embedding(12, 4, **options), nn.Linear(4, 3))

    def collate(self, examples):
        return BatchData(
            ids=torch.stack([e["ids"] for e in examples]),
            label=torch.tensor([e["label"] for e in examples]),
        )

    def loss(self, batch):
        return F.cross_entropy(self.model[1](self.model[0](batch["ids"]).mean(1)), batch["label"])

    def forward(self, batch, return_loss, eval_mode):
        self.model.train(not eval_mode)
        return BatchData(), self.loss(batch)


class Clamped(Bag):
    """Keeps its weights positive in forward."""

    def loss(self, batch):
        if self.model.training:
            self.model[1].weight.data.clamp_(min=0)
            self.model[1].bias.data = self.model[1].bias.data.clamp(max=0.1)
        return super().loss(batch)


class Attacked(Bag):
    """FGM: adds a second loss at embeddings moved along their gradient, then moves them back."""

    backup: dict

    def __init__(self, back_by_copy=False):
        super().__init__()
        self.backup, self.back_by_copy = {}, back_by_copy

    def attack(self, loss):
        weight = self.model[0].weight
        (gradient,) = torch.autograd.grad(loss, weight, retain_graph=True)
        self.backup["embedding"] = weight.data.clone()
        weight.data.add_(0.5 * gradient / (gradient.norm() + 1e-12))

    def restore(self):
        weight = self.model[0].weight
        if self.back_by_copy:
            weight.data.copy_(self.backup["embedding"])
        else:
            weight.data = self.backup["embedding"]
        self.backup = {}

    def forward(self, batch, return_loss, eval_mode):
        self.model.train(not eval_mode)
        loss = self.loss(batch)
        if not eval_mode:
            self.attack(loss)
            loss = loss + self.loss(batch)
            self.restore()
        return BatchData(), loss


@pytest.mark.parametrize("accumulation", [1, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "component",
    [
        lambda: Bag(max_norm=0.9),
        lambda: Bag(max_norm=0.9, norm_type=1, padding_idx=0),
        Clamped,
        Attacked,
        lambda: Attacked(back_by_copy=True),
    ],
    ids=["max_norm", "max_norm of type 1", "clamped", "FGM", "FGM, copied back"],
)
def test_a_run_equals_medkits(tmp_path, component, accumulation, caplog):
    fields = {"gradient_accumulation_steps": accumulation, "learning_rate": 0.3}
    assert largest_difference(tmp_path, component, DATA, DATA[:4], **fields) < 1e-5
    assert "forward leaves" not in caplog.text


def test_evaluation_alone_writes_to_the_component(tmp_path):
    component = Bag(max_norm=0.1)
    trainer = make(tmp_path, component, train=DATA, evaluated=DATA)
    trainer.evaluation_epoch(trainer.eval_dataloader)
    assert component.model[0].weight.norm(dim=1).max() < 0.1 + 1e-6


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_skipped_batch_writes_nothing(tmp_path, accumulation):
    class Filled(Bag):
        def loss(self, batch):
            value = batch["label"].float()
            if self.model.training:
                self.model[1].bias.data.copy_(value.expand(3))
            return (self.model[1].bias.sum() * torch.where(value < 0, torch.nan, 1.0)).sum()

    component = Filled()
    data = [{**DATA[0], "label": label} for label in (-1, 2, -1, -1)]
    fields = {"batch_size": 1, "learning_rate": 0.0, "gradient_accumulation_steps": accumulation}
    options = Options(on_non_finite="skip")
    make(tmp_path, component, train=data, evaluated=data[1:2], options=options, **fields).train()
    assert component.model[1].bias.tolist() == [2, 2, 2]


def test_replacing_a_parameter_by_another_tensor_is_refused(tmp_path):
    class Replaced(Bag):
        def loss(self, batch):
            self.model[1].weight = nn.Parameter(self.model[1].weight.clamp(min=0))
            return super().loss(batch)

    with pytest.raises(TraceError, match=r"replaces model\.1\.weight, .* with another tensor"):
        make(tmp_path, Replaced(), train=DATA, evaluated=DATA[:4]).train()
