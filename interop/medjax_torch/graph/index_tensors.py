"""Indices that are integers in tensors of shape (), as in ``table[self.step]``.

torch turns such an index into a number, ``table[int(self.step)]``. A recording would then be valid
for this number only; here the index stays a tensor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from medjax_torch.graph.errors import TraceError, at, line_here
from medjax_torch.graph.guards import ancestry
from medjax_torch.torch_internals import get_proxy_mode, is_alias, pytree

_NOT_NUMBERS = (torch.bool, torch.uint8)  # masks, to torch
_ALL = slice(None)


class _Copy(NamedTuple):
    """What was read at an index: a view of `tensor` in torch, and a copy here."""

    result: Tensor
    tensor: Tensor
    index: Any
    places: list[Tensor]
    versions: list[int]
    line: str

    @classmethod
    def of(cls, result: Tensor, tensor: Tensor, index: Any, places: list[Tensor]) -> _Copy:
        """Note what was read, in the versions that the tensors have now."""
        return cls(result, tensor, index, places, [], line_here()).again()

    def again(self) -> _Copy:
        """Return the same copy in the versions that the tensors have now."""
        versions = [_version(each) for each in (self.result, self.tensor, *self.places)]
        return self._replace(versions=versions)

    def is_of(self, value: Any, tensor: Tensor, index: Any) -> bool:
        """Return whether `value` is this copy, assigned to where it was read (``x[n] += 1``)."""
        is_here = value is self.result and tensor is self.tensor and index is self.index
        return is_here and [_version(place) for place in self.places] == self.versions[2:]


class IndexTensors:
    """Reads and writes at indices that are tensors, during a recording.

    Parameters
    ----------
    set_item : callable
        Assigns at any other index.
    """

    def __init__(self, set_item: Callable[[Tensor, Any, Any], None]) -> None:
        self._set_item = set_item
        self._copies: list[_Copy] = []

    def read(self, tensor: Tensor, index: Any) -> Tensor:
        """Return ``tensor[index]``."""
        places = _placed(tensor, index)
        if not places.tensors:
            return tensor[index]
        result = tensor[places.rest]
        for dim, place in reversed(places.tensors):
            result = result[_along(dim, place)].squeeze(dim)
        self._copies.append(_Copy.of(result, tensor, index, [place for _, place in places.tensors]))
        return result

    def write(self, tensor: Tensor, index: Any, value: Any) -> None:
        """Set ``tensor[index]``."""
        own = [n for n, copy in enumerate(self._copies) if copy.is_of(value, tensor, index)]
        places = _placed(tensor, index)
        if len(places.tensors) == 1:
            ((dim, place),) = places.tensors
            target = tensor[places.rest]
            after = target.dim() - dim - 1
            if isinstance(value, Tensor) and value.dim() > after:
                value = value.unsqueeze(value.dim() - after)
            target[_along(dim, place)] = value
        else:
            self._set_item(tensor, index, value)
        for number in own:
            self._copies[number] = self._copies[number].again()

    def check_use(self, function: Any, arguments: Any) -> None:
        """Raise TraceError if a function gets what torch would have changed since it was read.

        Parameters
        ----------
        function : callable
            The function.
        arguments : pytree
            Its arguments.
        """
        if getattr(function, "__name__", "") == "__get__":
            return  # reads an attribute, such as the shape
        stale = [copy for copy in self._copies if _version(copy.tensor) != copy.versions[1]]
        for value in pytree.tree_leaves(arguments) if stale else ():
            for copy in stale:
                if isinstance(value, Tensor) and is_alias(value, copy.result):
                    raise TraceError(
                        "forward uses what it has read at an index that is a "
                        f"tensor{at(copy.line)}, and has written to the indexed tensor meanwhile. "
                        "In torch the write also changes what was read; here that is a copy. Read "
                        "it after the write, or use x[n].clone()."
                    )

    def check_writes(self) -> None:
        """Raise TraceError if forward has written to what was read, which torch writes through."""
        for copy in self._copies:
            if _version(copy.result) != copy.versions[0]:
                raise TraceError(
                    "forward writes in place to what it has read at an index that is a "
                    f"tensor{at(copy.line)}. In torch this changes the indexed tensor; here it is "
                    "a copy. Assign with x[n] = value instead, or write to x[n].clone()."
                )


class _Placed(NamedTuple):
    """An index taken apart.

    Attributes
    ----------
    rest : tuple
        The index with the whole dimension in place of each tensor.
    tensors : list of (int, Tensor)
        The tensors, and the dimensions that they index in what `rest` selects.
    """

    rest: tuple[Any, ...] = ()
    tensors: list[tuple[int, Tensor]] = []  # noqa: RUF012  (never changed in place)


def _placed(tensor: Tensor, index: Any) -> _Placed:
    """Take an index apart; there are no tensors if it is of another kind, or reads no input."""
    entries = index if isinstance(index, tuple) else (index,)
    if get_proxy_mode() is None or not any(map(_is_place, entries)):
        return _Placed()
    if not all(map(_is_basic, entries)) or entries.count(Ellipsis) > 1:
        return _Placed()
    given = sum(entry is not None and entry is not Ellipsis for entry in entries)
    dim, rest, tensors = 0, list[Any](), list[tuple[int, Tensor]]()
    for entry in entries:
        if isinstance(entry, Tensor):
            tensors.append((dim, entry))
        rest.append(_ALL if isinstance(entry, Tensor) else entry)
        dim += tensor.dim() - given if entry is Ellipsis else type(entry) is not int
    if not any(_depends_on_input(place) for _, place in tensors):
        return _Placed()
    return _Placed(tuple(rest), tensors)


def _along(dim: int, place: Tensor) -> tuple[Any, ...]:
    """Return the index that selects a slice of one element along a dimension."""
    return (*[_ALL] * dim, place.reshape(1))


def _is_place(entry: Any) -> bool:
    if not isinstance(entry, Tensor) or entry.dim() or entry.dtype in _NOT_NUMBERS:
        return False
    return not entry.is_floating_point() and not entry.is_complex()


def _is_basic(entry: Any) -> bool:
    is_basic = entry is None or entry is Ellipsis or type(entry) in (int, slice)
    return is_basic or _is_place(entry)


def _depends_on_input(tensor: Tensor) -> bool:
    tensor.detach()  # the node recorded last shows what the value depends on
    mode = get_proxy_mode()
    node = None if mode is None else next(iter(reversed(mode.tracer.graph.nodes)), None)
    return node is not None and any(each.op == "placeholder" for each in ancestry(node))


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version
