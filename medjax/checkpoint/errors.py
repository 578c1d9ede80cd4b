"""The exceptions that checkpoints raise."""

__all__ = ["CheckpointError", "CorruptCheckpointError", "MismatchError"]


class CheckpointError(Exception):
    """A checkpoint could not be saved or found."""


class CorruptCheckpointError(CheckpointError):
    """A checkpoint is damaged: a file is missing, truncated or altered."""


class MismatchError(CheckpointError):
    """A checkpoint is intact but belongs to a different model, optimizer, run or version."""
