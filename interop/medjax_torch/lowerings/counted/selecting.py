"""Operators whose result has as many elements as a mask selects, and their inverse."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import torch
from torch.fx import Node

from medjax_torch.graph.guards import ancestry
from medjax_torch.graph.sizes import length, selecting
from medjax_torch.lowerings.counted.structure import aligned
from medjax_torch.lowerings.counted.table import Call, counts_in, need, shape_of, value_of
from medjax_torch.lowerings.scattering import masked_scatter

aten = torch.ops.aten


def _selects(node: Node) -> None:
    """Refuse a mask that does not depend on the batch: its selection has a fixed, exact size."""
    mask = selecting(node)
    need(mask is not None, node, "selects by several indices, one of them a mask")
    need(any(source.op == "placeholder" for source in ancestry(mask)), node, "selects by constants")


def _chosen(call: Call, mask: jax.Array, recorded: Any, size: Any) -> tuple[jax.Array, jax.Array]:
    """Return a mask without its padding, and the flat positions of its true elements, then zeros.

    The number of true elements is recorded as the value of `size`.
    """
    chosen = call.counts.filled(mask != 0, recorded, False)
    count = jnp.sum(chosen, dtype=jnp.int32)
    if isinstance(size, torch.SymInt):
        call.counts.set(size, chosen.size, count)
    bound = call.counts.bound(length(size))
    return chosen, jnp.nonzero(chosen.reshape(-1), size=bound, fill_value=0)[0]


@counts_in(aten.nonzero.default, check=_selects)
def _nonzero(call: Call, x: jax.Array) -> jax.Array:
    chosen, places = _chosen(call, x, call.recorded(0), call.output.shape[0])
    return jnp.stack(jnp.unravel_index(places, chosen.shape), -1)


def _broadcast_selects(node: Node) -> None:
    _selects(node)
    x, mask = shape_of(node.args[0]), shape_of(node.args[1])
    longer, shorter = (x, mask) if len(x) >= len(mask) else (mask, x)
    padded = (1,) * (len(longer) - len(shorter)) + tuple(shorter)
    for size, other in zip(longer, padded, strict=True):
        need(size == other or 1 in (size, other), node, f"broadcasts {size} and {other}")


@counts_in(aten.masked_select.default, check=_broadcast_selects)
def _masked_select(call: Call, x: jax.Array, mask: jax.Array) -> jax.Array:
    both = torch.broadcast_tensors(call.recorded(0), call.recorded(1))[0]
    x, mask = jnp.broadcast_arrays(x, mask)
    _, places = _chosen(call, mask, both, call.output.shape[0])
    return x.reshape(-1)[places]


def _masks(node: Node) -> bool:
    """Return whether any index of a node is a mask."""
    indices: Any = node.args[1]
    return any(
        index is not None and value_of(index).dtype in (torch.bool, torch.uint8)
        for index in indices
    )


def _indexes(node: Node) -> None:
    """Refuse a mask combined with other indices, and indices whose broadcasting is unknown."""
    if _masks(node):
        _selects(node)
        position = _position(node)
        mask = shape_of(node.args[1][position])  # type: ignore[index]
        x = shape_of(node.args[0])[position : position + len(mask)]
        need(x == mask, node, f"selects {x} by a mask {mask}")
    else:
        _block(node)


def _position(node: Node) -> int:
    indices: Any = node.args[1]
    return next(i for i, index in enumerate(indices) if index is not None)


def _block(node: Node) -> tuple[Any, ...]:
    """Return the shape that integer indices broadcast to."""
    indices: Any = node.args[1]
    shapes = [shape_of(index) for index in indices if index is not None]
    rank = max(map(len, shapes))
    block: list[Any] = [1] * rank
    for shape in shapes:
        for dim, size in enumerate(shape, start=rank - len(shape)):
            block[dim] = size if block[dim] == 1 else block[dim]
    for shape in shapes:
        aligned(node, shape, block)
    return tuple(block)


@counts_in(aten.index.Tensor, aten._unsafe_index.Tensor, check=_indexes)
def _index(call: Call, x: jax.Array, indices: Sequence[jax.Array | None]) -> jax.Array:
    if _masks(call.node):
        position = _position(call.node)
        mask: Any = indices[position]
        recorded = value_of(call.node.args[1][position])  # type: ignore[index]
        chosen, places = _chosen(call, mask, recorded, call.output.shape[position])
        after = x.shape[position + mask.ndim :]
        flat = x.reshape(*x.shape[:position], math.prod(chosen.shape), *after)
        return jnp.take(flat, places, position, mode="clip")
    key = tuple(slice(None) if index is None else index for index in within(call, indices))
    return x.at[key].get(mode="fill")


def within(call: Call, indices: Sequence[jax.Array | None]) -> list[jax.Array | None]:
    """Count negative indices from the start, and move those out of range past the bound."""
    result: list[jax.Array | None] = []
    for dim, index in enumerate(indices):
        if index is not None:
            size = call.counts.value(call.shape(0)[dim])
            bound = call.counts.bound(call.shape(0)[dim])
            index = jnp.where(index < 0, index + size, index)
            index = jnp.where((index < 0) | (index >= size), bound + 1, index)
        result.append(index)
    return result


def _puts(node: Node) -> None:
    if not _masks(node):
        aligned_values(node)
        return
    indices: Any = node.args[1]
    used = [index for index in indices if index is not None]
    need(len(used) == 1, node, "writes by several indices, one of them a mask")
    position, mask = _position(node), shape_of(used[0])
    x, values = shape_of(node.args[0]), shape_of(node.args[2])
    need(x[position : position + len(mask)] == mask, node, "writes by a mask of another size")
    after = x[position + len(mask) :]
    aligned(node, values[max(0, len(values) - len(after)) :] if after else (), after)
    aligned(node, values[: max(0, len(values) - len(after) - 1)], x[:position])


def aligned_values(node: Node) -> None:
    """Refuse unless the sizes show that the written values broadcast to the indexed part."""
    block, indices, x = _block(node), node.args[1], shape_of(node.args[0])
    used = [i for i, index in enumerate(indices) if index is not None]  # type: ignore[arg-type]
    adjacent = used == list(range(used[0], used[-1] + 1))
    others = [size for dim, size in enumerate(x) if dim not in used]
    first = used[0] if adjacent else 0
    aligned(node, shape_of(node.args[2]), [*others[:first], *block, *others[first:]])


@counts_in(aten.index_put.default, aten._unsafe_index_put.default, check=_puts)
def _index_put(
    call: Call,
    x: jax.Array,
    indices: Sequence[jax.Array | None],
    values: jax.Array,
    accumulate: bool = False,
) -> jax.Array:
    """Write values; padding is written past the end of the tensor, which is then cut off."""
    first = _position(call.node)
    recorded: Any = call.node.args[1]
    keys: list[Any] = list(indices)
    if _masks(call.node):
        keys[first] = call.counts.filled(keys[first] != 0, value_of(recorded[first]), False)
        result: jax.Array = call.ordinary(x, keys, values, accumulate)
        return result
    block = _block(call.node)
    shape = [call.counts.bound(size) for size in block]
    beyond = x.shape[first]
    for dim, index in enumerate(within(call, keys)):
        if index is not None:
            instead = beyond if dim == first else 0
            keys[dim] = redirect_padding(call, jnp.broadcast_to(index, shape), block, instead)
    wider = jnp.concatenate([x, jnp.zeros_like(jax.lax.slice_in_dim(x, 0, 1, axis=first))], first)
    written = call.ordinary(wider, keys, values, accumulate)
    return jax.lax.slice_in_dim(written, 0, beyond, axis=first)


def _scatters(node: Node) -> None:
    """Refuse unless the values, which are written in order, come before their padding."""
    sizes = [size for size in shape_of(node.args[2]) if size != 1]
    need(all(isinstance(size, int) for size in sizes[1:]), node)
    aligned(node, shape_of(node.args[1]), shape_of(node.args[0]))


@counts_in(aten.masked_scatter.default, check=_scatters)
def _masked_scatter(call: Call, x: jax.Array, mask: jax.Array, source: jax.Array) -> jax.Array:
    available = math.prod(call.counts.value(size) for size in call.shape(2))
    return masked_scatter(x, call.filled(mask, 1, False), source, available)


def redirect_padding(call: Call, index: jax.Array, shape: Sequence[Any], beyond: int) -> jax.Array:
    """Replace the padding of an index with `beyond`."""
    for dim, size in enumerate(shape):
        if not isinstance(size, int):
            index = jnp.where(call.counts.valid(shape, dim), index, beyond)
    return index
