"""Recurrent layers, over packed sequences too, which are kept padded.

Each row keeps its state past its end, so its last state is that of its last valid step. In the
backward direction, a row keeps its initial state until its last valid step is reached. The
arithmetic is that of ``aten/src/ATen/native/RNN.cpp``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from medjax_torch.graph.packed import Rows, Steps, dropout

State = tuple[Tensor, ...]
"""The hidden state, and for an LSTM also the cell state."""


class Weights(NamedTuple):
    """The weights by which a state enters the next one.

    Attributes
    ----------
    recurrent : Tensor
        Float, shape (gates * size, size of the hidden state).
    bias : Tensor or None
        Float, shape (gates * size,).
    projection : Tensor or None
        Float, shape (size of the hidden state, size), of an LSTM with `proj_size`.
    """

    recurrent: Tensor
    bias: Tensor | None
    projection: Tensor | None


Recurrence = Callable[[str, Tensor, Tensor | None, State, Weights, bool], tuple[Tensor, State]]
"""Runs one direction of a layer; see `unrolled`."""


def _lstm_cell(from_input: Tensor, state: State, weights: Weights) -> State:
    hidden, cell = state
    gates = from_input + F.linear(hidden, weights.recurrent, weights.bias)
    enter, forget, new, leave = gates.chunk(4, 1)
    cell = forget.sigmoid() * cell + enter.sigmoid() * new.tanh()
    hidden = leave.sigmoid() * cell.tanh()
    projection = weights.projection
    return hidden if projection is None else F.linear(hidden, projection), cell


def _gru_cell(from_input: Tensor, state: State, weights: Weights) -> State:
    (hidden,) = state
    of_input = from_input.chunk(3, 1)
    of_state = F.linear(hidden, weights.recurrent, weights.bias).chunk(3, 1)
    reset = (of_input[0] + of_state[0]).sigmoid()
    update = (of_input[1] + of_state[1]).sigmoid()
    new = (of_input[2] + of_state[2] * reset).tanh()
    return ((hidden - new) * update + new,)


def _simple_cell(activation: Callable[[Tensor], Tensor]) -> Callable[..., State]:
    def cell(from_input: Tensor, state: State, weights: Weights) -> State:
        return (activation(from_input + F.linear(state[0], weights.recurrent, weights.bias)),)

    return cell


_CELLS: dict[str, Callable[[Tensor, State, Weights], State]] = {
    "lstm": _lstm_cell,
    "gru": _gru_cell,
    "tanh": _simple_cell(torch.tanh),
    "relu": _simple_cell(torch.relu),
}


def unrolled(
    kind: str,
    from_inputs: Tensor,
    valid: Tensor | None,
    state: State,
    weights: Weights,
    backwards: bool,
) -> tuple[Tensor, State]:
    """Run one direction of a layer, step by step.

    Parameters
    ----------
    kind : {"lstm", "gru", "tanh", "relu"}
        The kind of the layer.
    from_inputs : Tensor
        What the inputs add to the gates, float, shape (steps, rows, gates * size).
    valid : Tensor or None
        The steps that count, bool, shape (steps, rows); None if all do.
    state : tuple of Tensor
        The initial state: hidden, and of an LSTM cell, each of shape (rows, its size).
    weights : Weights
        The weights of the recurrence.
    backwards : bool
        Whether the last step comes first.

    Returns
    -------
    hidden : Tensor
        The hidden states of all steps, shape (steps, rows, size of the hidden state).
    state : tuple of Tensor
        The last state.
    """
    counted = [None] * len(from_inputs) if valid is None else valid.unsqueeze(2).unbind(0)
    hidden: list[Tensor] = []
    steps = list(zip(from_inputs.unbind(0), counted, strict=True))
    for step, counts in reversed(steps) if backwards else steps:
        new = _CELLS[kind](step, state, weights)
        if counts is not None:
            new = tuple(torch.where(counts, a, b) for a, b in zip(new, state, strict=True))
        state = new
        hidden.append(state[0])
    return torch.stack(hidden[::-1] if backwards else hidden), state


def _layers(
    kind: str,
    recurrence: Recurrence,
    inputs: Rows | Tensor,
    states: State,
    parameters: Sequence[Tensor],
    biased: bool,
    nb_layers: int,
    p: float,
    train: bool,
    bidirectional: bool,
) -> tuple[Rows | Tensor, State]:
    directions = 2 if bidirectional else 1
    count = len(parameters) // (nb_layers * directions)
    last: list[State] = []
    for layer in range(nb_layers):
        outputs = []
        for direction in range(directions):
            number = layer * directions + direction
            of_input, recurrent, *others = parameters[number * count : (number + 1) * count]
            biases = others[:2] if biased else [None, None]
            projection = others[-1] if len(others) % 2 else None
            padded, valid = _padded(inputs)
            hidden, final = recurrence(
                kind,
                F.linear(padded, of_input, biases[0]),
                valid,
                tuple(state[number] for state in states),
                Weights(recurrent, biases[1], projection),
                direction == 1,
            )
            outputs.append(hidden)
            last.append(final)
        inputs = _like(inputs, torch.cat(outputs, 2))
        if p and train and layer < nb_layers - 1:
            inputs = _dropped(inputs, p)
    return inputs, tuple(torch.stack(states) for states in zip(*last, strict=True))


def _padded(inputs: Rows | Tensor) -> tuple[Tensor, Tensor | None]:
    return (inputs.padded, inputs.steps.valid) if isinstance(inputs, Rows) else (inputs, None)


def _like(inputs: Rows | Tensor, outputs: Tensor) -> Rows | Tensor:
    return Rows(outputs, inputs.steps) if isinstance(inputs, Rows) else outputs


def _dropped(inputs: Rows | Tensor, p: float) -> Rows | Tensor:
    if isinstance(inputs, Rows):
        return Rows(dropout(inputs.padded, p, inputs.steps), inputs.steps)
    return F.dropout(inputs, p)


def _replacement(
    original: Callable[..., Any], kind: str, recurrence: Recurrence, *, of_tensors: bool
) -> Callable[..., Any]:
    """Return a function for packed rows, and for tensors if wanted; others go to torch's own."""

    def call(*args: Any, **kwargs: Any) -> Any:
        if isinstance(args[0], Rows):
            rows, _, states, *rest = args
            outputs, last = _layers(kind, recurrence, rows, _tuple(states), *rest)
            return outputs, *last
        args = tuple(arg.read() if isinstance(arg, Steps) else arg for arg in args)
        # Of packed data, the sizes and the states come before the list of weights.
        is_packed = kwargs or not isinstance(args[2], list | tuple)
        if is_packed or not of_tensors or not _is_sized(args[0]):
            return original(*args, **kwargs)
        inputs, states, *rest, batch_first = args
        inputs = inputs.transpose(0, 1) if batch_first else inputs
        outputs, last = _layers(kind, recurrence, inputs, _tuple(states), *rest)
        return outputs.transpose(0, 1) if batch_first else outputs, *last

    return call


def _tuple(states: Any) -> State:
    return tuple(states) if isinstance(states, tuple | list) else (states,)


def _is_sized(inputs: Tensor) -> bool:
    """Return whether the sizes are known and there is at least one step."""
    return all(type(size) is int for size in inputs.shape) and bool(inputs.numel())


def replacements(
    recurrence: Recurrence, *, of_tensors: bool
) -> dict[Callable[..., Any], Callable[..., Any]]:
    """Return torch's recurrent functions, with replacements that accept packed rows.

    Parameters
    ----------
    recurrence : Recurrence
        Runs each direction of each layer.
    of_tensors : bool
        Whether it also runs layers over tensors; if not, torch's own functions do.
    """
    kinds: dict[Callable[..., Any], str] = {
        torch.lstm: "lstm",
        torch.gru: "gru",
        torch.rnn_tanh: "tanh",
        torch.rnn_relu: "relu",
    }
    return {
        function: _replacement(function, kind, recurrence, of_tensors=of_tensors)
        for function, kind in kinds.items()
    }


UNDIFFERENTIABLE = "medjax.recurrence_backward"
"""The name of the derivative of a `Recurrence` that is one operator, in torch's error."""

RECURRENT = replacements(unrolled, of_tensors=False)
"""Recurrent functions of torch, and their replacements that accept packed rows."""
