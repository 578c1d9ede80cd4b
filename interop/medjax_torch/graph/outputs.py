"""The structure of what forward returns: traced tensors, and values that stay as they are."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from medjax_torch.component_state.walk import walk
from medjax_torch.graph.batch_columns import flatten
from medjax_torch.graph.errors import TraceError
from medjax_torch.graph.number_lists import Numbers
from medjax_torch.graph.packed import Rows, Steps
from medjax_torch.graph.read_numbers import Expression, ReadNumber
from medjax_torch.torch_internals import pytree


class _Returned:
    """Placeholder for a value that the graph returns."""


_TENSOR = _Returned()
_SCALAR = _Returned()


@dataclass(frozen=True)
class _Leaf:
    number: int
    positions: list[int]


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

    @property
    def keys(self) -> list[str]:
        """The names of the outputs themselves, not of what they contain."""
        return list(self._filled(list(self._leaves)))

    @property
    def fixed(self) -> dict[str, Any]:
        """The outputs without tensors: whatever the batch, a graph returns them as they are."""
        outputs = self._filled(list(self._leaves))
        hold_tensors = {key for key in outputs if any(each[2] for each in self.parts(key))}
        return {key: value for key, value in outputs.items() if key not in hold_tensors}

    def parts(self, key: str) -> list[tuple[str, Any, list[int]]]:
        """Return path and kind of each leaf of an output, with the positions of its tensors."""
        named, _ = flatten({key: self._filled(self._numbered())[key]})
        return [(path, self._leaves[leaf.number], leaf.positions) for path, leaf in named.items()]

    def reduced(
        self, keys: Collection[str], replaced: Mapping[str, Expression] | None = None
    ) -> tuple[OutputSpec, list[int | str]]:
        """Return the specification without some of the outputs.

        Parameters
        ----------
        keys : collection of str
            Outputs to leave out.
        replaced : mapping of str to Expression, optional
            Numbers that are computed from one tensor, by path.

        Returns
        -------
        spec : OutputSpec
            Specification of the remaining outputs.
        sources : list of int or str
            For each of its tensors, the position among the tensors of this specification, or the
            path in `replaced`.
        """
        replaced = replaced or {}
        outputs = self._filled(self._numbered())
        named, spec = flatten({key: value for key, value in outputs.items() if key not in keys})
        leaves: list[Any] = []
        names: list[str] = []
        sources: list[int | str] = []
        for path, leaf in named.items():
            if path in replaced:
                leaves.append(replaced[path])
                names.append(path)
                sources.append(path)
            else:
                leaves.append(self._leaves[leaf.number])
                names += [self.names[position] for position in leaf.positions]
                sources += leaf.positions
        return OutputSpec(tuple(names), tuple(leaves), spec), sources

    def _numbered(self) -> list[_Leaf]:
        first = 0
        leaves = []
        for number, leaf in enumerate(self._leaves):
            count = (
                len(leaf.tensors()) if isinstance(leaf, Expression) else isinstance(leaf, _Returned)
            )
            leaves.append(_Leaf(number, list(range(first, first + count))))
            first += count
        return leaves

    def _filled(self, leaves: list[Any]) -> dict[str, Any]:
        outputs: dict[str, Any] = pytree.tree_unflatten(leaves, self._spec)
        return outputs

    def rebuild(self, tensors: Sequence[Any]) -> dict[str, Any]:
        """Return forward's outputs with the given values, of any type, in place of the tensors.

        Where forward returned a Python number read from a tensor, the result holds a number too.
        """
        if len(tensors) != len(self.names):
            raise ValueError(f"The graph has {len(self.names)} outputs; got {len(tensors)} values.")
        pending = iter(tensors)
        leaves = []
        for leaf in self._leaves:
            if leaf is _TENSOR:
                leaf = next(pending)
            elif leaf is _SCALAR:
                leaf = next(pending).item()
            elif isinstance(leaf, Expression):
                leaf = leaf.evaluate([next(pending).item() for _ in leaf.tensors()])
            leaves.append(leaf)
        return self._filled(leaves)


def flatten_outputs(outputs: Mapping[str, Any]) -> tuple[OutputSpec, list[Tensor]]:
    """Split outputs into their structure and their tensors.

    Raises
    ------
    TraceError
        If an output is an object that holds tensors, because it could not be rebuilt.
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
        elif isinstance(leaf, ReadNumber):
            kind = leaf.expression
            read = kind.tensors()
            tensors += read
            names += [name if not number else f"{name} ({number})" for number in range(len(read))]
        elif walk(leaf).tensors:
            raise TraceError(
                f"forward returned a {type(leaf).__name__} at {name!r} that holds tensors; "
                "expected tensors, numbers, or dicts, lists and tuples of them. Return the "
                "tensors in it that are needed."
            )
        leaves.append(kind)
        if isinstance(kind, _Returned):
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
