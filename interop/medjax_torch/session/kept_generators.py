"""Keeps the states of random generators that the data draws from, from one run to the next.

The order of our loaders and the draws of ``rng=`` are functions of seed and epoch. A user's own
sampler, or a dataset that draws from torch's global generator, would draw again in a resumed run
what it has drawn in the first epoch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import jax
from torch.utils.data import DataLoader

from medjax.callbacks import TrainerCallback
from medjax.checkpoint import CheckpointError
from medjax_torch.batches import generators_of, restore, states_of

logger = logging.getLogger("medjax")

_States = dict[str, Any]


class KeptGenerators(TrainerCallback):
    """Saves the states of generators, and restores them when a run goes on.

    It is behind the user's callbacks, so that what these draw is part of the states.

    Parameters
    ----------
    *loaders : torch.utils.data.DataLoader
        Those of training and evaluation.
    """

    def __init__(self, *loaders: DataLoader[Any]) -> None:
        self._loaders = loaders
        self._seed: int | None = None
        self._saved: _States = {}
        self._began: _States | None = None  # before the first batch of the epoch
        self._is_within_epoch = False
        self._is_due = False

    def on_train_begin(self, config: Any) -> None:
        """Remember the seed; with another one, the states of the checkpoint do not apply."""
        self._seed = config.seed
        if self._saved and self._saved.get("seed") != self._seed:
            self._saved = {}

    def on_resume(
        self, checkpoint_dir: str, epoch: int, step_idx: int, nb_batches: int, nb_epochs: int
    ) -> None:
        """Restore the states at the beginning of an epoch."""
        del checkpoint_dir, epoch, nb_batches, nb_epochs
        self._is_within_epoch = step_idx > 0
        if self._saved and not self._is_within_epoch:
            self._set(self._saved["now"])

    def on_epoch_begin(self, epoch: int) -> None:
        """Restore the states within an epoch, which callbacks have now begun a second time."""
        del epoch
        self._is_due = not self._is_within_epoch
        if self._saved and self._is_within_epoch:
            self._began = self._saved.get("began")
            self._set(self._saved["now"])
        self._is_within_epoch = False

    def on_step_begin(self, step_idx: int, nb_batches: int, phase: str) -> None:
        """Note the states before the first batch of an epoch."""
        del step_idx, nb_batches
        if self._is_due and phase == "train":
            self._is_due = False
            self._began = self._states()

    def on_epoch_end(self, metrics: Any, epoch: int, epoch_duration: float) -> None:
        """Forget the states at the beginning of the epoch."""
        del metrics, epoch, epoch_duration
        self._began = None

    def rewound(self) -> Callable[[], None]:
        """Set the states of the beginning of the epoch, and return what sets the current ones.

        Batches in between are read again before a run goes on within an epoch.
        """
        now = self._states()
        if self._began is not None:
            self._set(self._began)
        return lambda: self._set(now)

    def state_dict(self) -> dict[str, Any]:
        """Return the states of the generators and the seed that they began with."""
        began = {} if self._began is None else {"began": self._began}
        return {"seed": self._seed, "now": self._states(), **began}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Store what `state_dict` returned; it is restored when training begins.

        Raises
        ------
        CheckpointError
            If it is damaged.
        """
        states = (state.get("now"), state.get("began", {})) if isinstance(state, dict) else ()
        if not states or not all(isinstance(each, dict) for each in states):
            raise CheckpointError(
                "the states of the random generators in the checkpoint are damaged; expected one "
                "for each generator. Resume from another checkpoint"
            )
        self._saved = state

    def _states(self) -> _States:
        return states_of(generators_of(*self._loaders))

    def _set(self, states: _States) -> None:
        try:
            missing = restore(generators_of(*self._loaders), states)
        except ValueError as error:
            raise CheckpointError(str(error)) from error
        if missing and jax.process_index() == 0:
            logger.warning(
                "Resuming: the checkpoint has the state of the random generator %s, which data and "
                "component no longer have; it is dropped",
                ", ".join(missing),
            )
