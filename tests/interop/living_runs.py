"""Trains a component with medkit's own Trainer and with ours, with callbacks, and compares them.

Both get the same data, seed and order; the losses of all epochs and the final weights have to
agree.
"""

import time as clock
import warnings

import numpy as np
import pytest
from trained import CLASSES, POINTS

import medjax_torch
from medjax_torch import Options

pytest.importorskip("medkit")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import medkit.training

ROWS = [{"x": x, "y": int(y)} for x, y in zip(POINTS[:24], CLASSES[:24], strict=True)]


def train(
    module,
    folder,
    component,
    callbacks,
    *,
    data=None,
    evaluated=None,
    times=1,
    resume=None,
    options=None,
    **fields,
):
    """Return trainer and history; `callbacks` returns functions by event name."""
    data = list(ROWS) if data is None else data
    config = module.TrainerConfig(
        output_dir=str(folder),
        **{"learning_rate": 0.05, "nb_training_epochs": 3, "batch_size": 8, "seed": 3, **fields},
    )
    more = {"options": options or Options(order="medkit")} if module is medjax_torch else {}

    class Callback(module.TrainerCallback):
        def on_epoch_end(self, metrics, epoch, epoch_duration):
            pass

    callback = Callback()
    trainer = module.Trainer(
        component, config, data, evaluated or ROWS[:10], callback=callback, **more
    )
    for name, function in callbacks(component, trainer).items():
        setattr(callback, name, function)
    history = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # medkit's utcnow
        for time in range(times):
            if time:
                component.between()
                clock.sleep(1.1)  # medkit's folder names have a resolution of a second
            history += trainer.train(**({} if resume is None else {"resume": resume}))
    return trainer, history


def both(tmp_path, make_component, callbacks=lambda component, trainer: {}, **more):
    """Train with both and compare; return our component and trainer."""
    theirs, ours = make_component(), make_component()
    theirs.BatchData = medkit.training.utils.BatchData
    _, expected = train(medkit.training, tmp_path / "medkit", theirs, callbacks, **more)
    trainer, history = train(medjax_torch, tmp_path / "medjax", ours, callbacks, **more)
    for row, other in zip(history, expected, strict=True):
        for phase in ("train", "eval"):
            assert row[phase]["loss"] == pytest.approx(other[phase]["loss"], rel=2e-5, abs=1e-6)
    for name, value in theirs.model.state_dict().items():
        np.testing.assert_allclose(ours.model.state_dict()[name], value, rtol=2e-4, atol=2e-5)
    return ours, trainer
