"""Arithmetic on numbers read from tensors, access to results, and operators without effect."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import torch

from medjax_torch.graph.packed import SORTED
from medjax_torch.graph.recompute import barrier
from medjax_torch.lowerings.table import lowers, lowers_each

aten = torch.ops.aten
profiler = torch.ops.profiler

lowers_each(
    {
        function: function
        for function in (
            operator.abs,
            operator.add,
            operator.floordiv,
            operator.getitem,
            operator.mod,
            operator.mul,
            operator.neg,
            operator.pow,
            operator.sub,
            operator.truediv,
        )
    }
)
lowers_each({torch.sym_sqrt: jnp.sqrt})
lowers_each({torch.sym_max: jnp.maximum, torch.sym_min: jnp.minimum})


def _float() -> Any:
    """Return the dtype of Python floats in JAX: float64 if enabled, else float32."""
    return jax.dtypes.canonicalize_dtype(jnp.float64)


@lowers(aten._local_scalar_dense.default)
def _item(x: jax.Array) -> jax.Array:
    """Return the only element; it stays a value of the graph, and floats get Python's precision."""
    value = x.reshape(())
    return value.astype(_float()) if jnp.issubdtype(value.dtype, jnp.floating) else value


@lowers(aten.sym_size.int)
def _size(x: jax.Array, dim: int) -> int:
    return int(x.shape[dim])


@lowers(aten.sym_numel.default)
def _numel(x: jax.Array) -> int:
    return int(x.size)


@lowers(torch.sym_float)
def _sym_float(x: Any) -> jax.Array:
    return jnp.asarray(x, _float())


@lowers(torch.sym_int)
def _sym_int(x: Any) -> jax.Array:
    return jnp.trunc(x).astype(jnp.int32)


@lowers(barrier)
def _barrier(values: Sequence[jax.Array]) -> list[jax.Array]:
    return list(jax.lax.optimization_barrier(list(values)))


@lowers(SORTED)
def _sorted(is_sorted: jax.Array, message: str, lengths: jax.Array) -> jax.Array:
    """Return lengths that the host has looked at; see `graph.ranges`."""
    del is_sorted, message
    return lengths


@lowers(
    aten._assert_async.msg,
    aten._assert_scalar.default,
    aten._assert_tensor_metadata.default,
    aten._linalg_check_errors.default,
    aten.sym_constrain_range.default,
    aten.sym_constrain_range_for_size.default,
    profiler._record_function_enter_new.default,
    profiler._record_function_exit._RecordFunction,
)
def _nothing(*arguments: Any, **options: Any) -> None:
    """Ignore checks, which ran during tracing, and torch's profiler marks."""
