"""Ending together: an exception in one process ends all of them, and all report it.

Without this, the other processes would wait in a collective operation until JAX's timeouts, and the
failed process would wait for them when it ends.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
import time
import traceback
from types import TracebackType

import jax

from medjax.jax_internals import key_value_client

__all__ = ["Together"]

_FAILED, _GONE, _BEAT = "medjax/failed/", "medjax/gone/", "medjax/beat/"
# What a dead peer causes; a compiled call raises the error of a collective as a ValueError.
_OF_A_DEAD_PEER = (jax.errors.JaxRuntimeError, ValueError, OSError)
_LEFT = "left"  # the last beat of a process that has left the block normally
_INTERVAL = 0.5  # seconds between checks whether another process has failed
_SILENCE = 2.5  # seconds without a beat after which a process is considered dead
_GRACE = 8.0  # seconds that the others have to finish a save
_PATIENCE = 20.0  # seconds that a failed process has to unwind and show its error
_LINGER = 10.0  # seconds that process 0, which hosts the store, waits for the others to end


class Together:
    """Ends all processes of a run when one of them fails; with one process, does nothing.

    Use it in a ``with`` statement around what all processes do together. If an exception leaves
    the block in one process, the others print it and exit with code 1. The failed process raises
    it as usual and exits with code 1 at the end of the program, or after 20 s. The SystemExit of a
    preemption, which all processes raise at the same step, is not a failure.

    A killed process cannot report its failure. The survivors then get errors; they check which
    process has gone silent, and name it.

    Examples
    --------
    >>> with Together():
    ...     pass  # train
    """

    def __init__(self) -> None:
        self._active = jax.process_count() > 1
        self._own = jax.process_index() if self._active else 0
        self._left = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="medjax-together", daemon=True)
        self._ended = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="medjax-beat", daemon=True)

    def __enter__(self) -> Together:
        if self._active:
            self._watcher.start()
            self._heart.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._active:
            return
        self._left.set()
        self._watcher.join()
        if error is None or _is_preemption(error):
            self._ended.set()
            self._heart.join()
            return
        # A process that failed keeps beating, so the others do not consider it dead.
        message = "".join(traceback.format_exception_only(kind, error)).strip()
        silent = _silent(self._own) if isinstance(error, _OF_A_DEAD_PEER) else []
        for process, reason in _failures().items():
            error.add_note(f"process {process} had failed before: {reason}")
        for process in silent:
            reason = "it gives no sign of life: it was killed, or its machine or network is down"
            error.add_note(f"process {process} failed: {reason}")
            _report(process, f"{reason} (noticed by process {self._own})")
        if not silent:
            _report(self._own, message)
        atexit.register(_leave, self._own)
        threading.Thread(target=_give_up, args=(error, self._own), daemon=True).start()

    def _beat(self) -> None:
        count = 0
        while True:
            ended = self._ended.wait(_INTERVAL)
            count += 1
            beat = _LEFT if ended else str(count)
            try:
                key_value_client().key_value_set(f"{_BEAT}{self._own}", beat, allow_overwrite=True)
            except jax.errors.JaxRuntimeError:
                return  # process 0 is gone
            if ended:
                return

    def _watch(self) -> None:
        while not self._left.wait(_INTERVAL):
            failures = _failures()
            if not failures:
                continue
            if self._left.wait(_GRACE):
                return  # this process got an error itself and shows it
            for process, reason in failures.items():
                print(f"process {process} failed, so this one ends: {reason}", file=sys.stderr)
            _leave(self._own)


def _is_preemption(error: BaseException) -> bool:
    return isinstance(error, SystemExit) and error.code == 128 + signal.SIGTERM


def _failures() -> dict[int, str]:
    """Return why processes have failed, by process."""
    try:
        reports = key_value_client().key_value_dir_get(_FAILED)
    except jax.errors.JaxRuntimeError as error:  # process 0 is gone, and the store with it
        return {0: f"it can no longer be reached ({str(error).splitlines()[0]})"}
    return {int(key.removeprefix(_FAILED)): message for key, message in sorted(reports)}


def _report(process: int, message: str) -> None:
    """Publish that a process failed, unless it is process 0, which hosts the store."""
    with contextlib.suppress(jax.errors.JaxRuntimeError):
        key_value_client().key_value_set(f"{_FAILED}{process}", message, allow_overwrite=True)


def _beats() -> dict[str, str]:
    return dict(key_value_client().key_value_dir_get(_BEAT))


def _silent(own: int) -> list[int]:
    """Return the processes that have stopped beating within the block."""
    try:
        before = _beats()
        time.sleep(_SILENCE)
        after = _beats()
    except jax.errors.JaxRuntimeError:
        return []  # process 0 is gone, which `_failures` reports
    stopped = [key for key, beat in before.items() if after.get(key) == beat != _LEFT]
    return sorted({int(key.removeprefix(_BEAT)) for key in stopped} - {own})


def _give_up(error: BaseException, own: int) -> None:
    time.sleep(_PATIENCE)
    traceback.print_exception(error)
    _leave(own)


def _leave(own: int) -> None:
    """End this process at once: a normal exit would wait for processes that are gone."""
    try:
        store = key_value_client()
        store.key_value_set(f"{_GONE}{own}", "", allow_overwrite=True)
        deadline = time.monotonic() + (_LINGER if own == 0 else 0.0)
        while time.monotonic() < deadline and (
            len(store.key_value_dir_get(_GONE)) < jax.process_count()
        ):
            time.sleep(_INTERVAL / 5)
    except jax.errors.JaxRuntimeError:
        pass  # process 0 is gone
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
