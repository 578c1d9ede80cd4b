"""Values from every process to every process, through JAX's key-value store.

No device takes part, so that a thread may publish and fetch beside the steps, and a process that
does not come is named instead of waited for without end.
"""

from __future__ import annotations

import itertools
import threading
import time
from typing import Any

import jax

_PATIENCE = 1200.0  # seconds: what Orbax waits for a process that writes slowly
_POLL_MS = 500  # milliseconds between looks at whether the value is still wanted

_numbers = itertools.count()


def client() -> Any:
    """Return JAX's client of the key-value store; there with several processes only."""
    from jax._src import distributed  # JAX offers no public way to it

    return distributed.global_state.client


def publish(key: str, value: str) -> None:
    """Put a value of this process where the others can fetch it; it may be put there again."""
    client().key_value_set(_path(key, jax.process_index()), value, allow_overwrite=True)


def retract(key: str) -> None:
    """Take a published value back; no process may want it any more."""
    client().key_value_delete(_path(key, jax.process_index()))


def fetch(key: str, process: int, cancelled: threading.Event | None = None) -> str:
    """Return a value that a process published or will publish.

    Parameters
    ----------
    key : str
        Its name.
    process : int
        Who publishes it.
    cancelled : threading.Event, optional
        Ends the wait.

    Raises
    ------
    TimeoutError
        If it is not published within 20 minutes, or the wait was ended.
    """
    store, deadline = client(), time.monotonic() + _PATIENCE
    while True:
        try:
            return str(store.blocking_key_value_get(_path(key, process), _POLL_MS))
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise
        if cancelled is not None and cancelled.is_set():
            raise TimeoutError(f"{key} of process {process} is not wanted any more")
        if time.monotonic() > deadline:
            msg = (
                f"process {process} did not come to {key} within {_PATIENCE:g} s; it hangs or "
                f"does something else than process {jax.process_index()}. Look into its log"
            )
            raise TimeoutError(msg)


def exchange(value: str) -> list[str]:
    """Return the values of all processes, by process.

    All processes must make the same exchanges in the same order, which the main thread alone can
    promise.

    Raises
    ------
    TimeoutError
        If a process gave no value; the message says which.
    """
    if jax.process_count() == 1:
        return [value]
    count = next(_numbers)
    publish(f"exchange/{count}", value)
    values = [fetch(f"exchange/{count}", process) for process in range(jax.process_count())]
    if count:
        retract(f"exchange/{count - 1}")  # all have come to this one, so all are done with that
    return values


def first_of(value: str) -> str:
    """Return the value of process 0; called by all processes, as `exchange` is."""
    return exchange(value)[0]


def _path(key: str, process: int) -> str:
    return f"medjax/{key}/{process}"
