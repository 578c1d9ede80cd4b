"""Dataflow analysis of a traced function: which outputs are zero, and what they depend on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal

__all__ = ["depend_on", "known_zeros"]

# Names of primitives. These return zero if their first operand is zero. A division 0 / 0 is assumed
# not to happen: its result is not finite, which the step reports in any case.
_ZERO_OF_FIRST = frozenset(
    {
        "abs",
        "broadcast_in_dim",
        "convert_element_type",
        "copy",
        "cumsum",
        "div",
        "integer_pow",
        "neg",
        "reduce_max",
        "reduce_min",
        "reduce_precision",
        "reduce_sum",
        "reshape",
        "rev",
        "sharding_constraint",
        "sign",
        "slice",
        "split",
        "sqrt",
        "square",
        "squeeze",
        "tanh",
        "transpose",
    }
)
# These return zero if any operand is zero, and these if all operands are.
_ZERO_OF_ANY = frozenset({"conv_general_dilated", "dot_general", "mul"})
_ZERO_OF_ALL = frozenset(
    {
        "add",
        "add_any",
        "concatenate",
        "device_put",
        "max",
        "min",
        "optimization_barrier",
        "pad",
        "sub",
    }
)
# These run a program of their own.
_CALLS = frozenset(
    {
        "checkpoint",
        "closed_call",
        "core_call",
        "custom_jvp_call",
        "custom_vjp_call",
        "jit",
        "pjit",
        "remat",
        "remat2",
    }
)


def known_zeros(traced: ClosedJaxpr, zeros: Sequence[bool]) -> list[bool]:
    """Return which outputs are zero, whatever the values of the other inputs are.

    Parameters
    ----------
    traced : jax.extend.core.ClosedJaxpr
        From `jax.make_jaxpr`.
    zeros : sequence of bool
        For each input, whether all its elements are zero.

    Returns
    -------
    list of bool
        True is a proof, provided that all values are finite; False says nothing.

    Examples
    --------
    >>> traced = jax.make_jaxpr(lambda x, y: (x * y, x + y))(1.0, 1.0)
    >>> known_zeros(traced, [True, False])
    [True, False]
    """
    return _zeros_of(traced.jaxpr, list(map(_all_zero, traced.consts)), zeros)


def _zeros_of(jaxpr: Any, consts: Sequence[bool], zeros: Sequence[bool]) -> list[bool]:
    known = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *zeros), strict=True))

    def is_zero(atom: Any) -> bool:
        return _all_zero(atom.val) if isinstance(atom, Literal) else known[atom]

    for equation in jaxpr.eqns:
        outputs = _zeros_of_equation(equation, [is_zero(atom) for atom in equation.invars])
        known.update(zip(equation.outvars, outputs, strict=True))
    return [is_zero(atom) for atom in jaxpr.outvars]


def _zeros_of_equation(equation: Any, zeros: list[bool]) -> list[bool]:
    name, outputs = equation.primitive.name, len(equation.outvars)
    if name == "integer_pow" and equation.params["y"] <= 0:
        return [False]
    if name in _ZERO_OF_FIRST:
        return [zeros[0]] * outputs
    if name in _ZERO_OF_ANY:
        return [any(zeros)] * outputs
    if name in _ZERO_OF_ALL and len(zeros) == outputs > 1:  # each output belongs to one input
        return zeros
    if name in _ZERO_OF_ALL:
        return [all(zeros)] * outputs
    if name == "select_n":
        return [all(zeros[1:])]
    if name == "cond":
        branches = [known_zeros(branch, zeros[1:]) for branch in equation.params["branches"]]
        return [all(of_output) for of_output in zip(*branches, strict=True)]
    inner = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
    if name in _CALLS and inner is not None:
        closed = hasattr(inner, "consts")
        return known_zeros(inner, zeros) if closed else _zeros_of(inner, (), zeros)
    return [False] * outputs


def _all_zero(value: Any) -> bool:
    if isinstance(value, jax.core.Tracer):
        return False
    if isinstance(value, jax.Array) and not value.is_fully_addressable:
        return False
    dtype = np.result_type(value) if np.isscalar(value) else getattr(value, "dtype", None)
    if dtype is None or jax.numpy.issubdtype(dtype, jax.dtypes.extended):
        return False
    return not np.any(np.asarray(value))


def depend_on(traced: ClosedJaxpr, inputs: Sequence[bool]) -> list[bool]:
    """Return which outputs may depend on the chosen inputs.

    Parameters
    ----------
    traced : jax.extend.core.ClosedJaxpr
        From `jax.make_jaxpr`.
    inputs : sequence of bool
        For each input, whether it is chosen.

    Returns
    -------
    list of bool
        False is a proof. The outputs of an inner call are taken to depend on all its arguments.

    Examples
    --------
    >>> traced = jax.make_jaxpr(lambda x, y: (x + y, y * 2))(1.0, 1.0)
    >>> depend_on(traced, [True, False])
    [True, False]
    """
    jaxpr = traced.jaxpr
    reached = {var for var, chosen in zip(jaxpr.invars, inputs, strict=True) if chosen}

    def atoms(of: Sequence[Any]) -> Iterator[bool]:
        return (not isinstance(atom, Literal) and atom in reached for atom in of)

    for equation in jaxpr.eqns:
        if any(atoms(equation.invars)):
            reached.update(equation.outvars)
    return list(atoms(jaxpr.outvars))
