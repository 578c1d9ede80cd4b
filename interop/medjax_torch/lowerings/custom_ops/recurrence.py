"""One direction of a recurrent layer as a single operator of the graph, and its derivative.

Step by step, a graph would have hundreds of operations for each token, and XLA would compile them
one by one; as an operator it is a loop.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op
from torch.nn import functional as F

from medjax_torch.graph.recurrent import State, Weights, unrolled


@custom_op("medjax::recurrence", mutates_args=())
def recurrence(
    kind: str,
    from_inputs: Tensor,
    valid: Tensor | None,
    hidden: Tensor,
    cell: Tensor | None,
    recurrent: Tensor,
    bias: Tensor | None,
    projection: Tensor | None,
    backwards: bool,
) -> tuple[Tensor, Tensor]:
    """Return the hidden states of all steps and the last cell state, computed by torch.

    Parameters
    ----------
    kind, from_inputs, valid, backwards
        As for `medjax_torch.graph.recurrent.unrolled`.
    hidden, cell : Tensor
        The initial state; only an LSTM has a cell state.
    recurrent, bias, projection : Tensor
        As for `medjax_torch.graph.recurrent.Weights`.

    Returns
    -------
    hidden : Tensor
        Shape (steps, rows, size of the hidden state).
    cell : Tensor
        Shape (rows, size), without elements if there is none.
    """
    state = (hidden,) if cell is None else (hidden, cell)
    weights = Weights(recurrent, bias, projection)
    outputs, last = unrolled(kind, from_inputs, valid, state, weights, backwards)
    return outputs, last[1] if len(last) > 1 else hidden.new_empty(0)


@custom_op("medjax::recurrence_backward", mutates_args=())
def recurrence_backward(
    to_outputs: Tensor,
    to_cell: Tensor,
    kind: str,
    from_inputs: Tensor,
    valid: Tensor | None,
    hidden: Tensor,
    cell: Tensor | None,
    recurrent: Tensor,
    bias: Tensor | None,
    projection: Tensor | None,
    backwards: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the derivatives by the floating-point arguments of `recurrence`, in their order.

    That by an argument that is None has no elements.
    """
    # Written out, as torch does not differentiate the body of a custom operator.
    weights = Weights(recurrent, bias, projection)
    state: State = (hidden,) if cell is None else (hidden, cell)
    order = range(len(from_inputs))
    steps = list(reversed(order) if backwards else order)
    before = []
    for step in steps:
        before.append(state)
        of_step = slice(step, step + 1)
        counts = None if valid is None else valid[of_step]
        _, state = unrolled(kind, from_inputs[of_step], counts, state, weights, False)
    of_bias = torch.zeros(recurrent.shape[0], dtype=recurrent.dtype, device=recurrent.device)
    totals = [torch.zeros_like(recurrent), of_bias]
    totals.append(hidden.new_empty(0) if projection is None else torch.zeros_like(projection))
    of_inputs = torch.zeros_like(from_inputs)
    of_state = [torch.zeros_like(hidden)] + ([] if cell is None else [to_cell])
    for step, earlier in zip(reversed(steps), reversed(before), strict=True):
        of_state[0] = of_state[0] + to_outputs[step]
        kept = [torch.zeros_like(each) for each in of_state]
        if valid is not None:
            counts = valid[step].unsqueeze(1)
            kept = [torch.where(counts, 0, each) for each in of_state]
            of_state = [torch.where(counts, each, 0) for each in of_state]
        of_inputs[step], of_gates, of_earlier, of_projection = _CELLS[kind](
            from_inputs[step], earlier, weights, of_state
        )
        totals[0] += of_gates.mT @ earlier[0]
        totals[1] += of_gates.sum(0)
        if projection is not None:
            totals[2] += of_projection
        of_earlier[0] = of_earlier[0] + of_gates @ recurrent
        of_state = [one + other for one, other in zip(kept, of_earlier, strict=True)]
    return (
        of_inputs,
        of_state[0],
        hidden.new_empty(0) if cell is None else of_state[1],
        totals[0],
        totals[1] if bias is not None else hidden.new_empty(0),
        totals[2],
    )


def _lstm_backward(from_input: Tensor, state: State, weights: Weights, to: list[Tensor]) -> Any:
    hidden, cell = state
    gates = from_input + F.linear(hidden, weights.recurrent, weights.bias)
    enter, forget, new, leave = gates.chunk(4, 1)
    enter, forget, new, leave = enter.sigmoid(), forget.sigmoid(), new.tanh(), leave.sigmoid()
    shown = (forget * cell + enter * new).tanh()
    to_hidden, to_cell = to
    of_projection = None
    if weights.projection is not None:
        of_projection = to_hidden.mT @ (leave * shown)
        to_hidden = to_hidden @ weights.projection
    to_cell = to_cell + to_hidden * leave * (1 - shown**2)
    of_gates = torch.cat(
        [
            to_cell * new * enter * (1 - enter),
            to_cell * cell * forget * (1 - forget),
            to_cell * enter * (1 - new**2),
            to_hidden * shown * leave * (1 - leave),
        ],
        1,
    )
    return of_gates, of_gates, [torch.zeros_like(hidden), to_cell * forget], of_projection


def _gru_backward(from_input: Tensor, state: State, weights: Weights, to: list[Tensor]) -> Any:
    (hidden,), (to_hidden,) = state, to
    of_input = from_input.chunk(3, 1)
    of_hidden = F.linear(hidden, weights.recurrent, weights.bias).chunk(3, 1)
    reset = (of_input[0] + of_hidden[0]).sigmoid()
    update = (of_input[1] + of_hidden[1]).sigmoid()
    new = (of_input[2] + of_hidden[2] * reset).tanh()
    to_new = to_hidden * (1 - update) * (1 - new**2)
    to_reset = to_new * of_hidden[2] * reset * (1 - reset)
    to_update = to_hidden * (hidden - new) * update * (1 - update)
    to_input = torch.cat([to_reset, to_update, to_new], 1)
    to_recurrent = torch.cat([to_reset, to_update, to_new * reset], 1)
    return to_input, to_recurrent, [to_hidden * update], None


def _simple_backward(kind: str) -> Any:
    def backward(from_input: Tensor, state: State, weights: Weights, to: list[Tensor]) -> Any:
        gates = from_input + F.linear(state[0], weights.recurrent, weights.bias)
        slope = 1 - gates.tanh() ** 2 if kind == "tanh" else (gates > 0).to(gates.dtype)
        return to[0] * slope, to[0] * slope, [torch.zeros_like(state[0])], None

    return backward


_CELLS = {
    "lstm": _lstm_backward,
    "gru": _gru_backward,
    "tanh": _simple_backward("tanh"),
    "relu": _simple_backward("relu"),
}
"""Derivatives of a step: by what the inputs add, by what the state adds, by the state itself other
than through that, and by the projection."""


@recurrence.register_fake
def _(kind: str, from_inputs: Tensor, valid: Any, hidden: Tensor, cell: Any, *rest: Any) -> Any:
    steps = from_inputs.shape[0]
    return hidden.new_empty(steps, *hidden.shape), hidden.new_empty(0) if cell is None else (
        torch.empty_like(cell, memory_format=torch.contiguous_format)
    )


@recurrence_backward.register_fake
def _(
    to_outputs: Tensor,
    to_cell: Tensor,
    kind: str,
    from_inputs: Tensor,
    valid: Any,
    hidden: Tensor,
    *others: Any,
) -> Any:
    cell, recurrent, bias, projection, _ = others

    def like(value: Tensor | None) -> Tensor:
        return hidden.new_empty(0 if value is None else value.shape)

    return tuple(map(like, (from_inputs, hidden, cell, recurrent, bias, projection)))


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    kind, *tensors, backwards = inputs
    ctx.save_for_backward(*tensors)
    ctx.kind, ctx.backwards = kind, backwards


def _backward(ctx: Any, to_outputs: Tensor, to_cell: Tensor) -> tuple[Tensor | None, ...]:
    tensors = ctx.saved_tensors
    found = recurrence_backward(to_outputs, to_cell, ctx.kind, *tensors, ctx.backwards)
    of_inputs, *others = (
        None if value is None else gradient
        for value, gradient in zip((tensors[0], *tensors[2:]), found, strict=True)
    )
    return None, of_inputs, None, *others, None


recurrence.register_autograd(_backward, setup_context=_save)


def recur(
    kind: str,
    from_inputs: Tensor,
    valid: Tensor | None,
    state: State,
    weights: Weights,
    backwards: bool,
) -> tuple[Tensor, State]:
    """Run one direction of a layer as one operator; see `medjax_torch.graph.recurrent.unrolled`."""
    cell = state[1] if len(state) > 1 else None
    outputs, last = recurrence(kind, from_inputs, valid, state[0], cell, *weights, backwards)
    hidden = outputs[0 if backwards else -1]
    return outputs, (hidden,) if cell is None else (hidden, last)
