"""The norm of all gradients."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

__all__ = ["clip_by_norm", "global_norm"]

_LARGE = 2**16


def global_norm(tree: Any) -> jax.Array:
    """Return the Euclidean norm of all arrays of a tree together.

    It is that of `optax.tree.norm`, of which large arrays are summed row by row first: a sum of few
    terms is exact enough as a plain loop, which is what a CPU computes fastest.

    Parameters
    ----------
    tree : pytree
        Arrays.

    Returns
    -------
    jax.Array
        Shape ().

    Examples
    --------
    >>> float(global_norm({"kernel": jnp.array([[3.0, 0.0]]), "bias": jnp.array([4.0])}))
    5.0
    """
    norm: jax.Array = optax.tree.norm(jax.tree.map(_of_rows, tree))
    return norm


def _of_rows(x: jax.Array) -> jax.Array:
    return jnp.linalg.norm(x, axis=-1) if x.ndim > 1 and x.size > _LARGE else x


def clip_by_norm(tree: Any, max_norm: float) -> Any:
    """Return a tree scaled down to a norm, unless its own is smaller.

    It does what `optax.clip_by_global_norm` does, with `global_norm`.

    Parameters
    ----------
    tree : pytree
        Arrays.
    max_norm : float
        The largest norm.

    Examples
    --------
    >>> clip_by_norm(jnp.array([6.0, 8.0]), 5.0).tolist()
    [3.0, 4.0]
    """
    norm = global_norm(tree)

    def clip(x: jax.Array) -> jax.Array:
        return jnp.where(norm < max_norm, x, x / norm.astype(x.dtype) * max_norm)

    return jax.tree.map(clip, tree)
