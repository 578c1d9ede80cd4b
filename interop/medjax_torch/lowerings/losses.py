"""Losses and distances for which torch has no decomposition."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import torch

from medjax_torch.lowerings.table import lowers

aten = torch.ops.aten

_NONE, _MEAN = 0, 1
"""aten's codes of the reductions; 2 is the sum."""


@lowers(aten.multi_margin_loss_backward.default)
def _multi_margin_backward(
    gradient: jax.Array,
    x: jax.Array,
    target: jax.Array,
    p: float,
    margin: float,
    weight: jax.Array | None = None,
    reduction: int = _MEAN,
) -> jax.Array:
    """Differentiate the formula in the documentation of `torch.nn.MultiMarginLoss`."""
    shape = x.shape
    x, target = x.reshape(-1, shape[-1]), target.reshape(-1, 1)
    rows, classes = x.shape
    excess = margin - jnp.take_along_axis(x, target, 1) + x
    others = jnp.arange(classes) != target
    slope = jnp.where(others & (excess > 0), 1 if p == 1 else 2 * excess, 0) / classes
    if weight is not None:
        slope = slope * weight[target]
    slope = jnp.where(others, slope, -slope.sum(1, keepdims=True))
    scale = gradient.reshape(-1, 1) / (rows if reduction == _MEAN else 1)
    return (slope * scale).reshape(shape)


def _violations(
    x: jax.Array, target: jax.Array, is_target: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return by how much each class ``(rows, labels, classes)`` violates the margin of a label.

    The second result is the labels, 0 after the last label of a row: a row ends at its first -1.
    """
    label = jnp.cumprod(target >= 0, 1).astype(bool)
    index = jnp.where(label, target, 0)
    excess = 1 - jnp.take_along_axis(x, index, 1)[:, :, None] + x[:, None, :]
    counted = label[:, :, None] & (is_target == 0)[:, None, :]
    return jnp.where(counted, jnp.maximum(excess, 0), 0), index


@lowers(aten.multilabel_margin_loss_forward.default)
def _multilabel_margin(
    x: jax.Array, target: jax.Array, reduction: int
) -> tuple[jax.Array, jax.Array]:
    """Return the loss in the documentation of `torch.nn.MultiLabelMarginLoss`, and the targets.

    torch's own decomposition (2.13) also counts the positions after a row's last label.
    """
    shape = x.shape
    x, target = x.reshape(-1, shape[-1]), target.reshape(-1, shape[-1])
    rows, classes = x.shape
    label = jnp.cumprod(target >= 0, 1).astype(bool)
    row = jnp.arange(rows)[:, None]
    is_target = jnp.zeros_like(x).at[row, jnp.where(label, target, classes)].set(1)
    loss = _violations(x, target, is_target)[0].sum((1, 2)) / classes
    if reduction == _NONE:
        loss = loss.reshape(shape[:-1])
    else:
        loss = loss.mean() if reduction == _MEAN else loss.sum()
    return loss, is_target.reshape(shape)


@lowers(aten.multilabel_margin_loss_backward.default)
def _multilabel_margin_backward(
    gradient: jax.Array, x: jax.Array, target: jax.Array, reduction: int, is_target: jax.Array
) -> jax.Array:
    shape = x.shape
    x, target, is_target = (v.reshape(-1, shape[-1]) for v in (x, target, is_target))
    rows, classes = x.shape
    excess, index = _violations(x, target, is_target)
    slope = (excess > 0).astype(x.dtype)
    row = jnp.arange(rows)[:, None]
    total = slope.sum(1).at[row, index].add(-slope.sum(2)) / classes
    scale = gradient.reshape(-1, 1) / (rows if reduction == _MEAN else 1)
    return (total * scale).reshape(shape)


@lowers(aten._cdist_forward.default)
def _cdist(x: jax.Array, y: jax.Array, p: float, compute_mode: int | None) -> jax.Array:
    apart = jnp.abs(x[..., :, None, :] - y[..., None, :, :])
    if p == 0:
        return (apart != 0).sum(-1).astype(x.dtype)
    if p == 1:
        return apart.sum(-1)
    if p == 2:
        return jnp.sqrt((apart * apart).sum(-1))
    return apart.max(-1) if math.isinf(p) else (apart**p).sum(-1) ** (1 / p)


@lowers(aten._cdist_backward.default)
def _cdist_backward(
    gradient: jax.Array, x: jax.Array, y: jax.Array, p: float, distance: jax.Array
) -> jax.Array:
    """Return the derivative by `x`; where it does not exist, 0.

    The cases are torch's (aten/src/ATen/native/cpu/DistanceOpsKernel.cpp).
    """
    apart = x[..., :, None, :] - y[..., None, :, :]
    distance, gradient = distance[..., None], gradient[..., None]
    if p == 0:
        return jnp.zeros_like(x)
    if p == 1:
        slope = jnp.sign(apart)
    elif math.isinf(p):
        slope = jnp.sign(apart) * (jnp.abs(apart) == distance)
    else:
        safe = jnp.where(distance == 0, 1, distance)
        moved = apart if p > 1 else jnp.where(apart == 0, 1, apart)
        slope = jnp.sign(apart) * (jnp.abs(moved) / safe) ** (p - 1)
        slope = jnp.where(distance == 0, 0, slope)
    return (gradient * slope).sum(-2)
