"""The reference begins with a table of a module's names and leaves out what says nothing."""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import Any

from sphinx.domains.python import PyObject

_OF_A_NAMED_TUPLE = "Alias for field number"


def _skip(app: Any, what: str, name: str, value: Any, skip: bool, options: Any) -> bool | None:
    """Leave out the fields of named tuples, which the docstring of the class describes."""
    return True if (inspect.getdoc(value) or "").startswith(_OF_A_NAMED_TUPLE) else None


def _signature(
    app: Any, what: str, name: str, value: Any, options: Any, signature: str, returned: str
) -> tuple[str, str] | None:
    """Show no constructor of a protocol, and three dots for a default that a function makes."""
    if what == "class" and getattr(value, "_is_protocol", False):
        return "", returned
    if what == "class" and signature:
        return signature.replace("<factory>", "..."), returned
    return None


def _begin_with_a_table(
    app: Any, what: str, name: str, value: Any, options: Any, lines: list[str]
) -> None:
    """Add the first sentences of all classes and functions to the docstring of a module."""
    if what != "module" or not options.members:
        return
    names = [each for each in public_names(value) if each not in (options.exclude_members or ())]
    lines += ["", ".. autosummary::", "   :nosignatures:", ""]
    lines += [f"   {each}" for each in names]


def public_names(module: ModuleType) -> list[str]:
    """Return the names of the classes and functions that a module offers, in order."""
    names = getattr(module, "__all__", None) or [n for n in vars(module) if not n.startswith("_")]
    values = {name: getattr(module, name) for name in names}
    return [n for n, v in values.items() if inspect.isclass(v) or inspect.isroutine(v)]


def setup(app: Any) -> dict[str, Any]:
    """Register the changes, and call attributes what NumPy's docstrings call so."""
    for field in PyObject.doc_field_types:
        if field.name == "variable":
            field.label = "Attributes"
    app.connect("autodoc-skip-member", _skip)
    app.connect("autodoc-process-signature", _signature)
    # After napoleon, to whom the table would be part of the last section.
    app.connect("autodoc-process-docstring", _begin_with_a_table, priority=600)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
