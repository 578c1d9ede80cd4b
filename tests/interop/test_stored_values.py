"""Plain values that forward stores, and who reads them later: compared with a loop in torch."""

import functools

import numpy as np
import pytest
import torch
from plain_loop import BATCH, ROWS, Hooks
from trained import Classifier, make

from medjax_torch import Options
from medjax_torch.graph import TraceError


class Storing(Classifier):
    """Calls `store` and multiplies the loss by what it returns."""

    begun = 0

    def __init__(self, store, **held):
        super().__init__(optimizer=torch.optim.SGD)
        self.store = store
        self.__dict__.update(held)

    def forward(self, batch, return_loss, eval_mode):
        outputs, loss = super().forward(batch, return_loss, eval_mode)
        return outputs, loss * self.store(self, loss, eval_mode)


def in_torch(component, on_step_end=lambda: None, epochs=2):
    """Train and evaluate as medkit does; return the losses of the evaluations."""
    optimizer, losses = component.configure_optimizer(0.05), []
    batch = component.collate(ROWS[:BATCH])
    for _ in range(epochs):
        for _ in range(len(ROWS) // BATCH):
            component.forward(batch, True, False)[1].backward()
            optimizer.step()
            optimizer.zero_grad()
            on_step_end()
        losses += [float(component.forward(batch, True, True)[1].detach()) for _ in range(2)]
    return np.reshape(losses, (epochs, 2)).mean(1)


def in_jax(folder, component, on_step_end=lambda: None, *, resume=None, **more):
    more = {"nb_training_epochs": 2, "batch_size": BATCH, "learning_rate": 0.05, **more}
    hooks = Hooks(on_step_end=lambda phase, **_: on_step_end() if phase == "train" else None)
    data = {"train": ROWS, "evaluated": ROWS[: 2 * BATCH]}
    history = make(folder, component, callback=hooks, **data, **more).train(resume=resume)
    return [epoch["eval"]["loss"] for epoch in history]


def trained(self, loss, eval_mode):
    if eval_mode:
        return 3.0 if getattr(self, "is_trained", False) else 0.0
    self.is_trained = True
    return 1.0


def evaluated(self, loss, eval_mode):
    if eval_mode:
        self.mode = "hard"
    return 2.0 if self.mode == "hard" and not eval_mode else 1.0


def counted(self, loss, eval_mode):
    if eval_mode:
        return float(self.steps)
    self.steps += 1
    return 1.0


def counted_in_class(self, loss, eval_mode):
    if eval_mode:
        return float(self.begun)
    self.begun += 1
    return 1.0


def counted_down(self, loss, eval_mode):
    if eval_mode:
        return self.left / 10
    self.left = self.left - 1
    return 1.0


@pytest.mark.parametrize(
    ("store", "held"),
    [
        (trained, {}),
        (evaluated, {"mode": "warm"}),
        (counted, {"steps": 0}),
        (counted_down, {"left": 9}),
        (counted_in_class, {}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_flags_and_counts_of_one_phase_reach_the_other(tmp_path, store, held):
    expected, actual = Storing(store, **held), Storing(store, **held)
    losses = in_torch(expected)
    np.testing.assert_allclose(in_jax(tmp_path, actual), losses, rtol=1e-5)
    for name in (*held, *(["is_trained"] if store is trained else [])):
        assert getattr(actual, name) == getattr(expected, name)
    assert actual.begun == expected.begun


def only_counted(self, loss, eval_mode):
    self.steps += not eval_mode
    return 1.0


@pytest.mark.parametrize("options", [Options(), Options(steps_per_dispatch=3)], ids=["one", "3"])
def test_a_callback_and_a_resumed_run_find_the_count(tmp_path, options):
    component, seen = Storing(only_counted, steps=0), []
    in_jax(tmp_path, component, lambda: seen.append(component.steps), options=options)
    assert seen == ([1, 2, 3, 4, 5, 6] if options.steps_per_dispatch == 1 else [3, 3, 3, 6, 6, 6])
    again = Storing(only_counted, steps=0)
    in_jax(tmp_path, again, options=options, nb_training_epochs=3, resume="auto")
    assert again.steps == 9


class Prepared(Storing):
    """Prepares items by the steps so far and by the mode that the last step left."""

    def preprocess(self, item):
        return {**item, "x": item["x"] * (1 + self.steps + 10 * self.model.training)}


def test_batches_of_one_call_are_prepared_after_the_steps_before_them(tmp_path):
    runs = []
    for steps in (1, 3, 2):  # 2: the last step of an epoch is alone
        component = Prepared(only_counted, steps=0)
        options = Options(steps_per_dispatch=steps)
        runs.append(in_jax(tmp_path / str(steps), component, options=options))
        assert component.steps == 6
    np.testing.assert_allclose(runs[1:], [runs[0]] * 2, rtol=1e-6)


def sized(self, loss, eval_mode):
    if not eval_mode:
        self.rows = 10 * loss.numel()
    return float(self.rows) if eval_mode else 1.0


def averaged(self, loss, eval_mode):
    if not eval_mode:
        self.mean = loss.item() if self.mean is None else 0.9 * self.mean + 0.1 * loss.item()
        return 1.0
    return self.mean or 0.0


def banked(self, loss, eval_mode):
    if not eval_mode:
        self.bank = loss.detach()
        return 1.0
    return 1.0 if self.bank is None else self.bank


@pytest.mark.parametrize(
    ("store", "held"),
    [(sized, "rows"), (averaged, "mean"), (banked, "bank")],
    ids=["size", "mean", "bank"],
)
def test_what_training_computes_and_evaluation_reads_is_refused(tmp_path, store, held):
    component = Storing(store, **{held: 1 if store is sized else None})
    with pytest.raises(TraceError, match=f"reads {held} in evaluation, which it computes in tr"):
        in_jax(tmp_path, component)


class Threshold(Classifier):
    """Evaluates in torch, as its outputs are lists, with a threshold that training computes."""

    threshold = 0.5

    def forward(self, batch, return_loss, eval_mode):
        outputs, loss = super().forward(batch, return_loss, eval_mode)
        shares = outputs["logits"].softmax(-1)[:, 1]
        if not eval_mode:
            self.threshold = float(shares.mean())
        outputs["predicted"] = [int(share > self.threshold) for share in shares.tolist()]
        return outputs, loss


class Predicted:
    def prepare_batch(self, model_output, input_batch):
        return {"predicted": model_output["predicted"]}

    def compute(self, all_data):
        return {"share": float(np.mean(all_data["predicted"]))}


def test_an_evaluation_in_torch_does_not_read_old_values_either(tmp_path):
    with pytest.raises(TraceError, match="reads threshold in evaluation"):
        in_jax(tmp_path, Threshold(), metrics_computer=Predicted())


def best(self, loss, eval_mode):
    if eval_mode:
        self.best = min(self.best, loss.item())
    return 1.0


class Listed(Storing):
    """Evaluates in torch."""

    def forward(self, batch, return_loss, eval_mode):
        outputs, loss = super().forward(batch, return_loss, eval_mode)
        outputs["predicted"] = [int(share > 0.5) for share in outputs["logits"][:, 1].tolist()]
        return outputs, loss


def test_an_evaluation_in_torch_keeps_what_forward_stores(tmp_path):
    expected, actual = Listed(best, best=1e9), Listed(best, best=1e9)
    in_torch(expected)
    in_jax(tmp_path, actual, metrics_computer=Predicted())
    assert actual.best == pytest.approx(expected.best, rel=1e-5)


def in_a_dict(self, loss, eval_mode):
    self.losses["eval" if eval_mode else "train"] = loss.item()
    return 1.0


def in_a_list(self, loss, eval_mode):
    self.losses.append(loss.item())
    return 1.0


def in_a_tuple(self, loss, eval_mode):
    self.losses = (loss.detach(), eval_mode)
    return 1.0


@pytest.mark.parametrize(
    ("store", "held"),
    [(in_a_dict, {}), (in_a_list, []), (in_a_tuple, None)],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_warning_names_what_is_not_kept(tmp_path, store, held, caplog):
    in_jax(tmp_path, Storing(store, losses=held))
    assert any(" losses" in said and "is not kept" in said for said in caplog.messages)


def from_step(limit, self, loss, eval_mode):
    if not eval_mode:
        self.steps += 1
    return 2.0 if self.steps > limit else 1.0


def at_intervals(interval, self, loss, eval_mode):
    if not eval_mode:
        self.steps += 1
    return 2.0 if self.steps % interval == 0 else 1.0


def in_a_dict_at_intervals(interval, self, loss, eval_mode):
    self.counts["steps"] += 1
    return 2.0 if self.counts["steps"] % interval == 0 else 1.0


def in_a_dict_from(limit, self, loss, eval_mode):
    self.counts["steps"] += 1
    return 2.0 if self.counts["steps"] > limit else 1.0


@pytest.mark.parametrize(
    "store",
    [
        functools.partial(from_step, 500),
        functools.partial(from_step, 50_000),
        functools.partial(at_intervals, 100),
        functools.partial(in_a_dict_from, 50_000),
        functools.partial(in_a_dict_at_intervals, 50),
    ],
    ids=["soon", "late", "at intervals", "in a dict", "in a dict, at intervals"],
)
def test_a_count_that_matters_later_is_refused(tmp_path, store):
    component = Storing(store, steps=0, counts={"steps": 0})
    with pytest.raises(TraceError, match=r"both reads and changes (counts\.)?steps"):
        in_jax(tmp_path, component)


def made_once(self, loss, eval_mode):
    if not self.is_ready:
        self.scale, self.is_ready = (lambda x: 2 * x), True
    return self.scale(1.0)


def made_once_without_a_flag_before(self, loss, eval_mode):
    if not hasattr(self, "has_scale"):
        self.scale, self.has_scale = (lambda x: 2 * x), True
    return self.scale(1.0)


@pytest.mark.parametrize("store", [made_once, made_once_without_a_flag_before])
def test_an_object_may_be_made_at_the_first_call(tmp_path, store):
    losses = in_torch(Storing(store, scale=None, is_ready=False))
    component = Storing(store, scale=None, is_ready=False)
    np.testing.assert_allclose(in_jax(tmp_path, component), losses, rtol=1e-5)
    assert (component.scale, component.is_ready) == (None, False)


def reduced(self, loss, eval_mode):
    if self.last.dim() == 0:
        return 3.0
    self.last = loss.detach()
    return 1.0


def queued(self, loss, eval_mode):
    if len(self.last) < 4 and not eval_mode:
        self.last = torch.cat([self.last, loss.detach()[None]])
    return float(len(self.last))


@pytest.mark.parametrize("store", [reduced, queued])
def test_a_tensor_whose_shape_changes_and_counts_is_refused(tmp_path, store):
    component = Storing(store, last=torch.zeros(1))
    with pytest.raises(TraceError, match=r"replaces last, of shape \(1,\), by a tensor of another"):
        in_jax(tmp_path, component)


def only_left(self, loss, eval_mode):
    self.last = loss.detach()
    return 1.0


def test_a_tensor_whose_shape_changes_may_be_left(tmp_path):
    losses = in_torch(Storing(only_left, last=torch.zeros(1)))
    actual = in_jax(tmp_path, Storing(only_left, last=torch.zeros(1)))
    np.testing.assert_allclose(actual, losses, rtol=1e-5)


def made_at_the_first_count(self, loss, eval_mode):
    if self.steps < 1:
        self.scale = torch.tensor(2.0)
    self.steps += 1
    return self.scale


def test_a_count_that_says_whether_a_constant_is_made_is_refused(tmp_path):
    component = Storing(made_at_the_first_count, scale=None, steps=0)
    with pytest.raises(TraceError, match="both reads and changes steps, scale"):
        in_jax(tmp_path, component)
