"""Starting many processes: JAX detects them, and a roll call says who is missing.

JAX 0.10 aborts a process that waits in vain, without saying for whom. So the processes first report
to process 0, on the port that JAX's own service uses afterwards.
"""

from __future__ import annotations

from typing import Any

import jax

from medjax.distributed.roll_call import answer, call_roll
from medjax.jax_internals import detect_cluster

__all__ = ["HEARTBEAT", "STOP", "initialize_distributed"]

HEARTBEAT = 30  # seconds without a heartbeat after which JAX ends the other processes
STOP = 20  # seconds that a process waits at its end for the other processes to end


def initialize_distributed(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    timeout: float = 300,
) -> None:
    """Join the processes of a run; call this once in each of them, before anything uses JAX.

    On a TPU VM and under SLURM (``srun``), Open MPI or Kubernetes, JAX detects the arguments;
    elsewhere pass all three.

    Parameters
    ----------
    coordinator_address : str, optional
        ``host:port`` of process 0; the port must be free there and reachable by the others.
    num_processes, process_id : int, optional
        Number of processes, and the index of this one, from 0.
    timeout : float
        Seconds to wait for the other processes.

    Raises
    ------
    ValueError
        If arguments are missing and cannot be detected, or those of two processes conflict.
    TimeoutError
        If a process is missing after `timeout` seconds; the message says which.

    Examples
    --------
    >>> initialize_distributed("10.0.0.1:1234", num_processes=2, process_id=0)  # doctest: +SKIP
    """
    address, number, own, devices = _detect(coordinator_address, num_processes, process_id)
    if number > 1:
        host, _, port = address.rpartition(":")
        if own == 0:
            call_roll(int(port), number, timeout)
        else:
            answer(host.strip("[]"), int(port), number, own, timeout)
    jax.distributed.initialize(
        address,
        number,
        own,
        local_device_ids=devices,
        initialization_timeout=max(60, int(timeout)),
        heartbeat_timeout_seconds=HEARTBEAT,
        shutdown_timeout_seconds=STOP,
    )


def _detect(address: str | None, number: int | None, own: int | None) -> tuple[str, int, int, Any]:
    devices = None
    if address is None or number is None or own is None:
        # jax.distributed.initialize calls this as well, but the roll call needs the address first.
        address, number, own, devices = detect_cluster(address, number, own)
    arguments = {"coordinator_address": address, "num_processes": number, "process_id": own}
    if address is None or number is None or own is None:
        missing = ", ".join(name for name, value in arguments.items() if value is None)
        msg = (
            "initialize_distributed found no TPU VM, SLURM step (srun), Open MPI or Kubernetes "
            f"job to take {missing} from; pass coordinator_address='host:port' of process 0, "
            "num_processes and process_id"
        )
        raise ValueError(msg)
    if not address.rpartition(":")[2].isdigit():
        msg = f"coordinator_address is {address!r}; expected 'host:port'"
        raise ValueError(msg)
    if not 0 <= own < number:
        msg = f"process_id is {own} of num_processes {number}; expected 0 to {number - 1}"
        raise ValueError(msg)
    return address, number, own, devices
