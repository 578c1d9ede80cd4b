"""Writing metrics to files: CSV, JSON lines and TensorBoard events."""

from __future__ import annotations

import csv
import functools
import io
import json
import os
from pathlib import Path
from typing import Any

from medjax.callbacks.base import TrainerCallback

__all__ = ["MetricsWriter", "TensorBoardWriter", "plain", "replace_text"]

_Row = dict[str, Any]


class MetricsWriter(TrainerCallback):
    """Writes one row for each epoch to ``metrics.csv`` and ``metrics.jsonl``.

    Each file is replaced atomically, so it is complete at any time. A resumed run continues after
    the rows of its checkpoint.

    Parameters
    ----------
    log_dir : str or Path
        Folder of the files; created if missing.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     writer = MetricsWriter(folder)
    ...     writer.on_epoch_end({"train": {"loss": 0.5}}, epoch=1, epoch_duration=2.0)
    ...     print(Path(folder, "metrics.csv").read_text())
    epoch,seconds,train/loss
    1,2.0,0.5
    <BLANKLINE>
    """

    of_process_0 = True

    def __init__(self, log_dir: str | Path) -> None:
        self.log_dir = Path(log_dir)
        self._rows: list[_Row] = []

    def on_epoch_end(
        self, metrics: dict[str, dict[str, float]], epoch: int, epoch_duration: float
    ) -> None:
        """Add the row of the epoch."""
        row: _Row = {"epoch": epoch, "seconds": round(epoch_duration, 3)}
        row |= {
            f"{phase}/{name}": plain(value)
            for phase, scores in metrics.items()
            for name, value in scores.items()
        }
        self._rows.append(row)
        self.log_dir.mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(each) + "\n" for each in self._rows)
        replace_text(self.log_dir / "metrics.jsonl", lines)
        replace_text(self.log_dir / "metrics.csv", _as_csv(self._rows))

    def state_dict(self) -> dict[str, Any]:
        """Return the rows so far."""
        return {"rows": self._rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the rows."""
        self._rows = list(state["rows"])

    def forget(self) -> None:
        """Start without rows."""
        self._rows = []


def plain(value: Any) -> float | str:
    """Return a metric as a float, or as a string if it is not a number."""
    try:
        return float(value)
    except (TypeError, ValueError, ArithmeticError, RuntimeError):  # torch raises the last
        return str(value)


def _as_csv(rows: list[_Row]) -> str:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def replace_text(path: Path, text: str) -> None:
    """Write a file so that it is complete at any time."""
    staging = path.with_name(f".{path.name}.new")
    staging.write_text(text, encoding="utf-8")
    os.replace(staging, path)


class TensorBoardWriter(TrainerCallback):
    """Writes the metrics of each epoch as TensorBoard scalars, using ``tensorboardX``.

    Where a run is resumed, TensorBoard hides what was written of epochs that are trained again.

    Parameters
    ----------
    log_dir : str or Path
        Folder of the event files.

    Raises
    ------
    ImportError
        If ``tensorboardX`` is not installed.

    Examples
    --------
    >>> callback = TensorBoardWriter("runs/ner/tensorboard")  # doctest: +SKIP
    """

    of_process_0 = True

    def __init__(self, log_dir: str | Path) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            msg = "TensorBoardWriter needs tensorboardX: pip install 'medjax[tensorboard]'"
            raise ImportError(msg) from error
        self._make = functools.partial(SummaryWriter, str(log_dir))
        self._writer: Any = None  # opened at the first event: some processes get no events

    def on_resume(
        self, checkpoint_dir: str, epoch: int, step_idx: int, nb_batches: int, nb_epochs: int
    ) -> None:
        """Begin a file whose first record tells TensorBoard to forget this epoch and later ones."""
        del checkpoint_dir, step_idx, nb_batches, nb_epochs
        # A file is named after the second in which it is begun, and replaces one of the same name.
        self._writer = self._make(purge_step=epoch, filename_suffix=f".{epoch}")

    def on_epoch_end(
        self, metrics: dict[str, dict[str, float]], epoch: int, epoch_duration: float
    ) -> None:
        """Write the scalars of the epoch."""
        self._writer = self._writer or self._make()
        for phase, scores in metrics.items():
            for name, value in scores.items():
                number = plain(value)
                if isinstance(number, float):
                    self._writer.add_scalar(f"{phase}/{name}", number, epoch)
        self._writer.add_scalar("seconds", epoch_duration, epoch)
        self._writer.flush()

    def on_train_end(self) -> None:
        """Close the file; until then tensorboardX may hold back what was written last."""
        self._close()

    def on_exception(self, error: BaseException) -> None:
        """Close the file."""
        del error
        self._close()

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
