"""Preemption: one question, "must we stop?", for signals in one process and in many."""

from __future__ import annotations

import functools
import logging
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, ParamSpec, TypeVar

import jax
from jax.experimental import multihost_utils

logger = logging.getLogger("medjax")

_P = ParamSpec("_P")
_R = TypeVar("_R")


class Stopped(KeyboardInterrupt):
    """A Ctrl-C that was answered: the run stopped where it could."""


def ends_briefly(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let an answered Ctrl-C end `function` as a plain KeyboardInterrupt, without its frames.

    Where the loop happened to stand says nothing to the user who stopped it.
    """

    @functools.wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return function(*args, **kwargs)
        except Stopped:
            raise KeyboardInterrupt from None

    return call


class Preemption:
    """Notices SIGTERM, SIGUSR1 and Ctrl-C while it is entered, so that the loop can save first.

    In one process these are Python handlers; a second Ctrl-C interrupts at once. With several
    processes JAX's own service receives SIGTERM and picks one step for all of them to stop at;
    a Python handler beside it would silence it, so none is set then.

    A signal that the process was started to ignore stays ignored: shells do so with the Ctrl-C of
    jobs in the background, which means the job in front.

    Attributes
    ----------
    signum : int or None
        The signal that was received, once `requested` has returned True.
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
            # None stands for a handler that was not set from Python and cannot be set back.
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)
        if kind is None and self.signum is not None:
            self.stop()  # it came when the run was all but over; the sender still wants an end

    def _note(self, signum: int, frame: FrameType | None) -> None:
        del frame
        if signum == signal.SIGINT and self.signum == signal.SIGINT:
            raise KeyboardInterrupt
        self.signum = signum

    def requested(self) -> bool:
        """Return whether to save and stop now; several processes must ask equally often.

        JAX lets all stop at the question after the last one that any process has asked, so they
        are numbered without a gap.
        """
        self._asked += 1
        if self._distributed and multihost_utils.reached_preemption_sync_point(self._asked):
            self.signum = signal.SIGTERM
        return self.signum is not None

    def stop(self, saved: str | None = None) -> None:
        """End the process as the signal asks: KeyboardInterrupt, or exit with 128 + its number.

        Parameters
        ----------
        saved : str, optional
            The checkpoint to go on from, which the user is told.
        """
        if saved is not None and jax.process_index() == 0:
            logger.warning("Saved %s; start again with resume='auto' to go on from there", saved)
        if self.signum == signal.SIGINT:
            raise Stopped
        raise SystemExit(128 + int(self.signum or signal.SIGTERM))
