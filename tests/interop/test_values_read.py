"""Forward reads values of tensors that change in training: to check, log or return them."""

import logging
import math

import numpy as np
import pytest
import torch
from trained import DATA, Accuracy, Classifier, make, weights

from medjax.loop.monitor import NonFiniteError
from medjax_torch import BatchData, Options, Trainer
from medjax_torch.graph import TraceError

pytestmark = pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")

LINE = r" at \S*test_values_read\.py:\d+ in "


def reading(function, **options):
    """Return a classifier whose forward ends with `function(self, batch, logits, loss)`."""

    class Reading(Classifier):
        def __init__(self):
            super().__init__(**options)
            self.losses, self.best, self.last = [], float("inf"), None

        def forward(self, batch, return_loss, eval_mode):
            outputs, loss = super().forward(batch, return_loss, eval_mode)
            result = function(self, batch, outputs["logits"], loss)
            more, loss = result if isinstance(result, tuple) else ({}, result)
            return BatchData(**outputs, **more), loss

    return Reading()


def by_torch(component, epochs=3, rate=1e-2):
    """Train in torch on the data in its order, in batches of 8; return the loss of each epoch."""
    optimizer = component.configure_optimizer(rate)
    losses = []
    for _ in range(epochs):
        losses.append([])
        for first in range(0, 40, 8):
            batch = component.collate(DATA[first : first + 8])
            _, loss = component.forward(batch, True, False)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses[-1].append(loss.item())
    return [float(np.mean(each)) for each in losses]


def by_jax(folder, component, **settings):
    settings.setdefault("evaluated", DATA[:8])
    trainer = make(folder, component, train=DATA[:40], kind=InOrder, **settings)
    return trainer, [row["train"]["loss"] for row in trainer.train()]


class InOrder(Trainer):
    """Trains on the data in its order."""

    def get_dataloader(self, data, shuffle):
        return super().get_dataloader(data, False)


def checked(self, batch, logits, loss):
    if torch.isnan(loss):
        raise ValueError("the loss is not a number")
    assert torch.isfinite(logits).all()
    assert not math.isnan(loss.item())
    if np.isinf(loss.item()) or loss.item() > 1e4:
        loss = loss * 0
    return loss


def logged(self, batch, logits, loss):
    self.losses.append(loss.item())
    self.best = min(self.best, loss.item())
    if loss.item() < self.best:
        self.last = loss.detach()
    print(f"{loss:.3f}", float(loss), loss)
    logging.getLogger("component").warning("%.3f after %d", float(loss), int(loss * 100))
    np.asarray(loss.detach()).sum()
    logits.detach().argmax(-1).tolist()
    return loss


def scaled(self, batch, logits, loss):
    if torch.isnan(loss):
        raise ValueError
    return loss * 2 / loss.item() + loss * round(loss.item(), 1)


@pytest.mark.parametrize(
    "function", [checked, pytest.param(logged, marks=pytest.mark.slow), scaled]
)
def test_what_is_checked_and_logged_changes_no_number(tmp_path, function, capsys):
    ours, theirs = reading(function), reading(function)
    expected = by_torch(theirs)
    _, losses = by_jax(tmp_path, ours)
    assert losses == pytest.approx(expected, rel=1e-5)
    for name, value in weights(theirs).items():
        torch.testing.assert_close(weights(ours)[name], value, rtol=1e-4, atol=1e-5)
    assert "nan" not in capsys.readouterr().out
    assert ours.losses == []


@pytest.mark.slow
def test_one_warning_says_what_is_logged(tmp_path, caplog):
    by_jax(tmp_path, reading(logged))
    (warning,) = (r for r in caplog.records if "forward reads values at" in r.getMessage())
    assert "test_values_read.py" in warning.getMessage()
    assert "not from every step" in warning.getMessage()


def test_a_number_that_the_graph_computes_with_is_not_called_irrelevant(tmp_path, caplog):
    by_jax(tmp_path, reading(scaled))
    assert not any("forward reads values at" in r.getMessage() for r in caplog.records)


def outputs(self, batch, logits, loss):
    if torch.isnan(loss):
        raise ValueError
    right = (logits.argmax(-1) == batch["y"]).sum().item()
    return {
        "loss": loss.item(),
        "plain": float(loss),
        "rounded": round(loss.item(), 3),
        "both": round(float(loss), 2),
        "perplexity": math.exp(loss.item()),
        "right": right / len(logits),
    }, loss


def without_check(self, batch, logits, loss):
    return {"rounded": round(loss.item(), 3), "twice": 2 * loss.item()}, loss


@pytest.mark.parametrize("function", [pytest.param(outputs, marks=pytest.mark.slow), without_check])
def test_numbers_among_the_outputs_are_those_of_each_batch(tmp_path, function):
    computer = Accuracy()
    component = reading(function)
    make(tmp_path, component, metrics_computer=computer, nb_training_epochs=1).train()
    assert len(computer.outputs) == 3
    for returned, batch in zip(computer.outputs, computer.inputs, strict=True):
        with torch.no_grad():
            expected, _ = component.forward(batch, True, True)
        assert returned.keys() == expected.keys()
        for name in returned.keys() - {"logits"}:
            assert type(returned[name]) is float
            assert returned[name] == pytest.approx(expected[name], rel=1e-5, abs=1e-6), name
    assert len({returned["rounded"] for returned in computer.outputs}) > 1


def deciding(self, batch, logits, loss):
    return loss * 2 if self.model[0].weight.abs().max() > 0.6 else loss


def asserting(self, batch, logits, loss):
    assert self.model[0].weight.abs().max() < 0.6, "weights have grown"
    return loss


def checking(self, batch, logits, loss):
    torch._check_tensor_all(self.model[0].weight.abs() < 0.6, lambda: "weights have grown")
    return loss


def checking_the_batch(self, batch, logits, loss):
    torch._assert_async((batch["x"].abs() < 100).all(), "a column has grown")
    return loss


def of_number(self, batch, logits, loss):
    return loss * 2 if self.model[0].weight.abs().max().item() * 2 > 1.2 else loss


@pytest.mark.parametrize(
    ("function", "accumulation"),
    [
        (deciding, 1),
        (of_number, 2),
        pytest.param(deciding, 2, marks=pytest.mark.slow),
        pytest.param(of_number, 1, marks=pytest.mark.slow),
    ],
)
def test_a_decision_that_turns_ends_training_by_name(tmp_path, function, accumulation):
    component = reading(function)
    message = LINE + function.__name__ + r".*was False.*is True in (epoch \d|evaluation), batch \d"
    with pytest.raises(TraceError, match=message):
        by_jax(tmp_path, component, learning_rate=5e-2, gradient_accumulation_steps=accumulation)
    largest = component.model[0].weight.abs().max().item()
    assert 0.6 < largest < 0.8  # the step that made it turn was made, none after it


def test_an_assertion_is_raised_as_torch_raises_it(tmp_path):
    with pytest.raises(AssertionError, match="weights have grown"):
        by_jax(tmp_path, reading(asserting), learning_rate=5e-2)


def test_a_check_of_torch_is_raised_as_torch_raises_it(tmp_path):
    with pytest.raises(RuntimeError, match="weights have grown"):
        by_jax(tmp_path / "weights", reading(checking), learning_rate=5e-2)
    wild = [{**item, "x": item["x"] * 1e6} for item in DATA[:8]]
    with pytest.raises(RuntimeError, match="a column has grown"):
        make(tmp_path / "batch", reading(checking_the_batch), train=[*DATA[:40], *wild]).train()


def test_a_decision_that_turns_is_found_in_evaluation(tmp_path):
    def late(self, batch, logits, loss):
        return loss * 2 if not self.model.training and batch["x"].sum() * 0 + loss > 1e3 else loss

    wild = [{**item, "x": item["x"] * 1e6} for item in DATA[8:16]]
    with pytest.raises(TraceError, match=r"was False.*is True in evaluation, batch 1.*clamp"):
        make(tmp_path, reading(late), evaluated=[*DATA[:8], *wild]).train()


def broken_data(count):
    return [{**item, "x": item["x"] * float("nan")} for item in DATA[:count]]


def test_a_loss_of_nan_is_reported_with_the_check(tmp_path):
    component = reading(checked)
    trainer = make(tmp_path, component, train=[*DATA[:40], *broken_data(1)])
    with pytest.raises(NonFiniteError) as caught:
        trainer.train()
    assert "in checked: if torch.isnan(loss):" in caught.value.__notes__[0]
    assert all(torch.isfinite(value).all() for value in weights(component).values())


def test_a_check_in_evaluation_raises_what_it_raises_in_torch(tmp_path):
    with pytest.raises(ValueError, match="the loss is not a number"):
        make(tmp_path, reading(checked), evaluated=[*DATA[:8], *broken_data(3)]).train()


def only_finite(self, batch, logits, loss):
    if torch.isnan(loss):
        raise ValueError
    assert torch.isfinite(logits).all()
    return loss


def test_leaving_out_batches_loses_no_decision(tmp_path):
    skipping = Options(on_non_finite="skip")
    trainer = make(
        tmp_path / "finite",
        reading(only_finite),
        train=[*DATA[:40], *broken_data(1)],
        options=skipping,
    )
    assert all(math.isfinite(row["train"]["loss"]) for row in trainer.train())
    with pytest.raises(TraceError, match=LINE + r"deciding.*on_non_finite='stop'"):
        make(tmp_path / "decision", reading(deciding), options=skipping).train()


def plain_decision(self, batch, logits, loss):
    return loss * 0 if float(loss) > 1e4 else loss


def plain_factor(self, batch, logits, loss):
    return loss * float(loss)


def by_numpy(self, batch, logits, loss):
    return loss * torch.from_numpy(np.asarray(logits.detach())).mean()


def index(self, batch, logits, loss):
    return loss + logits[: int(logits.argmax(-1).sum())].sum()


@pytest.mark.parametrize("function", [plain_decision, plain_factor, by_numpy, index])
def test_a_number_that_is_used_is_refused_by_name(tmp_path, function):
    with pytest.raises(TraceError, match=LINE + function.__name__):
        by_jax(tmp_path, reading(function))


def test_numbers_of_the_batch_that_are_logged_ask_for_no_graphs(tmp_path):
    def counting(self, batch, logits, loss):
        print(batch["y"].sum().item(), batch["y"].tolist())
        return loss if torch.isfinite(loss) else loss * 0

    trainer, _ = by_jax(tmp_path, reading(counting))
    assert len(trainer.prepare().converted.variants.graphs) == 2  # training and evaluation


def test_dropout_may_be_checked(tmp_path):
    component = reading(checked, dropout=0.5)
    _, losses = by_jax(tmp_path, component)
    assert all(map(math.isfinite, losses))
