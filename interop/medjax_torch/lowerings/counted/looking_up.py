"""Operators that read and write at a counted number of indices, and sorting."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import torch
from torch.fx import Node

from medjax_torch.lowerings.counted.selecting import redirect_padding
from medjax_torch.lowerings.counted.structure import aligned
from medjax_torch.lowerings.counted.table import (
    Call,
    argument,
    as_it_is,
    counts_in,
    is_plain,
    need,
    shape_of,
)

aten = torch.ops.aten

as_it_is(aten.embedding.default, check=lambda node: need(all(map(is_plain, _first(node))), node))


def _first(node: Node) -> tuple[Any, ...]:
    return shape_of(node.args[0])


def _others_agree(node: Node) -> None:
    """Refuse unless the index has the tensor's sizes along the other dimensions."""
    x, index = shape_of(node.args[0]), shape_of(node.args[2])
    need(len(x) == len(index) > 0, node)
    dim = int(node.args[1]) % len(x)  # type: ignore[arg-type]
    for d, (size, other) in enumerate(zip(x, index, strict=True)):
        agree = size == other or (is_plain(size) and is_plain(other))
        need(d == dim or agree, node, f"looks up {other} of {size}")


def _from_beginning(call: Call, index: jax.Array, dim: int) -> jax.Array:
    """Return an index in which values that torch would reject are past the bound."""
    size = call.shape(0)[dim]
    outside = (index < 0) | (index >= call.counts.value(size))
    return jnp.where(outside, call.counts.bound(size) + 1, index)


@counts_in(aten.gather.default, check=_others_agree)
def _gather(call: Call, x: jax.Array, dim: int, index: jax.Array, **options: Any) -> jax.Array:
    result: jax.Array = call.ordinary(x, dim, _from_beginning(call, index, dim))
    return result


@counts_in(aten.index_select.default, check=lambda node: None)
def _index_select(call: Call, x: jax.Array, dim: int, index: jax.Array) -> jax.Array:
    result: jax.Array = call.ordinary(x, dim, _from_beginning(call, index, dim))
    return result


def _sources_agree(node: Node) -> None:
    _others_agree(node)
    source: Any = argument(node, 3, "src")
    if isinstance(source, Node):
        need(shape_of(source) == shape_of(node.args[2]), node)


@counts_in(
    aten.scatter.src,
    aten.scatter.value,
    aten.scatter_add.default,
    aten.scatter_reduce.two,
    check=_sources_agree,
)
def _scatter(
    call: Call, x: jax.Array, dim: int, index: jax.Array, *rest: Any, **options: Any
) -> jax.Array:
    """Write values; padding is written past the end of the tensor, which is then cut off."""
    beyond = x.shape[dim]
    index = redirect_padding(call, _from_beginning(call, index, dim), call.shape(2), beyond)
    written = call.ordinary(_wider(x, dim), dim, index, *rest, **options)
    return jax.lax.slice_in_dim(written, 0, beyond, axis=dim % x.ndim)


def _wider(x: jax.Array, dim: int) -> jax.Array:
    more = [(0, 1 if d == dim % x.ndim else 0) for d in range(x.ndim)]
    return jnp.pad(x, more)


def _adds(node: Node) -> None:
    x, source = shape_of(node.args[0]), shape_of(node.args[3])
    need(len(x) == len(source) > 0, node)
    dim = int(node.args[1]) % len(x)  # type: ignore[arg-type]
    need(shape_of(node.args[2]) == (source[dim],), node)
    rest = [size for d, size in enumerate(x) if d != dim]
    aligned(node, [size for d, size in enumerate(source) if d != dim], rest)


@counts_in(aten.index_add.default, check=_adds)
def _index_add(
    call: Call, x: jax.Array, dim: int, index: jax.Array, source: jax.Array, **options: Any
) -> jax.Array:
    beyond = x.shape[dim]
    index = redirect_padding(call, _from_beginning(call, index, dim), call.shape(2), beyond)
    written = call.ordinary(_wider(x, dim), dim, index, source, **options)
    return jax.lax.slice_in_dim(written, 0, beyond, axis=dim % x.ndim)


def _along_fixed(position: int) -> Any:
    def check(node: Node) -> None:
        shape = shape_of(node.args[0])
        dim = int(argument(node, position, "dim", -1))
        need(is_plain(shape[dim]), node, "sorts along a size that varies")

    return check


as_it_is(aten.sort.default, check=_along_fixed(1))
as_it_is(aten.sort.stable, check=_along_fixed(99))
as_it_is(aten.topk.default, check=_along_fixed(2))
