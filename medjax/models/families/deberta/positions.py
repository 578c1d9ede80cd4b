"""Relative positions in attention, without gathering from the scores."""

from __future__ import annotations

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

from medjax.models.families.deberta.config import DebertaV2Config

__all__ = ["buckets", "reversed_rows", "rows_of_distances", "shift", "used_rows"]


def buckets(config: DebertaV2Config, length: int) -> np.ndarray:
    """Return the buckets of the distances from 0 to `length - 1`.

    Half of the buckets have one distance each, the others are logarithmic: a distance d above
    m = `position_buckets` // 2 is in bucket m + ceil((m - 1) log(d / m) / log((n - 1) / m)), where
    n is the distance from which all are the same (`make_log_bucket_position` in transformers,
    which computes it in float32 as well). Negative distances have the negative buckets.

    Parameters
    ----------
    config : DebertaV2Config
        The encoder's configuration.
    length : int
        Number of distances.

    Returns
    -------
    numpy.ndarray
        int32, shape (length,).
    """
    distances = np.arange(length, dtype=np.int32)
    if config.position_buckets < 1:
        return distances
    middle = np.float32(config.position_buckets // 2)
    ratio = np.maximum(distances.astype(np.float32), middle) / middle
    share = np.log(ratio) / np.log(np.float32((config.furthest - 1) / float(middle)))
    logarithmic = np.ceil(share * (middle - 1)).astype(np.int32) + int(middle)
    return np.where(distances <= middle, distances, logarithmic)


def rows_of_distances(config: DebertaV2Config, length: int) -> np.ndarray | jax.Array:
    """Return the embeddings of the distances of a query from a key.

    Parameters
    ----------
    config : DebertaV2Config
        The encoder's configuration.
    length : int
        Number of tokens in a row; in a program for all lengths a symbol, with which the rows are
        computed in the program.

    Returns
    -------
    numpy.ndarray or jax.Array
        Rows of the table of embeddings, int32, shape (2 x length,), for the distances ``length - 1,
        length - 2, ..., 1 - length``; the last is there twice, as `shift` needs an even number.
    """
    if isinstance(length, int):
        return _known_rows(config, length)
    # The buckets are looked up, as a logarithm of XLA may be rounded to another one than numpy's.
    signed = jnp.maximum(length - 1 - jnp.arange(2 * length, dtype=jnp.int32), 1 - length)
    table = jnp.asarray(buckets(config, config.max_length))
    span = config.position_span
    return jnp.clip(jnp.sign(signed) * table[jnp.abs(signed)] + span, 0, 2 * span - 1)


@cache
def _known_rows(config: DebertaV2Config, length: int) -> np.ndarray:
    positive = buckets(config, length)
    signed = np.concatenate((positive[::-1], -positive[1:], -positive[-1:]))
    span = config.position_span
    rows: np.ndarray = np.clip(signed + span, 0, 2 * span - 1).astype(np.int32)
    return rows


def reversed_rows(rows: np.ndarray | jax.Array) -> np.ndarray | jax.Array:
    """Return the rows for the distances of a key from a query, the last again there twice."""
    if isinstance(rows, np.ndarray):
        return np.roll(rows[::-1], -1)
    backwards = rows[::-1]
    return jnp.concatenate((backwards[1:], backwards[:1]))


def used_rows(config: DebertaV2Config, length: int) -> slice:
    """Return the rows of the table of embeddings that rows of `length` tokens need.

    With a symbol for the length, these are all.
    """
    if not isinstance(length, int):
        return slice(0, 2 * config.position_span)
    rows = _known_rows(config, length)
    return slice(int(rows.min()), int(rows.max()) + 1)


def shift(scores: jax.Array) -> jax.Array:
    """Return the scores by position from scores by distance.

    Read as one sequence from its element ``length - 1`` on, an array of shape (length, 2 x length)
    is one of shape (length, 2 x length - 1) in which each row starts one element earlier. So no
    element is gathered, and none is scattered in the gradient (Dai et al. 2019, appendix B).

    Parameters
    ----------
    scores : jax.Array
        Shape (..., length, 2 x length): in row i, column c is for the position i + c + 1 - length.

    Returns
    -------
    jax.Array
        Shape (..., length, length): in row i, column j is for the position j.

    Examples
    --------
    >>> shift(jax.numpy.arange(8).reshape(2, 4)).tolist()
    [[1, 2], [4, 5]]
    """
    *leading, length, width = scores.shape
    flat = scores.reshape(*leading, length * width)
    if isinstance(length, int):
        flat = flat[..., length - 1 :][..., : length * (width - 1)]
    else:  # the same, where JAX cannot tell that the number of elements is positive
        flat = flat[..., length - 1 : -1]
    return flat.reshape(*leading, length, width - 1)[..., :length]
