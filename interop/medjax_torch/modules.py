"""The tensors that a component holds: find them, name them, swap them, read and write them.

Everything goes by identity: a tensor that two modules share is one tensor with one name, and is
replaced in both.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from medjax_torch.names import outermost, paths_of
from medjax_torch.slots import MISSING, Slot, Snapshot
from medjax_torch.tensors import is_expanded, overlapping, to_numpy, to_torch
from medjax_torch.walk import Walk, walk

Effect = tuple[str, Any, Any]
"""Where something was left, what lay there before and what lies there now."""


@dataclass(frozen=True)
class Found:
    """What a component holds.

    Attributes
    ----------
    modules : dict of str to nn.Module
        The outermost modules by their path, ``""`` if the component is one itself.
    parameters : dict of str to Tensor
        Distinct parameters: `nn.Parameter` and bare leaves that require a gradient.
    buffers : dict of str to Tensor
        Every other tensor, registered or not.
    ties : dict of str to tuple of str
        The other paths of a parameter or buffer that modules share.
    slots : dict of str to tuple of Slot
        Every place where the tensor of that name lies.
    content : Walk
        Everything else that was met.
    """

    modules: dict[str, nn.Module]
    parameters: dict[str, Tensor]
    buffers: dict[str, Tensor]
    ties: dict[str, tuple[str, ...]]
    slots: dict[str, tuple[Slot, ...]]
    content: Walk

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Parameters, then buffers."""
        return {**self.parameters, **self.buffers}


def find(component: object) -> Found:
    """Find the torch modules, parameters and buffers that `component` holds.

    A name is the path of the tensor: of the outermost module that holds it, then torch's own
    name in there, such as ``"model.classifier.weight"``; for a tensor in no module, the path of
    attributes, keys and indices.

    Parameters
    ----------
    component : object
        Anything: modules may lie in attributes, containers, other objects, closures.

    Raises
    ------
    ValueError
        If a parameter has no shape yet (a lazy module), lies where it cannot be replaced (in a
        set, or an argument of a `functools.partial`), or shares memory with another one.
    """
    content = walk(component)
    modules = outermost(content)
    paths = paths_of(modules, content)
    slots: dict[int, list[Slot]] = {}
    for path, slot, tensor in content.tensors:
        if slot is not None:
            slots.setdefault(id(tensor), []).append(slot)
        elif _is_parameter(tensor):
            raise ValueError(
                f"The parameter at {path!r} lies in a set or in an argument of a partial, where it "
                "cannot be replaced. Keep it in an attribute, a list or a dict."
            )
    named = {names[0]: tensor for names, tensor in paths if id(tensor) in slots}
    parameters = {name: tensor for name, tensor in named.items() if _is_parameter(tensor)}
    _check_parameters(parameters)
    return Found(
        modules=modules,
        parameters=parameters,
        buffers={name: tensor for name, tensor in named.items() if name not in parameters},
        ties={names[0]: names[1:] for names, _ in paths if len(names) > 1 and names[0] in named},
        slots={name: tuple(slots[id(tensor)]) for name, tensor in named.items()},
        content=content,
    )


def check_reachable(found: Found, optimizer: torch.optim.Optimizer) -> None:
    """Raise ValueError if the optimizer holds a parameter that was not found in the component."""
    known = {id(tensor) for tensor in found.parameters.values()}
    for number, group in enumerate(optimizer.param_groups):
        for index, tensor in enumerate(group["params"]):
            if id(tensor) not in known:
                raise ValueError(
                    f"Parameter {index} of the optimizer's group {number}, of shape "
                    f"{tuple(tensor.shape)}, cannot be reached from the component, which leads to "
                    f"{len(known)} other parameters. Keep its module in an attribute of the "
                    "component."
                )


def current(found: Found, name: str, placed: Tensor) -> Tensor:
    """Return the tensor that forward left in the places of `name`, `placed` if it left them alone.

    Raises
    ------
    ValueError
        If forward put two different tensors there.
    """
    left = [slot.get() for slot in found.slots[name]]
    others = [value for value in left if isinstance(value, Tensor) and value is not placed]
    if not others:
        return placed
    if any(value is not others[0] for value in left):
        raise ValueError(
            f"{name} lies in {len(left)} places ({', '.join(found.ties.get(name, ()))}), and "
            "forward assigned another tensor to some of them only. Keep a clone where the value "
            "should stay."
        )
    return others[0]


def separate(found: Found, name: str) -> None:
    """Put a copy, which shares its memory with no other tensor, in every place of a buffer."""
    copy = found.buffers[name].detach().clone()
    for slot in found.slots[name]:
        slot.set(copy)
    found.buffers[name] = copy


@contextmanager
def swapped(
    found: Found, mapping: Mapping[str, Tensor], more: Sequence[tuple[Slot, Any]] = ()
) -> Iterator[list[Effect]]:
    """Put other tensors in every place of the found ones, and put everything back afterwards.

    Also what else happened to the Python state of the component in the meantime is undone:
    attributes, buffers and hooks that were added, replaced or removed, modes, lists and dicts.

    Parameters
    ----------
    found : Found
        The component's content.
    mapping : mapping of str to Tensor
        The tensors to put in, by the names of `found`.
    more : sequence of (Slot, value)
        Other values to put in, inside the component or not.

    Yields
    ------
    list of Effect
        Empty; after the block, what it left in the component, other than the new values of
        tensors.
    """
    effects: list[Effect] = []
    before = found.content.snapshots()
    inside: list[Snapshot] = []
    others = [(slot, slot.get()) for slot, _ in more]
    try:
        for name, tensor in mapping.items():
            for slot in found.slots[name]:
                slot.set(tensor)
        for slot, value in more:
            slot.set(value)
        inside = found.content.snapshots()
        yield effects
    finally:
        effects += _effects(inside)
        for snapshot in before:
            snapshot.restore()
        for slot, value in others:
            slot.set(value)


def read(found: Found) -> dict[str, np.ndarray]:
    """Return a numpy copy of every parameter and buffer by name; bfloat16 stays bfloat16."""
    return {name: to_numpy(tensor) for name, tensor in found.tensors.items()}


def write_back(found: Found, values: Mapping[str, np.ndarray]) -> None:
    """Copy arrays into the component's tensors, in place.

    Parameters
    ----------
    found : Found
        The component's content.
    values : mapping of str to array
        By name, of the tensor's shape; converted to its dtype. Others keep what they hold.

    Raises
    ------
    ValueError
        If a name is unknown, a shape differs, or the elements of a tensor share memory (one made
        by `expand`) and the values do not.
    """
    tensors = found.tensors
    for name, value in values.items():
        if name not in tensors:
            raise ValueError(f"The component has no parameter or buffer {name!r}.")
        target, source = tensors[name], to_torch(np.asarray(value))
        if target.shape != source.shape:
            raise ValueError(
                f"{name}: an array of shape {tuple(source.shape)} was given, "
                f"expected {tuple(target.shape)}."
            )
        source = source.to(target.device, target.dtype)
        with torch.no_grad():
            if not is_expanded(target):
                target.copy_(source)
            elif not torch.equal(target, source):
                raise ValueError(
                    f"{name}: its elements share memory, so it cannot hold the given values. "
                    "Register a copy: tensor.expand(...).clone()."
                )


def _check_parameters(parameters: Mapping[str, Tensor]) -> None:
    for name, tensor in parameters.items():
        if nn.parameter.is_lazy(tensor):
            raise ValueError(
                f"{name}: the parameter of a lazy module has no shape yet. Run forward on one "
                "batch before training."
            )
    for first, second in overlapping(parameters):
        raise ValueError(
            f"{first} and {second} are two parameters over the same memory, so each update would "
            "count twice. Tie them by assigning one nn.Parameter to both modules."
        )


def _is_parameter(tensor: Tensor) -> bool:
    return isinstance(tensor, nn.Parameter) or (tensor.requires_grad and tensor.is_leaf)


def _effects(snapshots: Sequence[Snapshot]) -> list[Effect]:
    """Return where forward left something that its next run might read.

    Not counted are modes, which every forward sets, tensors in the place of tensors, which are
    state, values that were not decided before, as transformers does in its configurations, and
    containers in the place of others that held the same.
    """
    contents = {id(snapshot.holder): snapshot.content for snapshot in snapshots}
    changes = [(one, *change) for one in snapshots for change in one.changes()]
    exchanged = {
        id(before)
        for _, _, before, now in changes
        if type(before) is type(now) and _are_alike(contents.get(id(before), before), now)
    }
    effects: list[Effect] = []
    for snapshot, path, before, now in changes:
        undecided = before is None or before is MISSING
        if id(before) in exchanged or id(snapshot.holder) in exchanged:
            continue
        if isinstance(now, Tensor) == undecided and path.rpartition(".")[2] != "training":
            effects.append((path, before, now))
    return effects


def _are_alike(before: object, now: object) -> bool:
    """Tell whether two lists or dicts hold the same, or weak references.

    A recurrent layer makes both of its lists anew when it finds other weights than before.
    """
    if isinstance(before, dict) and isinstance(now, dict):
        return before.keys() == now.keys() and all(before[key] is now[key] for key in now)
    if not isinstance(before, list) or not isinstance(now, list) or len(before) != len(now):
        return False
    return all(
        a is b or (isinstance(a, weakref.ref) and isinstance(b, weakref.ref))
        for a, b in zip(before, now, strict=True)
    )
