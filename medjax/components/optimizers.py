"""The optimizer of ready-made components."""

from __future__ import annotations

from collections.abc import Callable

import optax

__all__ = ["Optimizer", "adamw"]

Optimizer = Callable[[optax.ScalarOrSchedule], optax.GradientTransformation]
"""Returns an optax transformation for a learning rate."""


def adamw(learning_rate: optax.ScalarOrSchedule) -> optax.GradientTransformation:
    """Return AdamW with the defaults of ``torch.optim.AdamW``, medkit's optimizer.

    Parameters
    ----------
    learning_rate : float or optax schedule
        The learning rate.
    """
    return optax.adamw(learning_rate, b1=0.9, b2=0.999, eps=1e-8, weight_decay=1e-2)
