"""Ending together: an exception in one process ends all of them, and is told to all.

JAX would let the others wait in a collective for as long as its timeouts are, and the failed
process at its end for them.
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

from medjax.distributed.exchange import client

_FAILED, _GONE, _BEAT = "medjax/failed/", "medjax/gone/", "medjax/beat/"
# JAX raises the error of a collective as a ValueError where a compiled call meets it.
_OF_A_DEAD_PEER = (jax.errors.JaxRuntimeError, ValueError, OSError)
_LEFT = "left"  # the beat of a process that has left the block as it should
_INTERVAL = 0.5  # seconds between looks at whether another process failed
_SILENCE = 2.5  # seconds without a beat after which a process is taken for dead
_GRACE = 8.0  # seconds the others have to finish a save that they can finish
_PATIENCE = 20.0  # seconds a failed process has to unwind and to show its error
_LINGER = 10.0  # seconds process 0, which serves the others, stays for their end


class Together:
    """Ends all processes of a run when one of them fails; with one process it does nothing.

    Use it in a ``with`` statement around what all processes do together. An exception that leaves
    the block in one process is told to the others, which print it and end with code 1. The failed
    one raises it as always and ends with code 1 at the end of the program, or after 20 s. A
    SystemExit of a preemption, which all processes raise at the same step, is no failure.

    A process that was killed tells nothing. It is the survivors that meet errors then; they look
    who has gone silent, and name that one.
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
        # Who failed by itself beats on, so that the others do not take it for dead.
        message = "".join(traceback.format_exception_only(kind, error)).strip()
        silent = _silent(self._own) if isinstance(error, _OF_A_DEAD_PEER) else []
        for process, said in _failures().items():
            error.add_note(f"process {process} had failed before: {said}")
        for process in silent:
            said = "it gives no sign of life: it was killed, or its machine or network is down"
            error.add_note(f"process {process} failed: {said}")
            _tell(process, f"{said} (process {self._own} noticed)")
        if not silent:
            _tell(self._own, message)
        atexit.register(_leave, self._own)
        threading.Thread(target=_give_up, args=(error, self._own), daemon=True).start()

    def _beat(self) -> None:
        count = 0
        while True:
            ended = self._ended.wait(_INTERVAL)
            count += 1
            beat = _LEFT if ended else str(count)
            try:
                client().key_value_set(f"{_BEAT}{self._own}", beat, allow_overwrite=True)
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
                return  # this process met the failure itself and shows it
            for process, said in failures.items():
                print(f"process {process} failed, so this one ends: {said}", file=sys.stderr)
            _leave(self._own)


def _is_preemption(error: BaseException) -> bool:
    return isinstance(error, SystemExit) and error.code == 128 + signal.SIGTERM


def _failures() -> dict[int, str]:
    """Return what the processes that failed said, by process."""
    try:
        said = client().key_value_dir_get(_FAILED)
    except jax.errors.JaxRuntimeError as error:  # process 0 is gone, and the store with it
        return {0: f"it cannot be reached any more ({str(error).splitlines()[0]})"}
    return {int(key.removeprefix(_FAILED)): message for key, message in sorted(said)}


def _tell(process: int, message: str) -> None:
    """Publish that a process failed, unless process 0, which would tell it, is the one."""
    with contextlib.suppress(jax.errors.JaxRuntimeError):
        client().key_value_set(f"{_FAILED}{process}", message, allow_overwrite=True)


def _beats() -> dict[str, str]:
    return dict(client().key_value_dir_get(_BEAT))


def _silent(own: int) -> list[int]:
    """Return the processes that do not beat, though they are within the block."""
    try:
        before = _beats()
        time.sleep(_SILENCE)
        after = _beats()
    except jax.errors.JaxRuntimeError:
        return []  # process 0 is gone, which `_failures` says
    stopped = [key for key, beat in before.items() if after.get(key) == beat != _LEFT]
    return sorted({int(key.removeprefix(_BEAT)) for key in stopped} - {own})


def _give_up(error: BaseException, own: int) -> None:
    time.sleep(_PATIENCE)
    traceback.print_exception(error)
    _leave(own)


def _leave(own: int) -> None:
    """End this process at once: its orderly end would wait for processes that never come."""
    try:
        store = client()
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
