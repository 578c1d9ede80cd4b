"""Several batches in one call of the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from medjax.batch import BatchData


class Stacked(NamedTuple):
    """Batches of one shape as one, for as many steps in one call.

    Attributes
    ----------
    columns : BatchData
        With a first axis along which the batches lie.
    """

    columns: BatchData


def stacked(batches: Sequence[BatchData]) -> Stacked | None:
    """Return batches as one, stacked where they lie; None if they differ in shape.

    Parameters
    ----------
    batches : sequence of BatchData
        Of numpy or JAX arrays.
    """
    flat = [jax.tree.flatten(batch) for batch in batches]
    kinds = {
        (structure, *((leaf.shape, leaf.dtype) for leaf in leaves)) for leaves, structure in flat
    }
    if len(kinds) > 1:
        return None
    (_, structure), *_ = flat
    columns = zip(*(leaves for leaves, _ in flat), strict=True)
    return Stacked(jax.tree.unflatten(structure, [_stack(column) for column in columns]))


def _stack(column: tuple[Any, ...]) -> Any:
    # On the host a copy takes less time than handing over each array by itself.
    return (_stack_on_device if isinstance(column[0], jax.Array) else np.stack)(column)


_stack_on_device = jax.jit(jnp.stack)
