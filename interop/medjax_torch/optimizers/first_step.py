"""The state that a torch optimizer keeps for each parameter, determined by steps on copies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from medjax_torch.graph.errors import TraceError
from medjax_torch.optimizers.entries import with_numbers
from medjax_torch.optimizers.stand_in import Entries, StandIn, States


class EntrySpec(NamedTuple):
    """An entry of a parameter's state.

    Attributes
    ----------
    kind : {"tensor", "int", "float", "fixed"}
        Its kind in torch; a fixed entry never changes.
    shape : tuple of int
        Shape of a tensor, () for other kinds.
    dtype : torch.dtype or None
        Dtype of a tensor.
    start : float, numpy array or None
        Its value before the first update, a single number if all elements are equal; None if the
        first update creates it. For a fixed entry, its value.
    """

    kind: Literal["tensor", "int", "float", "fixed"]
    shape: tuple[int, ...] = ()
    dtype: torch.dtype | None = None
    start: Any = None


StateSpecs = dict[str, dict[str, EntrySpec]]
"""StateSpecs by parameter and entry."""


class Learned(NamedTuple):
    """The result of `learn`.

    Attributes
    ----------
    slots : dict
        The state of each parameter.
    is_made_first : bool
        Whether the first update differs from later ones because it creates the state from its
        gradients, parameters or learning rate.
    """

    slots: StateSpecs
    is_made_first: bool


def learn(
    stand_in: StandIn,
    entries: Sequence[Entries],
    parameters: Mapping[str, Tensor],
    trained: Sequence[str],
    existing: States,
) -> Learned:
    """Run a few steps in torch, and return what state they keep.

    Parameters
    ----------
    stand_in : StandIn
        Runs the steps.
    entries : sequence of dict
        The groups.
    parameters : mapping of str to Tensor
        The parameters by name. They are not changed.
    trained : sequence of str
        The parameters that get a gradient.
    existing : dict
        States that the optimizer already has, for optimizers that create them when constructed.

    Raises
    ------
    TraceError
        If a state is not a tensor or number of constant shape and dtype.
    Exception
        Any exception of the step in torch.
    """

    def step(states: States, seed: int, factor: float = 1.0) -> tuple[States, States, Any]:
        draw = torch.Generator().manual_seed(seed)
        copies, gradients = {}, {}
        for name, parameter in parameters.items():
            copies[name] = (parameter.detach().cpu() * factor).requires_grad_()
            if name in trained:
                noise = 0.1 * torch.randn(parameter.shape, generator=draw)
                gradients[name] = noise.to(parameter.dtype)
        scaled = [with_numbers(group, lambda _, value: value * factor) for group in entries]
        after, first = stand_in.step(
            scaled if factor != 1.0 else entries, copies, gradients, _copied(states)
        )
        return after, first, copies

    initial: States = {}
    try:
        after, first, moved = step(initial, seed=0)
    except (KeyError, IndexError, AttributeError):
        if not existing:
            raise
        initial = {name: existing[name] for name in trained if name in existing}
        after, first, moved = step(initial, seed=0)
    settled, _, _ = step(after, seed=1)
    slots = _slots_of(stand_in, after, settled)
    if initial:
        return Learned(_starting(slots, initial), is_made_first=False)
    start = _as_kept(first, slots)
    if start is not None and _is_same(start, _as_kept(step({}, 2, factor=0.9)[1], slots)):
        other, _, where = step(start, seed=0)
        if _is_same(moved, where) and _is_same(other, after):
            return Learned(_starting(slots, start), is_made_first=False)
    return Learned(slots, is_made_first=True)


def _copied(states: States) -> States:
    return {
        name: {n: v.clone() if isinstance(v, Tensor) else v for n, v in slots.items()}
        for name, slots in states.items()
    }


def _slots_of(stand_in: StandIn, after: States, settled: States) -> StateSpecs:
    slots: StateSpecs = {}
    for name, entries in settled.items():
        slots[name] = {}
        for entry, value in entries.items():
            before = after.get(name, {}).get(entry)
            slot = _slot_of(value)
            if not isinstance(entry, str) or slot is None or not _fits(before, slot):
                raise TraceError(
                    f"{stand_in.kind} keeps {entry!r} of {name}: {_described(before)} after the "
                    f"first step, {_described(value)} after the second; expected numbers, and "
                    "tensors of constant shape and dtype. Return an optax.GradientTransformation "
                    "from configure_optimizer"
                )
            slots[name][entry] = slot
    gone = [n for n, entries in after.items() if entries.keys() - settled.get(n, {}).keys()]
    if gone:
        raise TraceError(
            f"{stand_in.kind} removes state of {gone[0]} in its second step; expected it to keep "
            "the entries of the first. Return an optax.GradientTransformation from "
            "configure_optimizer"
        )
    return slots


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)} and {value.dtype}"
    return repr(value)


def _slot_of(value: Any) -> EntrySpec | None:
    if isinstance(value, Tensor):
        return EntrySpec("tensor", tuple(value.shape), value.dtype)
    if value is None or isinstance(value, bool | str):
        return EntrySpec("fixed", start=value)
    if isinstance(value, int):
        return EntrySpec("int")
    return EntrySpec("float") if isinstance(value, float) else None


def _fits(before: Any, slot: EntrySpec) -> bool:
    first = _slot_of(before)
    return first is not None and first[:3] == slot[:3] and first.start == slot.start


def _as_kept(first: States, slots: StateSpecs) -> States | None:
    """Convert the first states to the slots' kinds; return None if an entry does not fit."""
    made: States = {}
    for name, kept in slots.items():
        made[name] = {}
        for entry, slot in kept.items():
            value = first.get(name, {}).get(entry, _MISSING)
            if slot.kind == "fixed":
                value = slot.start
            elif isinstance(value, bool) or not isinstance(value, int | float | Tensor):
                return None
            elif slot.kind == "tensor":
                value = torch.as_tensor(value, dtype=slot.dtype)
                if tuple(value.shape) != slot.shape:
                    return None
            elif isinstance(value, Tensor):
                return None
            made[name][entry] = value
    return made


_MISSING = object()


def _starting(slots: StateSpecs, start: States) -> StateSpecs:
    return {
        name: {
            entry: slot if slot.kind == "fixed" else slot._replace(start=_start(start[name][entry]))
            for entry, slot in kept.items()
        }
        for name, kept in slots.items()
    }


def _start(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return float(value)
    flat = value.detach().cpu().reshape(-1).to(torch.float32)
    if flat.numel() and bool((flat == flat[0]).all()):
        return float(flat[0])
    return np.array(flat.numpy().reshape(tuple(value.shape)))


def _is_same(first: Any, second: Any) -> bool:
    if isinstance(first, dict) and isinstance(second, dict):
        same_names = first.keys() == second.keys()
        return same_names and all(_is_same(value, second[name]) for name, value in first.items())
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return torch.equal(first, second)
    return bool(type(first) is type(second) and first == second)
