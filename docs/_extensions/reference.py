"""The reference begins with a table of a module's names and leaves out what says nothing."""

from __future__ import annotations

import importlib
import inspect
import re
from types import ModuleType
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from sphinx.domains.python import PyObject

_OF_A_NAMED_TUPLE = "Alias for field number"
_ATTRIBUTES = re.compile(r":(?:ivar|vartype) (\w+(?:, \w+)+):")


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


class Described(Directive):
    """Describes some names of a module: ``.. described:: MODULE``, with the names as its content.

    It divides a module among several pages, where `automodule` would declare it on each.
    """

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return the table of the names, and the description of each."""
        name = self.arguments[0]
        module = importlib.import_module(name)
        names = " ".join(self.content).split()
        lines = [f".. currentmodule:: {name}", *_table(names)]
        for each in names:
            kind = "class" if inspect.isclass(getattr(module, each)) else "function"
            lines += ["", f".. auto{kind}:: {each}", *["   :members:"] * (kind == "class")]
        described = nodes.section(document=self.state.document)
        self.state.nested_parse(StringList(lines, self.state.document["source"]), 0, described)
        return described.children


def _table(names: list[str]) -> list[str]:
    return ["", ".. autosummary::", "   :nosignatures:", "", *(f"   {each}" for each in names)]


def _begin_with_a_table(
    app: Any, what: str, name: str, value: Any, options: Any, lines: list[str]
) -> None:
    """Add the first sentences of all classes and functions to the docstring of a module."""
    if what != "module" or not options.members:
        return
    excluded = options.exclude_members or ()
    wanted = options.members if isinstance(options.members, list) else public_names(value)
    lines += _table([each for each in wanted if each not in excluded])


def _join_names(app: Any, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Keep the names of ``a, b : float`` together, of which Sphinx would take one for the type."""
    for number, line in enumerate(lines):
        if found := _ATTRIBUTES.match(line):
            lines[number] = line.replace(found[1], found[1].replace(", ", ",\u200b"), 1)


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
    app.add_directive("described", Described)
    app.connect("autodoc-skip-member", _skip)
    app.connect("autodoc-process-signature", _signature)
    # After napoleon, to whom the table would be part of the last section.
    for change in (_join_names, _begin_with_a_table):
        app.connect("autodoc-process-docstring", change, priority=600)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
