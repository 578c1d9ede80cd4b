"""Random numbers that torch does not draw, which a graph would repeat at every step."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medjax_torch.graph.errors import TraceError, at, is_of_component

_PYTHON: Any = random._inst
_NUMPY: Any = np.random.mtrand._rand


class HostRandomError(TraceError):
    """Raised if forward draws numbers on the host, which a graph would repeat."""


@contextmanager
def watched(generators: Mapping[str, Any]) -> Iterator[Callable[[], dict[str, Any]]]:
    """Restore every generator's state after the block.

    Parameters
    ----------
    generators : mapping of str to generator
        The generators that the component holds, by path. `random` and `numpy.random` are added.

    Yields
    ------
    function
        Returns the generators of Python and numpy that have been drawn from so far, by name.
    """
    named = {"random": _PYTHON, "numpy.random": _NUMPY, **generators}
    states = {name: _state(generator) for name, generator in named.items()}
    marks = {name: _mark(state) for name, state in states.items()}
    torch_state, torch_seed = torch.get_rng_state(), torch.initial_seed()

    def drawn() -> dict[str, Any]:
        if torch.initial_seed() != torch_seed:
            raise TraceError(
                "forward sets torch's seed, which has no effect in a graph: its random numbers "
                "come from the step's key. If the numbers should stay the same, draw them once, "
                "in __init__."
            )
        return {
            name: generator
            for name, generator in named.items()
            if not isinstance(generator, torch.Generator)
            and _mark(_state(generator)) != marks[name]
        }

    try:
        yield drawn
    finally:
        for name, generator in named.items():
            _restore(generator, states[name])
        torch.set_rng_state(torch_state)


def refuse(drawn: Mapping[str, Any], call: Callable[[], object]) -> None:
    """Raise TraceError if `drawn` is not empty; `call` runs forward again to find the line."""
    if drawn:
        line = at(_line_of_draw(list(drawn.values()), call))
        raise HostRandomError(
            f"forward draws from {' and '.join(drawn)}{line}: a graph would repeat at every step "
            "the numbers drawn while it was traced. Draw with torch (torch.rand, torch.randperm "
            "...), in collate, or with functions of random and numpy.random that take numbers and "
            "are called through their module, as in np.random.beta(...), and use the results in "
            f"torch operations only.{_hint(line)}"
        )


def _hint(line: str) -> str:
    if "_compute_mask_indices" not in line:
        return ""
    return (
        " The model masks its input (SpecAugment): set mask_time_prob=0 and mask_feature_prob=0, "
        "or apply_spec_augment=False, in its configuration, and layerdrop=0."
    )


def _line_of_draw(generators: Sequence[Any], call: Callable[[], object]) -> str:
    """Return the first line of the component that changes the state of a generator."""
    latest, line_of_draw = "", ""
    mark = [_mark(_state(generator)) for generator in generators]

    def follow(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal latest, line_of_draw
        if line_of_draw or not is_of_component(frame.f_code.co_filename):
            return None
        if [_mark(_state(generator)) for generator in generators] != mark:
            line_of_draw = latest
        elif event == "line":
            latest = f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
        return follow

    previous = sys.gettrace()
    sys.settrace(follow)
    try:
        call()
    finally:
        sys.settrace(previous)
    return line_of_draw or latest


def _mark(state: Any) -> Hashable:
    """Return a state in a form that compares to a single bool, as its arrays do not."""
    if isinstance(state, dict):
        return tuple(_mark(value) for value in state.values())
    if isinstance(state, tuple | list):
        return tuple(_mark(value) for value in state)
    if isinstance(state, Tensor):
        return bytes(state.tolist())
    return state.tobytes() if isinstance(state, np.ndarray) else state


def _state(generator: Any) -> Any:
    if isinstance(generator, random.Random):
        return generator.getstate()
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    return generator.get_state()


def _restore(generator: Any, state: Any) -> None:
    if isinstance(generator, random.Random):
        generator.setstate(state)
    elif isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    else:
        generator.set_state(state)
