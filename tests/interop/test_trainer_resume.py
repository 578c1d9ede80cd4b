"""A run of a torch component that is interrupted and resumed ends as if uninterrupted."""

import numpy as np
import pytest
import torch
from trained import DATA, Classifier, make, same, weights

from medjax_torch import Options


class InterruptedError(Exception):
    pass


class InterruptAt:
    """A callback that stops a run after a number of training batches."""

    def __init__(self, count):
        self.left = count

    def on_step_end(self, step_idx, nb_batches, phase):
        if phase == "train":
            self.left -= 1
            if self.left == 0:
                raise InterruptedError


def one_cycle(optimizer):
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.02, total_steps=40)


def falling(optimizer):
    return torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)


def finish(folder, scheduler, options, **settings):
    component = Classifier(dropout=0.3)
    trainer = make(
        folder,
        component,
        lr_scheduler_builder=scheduler,
        options=options,
        gradient_accumulation_steps=2,
        **settings,
    )
    return component, trainer


@pytest.mark.parametrize(
    ("scheduler", "interval"), [(falling, "epoch"), (one_cycle, "step")], ids=["epoch", "step"]
)
@pytest.mark.parametrize(
    "batches",
    [pytest.param(8, marks=pytest.mark.slow, id="first epochs"), pytest.param(15, id="within")],
)
def test_a_resumed_run_ends_as_if_uninterrupted(tmp_path, scheduler, interval, batches):
    options = Options(lr_scheduler_interval=interval, save_interval_steps=2)
    expected, uninterrupted = finish(tmp_path / "whole", scheduler, options)
    history = uninterrupted.train()
    _, first = finish(tmp_path / "cut", scheduler, options, callback=InterruptAt(batches))
    with pytest.raises(InterruptedError):
        first.train()
    resumed, second = finish(tmp_path / "cut", scheduler, options)
    assert second.train(resume="auto") == history
    assert same(weights(expected), weights(resumed))
    states = [trainer.optimizer.state_dict() for trainer in (uninterrupted, second)]
    assert states[0]["param_groups"] == states[1]["param_groups"]
    for slots, others in zip(*(s["state"].values() for s in states), strict=True):
        assert all(torch.equal(slots[name], others[name]) for name in slots)
    assert uninterrupted.lr_scheduler.state_dict() == second.lr_scheduler.state_dict()


class WithEmpty(Classifier):
    """Keeps tensors without elements, as to find the device, or class weights that are not set."""

    def __init__(self):
        super().__init__()
        self.model.register_buffer("weight", torch.empty(0))
        self.model.register_parameter("none", torch.nn.Parameter(torch.empty(0, 3)))
        self.queue = torch.empty(2, 0, dtype=torch.int64)

    def forward(self, batch, return_loss, eval_mode):
        outputs, loss = super().forward(batch, return_loss, eval_mode)
        factor = self.model.weight.mean() if self.model.weight.numel() else 1
        return outputs, loss * factor + self.model.none.sum() + self.queue.sum()


def test_tensors_without_elements_are_saved_and_resumed(tmp_path):
    expected = WithEmpty()
    make(tmp_path / "whole", expected, nb_training_epochs=2).train()
    make(tmp_path / "cut", WithEmpty(), nb_training_epochs=1).train()
    resumed = WithEmpty()
    make(tmp_path / "cut", resumed, nb_training_epochs=2).train(resume="auto")
    assert same(weights(expected), weights(resumed))
    assert resumed.model.none.shape == (0, 3)
    assert (resumed.queue.shape, resumed.queue.dtype) == ((2, 0), torch.int64)


def test_dropout_follows_the_seed(tmp_path):
    losses = []
    for number, seed in enumerate((3, 3, 4)):
        component = Classifier(dropout=0.5)
        trainer = make(tmp_path / str(number), component, seed=seed, nb_training_epochs=1)
        losses.append(trainer.train()[0]["train"]["loss"])
    assert losses[0] == losses[1] != losses[2]


def test_a_scheduler_by_step_has_the_rates_of_torch(tmp_path):
    rates = []

    class Rates:
        def on_step_end(self, step_idx, nb_batches, phase):
            if phase == "train":
                rates.append(trainer.optimizer.param_groups[0]["lr"])

    trainer = make(
        tmp_path,
        lr_scheduler_builder=one_cycle,
        callback=Rates(),
        options=Options(lr_scheduler_interval="step"),
    )
    trainer.train()
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1e-2)
    scheduler = one_cycle(optimizer)
    expected = []
    for _ in rates:
        optimizer.step()
        scheduler.step()
        expected.append(optimizer.param_groups[0]["lr"])
    assert rates == expected
    assert trainer.prepare().converted is not None
    assert len(rates) == 18


def test_optax_schedules_and_optimizers(tmp_path):
    import optax

    class WithOptax(Classifier):
        def configure_optimizer(self, lr):
            return optax.sgd(lr, momentum=0.9)

    sgd = make(
        tmp_path / "torch",
        Classifier(torch.optim.SGD, momentum=0.9),
        lr_scheduler_builder=optax.linear_schedule(0.02, 0.0, 18),
    )
    constant = make(tmp_path / "constant", Classifier(torch.optim.SGD, momentum=0.9))
    ours = make(tmp_path / "optax", WithOptax())
    falling, steady, direct = sgd.train(), constant.train(), ours.train()
    assert sgd.lr_scheduler is None
    assert falling != steady
    for row, other in zip(steady, direct, strict=True):
        np.testing.assert_allclose(row["eval"]["loss"], other["eval"]["loss"], rtol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(Options(max_grad_norm=0.1), marks=pytest.mark.slow),
        pytest.param(Options(warmup_steps=4), marks=pytest.mark.slow),
        Options(precision="bfloat16"),
        Options(loss_arithmetic="exact"),
        Options(length_window=2),
    ],
    ids=["clipping", "warm-up", "bfloat16", "exact", "grouped"],
)
def test_options_have_an_effect_and_train(tmp_path, options):
    plain = make(tmp_path / "plain", evaluated=DATA[:21]).train()
    history = make(tmp_path / "other", evaluated=DATA[:21], options=options).train()
    assert history != plain
    assert history[-1]["train"]["loss"] < history[0]["train"]["loss"]
    assert history[-1]["train"]["loss"] == pytest.approx(plain[-1]["train"]["loss"], rel=0.5)


def rates(trainer):
    return [group["lr"] for group in trainer.optimizer.param_groups]


@pytest.mark.parametrize("scheduler", [None, falling])
def test_a_changed_rate_is_kept(tmp_path, caplog, scheduler):
    _, first = finish(tmp_path, scheduler, Options(), learning_rate=0.01)
    first.train()
    nb_epochs = len(first.train_history) if hasattr(first, "train_history") else 2
    saved = rates(first)[0]
    caplog.clear()
    _, second = finish(
        tmp_path, scheduler, Options(), learning_rate=0.04, nb_training_epochs=nb_epochs + 3
    )
    second.train(resume="auto")
    expected = 0.04
    if scheduler is not None:  # in proportion: each epoch halves the rate, as before
        nb_more = second.lr_scheduler.last_epoch - first.lr_scheduler.last_epoch
        expected = saved * 4 * 0.5**nb_more
        assert second.lr_scheduler.base_lrs == [0.04]
    assert rates(second)[0] == pytest.approx(expected)
    assert "lr of the optimizer was 0.01 and is 0.04 now" in caplog.text


def test_a_changed_scheduler_is_kept(tmp_path, caplog):
    def slower(optimizer):
        return torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.9)

    def other(optimizer):
        return torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)

    _, first = finish(tmp_path / "a", falling, Options(), learning_rate=0.01)
    first.train()
    done = first.lr_scheduler.last_epoch
    _, second = finish(
        tmp_path / "a", slower, Options(), learning_rate=0.01, nb_training_epochs=done + 1
    )
    second.train(resume="auto")
    assert rates(second)[0] == pytest.approx(0.01 * 0.9 ** (done + 1))
    assert "gamma of the scheduler StepLR was 0.5 and is 0.9 now" in caplog.text
    _, third = finish(
        tmp_path / "a", other, Options(), learning_rate=0.01, nb_training_epochs=done + 3
    )
    third.train(resume="auto")
    assert rates(third)[0] == pytest.approx(0.01 * 0.25)
    assert "the scheduler was StepLR and is ExponentialLR now, so it starts from the" in caplog.text


def test_a_rate_set_by_a_callback_is_kept(tmp_path, caplog):
    class Halves:
        def __init__(self):
            self.trainer = None

        def on_epoch_end(self, metrics, epoch, epoch_duration):
            self.trainer.optimizer.param_groups[0]["lr"] *= 0.5

    def run(**settings):
        halves = Halves()
        _, trainer = finish(
            tmp_path, None, Options(), learning_rate=0.01, callback=halves, **settings
        )
        halves.trainer = trainer
        trainer.train(resume="auto")
        return rates(trainer)[0]

    assert run(nb_training_epochs=2) == pytest.approx(0.0025)
    assert run(nb_training_epochs=3) == pytest.approx(0.00125)
    assert "of the optimizer was" not in caplog.text
