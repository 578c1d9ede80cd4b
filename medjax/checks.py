"""Checks of the fields of records, and messages that say what a field may be."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = [
    "Check",
    "RefusedError",
    "file_path",
    "finite",
    "flag",
    "integer",
    "non_empty",
    "one_of",
    "optional",
    "validate",
]

Check = Callable[[Any], Any]
"""Takes the value of a field and returns the value to store, or raises `RefusedError`."""


class RefusedError(Exception):
    """Says what values a field may have; `validate` turns it into a ValueError."""


def integer(minimum: int) -> Check:
    """Return a check for an integer field of at least `minimum`."""

    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < minimum:
            raise RefusedError(f"an integer of at least {minimum}")
        return int(value)

    return check


def finite(minimum: float, *, above: bool = False) -> Check:
    """Return a check for a finite number, of at least `minimum` or above it."""

    def check(value: Any) -> float:
        bound = f"a finite number {'above' if above else 'of at least'} {minimum:g}"
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise RefusedError(bound)
        try:
            number = float(value)
        except OverflowError:  # an integer too large for a float
            number = math.inf
        if not math.isfinite(number) or number < minimum or (above and number == minimum):
            raise RefusedError(bound)
        return number

    return check


def flag(value: Any) -> bool:
    """Check a field that must be True or False."""
    if not isinstance(value, bool):
        raise RefusedError("True or False")
    return value


def non_empty(value: Any) -> str:
    """Check a field that must be a string with something in it."""
    if not isinstance(value, str) or not value:
        raise RefusedError("a non-empty string")
    return value


def file_path(value: Any) -> str | Path:
    """Check a field that must be a path."""
    if not isinstance(value, str | Path) or not str(value):
        raise RefusedError("a path, as a string or a pathlib.Path")
    return value


def one_of(*allowed: str) -> Check:
    """Return a check for a field that must have one of a few values.

    Examples
    --------
    >>> one_of("stop", "skip")("skip")
    'skip'
    """

    def check(value: Any) -> str:
        if not isinstance(value, str) or value not in allowed:
            raise RefusedError(f"one of {', '.join(map(repr, allowed))}")
        return value

    return check


def optional(check: Check) -> Check:
    """Return a check for a field that may also be None."""

    def check_unless_none(value: Any) -> Any:
        try:
            return None if value is None else check(value)
        except RefusedError as refused:
            raise RefusedError(f"None or {refused}") from None

    return check_unless_none


def validate(record: Any, checks: dict[str, Check]) -> None:
    """Check the fields of a frozen dataclass.

    Parameters
    ----------
    record : dataclass
        Its fields are replaced by what the checks return.
    checks : dict
        Maps the name of a field to its check.

    Raises
    ------
    ValueError
        If a check fails; the message names the field, its value and what is allowed.

    Examples
    --------
    >>> import dataclasses
    >>> @dataclasses.dataclass(frozen=True)
    ... class Point:
    ...     x: int
    >>> validate(Point(-1), {"x": integer(0)})
    Traceback (most recent call last):
    ValueError: Point.x is -1; expected an integer of at least 0
    """
    for name, check in checks.items():
        value = getattr(record, name)
        try:
            object.__setattr__(record, name, check(value))
        except RefusedError as refused:
            msg = f"{type(record).__name__}.{name} is {value!r}; expected {refused}"
            raise ValueError(msg) from None
