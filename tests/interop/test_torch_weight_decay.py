"""`Options.weight_decay` over a torch optimizer is the decay that AdamW of torch has of its own."""

import numpy as np
import pytest
import torch
from step_cases import Lion
from torch import nn
from trained import DATA, Classifier, TwoHeads, make, weights

import medjax
from medjax_torch import BatchData, Options

DECAY = 0.5


def grouped(kind, optimizer, factors):
    """Return a class of components with a group for matrices and one for vectors of each layer.

    Its argument is the decay of the optimizer, which spares vectors as `Options` does; `factors`
    are those of the rates of the layers.
    """

    class Grouped(kind):
        def __init__(self, decay):
            super().__init__()
            self.decay = decay

        def configure_optimizer(self, lr):
            layers = [m for m in self.model.modules() if isinstance(m, nn.Linear)]
            groups = [
                {"params": [p], "lr": factor * lr, "weight_decay": self.decay * (p.ndim > 1)}
                for layer, factor in zip(layers, factors, strict=True)
                for p in layer.parameters()
            ]
            return optimizer(groups, lr=lr)

    return Grouped


class FreezesInTurn(medjax.TrainerCallback):
    """Freezes the first layer in the second epoch, and in every second batch of the third."""

    trainer = None

    def on_epoch_begin(self, epoch):
        self.epoch = epoch

    def on_step_begin(self, step, nb_batches, phase):
        if phase == "train":
            is_frozen = self.epoch == 2 or (self.epoch == 3 and step % 2 == 0)
            self.trainer.component.model[0].requires_grad_(not is_frozen)


def trained(folder, component, *, callback=None, options=None, **settings):
    trainer = make(
        folder, component, callback=callback or [], options=options or Options(), **settings
    )
    if callback is not None:
        callback.trainer = trainer
    trainer.train()
    return weights(component)


CASES = {
    "two heads": (TwoHeads, torch.optim.AdamW, (1, 1, 1), {}),
    "two heads, accumulated": (
        TwoHeads,
        torch.optim.AdamW,
        (1, 1, 1),
        {"gradient_accumulation_steps": 3},
    ),
    "two heads, traced step": (TwoHeads, Lion, (1, 1, 1), {}),
    "frozen during the run": (
        Classifier,
        torch.optim.AdamW,
        (1, 1),
        {"callback": FreezesInTurn()},
    ),
    "rates": (Classifier, torch.optim.AdamW, (0.2, 3), {}),
    "a rate of 0": (Classifier, torch.optim.AdamW, (0, 1), {"options": {"warmup_steps": 9}}),
    "schedule": (
        Classifier,
        torch.optim.AdamW,
        (1, 3),
        {"lr_scheduler_builder": medjax.schedules.by_epoch(lambda epoch: 0.02 * 0.5**epoch)},
    ),
}


FAST = ("two heads", "schedule")


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=pytest.mark.slow) if case not in FAST else case for case in CASES],
)
def test_the_decay_is_that_of_torch(tmp_path, case):
    kind, optimizer, factors, settings = CASES[case]
    make_component = grouped(kind, optimizer, factors)
    settings = {"learning_rate": 0.05, **settings}
    options = settings.pop("options", {})
    plain = trained(tmp_path / "plain", make_component(0), options=Options(**options), **settings)
    own = trained(tmp_path / "own", make_component(DECAY), options=Options(**options), **settings)
    with_decay = Options(weight_decay=DECAY, **options)
    ours = trained(tmp_path / "ours", make_component(0), options=with_decay, **settings)
    for name, expected in own.items():
        np.testing.assert_allclose(ours[name], expected, rtol=1e-4, atol=1e-6)
    assert any((plain[name] - own[name]).abs().max() > 0.01 for name in own)


def test_with_sparse_gradients_only_rows_that_were_looked_up_decay(tmp_path):
    class Words(Classifier):
        def __init__(self):
            super().__init__()
            self.model = nn.Embedding(8, 3, sparse=True)

        def configure_optimizer(self, lr):
            return torch.optim.SparseAdam(self.model.parameters(), lr=lr)

        def collate(self, examples):
            batch = super().collate(examples)
            return BatchData(ids=batch["y"], y=batch["y"])

        def forward(self, batch, return_loss, eval_mode):
            scores = self.model(batch["ids"])
            return BatchData(logits=scores), nn.functional.cross_entropy(scores, batch["y"])

    before = weights(Words())["weight"]
    plain = trained(tmp_path / "plain", Words())["weight"]
    decayed = trained(tmp_path / "decayed", Words(), options=Options(weight_decay=DECAY))["weight"]
    looked_up = len({item["y"] for item in DATA})
    assert torch.equal(decayed[looked_up:], before[looked_up:])
    assert (decayed != plain)[:looked_up].any(1).all()


def test_a_decay_without_a_rate_is_refused(tmp_path):
    class Rateless(Classifier):
        def configure_optimizer(self, lr):
            optimizer = super().configure_optimizer(lr)
            optimizer.param_groups[0]["lr"] = None
            return optimizer

    trainer = make(tmp_path, Rateless(), options=Options(weight_decay=DECAY))
    with pytest.raises(
        ValueError, match=r"Options\.weight_decay is multiplied by the learning rate"
    ):
        trainer.train()
