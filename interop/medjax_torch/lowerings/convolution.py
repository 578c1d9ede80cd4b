"""Convolutions and transposed convolutions of one to three dimensions, and their derivatives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import torch
from jax import lax

from medjax_torch.lowerings.precision import operands
from medjax_torch.lowerings.table import lowers

aten = torch.ops.aten


def per_dim(value: int | Sequence[int], rank: int) -> list[int]:
    """Return one number per spatial dimension; torch allows a single one for all."""
    values = [value] if isinstance(value, int) else list(value)
    return values * rank if len(values) == 1 else values


def _forward(
    x: jax.Array,
    weight: jax.Array,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> jax.Array:
    return lax.conv_general_dilated(
        *operands(x, weight),
        stride,
        [(p, p) for p in padding],
        rhs_dilation=dilation,
        feature_group_count=groups,
    ).astype(x.dtype)


def _transposed(
    x: jax.Array,
    weight: jax.Array,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    output_padding: Sequence[int],
    groups: int,
) -> jax.Array:
    """Convolve the input, dilated by the stride, with the mirrored kernel."""
    inputs, outputs, *kernel = weight.shape
    mirrored = jnp.flip(weight, range(2, weight.ndim))
    # torch stores a transposed kernel as (inputs, outputs per group); JAX expects
    # (outputs, inputs per group).
    grouped = mirrored.reshape(groups, inputs // groups, outputs, *kernel).swapaxes(1, 2)
    margins = [
        (d * (k - 1) - p, d * (k - 1) - p + extra)
        for d, k, p, extra in zip(dilation, kernel, padding, output_padding, strict=True)
    ]
    return lax.conv_general_dilated(
        *operands(x, grouped.reshape(groups * outputs, inputs // groups, *kernel)),
        (1,) * len(kernel),
        margins,
        lhs_dilation=stride,
        rhs_dilation=dilation,
        feature_group_count=groups,
    ).astype(x.dtype)


@lowers(aten.convolution.default)
def _convolution(
    x: jax.Array,
    weight: jax.Array,
    bias: jax.Array | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> jax.Array:
    rank = weight.ndim - 2
    stride, padding = per_dim(stride, rank), per_dim(padding, rank)
    dilation, output_padding = per_dim(dilation, rank), per_dim(output_padding, rank)
    if transposed:
        result = _transposed(x, weight, stride, padding, dilation, output_padding, groups)
    else:
        result = _forward(x, weight, stride, padding, dilation, groups)
    return result if bias is None else result + bias.reshape(-1, *(1,) * rank)


@lowers(aten.convolution_backward.default)
def _convolution_backward(
    gradient: jax.Array,
    x: jax.Array,
    weight: jax.Array,
    bias_sizes: Sequence[int] | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    wanted: Sequence[bool],
) -> tuple[Any, Any, Any]:
    """Return the derivatives by input, weight and bias, None for those not requested."""
    options = (stride, padding, dilation, transposed, output_padding, groups)

    def function(x: jax.Array, weight: jax.Array) -> jax.Array:
        return _convolution(x, weight, None, *options)

    by_input, by_weight = jax.vjp(function, x, weight)[1](gradient)
    by_bias = gradient.sum((0, *range(2, gradient.ndim)))
    every = (by_input, by_weight, by_bias)
    return tuple(value if want else None for value, want in zip(every, wanted, strict=True))  # type: ignore[return-value]
