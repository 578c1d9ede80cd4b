"""Embeddings, embedding bags, and the renormalisation of embedding tables."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import torch

from medjax_torch.lowerings.indexing import take
from medjax_torch.lowerings.scattering import spoiled
from medjax_torch.lowerings.table import Kind, Traced, lowers

aten = torch.ops.aten

_MEAN, _MAX = 1, 2
"""aten's codes of the bag modes; 0 is the sum."""


@lowers(aten.embedding.default)
def _embedding(
    weight: jax.Array,
    index: jax.Array,
    padding_idx: int = -1,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> jax.Array:
    return take(weight, index, 0)


@lowers(aten.embedding_renorm.default)
def _renorm(weight: jax.Array, index: jax.Array, max_norm: float, norm_type: float) -> jax.Array:
    """Scale the rows selected by `index` down to `max_norm`; the 1e-7 is torch's."""
    norm = jnp.linalg.norm(weight, ord=norm_type, axis=1, keepdims=True)
    used = jnp.zeros((weight.shape[0], 1), bool).at[index.reshape(-1)].set(True)
    return jnp.where(used & (norm > max_norm), weight * (max_norm / (norm + 1e-7)), weight)


def _counted(index: jax.Array, bag: jax.Array, count: int, padding_idx: int) -> jax.Array:
    """Return which indices count: those of a bag that are not the padding."""
    within = bag < count
    return within & (index != padding_idx) if padding_idx >= 0 else within


def _bag_of(index: jax.Array, offsets: jax.Array, count: int) -> jax.Array:
    """Return the bag of each index; `count` for those after the last offset, if that is the end."""
    place = jnp.arange(index.shape[0])
    return jnp.searchsorted(offsets[: count + 1], place, side="right") - 1


def _sizes(counted: jax.Array, bag: jax.Array, count: int) -> jax.Array:
    return jax.ops.segment_sum(counted.astype(jnp.int32), bag, count)


@lowers(aten._embedding_bag.default, aten._embedding_bag_forward_only.default, kind=Kind.TRACED)
def _bags(
    traced: Traced,
    weight: jax.Array,
    index: jax.Array,
    offsets: jax.Array,
    scale_grad_by_freq: bool = False,
    mode: int = 0,
    sparse: bool = False,
    per_sample_weights: jax.Array | None = None,
    include_last_offset: bool = False,
    padding_idx: int = -1,
) -> tuple[jax.Array, ...]:
    """Return the bags, the bag of each index, the bag sizes, and the indices of the maxima.

    Any of the last three that torch leaves empty is empty.
    """
    count = offsets.shape[0] - include_last_offset
    bag = _bag_of(index, offsets, count)
    rows = take(weight, index, 0)
    counted = _counted(index, bag, count, padding_idx)
    size = _sizes(counted, bag, count)
    rows_of_max = jnp.zeros(0, jnp.int32)
    if per_sample_weights is not None:
        rows = rows * per_sample_weights[:, None]
    if mode == _MAX:
        result, rows_of_max = _maxima(rows, index, bag, counted, size)
    else:
        result = jax.ops.segment_sum(jnp.where(counted[:, None], rows, 0), bag, count)
        result = result / jnp.maximum(size, 1)[:, None] if mode == _MEAN else result
    result = spoiled(result, _are_no_offsets(offsets, index.shape[0]))
    rest = zip((bag, size, rows_of_max), traced.output[1:], strict=True)
    return result, *(_cut(value, meta.shape) for value, meta in rest)


def _are_no_offsets(offsets: jax.Array, total: int) -> jax.Array:
    """Return whether offsets fail to rise from 0 to at most `total`, an error in torch."""
    if not offsets.size:
        return jnp.array(False)
    falls = jnp.any(offsets[1:] < offsets[:-1])
    return falls | (offsets[0] != 0) | (offsets[-1] > total)


def _cut(value: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Return a value, or zeros of `shape` if torch leaves it empty on the traced device."""
    if value.size and 0 not in shape:
        return value
    return jnp.zeros(shape, value.dtype)


def _maxima(
    rows: jax.Array, index: jax.Array, bag: jax.Array, counted: jax.Array, size: jax.Array
) -> tuple[jax.Array, jax.Array]:
    count, filled = size.shape[0], (size > 0)[:, None]
    maximum = jax.ops.segment_max(jnp.where(counted[:, None], rows, -jnp.inf), bag, count)
    place = jnp.arange(index.shape[0])[:, None]
    holds = counted[:, None] & (rows == maximum[bag])
    first = jax.ops.segment_min(jnp.where(holds, place, index.shape[0]), bag, count)
    rows_of_max = jnp.where(filled, jnp.take(index, first, mode="clip"), 0)
    return jnp.where(filled, maximum, 0), rows_of_max


@lowers(aten._embedding_bag_dense_backward.default)
def _bags_dense_backward(
    gradient: jax.Array,
    index: jax.Array,
    bag: jax.Array,
    size: jax.Array,
    rows_of_max: jax.Array,
    num_weights: int,
    scale_grad_by_freq: bool,
    mode: int,
    per_sample_weights: jax.Array | None,
    padding_idx: int = -1,
) -> jax.Array:
    table = jnp.zeros((num_weights, gradient.shape[1]), gradient.dtype)
    if mode == _MAX:
        row = jnp.where(size[:, None] > 0, rows_of_max, num_weights)
        return table.at[row, jnp.arange(gradient.shape[1])].add(gradient, mode="drop")
    rows = gradient[bag]
    if mode == _MEAN:
        rows = rows / jnp.maximum(size, 1)[bag][:, None]
    if per_sample_weights is not None:
        rows = rows * per_sample_weights[:, None]
    if scale_grad_by_freq:
        rows = rows / jnp.zeros(num_weights, rows.dtype).at[index].add(1)[index][:, None]
    counted = _counted(index, bag, gradient.shape[0], padding_idx)
    rows = jnp.where(counted[:, None], rows, 0)
    return table.at[index].add(rows)


@lowers(aten._embedding_bag_backward.default)
def _bags_backward(
    gradient: jax.Array,
    index: jax.Array,
    offsets: jax.Array,
    bag: jax.Array,
    size: jax.Array,
    rows_of_max: jax.Array,
    num_weights: int,
    scale_grad_by_freq: bool,
    mode: int,
    sparse: bool,
    per_sample_weights: jax.Array | None,
    padding_idx: int = -1,
) -> jax.Array:
    # The forward pass may have left bag and size empty.
    count = gradient.shape[0]
    bag = _bag_of(index, offsets, count)
    return _bags_dense_backward(
        gradient,
        index,
        bag,
        _sizes(_counted(index, bag, count, padding_idx), bag, count),
        rows_of_max,
        num_weights,
        scale_grad_by_freq,
        mode,
        per_sample_weights,
        padding_idx,
    )


@lowers(aten._embedding_bag_per_sample_weights_backward.default)
def _bags_weights_backward(
    gradient: jax.Array,
    weight: jax.Array,
    index: jax.Array,
    offsets: jax.Array,
    bag: jax.Array,
    mode: int,
    padding_idx: int = -1,
) -> jax.Array:
    count = gradient.shape[0]
    bag = _bag_of(index, offsets, count)
    products = (gradient[bag] * take(weight, index, 0)).sum(1)
    return jnp.where(_counted(index, bag, count, padding_idx), products, 0)
