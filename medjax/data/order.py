"""The order of the data, as a pure function of seed and epoch.

No state is kept, so a checkpoint only needs (epoch, batch), resuming replays nothing, and the order
does not depend on the number of workers or hosts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["batches_by_rung", "drawn_order", "epoch_order", "fixed_sample", "item_rng"]


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


def drawn_order(seed: int, epoch: int, weights: np.ndarray) -> np.ndarray:
    """Return the items of an epoch that are drawn with replacement, in order.

    Parameters
    ----------
    seed, epoch : int
        As for `epoch_order`.
    weights : numpy.ndarray
        Weight of each item, shape (items,), float64.

    Returns
    -------
    numpy.ndarray
        As many positions as there are items, int64.

    Examples
    --------
    >>> drawn_order(7, 0, np.array([1.0, 0.0, 1.0, 1.0])).tolist()
    [3, 2, 3, 3]
    """
    ends = np.cumsum(weights)
    draws = _frozen_stream(seed, epoch).random_sample(len(weights)) * ends[-1]
    positions: np.ndarray = np.searchsorted(ends, draws, side="right").astype(np.int64)
    last = np.flatnonzero(weights)[-1]  # a draw next to 1 may be rounded up to the end
    clipped: np.ndarray = np.minimum(positions, last)
    return clipped


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


def fixed_sample(nb_items: int, size: int) -> np.ndarray:
    """Return positions of items, increasing: all, or a sample that depends on `nb_items` alone.

    Parameters
    ----------
    nb_items : int
        Number of items in the dataset.
    size : int
        Largest number of positions.

    Examples
    --------
    >>> fixed_sample(100, 4).tolist()
    [3, 29, 54, 77]
    """
    if nb_items <= size:
        return np.arange(nb_items)
    # Drawn from `size` parts of equal width, as a permutation of a large corpus takes long.
    edges = np.linspace(0, nb_items, size + 1).astype(np.int64)
    draws = _frozen_stream(0).random_sample(size)
    positions: np.ndarray = (edges[:-1] + draws * np.diff(edges)).astype(np.int64)
    return positions


def batches_by_rung(
    rungs: Sequence[int] | np.ndarray,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    window: int,
    shuffle: bool,
) -> list[np.ndarray]:
    r"""Cut one window of items into batches that are padded to the same length.

    A batch costs what its padded length costs, so items are sorted by that, stably, and not by
    their own length: within a rung they stay in the window's random order. With the permutation
    :math:`p` that sorts the rungs, :math:`r_{p_0} \le r_{p_1} \le \dots`, and the batch size
    :math:`B`, batch :math:`k` has the items :math:`p_{kB}, \dots, p_{(k+1)B-1}`. What is left over
    on a rung thereby moves up to the next. Then the full batches are shuffled.

    Parameters
    ----------
    rungs : sequence of int
        Length that each item of the window is padded to, in the window's order.
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
    transformers, whose windows are called megabatches. Where a window covers a corpus, batches
    sorted by the exact length are nearly the same in every epoch, which costs quality.

    Examples
    --------
    >>> batches = batches_by_rung([16, 8, 8, 16, 8], 2, seed=7, epoch=1, window=0, shuffle=False)
    >>> [batch.tolist() for batch in batches]
    [[1, 2], [4, 0], [3]]
    """
    by_rung = np.argsort(np.asarray(rungs), kind="stable")
    batches = [by_rung[i : i + batch_size] for i in range(0, len(by_rung), batch_size)]
    if shuffle:
        full = [batch for batch in batches if len(batch) == batch_size]
        short = batches[len(full) :]
        order = _frozen_stream(seed, epoch, window).permutation(len(full))
        batches = [full[i] for i in order] + short
    return batches
