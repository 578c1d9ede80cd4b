"""The optimizer of a run: the component's own, with the rate, clipping and decay around it."""

from medjax.optimizer.decay import decays as decays
from medjax.optimizer.make import make_optimizer as make_optimizer
from medjax.optimizer.make import uses_value as uses_value
