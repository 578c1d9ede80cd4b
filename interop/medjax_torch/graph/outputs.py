"""The structure of what forward returns: traced tensors, and values that stay as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor

from medjax_torch.graph.batches import flatten
from medjax_torch.graph.errors import TraceError
from medjax_torch.graph.number_lists import Numbers
from medjax_torch.graph.packed import Rows, Steps
from medjax_torch.walk import walk

_TENSOR = object()
_SCALAR = object()


@dataclass(frozen=True)
class OutputSpec:
    """How to rebuild the outputs of forward from the tensors of a graph.

    Attributes
    ----------
    names : tuple of str
        Paths of the tensors, in the order of the graph's outputs.
    """

    names: tuple[str, ...]
    _leaves: tuple[Any, ...]
    _spec: pytree.TreeSpec

    def rebuild(self, tensors: Sequence[Any]) -> dict[str, Any]:
        """Return forward's outputs with the given values, of any type, in the places of tensors.

        What forward returned as a Python number read off a tensor becomes one again.
        """
        if len(tensors) != len(self.names):
            raise ValueError(f"{len(tensors)} values for the {len(self.names)} outputs.")
        pending = iter(tensors)
        leaves = []
        for leaf in self._leaves:
            if leaf is _TENSOR:
                leaf = next(pending)
            elif leaf is _SCALAR:
                leaf = next(pending).item()
            leaves.append(leaf)
        outputs: dict[str, Any] = pytree.tree_unflatten(leaves, self._spec)
        return outputs


def flatten_outputs(outputs: Mapping[str, Any]) -> tuple[OutputSpec, list[Tensor]]:
    """Split outputs into their structure and their tensors.

    Raises
    ------
    TraceError
        If an output is an object that holds tensors, which could not be rebuilt.
    """
    named, spec = flatten(pytree.tree_map(_as_read, dict(outputs)))
    leaves: list[Any] = []
    tensors: list[Tensor] = []
    names: list[str] = []
    for name, leaf in named.items():
        kind = leaf
        if isinstance(leaf, Tensor):
            kind = _TENSOR
            tensors.append(leaf)
        elif isinstance(leaf, torch.SymInt | torch.SymFloat | torch.SymBool):
            kind = _SCALAR
            number: Any = leaf
            tensors.append(torch.scalar_tensor(number, dtype=_dtype(leaf)))
        elif walk(leaf).tensors:
            raise TraceError(
                f"forward returned a {type(leaf).__name__} at {name!r} that holds tensors, "
                "expected tensors, numbers, or dicts, lists and tuples of them. Return the "
                "tensors of it that are needed."
            )
        leaves.append(kind)
        if kind is not leaf:
            names.append(name)
    return OutputSpec(tuple(names), tuple(leaves), spec), tensors


def _as_read(leaf: Any) -> Any:
    if isinstance(leaf, Rows | Steps):
        return leaf.read()
    return list(leaf) if isinstance(leaf, Numbers) else leaf


def _dtype(number: torch.SymInt | torch.SymFloat | torch.SymBool) -> torch.dtype:
    if isinstance(number, torch.SymFloat):
        return torch.float64
    return torch.int64 if isinstance(number, torch.SymInt) else torch.bool
