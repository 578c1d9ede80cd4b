"""The order of the data, as a pure function of seed and epoch.

No state is kept, so a checkpoint only needs (epoch, batch), resuming replays nothing, and the order
does not depend on the number of workers or hosts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["batches_by_length", "epoch_order", "item_rng"]


def _frozen_stream(seed: int, *path: int) -> np.random.RandomState:
    # RandomState, not Generator: NumPy's policy (NEP 19) guarantees that its streams never change.
    words = [seed & 0xFFFFFFFF, seed >> 32, *path]
    return np.random.RandomState(np.array(words, dtype=np.uint32))


def epoch_order(seed: int, epoch: int, nb_items: int) -> np.ndarray:
    """Return the order of the items in an epoch.

    Parameters
    ----------
    seed : int
        Below 2**63.
    epoch : int
        Number of the epoch.
    nb_items : int
        Number of items in the dataset.

    Returns
    -------
    numpy.ndarray
        A permutation of 0 to `nb_items` - 1, shape (nb_items,), int64.

    Examples
    --------
    >>> epoch_order(7, 0, 8).tolist()
    [1, 5, 2, 6, 4, 3, 7, 0]
    """
    return _frozen_stream(seed, epoch).permutation(nb_items)


def item_rng(seed: int, epoch: int, index: int) -> np.random.Generator:
    """Return the random generator of one item in one epoch, for augmentation.

    Parameters
    ----------
    seed, epoch, index : int
        Seed of the run, number of the epoch and position of the item.

    Examples
    --------
    >>> item_rng(7, 0, 5).integers(100, size=3).tolist()
    [4, 45, 14]
    """
    key = np.array([seed, epoch], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=[index, 0, 0, 0]))


def batches_by_length(
    lengths: Sequence[int] | np.ndarray,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    window: int,
    shuffle: bool,
) -> list[np.ndarray]:
    r"""Cut one window of items into batches of similar length.

    With the permutation :math:`p` that sorts the lengths stably, :math:`l_{p_0} \le l_{p_1} \le
    \dots`, and the batch size :math:`B`, batch :math:`k` has the items :math:`p_{kB}, \dots,
    p_{(k+1)B-1}`. Then the full batches are shuffled.

    Parameters
    ----------
    lengths : sequence of int
        Length of each item of the window, in the window's order.
    batch_size : int
        Rows of a batch; only the last batch may have fewer.
    seed, epoch, window : int
        Determine the order of the batches.
    shuffle : bool
        Whether the batches are shuffled; if not, they are ordered from short to long.

    Returns
    -------
    list of numpy.ndarray
        Positions in the window, one array for each batch; an incomplete batch comes last.

    References
    ----------
    Sorting by length within windows of a random order is known from ``LengthGroupedSampler`` of
    transformers, whose windows are called megabatches.

    Examples
    --------
    >>> batches = batches_by_length(
    ...     [9, 3, 8, 4, 5], 2, seed=7, epoch=1, window=0, shuffle=False
    ... )
    >>> [batch.tolist() for batch in batches]
    [[1, 3], [4, 2], [0]]
    """
    by_length = np.argsort(np.asarray(lengths), kind="stable")
    batches = [by_length[i : i + batch_size] for i in range(0, len(by_length), batch_size)]
    if shuffle:
        full = [batch for batch in batches if len(batch) == batch_size]
        short = batches[len(full) :]
        order = _frozen_stream(seed, epoch, window).permutation(len(full))
        batches = [full[i] for i in order] + short
    return batches
