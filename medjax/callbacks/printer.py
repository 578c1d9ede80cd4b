"""DefaultPrinterCallback: a progress bar for each phase and a row of metrics for each epoch."""

from __future__ import annotations

import logging
import sys
from typing import Any

from tqdm.auto import tqdm

from medjax.callbacks.base import TrainerCallback
from medjax.config import TrainerConfig

__all__ = ["DefaultPrinterCallback"]


class _StderrHandler(logging.StreamHandler[Any]):
    """Writes to the current `sys.stderr`, which notebooks and tests replace."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        return sys.stderr


class DefaultPrinterCallback(TrainerCallback):
    """Prints a progress bar for each phase and a row of metrics for each epoch.

    Rows and messages go to the logger ``DefaultPrinterCallback``, the bar to standard error.

    Parameters
    ----------
    max_columns : int
        Number of scores printed for a phase; the others are in the history and the files of
        `MetricsWriter`.

    Examples
    --------
    >>> printer = DefaultPrinterCallback(max_columns=2)
    >>> printer.on_epoch_end({"eval": {"loss": 0.5}}, epoch=1, epoch_duration=2.0)
    """

    of_process_0 = True

    def __init__(self, max_columns: int = 6) -> None:
        self.logger = logging.getLogger("DefaultPrinterCallback")
        self.logger.setLevel(logging.INFO)
        self.logger.propagate = False
        if not any(isinstance(handler, _StderrHandler) for handler in self.logger.handlers):
            handler = _StderrHandler()
            handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
            self.logger.addHandler(handler)
        self._max_columns = max_columns
        self._columns: list[tuple[str, str]] = []
        self._progress_bar: Any = None
        self._phase = ""

    def on_train_begin(self, config: TrainerConfig) -> None:
        """Print the main settings."""
        self._close()
        self._columns = []
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
        self._close()
        self.logger.info("Training is completed")

    def on_epoch_end(
        self, metrics: dict[str, dict[str, float]], epoch: int, epoch_duration: float
    ) -> None:
        """Print a row of metrics; the heading is printed first and whenever the columns change."""
        columns = [
            (phase, name)
            for phase, scores in metrics.items()
            for name in list(scores)[: self._max_columns]
        ]
        names = [f"{phase} {name}" for phase, name in columns]
        if columns != self._columns:
            self._columns = columns
            self.logger.info("%s", "  ".join(["epoch", " seconds", *names]))
        cells = [
            _cell(metrics[phase][name], len(title))
            for (phase, name), title in zip(columns, names, strict=True)
        ]
        self.logger.info("%s", "  ".join([f"{epoch:5d}", f"{epoch_duration:8.1f}", *cells]))

    def on_step_begin(self, step_idx: int, nb_batches: int, phase: str) -> None:
        """Open the progress bar of the phase, and close one left by an interrupted run."""
        if self._progress_bar is None or phase != self._phase:
            self._close()
            self._phase = phase
            self._progress_bar = tqdm(
                total=nb_batches,
                initial=step_idx,
                desc=phase,
                unit="batch",
                leave=False,
                dynamic_ncols=True,
            )

    def on_step_end(
        self, step_idx: int, nb_batches: int, phase: str, loss: float | None = None
    ) -> None:
        """Advance the progress bar."""
        bar = self._progress_bar
        if loss is not None:
            bar.set_postfix_str(f"loss {loss:.4g}", refresh=False)
        bar.update()
        if step_idx + 1 == nb_batches:
            self._close()

    def on_save(self, checkpoint_dir: str) -> None:
        """Print where the checkpoint is saved."""
        self.logger.info("Saving checkpoint in %s", checkpoint_dir)

    def on_exception(self, error: BaseException) -> None:
        """Close the progress bar, so the next run can open its own."""
        del error
        self._close()

    def _close(self) -> None:
        if self._progress_bar is not None:
            self._progress_bar.close()
            self._progress_bar = None


def _cell(value: Any, width: int) -> str:
    text = f"{value:.4g}" if isinstance(value, int | float) else str(value)
    return text.rjust(width)
