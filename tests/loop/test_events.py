"""The events of a run have medkit's order, and a stopped run leaves everything consistent."""

import math

import jax
import numpy as np
import pytest
from tiny import config, mlp, points, same_bits

import medjax
from medjax import NonFiniteError, Options, StopTraining, TrainerCallback, epoch_order

TRAIN, EVAL = points(10), points(5, seed=3)


class Recorder(TrainerCallback):
    """Writes down every event with its arguments, as they were passed."""

    def __init__(self):
        self.events = []

    def __getattribute__(self, name):
        if not name.startswith("on_"):
            return super().__getattribute__(name)
        return lambda *args, **kwargs: self.events.append((name, args, kwargs))

    on_train_begin = on_train_end = on_epoch_begin = on_epoch_end = None
    on_step_begin = on_step_end = on_save = on_exception = None


def names(recorder):
    return [name for name, *_ in recorder.events]


def run(folder, callback, *, options=None, data=TRAIN, **fields):
    return medjax.train(
        mlp(), config(folder, **fields), data, EVAL, callback=callback, options=options
    )


def expected_events(folder, result, *, loss=True):
    """Return medkit's events for two epochs of three training and two evaluation batches."""

    def phase(name, count):
        for step in range(count):
            keywords = {"nb_batches": count, "phase": name}
            yield "on_step_begin", (step,), keywords
            yield "on_step_end", (step,), keywords

    yield "on_train_begin", (), {"config": config(folder)}
    for epoch in (1, 2):
        yield "on_epoch_begin", (), {"epoch": epoch}
        yield from phase("train", 3)
        yield from phase("eval", 2)
        yield "on_epoch_end", (), {"metrics": result.history[epoch - 1], "epoch": epoch}
        yield "on_save", (), {"epoch": epoch}
    yield "on_train_end", (), {}


def test_the_order_and_the_arguments_of_events(tmp_path):
    first, second = Recorder(), Recorder()
    result = run(tmp_path, [first, second])
    events = []
    for name, args, keywords in first.events:
        keywords = dict(keywords)
        if name == "on_epoch_end":
            assert keywords.pop("epoch_duration") > 0
        if name == "on_step_end" and keywords["phase"] == "train":
            loss = keywords.pop("loss")
            assert loss is None or loss > 0
        if name == "on_save":
            path = keywords.pop("checkpoint_dir")
            assert isinstance(path, str)
            assert path.startswith(f"{tmp_path}/checkpoint_")
            keywords["epoch"] = int(path.split("checkpoint_")[1][:3])
        events.append((name, args, keywords))
    assert events == list(expected_events(tmp_path, result))
    assert names(second) == names(first)
    assert [row.keys() for row in result.history] == [{"train", "eval"}] * 2
    assert [list(row["train"]) for row in result.history] == [["loss"]] * 2


@pytest.mark.parametrize(("period", "saved"), [(0, [5]), (1, [1, 2, 3, 4, 5]), (2, [2, 4, 5])])
def test_when_checkpoints_are_saved(tmp_path, period, saved):
    recorder = Recorder()
    run(
        tmp_path,
        recorder,
        options=Options(keep_all_checkpoints=True),
        checkpoint_period=period,
        nb_training_epochs=5,
    )
    kept = sorted(int(path.name.split("_")[1]) for path in tmp_path.iterdir())
    assert kept == saved
    assert names(recorder).count("on_save") == len(saved)


def test_a_metric_that_is_not_there_is_found_before_anything_is_saved(tmp_path):
    recorder = Recorder()
    with pytest.raises(ValueError, match="follows the metric 'f1'; without a metrics_computer"):
        run(tmp_path, recorder, checkpoint_metric="f1")
    assert list(tmp_path.iterdir()) == []
    assert names(recorder) == []


class StopsAt(TrainerCallback):
    """Asks to stop at an event, and counts the training steps."""

    def __init__(self, event, at):
        self.event, self.at, self.steps, self.seen = event, at, 0, 0

    def _ask(self, event):
        if event == self.event:
            self.seen += 1
            if self.seen == self.at:
                raise StopTraining("enough")

    def on_train_begin(self):
        self._ask("on_train_begin")

    def on_epoch_begin(self):
        self._ask("on_epoch_begin")

    def on_epoch_end(self):
        self._ask("on_epoch_end")

    def on_step_end(self, step_idx, phase):
        self.steps += phase == "train"
        self._ask(f"{phase} step")


@pytest.mark.parametrize(
    ("event", "at", "epochs", "steps"),
    [
        ("on_train_begin", 1, 0, 0),
        ("on_epoch_begin", 2, 2, 4),  # after its first batch
        ("on_epoch_end", 1, 1, 3),
        ("train step", 2, 1, 2),  # there
        ("train step", 4, 2, 4),
        ("eval step", 1, 1, 3),
    ],
)
def test_a_callback_ends_training_in_good_order(tmp_path, event, at, epochs, steps):
    recorder, callback = Recorder(), StopsAt(event, at)
    result = run(tmp_path, [callback, recorder], nb_training_epochs=4, checkpoint_period=0)
    assert result.stop_reason == "enough"
    assert callback.steps == steps
    assert int(result.state.batch_step) == steps
    assert len(result.history) == epochs
    assert names(recorder)[-1] == "on_train_end"
    assert "on_exception" not in names(recorder)
    if epochs:
        assert result.last_checkpoint.name.startswith(f"checkpoint_{epochs:03d}_")
        assert result.last_checkpoint.is_dir()
        assert all(math.isfinite(row["eval"]["loss"]) for row in result.history)
    else:
        assert result.last_checkpoint is None


@pytest.mark.parametrize(
    ("asked_at", "steps", "updates"),
    [(1, 2, 1), (2, 2, 1), (3, 3, 2), (4, 5, 3)],  # epochs of 3 batches: groups of 2 and of 1
)
def test_a_stop_within_a_group_completes_its_update(tmp_path, asked_at, steps, updates):
    callback = StopsAt("train step", asked_at)
    result = run(tmp_path / "stopped", callback, gradient_accumulation_steps=2)
    assert (callback.steps, int(result.state.step)) == (steps, updates)
    assert int(result.state.pending) == 0
    unstopped = run(
        tmp_path / "whole",
        [],
        gradient_accumulation_steps=2,
        options=Options(max_steps=updates),
    )
    assert same_bits(result.state.params, unstopped.state.params)


def test_early_stopping_by_options(tmp_path):
    options = Options(early_stopping_patience=2)
    result = run(tmp_path, [], options=options, nb_training_epochs=9, learning_rate=0.0)
    assert len(result.history) == 3
    assert "loss has not improved" in result.stop_reason
    assert result.best_checkpoint.name.startswith("checkpoint_001")
    assert result.last_checkpoint.name.startswith("checkpoint_003")


def test_a_failing_callback_ends_the_run_with_a_note(tmp_path):
    class Clumsy(TrainerCallback):
        def on_step_begin(self, step_idx, nb_batches, phase):
            if phase == "eval":
                raise KeyError("mine")

    recorder = Recorder()
    with pytest.raises(KeyError, match="mine") as caught:
        run(tmp_path, [Clumsy(), recorder])
    assert caught.value.__notes__ == ["raised by the callback Clumsy in on_step_begin"]
    assert names(recorder)[-1] == "on_exception"
    assert recorder.events[-1][1] == (caught.value,)


@pytest.mark.parametrize("window", [0, 2])
def test_a_broken_item_is_named_with_epoch_batch_and_rate(tmp_path, window):
    epoch_to_break, broken = 2, 6

    class Data(list):
        epoch = 0

        def __getitem__(self, index):
            item = super().__getitem__(index)
            if index == broken and self.epoch == epoch_to_break:
                return {**item, "x": item["x"] * np.nan}
            return item

    data = Data(TRAIN)

    class Counts(TrainerCallback):
        def on_epoch_begin(self, epoch):
            data.epoch = epoch

    with pytest.raises(NonFiniteError) as caught:
        run(
            tmp_path,
            Counts(),
            data=data,
            nb_training_epochs=3,
            learning_rate=0.125,
            options=Options(length_window=window),
        )
    error = caught.value
    assert (error.epoch, error.learning_rate) == (2, 0.125)
    assert broken in error.indices
    assert len(error.indices) in (2, 4)
    if window == 0:
        order = epoch_order(7, 2, 10).tolist()
        assert error.step == order.index(broken) // 4
        assert error.indices == order[4 * error.step : 4 * error.step + 4]
    for part in ("epoch 2", f"batch {error.step}", "rate 0.125", str(error.indices)):
        assert part in str(error)
    (kept,) = tmp_path.iterdir()  # the checkpoint of the first epoch
    assert np.isfinite(np.load(kept / "weights.npz")["w1"]).all()


def test_a_rate_by_epoch_reaches_the_step(tmp_path):
    schedule = medjax.by_epoch(lambda epoch: 0.0 if epoch < 2 else 0.1)
    states = []

    class Keeps(TrainerCallback):
        def on_save(self, checkpoint_dir):
            states.append(checkpoint_dir)

    start = medjax.train(
        mlp(), config(tmp_path / "a", learning_rate=0.0), TRAIN, callback=[]
    ).state.params
    still = medjax.train(
        mlp(), config(tmp_path / "b", learning_rate=9.0), TRAIN, schedule=schedule, callback=[]
    )
    moved = medjax.train(
        mlp(),
        config(tmp_path / "c", nb_training_epochs=3),
        TRAIN,
        schedule=schedule,
        callback=Keeps(),
    )
    assert same_bits(still.state.params, start)
    assert not same_bits(moved.state.params, start)
    assert len(states) == 3
    assert float(moved.state.learning_rate) == np.float32(0.1)


def test_a_plateau_lowers_the_rate_from_the_tracked_metric(tmp_path):
    class Scores:
        def prepare_batch(self, model_output, input_batch):
            return {}

        def compute(self, all_data):
            return {"f1": 0.5}

    result = medjax.train(
        mlp(),
        config(tmp_path, nb_training_epochs=4, metric_to_track_lr="f1"),
        TRAIN,
        EVAL,
        metrics_computer=Scores(),
        schedule=medjax.reduce_on_plateau("max", factor=0.5, patience=0),
        callback=[],
    )
    assert float(result.state.learning_rate) == np.float32(0.1 * 0.5**3)
    with pytest.raises(ValueError, match="follows the metric 'f1'; without"):
        medjax.train(
            mlp(),
            config(tmp_path / "b", metric_to_track_lr="f1"),
            TRAIN,
            EVAL,
            schedule=medjax.reduce_on_plateau(),
            callback=[],
        )


@pytest.mark.parametrize(("max_steps", "batches"), [(1, 2), (3, 5), (9, 9)])
def test_a_run_of_a_number_of_updates(tmp_path, max_steps, batches):
    result = run(
        tmp_path,
        [],
        options=Options(max_steps=max_steps),
        nb_training_epochs=3,
        gradient_accumulation_steps=2,
    )
    assert int(result.state.step) == min(max_steps, 6)
    assert int(result.state.batch_step) == batches
    assert int(result.state.pending) == 0
    assert jax.tree.all(jax.tree.map(lambda g: bool((g == 0).all()), result.state.gradients))


def test_the_same_seed_is_the_same_run_and_another_is_not(tmp_path):
    component = mlp(dropout=0.4)

    def final(name, seed):
        cfg = config(tmp_path / name, seed=seed)
        return medjax.train(component, cfg, TRAIN, EVAL, callback=[])

    first, again, other = final("a", 3), final("b", 3), final("c", 4)
    assert same_bits(first.state, again.state)
    assert first.history == again.history
    assert not same_bits(first.state.params, other.state.params)
