"""Whether a component computes the same from a longer, padded batch: asked of torch itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch.utils._pytree as pytree
from torch import Tensor

from medjax_torch.comparison import differences
from medjax_torch.graph.batches import flatten
from medjax_torch.graph.joint import Call
from medjax_torch.modules import Found
from medjax_torch.reference import Outcome, reference

_TOLERANCE = 1e-4
"""Largest relative difference: torch is on both sides, and a little padding makes a small one."""

_SIDES = ("the padded batch", "the batch itself")


class PaddingProof(NamedTuple):
    """Padding changed nothing, on one batch.

    Attributes
    ----------
    axes : dict of str to tuple of int
        By the path of an output, which of its axes are as long as the batch was padded to.
        Outputs without such an axis are left out.
    relative : float
        The largest relative difference of a result.
    """

    axes: dict[str, tuple[int, ...]]
    relative: float


def prove_padding(
    call: Call,
    found: Found,
    batch: Mapping[str, Any],
    padded: Mapping[str, Any],
    length: int,
    padded_length: int,
    *,
    train: bool = True,
) -> PaddingProof | str:
    """Run a batch and its padded version in torch and compare what they give.

    Dropout keeps everything in both, as masks of different shapes cannot be compared.

    Parameters
    ----------
    call : Call
        The component's forward, as `graph.trace` takes it.
    found : Found
        The component's content. It is left as it was.
    batch, padded : mapping of str to value
        The batch, and the same with some tensors longer.
    length, padded_length : int
        How long those tensors are, and how long they have become.
    train : bool
        Whether to compare gradients too.

    Returns
    -------
    PaddingProof or str
        The proof if loss, gradients and state are equal, and outputs are once cut to `length`;
        otherwise why padding is not harmless.

    Raises
    ------
    Exception
        Whatever forward raises on the batch itself.
    """
    expected = reference(call, found, batch, train=train, spread=False)
    try:
        longer = reference(call, found, padded, train=train, spread=False)
    except Exception as error:
        return f"forward raises {type(error).__name__} on {_SIDES[0]}: {error}"
    axes: dict[str, tuple[int, ...]] = {}
    for name in expected.outputs.keys() & longer.outputs.keys():
        shapes = expected.outputs[name].shape, longer.outputs[name].shape
        followed = _followed(*shapes, (length, padded_length))
        if followed is None:
            return (
                f"output {name} has shape {shapes[1]} for {_SIDES[0]}, which is not {shapes[0]} "
                f"with {padded_length} in the place of {length}, so it cannot be cut back"
            )
        if followed:
            axes[name] = followed
    cut = longer._replace(outputs=strip(longer.outputs, axes, length))
    return _judged(cut, expected, axes)


def _judged(
    cut: Outcome, expected: Outcome, axes: dict[str, tuple[int, ...]]
) -> PaddingProof | str:
    listing = differences(cut, expected, _SIDES)
    wrong = [one for one in listing if one.relative > _TOLERANCE]
    if wrong:
        more = f" (and {len(wrong) - 1} more results differ)" if len(wrong) > 1 else ""
        return f"padding changes {wrong[0]}{more}"
    return PaddingProof(axes, listing[0].relative)


def strip(
    outputs: Mapping[str, Any], axes: Mapping[str, tuple[int, ...]], length: int
) -> dict[str, Any]:
    """Cut what was computed for padding off the outputs of forward.

    Parameters
    ----------
    outputs : mapping of str to value
        Dicts, lists and tuples of torch tensors or numpy arrays.
    axes : mapping of str to tuple of int
        Of a `PaddingProof`.
    length : int
        How long the batch was before it was padded.

    Returns
    -------
    dict
        Of the same structure; the tensors are views.
    """
    leaves, spec = flatten(outputs)
    cut = [_cut(leaf, axes.get(name, ()), length) for name, leaf in leaves.items()]
    stripped: dict[str, Any] = pytree.tree_unflatten(cut, spec)
    return stripped


def _cut(leaf: Any, axes: tuple[int, ...], length: int) -> Any:
    if not axes or not isinstance(leaf, Tensor | np.ndarray):
        return leaf
    return leaf[tuple(slice(length if axis in axes else None) for axis in range(leaf.ndim))]


def _followed(
    shape: tuple[int, ...], longer: tuple[int, ...], lengths: tuple[int, int]
) -> tuple[int, ...] | None:
    """Return the axes that became longer, None if any other change was made."""
    if len(shape) != len(longer):
        return None
    pairs = list(zip(shape, longer, strict=True))
    changed = tuple(axis for axis, (before, after) in enumerate(pairs) if before != after)
    return changed if all(pairs[axis] == lengths for axis in changed) else None
