"""The columns of a batch: which are traced and which are fixed."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from medjax_torch.torch_internals import pytree


def flatten(values: Mapping[str, Any]) -> tuple[dict[str, Any], pytree.TreeSpec]:
    """Return the leaves of nested dicts, lists and tuples by path, and the spec to rebuild them.

    Examples
    --------
    >>> flatten({"ids": 1, "boxes": [2, 3]})[0]
    {'ids': 1, 'boxes.0': 2, 'boxes.1': 3}
    """
    leaves, spec = pytree.tree_flatten_with_path(dict(values))
    named: dict[str, Any] = {}
    for path, leaf in leaves:
        name = ".".join(_name(key) for key in path)
        # The key "a.0" and the first element under the key "a" would have the same path.
        while name in named:
            name += "'"
        named[name] = leaf
    return named, spec


def columns(batch: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors of a batch by path, in the order of a graph's inputs."""
    if is_flat(batch):
        return dict(batch)
    return {path: leaf for path, leaf in flatten(batch)[0].items() if isinstance(leaf, Tensor)}


def signature(batch: Mapping[str, Any]) -> Hashable:
    """Return the signature of a batch: batches with the same signature share a graph.

    A tensor contributes its shape and dtype. Every other value is a constant of the graph, so the
    value itself is part of the signature.

    Raises
    ------
    ValueError
        If a value is neither a tensor nor hashable nor a numpy array.
    """
    if is_flat(batch):
        return signature_of_tensors(batch)
    leaves, spec = flatten(batch)
    return str(spec), tuple((path, *_key(path, leaf)) for path, leaf in leaves.items())


def signature_of_tensors(batch: Mapping[str, Tensor]) -> Hashable:
    """Return the `signature` of a batch that holds only named tensors."""
    return "", tuple([(name, "tensor", leaf.shape, leaf.dtype) for name, leaf in batch.items()])


def is_flat(batch: Mapping[str, Any]) -> bool:
    """Return whether a batch holds only named tensors, as most batches do."""
    return all(isinstance(v, Tensor) and isinstance(name, str) for name, v in batch.items())


def _key(path: str, leaf: Any) -> tuple[Hashable, ...]:
    if isinstance(leaf, Tensor):
        return "tensor", leaf.shape, leaf.dtype
    if isinstance(leaf, np.ndarray) and not leaf.dtype.hasobject:
        return "array", leaf.shape, str(leaf.dtype), leaf.tobytes()
    if isinstance(leaf, float):
        # As text, because NaN differs from itself and 0.0 equals -0.0.
        return "float", leaf.hex()
    try:
        hash(leaf)
    except TypeError as error:
        raise ValueError(
            f"The batch holds a {type(leaf).__name__} at {path!r}; expected tensors, numbers, "
            "strings, arrays, or dicts, lists and tuples of them. Convert it in collate."
        ) from error
    return type(leaf).__name__, leaf


def _name(key: Any) -> str:
    for attribute in ("key", "idx", "name"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)
