"""The installed packages against what medjax requires, as its own metadata states it."""

from __future__ import annotations

import importlib.metadata
import platform
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from medjax.loop.contract import UNSOUND

__all__ = ["Installed", "installed_packages", "problem_of_python"]

_TOOLS = {"bench", "docs", "test"}  # extras that no run needs
_SELF = "medjax"
_EXTRA = re.compile(r"""extra == ["']([^"']+)""")


class Installed(NamedTuple):
    """A package that medjax requires or can use.

    Attributes
    ----------
    name : str
        Its name.
    version : str or None
        Its version, None if it is not installed.
    extras : tuple of str
        Extras of medjax that need it; () if medjax itself does.
    problem : str or None
        What is known to be bad about that.
    """

    name: str
    version: str | None
    extras: tuple[str, ...]
    problem: str | None


def installed_packages(requirements: Sequence[str] | None = None) -> list[Installed]:
    """Return the packages that medjax requires or can use, each compared with its requirement.

    Parameters
    ----------
    requirements : sequence of str, optional
        As in the metadata of a distribution; by default those of medjax.

    Raises
    ------
    ValueError
        If medjax is not installed, so that its requirements are unknown.

    Examples
    --------
    >>> (numpy,) = installed_packages(["numpy>=1"])
    >>> numpy.problem is None
    True
    """
    if requirements is None:
        try:
            requirements = importlib.metadata.requires(_SELF) or []
        except importlib.metadata.PackageNotFoundError:
            msg = "medjax is not installed, so its requirements are unknown: pip install it"
            raise ValueError(msg) from None
    merged: dict[str, tuple[SpecifierSet, set[str]]] = {}
    for requirement, extra in _applicable(requirements):
        specifier, extras = merged.get(requirement.name, (SpecifierSet(), set()))
        merged[requirement.name] = (specifier & requirement.specifier, extras | {extra})
    return [
        _compared(name, specifier, tuple(sorted(extras - {""})) if "" not in extras else ())
        for name, (specifier, extras) in merged.items()
    ]


def _applicable(requirements: Sequence[str]) -> Iterator[tuple[Requirement, str]]:
    """Yield the requirements of this platform, each with its extra, "" for none."""
    for text in requirements:
        requirement = Requirement(text)
        extra = named[1] if (named := _EXTRA.search(text)) else ""
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": extra})
        if applies and requirement.name != _SELF and extra not in _TOOLS:
            yield requirement, extra


def _compared(name: str, specifier: SpecifierSet, extras: tuple[str, ...]) -> Installed:
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        missing = None if extras else f"{name} is not installed; medjax requires {name}{specifier}"
        return Installed(name, None, extras, missing)
    if specifier.contains(version, prereleases=True):
        return Installed(name, version, extras, None)
    purpose = f'"medjax[{extras[0]}]"' if extras else _SELF
    reason = f": {UNSOUND[version]}" if name in ("jax", "jaxlib") and version in UNSOUND else ""
    problem = f'{name} {version} is installed{reason}; {purpose} requires "{name}{specifier}"'
    return Installed(name, version, extras, problem)


def problem_of_python() -> str | None:
    """Return what is bad about this release of Python, if anything."""
    try:
        required = importlib.metadata.metadata(_SELF)["Requires-Python"]
    except importlib.metadata.PackageNotFoundError:
        return None
    found = platform.python_version()
    if SpecifierSet(required).contains(Version(found), prereleases=True):
        return None
    return f"Python {found} is running; medjax requires Python {required}"
