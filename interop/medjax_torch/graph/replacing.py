"""Attributes of modules and classes that are others for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_ABSENT = object()


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Put a value in the place of an attribute within the block.

    Parameters
    ----------
    owner : module or class
        What has the attribute.
    name : str
        Its name.
    value : object
        What it is within the block.
    """
    # The very object: getattr would bind a method, and find what a class inherits.
    before = vars(owner).get(name, _ABSENT)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if before is _ABSENT:
            delattr(owner, name)
        else:
            setattr(owner, name, before)
