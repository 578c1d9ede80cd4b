"""Mappings of the type that `collate` returns, with other columns."""

from __future__ import annotations

import collections
import copy
from collections.abc import Mapping
from typing import Any


def rebuilt(batch: Mapping[str, Any], columns: Mapping[str, Any]) -> Any:
    """Return a new mapping of the type of `batch` that holds `columns`.

    Parameters
    ----------
    batch : mapping
        A BatchData, a dict, transformers' BatchEncoding, or any mapping made from a dict.
    columns : mapping
        What the new one holds.

    Raises
    ------
    TypeError
        If the type cannot be made from a dict.
    """
    if isinstance(batch, dict | collections.UserDict):
        # Copying, unlike calling the type, keeps the attributes of a BatchEncoding and needs no
        # constructor that takes a mapping.
        new = copy.copy(batch)
        new.clear()
        for name, column in columns.items():
            new[name] = column
        return new
    kind: Any = type(batch)
    try:
        new = kind(dict(columns))
        held = {name: new[name] for name in new}
    except Exception as error:
        raise _not_rebuilt(batch) from error
    if held.keys() != columns.keys() or any(held[name] is not columns[name] for name in held):
        raise _not_rebuilt(batch)
    return new


def _not_rebuilt(batch: Mapping[str, Any]) -> TypeError:
    return TypeError(
        f"the batch is a {type(batch).__name__}, which cannot be made from a dict, so it can be "
        "neither padded nor traced; return a dict or a BatchData from collate"
    )
