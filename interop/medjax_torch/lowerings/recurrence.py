"""One direction of a recurrent layer as a loop over its steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import torch
from jax import lax

from medjax_torch.lowerings import custom_ops as custom_ops
from medjax_torch.lowerings.precision import matmul
from medjax_torch.lowerings.table import lowers

_State = tuple[jax.Array, ...]
_Weights = tuple[jax.Array, jax.Array | None, jax.Array | None]


def _product(x: jax.Array, weight: jax.Array, bias: jax.Array | None = None) -> jax.Array:
    result = matmul(x, weight.mT, transposed=True)
    return result if bias is None else result + bias


def _lstm(from_input: jax.Array, state: _State, weights: _Weights) -> _State:
    hidden, cell = state
    recurrent, bias, projection = weights
    gates = jnp.split(from_input + _product(hidden, recurrent, bias), 4, 1)
    enter, forget, leave = (jax.nn.sigmoid(gates[place]) for place in (0, 1, 3))
    cell = forget * cell + enter * jnp.tanh(gates[2])
    hidden = leave * jnp.tanh(cell)
    return hidden if projection is None else _product(hidden, projection), cell


def _gru(from_input: jax.Array, state: _State, weights: _Weights) -> _State:
    (hidden,) = state
    of_input = jnp.split(from_input, 3, 1)
    of_state = jnp.split(_product(hidden, *weights[:2]), 3, 1)
    reset, update = (jax.nn.sigmoid(of_input[place] + of_state[place]) for place in (0, 1))
    new = jnp.tanh(of_input[2] + of_state[2] * reset)
    return ((hidden - new) * update + new,)


def _simple(activation: Callable[[jax.Array], jax.Array]) -> Callable[..., _State]:
    def cell(from_input: jax.Array, state: _State, weights: _Weights) -> _State:
        return (activation(from_input + _product(state[0], *weights[:2])),)

    return cell


_CELLS: dict[str, Callable[[jax.Array, _State, _Weights], _State]] = {
    "lstm": _lstm,
    "gru": _gru,
    "tanh": _simple(jnp.tanh),
    "relu": _simple(jax.nn.relu),
}


@lowers(torch.ops.medjax.recurrence.default)
def recurrence(
    kind: str,
    from_inputs: jax.Array,
    valid: jax.Array | None,
    hidden: jax.Array,
    cell: jax.Array | None,
    recurrent: jax.Array,
    bias: jax.Array | None,
    projection: jax.Array | None,
    backwards: bool,
) -> tuple[jax.Array, jax.Array]:
    """Return hidden states and last cell; see `custom_ops.recurrence.recurrence`."""
    weights = recurrent, bias, projection

    def step(state: _State, inputs: tuple[jax.Array, jax.Array | None]) -> tuple[_State, jax.Array]:
        from_input, counts = inputs
        new = _CELLS[kind](from_input, state, weights)
        if counts is not None:
            pairs = zip(new, state, strict=True)
            new = tuple(jnp.where(counts[:, None], one, other) for one, other in pairs)
        return new, new[0]

    first: _State = (hidden,) if cell is None else (hidden, cell)
    last, outputs = lax.scan(step, first, (from_inputs, valid), reverse=backwards)
    return outputs, jnp.zeros(0, hidden.dtype) if cell is None else last[1]


@lowers(torch.ops.medjax.recurrence_backward.default)
def _backward(
    to_outputs: jax.Array,
    to_cell: jax.Array,
    kind: str,
    from_inputs: jax.Array,
    valid: jax.Array | None,
    *others: Any,
) -> list[jax.Array]:
    *values, backwards = others
    given = [value for value in values if value is not None]

    def compute(from_inputs: jax.Array, *given: jax.Array) -> tuple[jax.Array, jax.Array]:
        present = iter(given)
        arguments = [None if value is None else next(present) for value in values]
        run: Callable[..., tuple[jax.Array, jax.Array]] = recurrence
        return run(kind, from_inputs, valid, *arguments, backwards)

    _, pull = jax.vjp(compute, from_inputs, *given)
    of_inputs, *found = pull((to_outputs, to_cell))
    present = iter(found)
    none = jnp.zeros(0, from_inputs.dtype)
    return [of_inputs, *(none if value is None else next(present) for value in values)]
