"""Compilations are bounded: one for each rung of the ladder, none after the first epoch."""

import jax
from tiny import config, sentences, tagger

import medjax
from medjax import Options, TrainerCallback
from medjax.runtime import CompiledStep

LADDER = (8, 16, 32)


def test_the_second_epoch_compiles_nothing(tmp_path, monkeypatch):
    steps = []
    init = CompiledStep.__init__
    monkeypatch.setattr(
        CompiledStep,
        "__init__",
        lambda step, *args, **kwargs: (init(step, *args, **kwargs), steps.append(step))[0],
    )
    after = []

    class Counts(TrainerCallback):
        def on_epoch_end(self):
            after.append([step.nb_compilations for step in steps])

    data = sentences(40)
    rungs = {min(r for r in LADDER if r >= len(item["input_ids"])) for item in data}
    assert len(rungs) == 3
    result = medjax.train(
        tagger(),
        config(tmp_path, nb_training_epochs=3, learning_rate=0.05),
        data,
        data[:25],
        callback=Counts(),
        options=Options(length_ladder=LADDER, length_window=20),
    )
    assert len(steps) == 2
    assert after[0] == after[1] == after[2]
    assert all(1 < count <= len(rungs) for count in after[2])
    assert result.nb_compilations == sum(after[2]) <= 2 * len(rungs)


def test_a_program_that_cannot_be_compiled_ahead_fails_in_its_call(monkeypatch):
    step = CompiledStep(lambda state, batch: state + batch["x"].sum(), "training")
    batch = {"x": jax.numpy.ones(3)}

    def fails(lowered):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: too large")

    with monkeypatch.context() as patch:
        patch.setattr(jax.stages.Lowered, "compile", fails)
        assert step.compile_ahead(1.0, batch).shape == ()
        step._await_begun()
    assert float(step(1.0, batch)) == 4
    assert step.nb_compilations == 1
