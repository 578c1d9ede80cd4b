"""Schedules by step and by epoch, warm-up, and their arguments."""

import json
import math

import jax
import jax.numpy as jnp
import optax
import pytest

from medjax import Schedule, by_epoch, by_step, reduce_on_plateau, update_learning_rate, with_warmup
from medjax.schedules import as_schedule, constant

OPTAX = {
    "linear": optax.linear_schedule(1.0, 0.1, 10),
    "cosine": optax.cosine_decay_schedule(1.0, 20),
    "exponential": optax.exponential_decay(1.0, 5, 0.5, staircase=True),
    "piecewise": optax.piecewise_constant_schedule(1.0, {3: 0.1, 6: 0.5}),
    "warmup_cosine": optax.warmup_cosine_decay_schedule(0.0, 1.0, 5, 20),
    "constant": optax.constant_schedule(0.3),
    "one_cycle": optax.cosine_onecycle_schedule(20, 1.0),
}


def rate(schedule, step, learning_rate):
    """Return the traced rate."""
    return float(jax.jit(schedule.rate)(jnp.int32(step), jnp.float32(learning_rate)))


@pytest.mark.parametrize("name", OPTAX)
def test_by_step_gives_the_rate_of_each_update(name):
    schedule = by_step(OPTAX[name])
    for step in (0, 1, 4, 7, 19, 50):
        assert rate(schedule, step, 99.0) == pytest.approx(
            float(OPTAX[name](step)), rel=1e-6, abs=1e-6
        )
    state = schedule.init(0.1)
    assert schedule.update(state, 1, None) == state


@pytest.mark.parametrize("name", OPTAX)
def test_by_epoch_gives_the_rate_of_each_epoch(name):
    schedule = by_epoch(OPTAX[name])
    state = schedule.init(99.0)
    for epoch in range(1, 8):
        assert state["learning_rate"] == float(OPTAX[name](epoch - 1))
        assert rate(schedule, 1000, state["learning_rate"]) == pytest.approx(state["learning_rate"])
        state = schedule.update(state, epoch, None)


@pytest.mark.parametrize(
    "schedule",
    [
        constant(),
        by_step(OPTAX["linear"]),
        by_epoch(OPTAX["cosine"]),
        reduce_on_plateau(patience=1),
        with_warmup(reduce_on_plateau(patience=1), 3),
    ],
)
def test_a_state_survives_json(schedule):
    kept = stored = schedule.init(0.1)
    for epoch, metric in enumerate([1.0, math.nan, math.inf, 1.0, 1.0], start=1):
        kept = schedule.update(kept, epoch, metric)
        stored = schedule.update(json.loads(json.dumps(stored)), epoch, metric)
        assert kept == stored


def test_warm_up_rises_linearly_from_zero():
    schedule = with_warmup(constant(), 4)
    rates = [rate(schedule, step, 0.8) for step in range(7)]
    assert rates == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8, 0.8, 0.8])


def test_warm_up_multiplies_any_schedule():
    decay = by_step(OPTAX["linear"])
    schedule = with_warmup(decay, 5)
    for step in range(12):
        expected = min(1.0, step / 5) * rate(decay, step, 0.0)
        assert rate(schedule, step, 0.0) == pytest.approx(expected, rel=1e-6, abs=1e-6)
    plateau = with_warmup(reduce_on_plateau(), 5)
    assert plateau.needs_metric
    assert plateau.init(0.3) == reduce_on_plateau().init(0.3)


def test_the_warm_up_ends_for_good():
    assert rate(with_warmup(constant(), 7), 2**31 - 1, 0.5) == 0.5


def test_a_warm_up_of_zero_steps_returns_the_schedule_itself():
    schedule = constant()
    assert with_warmup(schedule, 0) is schedule


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: reduce_on_plateau("mean"), "mode is 'mean'; expected 'min' or 'max'"),
        (lambda: reduce_on_plateau(threshold_mode="x"), "threshold_mode is 'x'"),
        (lambda: reduce_on_plateau(factor=1.0), "factor is 1.0; expected a number below 1"),
        (lambda: reduce_on_plateau(factor=math.nan), "factor is nan"),
        (lambda: with_warmup(constant(), -1), "steps is -1; expected 0 or more"),
        (lambda: as_schedule("cosine"), "schedule is 'cosine'; expected an optax schedule"),
        (lambda: as_schedule(0.1), "schedule is 0.1; expected"),
    ],
)
def test_bad_arguments(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_what_can_be_made_a_schedule():
    assert rate(as_schedule(None), 5, 0.25) == 0.25
    assert rate(as_schedule(OPTAX["linear"]), 10, 0.25) == pytest.approx(0.1)
    schedule = constant()
    assert as_schedule(schedule) is schedule
    assert isinstance(as_schedule(lambda step: 0.1), Schedule)


def test_a_missing_metric_is_refused():
    plateau = reduce_on_plateau(patience=0)
    state = plateau.init(1.0)
    with pytest.raises(ValueError, match=r"needs an eval metric .* 'f1' was not found.*'loss'"):
        update_learning_rate(plateau, state, 1, {"loss": 1.0}, "f1")
    state = update_learning_rate(plateau, state, 1, {"f1": 1.0}, "f1")
    state = update_learning_rate(plateau, state, 2, {"f1": 1.0}, "f1")
    assert state["learning_rate"] == pytest.approx(0.1)
    assert update_learning_rate(constant(), constant().init(1.0), 1, {}, "f1") == {
        "learning_rate": 1.0
    }
