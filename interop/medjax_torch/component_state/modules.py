"""A component's tensors: finding, naming, swapping, reading and writing them.

Tensors are distinguished by identity: a tensor that two modules share is one tensor with one name,
and is replaced in both.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from medjax_torch.component_state.locations import (
    MISSING,
    Effect,
    Entry,
    Inherited,
    Location,
    Snapshot,
)
from medjax_torch.component_state.names import outermost, paths_of
from medjax_torch.component_state.tensors import is_expanded, overlapping, to_numpy, to_torch
from medjax_torch.component_state.walk import Walk, walk
from medjax_torch.component_state.watch.outside import Outside


@dataclass(frozen=True)
class Inventory:
    """The modules and tensors of a component.

    Attributes
    ----------
    modules : dict of str to nn.Module
        The outermost modules by path, ``""`` if the component itself is a module.
    parameters : dict of str to Tensor
        Distinct parameters: `nn.Parameter`, and other leaf tensors that require a gradient.
    buffers : dict of str to Tensor
        All other tensors, registered or not.
    ties : dict of str to tuple of str
        The other paths of a parameter or buffer that modules share.
    locations : dict of str to tuple of Location
        All places where each tensor is stored.
    content : Walk
        Everything that was reached from the component.
    functions : tuple of callable
        The component's forward and its caller, which may read what lies outside the component.
    """

    modules: dict[str, nn.Module]
    parameters: dict[str, Tensor]
    buffers: dict[str, Tensor]
    ties: dict[str, tuple[str, ...]]
    locations: dict[str, tuple[Location, ...]]
    content: Walk
    functions: tuple[Callable[..., Any], ...] = ()

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Parameters, then buffers."""
        return {**self.parameters, **self.buffers}

    def outside(self) -> Outside:
        """Look up what forward may read outside of the component now."""
        return Outside(self.functions, self.content)

    @property
    def classes(self) -> dict[str, list[str]]:
        """Names of the classes of Hugging Face's models, by number, and by where a model is.

        Names that say nothing, ``LABEL_0`` and so on, are left out.
        """
        seen: dict[int, object] = {}  # what is inside a model has the same configuration
        found = {}
        for path, whole in self.modules.items():
            for name, module in whole.named_modules():
                config = getattr(module, "config", None)
                by_number = getattr(config, "id2label", None)
                if not isinstance(by_number, dict) or id(config) in seen:
                    continue
                seen[id(config)] = config
                names = [str(by_number[number]) for number in sorted(by_number, key=int)]
                if names != [f"LABEL_{number}" for number in range(len(names))]:
                    where = ".".join(part for part in (path, name) if part)
                    found[f"classes of {where or 'the model'}"] = names
        return found

    @property
    def nb_bytes(self) -> int:
        """Size of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


def find(component: object, functions: Iterable[Callable[..., Any]] = ()) -> Inventory:
    """Find the torch modules, parameters and buffers of a component.

    The name of a tensor is the path of the outermost module that contains it, followed by torch's
    name within that module, such as ``"model.classifier.weight"``. For a tensor outside of modules
    it is the path of attributes, keys and indices.

    Parameters
    ----------
    component : object
        Any object: modules may be in attributes, containers, other objects or closures.
    functions : iterable of callable
        Functions that may read what lies outside the component.

    Raises
    ------
    ValueError
        If a parameter has no shape yet (a lazy module), is stored where it cannot be replaced (in
        a set, or an argument of a `functools.partial`), or shares memory with another one.
    """
    content = walk(component)
    modules = outermost(content)
    paths = paths_of(modules, content)
    locations: dict[int, list[Location]] = {}
    for path, location, tensor in content.tensors:
        if location is not None:
            locations.setdefault(id(tensor), []).append(location)
        elif _is_parameter(tensor):
            raise ValueError(
                f"The parameter at {path!r} is in a set or an argument of a partial, where it "
                "cannot be replaced. Keep it in an attribute, a list or a dict."
            )
    named = {names[0]: tensor for names, tensor in paths if id(tensor) in locations}
    parameters = {name: tensor for name, tensor in named.items() if _is_parameter(tensor)}
    _check_parameters(parameters)
    functions = tuple(functions)
    for path, generator in Outside(functions, content).content.generators.items():
        content.generators.setdefault(path, generator)
    return Inventory(
        modules=modules,
        parameters=parameters,
        buffers={name: tensor for name, tensor in named.items() if name not in parameters},
        ties={names[0]: names[1:] for names, _ in paths if len(names) > 1 and names[0] in named},
        locations={name: tuple(locations[id(tensor)]) for name, tensor in named.items()},
        content=content,
        functions=functions,
    )


def check_reachable(inventory: Inventory, optimizer: torch.optim.Optimizer) -> None:
    """Raise ValueError if the optimizer has a parameter that is not among the component's."""
    known = {id(tensor) for tensor in inventory.parameters.values()}
    for number, group in enumerate(optimizer.param_groups):
        for index, tensor in enumerate(group["params"]):
            if id(tensor) not in known:
                raise ValueError(
                    f"Parameter {index} of the optimizer's group {number}, of shape "
                    f"{tuple(tensor.shape)}, cannot be reached from the component, from which "
                    f"{len(known)} other parameters can. Keep its module in an attribute of the "
                    "component."
                )


def current(inventory: Inventory, name: str, placed: Tensor) -> Tensor:
    """Return the tensor that is stored under `name` after forward, `placed` if it is unchanged.

    Raises
    ------
    ValueError
        If forward stored different tensors in the places of this name.
    """
    left = [location.get() for location in inventory.locations[name]]
    others = [value for value in left if isinstance(value, Tensor) and value is not placed]
    if not others:
        return placed
    if any(value is not others[0] for value in left):
        raise ValueError(
            f"{name} is in {len(left)} places ({', '.join(inventory.ties.get(name, ()))}), and "
            "forward assigned another tensor to only some of them. Store a clone where the value "
            "should not change."
        )
    return others[0]


def separate(inventory: Inventory, name: str) -> None:
    """Replace a buffer everywhere by a copy that shares memory with no other tensor."""
    copy = inventory.buffers[name].detach().clone()
    for location in inventory.locations[name]:
        location.set(copy)
    inventory.buffers[name] = copy


@contextmanager
def swapped(
    inventory: Inventory, mapping: Mapping[str, Tensor], more: Sequence[tuple[Location, Any]] = ()
) -> Iterator[list[Effect]]:
    """Replace a component's tensors within the block, and restore everything afterwards.

    All other changes to the component's Python state in the block are undone too: attributes,
    buffers and hooks that were added, replaced or removed, modes, lists and dicts.

    Parameters
    ----------
    inventory : Inventory
        The component's tensors.
    mapping : mapping of str to Tensor
        The replacements, by the names of `inventory`.
    more : sequence of (Location, value)
        Other values to replace, in the component or elsewhere.

    Yields
    ------
    list of Effect
        Empty within the block; afterwards, the changes that the block made to the component,
        except for new values of tensors.
    """
    effects: list[Effect] = []
    outside = inventory.outside()
    before = [*inventory.content.snapshots(), *outside.snapshots()]
    inside: list[Snapshot] = []
    around: list[Snapshot] = []
    others = [(location, location.get()) for location, _ in more]
    try:
        for name, tensor in mapping.items():
            for location in inventory.locations[name]:
                location.set(tensor)
        for location, value in more:
            location.set(value)
        inside = inventory.content.snapshots()
        around = outside.snapshots()
        yield effects
    finally:
        effects += map(_of_class(inventory.content.objects), _effects(inside, around))
        for snapshot in before:
            snapshot.restore()
        for location, value in others:
            location.set(value)


def read(inventory: Inventory) -> dict[str, np.ndarray]:
    """Return a numpy copy of every parameter and buffer, by name; bfloat16 stays bfloat16."""
    return {name: to_numpy(tensor) for name, tensor in inventory.tensors.items()}


def write_back(inventory: Inventory, values: Mapping[str, np.ndarray]) -> None:
    """Copy arrays into the component's tensors, in place.

    Parameters
    ----------
    inventory : Inventory
        The component's tensors.
    values : mapping of str to array
        Arrays by name, each with the shape of its tensor; they are converted to its dtype. Tensors
        without an array are not changed.

    Raises
    ------
    ValueError
        If a name is unknown, a shape differs, or the elements of a tensor share memory, as after
        `expand`, while the values differ.
    """
    tensors = inventory.tensors
    for name, value in values.items():
        if name not in tensors:
            raise ValueError(f"The component has no parameter or buffer {name!r}.")
        target, source = tensors[name], to_torch(np.asarray(value))
        if target.shape != source.shape:
            raise ValueError(
                f"{name}: the array has shape {tuple(source.shape)}; "
                f"expected {tuple(target.shape)}."
            )
        source = source.to(target.device, target.dtype)
        with torch.no_grad():
            if not is_expanded(target):
                target.copy_(source)
            elif not torch.equal(target, source):
                raise ValueError(
                    f"{name}: its elements share memory, so it cannot hold different values. "
                    "Register a copy: tensor.expand(...).clone()."
                )


def _check_parameters(parameters: Mapping[str, Tensor]) -> None:
    for name, tensor in parameters.items():
        if nn.parameter.is_lazy(tensor):
            raise ValueError(
                f"{name}: this parameter of a lazy module has no shape yet. Run forward on a batch "
                "before training."
            )
    for first, second in overlapping(parameters):
        raise ValueError(
            f"{first} and {second} are two parameters with the same memory, so each update would "
            "be applied twice. Tie them by assigning one nn.Parameter to both modules."
        )


def _is_parameter(tensor: Tensor) -> bool:
    return isinstance(tensor, nn.Parameter) or (tensor.requires_grad and tensor.is_leaf)


def _effects(inside: Sequence[Snapshot], outside: Sequence[Snapshot]) -> list[Effect]:
    """Return the changes forward made that its next run might read.

    Ignored are modes, which every forward sets; tensors that replace tensors of the component,
    which are state; and containers that replace others with the same content.
    """
    snapshots = [*inside, *outside]
    contents = {id(snapshot.holder): snapshot.content for snapshot in snapshots}
    changes = [(one, change) for one in snapshots for change in one.changes()]
    exchanged = {
        id(change.before)
        for _, change in changes
        if type(change.before) is type(change.after)
        and _are_alike(contents.get(id(change.before), change.before), change.after)
    }
    own = set(map(id, inside))
    effects: dict[str, Effect] = {}
    for snapshot, change in changes:
        before, after = change.before, change.after
        if id(before) in exchanged or id(snapshot.holder) in exchanged:
            continue
        if change.path.rpartition(".")[2] == "training":
            continue
        undecided = before is None or before is MISSING
        if isinstance(after, Tensor) and not undecided and id(snapshot) in own:
            continue
        effects.setdefault(change.path, change)
    return list(effects.values())


def _of_class(objects: Iterable[tuple[str, object]]) -> Callable[[Effect], Effect]:
    """Return what finds the number in the class that an object's own number takes the place of."""
    owners = {id(each.__dict__): each for _, each in objects if hasattr(each, "__dict__")}

    def found(effect: Effect) -> Effect:
        place = effect.location
        if effect.before is not MISSING or not isinstance(place, Entry):
            return effect
        owner = owners.get(id(place.holder))
        default = None if owner is None else inspect.getattr_static(type(owner), place.key, None)
        if type(default) is not int:
            return effect
        return effect._replace(before=default, location=Inherited(owner, place.key))

    return found


def is_filled_in(effect: Effect) -> bool:
    """Return whether an effect is a string or an object, in a place that was None or missing."""
    return (effect.before is None or effect.before is MISSING) and not _has_values(effect.after)


_NUMBERS = (int, float, np.number, torch.SymInt, torch.SymFloat, torch.SymBool)


def _has_values(value: object) -> bool:
    """Return whether a value is a tensor or a number, or contains one."""
    if isinstance(value, dict):
        return any(map(_has_values, dict.values(value)))
    if isinstance(value, tuple | list):
        return any(map(_has_values, value))
    return isinstance(value, (Tensor, *_NUMBERS))


def _are_alike(before: object, after: object) -> bool:
    """Return whether two lists or dicts have the same elements; weak references count as equal.

    A recurrent layer recreates both of its lists when its weights have been replaced.
    """
    if isinstance(before, dict) and isinstance(after, dict):
        return before.keys() == after.keys() and all(before[key] is after[key] for key in after)
    if not isinstance(before, list) or not isinstance(after, list) or len(before) != len(after):
        return False
    return all(
        a is b or (isinstance(a, weakref.ref) and isinstance(b, weakref.ref))
        for a, b in zip(before, after, strict=True)
    )
