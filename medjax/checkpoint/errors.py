"""What can be wrong with a checkpoint, as exceptions."""


class CheckpointError(Exception):
    """A checkpoint could not be saved or found."""


class CorruptCheckpointError(CheckpointError):
    """A checkpoint is damaged: a file is missing, cut short or altered."""


class MismatchError(CheckpointError):
    """A checkpoint is sound but belongs to another model, optimizer, run or version."""
