"""Recording the attributes that forward reads.

Values that forward read while it was traced are constants in the graph. If one of them changes, the
graph no longer does what forward does.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrize

from medjax_torch.component_state.locations import Entry, Inherited, Member
from medjax_torch.component_state.walk import REGISTRIES, Walk
from medjax_torch.component_state.watch.places import Place, is_value, token

_TORCH = str(Path(torch.__file__).parent)


class AttributeReads:
    """Records which attributes of a component's objects are read before they are written.

    Parameters
    ----------
    *contents : Walk
        The component's objects, and those outside that it may read.
    """

    def __init__(self, *contents: Walk) -> None:
        objects = [each for one in contents for each in (*one.objects, *one.closed)]
        self._paths = {id(holder): path for path, holder in reversed(objects)}
        self._objects = [holder for _, holder in objects]  # so that ids stay valid
        self._written: set[tuple[int, str]] = set()
        self._places: dict[tuple[int, str], Place] = {}
        self._changed: dict[str, None] = {}

    @property
    def changed(self) -> tuple[str, ...]:
        """Paths of numbers and strings that were read and then set to other values."""
        return tuple(self._changed)

    @property
    def places(self) -> list[Place]:
        """The places read so far."""
        return list(self._places.values())

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record reads within the block."""
        self._written.clear()
        with ExitStack() as stack:
            for kind in {type(holder) for holder in self._objects}:
                stack.enter_context(self._listening(kind))
            yield

    @contextmanager
    def _listening(self, kind: type) -> Iterator[None]:
        """Intercept the attribute access of a class within the block."""
        get: Any = kind.__getattribute__
        put: Any = kind.__setattr__
        known, written = self._paths, self._written
        note, change = self._note, self._change

        def getting(self: Any, name: str) -> Any:
            if id(self) in known:
                note(self, name)
            return get(self, name)

        def setting(self: Any, name: str, value: Any) -> None:
            if id(self) in known:
                change(self, name, value)
                written.add((id(self), name))
            put(self, name, value)

        hooks = {"__getattribute__": getting, "__setattr__": setting}
        own = {name: vars(kind).get(name) for name in hooks}
        try:
            for name, hook in hooks.items():
                setattr(kind, name, hook)
        except TypeError:  # a class implemented in C, which cannot be hooked
            yield
            return
        try:
            yield
        finally:
            for name, function in own.items():
                if function is None:
                    delattr(kind, name)
                else:
                    setattr(kind, name, function)

    def _note(self, holder: Any, name: str) -> None:
        key = id(holder), name
        if key in self._places or key in self._written:
            return
        if name == "training" and sys._getframe(2).f_code.co_name == "train":
            return  # `train` of a Hugging Face model looks whether the mode will change
        if name.startswith("__"):
            if name == "__dict__" and not _is_called_by_torch():
                self._note_all(holder)
            return
        location = _location_of(holder, name)
        if location is not None:
            path = self._paths[id(holder)]
            path = f"{path}.{name}" if path else name
            self._places[key] = Place(path, location)
            if name == "param_groups" and isinstance(holder, torch.optim.Optimizer):
                self._note_groups(path, holder.__dict__[name])

    def _note_groups(self, path: str, groups: list[dict[str, Any]]) -> None:
        """Note the rates of an optimizer one by one, so that each can be an input."""
        for number, group in enumerate(groups):
            for name, value in group.items():
                if type(value) is float:
                    place = Place(f"{path}.{number}.{name}", Entry(group, name))
                    self._places[id(group), name] = place

    def _change(self, holder: Any, name: str, value: Any) -> None:
        place = self._places.get((id(holder), name))
        if place is None or (id(holder), name) in self._written or name == "training":
            return  # every forward sets the mode
        before = getattr(type(holder), name, None)
        before = object.__getattribute__(holder, "__dict__").get(name, before)
        if isinstance(before, bool | int | float | str | np.generic) and token(before) != token(
            value
        ):
            self._changed[place.path] = None

    def _note_all(self, holder: Any) -> None:
        for name in object.__getattribute__(holder, "__dict__"):
            if isinstance(name, str) and not name.startswith("__"):
                self._note(holder, name)


def _is_called_by_torch() -> bool:
    """Return whether torch itself reads the `__dict__` of a module, to find one attribute."""
    return sys._getframe(3).f_code.co_filename.startswith(_TORCH)


def _location_of(holder: Any, name: str) -> Any:
    """Return the location where an attribute is, or would be once set; None if it cannot change."""
    try:
        attributes = object.__getattribute__(holder, "__dict__")
    except AttributeError:
        return Member(holder, name)
    if name in attributes:
        return Entry(attributes, name)
    for registry in REGISTRIES:
        if name in attributes.get(registry, ()):
            return Entry(attributes[registry], name)
    for kind in type(holder).__mro__:
        if name in vars(kind):
            if kind is nn.Module or kind is object:
                return None
            member = vars(kind)[name]
            if is_value(member):
                return Inherited(holder, name)
            if isinstance(holder, nn.Module) and parametrize.is_parametrized(holder, name):
                return None  # computed anew, for some with effects, from parameters of its own
            if not isinstance(member, FunctionType) and hasattr(type(member), "__get__"):
                return Member(holder, name) if hasattr(type(member), "__set__") else None
            break
    return Entry(attributes, name)
