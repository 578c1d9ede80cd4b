"""Following the running steps from the host without making the device wait."""

from __future__ import annotations

import collections
import logging
import math
import time
from typing import Generic, TypeVar

import jax

from medjax.metrics.mean import Mean
from medjax.step import StepStats

logger = logging.getLogger("medjax")

Results = TypeVar("Results")

_IN_FLIGHT = 16  # steps the host may run ahead; bounds the memory of waiting batches
_INTERVAL = 0.1  # seconds between readings


class NonFiniteError(RuntimeError):
    """The loss or a gradient was not finite.

    Attributes
    ----------
    epoch, step : int
        Epoch from 1 and batch of the epoch from 0.
    learning_rate : float
        Rate in force.
    indices : list of int
        Positions of the batch's items in the dataset.
    """

    def __init__(self, epoch: int, step: int, learning_rate: float, indices: list[int]) -> None:
        super().__init__(epoch, step, learning_rate, indices)
        self.epoch = epoch
        self.step = step
        self.learning_rate = learning_rate
        self.indices = indices

    def __str__(self) -> str:
        return (
            f"the loss or a gradient is not finite in epoch {self.epoch}, batch {self.step}, at "
            f"learning rate {self.learning_rate:g}; the batch holds the items {self.indices} of "
            "the training data. The last checkpoint is finite. Look at these items, lower the "
            "learning rate, give Options(max_grad_norm=...), or Options(on_non_finite='skip')"
        )


def warn_of_skipped(nb_skipped: int, nb_batches: int, epoch: int) -> None:
    """Warn if batches of an epoch were skipped, as `Options.on_non_finite` asks for.

    Parameters
    ----------
    nb_skipped, nb_batches : int
        How many were skipped, of how many.
    epoch : int
        The epoch, from 1.
    """
    if nb_skipped:
        logger.warning(
            f"epoch {epoch}: the loss or a gradient was not finite in {nb_skipped} of {nb_batches} "
            "batches, which were skipped: nothing was learnt from their items. To find these, "
            "train with Options(on_non_finite='stop'), whose error names the items of the batch; "
            "if they are right, lower the learning rate, or give Options(max_grad_norm=...)"
        )


class InFlight(Generic[Results]):
    """Lets the host run some steps ahead of the device, and no further."""

    def __init__(self) -> None:
        self._waiting: collections.deque[Results] = collections.deque()

    def push(self, results: Results) -> Results | None:
        """Take the results of the step just dispatched; return those of a finished one."""
        self._waiting.append(results)
        if len(self._waiting) <= _IN_FLIGHT:
            return None
        done: Results = jax.block_until_ready(self._waiting.popleft())
        return done

    def drain(self) -> list[Results]:
        """Wait for the steps still running and return their results."""
        rest: list[Results] = list(jax.block_until_ready(self._waiting))
        self._waiting.clear()
        return rest


class LossSum:
    """Adds up the losses of evaluation batches on the host in float64, some steps late."""

    def __init__(self) -> None:
        self._in_flight = InFlight[Mean]()
        self._total = 0.0
        self._weight = 0.0

    def add(self, loss: Mean) -> None:
        """Take the loss of the step just dispatched."""
        done = self._in_flight.push(loss)
        if done is not None:
            self._count(done)

    def compute(self) -> float:
        """Wait for all steps and return the mean; NaN if all weights were zero."""
        for loss in self._in_flight.drain():
            self._count(loss)
        return self._total / self._weight if self._weight else math.nan

    def _count(self, loss: Mean) -> None:
        total, weight = jax.device_get((loss.total, loss.weight))
        self._total += float(total)
        self._weight += float(weight)


class StepMonitor:
    """Follows the training steps of an epoch some steps late.

    Attributes
    ----------
    loss : float or None
        Mean loss of the epoch so far, as last read.
    learning_rate : float or None
        Learning rate, as last read.
    stopped_at : int
        `TrainState.stopped_at`, as last read; -1 while training goes well.
    """

    def __init__(self) -> None:
        self.loss: float | None = None
        self.learning_rate: float | None = None
        self.stopped_at = -1
        self._in_flight = InFlight[StepStats]()
        self._next_reading = 0.0

    def follow(self, stats: StepStats) -> None:
        """Take the stats of the step just dispatched; now and then read those of an earlier one."""
        done = self._in_flight.push(stats._replace(outputs=None))
        if done is not None and time.monotonic() >= self._next_reading:
            self._next_reading = time.monotonic() + _INTERVAL
            self._read(done)

    def drain(self) -> None:
        """Wait for all steps and read the last."""
        rest = self._in_flight.drain()
        if rest:
            self._read(rest[-1])

    def _read(self, stats: StepStats) -> None:
        losses, rate, stopped_at = jax.device_get(
            (stats.losses, stats.learning_rate, stats.stopped_at)
        )
        self.loss = float(losses.compute()) if losses.weight else None
        self.learning_rate = float(rate)
        self.stopped_at = int(stopped_at)
