"""Plan: how far a run goes."""

from __future__ import annotations

from typing import NamedTuple

from medjax.config import Options, TrainerConfig


class Plan(NamedTuple):
    """Says how far a run goes.

    Attributes
    ----------
    nb_epochs : int
        Number of epochs, the last of which may be cut short.
    nb_updates : int
        Number of updates of the optimizer in the run.
    last_stop : int
        Number of batches of the last epoch.
    """

    nb_epochs: int
    nb_updates: int
    last_stop: int

    @classmethod
    def of(cls, nb_batches: int, config: TrainerConfig, options: Options) -> Plan:
        """Make the plan for epochs of `nb_batches` batches."""
        accumulation = config.gradient_accumulation_steps
        per_epoch = -(-nb_batches // accumulation)
        nb_updates = per_epoch * config.nb_training_epochs
        if options.max_steps is not None:
            nb_updates = min(nb_updates, options.max_steps)
        nb_epochs = -(-nb_updates // per_epoch)
        in_last = nb_updates - (nb_epochs - 1) * per_epoch
        return cls(nb_epochs, nb_updates, min(in_last * accumulation, nb_batches))

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
        return between + sum((stop - 1) // interval for stop in stops) - batch // interval
