"""The entries of a device batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax

COLUMNS, GRAPH, WEIGHT = "columns", "graph", "weight"
"""Arrays by path, the graph that they run in, and the loss weight."""

NUMBER = "number"
"""The number of a batch in its epoch, if it is evaluated and its graph draws."""


def key_of(batch: Mapping[str, Any], key: jax.Array) -> jax.Array:
    """Return the key of a batch: its own in an evaluation that draws, such as with dropout."""
    return jax.random.fold_in(key, batch[NUMBER]) if NUMBER in batch else key
