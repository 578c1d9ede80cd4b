"""torch's schedulers on the host and their values in the step, compared with a run of torch."""

import io

import pytest
import torch
import transformers
from optimizer_pairs import Pair
from torch.optim import SGD, Adam, AdamW
from torch.optim import lr_scheduler as schedulers

from medjax_torch.optimizers import build_scheduler, end_epoch, read_moments, write_moments


def step_lr(optimizer):
    return schedulers.StepLR(optimizer, step_size=3, gamma=0.5)


def cosine(optimizer):
    return schedulers.CosineAnnealingLR(optimizer, T_max=8)


def one_cycle(optimizer):
    return schedulers.OneCycleLR(optimizer, max_lr=0.1, total_steps=20)


def cyclic(optimizer):
    return schedulers.CyclicLR(optimizer, base_lr=0.01, max_lr=0.1, step_size_up=3)


def by_lambda(optimizer):
    return schedulers.LambdaLR(optimizer, [lambda step: 0.9**step, lambda step: 1 / (1 + step)])


def sequential(optimizer):
    warmup = schedulers.LinearLR(optimizer, start_factor=0.1, total_iters=4)
    decay = schedulers.ExponentialLR(optimizer, gamma=0.9)
    return schedulers.SequentialLR(optimizer, [warmup, decay], milestones=[4])


def warm_restarts(optimizer):
    return schedulers.CosineAnnealingWarmRestarts(optimizer, T_0=3, T_mult=2)


def chained(optimizer):
    parts = [schedulers.MultiStepLR(optimizer, [2, 5]), schedulers.ConstantLR(optimizer, 0.5, 4)]
    return schedulers.ChainedScheduler(parts, optimizer)


def transformers_linear(optimizer):
    return transformers.get_scheduler(
        "linear", optimizer, num_warmup_steps=3, num_training_steps=12
    )


def plateau(optimizer):
    return schedulers.ReduceLROnPlateau(optimizer, factor=0.5, patience=1)


BUILDERS = [
    step_lr,
    cosine,
    one_cycle,
    cyclic,
    by_lambda,
    sequential,
    warm_restarts,
    chained,
    transformers_linear,
    plateau,
]
by_builder = pytest.mark.parametrize("builder", BUILDERS, ids=lambda builder: builder.__name__)
LOSSES = [3.0, 2.0, 2.1, 2.2, 2.3, 1.0, 1.5, 1.5, 1.5, 1.5, 1.4, 1.3]


def two_groups(kind, **options):
    def make_optimizer(model):
        groups = [{"params": [model[0].weight]}, {"params": model[2].parameters(), "lr": 0.05}]
        return kind(groups, lr=0.02, **options)

    return make_optimizer


def settings(optimizer):
    names = ("lr", "momentum", "betas", "weight_decay")
    return [{name: group.get(name) for name in names} for group in optimizer.param_groups]


def as_torch_would(make_optimizer, builder):
    """Return the settings of each step when torch itself does the updates."""
    pair = Pair(make_optimizer)
    optimizer = pair.optimizer
    scheduler = builder(optimizer)
    seen = []
    for loss in LOSSES:
        seen.append(settings(optimizer))
        pair.fill_gradients()
        optimizer.step()
        scheduler.step(*([loss] if builder is plateau else []))
    return seen, pair.model


def advance(pair, scheduler, losses):
    """Yield the settings of every update in JAX, one per epoch."""
    for loss in losses:
        yield settings(pair.optimizer)
        pair.step_jax(pair.fill_gradients())
        # Gradients are taken at torch's parameters, so these follow JAX's.
        with torch.no_grad():
            for name, parameter in pair.model.named_parameters():
                parameter.copy_(torch.tensor(pair.params[name].tolist()))
        end_epoch(scheduler, {"loss": loss}, "loss")


@pytest.mark.parametrize(
    ("kind", "options"), [(SGD, {"momentum": 0.9}), (AdamW, {})], ids=["SGD", "AdamW"]
)
@by_builder
def test_settings_and_updates_equal_torchs(builder, kind, options):
    make_optimizer = two_groups(kind, **options)
    expected, reference = as_torch_would(make_optimizer, builder)
    pair = Pair(make_optimizer)
    scheduler = build_scheduler(builder, pair.optimizer)
    assert list(advance(pair, scheduler, LOSSES)) == expected
    assert len({str(setting) for setting in expected}) > 2
    assert pair.update.nb_compilations == 1
    for parameter, other in zip(pair.model.parameters(), reference.parameters(), strict=True):
        assert (parameter - other).abs().max() < 5e-6


@by_builder
def test_a_resumed_scheduler_continues_where_it_stopped(builder):
    make_optimizer = two_groups(Adam)
    expected, reference = as_torch_would(make_optimizer, builder)
    pair = Pair(make_optimizer)
    scheduler = build_scheduler(builder, pair.optimizer)
    before = list(advance(pair, scheduler, LOSSES[:5]))
    write_moments(pair.optimizer, pair.plan, pair.opt_state)
    file = io.BytesIO()
    torch.save([pair.optimizer.state_dict(), scheduler.state_dict()], file)
    file.seek(0)

    resumed = Pair(make_optimizer, pair.model)
    resumed.nb_steps = 5
    scheduler = build_scheduler(builder, resumed.optimizer)
    optimizer_state, scheduler_state = torch.load(file, weights_only=True)
    resumed.optimizer.load_state_dict(optimizer_state)
    scheduler.load_state_dict(scheduler_state)
    resumed.opt_state = read_moments(resumed.optimizer, resumed.plan, resumed.opt_state)
    after = list(advance(resumed, scheduler, LOSSES[5:]))
    assert before + after == expected
    for parameter, other in zip(resumed.model.parameters(), reference.parameters(), strict=True):
        assert (parameter - other).abs().max() < 5e-6


def test_a_custom_scheduler_may_set_any_hyperparameter():
    class DecaySchedule(schedulers.LRScheduler):
        def get_lr(self):
            for group in self.optimizer.param_groups:
                group["weight_decay"] = 0.1 * self.last_epoch
            return [group["lr"] for group in self.optimizer.param_groups]

    make_optimizer = two_groups(AdamW)
    expected, reference = as_torch_would(make_optimizer, DecaySchedule)
    pair = Pair(make_optimizer)
    scheduler = build_scheduler(DecaySchedule, pair.optimizer)
    assert list(advance(pair, scheduler, LOSSES)) == expected
    assert pair.update.nb_compilations == 1
    for parameter, other in zip(pair.model.parameters(), reference.parameters(), strict=True):
        assert (parameter - other).abs().max() < 5e-6


def test_building_a_scheduler_updates_no_parameter():
    pair = Pair(two_groups(AdamW))
    pair.fill_gradients()
    before = [parameter.clone() for parameter in pair.model.parameters()]
    build_scheduler(step_lr, pair.optimizer)
    for parameter, old in zip(pair.model.parameters(), before, strict=True):
        assert torch.equal(parameter, old)
    assert not pair.optimizer.state


def test_a_metric_that_is_missing_is_reported_as_medkit_does():
    scheduler = build_scheduler(plateau, Pair(two_groups(SGD)).optimizer)
    with pytest.raises(
        ValueError, match=r"Learning scheduler needs an eval metric .* 'f1' was not"
    ):
        end_epoch(scheduler, {"loss": 1.0}, "f1")


def test_a_plateau_scheduler_cannot_be_stepped_by_update():
    with pytest.raises(ValueError, match="ReduceLROnPlateau follows an evaluation metric"):
        build_scheduler(plateau, Pair(two_groups(SGD)).optimizer, "step")
