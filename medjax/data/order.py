"""The order of the data, as a pure function of seed and epoch.

Nothing about the order is kept, so a checkpoint needs only (epoch, batch), resuming replays
nothing, and the number of workers or hosts does not matter.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def _frozen_stream(seed: int, *path: int) -> np.random.RandomState:
    # RandomState and not Generator: its streams are frozen for good by NumPy's policy (NEP 19).
    words = [seed & 0xFFFFFFFF, seed >> 32, *path]
    return np.random.RandomState(np.array(words, dtype=np.uint32))


def epoch_order(seed: int, epoch: int, nb_items: int) -> np.ndarray:
    """Return the order of the items in an epoch.

    Parameters
    ----------
    seed : int
        Below 2**63.
    epoch : int
        Any number that tells epochs apart.
    nb_items : int
        Length of the dataset.

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
    """Cut one window of items into batches of similar length.

    Parameters
    ----------
    lengths : sequence of int
        Length of each item of the window, in the window's order.
    batch_size : int
        Rows of a batch; only the last batch may have fewer.
    seed, epoch, window : int
        What the order of the batches depends on.
    shuffle : bool
        Whether the batches are shuffled; if not they go from short to long.

    Returns
    -------
    list of numpy.ndarray
        Positions in the window, one array for each batch; the short batch, if any, comes last.
    """
    by_length = np.argsort(np.asarray(lengths), kind="stable")
    batches = [by_length[i : i + batch_size] for i in range(0, len(by_length), batch_size)]
    if shuffle:
        full = [batch for batch in batches if len(batch) == batch_size]
        short = batches[len(full) :]
        order = _frozen_stream(seed, epoch, window).permutation(len(full))
        batches = [full[i] for i in order] + short
    return batches
