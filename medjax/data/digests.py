"""A digest of what worker processes got, by which a change since then is noticed."""

from __future__ import annotations

import hashlib
import logging
import pickle
from typing import Any

__all__ = ["digest_of"]

logger = logging.getLogger("medjax")


def digest_of(content: Any, pickler: type[pickle.Pickler] = pickle.Pickler) -> bytes | None:
    """Return a digest of everything that pickling finds in `content`, without keeping a copy.

    Parameters
    ----------
    content : object
        What worker processes get.
    pickler : type
        How it is pickled.

    Returns
    -------
    bytes or None
        None if it can no longer be pickled; a warning says so.

    Examples
    --------
    >>> digest_of([1, 2]) == digest_of([1, 2]) != digest_of([1, 3])
    True
    """
    sink = _Hash()
    try:
        pickler(sink, protocol=5).dump(content)
    except Exception as error:
        logger.warning(
            "What the worker processes got can no longer be pickled (%s: %s), so they keep dataset "
            "and preprocessing as these were when they started. Keep what cannot be pickled "
            "outside of both, or set dataloader_nb_workers=0",
            type(error).__name__,
            error,
        )
        return None
    return sink.digest()


class _Hash:
    """A file that only remembers the hash of what is written."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)

    def write(self, content: Any) -> int:
        """Add to the hash."""
        self._hash.update(content)
        return memoryview(content).nbytes

    def digest(self) -> bytes:
        """Return the hash."""
        return self._hash.digest()
