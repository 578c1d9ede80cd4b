"""Trackers and TensorBoard: what the real packages record, resumed, and that nothing is sent."""

import json
import math
import socket
import struct
import sys
import warnings

import pytest
from tiny import config, mlp, points

import medjax
from medjax.callbacks import (
    MLflowTracker,
    TensorBoardWriter,
    TrackioTracker,
    TrainerCallback,
    WandbTracker,
)
from medjax.callbacks.trackers import _Tracker

TRACKERS = {"mlflow": MLflowTracker, "wandb": WandbTracker, "trackio": TrackioTracker}


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Refuse connections to other machines, and look-ups of their names."""
    connect = socket.socket.connect

    def local_only(self, address):
        assert self.family == socket.AF_UNIX, f"connects to {address}"
        return connect(self, address)

    def no_look_up(host, *args, **kwargs):
        raise AssertionError(f"looks up {host}")

    monkeypatch.setattr(socket.socket, "connect", local_only)
    monkeypatch.setattr(socket, "getaddrinfo", no_look_up)


@pytest.fixture
def package(monkeypatch):
    """Return a function that imports a package, whose own warnings are not ours."""

    def load(name, *parts):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for part in (name, *parts):
                module = pytest.importorskip(part)
        return module

    return load


pytestmark = pytest.mark.filterwarnings("ignore")  # those of the packages


class StopsIn(TrainerCallback):
    """Interrupts a run in an epoch."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_epoch_begin(self, epoch):
        if epoch == self.epoch:
            raise KeyboardInterrupt


def train(folder, tracker, *more, resume=None):
    settings = config(folder / "checkpoints", nb_training_epochs=3)
    return medjax.train(
        mlp(), settings, points(8), points(4), callback=[tracker, *more], resume=resume
    )


def interrupted_and_resumed(folder, make):
    """Train with a tracker, interrupted in the third epoch and resumed with a new tracker."""
    with pytest.raises(KeyboardInterrupt):
        train(folder, make(), StopsIn(3))
    return train(folder, make(), resume="auto")


def resumed_from_epoch_1(folder, make):
    """Train with a tracker, and again with a new one from the checkpoint of the first epoch."""
    settings = config(folder / "checkpoints", nb_training_epochs=3)
    options = medjax.Options(keep_all_checkpoints=True)
    arguments = (mlp(), settings, points(8), points(4))
    medjax.train(*arguments, callback=make(), options=options)
    (first,) = (folder / "checkpoints").glob("checkpoint_001_*")
    settings = config(folder / "checkpoints", nb_training_epochs=4)
    arguments = (mlp(), settings, points(8), points(4))
    return medjax.train(*arguments, callback=make(), options=options, resume=first)


def losses(result):
    return [(epoch, row["eval"]["loss"]) for epoch, row in enumerate(result.history, 1)]


def test_mlflow_gets_settings_and_metrics_and_continues_its_run(tmp_path, package):
    package("mlflow", "sqlalchemy", "alembic")
    from mlflow.tracking import MlflowClient

    result = interrupted_and_resumed(
        tmp_path, lambda: MLflowTracker(tmp_path / "log", settings={"model": "mlp"})
    )
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'log' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("medjax")
    assert experiment.artifact_location == (tmp_path / "log" / "mlflow").as_uri()
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["batch_size"] == "4"
    assert run.data.params["model"] == "mlp"
    history = client.get_metric_history(run.info.run_id, "eval/loss")
    assert [(metric.step, metric.value) for metric in history] == losses(result)


def test_mlflow_has_no_epoch_twice(tmp_path, package, caplog):
    package("mlflow", "sqlalchemy", "alembic")
    from mlflow.tracking import MlflowClient

    result = resumed_from_epoch_1(tmp_path, lambda: MLflowTracker(tmp_path))
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("medjax").experiment_id])
    history = client.get_metric_history(run.info.run_id, "eval/loss")
    assert [(metric.step, metric.value) for metric in history] == losses(result)
    (told,) = (r.getMessage() for r in caplog.records if "MLflowTracker" in r.getMessage())
    assert f"the run {run.info.run_id} had the epochs to 3 before training was resumed" in told


def test_mlflow_takes_numbers_that_are_not_finite(tmp_path, package):
    package("mlflow", "sqlalchemy", "alembic")
    from mlflow.tracking import MlflowClient

    tracker = MLflowTracker(tmp_path)
    tracker.on_train_begin(config("unused"))
    tracker.on_epoch_end({"eval": {"f1": math.nan, "loss": math.inf}}, 1, 0.5)
    run = tracker.state_dict()["run"]
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert math.isnan(client.get_run(run).data.metrics["eval/f1"])
    assert client.get_run(run).data.metrics["eval/loss"] > 1e308


def test_mlflow_is_told_of_a_failure(tmp_path, package):
    package("mlflow", "sqlalchemy", "alembic")
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{tmp_path / 'mine.db'}"
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, MLflowTracker(tmp_path, tracking_uri=uri, experiment="e"), StopsIn(2))
    client = MlflowClient(tracking_uri=uri)
    (run,) = client.search_runs([client.get_experiment_by_name("e").experiment_id])
    assert run.info.status == "FAILED"
    assert not (tmp_path / "mlflow.db").exists()


def chunks_of(data):
    """Yield the records of a log in the format of LevelDB, which begins with 7 bytes of wandb's."""
    place, record = 7, b""
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:  # the end of a block is padded
            place += 32768 - place % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        record += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


def records_of(path):
    """Return the metrics and the settings in a file of an offline run of wandb."""
    from wandb.proto import wandb_internal_pb2

    rows, settings = [], {}
    for data in chunks_of(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        items = {"/".join(i.nested_key) or i.key: i.value_json for i in record.history.item}
        if items:
            rows.append({name: json.loads(value) for name, value in items.items()})
        for update in record.run.config.update:
            settings[update.key] = json.loads(update.value_json)
    return rows, settings


def test_wandb_writes_offline_and_continues_its_run(tmp_path, package):
    package("wandb")
    result = interrupted_and_resumed(
        tmp_path, lambda: WandbTracker(tmp_path / "log", settings={"model": "mlp"})
    )
    files = sorted((tmp_path / "log" / "wandb").glob("offline-run-*/*.wandb"))
    assert files
    assert len({path.name for path in files}) == 1  # of one run, which has a part after the resume
    rows = [row for path in files for row in records_of(path)[0]]
    assert [(row["epoch"], row["eval/loss"]) for row in rows] == losses(result)
    assert records_of(files[0])[1]["batch_size"] == 4
    assert records_of(files[0])[1]["model"] == "mlp"


def test_wandb_offline_has_what_was_trained_again_in_two_parts(tmp_path, package):
    package("wandb")
    result = resumed_from_epoch_1(tmp_path, lambda: WandbTracker(tmp_path / "log"))
    files = sorted((tmp_path / "log" / "wandb").glob("offline-run-*/*.wandb"))
    rows = [row for path in files for row in records_of(path)[0]]
    expected = losses(result)
    assert [(row["epoch"], row["eval/loss"]) for row in rows] == expected[:3] + expected[1:]


def test_wandb_online_has_no_epoch_twice():
    class Run:
        def __init__(self):
            self.rows, self.summary = [], {"epoch": 3}  # as the server gives it

        def log(self, row):
            self.rows.append(row)

    class Online(WandbTracker):
        def __init__(self):
            _Tracker.__init__(self, None)

        def _begin(self, run, settings):
            self._run = Run()
            return run

    tracker = Online()
    tracker.load_state_dict({"run": "abc"})
    tracker.on_train_begin(config("unused"))
    for epoch in (2, 3, 4):
        tracker.on_epoch_end({"eval": {"loss": 0.5}}, epoch, 1.0)
    assert tracker._run.rows == [{"eval/loss": 0.5, "seconds": 1.0, "epoch": 4}]


def test_wandb_refuses_another_mode(tmp_path, package):
    package("wandb")
    with pytest.raises(ValueError, match="mode is 'shared'; expected 'offline' or 'online'"):
        WandbTracker(tmp_path, mode="shared")


@pytest.fixture(scope="module")
def trackio_folder(tmp_path_factory):
    """Return the folder of Trackio, which reads it once, when it is imported."""
    folder = tmp_path_factory.mktemp("trackio")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRACKIO_DIR", str(folder))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pytest.importorskip("trackio")
    return folder


@pytest.fixture
def trackio_rows(trackio_folder):
    """Return a function that returns the rows of the only run of a project."""
    from trackio import utils
    from trackio.sqlite_storage import SQLiteStorage

    if trackio_folder != utils.TRACKIO_DIR:
        pytest.skip("Trackio was imported before, with another folder")

    def rows(project):
        (run,) = SQLiteStorage.get_runs(project)
        return SQLiteStorage.get_logs(project, run)

    return rows


def test_trackio_keeps_metrics_here_and_continues_its_run(tmp_path, trackio_rows):
    result = interrupted_and_resumed(tmp_path, lambda: TrackioTracker("tests"))
    assert [(row["step"], row["eval/loss"]) for row in trackio_rows("tests")] == losses(result)


def test_trackio_has_no_epoch_twice(tmp_path, trackio_rows):
    result = resumed_from_epoch_1(tmp_path, lambda: TrackioTracker("again"))
    assert [(row["step"], row["eval/loss"]) for row in trackio_rows("again")] == losses(result)


def test_tensorboard_shows_no_epoch_twice(tmp_path, package):
    package("tensorboardX")
    events = package("tensorboard.backend.event_processing.event_accumulator")
    result = resumed_from_epoch_1(tmp_path, lambda: TensorBoardWriter(tmp_path / "log"))
    shown = events.EventAccumulator(str(tmp_path / "log")).Reload().Scalars("eval/loss")
    assert [(event.step, pytest.approx(event.value)) for event in shown] == losses(result)


@pytest.mark.parametrize("name", TRACKERS)
def test_a_tracker_says_what_to_install(name, monkeypatch, tmp_path):
    for module in (name, "mlflow.tracking"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"pip install 'medjax\[{name}\]'"):
        TRACKERS[name](tmp_path)


def test_a_tracker_gets_numbers_only_and_ends_once():
    class Recorder(_Tracker):
        events = ()

        def _begin(self, run, settings):
            self.events += ("begin", run)
            return run or "new"

        def _log(self, numbers, epoch):
            self.events += (numbers, epoch)

        def _end(self, *, failed):
            self.events += ("end", failed)

    tracker = Recorder(None)
    tracker.on_train_begin(config("unused"))
    assert tracker.state_dict() == {"run": "new"}
    tracker.on_epoch_end({"eval": {"loss": math.inf, "table": "a b"}}, 1, 0.5)
    tracker.on_train_end()
    tracker.on_exception(RuntimeError())
    assert tracker.events == (
        "begin",
        None,
        {"eval/loss": math.inf, "seconds": 0.5},
        1,
        "end",
        False,
    )
    resumed = Recorder(None)
    resumed.load_state_dict({"run": "old"})
    resumed.on_train_begin(config("unused"))
    assert resumed.events == ("begin", "old")
    assert tracker.of_process_0
