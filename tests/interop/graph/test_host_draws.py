"""What forward draws from `random` and `numpy.random` is drawn again for every step."""

import dataclasses
import random

import numpy as np
import pytest
import torch
from medkit_runs import largest_difference
from torch.nn import functional as F
from trained import DATA, Classifier, make, same, weights

from medjax_torch import BatchData, Options
from medjax_torch.graph import TraceError
from medjax_torch.graph.host_draws import Draw, HostDraws, returning


class Mixed(Classifier):
    """Mixup as its authors wrote it, now and then, with labels smoothed by chance."""

    def __init__(self):
        super().__init__(optimizer=torch.optim.SGD)

    def forward(self, batch, return_loss, eval_mode):
        self.model.train(not eval_mode)
        x, y = batch["x"], batch["y"]
        if eval_mode:
            return BatchData(), F.cross_entropy(self.model(x), y)
        part = np.random.beta(0.4, 0.4)
        order = torch.from_numpy(np.random.permutation(len(x)))
        logits = self.model(part * x + (1 - part) * x[order])
        loss = part * F.cross_entropy(logits, y) + (1 - part) * F.cross_entropy(logits, y[order])
        if random.random() < 0.4:
            loss = loss + random.uniform(0, 0.5) * logits.square().mean()
        return BatchData(part=torch.as_tensor(part), order=order), loss


class MixedByPosition(Mixed):
    """The same in torch, with the numbers that are drawn for a position."""

    def __init__(self):
        super().__init__()
        self.draws, self.step = HostDraws(), 0
        self.draws.seed = 3

    def forward(self, batch, return_loss, eval_mode):
        if eval_mode:
            return super().forward(batch, return_loss, eval_mode)
        self.draws.position = (self.step // 6 + 1, self.step % 6)
        self.step += 1
        run = super().forward
        self.draws.discover(lambda: run(batch, return_loss, eval_mode), train=True)
        with returning(self.draws.columns(train=True)):
            return run(batch, return_loss, eval_mode)


def test_a_run_is_that_of_torch_with_the_numbers_of_each_position(tmp_path):
    components = iter([MixedByPosition(), Mixed()])
    fields = {"batch_size": 8, "learning_rate": 0.1}
    assert largest_difference(tmp_path, lambda: next(components), DATA, DATA[:8], **fields) < 1e-5


def test_a_run_repeats_itself_and_no_step_another(tmp_path):
    components = [Mixed(), Mixed()]
    for number, component in enumerate(components):
        random.seed(number)
        np.random.seed(number)
        trainer = make(tmp_path / str(number), component, batch_size=11, nb_training_epochs=2)
        trainer.train()
    assert same(*map(weights, components))
    draw = Draw(0, "numpy.random", "beta", (0.4, 0.4), ())
    values = {draw.value((3, epoch, batch, 1)).item() for epoch in (1, 2) for batch in range(4)}
    assert len(values) == 8


def test_values_have_the_distribution_and_the_types_of_python():
    draw = Draw(0, "numpy.random", "beta", (2.0, 3.0), ())
    values = torch.stack([draw.value((0, 1, number, 1)) for number in range(2000)])
    assert values.dtype == torch.float32
    assert abs(values.mean() - 0.4) < 0.02
    assert Draw(0, "random", "randint", (1, 6), ()).value((0, 0)).dtype == torch.int64
    assert sorted(Draw(1, "numpy.random", "permutation", (5,), ()).value((0, 0)).tolist()) == [
        *range(5)
    ]


class Refused(Mixed):
    generator = None

    def __init__(self, draw):
        super().__init__()
        self.draw, self.generator = draw, np.random.default_rng(0)

    def forward(self, batch, return_loss, eval_mode):
        return BatchData(), self.model(batch["x"]).mean() * self.draw(self)


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda self: self.generator.normal(), "draws from generator"),
        (lambda self: np.concatenate([np.random.rand(3), [1.0]])[0], "numpy"),
        (lambda self: (random.shuffle([1, 2, 3]), 1)[1], "draws from random at"),
    ],
    ids=["generator", "arithmetic of numpy", "shuffle"],
)
def test_what_cannot_be_an_input_is_refused_by_name(tmp_path, draw, message):
    with pytest.raises(TraceError, match=message):
        make(tmp_path, Refused(draw)).train()


class Drawn(Classifier):
    """Scales the loss by a number that forward draws."""

    read = staticmethod(lambda number: number)

    def __init__(self):
        super().__init__(optimizer=torch.optim.SGD)

    def forward(self, batch, return_loss, eval_mode):
        outputs, loss = super().forward(batch, return_loss, eval_mode)
        return outputs, loss * (1.0 if eval_mode else self.read(np.random.rand()))


def trained_in_one_batch(tmp_path, seed):
    trainer = make(tmp_path, Drawn(), batch_size=len(DATA), learning_rate=0.0, seed=seed)
    return trainer, [epoch["train"]["loss"] for epoch in trainer.train()]


def test_runs_without_a_seed_draw_other_numbers_each_time(tmp_path):
    trainer, first = trained_in_one_batch(tmp_path / "first", seed=None)
    other, second = trained_in_one_batch(tmp_path / "second", seed=None)
    assert not set(first) & set(second)
    loaders = [each.train_dataloader for each in (trainer, other)]
    loaders += [each.eval_dataloader for each in (trainer, other)]
    assert len({loader.generator.initial_seed() for loader in loaders}) == 4  # of the workers


def test_another_seed_of_a_trainer_is_that_of_its_next_training(tmp_path, caplog):
    trainer, first = trained_in_one_batch(tmp_path / "first", seed=7)
    _, expected = trained_in_one_batch(tmp_path / "other", seed=8)
    assert "already trained" not in caplog.text
    trainer.config = dataclasses.replace(trainer.config, seed=8)
    assert [epoch["train"]["loss"] for epoch in trainer.train()] == expected
    assert "already trained" not in caplog.text
    trainer.config = dataclasses.replace(trainer.config, seed=7)
    assert [epoch["train"]["loss"] for epoch in trainer.train()] == first
    assert "this Trainer has already trained with seed 7" in caplog.text


def test_a_drawn_number_that_float_reads_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(Drawn, "read", staticmethod(float))
    with pytest.raises(TraceError, match=r"drawn by numpy.random or random is used without float"):
        make(tmp_path, Drawn(), batch_size=10, options=Options(max_variants=1)).train()
