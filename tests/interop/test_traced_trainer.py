"""Training with optimizers that have no rule, compared with medkit's Trainer, and resumed."""

import optax
import pytest
import torch
from step_cases import CountingAdam, CutSGD, Lion
from torch.optim import ASGD, Adafactor
from torch.optim.lr_scheduler import StepLR
from trained import DATA, Classifier, make, same, weights
from transformers.optimization import Adafactor as RelativeAdafactor

from medjax_torch import Options

CASES = [
    (Adafactor, {"weight_decay": 0.1}),
    (RelativeAdafactor, {"warmup_init": False}),
    (Lion, {"weight_decay": 0.1}),
    (ASGD, {"t0": 5.0}),
    (CountingAdam, {"weight_decay": 0.1}),
    (CutSGD, {"momentum": 0.9}),
]


def by_class(nb_fast):
    """Return a decorator that runs a test for every case; all but the first few are slow."""
    cases = [
        case if number < nb_fast else pytest.param(*case, marks=pytest.mark.slow)
        for number, case in enumerate(CASES)
    ]
    names = [kind.__name__ for kind, _ in CASES]
    return pytest.mark.parametrize(("kind", "options"), cases, ids=names)


class Learner(Classifier):
    def __init__(self, kind, options):
        super().__init__()
        self.kind, self.options = kind, options

    def configure_optimizer(self, lr):
        weights, rest = self.model[0].parameters(), self.model[3].parameters()
        if self.kind is RelativeAdafactor:  # it computes its own learning rate
            return self.kind([{"params": weights}, {"params": rest}], **self.options)
        groups = [{"params": weights}, {"params": rest, "lr": lr / 2}]
        return self.kind(groups, lr=lr, **self.options)


def falling(optimizer):
    return StepLR(optimizer, 1, 0.5)


def trainer_of(folder, kind, settings, **fields):
    scheduler = None if kind is RelativeAdafactor else falling
    fields = {"options": Options(order="medkit"), **fields}
    return make(folder, Learner(kind, settings), lr_scheduler_builder=scheduler, **fields)


class Silent:
    def __getattr__(self, name):
        if not name.startswith("on_"):
            raise AttributeError(name)
        return lambda *args, **kwargs: None


@by_class(nb_fast=3)
def test_training_equals_medkits(tmp_path, kind, options):
    training = pytest.importorskip("medkit.training")
    ours = trainer_of(tmp_path / "ours", kind, options)
    history = ours.train()
    config = training.TrainerConfig(
        output_dir=tmp_path / "theirs",
        learning_rate=1e-2,
        nb_training_epochs=3,
        batch_size=8,
        seed=3,
    )
    scheduler = None if kind is RelativeAdafactor else falling
    theirs = training.Trainer(
        Learner(kind, options),
        config,
        DATA,
        DATA[:20],
        lr_scheduler_builder=scheduler,
        callback=Silent(),
    )
    expected = theirs.train()
    for row, other in zip(history, expected, strict=True):
        assert row["train"]["loss"] == pytest.approx(other["train"]["loss"], rel=1e-5)
        assert row["eval"]["loss"] == pytest.approx(other["eval"]["loss"], rel=1e-5)
    actual, wanted = weights(ours.component), weights(theirs.component)
    assert max((actual[n] - wanted[n]).abs().max() for n in wanted) < 2e-6
    states = [trainer.optimizer.state_dict()["state"].values() for trainer in (ours, theirs)]
    for slots, others in zip(*states, strict=True):
        assert list(slots) == list(others)
        assert {n: type(v) for n, v in slots.items()} == {n: type(v) for n, v in others.items()}


@by_class(nb_fast=1)
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, kind, options):
    uninterrupted = trainer_of(tmp_path / "whole", kind, options, nb_training_epochs=4)
    history = uninterrupted.train()
    trainer_of(tmp_path / "cut", kind, options, nb_training_epochs=2).train()
    resumed = trainer_of(tmp_path / "cut", kind, options, nb_training_epochs=4)
    assert resumed.train(resume="auto") == history
    assert same(weights(uninterrupted.component), weights(resumed.component))
    states = [t.optimizer.state_dict()["state"].values() for t in (uninterrupted, resumed)]
    for slots, others in zip(*states, strict=True):
        assert all(
            torch.equal(torch.as_tensor(slots[n]), torch.as_tensor(others[n])) for n in slots
        )
    saved = torch.load(f"{resumed.last_checkpoint}/optimizer.pt", weights_only=True)
    fresh = Learner(kind, options).configure_optimizer(1e-2)
    fresh.load_state_dict(saved)
    assert len(fresh.state) == 4


def test_a_second_training_continues_without_tracing_or_compiling(tmp_path):
    trainer = trainer_of(tmp_path, *CASES[0], nb_training_epochs=1)
    trainer.train()
    before = trainer.conversion_cost.nb_compilations
    steps = [slots["step"].item() for slots in trainer.optimizer.state.values()]
    trainer.train()
    assert trainer.conversion_cost.nb_compilations == before
    assert [s["step"].item() for s in trainer.optimizer.state.values()] == [2 * n for n in steps]


def test_a_warm_up_needs_a_learning_rate(tmp_path):
    trainer = trainer_of(tmp_path, *CASES[1], options=Options(warmup_steps=4))
    with pytest.raises(ValueError, match=r"warmup_steps scales .* has no learning rate"):
        trainer.train()


def test_a_schedule_of_optax_needs_a_rate_to_scale(tmp_path):
    falling = optax.linear_schedule(0.1, 0.0, 12)
    without = make(tmp_path, Learner(*CASES[1]), lr_scheduler_builder=falling)
    with pytest.raises(ValueError, match=r"lr_scheduler_builder sets .* has no learning rate"):
        without.train()
    of_zero = make(tmp_path, lr_scheduler_builder=falling, learning_rate=0.0)
    with pytest.raises(ValueError, match=r"first group of the component's AdamW has a rate of 0"):
        of_zero.train()
