"""Plan: how far a run goes."""

from __future__ import annotations

from typing import NamedTuple

from medjax.checkpoint.progress import Progress
from medjax.config import Options, TrainerConfig
from medjax.state import TrainState


class Start(NamedTuple):
    """Where a run begins.

    Attributes
    ----------
    epoch, batch : int
        Its position: epoch from 1, batches of it that are done.
    updates : int
        Number of updates that were due in the epochs before.
    """

    epoch: int = 1
    batch: int = 0
    updates: int = 0

    @classmethod
    def of(
        cls, state: TrainState, progress: Progress, nb_batches: int, config: TrainerConfig
    ) -> Start:
        """Return where a run with this state and progress begins, in epochs of `nb_batches`."""
        updates = progress.updates
        if updates is None:
            updates = int(state.step) - _nb_due(progress.batch, nb_batches, config)
        return cls(progress.epoch, progress.batch, updates)


def nb_updates_of(nb_batches: int, config: TrainerConfig) -> int:
    """Return the number of updates in an epoch of `nb_batches` batches.

    Examples
    --------
    >>> nb_updates_of(5, TrainerConfig("runs/example", gradient_accumulation_steps=2))
    3
    """
    return -(-nb_batches // config.gradient_accumulation_steps)


def _nb_due(batch: int, nb_batches: int, config: TrainerConfig) -> int:
    """Return the number of updates that were due in the first batches of an epoch."""
    if batch == nb_batches:
        return nb_updates_of(nb_batches, config)
    return batch // config.gradient_accumulation_steps


class Plan(NamedTuple):
    """Says how far a run goes.

    Attributes
    ----------
    nb_epochs : int
        Number of epochs, the last of which may be cut short.
    nb_updates : int
        Number of updates of the optimizer in the run, those before a resume included.
    last_stop : int
        Number of batches of the last epoch.
    """

    nb_epochs: int
    nb_updates: int
    last_stop: int

    @classmethod
    def of(
        cls, nb_batches: int, config: TrainerConfig, options: Options, start: Start | None = None
    ) -> Plan:
        """Make the plan for epochs of `nb_batches` batches.

        Parameters
        ----------
        nb_batches : int
            Batches of an entire epoch. Epochs before the start may have had more or fewer.
        config, options
            Say how many epochs and updates are wanted.
        start : Start, optional
            Where the run begins, by default at its first batch.
        """
        epoch, batch, before = start or Start()
        accumulation = config.gradient_accumulation_steps
        per_epoch = nb_updates_of(nb_batches, config)
        # Counted from the beginning of the epoch in which the run begins.
        wanted = per_epoch * (config.nb_training_epochs - epoch + 1)
        if options.max_steps is not None:
            wanted = min(
                wanted, max(options.max_steps - before, _nb_due(batch, nb_batches, config))
            )
        nb_more = -(-wanted // per_epoch)
        if batch and epoch <= config.nb_training_epochs:
            nb_more = max(nb_more, 1)  # what was begun is evaluated and saved
        in_last = wanted - (nb_more - 1) * per_epoch
        last_stop = min(in_last * accumulation, nb_batches)
        if nb_more == 1:
            last_stop = max(last_stop, batch)
        return cls(epoch - 1 + nb_more, before + max(wanted, 0), last_stop)

    def nb_saves(
        self, nb_batches: int, config: TrainerConfig, options: Options, *, epoch: int, batch: int
    ) -> int:
        """Count the checkpoints that are still to be saved.

        Parameters
        ----------
        nb_batches : int
            Batches of an entire epoch.
        config, options
            Say when a checkpoint is saved.
        epoch, batch : int
            Position of the run: epoch from 1, batches of it that are done.
        """
        epochs = range(epoch, self.nb_epochs + 1)
        period = config.checkpoint_period
        between = sum(e == self.nb_epochs or (period != 0 and e % period == 0) for e in epochs)
        interval = options.save_interval_steps
        if interval is None or not epochs:
            return between
        stops = [self.last_stop if e == self.nb_epochs else nb_batches for e in epochs]
        within = [(stop - 1) // interval for stop in stops]
        return between + max(within[0] - batch // interval, 0) + sum(within[1:])
