"""The mark on a training batch that asks for the update it would otherwise wait for."""

from __future__ import annotations

import jax
import numpy as np

from medjax.batch import BatchData

UPDATE_DUE = "update_due"
"""Entry of a training batch: whether to update the parameters with it, bool, shape ().

True makes the update even if fewer batches than `gradient_accumulation_steps` are waiting; the loop
sets it on the last batch of an epoch. It is a value and no shape, so both kinds of batches go
through one compiled program.
"""

Due = jax.Array | np.ndarray
"""The value of a mark: bool, shape ()."""


def with_update_due(batch: BatchData, due: bool | jax.Array) -> BatchData:
    """Mark a batch for a step that accumulates gradients.

    Parameters
    ----------
    batch : BatchData
        Columns of the batch; left as they are.
    due : bool or jax.Array
        Whether the update is due with this batch at the latest, shape ().

    Returns
    -------
    BatchData
        The columns with the entry `UPDATE_DUE`, as ``train_step(state, batch)`` takes them.

    Examples
    --------
    >>> batch = BatchData(x=np.zeros((2, 3), np.float32))
    >>> sorted(with_update_due(batch, True))
    ['update_due', 'x']
    """
    mark = due if isinstance(due, jax.Array) else np.asarray(due, np.bool_)
    return BatchData(batch, **{UPDATE_DUE: mark})


def split_update_due(batch: BatchData, *, accumulates: bool) -> tuple[BatchData, Due]:
    """Split a batch into its columns and its mark.

    Parameters
    ----------
    batch : BatchData
        A batch for a training step.
    accumulates : bool
        Whether several batches make one update. If not, every batch makes one, marked or not.

    Raises
    ------
    ValueError
        If several batches make one update and the batch has no mark.
    """
    if UPDATE_DUE in batch:
        columns = BatchData({name: batch[name] for name in batch if name != UPDATE_DUE})
        return columns, batch[UPDATE_DUE]
    if accumulates:
        msg = (
            f"the batch has no entry {UPDATE_DUE!r}, and several batches make one update; mark it "
            "with medjax.with_update_due(batch, is_last), where is_last is True for the last batch "
            "of an epoch"
        )
        raise ValueError(msg)
    return batch, np.zeros((), np.bool_)
