"""The parts of JAX that are not public, or experimental: each enters medjax here.

A release of JAX that moves one of them needs a change of this module alone.
"""

from __future__ import annotations

from typing import Any

from jax.experimental import multihost_utils
from jax.experimental.compilation_cache import compilation_cache
from jax.experimental.layout import Layout, with_layout_constraint

__all__ = [
    "Layout",
    "compilation_cache",
    "detect_cluster",
    "has_devices",
    "key_value_client",
    "multihost_utils",
    "with_layout_constraint",
]


def detect_cluster(
    address: str | None, processes: int | None, process: int | None
) -> tuple[str | None, int | None, int | None, Any]:
    """Return what `jax.distributed.initialize` would take from the cluster for what is None.

    Parameters
    ----------
    address : str or None
        ``host:port`` of process 0.
    processes, process : int or None
        Number of processes, and the index of this one.

    Returns
    -------
    tuple
        The three, None where no cluster says, and the devices of this process.
    """
    # Imported here, as the module looks for plugins of clusters.
    from jax._src.clusters import ClusterEnv

    return ClusterEnv.auto_detect_unset_distributed_params(
        address, processes, process, None, None, None
    )


def key_value_client() -> Any:
    """Return the client of the key-value store, None where there is only one process."""
    from jax._src import distributed

    return distributed.global_state.client


def has_devices() -> bool:
    """Return whether JAX has initialised its devices."""
    from jax._src import xla_bridge

    initialised: bool = xla_bridge.backends_are_initialized()
    return initialised
