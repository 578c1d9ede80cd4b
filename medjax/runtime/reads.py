"""What a function reads from outside: values that become constants in a compiled program."""

from __future__ import annotations

import argparse
import array
import collections
import dis
import enum
import functools
import hashlib
import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

__all__ = ["reads", "remembers_traces"]

_LIBRARIES = frozenset(sys.stdlib_module_names) | {"jax", "jaxlib", "numpy", "scipy", "torch"}
"""Packages whose objects are compared by identity."""

_FUNCTIONS = _LIBRARIES | {"flax", "optax", "transformers"}
"""Packages whose functions are compared by identity, as they read nothing that users change."""

_OWN = frozenset({"medjax", "medjax_torch"})
"""Packages whose jitted functions read nothing that users change."""

_MAX_OBJECTS = 100_000
"""Number of objects that are looked into; any more, as in a vocabulary, compare by identity."""

_MAX_INSTALLED = 5_000
"""Number of objects of installed packages that are looked into, after all others.

A class of a component that reads tables or draws curves leads to hundreds of thousands of them.
"""

_METHODS = (types.FunctionType, staticmethod, classmethod, property)
"""Attributes of a class that are followed whatever their name is, such as __call__."""

_NAMESPACES = (types.SimpleNamespace, argparse.Namespace)
"""Classes of the standard library whose attributes users set."""

_PLAIN = (bool, int, float, complex, str, bytes, types.NoneType, enum.Enum, np.generic)


def reads(*functions: Any) -> list[Any]:
    """Return what functions can read from outside, to be compared with what they read later.

    Closures are followed, and so are globals that the code names, defaults, arguments of partials,
    attributes of functions, objects and classes, and containers, to any depth. Of a module that is
    a global, in a closure, a default, imported by the code or an attribute of such a module, what
    the code names is followed. NumPy arrays, torch tensors and buffers are compared by their
    values; JAX arrays, which do not change, by identity. What only a call can reach, such as a
    file, is not included. Installed packages, except those that define the functions, come last,
    and beyond some thousands of their objects identity counts.

    Parameters
    ----------
    *functions
        Functions, bound methods or other callables.

    Examples
    --------
    >>> settings = {"scale": 2.0}
    >>> def forward(x):
    ...     return settings["scale"] * x
    >>> before = reads(forward)
    >>> reads(forward) == before
    True
    >>> settings["scale"] = 3.0
    >>> reads(forward) == before
    False
    """
    return [told for _, told in _walk(functions)]


def remembers_traces(*functions: Any) -> bool:
    """Return whether functions can reach one whose traces JAX remembers, as those of `jax.jit`.

    Examples
    --------
    >>> import jax
    >>> def double(x):
    ...     return 2 * x
    >>> double.__module__ = "project"
    >>> remembers_traces(jax.jit(double)), remembers_traces(double)
    (True, False)
    """
    return any(_is_of_jax(value) for value, _ in _walk(functions))


def _is_of_jax(value: Any) -> bool:
    """Return whether a value is a function of others that JAX has wrapped."""
    inner = getattr(value, "__wrapped__", None)
    if inner is None or _is_of(getattr(inner, "__module__", None), _FUNCTIONS | _OWN):
        return False
    # A wrapper has the module of what it wraps, but its own globals.
    made_in = getattr(value, "__globals__", {}).get("__name__", type(value).__module__)
    return _is_of(made_in, frozenset({"jax", "jaxlib"}))


def _walk(functions: tuple[Any, ...]) -> Iterator[tuple[Any, Any]]:
    """Yield what functions can read from outside, each with what it is compared by."""
    seen: dict[int, int] = {}
    alive: list[Any] = []  # the id of an object that is freed could be used again
    ahead: list[Any] = list(functions)
    later: list[Any] = []  # what only installed packages lead to
    own = {_package_of(each) for each in functions} | _OWN
    most = _MAX_OBJECTS
    while ahead or later:
        if not ahead:
            ahead, later = later, ahead  # from here on, all of it is theirs
            most, own = min(most, len(alive) + _MAX_INSTALLED), set()
        value = ahead.pop()
        if isinstance(value, _PLAIN):
            yield value, (type(value).__name__, repr(value))
            continue
        if id(value) in seen:
            yield value, seen[id(value)]
            continue
        seen[id(value)] = len(alive)
        alive.append(value)
        inside = list(_inside(value)) if len(alive) < most else None
        content = _content(value)
        if content is None and not inside and not (inside is not None and _is_empty(value)):
            yield value, _Same(value)
        else:
            yield value, (type(value).__name__, content, len(inside or ()))
            follows = not own or _package_of(value) in own or not _is_installed(_package_of(value))
            (ahead if follows else later).extend(inside or ())


def _package_of(value: Any) -> str:
    """Return the package of a function or class, or of the class of an object."""
    if isinstance(value, types.MethodType):
        return _package_of(value.__self__)
    if isinstance(value, functools.partial):
        return _package_of(value.func)
    is_definition = isinstance(value, types.FunctionType | type) or hasattr(value, "__wrapped__")
    module = getattr(value if is_definition else type(value), "__module__", None)
    return module.partition(".")[0] if isinstance(module, str) else ""


def _is_installed(package: str) -> bool:
    file = getattr(sys.modules.get(package), "__file__", None) or ""
    return "site-packages" in file or "dist-packages" in file


class _Same:
    """An object that is equal only to itself."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self._value is other._value

    __hash__ = None  # type: ignore[assignment]


def _inside(value: Any) -> Iterator[Any]:
    """Yield what can be read through a value."""
    if isinstance(value, types.FunctionType):
        if not _is_of(value.__module__, _FUNCTIONS):
            yield from _of_function(value)
            yield from _named(vars(value))
            if hasattr(value, "__wrapped__"):  # of jax.checkpoint, whose own code is not followed
                yield value.__wrapped__
    elif isinstance(value, types.MethodType):
        yield from (value.__func__, value.__self__)
    elif isinstance(value, functools.partial):
        yield from (value.func, value.args, value.keywords)
        yield from _named(vars(value))
    elif isinstance(value, types.CellType):
        yield from _contents(value)
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from (name, item)
        yield from _attributes_of_own(value)
    elif isinstance(value, list | tuple | collections.deque):
        yield from value
        yield from _attributes_of_own(value)
    elif isinstance(value, set | frozenset):
        yield from sorted(value, key=repr)
        yield from _attributes_of_own(value)
    elif isinstance(value, property):
        yield from (value.fget,)
    elif isinstance(value, staticmethod | classmethod):
        yield value.__func__
    elif isinstance(value, type):
        if not _is_of(value.__module__, _FUNCTIONS):
            yield from value.__bases__
            yield from _named(vars(value))
            yield from (each for each in vars(value).values() if isinstance(each, _METHODS))
    elif hasattr(value, "__wrapped__"):  # of jax.jit, jax.custom_jvp, functools.lru_cache
        yield value.__wrapped__
        for name, item in getattr(value, "__dict__", {}).items():
            if not name.startswith("_"):  # JAX sets the others
                yield from (name, item)
    elif isinstance(value, np.ndarray) and value.dtype.hasobject:
        yield from np.asarray(value).ravel().tolist()
    elif isinstance(value, _NAMESPACES) or not _is_of(type(value).__module__, _LIBRARIES):
        yield from _attributes(value)


def _attributes_of_own(value: Any) -> Iterator[Any]:
    """Yield class and attributes of a container, if it is of a class that users change."""
    if not _is_of(type(value).__module__, _FUNCTIONS):  # flax keeps the hash in a FrozenDict
        yield from _attributes(value)


def _attributes(value: Any) -> Iterator[Any]:
    yield type(value)
    yield from _named(getattr(value, "__dict__", {}))
    yield from (getattr(value, name, None) for name in _slots(type(value)))


def _named(attributes: Mapping[str, Any]) -> Iterator[Any]:
    for name, value in attributes.items():
        if not name.startswith("__"):
            yield from (name, value)


def _slots(kind: type) -> Iterator[str]:
    for each in kind.__mro__:
        slots = vars(each).get("__slots__", ())
        yield from (slots,) if isinstance(slots, str) else slots


def _of_function(function: types.FunctionType) -> Iterator[Any]:
    yield function.__code__
    yield function.__defaults__
    yield function.__kwdefaults__
    yield from function.__closure__ or ()
    names = list(_names(function.__code__))
    if _is_of(function.__globals__.get("__name__"), _FUNCTIONS):  # a library's wrapper of another
        return
    found = [function.__globals__.get(name) for name in names]
    yield from (value for value in found if not isinstance(value, types.ModuleType))
    found += _imported(function.__code__, function.__globals__.get("__package__") or "")
    found += (value for cell in function.__closure__ or () for value in _contents(cell))
    found += (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
    yield from _of_modules(found, names)


def _of_modules(values: list[Any], names: list[str]) -> Iterator[Any]:
    """Yield what code with these names can read of the modules among `values`, and through them."""
    ahead, seen = [each for each in values[::-1] if isinstance(each, types.ModuleType)], set()
    while ahead:
        module = ahead.pop()
        if module.__name__ in seen:
            continue
        seen.add(module.__name__)
        if not _is_of(module.__name__, _FUNCTIONS):
            for value in map(vars(module).get, names):  # loads no lazy attributes
                if isinstance(value, types.ModuleType):
                    ahead.append(value)
                else:
                    yield value


def _imported(code: types.CodeType, package: str) -> Iterator[Any]:
    """Yield the modules that code of a package imports, as far as they have been imported."""
    above = package.split(".") if package else []
    packages = ["", *(".".join(above[:depth]) + "." for depth in range(len(above), 0, -1))]
    for each in _codes(code):
        if dis.opmap["IMPORT_NAME"] not in each.co_code[::2]:  # hundreds of times faster
            continue
        for instruction in dis.get_instructions(each):
            if instruction.opname in ("IMPORT_NAME", "IMPORT_FROM"):
                name = instruction.argval
                # ``import a.b`` gives the code a; a relative import has the rest of the name only.
                bound = name.partition(".")[0]
                for full in [bound, *[prefix + name for prefix in packages]]:
                    if full in sys.modules:
                        yield sys.modules[full]


def _names(code: types.CodeType) -> Iterator[str]:
    for each in _codes(code):
        yield from each.co_names


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _contents(cell: types.CellType) -> Iterator[Any]:
    try:
        yield cell.cell_contents
    except ValueError:  # the cell is still empty
        yield None


def _is_of(module: str | None, packages: frozenset[str]) -> bool:
    return module is not None and module.partition(".")[0] in packages


def _is_empty(value: Any) -> bool:
    return (
        isinstance(value, Mapping | list | tuple | collections.deque | set | frozenset)
        and not value
    )


def _content(value: Any) -> tuple[Any, ...] | None:
    """Return what a value is compared by that is neither a container nor an object; or None."""
    if isinstance(value, np.ma.MaskedArray):
        mask, fill = np.ma.getmaskarray(value), repr(value.fill_value)
        return _digest(value.data), _digest(mask), fill
    if isinstance(value, np.ndarray):
        return _digest(value)
    if isinstance(value, bytearray | array.array):
        kind = getattr(value, "typecode", None)
        return kind, len(value), hashlib.blake2b(value).hexdigest()
    if isinstance(value, getattr(sys.modules.get("torch"), "Tensor", ())):
        return _digest_of_tensor(value)
    return None


def _digest_of_tensor(tensor: Any) -> tuple[Any, ...] | None:
    """Return shape, type and digest of a torch tensor; None if it is not stored as an array."""
    try:
        values = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
        digest = hashlib.blake2b(values.view(sys.modules["torch"].uint8).numpy().data).hexdigest()
    except (RuntimeError, TypeError, NotImplementedError):  # sparse, quantized, without values
        return None
    return tuple(tensor.shape), str(tensor.dtype), digest


def _digest(values: np.ndarray) -> tuple[Any, ...]:
    if values.dtype.hasobject:  # its items are followed
        return values.shape, str(values.dtype)
    flat = np.ascontiguousarray(values).view(np.uint8).data
    return values.shape, str(values.dtype), hashlib.blake2b(flat).hexdigest()
