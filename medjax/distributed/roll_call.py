"""The roll call: every process reports to process 0, which tells all of them who is missing."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from typing import Any

__all__ = ["answer", "call_roll"]

_RUN = "medjax"
_LINE = 16 * 4096  # maximum bytes of a message; the list of missing processes can be long
_RETRY = 0.2  # seconds between attempts at a port that is not open yet, or still in use
_SLACK = 5.0  # seconds beyond the timeout in which process 0 may still answer


def call_roll(port: int, number: int, timeout: float) -> None:
    """Wait in process 0 for the reports of the others, and tell all of them the outcome.

    Parameters
    ----------
    port : int
        Port to listen on.
    number : int
        Number of processes.
    timeout : float
        Seconds to wait.

    Raises
    ------
    TimeoutError
        If a process did not report in time.
    ValueError
        If two processes have the same index or expect different numbers of processes.
    """
    deadline = time.monotonic() + timeout
    present: dict[int, str] = {}
    connections: list[socket.socket] = []
    problem = ""
    with _listen(port, deadline) as server:
        while not problem and len(present) < number - 1:
            server.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                connection, _ = server.accept()
            except TimeoutError:
                break
            connections.append(connection)
            call = _read(connection)
            if call is not None and call.get("run") == _RUN:  # otherwise it is another program
                problem = _contradiction(call, number, present)
                present.setdefault(call["process"], call["host"])
        missing = sorted(set(range(1, number)) - set(present))
        late = not problem and bool(missing)
        if late:
            problem = _missing(missing, number, timeout)
        for connection in connections:
            _send(connection, {"problem": problem, "late": late})
            connection.close()
    _raise(problem, late)


def answer(host: str, port: int, number: int, own: int, timeout: float) -> None:
    """Report to process 0 and wait for the outcome; raise the same errors as `call_roll`."""
    deadline = time.monotonic() + timeout
    call = {"run": _RUN, "process": own, "processes": number, "host": socket.gethostname()}
    reached = False
    while (left := deadline - time.monotonic()) > 0:
        try:
            with socket.create_connection((host, port), timeout=left) as connection:
                reached = True
                connection.settimeout(left + _SLACK)
                _send(connection, call)
                outcome = _read(connection)
        except OSError:
            outcome = None  # not listening yet, or the service of an earlier run is shutting down
        if outcome is not None:
            return _raise(outcome["problem"], outcome["late"])
        time.sleep(_RETRY)
    which = "answered" if not reached else "accepted this process"
    msg = (
        f"process {own} of {number} waited {timeout:g} s, but process 0 has not {which} at "
        f"{host}:{port}; check that process 0 runs there and that the port is open"
    )
    raise TimeoutError(msg)


def _listen(port: int, deadline: float) -> socket.socket:
    while True:
        try:
            if socket.has_dualstack_ipv6():
                return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
            return socket.create_server(("", port))
        except OSError as error:
            if time.monotonic() > deadline:
                msg = f"process 0 cannot listen on port {port} ({error}); choose a free port"
                raise ValueError(msg) from error
            time.sleep(_RETRY)


def _contradiction(call: dict[str, Any], number: int, present: dict[int, str]) -> str:
    own, host = call["process"], call["host"]
    if call["processes"] != number:
        return (
            f"process {own} on {host} expects {call['processes']} processes, process 0 expects "
            f"{number}; pass the same num_processes to all"
        )
    if own in present:
        return (
            f"process {own} runs twice, on {present[own]} and on {host}; pass a different "
            "process_id to each process"
        )
    return ""


def _missing(missing: list[int], number: int, timeout: float) -> str:
    names = ", ".join(map(str, missing))
    which = f"process {names} has" if len(missing) == 1 else f"processes {names} have"
    return (
        f"{which} not reported within {timeout:g} s ({number} processes are expected); check in "
        "the logs that each was started and can reach process 0, or pass a longer timeout to "
        "initialize_distributed"
    )


def _send(connection: socket.socket, message: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # the process may be gone
        connection.sendall(json.dumps(message).encode() + b"\n")


def _read(connection: socket.socket) -> dict[str, Any] | None:
    """Return the message from a connection, or None if it is not one of ours."""
    try:
        if connection.gettimeout() is None:
            connection.settimeout(_SLACK)
        with connection.makefile("rb") as stream:
            message = json.loads(stream.readline(_LINE))
    except (OSError, ValueError):
        return None
    return message if isinstance(message, dict) else None


def _raise(problem: str, late: bool) -> None:
    if problem:
        raise (TimeoutError if late else ValueError)(problem)
