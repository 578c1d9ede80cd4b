"""Recurrent layers over packed sequences that are kept padded.

Each row keeps its state past its end, so its last state is that of its last valid step. In the
backward direction, a row keeps its initial state until its last valid step is reached. The
arithmetic is that of ``aten/src/ATen/native/RNN.cpp``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from medjax_torch.graph.packed import Rows, Steps, dropout

State = tuple[Tensor, ...]
"""The hidden state, and for an LSTM also the cell state."""

Cell = Callable[[Tensor, State, Sequence[Tensor], bool], State]
"""Computes a new state from the input's part of the gates, the state and the weights."""


def _recur(state: Tensor, weights: Sequence[Tensor], biased: bool) -> Tensor:
    return F.linear(state, weights[1], weights[3] if biased else None)


def _lstm_cell(from_input: Tensor, state: State, weights: Sequence[Tensor], biased: bool) -> State:
    hidden, cell = state
    enter, forget, new, leave = (from_input + _recur(hidden, weights, biased)).chunk(4, 1)
    cell = forget.sigmoid() * cell + enter.sigmoid() * new.tanh()
    hidden = leave.sigmoid() * cell.tanh()
    projected = len(weights) % 2
    return F.linear(hidden, weights[-1]) if projected else hidden, cell


def _gru_cell(from_input: Tensor, state: State, weights: Sequence[Tensor], biased: bool) -> State:
    (hidden,) = state
    of_input = from_input.chunk(3, 1)
    of_state = _recur(hidden, weights, biased).chunk(3, 1)
    reset = (of_input[0] + of_state[0]).sigmoid()
    update = (of_input[1] + of_state[1]).sigmoid()
    new = (of_input[2] + of_state[2] * reset).tanh()
    return ((hidden - new) * update + new,)


def _simple_cell(activation: Callable[[Tensor], Tensor]) -> Cell:
    def cell(from_input: Tensor, state: State, weights: Sequence[Tensor], biased: bool) -> State:
        return (activation(from_input + _recur(state[0], weights, biased)),)

    return cell


def _direction(
    cell: Cell,
    rows: Rows,
    state: State,
    weights: Sequence[Tensor],
    biased: bool,
    backwards: bool,
) -> tuple[Tensor, State]:
    """Return the hidden states of all steps, and the last state."""
    from_inputs = F.linear(rows.padded, weights[0], weights[2] if biased else None)
    counted = rows.steps.valid.unsqueeze(2).unbind(0)
    hidden: list[Tensor] = []
    steps = list(zip(from_inputs.unbind(0), counted, strict=True))
    for step, counts in reversed(steps) if backwards else steps:
        new = cell(step, state, weights, biased)
        state = tuple(torch.where(counts, a, b) for a, b in zip(new, state, strict=True))
        hidden.append(state[0])
    return torch.stack(hidden[::-1] if backwards else hidden), state


def _layers(
    cell: Cell,
    rows: Rows,
    states: State,
    parameters: Sequence[Tensor],
    biased: bool,
    nb_layers: int,
    p: float,
    train: bool,
    bidirectional: bool,
) -> tuple[Rows, State]:
    directions = 2 if bidirectional else 1
    count = len(parameters) // (nb_layers * directions)
    last: list[State] = []
    for layer in range(nb_layers):
        outputs = []
        for direction in range(directions):
            number = layer * directions + direction
            weights = parameters[number * count : (number + 1) * count]
            first = tuple(state[number] for state in states)
            hidden, final = _direction(cell, rows, first, weights, biased, direction == 1)
            outputs.append(hidden)
            last.append(final)
        rows = Rows(torch.cat(outputs, 2), rows.steps)
        if p and train and layer < nb_layers - 1:
            rows = Rows(dropout(rows.padded, p, rows.steps), rows.steps)
    return rows, tuple(torch.stack(states) for states in zip(*last, strict=True))


def _replacement(original: Callable[..., Any], cell: Cell) -> Callable[..., Any]:
    """Return a function that handles packed rows and calls torch's own for all other arguments."""

    def call(*args: Any, **kwargs: Any) -> Any:
        if not isinstance(args[0], Rows):
            args = tuple(arg.read() if isinstance(arg, Steps) else arg for arg in args)
            return original(*args, **kwargs)
        rows, _, states, *rest = args
        states = tuple(states) if isinstance(states, tuple | list) else (states,)
        outputs, last = _layers(cell, rows, states, *rest)
        return outputs, *last

    return call


RECURRENT: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.lstm: _replacement(torch.lstm, _lstm_cell),
    torch.gru: _replacement(torch.gru, _gru_cell),
    torch.rnn_tanh: _replacement(torch.rnn_tanh, _simple_cell(torch.tanh)),
    torch.rnn_relu: _replacement(torch.rnn_relu, _simple_cell(torch.relu)),
}
"""Recurrent functions of torch, and their replacements that accept packed rows."""
