"""Optimizers that do more than their step, or become other ones during training."""

import functools
import types

import pytest
import torch
from plain_loop import check, ours
from trained import Classifier

from medjax_torch.graph import TraceError

sgd = functools.partial(Classifier, torch.optim.SGD)


def stepping_by_sign(optimizer):
    """Set a step that uses the sign of the gradients on the optimizer itself."""
    step = optimizer.step

    def by_sign(closure=None):
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad.sign_()
        return step()

    optimizer.step = by_sign


def as_method(optimizer):
    """Set a bound method, which torch's schedulers wrap like that of the class."""

    def step(self, closure=None):
        return type(self).step(self, closure)

    optimizer.step = types.MethodType(step, optimizer)


def with_zero_grad(optimizer):
    optimizer.zero_grad = lambda set_to_none=True: None


class Remembering(torch.optim.SGD):
    def zero_grad(self, set_to_none=True):
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad.mul_(0.9)


class Noting(torch.optim.SGD):
    def zero_grad(self, set_to_none=True):
        self.noted = True
        super().zero_grad(set_to_none)


class PerAttribute(torch.optim.Optimizer):
    """Reads a number and a tensor that are no settings of its groups."""

    def __init__(self, parameters, lr):
        super().__init__(parameters, {"lr": lr})
        self.gamma, self.scale = 1.0, torch.ones(())

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                if "sum" not in state:
                    state["sum"] = torch.zeros_like(parameter)
                state["sum"].mul_(0.9).add_(parameter.grad)
                parameter.sub_(state["sum"] * self.scale * (group["lr"] * self.gamma))


class InTwoGroups(Classifier):
    """Trains its last layer faster than its first."""

    def configure_optimizer(self, lr):
        first, last = (list(self.model[n].parameters()) for n in (0, 3))
        return torch.optim.SGD([{"params": first, "lr": 0.01}, {"params": last}], lr=0.2)


class Altered(Classifier):
    """Does something to its optimizer."""

    def __init__(self, alter, kind=torch.optim.SGD):
        super().__init__(kind)
        self.alter = alter

    def configure_optimizer(self, lr):
        optimizer = super().configure_optimizer(lr)
        self.alter(optimizer)
        return optimizer


def at_second_epoch(change):
    """Return events that change a trainer's optimizer when the second epoch begins."""

    def events(trainer):
        def on_epoch_begin(epoch):
            if epoch == 2:
                change(trainer)

        return {"on_epoch_begin": on_epoch_begin}

    return events


@pytest.mark.parametrize("kind", [torch.optim.SGD, PerAttribute])
@pytest.mark.parametrize("alter", [stepping_by_sign, as_method])
def test_a_step_set_on_the_object_is_refused(tmp_path, alter, kind):
    with pytest.raises(ValueError, match="has its own step, set on the object"):
        ours(tmp_path, Altered(alter, kind))


def test_a_step_set_on_the_object_is_refused_under_a_scheduler(tmp_path):
    def scheduler(optimizer):
        return torch.optim.lr_scheduler.StepLR(optimizer, 1)

    with pytest.raises(ValueError, match="has its own step, set on the object"):
        ours(tmp_path, Altered(as_method), scheduler=scheduler)
    ours(tmp_path, sgd(), scheduler=scheduler)


def test_a_zero_grad_that_keeps_gradients_is_refused(tmp_path):
    for component in (Altered(with_zero_grad), Classifier(Remembering)):
        with pytest.raises(
            ValueError, match=r"zero_grad that keeps gradients.* to 0, leave it out"
        ):
            ours(tmp_path, component)
    check(tmp_path, functools.partial(Classifier, Noting))


def test_hooks_and_methods_set_in_a_callback_are_refused(tmp_path):
    def hook(trainer):
        trainer.optimizer.register_step_post_hook(lambda *_: None)

    with pytest.raises(ValueError, match=r"has step hooks.*max_grad_norm=.* step of a subclass"):
        ours(tmp_path / "hook", sgd(), at_second_epoch(hook))
    with pytest.raises(ValueError, match=r"has its own step.*max_grad_norm=.* in a subclass"):
        ours(tmp_path / "step", sgd(), at_second_epoch(lambda t: stepping_by_sign(t.optimizer)))


def test_gradient_hooks_come_and_go_with_callbacks(tmp_path):
    def events(trainer):
        handles = []

        def on_epoch_begin(epoch):
            if epoch == 2:
                for parameter in trainer.component.model.parameters():
                    handles.append(parameter.register_hook(lambda g: g.clamp(-0.01, 0.01)))
            if epoch == 3:
                for handle in handles:
                    handle.remove()

        return {"on_epoch_begin": on_epoch_begin}

    check(tmp_path, sgd, events, lr=0.2, epochs=4)


def test_a_hook_after_accumulation_in_a_callback_is_refused(tmp_path):
    def hook(trainer):
        weight = trainer.component.model[0].weight
        weight.register_post_accumulate_grad_hook(lambda parameter: None)

    with pytest.raises(TraceError, match="runs after its gradient is accumulated"):
        ours(tmp_path, sgd(), at_second_epoch(hook))


def test_parameters_that_swap_their_groups(tmp_path):
    def swap(trainer):
        first, second = trainer.optimizer.param_groups
        first["params"], second["params"] = second["params"], first["params"]

    check(tmp_path, InTwoGroups, at_second_epoch(swap))


@pytest.mark.parametrize("name", ["gamma", "scale"])
def test_attributes_that_a_traced_step_reads(tmp_path, name):
    def change(trainer):
        if name == "gamma":
            trainer.optimizer.gamma = 3.0
        else:
            trainer.optimizer.scale.fill_(3.0)

    check(tmp_path, functools.partial(Classifier, PerAttribute), at_second_epoch(change), lr=0.02)
