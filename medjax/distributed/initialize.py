"""The start of many processes: found by JAX, called by name before JAX waits for them.

JAX 0.10 aborts a process that waits in vain, without saying for whom; so the processes call at
process 0 first, on the port that JAX's own service takes over afterwards.
"""

from __future__ import annotations

from typing import Any

import jax

from medjax.distributed.roll_call import answer, call_roll

HEARTBEAT = 30  # seconds without a sign of life after which JAX ends the others
STOP = 20  # seconds that the end of a process waits for the end of the others


def initialize_distributed(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    timeout: float = 300,
) -> None:
    """Join the processes of a run; call it once in each of them, before anything uses JAX.

    On a TPU VM, under SLURM (``srun``), Open MPI and Kubernetes JAX finds the arguments by itself;
    elsewhere give all three.

    Parameters
    ----------
    coordinator_address : str, optional
        ``host:port`` of process 0: a port that is free there and that the others reach.
    num_processes, process_id : int, optional
        How many processes there are, and which one this is, from 0.
    timeout : float
        Seconds to wait for the others.

    Raises
    ------
    ValueError
        If the arguments are not given and not found, or processes contradict each other.
    TimeoutError
        If a process is missing after `timeout` seconds; the message says which.

    Examples
    --------
    >>> initialize_distributed("10.0.0.1:1234", 2, 0)  # doctest: +SKIP
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
        devices,
        initialization_timeout=max(60, int(timeout)),
        heartbeat_timeout_seconds=HEARTBEAT,
        shutdown_timeout_seconds=STOP,
    )


def _detect(address: str | None, number: int | None, own: int | None) -> tuple[str, int, int, Any]:
    devices = None
    if address is None or number is None or own is None:
        # What jax.distributed.initialize calls; the address is needed before it does.
        from jax._src.clusters import ClusterEnv

        address, number, own, devices = ClusterEnv.auto_detect_unset_distributed_params(
            address, number, own, None, None, None
        )
    found = {"coordinator_address": address, "num_processes": number, "process_id": own}
    if address is None or number is None or own is None:
        missing = ", ".join(name for name, value in found.items() if value is None)
        msg = (
            "initialize_distributed found no TPU VM, SLURM step (srun), Open MPI or Kubernetes "
            f"job to take {missing} from; give coordinator_address='host:port' of process 0, "
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
