"""Callbacks: what they receive, how they stop training, and what the built-in ones write."""

import csv
import json
import math
import sys
import threading

import pytest
from tiny import config, mlp, points

import medjax
from medjax import (
    EarlyStopping,
    MetricsWriter,
    ReportWriter,
    StopTraining,
    TensorBoardWriter,
    TrainerCallback,
)
from medjax.callbacks import CallbackList, as_callback_list


def metrics(value, **others):
    return {"train": {"loss": 1.0}, "eval": {"loss": value, **others}}


def end_epoch(callback, value, epoch=1, **others):
    as_callback_list(callback).on_epoch_end(
        metrics=metrics(value, **others), epoch=epoch, epoch_duration=0.5
    )


def stops_at(callback, values):
    """Return the number of epochs after which the callback stops, or None if it never does."""
    for epoch, value in enumerate(values, start=1):
        try:
            callback.on_epoch_end(metrics(value), epoch, 0.5)
        except StopTraining:
            return epoch
    return None


def test_every_callback_gets_every_event_in_order():
    events = []

    class Teller(TrainerCallback):
        def __init__(self, name):
            self.name = name

        def on_epoch_begin(self, epoch):
            events.append((self.name, epoch))

    both = as_callback_list([Teller("a"), Teller("b")])
    both.on_epoch_begin(epoch=1)
    both.on_epoch_end(metrics={}, epoch=1, epoch_duration=0.0)
    assert events == [("a", 1), ("b", 1)]
    assert as_callback_list(both) is both
    as_callback_list(None).on_epoch_begin(epoch=1)


def test_within_an_evaluation_the_record_is_that_of_its_beginning():
    class Stops(TrainerCallback):
        def __init__(self):
            self.steps = []

        def on_step_end(self, step_idx):
            self.steps.append(step_idx)
            raise StopTraining

        def state_dict(self):
            return {"steps": self.steps}  # the list itself

    callbacks = CallbackList([Stops()])
    before = {"callbacks": {"Stops:0": {"steps": []}}, "stop_reason": None, "stopped_by": None}
    with callbacks.evaluating():
        callbacks.on_step_end(0)
        assert callbacks.record() == before
    assert callbacks.record()["callbacks"] == {"Stops:0": {"steps": [0]}}
    assert callbacks.record()["stopped_by"] == "Stops:0"


def test_a_state_that_cannot_be_copied_is_told():
    class Holds(TrainerCallback):
        def state_dict(self):
            return {"lock": threading.Lock()}

    with pytest.raises(TypeError) as caught, CallbackList([Holds()]).evaluating():
        pass
    assert "states of the callbacks Holds:0 failed; expected" in caught.value.__notes__[0]


def test_an_override_gets_only_the_arguments_it_takes():
    received = {}

    class Few(TrainerCallback):
        def on_train_begin(self):
            received["begin"] = True

        def on_epoch_end(self, metrics, epoch, epoch_time):
            received["time"] = epoch_time

        def on_step_begin(self):
            received["step"] = True

        def on_step_end(self, phase):
            received["phase"] = phase

        def on_save(self, **everything):
            received["save"] = everything

    class Medkits:
        def on_epoch_end(self, metrics, epoch, epoch_time, **others):
            received["theirs"] = (epoch_time, others)

        def on_step_end(self, step_idx, nb_batches, phase):
            received["theirs step"] = (step_idx, nb_batches, phase)

        def on_step_begin(self, index, *, phase):
            received["index"] = (index, phase)

    callback = as_callback_list((Few(), Medkits()))
    callback.on_train_begin(config=None)
    callback.on_epoch_end(metrics={}, epoch=1, epoch_duration=2.5)
    callback.on_step_begin(4, nb_batches=9, phase="train")
    callback.on_step_end(4, nb_batches=9, phase="train", loss=0.1)
    callback.on_save(checkpoint_dir="here")
    assert received == {
        "begin": True,
        "time": 2.5,
        "theirs": (2.5, {}),
        "step": True,
        "index": (4, "train"),
        "phase": "train",
        "theirs step": (4, 9, "train"),
        "save": {"checkpoint_dir": "here"},
    }


def test_an_exception_names_the_callback_and_the_event():
    class Clumsy(TrainerCallback):
        def on_save(self, checkpoint_dir):
            raise OSError("no")

    with pytest.raises(OSError, match="no") as caught:
        as_callback_list(Clumsy()).on_save(checkpoint_dir="x")
    assert caught.value.__notes__ == ["raised by the callback Clumsy in on_save"]


def test_a_request_to_stop_is_recorded_and_the_others_still_get_the_event():
    epochs = []

    class Stops(TrainerCallback):
        def __init__(self, *reason):
            self.reason = reason

        def on_epoch_begin(self, epoch):
            epochs.append(epoch)
            raise StopTraining(*self.reason)

    callback = CallbackList([Stops("enough"), Stops("too late")])
    callback.on_epoch_begin(epoch=3)
    assert callback.stop_reason == "enough"
    assert epochs == [3, 3]
    nameless = CallbackList([Stops()])
    nameless.on_epoch_begin(epoch=1)
    assert nameless.stop_reason == "Stops asked for it"


def test_each_callback_gets_its_own_state_back():
    def make():
        return CallbackList([EarlyStopping("loss", 3), object(), EarlyStopping("f1", 3)])

    first, second = make(), make()
    end_epoch(CallbackList(first.callbacks), 2.0, f1=0.5)
    end_epoch(CallbackList(first.callbacks), 3.0, f1=0.7)
    state = json.loads(json.dumps(first.state_dict()))
    second.load_state_dict(state)
    assert second.state_dict() == first.state_dict()
    assert {name: kept["best"] for name, kept in state.items()} == {
        "EarlyStopping:0": 2.0,
        "EarlyStopping:1": 0.5,
    }
    CallbackList([MetricsWriter("unused")]).load_state_dict(state)  # another one starts afresh


NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("options", "values", "expected"),
    [
        ({"patience": 1}, [3, 2, 1], None),
        ({"patience": 1}, [3, 3], 2),
        ({"patience": 2}, [3, 4, 2, 2, 2], 5),
        ({"patience": 2}, [3, 4, 5], 3),
        ({"patience": 2, "minimize": False}, [3, 4, 4, 3], 4),
        ({"patience": 1, "minimize": False}, [1, 2, 3], None),
        ({"patience": 1, "threshold": 0.5}, [3, 2.4, 2.0], 3),
        ({"patience": 2, "threshold": 0.5}, [3, 2.6, 2.4, 2.2], None),
        ({"patience": 2}, [NAN, NAN], 2),
        ({"patience": 2}, [NAN, 5, NAN, 4, NAN, NAN], 6),
        ({"patience": 2, "minimize": False}, [NAN, 5, NAN, 6], None),
        ({"patience": 2}, [INF, 5, 4], None),
        ({"patience": 1}, [5, INF], 2),
        ({"patience": 1, "minimize": False}, [-INF, 1, 2], None),
    ],
)
def test_early_stopping(options, values, expected):
    assert stops_at(EarlyStopping("loss", **options), values) == expected


def test_early_stopping_resumes_its_count():
    first = EarlyStopping("loss", 3)
    assert stops_at(first, [1, 2]) is None
    second = EarlyStopping("loss", 3)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert stops_at(second, [2, 2]) == 2


def test_early_stopping_on_a_missing_metric():
    with pytest.raises(ValueError, match=r"monitors 'f1', but the evaluation returned \['loss'\]"):
        EarlyStopping("f1", 1).on_epoch_end(metrics(1.0), 1, 0.5)


def test_early_stopping_says_why():
    callback = EarlyStopping("loss", 1)
    callback.on_epoch_end(metrics(1.0), 1, 0.5)
    with pytest.raises(StopTraining, match="has not improved on 1 for 1 evaluations, at epoch 2"):
        callback.on_epoch_end(metrics(1.0), 2, 0.5)


def test_the_writer_writes_csv_and_json_lines(tmp_path):
    folder = tmp_path / "new" / "logs"
    writer = MetricsWriter(folder)
    end_epoch(writer, 0.5)
    end_epoch(writer, math.nan, epoch=2, f1=0.25)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert rows[0] == {"epoch": 1, "seconds": 0.5, "train/loss": 1.0, "eval/loss": 0.5}
    assert math.isnan(rows[1]["eval/loss"])
    with (folder / "metrics.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["epoch"] for row in table] == ["1", "2"]
    assert [row["eval/f1"] for row in table] == ["", "0.25"]
    assert sorted(path.name for path in folder.iterdir()) == ["metrics.csv", "metrics.jsonl"]


def test_the_writer_continues_after_the_rows_of_its_checkpoint(tmp_path):
    writer = MetricsWriter(tmp_path)
    end_epoch(writer, 0.5)
    state = json.loads(json.dumps(writer.state_dict()))
    end_epoch(writer, 0.4, epoch=2)
    resumed = MetricsWriter(tmp_path)
    resumed.load_state_dict(state)
    end_epoch(resumed, 0.3, epoch=2)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(row["epoch"], row["eval/loss"]) for row in rows] == [(1, 0.5), (2, 0.3)]


def test_tensorboard_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ImportError, match=r"pip install 'medjax\[tensorboard\]'"):
        TensorBoardWriter(tmp_path)


def test_tensorboard_gets_the_scalars(monkeypatch, tmp_path):
    written = []

    class Module:
        class SummaryWriter:
            def __init__(self, folder, **options):
                written.append((folder, options))

            def add_scalar(self, name, value, epoch):
                written.append((name, value, epoch))

            def flush(self):
                written.append("flush")

            def close(self):
                written.append("close")

    monkeypatch.setitem(sys.modules, "tensorboardX", Module)
    end_epoch(TensorBoardWriter(tmp_path), 0.5, epoch=3)
    assert written == [
        (str(tmp_path), {}),
        ("train/loss", 1.0, 3),
        ("eval/loss", 0.5, 3),
        ("seconds", 0.5, 3),
        "flush",
    ]
    resumed = TensorBoardWriter(tmp_path)
    resumed.on_resume("checkpoint", epoch=2, step_idx=0, nb_batches=1, nb_epochs=3)
    assert written[5:] == [(str(tmp_path), {"purge_step": 2, "filename_suffix": ".2"})]
    end_epoch(resumed, 0.5, epoch=2)
    assert written[6] == ("train/loss", 1.0, 2)
    resumed.on_train_end()
    resumed.on_exception(RuntimeError())
    assert written[9:] == ["flush", "close"]


def test_callbacks_that_have_served_a_run_start_anew(tmp_path):
    stopping = EarlyStopping("loss", patience=1)
    writers = [MetricsWriter(tmp_path / "log"), ReportWriter(tmp_path / "log")]

    def run(name, **more):
        settings = config(tmp_path / name, nb_training_epochs=3, **more)
        callback = [stopping, *writers]
        return medjax.train(mlp(), settings, points(24), points(9, seed=1), callback=callback)

    # Without improvement it stops after the second epoch, each time.
    assert len(run("first", learning_rate=0.0).history) == 2
    assert len(run("second", learning_rate=0.0).history) == 2
    log = (tmp_path / "log" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in log] == [1, 2]
    assert [len(writer.state_dict().popitem()[1]) for writer in writers] == [2, 2]


def test_a_count_of_another_metric_is_forgotten():
    stopping = EarlyStopping("loss", patience=2)
    end_epoch(stopping, 0.5)
    end_epoch(stopping, 0.6)
    stopping.load_state_dict({"metric": "accuracy", "minimize": True, "best": 1, "bad_epochs": 1})
    assert stops_at(stopping, [0.7, 0.7, 0.7]) == 3


def test_a_report_of_a_run_that_is_new_to_the_callback_has_no_scores_of_another(tmp_path):
    writer = ReportWriter(tmp_path)
    writer.load_state_dict({"history": [metrics(0.5)] * 2})
    CallbackList([writer]).load_state_dict({})
    assert writer.state_dict() == {"history": []}
