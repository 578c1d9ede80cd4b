"""ReportWriter: the page of a run, written again after each epoch."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medjax.callbacks.base import TrainerCallback
from medjax.callbacks.report import write_page
from medjax.callbacks.writers import plain
from medjax.config import Options, TrainerConfig

__all__ = ["ReportWriter"]

logger = logging.getLogger("medjax")

_Epoch = dict[str, dict[str, float | str]]


class ReportWriter(TrainerCallback):
    """Writes ``report.html`` after each epoch, so a run that is killed leaves a page, too.

    The page has learning curves, the scores of all epochs, settings and versions. `write_report`
    can replace it by a page with tables of scores and examples of errors once training has ended.
    The file is replaced atomically. If it cannot be written, a warning says why and training goes
    on. A resumed run continues after the epochs of its checkpoint.

    Parameters
    ----------
    log_dir : str or Path
        Folder of the file, usually that of the run; created if missing.
    options : Options, optional
        The options that `train` gets, for the table of settings; without them it has the fields of
        `TrainerConfig` only.
    title : str
        Heading of the page.
    metrics : sequence of str, optional
        Metrics whose curves are drawn; by default the loss and the checkpoint metric.
    settings : mapping of str to object, optional
        More settings: the model, the data.

    Raises
    ------
    ImportError
        If matplotlib, which draws the curves, is not installed.

    Examples
    --------
    >>> callback = [DefaultPrinterCallback(), ReportWriter("runs/ner")]  # doctest: +SKIP
    """

    of_process_0 = True

    def __init__(
        self,
        log_dir: str | Path,
        options: Options | None = None,
        *,
        title: str = "Training report",
        metrics: Sequence[str] | None = None,
        settings: Mapping[str, object] | None = None,
    ) -> None:
        if importlib.util.find_spec("matplotlib") is None:
            raise ImportError("ReportWriter needs matplotlib: pip install 'medjax[plots]'")
        self._path = Path(log_dir) / "report.html"
        self._options = options
        self._title, self._metrics, self._settings = title, metrics, settings
        self._config: TrainerConfig | None = None
        self._history: list[_Epoch] = []
        self._told = ""

    def on_train_begin(self, config: TrainerConfig) -> None:
        """Keep the settings for the page."""
        self._config = config

    def on_epoch_end(
        self, metrics: dict[str, dict[str, float]], epoch: int, epoch_duration: float
    ) -> None:
        """Add the scores of the epoch and write the page."""
        del epoch_duration
        row = {
            phase: {name: plain(value) for name, value in scores.items()}
            for phase, scores in metrics.items()
        }
        # An epoch of which nothing is known, as this callback is new in a resumed run, stays empty.
        unknown: list[_Epoch] = [{} for _ in range(len(self._history), epoch - 1)]
        self._history = [*self._history[: epoch - 1], *unknown, row]
        try:
            self._write()
        except Exception as error:  # whatever it is, training goes on without a page
            reason = f"{type(error).__name__}: {error}"
            if reason != self._told:  # once is enough for all epochs
                logger.warning(f"{self._path} is not written, training goes on ({reason})")
            self._told = reason

    def state_dict(self) -> dict[str, Any]:
        """Return the scores so far."""
        return {"history": self._history}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the scores."""
        self._history = list(state["history"])

    def forget(self) -> None:
        """Start without scores."""
        self._history = []

    def _write(self) -> None:
        assert self._config is not None  # training has begun
        chosen = self._metrics
        if chosen is None:
            names = {name for row in self._history for scores in row.values() for name in scores}
            usual = dict.fromkeys(("loss", self._config.checkpoint_metric))
            chosen = [name for name in usual if name in names]
        write_page(
            self._path,
            self._history,
            self._config,
            self._options,
            title=self._title,
            metrics=chosen,
            settings=self._settings,
        )
