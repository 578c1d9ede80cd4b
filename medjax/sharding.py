"""Where arrays are stored: the mesh, and the shardings of state and batch.

The mesh has two axes. The rows of a batch are split over both; parameters and optimizer state are
split over ``fsdp`` and replicated over ``data``. One device is a mesh of 1 x 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from medjax.jax_internals import multihost_utils
from medjax.runtime import run_in_calling_thread
from medjax.target import platform_of

__all__ = [
    "bytes_per_device",
    "fsdp_spec",
    "host_mesh",
    "local_rows",
    "make_mesh",
    "put",
    "put_batch",
    "put_rows",
    "replicated",
    "row_sharding",
    "rows_per_batch",
    "state_shardings",
    "to_host",
]

_MIN_SHARDED_SIZE = 2**12  # elements; gathering a smaller leaf costs more than its memory is worth


def make_mesh(fsdp: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Create a mesh with the axes ``data`` and ``fsdp`` over the devices of all processes.

    Parameters
    ----------
    fsdp : int
        Number of devices that share one copy of the state. 1 replicates the state on every device
        (plain data parallelism); the number of devices splits it over all of them.
    devices : sequence of jax.Device, optional
        Devices to use; by default all. If JAX has not initialised its devices before, the CPU will
        run programs in the thread that calls them.

    Raises
    ------
    ValueError
        If `fsdp` does not divide the number of devices.

    Examples
    --------
    >>> dict(make_mesh(devices=jax.devices()[:1]).shape)
    {'data': 1, 'fsdp': 1}
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


def host_mesh() -> Mesh | None:
    """Return a mesh of one CPU device of this process, or None if JAX has none here.

    Examples
    --------
    >>> host_mesh().devices.flat[0].platform
    'cpu'
    """
    try:
        return make_mesh(devices=jax.local_devices(backend="cpu")[:1])
    except RuntimeError:  # JAX_PLATFORMS leaves it out
        return None


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding that replicates an array on every device.

    Examples
    --------
    >>> replicated(make_mesh()).is_fully_replicated
    True
    """
    return NamedSharding(mesh, PartitionSpec())


def row_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding that splits the rows of a batch over all devices.

    Examples
    --------
    >>> row_sharding(make_mesh()).spec == PartitionSpec(("data", "fsdp"))
    True
    """
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def fsdp_spec(shape: tuple[int, ...], nb_shards: int) -> PartitionSpec:
    """Return how to split an array: along its longest evenly divisible axis, or not at all.

    Parameters
    ----------
    shape : tuple of int
        Shape of the array.
    nb_shards : int
        Number of devices along the axis ``fsdp``.

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
                unsplit = [None] * axis
                return PartitionSpec(*unsplit, "fsdp")
    return PartitionSpec()


def state_shardings(state: Any, mesh: Mesh) -> Any:
    """Return the sharding of every leaf of a training state, which depends only on its shape.

    Parameters
    ----------
    state : pytree
        Arrays or `jax.ShapeDtypeStruct`. Optimizer moments have the shape of their parameter, so
        they get the same sharding.
    mesh : jax.sharding.Mesh
        From `make_mesh`.

    Examples
    --------
    >>> mesh = make_mesh(fsdp=1)
    >>> state_shardings({"bias": np.zeros(3)}, mesh)["bias"] == replicated(mesh)
    True
    """
    nb_shards = mesh.shape["fsdp"]
    return jax.tree.map(lambda leaf: NamedSharding(mesh, fsdp_spec(leaf.shape, nb_shards)), state)


def put(tree: Any, shardings: Any) -> Any:
    """Put `tree` on the devices by `shardings`; every process must pass the same global values.

    Parameters
    ----------
    tree : pytree
        numpy or JAX arrays.
    shardings : pytree
        A sharding for every leaf, or one for all.

    Examples
    --------
    >>> put({"bias": np.zeros(3)}, replicated(make_mesh()))["bias"].is_fully_replicated
    True
    """
    if jax.process_count() == 1:
        return jax.device_put(tree, shardings)
    if isinstance(shardings, jax.sharding.Sharding):
        shardings = jax.tree.map(lambda _: shardings, tree)

    def put_leaf(leaf: Any, sharding: jax.sharding.Sharding) -> jax.Array:
        if jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            data = put_leaf(jax.random.key_data(leaf), sharding)
            result: jax.Array = jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
            return result
        values = np.asarray(leaf)
        return jax.make_array_from_callback(values.shape, sharding, lambda index: values[index])

    return jax.tree.map(put_leaf, tree, shardings)


def put_batch(batch: Any, mesh: Mesh) -> Any:
    """Put a batch of host arrays on the devices of a mesh, with its rows split over all of them.

    An array without rows, or whose rows do not divide evenly, is replicated on every device; the
    results are the same. With a single CPU device the batch is returned as it is: the step reads
    the host's memory directly.

    Parameters
    ----------
    batch : pytree
        numpy arrays with their rows along the first axis.
    mesh : jax.sharding.Mesh
        From `make_mesh`.

    Examples
    --------
    >>> put_batch({"x": np.zeros((8, 3))}, make_mesh())["x"].shape
    (8, 3)
    """
    if mesh.size == 1 and platform_of(mesh) == "cpu":
        return batch
    rows, everywhere = row_sharding(mesh), replicated(mesh)

    def choose(array: Any) -> NamedSharding:
        divides = array.ndim and array.shape[0] and not array.shape[0] % mesh.size
        return rows if divides else everywhere

    return put(batch, jax.tree.map(choose, batch))


def local_rows(nb_rows: int, mesh: Mesh) -> np.ndarray:
    """Return which rows of a batch are on the devices of this process, in increasing order.

    Parameters
    ----------
    nb_rows : int
        From `rows_per_batch`.
    mesh : jax.sharding.Mesh
        From `make_mesh`.

    Raises
    ------
    ValueError
        If no device of this process is in the mesh.

    Examples
    --------
    >>> local_rows(2, make_mesh(devices=jax.devices()[:1])).tolist()
    [0, 1]
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
    """Assemble a batch from the rows of all processes; each passes those of its own devices.

    Parameters
    ----------
    batch : pytree
        numpy arrays with one entry for each of `rows`.
    mesh : jax.sharding.Mesh
        From `make_mesh`.
    rows : numpy.ndarray
        From `local_rows`.

    Examples
    --------
    >>> mesh = make_mesh(devices=jax.devices()[:1])
    >>> put_rows({"x": np.array([1.0, 2.0])}, mesh, local_rows(2, mesh))["x"].tolist()
    [1.0, 2.0]
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
    """Copy a tree of arrays to numpy arrays, gathering the parts from all processes.

    Examples
    --------
    >>> to_host({"bias": jax.numpy.zeros(2)})
    {'bias': array([0., 0.], dtype=float32)}
    """

    def gather(leaf: Any) -> Any:
        if isinstance(leaf, jax.Array) and not (
            leaf.is_fully_replicated or leaf.is_fully_addressable
        ):
            return multihost_utils.process_allgather(leaf, tiled=True)
        return jax.device_get(leaf)

    return jax.device_get(tree) if jax.process_count() == 1 else jax.tree.map(gather, tree)


def rows_per_batch(batch_size: int, mesh: Mesh) -> int:
    """Return `batch_size`, rounded up so that every device gets the same number of rows.

    Examples
    --------
    >>> rows_per_batch(5, make_mesh(devices=jax.devices()[:1]))
    5
    """
    return -(-batch_size // mesh.size) * mesh.size


def bytes_per_device(tree: Any) -> dict[int, int]:
    """Return how many bytes of a tree of arrays are on each device of this process, by its id.

    Examples
    --------
    >>> list(bytes_per_device({"bias": jax.numpy.zeros(2)}).values())
    [8]
    """
    sizes: dict[int, int] = {}
    for leaf in jax.tree.leaves(tree):
        for shard in leaf.addressable_shards:
            sizes[shard.device.id] = sizes.get(shard.device.id, 0) + shard.data.nbytes
    return sizes
