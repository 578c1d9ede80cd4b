"""Exchange of values between all processes, through JAX's key-value store.

No device is involved, so a thread can publish and fetch while steps are running, and a missing
process is named in an error instead of being waited for forever.
"""

from __future__ import annotations

import itertools
import threading
import time

import jax

from medjax.jax_internals import key_value_client

__all__ = ["exchange", "fetch", "first_of", "publish", "retract"]

_PATIENCE = 1200.0  # seconds; Orbax waits as long for a process that writes slowly
_POLL_MS = 500  # milliseconds between checks whether the wait was cancelled

_numbers = itertools.count()


def publish(key: str, value: str) -> None:
    """Publish a value of this process for the others to fetch; it may be published again."""
    key_value_client().key_value_set(_path(key, jax.process_index()), value, allow_overwrite=True)


def retract(key: str) -> None:
    """Delete a value that this process published; no process may fetch it afterwards."""
    key_value_client().key_value_delete(_path(key, jax.process_index()))


def fetch(key: str, process: int, cancelled: threading.Event | None = None) -> str:
    """Wait for a value that a process publishes, and return it.

    Parameters
    ----------
    key : str
        Name of the value.
    process : int
        Index of the process that publishes it.
    cancelled : threading.Event, optional
        Ends the wait when it is set.

    Raises
    ------
    TimeoutError
        If the value is not published within 20 minutes, or the wait was cancelled.
    """
    store, deadline = key_value_client(), time.monotonic() + _PATIENCE
    while True:
        try:
            return str(store.blocking_key_value_get(_path(key, process), _POLL_MS))
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise
        if cancelled is not None and cancelled.is_set():
            raise TimeoutError(f"the wait for {key} of process {process} was cancelled")
        if time.monotonic() > deadline:
            msg = (
                f"process {process} did not publish {key} within {_PATIENCE:g} s; it hangs, or it "
                f"runs different code from process {jax.process_index()}. Check its log"
            )
            raise TimeoutError(msg)


def exchange(value: str) -> list[str]:
    """Send a value to all processes and return those of all processes, in order.

    All processes must make the same exchanges in the same order, so only the main thread may call
    this.

    Raises
    ------
    TimeoutError
        If a process sent no value; the message says which.

    Examples
    --------
    >>> exchange("ready")  # with one process
    ['ready']
    """
    if jax.process_count() == 1:
        return [value]
    count = next(_numbers)
    publish(f"exchange/{count}", value)
    values = [fetch(f"exchange/{count}", process) for process in range(jax.process_count())]
    if count:
        retract(f"exchange/{count - 1}")  # all have reached this exchange, so all have read that
    return values


def first_of(value: str) -> str:
    """Return the value of process 0; all processes must call this, as with `exchange`.

    Examples
    --------
    >>> first_of("checkpoint_001")  # with one process
    'checkpoint_001'
    """
    return exchange(value)[0]


def _path(key: str, process: int) -> str:
    return f"medjax/{key}/{process}"
