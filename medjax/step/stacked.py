"""Several batches as one, for several steps in one call of the device."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from medjax.batch import BatchData


def stack(batches: Sequence[BatchData]) -> BatchData | None:
    """Stack batches along a new first axis, on the host or on the device, where they are.

    Parameters
    ----------
    batches : sequence of BatchData
        Columns as numpy or JAX arrays.

    Returns
    -------
    BatchData or None
        What `make_train_steps` trains on; None if the batches differ in columns, shapes or dtypes.
    """
    flat = [jax.tree.flatten(batch) for batch in batches]
    kinds = {
        (structure, *((leaf.shape, leaf.dtype) for leaf in leaves)) for leaves, structure in flat
    }
    if len(kinds) > 1:
        return None
    (_, structure), *_ = flat
    columns = [list(column) for column in zip(*(leaves for leaves, _ in flat), strict=True)]
    on_device = [isinstance(column[0], jax.Array) for column in columns]
    # On the host a copy takes less time than handing over each array by itself.
    done = iter(_stack_on_device([c for c, there in zip(columns, on_device, strict=True) if there]))
    stacked = [
        next(done) if there else np.stack(column)
        for column, there in zip(columns, on_device, strict=True)
    ]
    batch: BatchData = jax.tree.unflatten(structure, stacked)
    return batch


@jax.jit
def _stack_on_device(columns: list[list[jax.Array]]) -> list[jax.Array]:
    """Stack all columns in one call, which takes about as long as a call for each of them."""
    return [jnp.stack(column) for column in columns]
