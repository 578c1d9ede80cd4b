"""The random generators that reading a loader may draw from, and their states as JSON."""

from __future__ import annotations

import base64
import random
import sys
from collections.abc import Mapping
from types import MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

_NUMPY: Any = np.random.mtrand._rand
_GLOBAL = {"random": random._inst, "numpy.random": _NUMPY, "torch": torch.default_generator}
_KINDS = (random.Random, np.random.Generator, np.random.RandomState, torch.Generator)

OWN = "generator"
"""Attribute of a DataLoader with the generator from which it seeds its workers."""

_CLOSED = sys.stdlib_module_names | {"jax", "jaxlib", "numpy"}
_DEEPEST = 8
_MOST_ELEMENTS = 64  # of a list, such as the datasets of a ConcatDataset, not its items
_MOST_OBJECTS = 10_000


def seed_workers(generator: torch.Generator, seed: int, *, training: bool) -> None:
    """Seed the generator from which a loader draws the seeds of its workers.

    Parameters
    ----------
    generator : torch.Generator
        The loader's.
    seed : int
        The seed of the run.
    training : bool
        Whether the loader is that of the training data. Evaluation draws other numbers.
    """
    other = np.random.SeedSequence((seed, 1)).generate_state(1, np.uint64)
    generator.manual_seed(seed if training else int(other[0]))


def generators_of(*loaders: DataLoader[Any]) -> dict[str, Any]:
    """Return the global generators, and those held by datasets, samplers and components, by path.

    Attributes, short lists and tuples are searched, modules are not.

    Parameters
    ----------
    *loaders : torch.utils.data.DataLoader
        From `make_dataloader`, or a user's.
    """
    found = dict(_GLOBAL)
    seen = {id(generator) for generator in found.values()}
    for number, loader in enumerate(loaders):
        for name in ("dataset", "collate_fn", "sampler", "batch_sampler", OWN):
            _collect(f"loader {number}.{name}", getattr(loader, name), found, seen, 0)
    return found


def _collect(path: str, value: Any, found: dict[str, Any], seen: set[int], depth: int) -> None:
    if isinstance(value, MethodType):
        value = value.__self__
    if id(value) in seen or depth > _DEEPEST or len(seen) > _MOST_OBJECTS:
        return
    if isinstance(value, _KINDS):
        seen.add(id(value))
        found[path] = value
        return
    if isinstance(value, list | tuple):
        children = dict(enumerate(value)) if len(value) <= _MOST_ELEMENTS else {}
    elif isinstance(value, Tensor | nn.Module | type) or (
        type(value).__module__.partition(".")[0] in _CLOSED
    ):
        return
    else:
        children = getattr(value, "__dict__", {})
    seen.add(id(value))
    for name, child in list(children.items()):
        _collect(f"{path}.{name}", child, found, seen, depth + 1)


def states_of(generators: Mapping[str, Any]) -> dict[str, Any]:
    """Return the states of generators by path, ready for JSON."""
    return {path: _encoded(_state(generator)) for path, generator in generators.items()}


def restore(generators: Mapping[str, Any], states: Mapping[str, Any]) -> list[str]:
    """Set the generators to their states, and return the paths of states without a generator.

    Raises
    ------
    ValueError
        If a state is not one of its generator's kind.
    """
    for path, state in states.items():
        if path in generators:
            try:
                _restore(generators[path], _decoded(state))
            except Exception as error:
                kind = type(generators[path]).__name__
                raise ValueError(
                    f"the state of the random generator {path} is not one of a {kind} "
                    f"({type(error).__name__}: {error}); expected what was saved with a {kind}. "
                    "Resume from another checkpoint, or keep the kind of the generator"
                ) from error
    return [path for path in states if path not in generators]


def _state(generator: Any) -> Any:
    if isinstance(generator, random.Random):
        version, numbers, rest = generator.getstate()
        return version, np.array(numbers, np.uint32), rest
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    if isinstance(generator, torch.Generator):
        return generator.get_state().numpy()
    return generator.get_state(legacy=False)


def _restore(generator: Any, state: Any) -> None:
    if isinstance(generator, random.Random):
        version, numbers, rest = state
        generator.setstate((version, tuple(numbers.tolist()), rest))
    elif isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, torch.Generator):
        generator.set_state(torch.from_numpy(state))
    else:
        generator.set_state(state)


def _encoded(state: Any) -> Any:
    if isinstance(state, dict):
        return {name: _encoded(value) for name, value in state.items()}
    if isinstance(state, tuple | list):
        return [_encoded(value) for value in state]
    if isinstance(state, np.ndarray):
        return {"dtype": state.dtype.str, "bytes": base64.b64encode(state.tobytes()).decode()}
    if isinstance(state, float):
        return {"float": state.hex()}
    return int(state) if isinstance(state, np.integer) else state


def _decoded(state: Any) -> Any:
    if isinstance(state, list):
        return [_decoded(value) for value in state]
    if not isinstance(state, dict):
        return state
    if state.keys() == {"dtype", "bytes"}:
        content = base64.b64decode(state["bytes"], validate=True)
        return np.frombuffer(content, np.dtype(state["dtype"])).copy()
    if state.keys() == {"float"}:
        return float.fromhex(state["float"])
    return {name: _decoded(value) for name, value in state.items()}
