"""Fourier transforms.

aten's scaling codes: 0 is none, 1 divides by the square root of the size, 2 by the size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import torch

from medjax_torch.lowerings.table import lowers

aten = torch.ops.aten


def _scale(norm: int, size: int) -> float:
    result: float = {0: 1.0, 1: size**-0.5, 2: 1 / size}[norm]
    return result


@lowers(aten._fft_r2c.default)
def _real_to_complex(x: jax.Array, dims: Sequence[int], norm: int, onesided: bool) -> jax.Array:
    transform = jnp.fft.rfftn if onesided else jnp.fft.fftn
    return transform(x, axes=dims) * _scale(norm, math.prod(x.shape[d] for d in dims))


@lowers(aten._fft_c2c.default)
def _complex_to_complex(x: jax.Array, dims: Sequence[int], norm: int, forward: bool) -> jax.Array:
    size = math.prod(x.shape[d] for d in dims)
    if forward:
        return jnp.fft.fftn(x, axes=dims) * _scale(norm, size)
    # numpy's inverse already divides by the size.
    return jnp.fft.ifftn(x, axes=dims) * (size * _scale(norm, size))


@lowers(aten._fft_c2r.default)
def _complex_to_real(x: jax.Array, dims: Sequence[int], norm: int, last: int) -> jax.Array:
    sizes = [*(x.shape[d] for d in dims[:-1]), last]
    size = math.prod(sizes)
    return jnp.fft.irfftn(x, s=sizes, axes=dims) * (size * _scale(norm, size))
