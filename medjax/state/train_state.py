"""TrainState: everything that a training step changes, as one pytree."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct
from flax.training import train_state

from medjax.component import Variables
from medjax.metrics.mean import Mean

__all__ = ["EpochLoss", "TrainState", "Waiting"]


class Waiting(NamedTuple):
    """Sums over the batches that wait for an update.

    Attributes
    ----------
    gradients : pytree
        Like the parameters.
    loss : jax.Array or None
        Sum of the losses that the gradients are of, float32, shape (), where the optimizer depends
        on it.
    """

    gradients: optax.Updates
    loss: jax.Array | None

    @property
    def stored(self) -> Waiting | optax.Updates:
        """The sums as a state stores them: the gradients alone if there is no loss."""
        return self.gradients if self.loss is None else self


@struct.dataclass
class EpochLoss(Mean):
    """The training loss of an epoch with the number of its updates, so what they weigh is known.

    A state whose `TrainState.losses` is an `EpochLoss` is trained as batches grouped by length need
    it; see `make_train_step`.

    Attributes
    ----------
    nb_updates : jax.Array
        Number of updates in the epoch so far, int32, shape ().
    before : Mean
        Mean weight of the updates of the epoch before; without one, a mean of nothing.

    Examples
    --------
    >>> loss = EpochLoss.empty().merge(Mean(jnp.float32(3.0), jnp.float32(6.0))).after_update()
    >>> float(loss.compute()), float(loss.update_weight), int(loss.nb_updates)
    (0.5, 6.0, 1)
    >>> loss = loss.next_epoch().merge(Mean(jnp.float32(1.0), jnp.float32(2.0))).after_update()
    >>> float(loss.compute()), float(loss.update_weight), int(loss.nb_updates)
    (0.5, 4.0, 1)
    """

    nb_updates: jax.Array = dataclasses.field(default_factory=lambda: jnp.zeros((), jnp.int32))
    before: Mean = dataclasses.field(default_factory=Mean.empty)

    def after_update(self) -> EpochLoss:
        """Return the loss with one more update, of the batches that were merged since the last."""
        return dataclasses.replace(self, nb_updates=self.nb_updates + 1)

    @property
    def update_weight(self) -> jax.Array:
        """Mean weight of an update in this epoch and the one before, float32, shape ()."""
        return (self.before.total + self.weight) / (self.before.weight + self.nb_updates)

    def next_epoch(self) -> EpochLoss:
        """Return the loss of an epoch that follows on this one."""
        nb_updates = jnp.asarray(self.nb_updates, jnp.float32)
        return dataclasses.replace(EpochLoss.empty(), before=Mean(self.weight, nb_updates))


class TrainState(train_state.TrainState):
    """Extends Flax's TrainState by what exact resumption needs.

    `step` counts updates, `batch_step` the batches trained on; with gradient accumulation the
    second is larger. Every random number is derived from `key` and `batch_step`.

    The static fields `apply_fn` and `tx` are stand-ins that do not own their functions. The
    state that `create_state` or `train` returns keeps the functions alive; a state that came out of
    a transformation of JAX relies on the component, which keeps the optimizers of its states.

    Attributes
    ----------
    collections : dict
        Variables that are not trained, e.g. ``batch_stats``.
    key : jax.Array
        Root of the dropout keys, typed, shape ().
    learning_rate : jax.Array
        Rate that the host sets between epochs, float32, shape ().
    batch_step : jax.Array
        Batches trained on, int32, shape ().
    gradients : pytree, Waiting or None
        Sum of the gradients waiting for an update, with the sum of their losses for an optimizer
        that depends on it; None without accumulation.
    gradient_weight : jax.Array
        Divisor of `gradients`, float32, shape ().
    pending : jax.Array
        Number of batches in `gradients`, int32, shape ().
    losses : Mean
        Training loss of the epoch so far; an `EpochLoss` where batches are grouped by length.
    skipped : jax.Array
        Number of batches left out because they were not finite, int32, shape ().
    skipped_in_row : jax.Array
        Number of them since the last finite batch, int32, shape ().
    stopped_at : jax.Array
        `batch_step` + `skipped` of the batch that exceeded `max_skipped`, after which the state no
        longer changes, or -1. int32, shape ().
    """

    collections: Variables
    key: jax.Array
    learning_rate: jax.Array
    batch_step: jax.Array
    gradients: Waiting | optax.Updates | None
    gradient_weight: jax.Array
    pending: jax.Array
    losses: Mean
    skipped: jax.Array
    skipped_in_row: jax.Array
    stopped_at: jax.Array

    @property
    def variables(self) -> Variables:
        """All variable collections, as `TrainableComponent.forward` takes them."""
        return {"params": self.params, **self.collections}

    @property
    def owners(self) -> tuple[object, ...]:
        """The objects that this state keeps alive besides its arrays."""
        return getattr(self, "_owners", ())

    def owning(self, *owners: object) -> TrainState:
        """Keep `owners`, the functions behind the stand-ins, alive with this state; return it."""
        object.__setattr__(self, "_owners", owners)  # no field: JAX does not see it
        return self


def _replace(state: TrainState, **updates: Any) -> TrainState:
    """Replace fields of a state; the new one keeps alive what `state` does."""
    return dataclasses.replace(state, **updates).owning(*state.owners)


TrainState.replace = _replace  # type: ignore[assignment, method-assign]  # Flax sets its own
