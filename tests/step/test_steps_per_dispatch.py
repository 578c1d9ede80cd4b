"""Several steps in one dispatch: the same training, in fewer calls."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import (
    config,
    mlp,
    on_device,
    one_device,
    points,
    run_steps,
    sentences,
    state_and_step,
    tagger,
)

import medjax
from medjax import Options, TrainerCallback, make_train_steps, stack, with_update_due
from medjax.runtime import CompiledStep
from medjax.schedules import constant
from medjax.step import UPDATE_DUE


def trained(folder, *, data=None, component=None, callback=(), resume=None, options=None, **more):
    return medjax.train(
        component or mlp(dropout=0.3),
        config(folder, nb_training_epochs=2, learning_rate=0.05, **more),
        points(53) if data is None else data,
        points(11, seed=1) if component is None else data[:7],
        callback=callback,
        resume=resume,
        options=Options(**(options or {})),
    )


def calls_of(monkeypatch):
    """Return a list that grows by the number of batches of each call of a training step."""
    calls = []
    call = CompiledStep.__call__

    def counted(step, *args):
        if step.phase == "training":
            mark = args[1][UPDATE_DUE]
            calls.append(mark.shape[0] if mark.shape else 1)
        return call(step, *args)

    monkeypatch.setattr(CompiledStep, "__call__", counted)
    return calls


@pytest.mark.parametrize("accumulation", [1, 3])
def test_the_training_is_that_of_single_steps(tmp_path, monkeypatch, accumulation):
    more = {"batch_size": 4, "gradient_accumulation_steps": accumulation}
    expected = trained(tmp_path / "single", **more)
    calls = calls_of(monkeypatch)
    result = trained(tmp_path / "many", options={"steps_per_dispatch": 4}, **more)
    assert calls == [4, 4, 4, 2] * 2  # 14 batches
    assert int(result.state.step) == int(expected.state.step)
    jax.tree.map(
        lambda ours, single: np.testing.assert_allclose(ours, single, rtol=1e-5, atol=1e-7),
        result.state.params,
        expected.state.params,
    )
    for ours, single in zip(result.history, expected.history, strict=True):
        assert ours["train"]["loss"] == pytest.approx(single["train"]["loss"], rel=1e-5)
        assert ours["eval"]["loss"] == pytest.approx(single["eval"]["loss"], rel=1e-5)


@pytest.mark.parametrize("accumulation", [1, 3])
def test_several_steps_are_a_function_of_their_own(accumulation):
    component, options = mlp(dropout=0.3), Options()
    state, step = state_and_step(component, accumulation=accumulation)
    settings = {"schedule": constant(), "options": options, "accumulation": accumulation}
    several = make_train_steps(state, mesh=one_device(), **settings)
    batches = [on_device(component, points(24)[n : n + 4]) for n in range(0, 20, 4)]
    marked = [with_update_due(batch, n == 4) for n, batch in enumerate(batches)]
    stacked, stats = several(jax.tree.map(jnp.copy, state), stack(marked))
    expected, last = run_steps(state, step, batches)
    assert int(stacked.step) == int(expected.step) == -(-5 // accumulation)
    assert int(stacked.pending) == 0
    assert stats.outputs is None
    jax.tree.map(
        lambda ours, single: np.testing.assert_allclose(ours, single, rtol=1e-5, atol=1e-7),
        (stacked.params, stats.losses),
        (expected.params, last.losses),
    )
    assert several.nb_compilations == 1
    assert several.compilations[0].batch.startswith("labels int32[5,4], row_mask")
    assert stack([marked[0], on_device(component, points(3))]) is None


def test_batches_of_several_shapes_go_one_by_one(tmp_path, monkeypatch):
    options = {"length_ladder": (8, 16, 32), "length_window": 0}
    data = sentences(40)
    expected = trained(tmp_path / "single", data=data, component=tagger(), options=options)
    calls = calls_of(monkeypatch)
    options |= {"steps_per_dispatch": 3}
    result = trained(tmp_path / "many", data=data, component=tagger(), options=options)
    assert sum(calls) == int(result.state.batch_step) == int(expected.state.batch_step)
    assert 1 in calls
    assert result.history[-1]["train"]["loss"] == pytest.approx(
        expected.history[-1]["train"]["loss"], rel=1e-5
    )


def test_callbacks_hear_of_every_step(tmp_path):
    heard = []

    class Steps(TrainerCallback):
        def on_step_begin(self, step, nb_batches, phase):
            heard.append(("begin", phase, step))

        def on_step_end(self, step, nb_batches, phase):
            heard.append(("end", phase, step))

    trained(tmp_path, callback=Steps(), batch_size=9, options={"steps_per_dispatch": 4})
    train = [(what, step) for what, phase, step in heard if phase == "train"]
    begins, ends = ([(what, i) for i in range(6)] for what in ("begin", "end"))
    assert train == [*begins[:4], *ends[:4], *begins[4:], *ends[4:]] * 2


def test_a_resumed_run_makes_the_same_dispatches(tmp_path):
    class Interrupted(Exception):  # noqa: N818
        pass

    class Interrupt(TrainerCallback):
        def on_step_end(self, step, nb_batches, phase):
            if phase == "train" and step == 8:
                raise Interrupted

    options = {"steps_per_dispatch": 3, "save_interval_steps": 6}
    expected = trained(tmp_path / "whole", batch_size=4, options=options)
    with pytest.raises(Interrupted):
        trained(tmp_path / "cut", batch_size=4, options=options, callback=Interrupt())
    resumed = trained(tmp_path / "cut", batch_size=4, options=options, resume="auto")
    jax.tree.map(np.testing.assert_array_equal, resumed.state.params, expected.state.params)
    assert resumed.history == expected.history


def test_saves_come_between_dispatches():
    with pytest.raises(ValueError, match=r"save_interval_steps is 5; expected a multiple of .*=2"):
        Options(save_interval_steps=5, steps_per_dispatch=2)


def test_a_batch_that_is_not_finite_is_named(tmp_path):
    data = points(40)
    data[17]["x"] = data[17]["x"] * np.float32("nan")
    with pytest.raises(medjax.NonFiniteError) as raised:
        trained(
            tmp_path, data=data, component=mlp(), batch_size=4, options={"steps_per_dispatch": 4}
        )
    assert 17 in raised.value.indices
    assert len(raised.value.indices) == 4
