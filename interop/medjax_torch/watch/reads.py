"""What forward reads of Python: attributes, globals and variables of closures.

A graph holds as constants what forward read while it was recorded. Where such a value changes
later, the graph is not what forward does any more.
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

from medjax_torch.slots import Cell, Entry, Member
from medjax_torch.walk import REGISTRIES, Walk, is_of_library
from medjax_torch.watch.places import Place, is_value, token

_TORCH = str(Path(torch.__file__).parent)


class AttributeReads:
    """Records which attributes of a component's objects are read before they are written.

    Parameters
    ----------
    content : Walk
        What the component holds.
    """

    def __init__(self, content: Walk) -> None:
        self._paths = {id(holder): path for path, holder in content.objects}
        self._objects = [holder for _, holder in content.objects]  # as an id may be used again
        self._written: set[tuple[int, str]] = set()
        self._found: dict[tuple[int, str], Place] = {}
        self._changed: dict[str, None] = {}

    @property
    def changed(self) -> tuple[str, ...]:
        """Paths of the numbers and texts that were read and then set to others."""
        return tuple(self._changed)

    @property
    def places(self) -> list[Place]:
        """The places that were read so far."""
        return list(self._found.values())

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record what is read in the block."""
        self._written.clear()
        with ExitStack() as stack:
            for kind in {type(held) for held in self._objects}:
                stack.enter_context(self._listening(kind))
            yield

    @contextmanager
    def _listening(self, kind: type) -> Iterator[None]:
        """Have a class tell of its instances' attributes."""
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
        except TypeError:  # a class of C, whose attributes do not change
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
        if key in self._found or key in self._written:
            return
        if name.startswith("__"):
            if name == "__dict__" and not _is_called_by_torch():
                self._note_all(holder)
            return
        slot = _slot_of(holder, name)
        if slot is not None:
            path = self._paths[id(holder)]
            self._found[key] = Place(f"{path}.{name}" if path else name, slot)

    def _change(self, holder: Any, name: str, value: Any) -> None:
        place = self._found.get((id(holder), name))
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
    """Tell whether it was torch that read the dictionary of a module, to find one attribute."""
    return sys._getframe(3).f_code.co_filename.startswith(_TORCH)


def _slot_of(holder: Any, name: str) -> Any:
    """Return where an attribute lies, or would lie if it was set; None if that cannot change."""
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
            held = vars(kind)[name]
            if is_value(held):
                return Member(kind, name)
            if not isinstance(held, FunctionType) and hasattr(type(held), "__get__"):
                return Member(holder, name) if hasattr(type(held), "__set__") else None
            break
    return Entry(attributes, name)


def outer_places(functions: Iterable[Callable[..., Any]], content: Walk) -> list[Place]:
    """Return the globals and variables of closures that functions and what they call may read.

    Followed are the functions and methods of the user's own code that the code names. Tensors that
    lie there count with their version, which torch raises when they are written to.

    Parameters
    ----------
    functions : iterable of callable
        Where to start: a component's forward.
    content : Walk
        What the component holds; its classes have the methods.
    """
    kinds = {
        kind
        for _, holder in content.objects
        for kind in type(holder).__mro__
        if not is_of_library(kind.__module__)
    }
    found: dict[tuple[int, str], Place] = {}
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
            held = Cell(cell).get()
            if is_value(held):
                found[id(cell), name] = Place(name, Cell(cell))
            pending.append(held)
        for name in names:
            for holder, held in _named(function.__globals__, name, names):
                for place in _read_through(holder, name, held, names):
                    found[id(holder), place.path] = place
                pending.append(held)
            for kind in kinds:
                pending.append(_plain_function(vars(kind).get(name)))
    return list(found.values())


def _read_through(holder: dict[str, Any], name: str, held: Any, names: set[str]) -> Iterator[Place]:
    """Yield what code that uses `names` may read through a global: it, or attributes of it."""
    if is_value(held):
        yield Place(name, Entry(holder, name))
    elif isinstance(held, Tensor):
        yield Place(name, _Versioned(holder, name))
    elif isinstance(held, FunctionType | ModuleType):
        return
    elif isinstance(held, type):
        for attribute in names & vars(held).keys():
            if is_value(vars(held)[attribute]):
                yield Place(f"{name}.{attribute}", Member(held, attribute))
    elif not is_of_library(type(held).__module__):
        attributes = getattr(held, "__dict__", {})
        for attribute in names & attributes.keys():
            if is_value(attributes[attribute]):
                yield Place(f"{name}.{attribute}", Entry(attributes, attribute))


class _Versioned(Entry):
    """A global tensor with the number of times that it was written to."""

    def get(self) -> Any:
        """Return the tensor and its version."""
        held = super().get()
        return (held, held._version) if isinstance(held, Tensor) else held


def _named(
    namespace: dict[str, Any], name: str, names: set[str]
) -> Iterator[tuple[dict[str, Any], Any]]:
    """Yield what a name means among globals, and in the user's modules that the code names."""
    if name in namespace:
        yield namespace, namespace[name]
    for other in names:
        held = namespace.get(other)
        if isinstance(held, ModuleType) and not is_of_library(held.__name__):
            attributes = vars(held)
            if name in attributes:
                yield attributes, attributes[name]


def _plain_function(value: Any) -> Any:
    """Return the function within a method, property or decorator of methods."""
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
