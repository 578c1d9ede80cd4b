"""Which parameters weight decay applies to, and who applies it."""

from __future__ import annotations

import re
from typing import Any

import jax
import optax

__all__ = ["SelfDecaying", "decays"]

_NOT_DECAYED = frozenset({"bias", "biases", "scale", "gamma", "beta"})
_DECAYED = frozenset({"kernel", "embedding"})
_BOXES = frozenset({"value", "raw_value"})
"""Names that Flax's boxes of partitioned parameters give to their array."""

_NORMALISATION = re.compile(
    r"(^|_)(layer|rms|batch|group|instance|sync_?batch)?_?norm(ali[sz]ation)?\d*(_|$)|^(ln|bn)\d*(_|$)"
)


class SelfDecaying(optax.GradientTransformation):  # type: ignore[misc]  # optax has no types
    """A transformation whose updates contain the decay of `Options.weight_decay`.

    An optimizer returns one if it knows better than `make_optimizer` which parameters an update
    changes, and at which rate.
    """


def decays(params: Any) -> Any:
    """Return which parameters weight decay applies to: all but biases and normalisation scales.

    The path of a parameter says what it is:

    1. An array with fewer than two dimensions does not decay, whatever its name.
    2. ``bias``, ``scale``, ``gamma`` and ``beta`` do not decay; ``kernel`` and ``embedding`` do.
    3. A parameter with any other name (torch calls most parameters ``weight``) does not decay in a
       module named like a normalisation (``LayerNorm_0``, ``layer_norm``, ``bn1``), and decays
       elsewhere.

    The number of dimensions alone is not enough: attention biases in Flax have the shape (heads,
    head size), and `flax.linen.scan` adds an axis for the layers to every scale and bias.

    Parameters
    ----------
    params : pytree
        Arrays, or anything with `ndim`. The names in a path may also be joined by ``.`` or ``/``.

    Returns
    -------
    pytree
        A bool for each leaf.

    References
    ----------
    Excluding biases and scales is common practice since BERT, with the decoupled decay of
    Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> decays({"query": {"kernel": jnp.ones((4, 2, 2)), "bias": jnp.ones((2, 2))}})
    {'query': {'bias': False, 'kernel': True}}
    """
    return jax.tree_util.tree_map_with_path(_decays, params)


def _decays(path: tuple[Any, ...], leaf: Any) -> bool:
    names = _names(path)
    if leaf.ndim < 2 or names[-1] in _NOT_DECAYED:
        return False
    if names[-1] in _DECAYED or len(names) == 1:
        return True
    return _NORMALISATION.search(names[-2]) is None


def _names(path: tuple[Any, ...]) -> list[str]:
    """Return the names in a path in snake case, without those of boxes."""
    joined = jax.tree_util.keystr(path, simple=True, separator="/")
    names = [_snake(name) for name in re.split(r"[./]", joined) if name]
    while len(names) > 1 and names[-1] in _BOXES:
        names.pop()
    return names or [""]


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
