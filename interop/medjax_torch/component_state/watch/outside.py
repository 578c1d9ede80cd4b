"""What forward may read besides the component: globals, closure variables, classes and trainers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from torch import Tensor

from medjax_torch.component_state.locations import (
    MISSING,
    Cell,
    Entry,
    Location,
    Member,
    OfClass,
    Snapshot,
)
from medjax_torch.component_state.walk import Walk, is_installed, is_readable, walk_outside
from medjax_torch.component_state.watch.places import Place, is_value

_ALWAYS = frozenset({"__call__", "forward"})
"""Methods that are called without their name."""

_LEAVES = (type, BuiltinFunctionType, FunctionType, Tensor, str, int, float, bytes)


class Outside:
    """What functions, and what they call, may read outside of a component.

    Calls are followed by name to functions and methods of the user's own code.

    Parameters
    ----------
    functions : iterable of callable
        The functions to start from: a component's forward and its caller.
    content : Walk
        The component's objects, whose classes have the methods.

    Attributes
    ----------
    places : list of Place
        Places of values that are compared at each step. Objects and functions are among them, as
        they may be replaced.
    content : Walk
        What these objects lead to. Which of their attributes forward reads is seen when it runs.
    """

    def __init__(self, functions: Iterable[Callable[..., Any]], content: Walk) -> None:
        self._known = {id(each.cell) for _, each in content.holders if isinstance(each, Cell)}
        self._places: dict[tuple[int, str], Place] = {}
        self._stored: dict[tuple[int, str], Place] = {}
        self._roots: dict[int, tuple[str, Any]] = {}
        self._names: set[str] = set(_ALWAYS)
        self._pending: list[Any] = []
        self._followed: set[int] = set()
        self._kinds: dict[type, None] = {}
        functions = list(functions)
        kinds = {kind for _, holder in content.objects for kind in type(holder).__mro__}
        named = {*kinds, *functions, *content.functions}
        self._own = {(getattr(each, "__module__", None) or "").partition(".")[0] for each in named}
        for _, holder in content.objects:
            self._add_kinds(holder)
        for function in functions:
            owner = getattr(function, "__self__", None)
            if is_readable(owner):
                self._add_kinds(owner)
                self._roots[id(owner)] = "the trainer", owner
        self._pending += [_plain_function(each) for each in (*functions, *content.functions)]
        self._follow()
        self._add_trainers()
        self._follow()
        self.places = list(self._places.values())
        self.content = walk_outside(self._roots.values(), content, self._own)

    def snapshots(self) -> list[Snapshot]:
        """Return snapshots of all that forward may change."""
        stored = {**self._stored, **self._places}
        variables = [
            Snapshot(place.path, place.location)
            for place in stored.values()
            if not (isinstance(place.location, Cell) and id(place.location.cell) in self._known)
        ]
        return [*variables, *self.content.snapshots()]

    def _add_kinds(self, holder: Any) -> None:
        for kind in type(holder).__mro__:
            if kind not in self._kinds and not is_installed(kind.__module__, self._own):
                self._kinds[kind] = None
                for name in self._names:
                    self._read_class(kind, name)

    def _add_trainers(self) -> None:
        """Enter what the code names among the attributes of a trainer."""
        for path, owner in list(self._roots.values()):
            if is_readable(owner):
                for name in self._names & vars(owner).keys():
                    self._add_root(f"{path}.{name}", vars(owner)[name])

    def _follow(self) -> None:
        while self._pending:
            function = self._pending.pop()
            if not isinstance(function, FunctionType) or id(function) in self._followed:
                continue
            self._followed.add(id(function))
            if not is_installed(function.__module__ or "", self._own):
                self._read_function(function)

    def _read_function(self, function: FunctionType) -> None:
        code = function.__code__
        names = set(_names(code))
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            self._read(name, Cell(cell), names)
        for name in names:
            for holder, value in _named(function.__globals__, name, names, self._own):
                del value
                self._read(name, Entry(holder, name), names)
        for name in names - self._names:
            for kind in list(self._kinds):
                self._read_class(kind, name)
        self._names |= names

    def _read(self, path: str, location: Location, names: set[str]) -> None:
        """Note what code that uses `names` may read through a variable."""
        value = location.get()
        if value is os or value is os.environ or value is os.getenv:
            if value is not os or names & {"environ", "getenv"}:
                self._add("os.environ", Entry(vars(os.environ), "_data"))
        elif isinstance(value, ModuleType) or value is MISSING:
            return
        elif isinstance(value, type):
            self._add(path, location)
            if not is_installed(value.__module__, self._own):
                for name in names & vars(value).keys():
                    self._read_class(value, name, path)
        else:
            self._add(path, location)
            self._pending.append(_plain_function(value))
            self._add_root(path, value)

    def _read_class(self, kind: type, name: str, path: str = "") -> None:
        """Note what code may read from a class under a name."""
        if name not in vars(kind) or (name.startswith("__") and name not in _ALWAYS):
            return
        value = vars(kind)[name]
        self._pending.append(_plain_function(value))
        place = Place(f"{path or kind.__name__}.{name}", OfClass(kind, name))
        if isinstance(value, FunctionType | staticmethod | classmethod | Tensor):
            self._places[id(kind), name] = place
        elif is_value(value):
            if path:
                place = Place(place.path, Member(kind, name))
                self._places[id(kind), name] = place
            # A value of the component's own class is seen when it is read through the component.
            self._stored.setdefault((id(kind), name), place)
        self._add_root(place.path, value)

    def _add(self, path: str, location: Location) -> None:
        holder = getattr(location, "cell", None) or getattr(location, "holder", location)
        self._places[id(holder), path] = Place(path, location)

    def _add_root(self, path: str, value: Any) -> None:
        if isinstance(value, MethodType):
            value = value.__self__
        if value is None or isinstance(value, _LEAVES):
            return
        self._roots.setdefault(id(value), (path, value))
        self._add_kinds(value)


def outer_places(functions: Iterable[Callable[..., Any]], content: Walk) -> list[Place]:
    """Return the globals and closure variables that functions, and what they call, may read."""
    return Outside(functions, content).places


def _named(
    namespace: dict[str, Any], name: str, names: set[str], own: set[str]
) -> Iterator[tuple[dict[str, Any], Any]]:
    """Yield the values of a name in the globals, and in user modules that the code refers to."""
    if name in namespace:
        yield namespace, namespace[name]
    for other in names:
        module = namespace.get(other)
        if isinstance(module, ModuleType) and not is_installed(module.__name__, own):
            attributes = vars(module)
            if name in attributes:
                yield attributes, attributes[name]


def _plain_function(value: Any) -> Any:
    """Return the function wrapped by a method, property or method decorator."""
    for attribute in ("fget", "__func__", "__wrapped__", "func"):
        try:
            inner = getattr(value, attribute, None)
        except Exception:  # an object may compute its attributes
            continue
        if isinstance(inner, FunctionType):
            return inner
    return value


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
