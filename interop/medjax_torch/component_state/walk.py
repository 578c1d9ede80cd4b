"""A walk over everything reachable from an object, without running any of its code."""

from __future__ import annotations

import functools
import math
import random
import sys
from argparse import Namespace
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.sharedctypes import SynchronizedBase
from types import FunctionType, MethodType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from medjax_torch.component_state.locations import (
    MISSING,
    Cell,
    Element,
    Entry,
    Item,
    Location,
    Member,
    Snapshot,
)

REGISTRIES = ("_parameters", "_buffers", "_modules")
"""The dicts of a torch module that `named_parameters` and similar methods read."""

_CLOSED = frozenset(sys.stdlib_module_names) | {"jax", "jaxlib", "medjax", "medjax_torch"}
"""Packages whose objects are not entered, as a logger or a trainer leads to the entire process.

Their containers and functions, the kinds in `_KNOWN`, are entered.
"""

_LIBRARIES = _CLOSED | {"torch", "numpy", "scipy", "sklearn", "transformers", "optax", "flax"}
"""Packages whose functions do not read globals that users change."""

GENERATORS = (random.Random, np.random.Generator, np.random.RandomState, torch.Generator)
"""Kinds of random generators."""

_KNOWN = (dict, list, deque, set, frozenset, FunctionType, MethodType, functools.partial)

_SIZED = (dict, list, deque, set, frozenset, tuple)

_ALWAYS = (*_KNOWN, nn.Module, np.ndarray, SimpleNamespace, Namespace)
"""Kinds that are entered whatever package they are of."""

_CHANGEABLE = (dict, list, deque, set)

_RUNNING = (torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler, SynchronizedBase)

_LARGEST_ARRAY = 1 << 20
"""Bytes of the largest array whose content is compared before and after forward."""

_PLAIN = frozenset({str, int, float, bool, bytes, type(None)})
"""Types of values that lead nowhere and hold no state."""

_Child = tuple[str, Location | None, Any]


@dataclass
class Walk:
    """The result of a walk, depth first in the order of attributes.

    Attributes
    ----------
    tensors : list of (str, Location or None, Tensor)
        Every place of every tensor; the location is None where it cannot be replaced.
    modules : list of (str, nn.Module)
        Every torch module, with the first path to it.
    generators : dict of str to object
        Random generators of Python, numpy and torch.
    holders : list of (str, holder)
        Everything whose content forward may change: dicts, lists, sets, closures, `__slots__`.
    objects : list of (str, object)
        Every object with attributes, including modules, with the first path to it.
    closed : list of (str, object)
        Optimizers, schedulers and trainers: they are not entered, but forward may read their
        attributes.
    functions : list of function
        Functions of the user's own code.
    """

    tensors: list[tuple[str, Location | None, Tensor]] = field(default_factory=list)
    modules: list[tuple[str, nn.Module]] = field(default_factory=list)
    generators: dict[str, Any] = field(default_factory=dict)
    holders: list[tuple[str, Any]] = field(default_factory=list)
    objects: list[tuple[str, Any]] = field(default_factory=list)
    closed: list[tuple[str, Any]] = field(default_factory=list)
    functions: list[FunctionType] = field(default_factory=list)

    def snapshots(self) -> list[Snapshot]:
        """Return snapshots of all holders."""
        return [Snapshot(path, holder) for path, holder in self.holders]


def walk(root: object) -> Walk:
    """Collect everything reachable from `root`; references may be cyclic.

    Attributes, dicts, lists, tuples, sets, deques, closures, defaults, bound methods and partials
    are entered. Optimizers are not, as they only refer to what the component owns.
    """
    return _walked([("", None, root)], set(), root=root)


def is_installed(module: str, own: Collection[str]) -> bool:
    """Return whether a module is of an installed package that is not among the user's `own`."""
    package = module.partition(".")[0]
    file = getattr(sys.modules.get(package), "__file__", None) or ""
    installed = "site-packages" in file or "dist-packages" in file
    return is_of_library(package) or (installed and package not in own)


def walk_outside(roots: Iterable[tuple[str, Any]], known: Walk, own: Collection[str] = ()) -> Walk:
    """Collect what is reachable from objects outside of a component, within limits.

    Parameters
    ----------
    roots : iterable of (str, object)
        The objects, with their paths.
    known : Walk
        The component's content, which is left out.
    own : collection of str
        The packages that are the user's. Of others only torch modules are entered: a test runner
        or a tracker changes at each step.
    """

    def enters(value: object) -> bool:
        return isinstance(value, _ALWAYS) or not is_installed(type(value).__module__, own)

    seen = {id(each) for _, each in (*known.objects, *known.holders, *known.closed)}
    pending: list[_Child] = [(path, None, value) for path, value in roots]
    return _walked(pending[::-1], seen, most=_MOST, enters=enters)


_MOST = 10_000
"""Outside of a component, longer containers are not entered, as a dataset may be among them."""


def walk_shallow(
    roots: Iterable[tuple[str, Any]],
    known: Walk | None = None,
    own: Collection[str] | None = None,
) -> Walk:
    """Collect what is reachable from data, or from code that reads it, except for the items.

    Containers with more than 64 elements are not entered. Nor are objects of transformers: its
    tokenizers note in themselves which warnings they have given.

    Parameters
    ----------
    roots : iterable of (str, object)
        The objects, with their paths.
    known : Walk, optional
        What is left out.
    own : collection of str, optional
        The packages that are the user's: of other installed ones only torch's modules and datasets
        are entered then, as caches of others (pandas) change at each access.
    """
    known = known or Walk()
    seen = {id(each) for _, each in (*known.objects, *known.holders, *known.closed)}
    pending: list[_Child] = [(path, None, value) for path, value in roots]

    def enters(value: object) -> bool:
        module = type(value).__module__
        if own is None:
            return module.partition(".")[0] != "transformers"
        return isinstance(value, (*_ALWAYS, Dataset)) or not is_installed(module, own)

    return _walked(pending[::-1], seen, most=_MOST, longest=_LONGEST, enters=enters)


_LONGEST = 64
"""Elements of the longest container of data that is entered: a list of datasets, not of items."""


def _walked(
    pending: list[_Child],
    seen: set[int],
    *,
    root: object = None,
    most: float = math.inf,
    longest: float = math.inf,
    enters: Callable[[object], bool] = lambda value: True,
) -> Walk:
    result = Walk()
    left = 5 * most
    while pending and left > 0:
        path, location, value = pending.pop()
        left -= 1
        if isinstance(value, Tensor):
            result.tensors.append((path, location, value))
        elif isinstance(value, GENERATORS):
            result.generators.setdefault(path, value)
        elif isinstance(value, _SIZED) and len(value) > min(most, longest):
            if len(value) <= most and id(value) not in seen and isinstance(value, _CHANGEABLE):
                seen.add(id(value))
                result.holders.append((path, value))
                pending.extend(reversed(list(_attributes(path, value, result.holders))))
        elif isinstance(value, tuple):
            # Every time it is met: a tuple's tensors must be replaced in each of its places.
            pending.extend(reversed(list(_elements(path, location, value))))
        elif id(value) not in seen and (value is root or (_is_open(value) and enters(value))):
            seen.add(id(value))
            if isinstance(value, nn.Module):
                result.modules.append((path, value))
            if not isinstance(value, _KNOWN):
                result.objects.append((path, value))
            elif isinstance(value, FunctionType) and not is_of_library(value.__module__ or ""):
                result.functions.append(value)
            pending.extend(reversed(list(_children(path, value, result.holders))))
        elif id(value) not in seen and is_readable(value):
            seen.add(id(value))
            result.closed.append((path, value))
    return result


def is_readable(value: object) -> bool:
    """Return whether an object is not entered, although forward may read its attributes."""
    kinds = type(value).__mro__
    return isinstance(value, _RUNNING) or any(k.__module__ == "medjax_torch.trainer" for k in kinds)


def _is_open(value: object) -> bool:
    if isinstance(value, type) or is_readable(value):
        return False
    if isinstance(value, (*_KNOWN, SimpleNamespace, Namespace)):
        return True
    return type(value).__module__.partition(".")[0] not in _CLOSED


def is_of_library(module: str) -> bool:
    """Return whether a module belongs to a package whose functions read no globals of users."""
    return module.partition(".")[0] in _LIBRARIES


def _elements(path: str, location: Location | None, values: tuple[Any, ...]) -> Iterator[_Child]:
    names = getattr(values, "_fields", range(len(values)))
    for index, (name, value) in enumerate(zip(names, values, strict=True)):
        yield _join(path, name), Element(location, index) if location else None, value


def _children(path: str, value: Any, holders: list[tuple[str, Any]]) -> Iterator[_Child]:
    """Yield the direct children of `value`, and add its mutable parts to `holders`."""
    if isinstance(value, MethodType):
        yield path, None, value.__self__
        yield path, None, value.__func__
        return
    if isinstance(value, functools.partial):
        yield path, None, value.func
        yield from _elements(path, None, value.args)
        yield path, None, value.keywords
        return
    if isinstance(value, FunctionType):
        yield from _captured(path, value, holders)
    elif isinstance(value, list | deque):
        holders.append((path, value))
        for index, element in enumerate(value):
            if type(element) not in _PLAIN:
                yield _join(path, index), Item(value, index), element
    elif isinstance(value, set | frozenset):
        if isinstance(value, set):
            holders.append((path, value))
        yield from ((path, None, element) for element in value)
    elif isinstance(value, dict):
        holders.append((path, value))
        yield from _entries(path, value)
    elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
        if value.flags.writeable and value.nbytes <= _LARGEST_ARRAY:
            holders.append((path, value))
        return
    yield from _attributes(path, value, holders)


def _captured(
    path: str, function: FunctionType, holders: list[tuple[str, Any]]
) -> Iterator[_Child]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        location = Cell(cell)
        holders.append((_join(path, name), location))
        yield _join(path, name), location, location.get()
    if function.__defaults__:
        defaults = Member(function, "__defaults__")
        holders.append((_join(path, "defaults"), defaults))
        yield _join(path, "defaults"), defaults, function.__defaults__
    if function.__kwdefaults__:
        yield _join(path, "defaults"), None, function.__kwdefaults__


def _attributes(path: str, value: Any, holders: list[tuple[str, Any]]) -> Iterator[_Child]:
    try:
        attributes = object.__getattribute__(value, "__dict__")
    except AttributeError:
        attributes = {}
    if isinstance(attributes, dict) and attributes:
        holders.append((path, attributes))
        yield from _entries(path, attributes)
    for kind in type(value).__mro__:
        names = vars(kind).get("__slots__", ())
        for name in (names,) if isinstance(names, str) else names:
            location = Member(value, name)
            if name not in ("__dict__", "__weakref__") and location.get() is not MISSING:
                holders.append((_join(path, name), location))
                yield _join(path, name), location, location.get()


def _entries(path: str, values: dict[Any, Any]) -> Iterator[_Child]:
    """Yield the values; a module's registries come first, as if their content were attributes."""
    registries = REGISTRIES if all(name in values for name in REGISTRIES) else ()
    for name in registries:
        yield path, None, values[name]
    for index, (key, value) in enumerate(dict.items(values)):
        # A tokenizer's vocabulary has tens of thousands of plain values.
        if type(value) not in _PLAIN and key not in registries:
            yield _join(path, key_name(key, index)), Entry(values, key), value


def key_name(key: object, index: int) -> object:
    """Return what to call a key of a dict: a tensor or module by its class and position.

    Their text has many lines, and that of a parameter is another one after each step.
    """
    parts = key if isinstance(key, tuple) else (key,)
    is_long = any(isinstance(part, Tensor | nn.Module) for part in parts)
    return f"{type(key).__name__} {index}" if is_long else key


def _join(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)
