"""Temporarily replaced attributes of modules and classes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_ABSENT = object()


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Replace an attribute within the block.

    Parameters
    ----------
    owner : module or class
        The object that has the attribute.
    name : str
        Name of the attribute.
    value : object
        Its value within the block.
    """
    # The stored object itself: getattr would bind a method and return inherited attributes.
    before = vars(owner).get(name, _ABSENT)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if before is _ABSENT:
            delattr(owner, name)
        else:
            setattr(owner, name, before)
