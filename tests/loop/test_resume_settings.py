"""What holds when a run goes on with other settings: every setting of a run, one by one."""

import dataclasses
import json
import logging
import shutil

import jax
import numpy as np
import optax
import pytest
from tiny import config, mlp, points, same_bits, sharding

import medjax
from medjax import Options, TrainerConfig

DATA, EVAL = points(24), points(9, seed=1)


class Scores:
    """An accuracy, and a second metric that gets worse with every epoch."""

    def __init__(self):
        self.epoch = 0

    def prepare_batch(self, output, batch):
        return {"found": list(output["logits"].argmax(-1)), "true": list(batch["labels"])}

    def compute(self, columns):
        self.epoch += 1
        right = np.mean([a == b for a, b in zip(columns["found"], columns["true"], strict=True)])
        return {"accuracy": float(right), "falling": 1.0 / self.epoch}


class OtherScores(Scores):
    pass


def run(folder, *, epochs, resume=None, component=None, options=None, **more):
    fields = {name: more.pop(name) for name in list(more) if name in FIELDS}
    return medjax.train(
        component or mlp(optimizer=optax.adam, dropout=0.2),
        config(folder, nb_training_epochs=epochs, **fields),
        more.pop("data", DATA),
        EVAL,
        options=Options(**(options or {})),
        callback=more.pop("callback", []),
        resume=resume,
        **more,
    )


FIELDS = {field.name for field in dataclasses.fields(TrainerConfig)}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folders of a run with plain settings: after two epochs, and within the second."""
    uninterrupted = tmp_path_factory.mktemp("whole")
    run(uninterrupted, epochs=2, metrics_computer=Scores())
    within = tmp_path_factory.mktemp("within")
    with pytest.raises(RuntimeError):
        run(within, epochs=2, options={"save_interval_steps": 2}, callback=Dies(2, 3))
    return {"whole": uninterrupted, "within": within}


class Dies(medjax.TrainerCallback):
    def __init__(self, epoch, batch):
        self.at, self.epoch = (epoch, batch), 0

    def on_epoch_begin(self, epoch):
        self.epoch = epoch

    def on_step_begin(self, step_idx, phase):
        if (self.epoch, step_idx) == self.at and phase == "train":
            raise RuntimeError("died")


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
    "length_ladder": ((8, 16), "holds"),
    "length_window": (0, "refused within"),
    "padding": ({"unknown": 0.0}, "refused within"),
    "max_shapes": (9, "holds"),
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
    assert repr(value) in str(caught.value) or name == "do_metrics_in_training"
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


def rates_of(result):
    record = json.loads((result.last_checkpoint / "training_state.json").read_text())
    return record["progress"]["schedule"]["learning_rate"], float(result.state.learning_rate)


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


def plateau_run(folder, **more):
    """Three epochs in which the rate is halved after the second."""
    more = {"epochs": 3, "schedule": halving(), "metric_to_track_lr": "falling"} | more
    return run(folder, metrics_computer=Scores(), **more)


def halving(mode="max"):
    return medjax.reduce_on_plateau(mode=mode, factor=0.5, patience=0)


def test_plateau_keeps_what_it_has_seen_unless_that_was_of_something_else(tmp_path, caplog):
    first = plateau_run(tmp_path / "out")
    assert rates_of(first)[0] == 0.025  # the first evaluation is the best, two are worse

    def go_on(name, **more):
        out = shutil.copytree(tmp_path / "out", tmp_path / name)
        caplog.clear()
        record = plateau_run(out, epochs=4, resume="auto", **more).last_checkpoint
        return json.loads((record / "training_state.json").read_text())["progress"]["schedule"]

    # A new computer of scores starts again at 1: not better than the best, so the rate falls.
    same = go_on("same")
    assert (same["learning_rate"], same["best"]) == (0.0125, 1.0)
    assert not caplog.records
    other_metric = go_on("metric", metric_to_track_lr="loss", schedule=halving("min"))
    assert other_metric["learning_rate"] == 0.025  # kept; the first value it sees is the best
    assert "what it had seen of the metric is dropped" in caplog.text
    other_rate = go_on("rate", learning_rate=0.4)
    assert other_rate["learning_rate"] == 0.4
    constant = go_on("constant", schedule=None)
    assert constant == {"learning_rate": 0.1}


def test_checkpoints_are_compared_by_the_metric_that_counts_now(tmp_path):
    out = tmp_path / "out"
    first = run(out, epochs=2, metrics_computer=Scores(), checkpoint_metric="falling")
    by_falling = first.best_checkpoint  # the lower the better: the second
    assert by_falling == first.last_checkpoint
    options = {"keep_all_checkpoints": True}
    again = run(
        out,
        epochs=3,
        resume="auto",
        metrics_computer=Scores(),
        checkpoint_metric="falling",
        minimize_checkpoint_metric=False,
        options=options,
    )
    values = {
        path.name[:14]: json.loads((path / "training_state.json").read_text())["metric"]
        for path in out.iterdir()
    }
    best = max(values, key=values.get)
    assert again.best_checkpoint.name[:14] == best == medjax.best_checkpoint(out).name[:14]


def test_a_checkpoint_that_cannot_be_compared_is_kept(tmp_path):
    out = tmp_path / "out"
    first = run(out, epochs=2)  # by loss; without a metrics computer there is nothing else
    again = run(
        out, epochs=5, resume="auto", metrics_computer=Scores(), checkpoint_metric="falling"
    )
    assert first.best_checkpoint.is_dir()
    assert again.best_checkpoint != first.best_checkpoint


def test_a_change_of_metric_does_not_compare_values_of_two(tmp_path):
    out = tmp_path / "out"
    run(out, epochs=2, metrics_computer=Scores())
    # The loss is above every accuracy: as numbers the old ones would win for ever.
    result = run(
        out,
        epochs=3,
        resume="auto",
        metrics_computer=Scores(),
        checkpoint_metric="accuracy",
        minimize_checkpoint_metric=False,
    )
    rows = [row["eval"]["accuracy"] for row in result.history]
    kept = {int(path.name[11:14]): rows[int(path.name[11:14]) - 1] for path in out.iterdir()}
    assert kept[int(result.best_checkpoint.name[11:14])] == max(kept.values())


def stopped(folder, **more):
    return run(folder, metrics_computer=Scores(), checkpoint_metric="falling",
               minimize_checkpoint_metric=False, **more)  # fmt: skip


def test_early_stopping_goes_by_the_patience_that_is_set_now(tmp_path, caplog):
    first = stopped(tmp_path / "out", epochs=6, options={"early_stopping_patience": 2})
    assert len(first.history) == 3
    for name, options, nb_epochs in (
        ("same", {"early_stopping_patience": 2}, 3),
        ("more", {"early_stopping_patience": 3}, 4),
        ("none", {}, 6),
    ):
        caplog.clear()
        out = shutil.copytree(tmp_path / "out", tmp_path / name)
        result = stopped(out, epochs=6, resume="auto", options=options)
        assert len(result.history) == nb_epochs, name
        assert ("it continues" in caplog.text) == (nb_epochs > 3)
    other = shutil.copytree(tmp_path / "out", tmp_path / "metric")
    caplog.clear()
    result = run(other, epochs=6, resume="auto", metrics_computer=Scores(),
                 options={"early_stopping_patience": 2})  # fmt: skip
    assert len(result.history) > 3
    assert "early stopping starts counting again: metric is" in caplog.text
    assert "it was 'falling' in the checkpoint" in caplog.text


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


def test_another_metrics_computer_within_an_epoch_whose_scores_it_shares(tmp_path):
    fields = {"do_metrics_in_training": True}
    with pytest.raises(RuntimeError):
        run(tmp_path, epochs=2, metrics_computer=Scores(), options={"save_interval_steps": 2},
            callback=Dies(2, 3), **fields)  # fmt: skip
    with pytest.raises(
        medjax.MismatchError, match="metrics computer was 'Scores', but now it is 'O"
    ):
        run(tmp_path, epochs=2, resume="auto", metrics_computer=OtherScores(), **fields)
    without = run(tmp_path, epochs=2, resume="auto", metrics_computer=OtherScores())
    assert len(without.history) == 2


def test_any_mesh_goes_on(copy):
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    assert len(run(copy("whole"), epochs=3, resume="auto", mesh=mesh).history) == 3


def test_warnings_are_those_of_changes_only(copy, caplog):
    with caplog.at_level(logging.WARNING):
        run(copy("whole"), epochs=3, resume="auto", metrics_computer=Scores())
    assert not caplog.records
