"""Checkpoints: complete or absent, verified when read, the best and the last of a run kept."""

from medjax.checkpoint.errors import CheckpointError as CheckpointError
from medjax.checkpoint.errors import CorruptCheckpointError as CorruptCheckpointError
from medjax.checkpoint.errors import MismatchError as MismatchError
from medjax.checkpoint.records import best_checkpoint as best_checkpoint
from medjax.checkpoint.records import last_checkpoint as last_checkpoint
from medjax.checkpoint.retention import Entry as Entry
from medjax.checkpoint.store import CheckpointStore as CheckpointStore
