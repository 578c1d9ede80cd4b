"""Operators that reduce, contract or accumulate along sizes that are counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import sympy
import torch
from torch.fx import Node

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
from medjax_torch.lowerings.dtypes import maybe_dtype

aten = torch.ops.aten
prims = torch.ops.prims


def _axes(dims: Any, rank: int) -> list[int]:
    """Return the dimensions to reduce; None and an empty list mean all."""
    if dims is None or dims in ([], ()):
        return list(range(rank))
    return [int(d) % max(rank, 1) for d in ([dims] if isinstance(dims, int) else dims)]


def _always(node: Node) -> None:
    """Accept any node: padding is masked along the dimensions that are reduced."""


def _reduced(neutral: Callable[[Any], Any]) -> Callable[..., Any]:
    """Return a function that runs a reduction with padding replaced by `neutral`."""

    def run(call: Call, x: jax.Array, dims: Any = None, *rest: Any, **options: Any) -> Any:
        axes = _axes(dims, x.ndim)
        x = call.filled(x, 0, neutral(x.dtype), axes)
        arguments = () if len(call.node.args) < 2 else (dims, *rest)
        return call.ordinary(x, *arguments, **options)

    return run


def _least(dtype: Any) -> Any:
    if dtype == jnp.bool_:
        return False
    return -jnp.inf if jnp.issubdtype(dtype, jnp.floating) else jnp.iinfo(dtype).min


def _greatest(dtype: Any) -> Any:
    if dtype == jnp.bool_:
        return True
    return jnp.inf if jnp.issubdtype(dtype, jnp.floating) else jnp.iinfo(dtype).max


for targets, neutral in (
    ((aten.sum.dim_IntList, prims.sum.default), lambda dtype: 0),
    ((aten.any.default, aten.any.dim, aten.any.dims), lambda dtype: 0),
    ((aten.all.default, aten.all.dim, aten.all.dims), lambda dtype: 1),
    ((aten.prod.dim_int,), lambda dtype: 1),
):
    counts_in(*targets, check=_always)(_reduced(neutral))


@counts_in(aten.sum.default, check=_always)
def _sum_all(call: Call, x: jax.Array, **options: Any) -> jax.Array:
    result: jax.Array = call.ordinary(call.filled(x, 0, 0), **options)
    return result


@counts_in(aten.prod.default, check=_always)
def _prod_all(call: Call, x: jax.Array, **options: Any) -> jax.Array:
    result: jax.Array = call.ordinary(call.filled(x, 0, 1), **options)
    return result


def _not_empty(node: Node) -> Iterator[Any]:
    """Rely on a count above 0: torch raises for the extreme of an empty tensor."""
    shape = shape_of(node.args[0])
    for dim in _axes(argument(node, 1, "dim"), len(shape)):
        if not is_plain(shape[dim]):
            yield sympy.Gt(shape[dim], 0)


def _one_place(node: Node) -> Iterator[Any]:
    """Refuse an index into the flattened tensor unless its padding comes last."""
    if argument(node, 1, "dim") is None:
        sizes = [size for size in shape_of(node.args[0]) if size != 1]
        need(all(map(is_plain, sizes[1:])), node)
    yield from _not_empty(node)


counts_in(aten.amax.default, aten.max.dim, aten.max.default, check=_not_empty)(_reduced(_least))
counts_in(aten.amin.default, aten.min.dim, aten.min.default, check=_not_empty)(_reduced(_greatest))
counts_in(aten.argmax.default, check=_one_place)(_reduced(_least))
counts_in(aten.argmin.default, check=_one_place)(_reduced(_greatest))


def _total(call: Call, axes: Sequence[int]) -> jax.Array:
    """Return how many elements are reduced to each element of the result."""
    total = jnp.ones((), jnp.int32)
    for dim in axes:
        total = total * call.counts.value(call.shape(0)[dim])
    return total


@counts_in(aten.mean.dim, aten.mean.default, check=_always)
def _mean(
    call: Call, x: jax.Array, dims: Any = None, keepdim: bool = False, dtype: Any = None
) -> jax.Array:
    axes = _axes(dims, x.ndim)
    x = call.filled(x.astype(maybe_dtype(dtype) or x.dtype), 0, 0, axes)
    sums = jnp.sum(x.astype(jnp.promote_types(x.dtype, jnp.float32)), tuple(axes), keepdims=keepdim)
    return sums / _total(call, axes)


@counts_in(aten.var.correction, check=_always)
def _var(
    call: Call, x: jax.Array, dims: Any = None, correction: Any = None, keepdim: bool = False
) -> jax.Array:
    axes = _axes(dims, x.ndim)
    total = _total(call, axes)
    x = call.filled(x.astype(jnp.promote_types(x.dtype, jnp.float32)), 0, 0, axes)
    mean = jnp.sum(x, tuple(axes), keepdims=True) / total
    squares = call.filled((x - mean) ** 2, 0, 0, axes)
    correction = 1 if correction is None else correction
    return jnp.sum(squares, tuple(axes), keepdims=keepdim) / jnp.maximum(total - correction, 0)


@counts_in(prims.var.default, check=_always)
def _prims_var(
    call: Call, x: jax.Array, dims: Any, correction: Any = 1, output_dtype: Any = None
) -> jax.Array:
    return _var(call, x, dims, correction)


as_it_is(
    # An element depends only on those before it, and padding comes last.
    aten.cumprod.default,
    aten.cumsum.default,
    aten.cummax.default,
    aten.cummin.default,
    aten.logcumsumexp.default,
)


@counts_in(aten._softmax.default, aten._log_softmax.default, check=_always)
def _softmax(call: Call, x: jax.Array, dim: int, half_to_float: bool) -> jax.Array:
    result: jax.Array = call.ordinary(call.filled(x, 0, -jnp.inf, [dim]), dim, half_to_float)
    return result


@counts_in(
    aten._softmax_backward_data.default, aten._log_softmax_backward_data.default, check=_always
)
def _softmax_backward(
    call: Call, gradient: jax.Array, output: jax.Array, dim: int, dtype: Any
) -> jax.Array:
    gradient, output = call.filled(gradient, 0, 0, [dim]), call.filled(output, 1, 0, [dim])
    result: jax.Array = call.ordinary(gradient, output, dim, dtype)
    return result


def _contracts(first: int) -> Callable[[Node], None]:
    def check(node: Node) -> None:
        x, y = shape_of(node.args[first]), shape_of(node.args[first + 1])
        contracted = y[-2] if len(y) > 1 else y[-1]
        need(x[-1] == contracted, node, f"contracts {x[-1]} with {contracted}")
        if len(x) == 3:
            need(x[0] == y[0], node)
        if first:
            aligned(node, shape_of(node.args[0]), shape_of(node))

    return check


def _contracted(first: int) -> Callable[..., Any]:
    """Return a function that multiplies matrices, with 0 where padding would be summed."""

    def run(call: Call, *arguments: Any, **options: Any) -> Any:
        operands = list(arguments)
        operands[first] = call.filled(operands[first], first, 0, [-1])
        rank = len(call.shape(first + 1))
        operands[first + 1] = call.filled(
            operands[first + 1], first + 1, 0, [-2 if rank > 1 else -1]
        )
        return call.ordinary(*operands, **options)

    return run


for products, first in (
    ((aten.mm.default, aten.bmm.default, aten.mv.default, aten.dot.default), 0),
    ((aten.addmm.default, aten.baddbmm.default, aten.addmv.default), 1),
):
    counts_in(*products, check=_contracts(first))(_contracted(first))
