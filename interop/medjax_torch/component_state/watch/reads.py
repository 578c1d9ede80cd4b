"""Recording the Python values that forward reads: attributes, globals and closure variables.

Values that forward read while it was traced are constants in the graph. If one of them changes, the
graph no longer does what forward does.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from medjax_torch.component_state.locations import Cell, Entry, Inherited, Member
from medjax_torch.component_state.walk import REGISTRIES, Walk, is_of_library
from medjax_torch.component_state.watch.places import Place, is_value, token

_TORCH = str(Path(torch.__file__).parent)


class AttributeReads:
    """Records which attributes of a component's objects are read before they are written.

    Parameters
    ----------
    content : Walk
        The component's objects.
    """

    def __init__(self, content: Walk) -> None:
        self._paths = {id(holder): path for path, holder in content.objects}
        self._objects = [holder for _, holder in content.objects]  # so that ids stay valid
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
            self._places[key] = Place(f"{path}.{name}" if path else name, location)

    def _change(self, holder: Any, name: str, value: Any) -> None:
        place = self._places.get((id(holder), name))
        if place is None or (id(holder), name) in self._written or name == "training":
            return  # every forward sets the mode
        before = getattr(type(holder), name, None)
        before = object.__getattribute__(holder, "__dict__").get(name, before)
        if isinstance(before, bool | int | float | str) and token(before) != token(value):
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


def outer_places(functions: Iterable[Callable[..., Any]], content: Walk) -> list[Place]:
    """Return the globals and closure variables that functions, and what they call, may read.

    Calls are followed by name to functions and methods of the user's own code. Tensors are compared
    by their version, which torch increments when they are written to.

    Parameters
    ----------
    functions : iterable of callable
        The functions to start from: a component's forward.
    content : Walk
        The component's objects, whose classes have the methods.
    """
    kinds = {
        kind
        for _, holder in content.objects
        for kind in type(holder).__mro__
        if not is_of_library(kind.__module__)
    }
    places: dict[tuple[int, str], Place] = {}
    seen: set[int] = set()
    pending = [_plain_function(function) for function in functions]
    while pending:
        function = pending.pop()
        if not isinstance(function, FunctionType) or id(function) in seen:
            continue
        seen.add(id(function))
        if is_of_library(function.__module__ or ""):
            continue
        names = set(_names(function.__code__))
        for name, cell in zip(
            function.__code__.co_freevars, function.__closure__ or (), strict=True
        ):
            value = Cell(cell).get()
            if is_value(value):
                places[id(cell), name] = Place(name, Cell(cell))
            pending.append(value)
        for name in names:
            for holder, value in _named(function.__globals__, name, names):
                for place in _read_through(holder, name, value, names):
                    places[id(holder), place.path] = place
                pending.append(value)
            for kind in kinds:
                pending.append(_plain_function(vars(kind).get(name)))
    return list(places.values())


def _read_through(
    holder: dict[str, Any], name: str, value: Any, names: set[str]
) -> Iterator[Place]:
    """Yield what code that uses `names` may read through a global: it or its attributes."""
    if is_value(value):
        yield Place(name, Entry(holder, name))
    elif isinstance(value, Tensor):
        yield Place(name, _Versioned(holder, name))
    elif isinstance(value, FunctionType | ModuleType):
        return
    elif isinstance(value, type):
        for attribute in names & vars(value).keys():
            if is_value(vars(value)[attribute]):
                yield Place(f"{name}.{attribute}", Member(value, attribute))
    elif not is_of_library(type(value).__module__):
        attributes = getattr(value, "__dict__", {})
        for attribute in names & attributes.keys():
            if is_value(attributes[attribute]):
                yield Place(f"{name}.{attribute}", Entry(attributes, attribute))


class _Versioned(Entry):
    """A global tensor, together with its version."""

    def get(self) -> Any:
        """Return the tensor and its version."""
        value = super().get()
        return (value, value._version) if isinstance(value, Tensor) else value


def _named(
    namespace: dict[str, Any], name: str, names: set[str]
) -> Iterator[tuple[dict[str, Any], Any]]:
    """Yield the values of a name in the globals, and in user modules that the code refers to."""
    if name in namespace:
        yield namespace, namespace[name]
    for other in names:
        module = namespace.get(other)
        if isinstance(module, ModuleType) and not is_of_library(module.__name__):
            attributes = vars(module)
            if name in attributes:
                yield attributes, attributes[name]


def _plain_function(value: Any) -> Any:
    """Return the function wrapped by a method, property or method decorator."""
    for attribute in ("fget", "__func__", "__wrapped__", "func"):
        inner = getattr(value, attribute, None)
        if isinstance(inner, FunctionType):
            return inner
    return value


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
