"""Which parameters weight decay applies to."""

from __future__ import annotations

import re
from typing import Any

import jax

_SPARED = frozenset({"bias", "biases", "scale", "gamma", "beta"})
_DECAYED = frozenset({"kernel", "embedding"})
_BOXES = frozenset({"value", "raw_value"})
"""What Flax's boxes of partitioned parameters call their array."""

_NORMALISATION = re.compile(
    r"(^|_)(layer|rms|batch|group|instance|sync_?batch)?_?norm(ali[sz]ation)?\d*(_|$)|^(ln|bn)\d*(_|$)"
)


def decays(params: Any) -> Any:
    """Return which parameters weight decay applies to: all but biases and normalisation scales.

    What a parameter is, its path says:

    1. An array with less than two dimensions is spared, whatever it is called.
    2. ``bias``, ``scale``, ``gamma`` and ``beta`` are spared, ``kernel`` and ``embedding`` decay.
    3. Another name (torch calls most things ``weight``) is spared in a module that is named as a
       normalisation (``LayerNorm_0``, ``layer_norm``, ``bn1``), and decays elsewhere.

    The number of dimensions alone would not do: attention biases of Flax have the shape (heads,
    head size), and `flax.linen.scan` adds the axis of the layers to every scale and bias.

    Parameters
    ----------
    params : pytree
        Arrays, or anything with `ndim`. The names of a path may also be joined by ``.`` or ``/``.

    Returns
    -------
    pytree
        A bool for each leaf.

    References
    ----------
    That biases and scales are spared is usual since BERT took up AdamW (Loshchilov and Hutter,
    "Decoupled Weight Decay Regularization", 2019).

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> decays({"query": {"kernel": jnp.ones((4, 2, 2)), "bias": jnp.ones((2, 2))}})
    {'query': {'bias': False, 'kernel': True}}
    """
    return jax.tree_util.tree_map_with_path(_decays, params)


def _decays(path: tuple[Any, ...], leaf: Any) -> bool:
    names = _names(path)
    if leaf.ndim < 2 or names[-1] in _SPARED:
        return False
    if names[-1] in _DECAYED or len(names) == 1:
        return True
    return _NORMALISATION.search(names[-2]) is None


def _names(path: tuple[Any, ...]) -> list[str]:
    """Return the names of a path in snake case, without those of boxes."""
    joined = jax.tree_util.keystr(path, simple=True, separator="/")
    names = [_snake(name) for name in re.split(r"[./]", joined) if name]
    while len(names) > 1 and names[-1] in _BOXES:
        names.pop()
    return names or [""]


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
