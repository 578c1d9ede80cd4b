"""Calls of one direction of a recurrent layer as one operator."""

import torch
from table_calls import calls
from torch_cases import f

import medjax_torch.lowerings  # noqa: F401

medjax = torch.ops.medjax

STEPS, ROWS, SIZE, PROJECTED = 5, 4, 3, 2
VALID = torch.arange(STEPS)[:, None] < torch.tensor([5, 1, 3, 4])
GATES = {"lstm": 4, "gru": 3, "tanh": 1, "relu": 1}


def arguments(kind, *, biased=True, projects=False, valid=VALID, backwards=False):
    """Return the arguments of `recurrence`."""
    gates, shown = GATES[kind] * SIZE, PROJECTED if projects else SIZE
    return (
        kind,
        f(STEPS, ROWS, gates),
        valid,
        f(ROWS, shown),
        f(ROWS, SIZE) if kind == "lstm" else None,
        f(gates, shown),
        f(gates) if biased else None,
        f(PROJECTED, SIZE) if projects else None,
        backwards,
    )


CASES = [
    arguments("lstm"),
    arguments("lstm", biased=False, projects=True, valid=None, backwards=True),
    arguments("gru", backwards=True),
    arguments("gru", biased=False, valid=None),
    arguments("tanh", valid=None),
    arguments("relu", biased=False, backwards=True),
]

for _arguments in CASES:
    _hidden, _cell = _arguments[3:5]
    _to_cell = f(0) if _cell is None else f(*_cell.shape)
    calls("recurrence", medjax.recurrence.default, _arguments)
    calls(
        "recurrence",
        medjax.recurrence_backward.default,
        (f(STEPS, *_hidden.shape), _to_cell, *_arguments),
        tolerance=2e-6,
    )
