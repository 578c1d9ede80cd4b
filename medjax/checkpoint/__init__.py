"""Checkpoints: complete or absent, verified on read; the best and the last of a run are kept."""

from medjax.checkpoint.errors import CheckpointError, CorruptCheckpointError, MismatchError
from medjax.checkpoint.records import best_checkpoint, last_checkpoint
from medjax.checkpoint.retention import CheckpointEntry
from medjax.checkpoint.store import CheckpointStore

__all__ = [
    "CheckpointEntry",
    "CheckpointError",
    "CheckpointStore",
    "CorruptCheckpointError",
    "MismatchError",
    "best_checkpoint",
    "last_checkpoint",
]
