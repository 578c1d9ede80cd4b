"""Where arrays lie: the mesh, and the shardings of state and batch.

The mesh has two axes. Rows of a batch are split over both; parameters and optimizer state are
split over ``fsdp`` and repeated over ``data``. One device is a mesh of 1 x 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from medjax.heap import run_in_calling_thread

_MIN_SHARDED_SIZE = 2**12  # elements; smaller leaves cost more to gather than they take


def make_mesh(fsdp: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Return a mesh with axes ``data`` and ``fsdp`` over the devices of all processes.

    Parameters
    ----------
    fsdp : int
        Devices that share one copy of the state; 1 repeats the state on every device (plain data
        parallelism), the number of devices splits it over all of them.
    devices : sequence of jax.Device, optional
        Devices to use, by default all. If JAX has not looked for them before, the CPU will run
        programs in the thread that calls them; see `medjax.heap`.

    Raises
    ------
    ValueError
        If `fsdp` does not divide the number of devices.
    """
    run_in_calling_thread()
    devices = jax.devices() if devices is None else devices
    if fsdp < 1 or len(devices) % fsdp:
        msg = f"make_mesh: fsdp is {fsdp}; expected a divisor of the {len(devices)} devices"
        raise ValueError(msg)
    return jax.make_mesh(
        (len(devices) // fsdp, fsdp),
        ("data", "fsdp"),
        axis_types=(AxisType.Auto, AxisType.Auto),
        devices=devices,
    )


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding that repeats an array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def row_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding that splits the rows of a batch over all devices."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def fsdp_spec(shape: tuple[int, ...], nb_shards: int) -> PartitionSpec:
    """Return how to split one array: along its longest axis that divides evenly, or not at all.

    Parameters
    ----------
    shape : tuple of int
        Shape of the array.
    nb_shards : int
        Devices along the axis ``fsdp``.

    Examples
    --------
    >>> fsdp_spec((30522, 384), 8) == PartitionSpec(None, "fsdp")
    True
    >>> fsdp_spec((384,), 8) == PartitionSpec()
    True
    """
    if nb_shards > 1 and math.prod(shape) >= _MIN_SHARDED_SIZE:
        for axis in sorted(range(len(shape)), key=lambda axis: (-shape[axis], axis)):
            if shape[axis] % nb_shards == 0:
                return PartitionSpec(*(None,) * axis, "fsdp")
    return PartitionSpec()


def state_shardings(state: Any, mesh: Mesh) -> Any:
    """Return the sharding of every leaf of a training state, by its size alone.

    Parameters
    ----------
    state : pytree
        Arrays or `jax.ShapeDtypeStruct`. Optimizer moments have the shape of their parameter and
        so get its sharding.
    mesh : jax.sharding.Mesh
        A mesh of `make_mesh`.
    """
    nb_shards = mesh.shape["fsdp"]
    return jax.tree.map(lambda leaf: NamedSharding(mesh, fsdp_spec(leaf.shape, nb_shards)), state)


def put(tree: Any, shardings: Any) -> Any:
    """Return `tree` laid out by `shardings`; every process gives the same global values.

    Parameters
    ----------
    tree : pytree
        numpy or JAX arrays.
    shardings : pytree
        A sharding for every leaf, or one for all.
    """
    if jax.process_count() == 1:
        return jax.device_put(tree, shardings)
    if isinstance(shardings, jax.sharding.Sharding):
        shardings = jax.tree.map(lambda _: shardings, tree)

    def put_leaf(leaf: Any, sharding: jax.sharding.Sharding) -> jax.Array:
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            data = put_leaf(jax.random.key_data(leaf), sharding)
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
        values = np.asarray(leaf)
        return jax.make_array_from_callback(values.shape, sharding, lambda index: values[index])

    return jax.tree.map(put_leaf, tree, shardings)


def put_batch(batch: Any, mesh: Mesh) -> Any:
    """Return a batch of host arrays laid out over the mesh, their rows split over all devices.

    An array without rows, or whose rows do not divide evenly, is repeated on every device; what is
    computed is the same. On one CPU device nothing is done: the step reads the host's memory as it
    is.

    Parameters
    ----------
    batch : pytree
        numpy arrays with their rows along the first axis.
    mesh : jax.sharding.Mesh
        A mesh of `make_mesh`.
    """
    if mesh.size == 1 and mesh.devices.item().platform == "cpu":
        return batch
    rows, everywhere = row_sharding(mesh), replicated(mesh)

    def choose(array: Any) -> NamedSharding:
        divides = array.ndim and array.shape[0] and not array.shape[0] % mesh.size
        return rows if divides else everywhere

    return put(batch, jax.tree.map(choose, batch))


def local_rows(nb_rows: int, mesh: Mesh) -> np.ndarray:
    """Return which rows of a batch lie on the devices of this process, increasing.

    Parameters
    ----------
    nb_rows : int
        From `rows_per_batch`.
    mesh : jax.sharding.Mesh
        A mesh of `make_mesh`.

    Raises
    ------
    ValueError
        If no device of this process is in the mesh.
    """
    slices = row_sharding(mesh).addressable_devices_indices_map((nb_rows,)).values()
    if not slices:
        msg = (
            f"no device of process {jax.process_index()} is in the mesh; expected a mesh over the "
            "devices of all processes, as sharding.make_mesh() makes it"
        )
        raise ValueError(msg)
    rows = np.arange(nb_rows)
    return np.unique(np.concatenate([rows[index] for index in slices if index is not None]))


def put_rows(batch: Any, mesh: Mesh, rows: np.ndarray) -> Any:
    """Return the batch that all processes make together, each from the rows it holds.

    Parameters
    ----------
    batch : pytree
        numpy arrays, one entry for each of `rows`.
    mesh : jax.sharding.Mesh
        A mesh of `make_mesh`.
    rows : numpy.ndarray
        From `local_rows`.
    """
    nb_rows = len(rows) * mesh.size // mesh.local_mesh.size

    def put_leaf(leaf: np.ndarray) -> jax.Array:
        def of_device(index: tuple[slice, ...] | None) -> np.ndarray:
            assert index is not None
            first, stop, _ = index[0].indices(nb_rows)
            place = int(np.searchsorted(rows, first))
            return leaf[place : place + stop - first]

        shape = (nb_rows, *leaf.shape[1:])
        return jax.make_array_from_callback(shape, row_sharding(mesh), of_device)

    return jax.tree.map(put_leaf, batch)


def to_host(tree: Any) -> Any:
    """Return a tree of arrays as numpy arrays, gathered from all processes that hold parts."""

    def gather(leaf: Any) -> Any:
        if isinstance(leaf, jax.Array) and not (
            leaf.is_fully_replicated or leaf.is_fully_addressable
        ):
            return multihost_utils.process_allgather(leaf, tiled=True)
        return jax.device_get(leaf)

    return jax.device_get(tree) if jax.process_count() == 1 else jax.tree.map(gather, tree)


def rows_per_batch(batch_size: int, mesh: Mesh) -> int:
    """Return `batch_size` rounded up so that every device gets as many rows."""
    return -(-batch_size // mesh.size) * mesh.size


def bytes_per_device(tree: Any) -> dict[int, int]:
    """Return how many bytes of a tree of arrays lie on each device of this process, by its id."""
    held: dict[int, int] = {}
    for leaf in jax.tree.leaves(tree):
        for shard in leaf.addressable_shards:
            held[shard.device.id] = held.get(shard.device.id, 0) + shard.data.nbytes
    return held
