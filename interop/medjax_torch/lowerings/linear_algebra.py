"""Matrix products, determinants and linear systems."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import torch
from jax import lax

from medjax_torch.lowerings.precision import matmul
from medjax_torch.lowerings.table import Kind, Traced, lowers, lowers_each

aten = torch.ops.aten

lowers_each({aten.dot.default: jnp.dot, aten.mv.default: jnp.dot})


@lowers(aten.mm.default, aten.bmm.default, kind=Kind.TRACED)
def _mm(traced: Traced, x: jax.Array, y: jax.Array) -> jax.Array:
    return matmul(x, y, transposed=traced.swapped[1])


@lowers(aten.addmm.default, aten.baddbmm.default, kind=Kind.TRACED)
def _addmm(
    traced: Traced, bias: jax.Array, x: jax.Array, y: jax.Array, beta: Any = 1, alpha: Any = 1
) -> jax.Array:
    return _plus(bias, matmul(x, y, transposed=traced.swapped[2]), beta, alpha)


@lowers(aten.addmv.default)
def _addmv(bias: jax.Array, x: jax.Array, y: jax.Array, beta: Any = 1, alpha: Any = 1) -> jax.Array:
    return _plus(bias, jnp.dot(x, y), beta, alpha)


def _plus(bias: jax.Array, product: jax.Array, beta: Any, alpha: Any) -> jax.Array:
    product = product if _is(alpha, 1) else alpha * product
    if _is(beta, 0):  # torch then ignores the bias, even its NaNs
        return product
    return (bias if _is(beta, 1) else beta * bias) + product


def _is(factor: Any, value: int) -> bool:
    """Return whether a factor is a Python number equal to `value`, not one known on the device."""
    return isinstance(factor, int | float) and factor == value


@lowers(aten._trilinear.default)
def _trilinear(
    x: jax.Array,
    y: jax.Array,
    z: jax.Array,
    expand_x: Sequence[int],
    expand_y: Sequence[int],
    expand_z: Sequence[int],
    summed: Sequence[int],
    unroll_dim: int = 1,
) -> jax.Array:
    """Multiply three tensors, each with dimensions of size 1 inserted, and sum."""
    rank = x.ndim + len(expand_x)
    operands: list[Any] = []
    for tensor, inserted in ((x, expand_x), (y, expand_y), (z, expand_z)):
        operands += [tensor, [d for d in range(rank) if d not in inserted]]
    return jnp.einsum(*operands, [d for d in range(rank) if d not in summed])


@lowers(aten.linalg_inv_ex.default)
def _inverse(x: jax.Array, check_errors: bool = False) -> tuple[jax.Array, jax.Array]:
    return jnp.linalg.inv(x), _zero_pivot(jax.scipy.linalg.lu_factor(x)[0])


def _zero_pivot(lu: jax.Array) -> jax.Array:
    """Return the position from 1 of the first 0 on the diagonal of U, or 0 if there is none."""
    zero = jnp.diagonal(lu, axis1=-2, axis2=-1) == 0
    if not zero.shape[-1]:
        return jnp.zeros(zero.shape[:-1], jnp.int32)
    return jnp.where(zero.any(-1), jnp.argmax(zero, -1) + 1, 0)


@lowers(aten.linalg_cholesky_ex.default)
def _cholesky(
    x: jax.Array, upper: bool = False, check_errors: bool = False
) -> tuple[jax.Array, jax.Array]:
    # As in torch, only one triangle is read.
    lower = x.mT.conj() if upper else x
    factor = jnp.linalg.cholesky(lower, symmetrize_input=False)
    return factor.mT.conj() if upper else factor, _minor(lower, factor)


def _minor(x: jax.Array, factor: jax.Array) -> jax.Array:
    """Return the order of the first leading minor that is not positive, 0 if `factor` is finite.

    Its pivots are found by elimination in the lower triangle; JAX says only that there is one.
    """
    size = x.shape[-1]

    def eliminate(i: int, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        rest, found = state
        pivot = rest[..., i, i].real
        found = jnp.where((found == 0) & ~(pivot > 0), i + 1, found).astype(jnp.int32)
        column = rest[..., :, i]
        product = column[..., :, None] * column[..., None, :].conj()
        return rest - product / jnp.where(pivot > 0, pivot, 1)[..., None, None], found

    none = jnp.zeros(x.shape[:-2], jnp.int32)
    _, found = lax.fori_loop(0, size, eliminate, (x, none))
    broken = jnp.isnan(factor).any((-2, -1))
    return jnp.where(broken, jnp.where(found == 0, size, found), 0)


def _factors(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return LU and pivots in torch's form, with pivots counted from 1 as in LAPACK."""
    lu, pivots = jax.scipy.linalg.lu_factor(x)
    return lu, pivots + 1


@lowers(aten._linalg_det.default, kind=Kind.TRACED)
def _det(traced: Traced, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return the determinant and the factors of the matrix, or of its transpose.

    torch factors the transpose if its memory layout is LAPACK's, and its derivative repeats this
    check (aten/src/ATen/native/BatchLinearAlgebra.cpp).
    """
    tensor = traced.arguments[0]
    transposed = tensor.is_contiguous() and not tensor.is_complex()
    return jnp.linalg.det(x), *_factors(x.mT if transposed else x)


@lowers(aten._linalg_solve_ex.default)
def _solve(
    x: jax.Array, y: jax.Array, left: bool = True, check_errors: bool = False
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    vector = y.ndim == 1 or (x.ndim == y.ndim + 1 and y.shape == x.shape[:-1])
    columns = y[..., None] if vector else y
    solved = jnp.linalg.solve(x, columns) if left else jnp.linalg.solve(x.mT, columns.mT).mT
    lu, pivots = _factors(x)
    return solved[..., 0] if vector else solved, lu, pivots, _zero_pivot(lu)


@lowers(aten.linalg_lu_solve.default)
def _lu_solve(
    lu: jax.Array, pivots: jax.Array, y: jax.Array, left: bool = True, adjoint: bool = False
) -> jax.Array:
    """Solve A X = Y, or X A = Y if not `left`, from the factors of A or of its adjoint."""
    if not left:
        return _lu_solve(lu, pivots, y.mT.conj(), adjoint=not adjoint).mT.conj()

    def solve(lu: jax.Array, pivots: jax.Array, y: jax.Array) -> jax.Array:
        result: jax.Array = jax.scipy.linalg.lu_solve(
            (lu, pivots - 1), y, trans=2 if adjoint else 0
        )
        return result

    result: jax.Array = jnp.vectorize(solve, signature="(n,n),(n),(n,k)->(n,k)")(lu, pivots, y)
    return result


@lowers(aten.linalg_solve_triangular.default)
def _solve_triangular(
    x: jax.Array, y: jax.Array, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> jax.Array:
    batch = jnp.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    return lax.linalg.triangular_solve(
        jnp.broadcast_to(x, batch + x.shape[-2:]),
        jnp.broadcast_to(y, batch + y.shape[-2:]),
        left_side=left,
        lower=not upper,
        unit_diagonal=unitriangular,
    )
