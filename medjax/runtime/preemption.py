"""Preemption: whether a signal asks the run to stop, in one process and in many."""

from __future__ import annotations

import functools
import logging
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, ParamSpec, TypeVar

import jax

from medjax.jax_internals import multihost_utils

logger = logging.getLogger("medjax")

__all__ = ["Preemption", "Stopped", "ends_briefly"]

_P = ParamSpec("_P")
_R = TypeVar("_R")


class Stopped(KeyboardInterrupt):
    """A Ctrl-C that was handled: the run stopped at a point where it could be saved."""


def ends_briefly(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Make `function` raise a plain KeyboardInterrupt, without its frames, for a handled Ctrl-C.

    The place in the loop where the run stopped means nothing to the user who stopped it.

    Examples
    --------
    >>> @ends_briefly
    ... def train():
    ...     return "trained"
    >>> train()
    'trained'
    """

    @functools.wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return function(*args, **kwargs)
        except Stopped:
            raise KeyboardInterrupt from None

    return call


class Preemption:
    """Records SIGTERM, SIGUSR1 and Ctrl-C within a ``with`` block, so the loop can save first.

    With one process, Python handlers do this; a second Ctrl-C interrupts immediately. With several
    processes, JAX's own service receives SIGTERM and chooses a step at which all of them stop. A
    Python handler would replace that of the service, so none is set.

    A signal that the process was started to ignore stays ignored: shells start background jobs
    that way, since a Ctrl-C is meant for the job in the foreground.

    Attributes
    ----------
    signum : int or None
        The signal that was received, once `requested` has returned True.

    Examples
    --------
    >>> with Preemption() as preemption:
    ...     preemption.requested()
    False
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self._asked = 0
        self._distributed = jax.process_count() > 1
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Preemption:
        if not self._distributed and threading.current_thread() is threading.main_thread():
            names = ("SIGTERM", "SIGUSR1", "SIGINT")
            for signum in (getattr(signal, name) for name in names if hasattr(signal, name)):
                if signal.getsignal(signum) != signal.SIG_IGN:
                    self._previous[signum] = signal.signal(signum, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for signum, handler in self._previous.items():
            # None means a handler that was not set from Python, which cannot be restored.
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)
        if kind is None and self.signum is not None:
            self.stop()  # it came when the run was almost over; the process must still end

    def _note(self, signum: int, frame: FrameType | None) -> None:
        del frame
        if signum == signal.SIGINT and self.signum == signal.SIGINT:
            raise KeyboardInterrupt
        self.signum = signum

    def requested(self) -> bool:
        """Return whether to save and stop; several processes must call this equally often.

        JAX makes all processes stop at the same call, the first that none of them has made yet, so
        the calls are numbered consecutively.
        """
        self._asked += 1
        if self._distributed and multihost_utils.reached_preemption_sync_point(self._asked):
            self.signum = signal.SIGTERM
        return self.signum is not None

    def stop(self, saved: str | None = None) -> None:
        """Raise KeyboardInterrupt for Ctrl-C, or exit with 128 + the number of the signal.

        Parameters
        ----------
        saved : str, optional
            The checkpoint to resume from, which a message names.
        """
        if saved is not None and jax.process_index() == 0:
            logger.warning("Saved %s; start again with resume='auto' to resume from it", saved)
        if self.signum == signal.SIGINT:
            raise Stopped
        raise SystemExit(128 + int(self.signum or signal.SIGTERM))
