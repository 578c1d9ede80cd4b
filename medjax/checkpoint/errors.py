"""The exceptions that checkpoints raise."""

__all__ = ["CheckpointError", "CorruptCheckpointError", "MismatchError"]


class CheckpointError(Exception):
    """A checkpoint could not be saved or found."""


class CorruptCheckpointError(CheckpointError):
    """A checkpoint is damaged: a file is missing, truncated or altered."""


class MismatchError(CheckpointError):
    """A checkpoint is intact but belongs to a different model, optimizer, run or version.

    Parameters
    ----------
    message : str
        What differs.
    leaves : tuple of str
        Paths of the arrays that differ in the training state, if that is why.
    """

    def __init__(self, message: str, leaves: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.leaves = leaves
