"""Operators that work element by element, create tensors, or rearrange them."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import sympy
import torch
from jax import lax
from torch.fx import Node

from medjax_torch.graph.recompute import barrier
from medjax_torch.graph.sizes import Length, lengths
from medjax_torch.lowerings.counted.counts import Number, counted_number
from medjax_torch.lowerings.counted.table import (
    Call,
    argument,
    as_it_is,
    counts_in,
    is_plain,
    need,
    shape_of,
    value_of,
)
from medjax_torch.lowerings.table import TABLE

aten = torch.ops.aten
prims = torch.ops.prims


def aligned(node: Node, shape: Sequence[Length], target: Sequence[Length]) -> None:
    """Refuse unless the sizes show that a shape broadcasts to another one."""
    for size, wanted in zip(reversed(shape), reversed(target), strict=False):
        need(size in (1, wanted), node, f"broadcasts {size} to {wanted}")


def _broadcasts(node: Node) -> None:
    """Refuse unless all tensors broadcast to the result."""
    target = shape_of(node)
    for source in node.all_input_nodes:
        if isinstance(value_of(source), torch.Tensor):
            aligned(node, shape_of(source), target)


as_it_is(
    *(target for target in TABLE if torch.Tag.pointwise in getattr(target, "tags", ())),
    aten._to_copy.default,
    aten.complex.default,
    aten.copy.default,
    aten.fill.Scalar,
    aten.fill.Tensor,
    aten.hardshrink_backward.default,
    aten.imag.default,
    aten.masked_fill.Tensor,
    aten.real.default,
    aten.softshrink_backward.default,
    prims.div.default,
    check=_broadcasts,
)
as_it_is(
    aten.alias.default,
    aten.alias_copy.default,
    aten.detach.default,
    aten.detach_copy.default,
    aten.expand.default,
    aten.expand_copy.default,
    aten.lift_fresh_copy.default,
    check=_broadcasts,
)


def _same_places(node: Node) -> None:
    """Refuse unless every size of the input equals the target's or is 1."""
    target, dims = shape_of(node), argument(node, 2, "broadcast_dimensions")
    aligned(node, shape_of(node.args[0]), [target[dim] for dim in dims])


as_it_is(prims.broadcast_in_dim.default, check=_same_places)
as_it_is(
    aten.empty.memory_format,
    aten.empty_like.default,
    aten.empty_permuted.default,
    aten.empty_strided.default,
    aten.eye.default,
    aten.eye.m,
    aten.full.default,
    aten.full_like.default,
    aten.new_empty.default,
    aten.new_empty_strided.default,
    aten.new_full.default,
    aten.new_zeros.default,
    aten.new_ones.default,
    aten.ones.default,
    aten.ones_like.default,
    aten.scalar_tensor.default,
    aten.zeros.default,
    aten.zeros_like.default,
    # Views that keep every dimension, or add or remove one of size 1.
    aten.permute.default,
    aten.permute_copy.default,
    aten.t.default,
    aten.t_copy.default,
    aten.transpose.int,
    aten.transpose_copy.int,
    aten.tril.default,
    aten.triu.default,
    aten.unsqueeze.default,
    aten.unsqueeze_copy.default,
    aten.view_as_complex.default,
    aten.view_as_real.default,
    # Results and numbers.
    barrier,
    operator.getitem,
    operator.add,
    operator.mul,
    operator.sub,
    operator.truediv,
    operator.floordiv,
    operator.mod,
    operator.neg,
    operator.pow,
    torch.sym_float,
    torch.sym_max,
    torch.sym_min,
)


def _fixed_squeezed(node: Node) -> None:
    """Refuse unless the squeezed sizes are 1 for all counts."""
    before = [size for size in shape_of(node.args[0]) if size != 1]
    need(before == [size for size in shape_of(node) if size != 1], node)


as_it_is(
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.squeeze_copy.dim,
    aten.squeeze_copy.dims,
    check=_fixed_squeezed,
)


def _starts_and_steps_fixed(node: Node) -> None:
    start = node.args[0] if len(node.args) > 1 else 0
    need(is_plain(start) and is_plain(argument(node, 2, "step", 1)), node)


@counts_in(aten.arange.start_step, check=_starts_and_steps_fixed)
def _arange(call: Call, start: Any, end: Any, step: Any = 1, **placement: Any) -> jax.Array:
    (length,) = call.counts.shape(call.output)
    result: jax.Array = jnp.arange(length) * step + start
    return result


def _iota_fixed(node: Node) -> None:
    need(is_plain(node.kwargs.get("start")) and is_plain(node.kwargs.get("step")), node)


as_it_is(prims.iota.default, check=_iota_fixed)


def _keeps_order(node: Node) -> None:
    """Refuse unless padding stays last: among merged or split sizes, the counted one is first."""
    before = [size for size in shape_of(node.args[0]) if size != 1]
    after = [size for size in shape_of(node) if size != 1]
    while before and after and before[0] == after[0]:
        before, after = before[1:], after[1:]
    while before and after and before[-1] == after[-1]:
        before, after = before[:-1], after[:-1]
    if all(map(is_plain, [*before, *after])):
        return
    for sizes in (before, after):
        need(sizes and all(map(is_plain, sizes[1:])), node, "merges a size that varies with others")
    need(sympy.expand(sympy.prod(before) - sympy.prod(after)) == 0, node)


as_it_is(
    aten._reshape_copy.default,
    aten._unsafe_view.default,
    aten.view.default,
    aten.view_copy.default,
    check=_keeps_order,
)


def _repeats_others(node: Node) -> None:
    repeats: Any = node.args[1]
    shape = shape_of(node.args[0])
    added = len(repeats) - len(shape)
    for size, count in zip(shape, repeats[added:], strict=True):
        need(is_plain(size) or count == 1, node, "repeats a size that varies")


as_it_is(aten.repeat.default, check=_repeats_others)


def _dim(node: Node, position: int, default: int = 0) -> int:
    return int(argument(node, position, "dim", default)) % len(shape_of(node.args[0]))


def _along_fixed(node: Node, dims: Iterable[int]) -> None:
    shape = shape_of(node.args[0])
    need(all(is_plain(shape[dim]) for dim in dims), node, "operates along a size that varies")


def _splits_fixed(node: Node) -> None:
    position = 1 if "unbind" in str(node.target) else 2
    _along_fixed(node, [_dim(node, position)])
    need(all(map(is_plain, _flat(node.args[1:]))), node)


def _flat(values: Any) -> list[Any]:
    if isinstance(values, list | tuple):
        return [leaf for value in values for leaf in _flat(value)]
    return [values]


as_it_is(
    aten.unbind.int,
    aten.split.Tensor,
    aten.split_with_sizes.default,
    check=_splits_fixed,
)


def _stacks_equal(node: Node) -> None:
    parts: Any = node.args[0]
    need(all(shape_of(part) == shape_of(parts[0]) for part in parts), node)


as_it_is(aten.stack.default, check=_stacks_equal)


def _pads_fixed(node: Node) -> None:
    widths: Any = node.args[1]
    shape = shape_of(node.args[0])
    for dim, before, after in zip(range(len(shape))[::-1], widths[::2], widths[1::2], strict=False):
        need(is_plain(before) and is_plain(after), node)
        need(is_plain(shape[dim]) or before == after == 0, node, "pads a size that varies")


as_it_is(aten.constant_pad_nd.default, check=_pads_fixed)


def _joins(node: Node) -> None:
    parts: Any = node.args[0]
    dim = int(argument(node, 1, "dim", 0)) % len(shape_of(node))
    for part in parts:
        need(len(shape_of(part)) == len(shape_of(node)), node)
        aligned(node, _without(shape_of(part), dim), _without(shape_of(node), dim))


def _without(shape: Sequence[Length], dim: int) -> list[Length]:
    return [size for d, size in enumerate(shape) if d != dim]


@counts_in(aten.cat.default, check=_joins)
def _cat(call: Call, parts: Sequence[jax.Array], dim: int = 0) -> jax.Array:
    """Write each part after the real elements of the previous ones, over their padding."""
    recorded = [value_of(part) for part in call.node.args[0]]  # type: ignore[union-attr]
    dim %= parts[0].ndim
    joined = jnp.zeros(call.counts.shape(call.output), jnp.result_type(*parts))
    start: Any = 0
    for part, value in zip(parts, recorded, strict=True):
        joined = lax.dynamic_update_slice_in_dim(joined, part.astype(joined.dtype), start, dim)
        start = start + call.counts.value(lengths(value)[dim])
    return joined


@counts_in(aten.flip.default, check=lambda node: None)
def _flip(call: Call, x: jax.Array, dims: Sequence[int]) -> jax.Array:
    shape = call.shape(0)
    for dim in dims:
        size = shape[dim]
        places = call.counts.value(size) - 1 - jnp.arange(call.counts.bound(size))
        x = jnp.take(x, places, dim, mode="clip")
    return x


def number_of(item: Any, default: Length) -> Length:
    """Return an argument as an int, or as an expression if it depends on counts."""
    if item is None:
        return default
    recorded = value_of(item)
    counted = counted_number(recorded)
    return int(recorded) if counted is None else counted


def _selects_within(node: Node) -> Iterator[Any]:
    size = shape_of(node.args[0])[_dim(node, 1)]
    index = number_of(argument(node, 2, "index"), 0)
    if is_plain(size):
        need(is_plain(index), node)
    elif isinstance(index, int):
        yield sympy.Ge(size, -index) if index < 0 else sympy.Gt(size, index)
    else:
        yield sympy.And(sympy.Ge(index, 0), sympy.Lt(index, size))


def _place(call: Call, index: Any, size: Length) -> Any:
    """Return an index counted from the start."""
    if isinstance(index, Number):
        return index.value
    return index if index >= 0 else call.counts.value(size) + index


@counts_in(aten.select.int, aten.select_copy.int, check=_selects_within)
def _select(call: Call, x: jax.Array, dim: int, index: Any) -> jax.Array:
    place = _place(call, index, call.shape(0)[dim])
    return jnp.take(x, place, dim, mode="clip")


def _writes_within(node: Node) -> Iterator[Any]:
    size = shape_of(node.args[0])[_dim(node, 2)]
    index = number_of(argument(node, 3, "index"), 0)
    need(isinstance(index, int), node)
    if not is_plain(size):
        yield sympy.Ge(size, -int(index)) if int(index) < 0 else sympy.Gt(size, index)


@counts_in(aten.select_scatter.default, check=_writes_within)
def _select_scatter(call: Call, x: jax.Array, source: jax.Array, dim: int, index: Any) -> Any:
    place = _place(call, index, call.shape(0)[dim])
    at = (*[slice(None)] * (dim % x.ndim), place)
    return x.at[at].set(source.astype(x.dtype))


def _end(call: Call, end: Any, size: Length, default: Any) -> Any:
    """Return where a slice begins or ends, counted from the start and within the size."""
    if end is None:
        return default
    if isinstance(end, int):  # possibly the largest of 64 bits, which stands for the size
        most = call.counts.bound(size)
        end = min(max(end, -most), most)
    end = end.value if isinstance(end, Number) else end
    size = call.counts.value(size)
    return jnp.clip(jnp.where(end < 0, end + size, end), 0, size)


def _varies(*ends: Any) -> bool:
    """Return whether the end of a slice is computed while the graph runs."""
    return any(isinstance(end, Number | jax.Array) for end in ends)


def _cuts(node: Node, first: int = 1) -> None:
    size = shape_of(node.args[0])[_dim(node, first)]
    ends = [argument(node, first + 1, "start", 0), argument(node, first + 2, "end", 0)]
    if not is_plain(size) or not all(e is None or is_plain(e) for e in ends):
        need(argument(node, first + 3, "step", 1) == 1, node)


@counts_in(aten.slice.Tensor, aten.slice_copy.Tensor, check=_cuts)
def _slice(
    call: Call, x: jax.Array, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> jax.Array:
    size = call.shape(0)[dim]
    if is_plain(size) and not _varies(start, end):
        result: jax.Array = call.ordinary(x, dim, start, end, step)
        return result
    first = _end(call, start, size, 0)
    if not is_plain(call.output.shape[dim]):
        # A number that was read from a tensor gives a size that no count has determined.
        last = _end(call, end, size, call.counts.value(size))
        length = jnp.maximum(jnp.asarray(last - first), 0)
        call.counts.set(call.output.shape[dim], call.counts.bound(size), length)
    places = first + jnp.arange(call.counts.shape(call.output)[dim])
    return jnp.take(x, places, dim, mode="clip")


def _cuts_written(node: Node) -> None:
    _cuts(node, 2)


@counts_in(aten.slice_scatter.default, check=_cuts_written)
def _slice_scatter(
    call: Call,
    x: jax.Array,
    source: jax.Array,
    dim: int = 0,
    start: Any = None,
    end: Any = None,
    step: int = 1,
) -> jax.Array:
    size = call.shape(0)[dim]
    if is_plain(size) and not _varies(start, end):
        result: jax.Array = call.ordinary(x, source, dim, start, end, step)
        return result
    first = _end(call, start, size, 0)
    length = call.shape(1)[dim]
    places = jnp.arange(call.counts.bound(length))
    places = jnp.where(places < call.counts.value(length), first + places, x.shape[dim])
    at = (*[slice(None)] * (dim % x.ndim), places)
    return x.at[at].set(source.astype(x.dtype), mode="drop")
