"""What a training step changes, and how it is made."""

from medjax.state.creation import (
    abstract_state,
    create_state,
    create_state_on,
    dropout_key,
    make_optimizer,
    none_waiting,
)
from medjax.state.train_state import EpochLoss, TrainState, Waiting

__all__ = [
    "EpochLoss",
    "TrainState",
    "Waiting",
    "abstract_state",
    "create_state",
    "create_state_on",
    "dropout_key",
    "make_optimizer",
    "none_waiting",
]
