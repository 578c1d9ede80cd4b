"""Optimizers without a rule: the traced step in JAX compared with the step in torch."""

import io

import numpy as np
import optax
import pytest
import torch
from optimizer_pairs import fill_gradients, make_model, parameter_names, to_arrays
from step_cases import CentredAdamW, CountingAdam, CutSGD, Lion, NamedAdamW
from torch.optim import ASGD, LBFGS, Adafactor, AdamW, Muon, Optimizer, Rprop
from torch.optim.lr_scheduler import LambdaLR
from transformers.optimization import Adafactor as RelativeAdafactor

from medjax.runtime import CompiledStep
from medjax_torch.graph import TraceError
from medjax_torch.optimizers import (
    plan_of,
    read_moments,
    set_hyperparams,
    write_moments,
)
from medjax_torch.optimizers.groups import rule_of
from medjax_torch.optimizers.traced import TracedPlan

BY_RATE = {"lr": 0.01, "relative_step": False}
CASES = [
    (Adafactor, {"lr": 0.02, "weight_decay": 0.1}),
    (RelativeAdafactor, {"weight_decay": 0.01}),
    (RelativeAdafactor, {"warmup_init": True}),
    (RelativeAdafactor, {"scale_parameter": False}),
    (RelativeAdafactor, {**BY_RATE, "scale_parameter": False, "beta1": 0.9, "weight_decay": 0.1}),
    (ASGD, {"lr": 0.05, "weight_decay": 0.1}),
    (ASGD, {"lr": 0.05, "t0": 5.0}),
    (Rprop, {"lr": 0.01}),
    (Lion, {"lr": 0.01, "weight_decay": 0.1}),
    (CountingAdam, {"lr": 0.01, "weight_decay": 0.1}),
    (CentredAdamW, {"lr": 0.01, "amsgrad": True}),
    (CutSGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}),
    (Muon, {"lr": 0.02, "weight_decay": 0.1}),
]
IDS = [f"{kind.__name__}{len(options)}" for kind, options in CASES]
by_class = pytest.mark.parametrize(("kind", "options"), CASES, ids=IDS)
HEAD = ("spare.weight", "spare.bias")


class Traced:
    """An optimizer with two groups for a small model, and the corresponding JAX parameters."""

    def __init__(self, kind, options, model=None):
        self.model = model or make_model()
        parameters = [p for p in self.model.parameters() if kind is not Muon or p.dim() == 2]
        groups = [{"params": parameters[:2]}, {"params": parameters[2:]}]
        if "lr" in options:
            groups[1]["lr"] = options["lr"] / 2
        self.optimizer = kind(groups, **options)
        self.plan = plan_of(self.optimizer, parameter_names(self.model), HEAD)
        transformation = self.plan.transformation(self.plan.read(self.optimizer))
        self.params = to_arrays(dict(self.model.named_parameters()))
        self.start = self.params
        self.opt_state = transformation.init(self.params)

        def update(params, opt_state, gradients):
            updates, opt_state = transformation.update(gradients, opt_state, params)
            return optax.apply_updates(params, updates), opt_state

        self.update = CompiledStep(update, "training")

    def step(self, index, torch_too=True):
        fill_gradients(self.model, index)
        gradients = to_arrays({name: p.grad for name, p in self.model.named_parameters()})
        self.opt_state = set_hyperparams(self.opt_state, self.plan.read(self.optimizer))
        self.params, self.opt_state = self.update(self.params, self.opt_state, gradients)
        if torch_too:
            self.optimizer.step()
        else:
            with torch.no_grad():
                for name, parameter in self.model.named_parameters():
                    parameter.copy_(torch.from_numpy(np.array(self.params[name])))

    def difference(self):
        theirs = to_arrays(dict(self.model.named_parameters()))
        return max(np.abs(self.params[name] - theirs[name]).max() for name in theirs)

    def movement(self):
        return max(np.abs(self.params[name] - self.start[name]).max() for name in self.start)


def tolerance(kind, steps=20):
    # Muon multiplies in bfloat16, which has 8 bits, and its iteration amplifies differences by 4.
    return steps * 0.02 * 2**-6 if kind is Muon else 5e-7


def falling(optimizer):
    return LambdaLR(optimizer, lambda step: 1 / (1 + 0.1 * step))


@by_class
def test_twenty_steps_with_a_scheduler_equal_torchs(kind, options):
    pair = Traced(kind, options)
    assert isinstance(pair.plan, TracedPlan)
    scheduler = falling(pair.optimizer) if "lr" in options else None
    for index in range(20):
        pair.step(index)
        if scheduler is not None:
            scheduler.step()
    assert pair.update.nb_compilations == 1
    assert pair.difference() < tolerance(kind)
    assert pair.movement() > 5e-5
    for name in HEAD:
        np.testing.assert_array_equal(pair.params[name], pair.start[name])


def described(state):
    def kind(value):
        return type(value), getattr(value, "dtype", None), getattr(value, "shape", None)

    return [{n: kind(v) for n, v in entries.items()} for entries in state["state"].values()]


KEPT = (RelativeAdafactor, ASGD, Rprop, CountingAdam, CutSGD, Muon)


@pytest.mark.parametrize(
    ("kind", "options"), [(kind, dict(CASES)[kind]) for kind in KEPT], ids=lambda value: str(value)
)
def test_torch_and_jax_continue_each_others_runs(kind, options):
    reference = Traced(kind, options)
    for index in range(4):
        reference.step(index)
    begun = Traced(kind, options)
    for index in range(4):
        begun.step(index, torch_too=False)
    write_moments(begun.optimizer, begun.plan.groups, begun.opt_state)
    file = io.BytesIO()
    torch.save(begun.optimizer.state_dict(), file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    assert described(saved) == described(reference.optimizer.state_dict())

    resumed = Traced(kind, options, begun.model)
    resumed.optimizer.load_state_dict(saved)
    resumed.opt_state = read_moments(resumed.optimizer, resumed.plan.groups, resumed.opt_state)
    for name, entries in begun.opt_state.moments.items():
        for entry, value in entries.items():
            np.testing.assert_array_equal(resumed.opt_state.moments[name][entry], value)
    for index in range(4, 8):
        resumed.step(index)  # both continue, from a state that torch loaded
        reference.step(index)
    assert resumed.difference() < tolerance(kind, 8)
    pairs = zip(resumed.model.parameters(), reference.model.parameters(), strict=True)
    assert max((a - b).abs().max() for a, b in pairs) < 10 * tolerance(kind, 8)


def test_equal_optimizers_have_equal_plans():
    plan = Traced(Lion, {"lr": 0.1}).plan
    assert plan == Traced(Lion, {"lr": 0.2, "betas": (0.5, 0.9)}).plan
    assert plan != Traced(Rprop, {"lr": 0.1}).plan
    nesterov, plain = (Traced(Muon, {"lr": 0.1, "nesterov": on}).plan for on in (True, False))
    assert nesterov != plain


def test_changed_hyperparameters_need_no_new_trace_unless_control_flow_depends_on_them():
    pair = Traced(CountingAdam, {"lr": 0.01, "weight_decay": 0.1})
    changes = {"betas": (0.5, 0.99), "eps": 1e-3, "lr": 0.1, "weight_decay": 0.3}
    for index, (name, value) in enumerate(changes.items()):
        pair.optimizer.param_groups[0][name] = value
        pair.step(index)
    assert pair.update.nb_compilations == 1
    assert pair.difference() < 5e-7
    pair.optimizer.param_groups[1]["weight_decay"] = 0.0
    message = (
        r"'weight_decay' of the optimizer's group 1 is 0\.0; expected .* compiled into the step"
    )
    with pytest.raises(ValueError, match=message):
        pair.plan.read(pair.optimizer)


def test_a_changed_option_and_an_added_group_are_refused():
    pair = Traced(Muon, {"lr": 0.02})
    pair.optimizer.param_groups[0]["ns_steps"] = 3
    with pytest.raises(ValueError, match="'ns_steps' of the optimizer's group 0 is 3; expected 5"):
        pair.plan.read(pair.optimizer)
    pair = Traced(Lion, {"lr": 0.02})
    pair.optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(2))]})
    with pytest.raises(ValueError, match="has 3 parameter groups; expected 2"):
        pair.plan.read(pair.optimizer)


def test_the_optimizer_and_its_parameters_are_not_changed():
    pair = Traced(CentredAdamW, {"lr": 0.01})
    assert not pair.optimizer.state
    for name, parameter in pair.model.named_parameters():
        np.testing.assert_array_equal(parameter.detach(), pair.start[name])
        assert parameter.grad is None


def test_a_subclass_with_the_same_step_has_the_rule_of_its_class():
    model = make_model()
    optimizer = NamedAdamW(model.parameters())
    assert rule_of(optimizer) is rule_of(AdamW(model.parameters()))
    assert rule_of(CentredAdamW(model.parameters())) is None


class Plain(Optimizer):
    def __init__(self, params):
        super().__init__(params, {"lr": 0.1, "count": 0})
        self.count = 0
        self.spread = torch.ones(4)

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self.move(p, group)


class Random(Plain):
    def move(self, p, group):
        p.add_(torch.randn_like(p) + p.grad, alpha=-group["lr"])


class RandomOfNumpy(Plain):
    def move(self, p, group):
        p.add_(p.grad, alpha=-np.random.uniform())


class Counting(Plain):
    def move(self, p, group):
        self.count += 1
        p.sub_(p.grad)


class CountingInGroup(Plain):
    def move(self, p, group):
        group["count"] += 1
        p.sub_(p.grad)


class Spreading(Plain):
    def move(self, p, group):
        self.spread.mul_(0.5)
        p.sub_(p.grad)


class Deciding(Plain):
    def move(self, p, group):
        state = self.state[p]
        state["step"] = state.get("step", 0) + 1
        if state["step"] > 3:
            p.sub_(p.grad)


class ByRate(Plain):
    def move(self, p, group):
        if group["lr"] > 0.01:
            p.sub_(p.grad)


class ByNorm(Plain):
    def move(self, p, group):
        norm = p.grad.norm()
        p.sub_(p.grad / norm if norm > 1 else p.grad)


class Growing(Plain):
    def move(self, p, group):
        self.state[p].setdefault("history", [])
        self.state[p]["history"].append(p.grad.clone())
        p.sub_(p.grad)


class Idle(Plain):
    def move(self, p, group):
        pass


class Wrapping(Plain):
    def __init__(self, params):
        super().__init__(params)
        self.inner = AdamW(self.param_groups)

    def step(self, closure=None):
        self.inner.step()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (LBFGS, "LBFGS, whose step needs a closure.*AdamW"),
        (Wrapping, "has another optimizer in 'inner'"),
        (Random, "Random draws random numbers"),
        (RandomOfNumpy, r"draws random numbers \(numpy.random\)"),
        (Counting, "changes 'count' of its attributes"),
        (CountingInGroup, "changes 'count' of its group 0"),
        (Spreading, "changes 'spread' of its attributes"),
        (
            Deciding,
            r"cannot be traced at .*test_traced_optimizers.py.*control flow depends on a value",
        ),
        (
            ByRate,
            r"if group\[\"lr\"\] > 0.01: its control flow depends on a value.*the learning rate",
        ),
        (ByNorm, r"cannot be traced at .*p\.grad / norm if norm > 1"),
        (Growing, "keeps 'history' of"),
        (Idle, "does not change 0.weight"),
    ],
)
def test_unsupported_optimizers_are_refused_by_name(kind, message):
    model = make_model()
    parameters = model.parameters()
    with pytest.raises((ValueError, TraceError), match=f"(?s){message}"):
        plan_of(kind(parameters), parameter_names(model), HEAD)
    assert all(p.grad is None for p in model.parameters())


def test_a_step_set_on_the_object_and_hooks_are_refused():
    model = make_model()
    optimizer = Lion(model.parameters())
    optimizer.step = lambda closure=None: None
    with pytest.raises(ValueError, match="has its own step, set on the object"):
        plan_of(optimizer, parameter_names(model))
    hooked = Lion(model.parameters())
    hooked.register_step_pre_hook(lambda *args: None)
    with pytest.raises(ValueError, match="Lion has step hooks"):
        plan_of(hooked, parameter_names(model))
