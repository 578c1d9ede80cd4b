"""The optimizer of a run: the component's own, with learning rate, clipping and weight decay."""

from medjax.optimizer.decay import decays
from medjax.optimizer.make import make_optimizer, uses_value

__all__ = ["decays", "make_optimizer", "uses_value"]
