"""Cropping from outputs what forward computed for padding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from medjax_torch.graph.batch_columns import flatten
from medjax_torch.torch_internals import pytree

Axes = dict[str, tuple[int, ...]]
"""The axes of each output, by path, that have the padded size."""

Cuts = dict[str, dict[int, int]]
"""The size of each axis to crop, by output path and axis."""


def cuts_of(axes: Axes, size: int) -> Cuts:
    """Return the cuts that restore outputs' `axes` to the unpadded `size`."""
    return {name: dict.fromkeys(followed, size) for name, followed in axes.items()}


def strip(outputs: Mapping[str, Any], cuts: Cuts) -> dict[str, Any]:
    """Crop from forward's outputs what was computed for padding.

    Parameters
    ----------
    outputs : mapping of str to value
        Dicts, lists and tuples of torch tensors or numpy arrays.
    cuts : mapping of str to dict of int to int
        The size of each axis to crop, by output path and axis.

    Returns
    -------
    dict
        Outputs with the same structure; tensors are views.
    """
    leaves, spec = flatten(outputs)
    cut = [_cut(leaf, cuts.get(name, {})) for name, leaf in leaves.items()]
    stripped: dict[str, Any] = pytree.tree_unflatten(cut, spec)
    return stripped


def _cut(leaf: Any, sizes: Mapping[int, int]) -> Any:
    if not sizes or not isinstance(leaf, Tensor | np.ndarray):
        return leaf
    return leaf[tuple(slice(sizes.get(axis)) for axis in range(leaf.ndim))]
