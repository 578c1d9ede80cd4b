"""What operations require of the integers they take, where torch raises an error otherwise."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

aten = torch.ops.aten

LEAST, MOST = -(2**63), 2**63 - 1
"""Limits that hold for every integer."""


@dataclass(frozen=True)
class Kind:
    """A kind of requirement.

    Attributes
    ----------
    name : str
        What is limited, in an error message.
    advice : str
        What the user can do.
    excluded : int or None
        A number within the limits that is not allowed either.
    measure : callable or None
        Computes what is limited from the tensor; None if it is each of its elements.
    """

    name: str
    advice: str
    excluded: int | None = None
    measure: Callable[[Tensor], Tensor] | None = None


INDEX = Kind("index", "Correct the data, or enlarge the table that is looked up.")
_DIVISOR = Kind("divisor", "Correct the data, or replace the 0 in forward.", excluded=0)
_LENGTH = Kind("length", "Correct the lengths.")
_SUM = Kind("sum of the lengths", "Correct the lengths or the labels.", measure=torch.sum)
_SELECTED = Kind(
    "number of elements selected by the mask",
    "Correct the data, or give masked_scatter as many elements.",
    measure=torch.sum,
)
_OFFSETS = "Correct the offsets."
_FIRST = Kind("first offset", _OFFSETS, measure=lambda offsets: offsets[:1])
_LAST = Kind("last offset", _OFFSETS, measure=lambda offsets: offsets[-1:])
_STEP = Kind("step from one offset to the next", _OFFSETS, measure=torch.diff)


class Required(NamedTuple):
    """A requirement of an operation.

    Attributes
    ----------
    value : fx.Node
        The tensor.
    low, high : int
        The least and the largest value allowed; symbols where a size depends on values.
    kind : Kind
        What is limited.
    """

    value: fx.Node
    low: int
    high: int
    kind: Kind = INDEX


def required(node: fx.Node) -> Iterator[Required]:
    """Yield what an operation requires of the integers it takes."""
    arguments: Any = node.args
    if node.target in _ROWS:
        yield Required(arguments[1], 0, shape(arguments[0])[0] - 1)
    elif node.target in _ALONG:
        sizes = shape(arguments[0])
        yield Required(arguments[2], 0, sizes[arguments[1]] - 1 if sizes else 0)
    elif node.target in _ANYWHERE:
        yield from _of_indices(arguments)
    elif node.target in _DIVISIONS and _is_integer(node) and _is_integer(arguments[1]):
        if 0 not in [size for size in shape(node) if isinstance(size, int)]:
            yield Required(arguments[1], LEAST, MOST, _DIVISOR)
    elif node.target is aten.masked_scatter.default:
        yield from _of_mask(node)
    elif str(node.target) == _CTC:
        yield from _of_lengths(arguments)
    if node.target in _BAGS:
        yield from _of_bags(arguments)


def _of_indices(arguments: Any) -> Iterator[Required]:
    dim = 0
    for index in arguments[1]:
        if index is not None and _dtype(index) in (torch.bool, torch.uint8):
            dim += len(shape(index))
            continue
        if index is not None:
            size = shape(arguments[0])[dim]
            yield Required(index, -size, size - 1)
        dim += 1


def _of_mask(node: fx.Node) -> Iterator[Required]:
    """Yield how many elements a mask may select; it is repeated to the shape of the result."""
    mask: Any
    source: Any
    mask, source = node.args[1:3]
    sizes = [shape(mask), shape(source), shape(node)]
    if all(isinstance(size, int) for each in sizes for size in each):
        selecting, written, result = map(math.prod, sizes)
        if result:
            yield Required(mask, 0, written * selecting // result, _SELECTED)


def _of_bags(arguments: Any) -> Iterator[Required]:
    offsets, total = arguments[2], shape(arguments[1])[0]
    options = (*arguments[3:], *_BAG_DEFAULTS[len(arguments) - 3 :])
    _, mode, _, _, is_end_included, padding_idx = options
    # torch leaves ids after the end out of a sum; of a mean, a maximum, or a sum without padding it
    # leaves out a part, and derivatives are memory that was never written.
    complete = is_end_included and not (mode == 0 and padding_idx < 0)
    yield Required(offsets, 0, 0, _FIRST)
    yield Required(offsets, total if complete else 0, total, _LAST)
    yield Required(offsets, 0, MOST, _STEP)


def _of_lengths(arguments: Any) -> Iterator[Required]:
    scores, targets, input_lengths, target_lengths = arguments[:4]
    longest = shape(targets)[-1]
    yield Required(input_lengths, 0, shape(scores)[0], _LENGTH)
    yield Required(target_lengths, 0, longest, _LENGTH)
    if len(shape(targets)) == 1:
        yield Required(target_lengths, longest, longest, _SUM)


_CTC = "medjax.ctc_nll.default"
"""The operator that replaces torch's; it is defined in a room above this one."""

_BAGS = (aten._embedding_bag.default, aten._embedding_bag_forward_only.default)
_BAG_DEFAULTS = (False, 0, False, None, False, -1)
_ROWS = (aten.embedding.default, *_BAGS)
_ALONG = (
    aten.gather.default,
    aten.index_add.default,
    aten.index_select.default,
    aten.scatter.src,
    aten.scatter.value,
    aten.scatter_add.default,
    aten.scatter_reduce.two,
)
_ANYWHERE = (aten.index.Tensor, aten.index_put.default)
"""In these, negative indices count from the end."""

_DIVISIONS = (
    aten.div.Tensor_mode,
    aten.fmod.Tensor,
    aten.remainder.Tensor,
    torch.ops.prims.div.default,
)


def _is_integer(node: Any) -> bool:
    """Return whether an argument is a tensor of integers."""
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return isinstance(value, Tensor) and not (value.is_floating_point() or value.is_complex())


def shape(node: Any) -> tuple[Any, ...]:
    """Return the recorded shape of a node; sizes that depend on values are symbols."""
    return tuple(node.meta["val"].shape)


def _dtype(node: Any) -> Any:
    return node.meta["val"].dtype
