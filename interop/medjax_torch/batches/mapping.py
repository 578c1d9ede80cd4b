"""Copies of a collated batch with other columns, of the same type."""

from __future__ import annotations

import collections
import copy
from collections.abc import Mapping
from typing import Any


def rebuilt(batch: Mapping[str, Any], columns: Mapping[str, Any]) -> Any:
    """Return a new mapping of the type of `batch` with the columns `columns`.

    Parameters
    ----------
    batch : mapping
        A BatchData, a dict, transformers' BatchEncoding, or any mapping that can be constructed
        from a dict. It is not changed.
    columns : mapping
        The columns of the new mapping.

    Raises
    ------
    TypeError
        If the type cannot be constructed from a dict.
    """
    if isinstance(batch, dict | collections.UserDict):
        # Unlike calling the type, copying keeps the attributes of a BatchEncoding and does not
        # need a constructor that takes a mapping.
        new = copy.copy(batch)
        new.clear()
        for name, column in columns.items():
            new[name] = column
        return new
    kind: Any = type(batch)
    try:
        new = kind(dict(columns))
        content = {name: new[name] for name in new}
    except Exception as error:
        raise _not_rebuilt(batch) from error
    if content.keys() != columns.keys() or any(content[n] is not columns[n] for n in content):
        raise _not_rebuilt(batch)
    return new


def _not_rebuilt(batch: Mapping[str, Any]) -> TypeError:
    return TypeError(
        f"the batch is a {type(batch).__name__}, which cannot be constructed from a dict, so it "
        "can be neither padded nor traced; return a dict or a BatchData from collate"
    )
