"""Trackers: the settings and metrics of a run in MLflow, Weights & Biases or Trackio."""

from __future__ import annotations

import abc
import importlib
import logging
import os
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medjax.callbacks.base import TrainerCallback
from medjax.callbacks.writers import plain
from medjax.config import TrainerConfig

__all__ = ["MLflowTracker", "TrackioTracker", "WandbTracker"]


logger = logging.getLogger("medjax")


class _Tracker(TrainerCallback, abc.ABC):
    """Tells a tracker the settings once and the metrics of every epoch.

    The run of the tracker is begun with that of medjax, and continued when that is resumed. What is
    trained again after the checkpoint of a resume is not told again, where the tracker tells what
    it has.
    """

    of_process_0 = True

    def __init__(self, settings: Mapping[str, Any] | None) -> None:
        self._settings = dict(settings or {})
        self._id: str | None = None
        self._is_open = False
        self._nb_recorded = 0

    def _imported(self, module: str) -> Any:
        """Return a module of the tracker's package, whose extra has the name of the package."""
        try:
            return importlib.import_module(module)
        except ImportError as error:
            package = module.partition(".")[0]
            msg = f"{type(self).__name__} needs {package}: pip install 'medjax[{package}]'"
            raise ImportError(msg) from error

    def on_train_begin(self, config: TrainerConfig) -> None:
        """Begin a run, or continue that of the checkpoint."""
        settings = {"output_dir": str(config.output_dir), **config.to_dict(), **self._settings}
        is_new = self._id is None
        self._id = self._begin(self._id, settings if is_new else {})
        self._is_open = True
        self._nb_recorded = 0 if is_new else self._last_epoch()

    def on_epoch_end(
        self, metrics: dict[str, dict[str, float]], epoch: int, epoch_duration: float
    ) -> None:
        """Tell the metrics of the epoch, which are called ``eval/loss`` and so on."""
        if epoch <= self._nb_recorded:
            if epoch == self._nb_recorded:
                logger.warning(
                    f"{type(self).__name__}: the run {self._id} had the epochs to {epoch} before "
                    "training was resumed; those that were trained again are not recorded again"
                )
            return
        named = {
            f"{phase}/{name}": v for phase, scores in metrics.items() for name, v in scores.items()
        }
        values = {name: plain(value) for name, value in named.items()}
        numbers = {name: value for name, value in values.items() if isinstance(value, float)}
        self._log(numbers | {"seconds": float(epoch_duration)}, epoch)

    def on_train_end(self) -> None:
        """End the run of the tracker."""
        self._close(failed=False)

    def on_exception(self, error: BaseException) -> None:
        """End the run of the tracker as one that failed."""
        del error
        self._close(failed=True)

    def state_dict(self) -> dict[str, Any]:
        """Return which run of the tracker it is."""
        return {"run": self._id}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue the run of the checkpoint."""
        self._id = state["run"]

    def _close(self, *, failed: bool) -> None:
        if self._is_open:
            self._is_open = False
            self._end(failed=failed)
        self._id = None  # another training is another run

    @abc.abstractmethod
    def _begin(self, run: str | None, settings: Mapping[str, Any]) -> str:
        """Begin a run with settings, or continue one, and return by what it can be continued."""

    def _last_epoch(self) -> int:
        """Return the last epoch that the run has, as it is continued; 0 if that is not known."""
        return 0

    @abc.abstractmethod
    def _log(self, numbers: Mapping[str, float], epoch: int) -> None:
        """Tell the metrics of an epoch."""

    @abc.abstractmethod
    def _end(self, *, failed: bool) -> None:
        """End the run."""


class MLflowTracker(_Tracker):
    """Records a run with MLflow, by default in a database of SQLite in a folder.

    Nothing is sent over the network unless `tracking_uri` is the address of a server; the telemetry
    of MLflow is switched off. ``mlflow ui --backend-store-uri sqlite:///FOLDER/mlflow.db`` shows
    the runs. A resumed run is continued; epochs that it has already are not recorded again.

    Parameters
    ----------
    folder : str or Path
        Folder of the database ``mlflow.db``, usually that of the run; created if missing.
    tracking_uri : str, optional
        Where to record instead, such as ``sqlite:////data/mlflow.db`` or the address of a server.
    experiment : str
        Name of the experiment, which may exist.
    name : str, optional
        Name of the run.
    settings : mapping of str to object, optional
        What to record besides the fields of `TrainerConfig`.

    Raises
    ------
    ImportError
        If MLflow is not installed.

    Examples
    --------
    >>> callback = [DefaultPrinterCallback(), MLflowTracker("runs/ner")]  # doctest: +SKIP
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        tracking_uri: str | None = None,
        experiment: str = "medjax",
        name: str | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(settings)
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # read when mlflow is imported
        self._make_client = self._imported("mlflow.tracking").MlflowClient
        self._make_metric = self._imported("mlflow.entities").Metric
        self._folder = Path(folder).absolute()
        self._uri = tracking_uri
        self._experiment, self._name = experiment, name
        self._client: Any = None

    def _begin(self, run: str | None, settings: Mapping[str, Any]) -> str:
        place = {}
        if self._uri is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            place = {"artifact_location": (self._folder / "mlflow").as_uri()}
        uri = self._uri or f"sqlite:///{self._folder / 'mlflow.db'}"
        self._client = self._make_client(tracking_uri=uri)
        if run is not None:
            self._client.update_run(run, status="RUNNING")
            return run
        known = self._client.get_experiment_by_name(self._experiment)
        if known is None:
            number = self._client.create_experiment(self._experiment, **place)
        else:
            number = known.experiment_id
        made: str = self._client.create_run(number, run_name=self._name).info.run_id
        for name, value in settings.items():
            self._client.log_param(made, name, value)
        return made

    def _last_epoch(self) -> int:
        told = self._client.get_metric_history(self._id, "seconds")  # of every epoch
        return max((metric.step for metric in told), default=0)

    def _log(self, numbers: Mapping[str, float], epoch: int) -> None:
        now = time.time_ns() // 1_000_000
        metrics = [self._make_metric(name, value, now, epoch) for name, value in numbers.items()]
        # In one call, so that a run that is killed has all metrics of an epoch or none.
        self._client.log_batch(self._id, metrics=metrics)

    def _end(self, *, failed: bool) -> None:
        self._client.set_terminated(self._id, "FAILED" if failed else "FINISHED")


class WandbTracker(_Tracker):
    """Records a run with Weights & Biases, offline unless asked otherwise.

    Offline, runs are files below ``wandb/`` in a folder, which ``wandb sync`` uploads if you want
    that; code, the console and the state of the machine are not recorded. wandb starts a process of
    its own, to which it speaks on this machine only.

    A resumed run is continued. Online, epochs that it has already are not recorded again. Offline,
    wandb cannot tell what it has: each start writes a part, and epochs that were trained again
    after the checkpoint are in two parts, with equal values of ``epoch``.

    Parameters
    ----------
    folder : str or Path
        Folder in which ``wandb/`` is written; created if missing.
    project : str
        Name of the project.
    mode : {"offline", "online"}
        "online" sends everything to the server that you have logged in to.
    name : str, optional
        Name of the run.
    settings : mapping of str to object, optional
        What to record besides the fields of `TrainerConfig`.

    Raises
    ------
    ImportError
        If wandb is not installed.
    ValueError
        If `mode` is not one of the two.

    Examples
    --------
    >>> callback = [DefaultPrinterCallback(), WandbTracker("runs/ner")]  # doctest: +SKIP
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        project: str = "medjax",
        mode: str = "offline",
        name: str | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(settings)
        if mode not in ("offline", "online"):
            raise ValueError(f"mode is {mode!r}; expected 'offline' or 'online'")
        if mode == "offline":
            os.environ["WANDB_ERROR_REPORTING"] = "false"  # read when wandb is imported
        self._wandb = self._imported("wandb")
        self._folder = Path(folder)
        self._options = {"project": project, "mode": mode, "name": name}
        self._run: Any = None

    def _begin(self, run: str | None, settings: Mapping[str, Any]) -> str:
        self._folder.mkdir(parents=True, exist_ok=True)
        run = run or secrets.token_hex(8)
        self._run = self._wandb.init(
            id=run,
            resume="allow",
            dir=str(self._folder),
            config=dict(settings),
            settings=self._wandb.Settings(
                console="off",
                silent=True,
                disable_code=True,
                disable_git=True,
                save_code=False,
                x_disable_stats=True,
            ),
            **self._options,
        )
        # An epoch that is trained again offline must not be refused as a step of the past.
        self._run.define_metric("*", step_metric="epoch")
        return run

    def _last_epoch(self) -> int:
        # The server gives a continued run its summary; offline it is empty.
        return int(self._run.summary.get("epoch", 0))

    def _log(self, numbers: Mapping[str, float], epoch: int) -> None:
        self._run.log({**numbers, "epoch": epoch})

    def _end(self, *, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


class TrackioTracker(_Tracker):
    """Records a run with Trackio, on this machine.

    Runs go to Trackio's own folder, ``~/.cache/huggingface/trackio`` or that of the variable
    ``TRACKIO_DIR``; ``trackio show`` shows them. Nothing is sent over the network unless Trackio's
    variables ``TRACKIO_SPACE_ID`` or ``TRACKIO_SERVER_URL`` name a place to send it to. A resumed
    run is continued; epochs that it has already are not recorded again.

    Parameters
    ----------
    project : str
        Name of the project.
    name : str, optional
        Name of the run, by which a resumed run finds it; drawn by default.
    settings : mapping of str to object, optional
        What to record besides the fields of `TrainerConfig`.

    Raises
    ------
    ImportError
        If Trackio is not installed.

    Examples
    --------
    >>> callback = [DefaultPrinterCallback(), TrackioTracker("ner")]  # doctest: +SKIP
    """

    def __init__(
        self,
        project: str = "medjax",
        *,
        name: str | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(settings)
        self._trackio = self._imported("trackio")
        self._project, self._name = project, name
        self._run: Any = None

    def _begin(self, run: str | None, settings: Mapping[str, Any]) -> str:
        name = run or self._name or f"run-{secrets.token_hex(4)}"
        self._run = self._trackio.init(
            project=self._project,
            name=name,
            resume="never" if run is None else "allow",
            config=dict(settings) or None,
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        return name

    def _last_epoch(self) -> int:
        # Trackio counts on from what the run has, here or on a server; it has no public name.
        return int(self._run._next_step) - 1

    def _log(self, numbers: Mapping[str, float], epoch: int) -> None:
        self._run.log(dict(numbers), step=epoch)

    def _end(self, *, failed: bool) -> None:
        del failed  # Trackio does not tell runs that failed from others
        self._run.finish()
