"""Plain examples of values that only exist while forward is recorded."""

from __future__ import annotations

import operator
from typing import Any

import torch

from medjax_torch.graph.read_numbers import ReadNumber, plain

_SYMBOLIC = {torch.SymInt: 1, torch.SymFloat: 1.0, torch.SymBool: True}
"""Numbers without a value, which a tensor gives that is recorded on shapes; an example of each."""


def example(value: Any) -> Any:
    """Return a value with plain numbers in it, itself if all of them are plain."""
    if type(value) not in (list, tuple, dict):
        number = plain(value) if isinstance(value, ReadNumber) else value
        return _SYMBOLIC.get(type(number), number)
    entries = list(value.values() if isinstance(value, dict) else value)
    examples = list(map(example, entries))
    if all(map(operator.is_, entries, examples)):
        return value
    return dict(zip(value, examples, strict=True)) if type(value) is dict else type(value)(examples)
