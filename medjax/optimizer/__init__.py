"""The optimizer of a run: the component's own, with learning rate, clipping and weight decay."""

from medjax.optimizer.decay import decays
from medjax.optimizer.hyperparameters import configured_hyperparameters, with_hyperparameters
from medjax.optimizer.make import make_optimizer, updates_nothing, uses_value
from medjax.optimizer.norm import global_norm

__all__ = [
    "configured_hyperparameters",
    "decays",
    "global_norm",
    "make_optimizer",
    "updates_nothing",
    "uses_value",
    "with_hyperparameters",
]
