"""Resuming a run with other settings: every setting, one by one."""

import dataclasses
import json
import logging
import re
import shutil

import jax
import numpy as np
import optax
import pytest
from resumed_runs import FIELDS, Dies, Scores, rates_of, run
from tiny import mlp, same_bits, sharding

import medjax
from medjax import Options


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folders of a run with plain settings: after two epochs, and within the second."""
    uninterrupted = tmp_path_factory.mktemp("whole")
    run(uninterrupted, epochs=2, metrics_computer=Scores())
    within = tmp_path_factory.mktemp("within")
    with pytest.raises(RuntimeError):
        run(within, epochs=2, options={"save_interval_steps": 2}, callback=Dies(2, 3))
    return {"whole": uninterrupted, "within": within}


@pytest.fixture
def copy(saved, tmp_path):
    """Return the maker of a copy of a saved run."""
    return lambda which: shutil.copytree(saved[which], tmp_path / "out")


# What each field may become; "refused within" where a position within an epoch depends on it.
CONFIG = {
    "learning_rate": (0.02, "holds"),
    "nb_training_epochs": (4, "holds"),
    "dataloader_nb_workers": (None, "holds"),  # no state; started by tests of their own
    "batch_size": (6, "refused within"),
    "seed": (8, "refused within"),
    "gradient_accumulation_steps": (2, "refused within"),
    "do_metrics_in_training": (True, "refused within"),
    "metric_to_track_lr": ("accuracy", "holds"),
    "checkpoint_period": (0, "holds"),
    "checkpoint_metric": ("accuracy", "holds"),
    "minimize_checkpoint_metric": (False, "holds"),
}


OPTIONS = {
    "max_grad_norm": (0.5, "holds"),
    "weight_decay": (0.1, "holds"),
    "warmup_steps": (3, "holds"),
    "early_stopping_patience": (2, "holds"),
    "early_stopping_threshold": (0.5, "holds"),
    "max_steps": (15, "holds"),
    "precision": ("bfloat16", "holds"),
    "loss_arithmetic": ("medkit", "refused within"),
    "on_non_finite": ("skip", "holds"),
    "max_skipped": (3, "holds"),
    "length_ladder": ((8, 16), "refused within"),
    "length_window": (0, "refused within"),
    "padding": ({"unknown": 0.0}, "refused within"),
    "max_shapes": (9, "holds"),
    "verify": (True, "holds"),
    "verify_padding": (False, "holds"),
    "deterministic": (False, "holds"),
    "cache_preprocessed": (True, "holds"),
    "prefetch": (1, "holds"),
    "steps_per_dispatch": (2, "holds"),
    "compilation_cache": (None, "holds"),
    "worker_timeout": (60.0, "holds"),
    "save_interval_steps": (2, "holds"),
    "keep_all_checkpoints": (True, "holds"),
    "log_dir": ("logs", "holds"),
}


def test_the_tables_name_every_setting():
    assert CONFIG.keys() == FIELDS - {"output_dir"}
    assert OPTIONS.keys() == {field.name for field in dataclasses.fields(Options)}


def change(name, value, tmp_path):
    """Return the arguments of `run` that change one setting."""
    if name in FIELDS:
        more = {} if name == "nb_training_epochs" else {name: value}
        return {"epochs": value if name == "nb_training_epochs" else 3, **more}
    options = {name: tmp_path / value if name == "log_dir" else value}
    if name == "early_stopping_threshold":
        options["early_stopping_patience"] = 1
    return {"epochs": 3, "options": options}


CHANGES = [
    (name, *entry)
    for name, entry in {**CONFIG, **OPTIONS}.items()
    if name != "dataloader_nb_workers"
]


@pytest.mark.parametrize(("name", "value", "verdict"), CHANGES, ids=lambda v: str(v)[:20])
def test_after_an_epoch_any_setting_may_change(name, value, verdict, copy, tmp_path):
    del verdict
    out = copy("whole")
    changes = change(name, value, tmp_path)
    result = run(out, resume="auto", metrics_computer=Scores(), **changes)
    assert len(result.history) >= 3
    stored = json.loads((result.last_checkpoint / "training_state.json").read_text())
    settings = stored["progress"]["settings"]
    shown = value if not isinstance(value, tuple) else list(value)
    if name not in {"log_dir", "nb_training_epochs"}:
        assert settings[name] == shown


@pytest.mark.parametrize(("name", "value", "verdict"), CHANGES, ids=lambda v: str(v)[:20])
def test_within_an_epoch_what_the_position_depends_on_may_not(name, value, verdict, copy, tmp_path):
    out = copy("within")
    before = sorted(out.rglob("*"))
    changes = change(name, value, tmp_path)
    computer = None if name not in {"checkpoint_metric", "do_metrics_in_training"} else Scores()
    if verdict == "holds":
        assert len(run(out, resume="auto", metrics_computer=computer, **changes).history) >= 3
        return
    with pytest.raises(
        medjax.MismatchError, match=f"where {name} was .*, but now it is "
    ) as caught:
        run(out, resume="auto", metrics_computer=computer, **changes)
    shown = list(value) if isinstance(value, tuple) else value
    assert repr(shown) in str(caught.value) or name == "do_metrics_in_training"
    assert sorted(out.rglob("*")) == before


def test_the_same_settings_are_the_same_run(copy):
    out = copy("within")
    resumed = run(out, epochs=2, resume="auto")
    uninterrupted = run(out.parent / "new", epochs=2)
    assert resumed.history == uninterrupted.history
    assert same_bits(resumed.state, uninterrupted.state)


def test_a_seed_that_was_drawn_goes_on(tmp_path):
    with pytest.raises(RuntimeError):
        run(tmp_path, epochs=2, options={"save_interval_steps": 2}, callback=Dies(2, 3), seed=None)
    assert len(run(tmp_path, epochs=2, resume="auto", seed=None).history) == 2


def test_a_changed_rate_is_the_rate(copy, caplog):
    result = run(copy("whole"), epochs=3, resume="auto", learning_rate=0.02)
    assert rates_of(result) == (0.02, pytest.approx(0.02))
    assert "the rate set for epoch 3 was 0.1 and is 0.02 now" in caplog.text


@pytest.mark.parametrize(
    ("schedule", "rate"),
    [
        (None, 0.1),
        (optax.constant_schedule(0.3), 0.1),  # by step: the rate of the host is not asked
        (medjax.by_epoch(optax.exponential_decay(0.8, 1, 0.5)), 0.8 * 0.5**3),
        (medjax.reduce_on_plateau(patience=9), 0.1),
    ],
)
def test_another_schedule_starts_from_its_own_settings(schedule, rate, copy):
    result = run(copy("whole"), epochs=3, resume="auto", schedule=schedule)
    assert rates_of(result)[0] == pytest.approx(rate)


def test_accumulation_clipping_and_decay_come_and_go_between_epochs(copy):
    out = copy("whole")
    clipped = {"max_grad_norm": 0.5, "weight_decay": 0.1}
    with_all = run(out, epochs=3, resume="auto", options=clipped, gradient_accumulation_steps=2)
    moments = [leaf for leaf in jax.tree.leaves(with_all.state.opt_state) if leaf.ndim]
    assert all(np.abs(leaf).max() > 0 for leaf in moments)
    without = run(out, epochs=4, resume="auto")
    assert without.state.gradients is None
    assert len(without.history) == 4
    # The same as a run that had been so from the start of that epoch.
    assert int(without.state.step) == 6 + 6 + 3 + 6


def test_another_optimizer_is_refused_and_the_way_out_named(copy):
    out = copy("whole")
    before = sorted(out.rglob("*"))
    with pytest.raises(medjax.MismatchError, match=r"a different training state.*resume=None"):
        run(out, epochs=3, resume="auto", component=mlp(optimizer=optax.sgd, dropout=0.2))
    assert sorted(out.rglob("*")) == before


def test_hyperparameters_of_the_same_optimizer_hold(copy):
    def slower(rate):
        return optax.adam(rate, b1=0.5)

    result = run(
        copy("whole"), epochs=3, resume="auto", component=mlp(optimizer=slower, dropout=0.2)
    )
    assert len(result.history) == 3


def test_callbacks_find_their_state_wherever_they_stand(tmp_path, caplog):
    class Counting(medjax.TrainerCallback):
        count = 0

        def on_epoch_end(self, epoch):
            self.count += 1

        def state_dict(self):
            return {"count": self.count}

        def load_state_dict(self, state):
            self.count = state["count"]

    run(tmp_path, epochs=2, callback=[Counting()])
    moved = Counting()
    run(tmp_path, epochs=3, resume="auto", callback=[medjax.TrainerCallback(), moved])
    assert moved.count == 3
    caplog.clear()
    run(tmp_path, epochs=4, resume="auto")
    assert "the callback Counting of the checkpoint is not among the callbacks" in caplog.text


def test_any_mesh_goes_on(copy):
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    assert len(run(copy("whole"), epochs=3, resume="auto", mesh=mesh).history) == 3


def test_warnings_are_those_of_changes_only(copy, caplog):
    with caplog.at_level(logging.WARNING):
        run(copy("whole"), epochs=3, resume="auto", metrics_computer=Scores())
    assert not caplog.records


def remembering(**more):
    """Return a schedule that remembers the epochs, by step a constant."""

    def init(rate):
        return {"learning_rate": rate, "best": None, "seen": [], "by": {"kind": "epoch"}, **more}

    def update(state, epoch, metric):
        rate = state["learning_rate"] * 0.5
        return {**state, "learning_rate": rate, "seen": [*state["seen"], metric]}

    return medjax.Schedule(init, update, lambda step, rate: rate, needs_metric=True)


def test_a_schedule_may_remember_what_json_can_hold(tmp_path):
    whole = run(tmp_path / "whole", epochs=3, schedule=remembering())
    run(tmp_path / "cut", epochs=2, schedule=remembering())
    resumed = run(tmp_path / "cut", epochs=3, schedule=remembering(), resume="auto")
    assert resumed.history == whole.history
    stored = [
        json.loads((result.last_checkpoint / "training_state.json").read_text())["progress"]
        for result in (resumed, whole)
    ]
    assert stored[0]["schedule"] == stored[1]["schedule"]
    assert stored[0]["schedule"]["seen"] == [row["eval"]["loss"] for row in whole.history]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"seen": (1, 2)}, "'seen' in the state of the schedule is (1, 2) of type tuple; expected"),
        ({"seen": [{1, 2}]}, "'seen' in the state of the schedule is [{1, 2}] of type list"),
        ({"by": {1: 2}}, "'by' in the state of the schedule is {1: 2} of type dict"),
        ({"seen": np.zeros(3)}, "'seen' in the state of the schedule is array"),
        ({"learning_rate": None}, "'learning_rate' in the state of the schedule is None"),
        ({"learning_rate": "x"}, "'learning_rate' in the state of the schedule is 'x'"),
    ],
)
def test_what_json_does_not_give_back_is_refused_before_training(tmp_path, more, told):
    with pytest.raises(ValueError, match=re.escape(told)):
        run(tmp_path, epochs=1, schedule=remembering(**more))
    assert not [*tmp_path.glob("checkpoint_*")]


@pytest.mark.parametrize("best", [np.float32(0.5), jax.numpy.float32(0.5), jax.numpy.bfloat16(0.5)])
def test_a_schedule_may_remember_scalars(tmp_path, best):
    run(tmp_path, epochs=1, schedule=remembering(best=best))
    assert len(run(tmp_path, epochs=2, schedule=remembering(), resume="auto").history) == 2
