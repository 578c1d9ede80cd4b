"""Outside: what the programs of a run read besides their arguments, followed while it goes on."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator

from medjax import distributed

__all__ = ["Outside"]

logger = logging.getLogger("medjax")


class Outside:
    """Tells when values that programs were traced with have changed.

    Parameters
    ----------
    read : callable
        Returns the values, compared by equality.

    Examples
    --------
    >>> weight = [0.0]
    >>> outside = Outside(lambda: list(weight))
    >>> weight[0] = 1.0
    >>> outside.has_changed(), outside.has_changed()
    (True, False)
    """

    def __init__(self, read: Callable[[], object]) -> None:
        self._read = read
        self._known = read()
        self._is_told = False

    def has_changed(self) -> bool:
        """Return whether the values differ from those of the last call.

        Raises
        ------
        RuntimeError
            If they have changed in some processes only.
        """
        before, self._known = self._known, self._read()
        found = distributed.exchange("changed" if before != self._known else "")
        if len(set(found)) > 1:
            names = [number for number, each in enumerate(found) if each]
            msg = (
                "a value that the component's forward, configure_optimizer or schedule reads from "
                f"outside has changed in the processes {names} of {len(found)} only; change it in "
                "all of them alike, or pass it through a collection of the variables or a schedule"
            )
            raise RuntimeError(msg)
        return bool(found[0])

    @contextlib.contextmanager
    def tracing(self) -> Iterator[None]:
        """Take for known what changes in the block, such as a table that forward keeps."""
        before = self._read()
        yield
        if before == self._known:
            self._known = self._read()

    def warn(self, phase: str) -> None:
        """Say once that values have changed within a phase."""
        if not self._is_told:
            self._is_told = True
            logger.warning(
                "a value that the component's forward, configure_optimizer or schedule reads from "
                f"outside changed within {phase}: programs that were compiled before it go on with "
                "the value that they had, and all have the new one from the next phase on. Change "
                "it in on_epoch_begin or on_epoch_end, or pass it through a collection of the "
                "variables or a schedule; else a resumed run may give other numbers"
            )
