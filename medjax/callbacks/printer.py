"""DefaultPrinterCallback: a progress bar for each phase and a row of metrics for each epoch."""

from __future__ import annotations

import functools
import logging
import shutil
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
from tqdm.std import tqdm

from medjax.callbacks.bars import Screen, screen_of
from medjax.callbacks.base import TrainerCallback
from medjax.callbacks.table import chosen_columns, heading, row
from medjax.config import TrainerConfig

__all__ = ["DefaultPrinterCallback", "tell_if_silent"]


class _StderrHandler(logging.StreamHandler[Any]):
    """Writes to the current `sys.stderr`, which notebooks and tests replace."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        return sys.stderr

    def emit(self, record: logging.LogRecord) -> None:
        with tqdm.external_write_mode(file=sys.stderr):  # above the bar, if there is one
            super().emit(record)


def _printed() -> logging.Logger:
    """Return the logger of the printer, which writes to standard error."""
    logger = logging.getLogger("DefaultPrinterCallback")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    if not any(isinstance(handler, _StderrHandler) for handler in logger.handlers):
        handler = _StderrHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", _TIME))
        logger.addHandler(handler)
    return logger


_TIME = "%H:%M:%S"
_TIME_WIDTH = len("12:00:00 ")


class DefaultPrinterCallback(TrainerCallback):
    """Prints a progress bar for each phase and a row of metrics for each epoch.

    Rows and messages go to the logger ``DefaultPrinterCallback``, which writes to standard error.
    The bar is drawn there too: on a terminal and in a notebook as a bar, in a file as a line now
    and then. Nothing is coloured.

    Parameters
    ----------
    max_columns : int
        Number of scores printed for a phase, and fewer if the terminal is narrower. The losses and
        the checkpoint metric come first; the others are in the history and the files of
        `MetricsWriter`.
    interval : float
        Seconds between two lines about progress, where standard error is a file.

    Examples
    --------
    >>> printer = DefaultPrinterCallback(max_columns=2)
    >>> printer.on_epoch_end({"eval": {"loss": 0.5}}, epoch=1, epoch_duration=2.0)
    """

    of_process_0 = True

    def __init__(self, max_columns: int = 6, interval: float = 30.0) -> None:
        self.logger = _printed()
        self._max_columns = max_columns
        self._interval = interval
        self._metric = ""
        self._columns: list[tuple[str, str]] = []
        self._began = time.monotonic()
        self._nb_epochs = 0
        self._screen: Screen | None = None

    @property
    def screen(self) -> Screen:
        """Where bars are shown; chosen when the first is, since standard error may be replaced."""
        if self._screen is None:
            self._screen = screen_of(self.logger.info, self._interval)
        return self._screen

    def on_wait(self, reason: str | None) -> None:
        """Show what is waited for beside the bar."""
        self.screen.wait(reason)

    def on_train_begin(self, config: TrainerConfig) -> None:
        """Print the main settings."""
        self._close()
        self._columns = []
        self._metric = config.checkpoint_metric
        self._began, self._nb_epochs = time.monotonic(), 0
        self.logger.info(
            "Running training: %d epochs, batch size %d, gradient accumulation steps %d",
            config.nb_training_epochs,
            config.batch_size,
            config.gradient_accumulation_steps,
        )

    def on_resume(
        self, checkpoint_dir: str, epoch: int, step_idx: int, nb_batches: int, nb_epochs: int
    ) -> None:
        """Print where training resumes, or that it is already complete."""
        place = f"epoch {epoch} of {nb_epochs}"
        if step_idx:
            place += f", batch {step_idx} of {nb_batches}"
        elif epoch > nb_epochs:
            place = f"already complete after {epoch - 1} epochs"
        self.logger.info("Resuming from %s, %s", checkpoint_dir, place)

    def on_train_end(self) -> None:
        """Print that training is completed."""
        seconds = time.monotonic() - self._began
        unit = "epoch" if self._nb_epochs == 1 else "epochs"
        self.screen.end(f"{self._nb_epochs} {unit} in {seconds:.1f} s")
        self._screen = None
        self.logger.info("Training is completed")

    def on_epoch_end(
        self, metrics: dict[str, dict[str, float]], epoch: int, epoch_duration: float
    ) -> None:
        """Print a row of metrics; the heading is printed first and whenever the columns change."""
        self._nb_epochs += 1
        width = shutil.get_terminal_size((100, 24)).columns - _TIME_WIDTH
        columns, nb_others = chosen_columns(
            metrics, metric=self._metric, max_columns=self._max_columns, width=width
        )
        if columns != self._columns:
            self._columns = columns
            if nb_others:
                self.logger.info(
                    "%d more metrics are in the history, and in metrics.csv if log_dir is set",
                    nb_others,
                )
            self.logger.info("%s", heading(columns))
        self.logger.info("%s", row(metrics, columns, epoch, epoch_duration))

    def on_step_begin(self, step_idx: int, nb_batches: int, phase: str) -> None:
        """Open the progress bar of the phase, and close one left by an interrupted run."""
        if self._screen is None or phase != self._screen.phase:
            self.screen.open(phase, total=nb_batches, initial=step_idx)

    def on_step_end(
        self, step_idx: int, nb_batches: int, phase: str, loss: float | None = None
    ) -> None:
        """Advance the progress bar."""
        self.screen.advance(loss)
        if step_idx + 1 == nb_batches:
            self._close()

    def on_save(self, checkpoint_dir: str) -> None:
        """Print where the checkpoint is saved."""
        self.logger.info("Saving checkpoint in %s", checkpoint_dir)

    def on_exception(self, error: BaseException) -> None:
        """Close the progress bar, so the next run can open its own."""
        del error
        self._close()
        self._screen = None

    def _close(self) -> None:
        if self._screen is not None:
            self._screen.close()


def tell_if_silent(callbacks: Sequence[Any]) -> None:
    """Tell, once for each kind of callbacks, that they take the place of the printer.

    Parameters
    ----------
    callbacks : sequence
        The user's callbacks; nothing is told if there are none, which asks for silence, or if one
        of them is a `DefaultPrinterCallback`, be it medkit's.
    """
    kinds = [type(callback) for callback in callbacks]
    names = {base.__name__ for kind in kinds for base in kind.__mro__}
    if kinds and DefaultPrinterCallback.__name__ not in names and not jax.process_index():
        _tell_once(", ".join(f"{kind.__name__}(...)" for kind in kinds))


@functools.cache
def _tell_once(calls: str) -> None:
    _printed().info(
        "The callbacks [%s] take the place of the default printer: no progress is shown. To see it "
        "as well, pass callback=[DefaultPrinterCallback(), %s]",
        calls,
        calls,
    )
