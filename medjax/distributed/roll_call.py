"""Who is there: every process calls at process 0, which tells all of them who is missing."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from typing import Any

_RUN = "medjax"
_LINE = 4096  # bytes of a call or an answer at most, but for the list of those missing
_RETRY = 0.2  # seconds between attempts at a port that is not there yet, or still taken
_SLACK = 5.0  # seconds that process 0 is given to answer beyond the timeout


def call_roll(port: int, number: int, timeout: float) -> None:
    """Wait in process 0 for the calls of the others, and tell all of them how it went.

    Raises
    ------
    TimeoutError
        If a process did not call in time.
    ValueError
        If two processes have the same number or believe in different numbers of processes.
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
            if call is not None and call.get("run") == _RUN:  # else it is a stranger
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
    """Call at process 0 and wait for what it says; raises as `call_roll` does."""
    deadline = time.monotonic() + timeout
    call = {"run": _RUN, "process": own, "processes": number, "host": socket.gethostname()}
    reached = False
    while (left := deadline - time.monotonic()) > 0:
        try:
            with socket.create_connection((host, port), timeout=left) as connection:
                reached = True
                connection.settimeout(left + _SLACK)
                _send(connection, call)
                said = _read(connection)
        except OSError:
            said = None  # not listening yet, or a service of an earlier run on its way out
        if said is not None:
            return _raise(said["problem"], said["late"])
        time.sleep(_RETRY)
    which = "answered" if not reached else "let this process in"
    msg = (
        f"process {own} of {number} waited {timeout:g} s, but process 0 has not {which} at "
        f"{host}:{port}; look whether process 0 runs there and the port is open"
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
                msg = f"process 0 cannot listen on port {port} ({error}); choose a free one"
                raise ValueError(msg) from error
            time.sleep(_RETRY)


def _contradiction(call: dict[str, Any], number: int, present: dict[int, str]) -> str:
    own, host = call["process"], call["host"]
    if call["processes"] != number:
        return (
            f"process {own} on {host} expects {call['processes']} processes, process 0 expects "
            f"{number}; give all the same num_processes"
        )
    if own in present:
        return (
            f"process {own} runs twice, on {present[own]} and on {host}; give each process a "
            "process_id of its own"
        )
    return ""


def _missing(missing: list[int], number: int, timeout: float) -> str:
    names = ", ".join(map(str, missing))
    which = f"process {names} has" if len(missing) == 1 else f"processes {names} have"
    return (
        f"{which} not called within {timeout:g} s, of {number}; look into their logs, whether they "
        "were started and reach process 0, or give initialize_distributed a longer timeout"
    )


def _send(connection: socket.socket, message: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # a process that is gone waits no more
        connection.sendall(json.dumps(message).encode() + b"\n")


def _read(connection: socket.socket) -> dict[str, Any] | None:
    """Return the message of a connection, None if it is none."""
    try:
        if connection.gettimeout() is None:
            connection.settimeout(_SLACK)
        with connection.makefile("rb") as stream:
            message = json.loads(stream.readline(_LINE * 16))
    except (OSError, ValueError):
        return None
    return message if isinstance(message, dict) else None


def _raise(problem: str, late: bool) -> None:
    if problem:
        raise (TimeoutError if late else ValueError)(problem)
