"""Rules that derive the bounds of integer operations' results from those of their arguments."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, fx

from medjax_torch.graph.operations import name_of

Interval = tuple[int, int]

INT32: Interval = (-(2**31), 2**31 - 1)
INT64: Interval = (-(2**63), 2**63 - 1)

COUNTED: Interval = (-(2**24), 2**24)
"""The bounds of integers made from floats: beyond them, float32 cannot hold every integer."""

_UNKNOWN = 2**16
"""The number assumed for a size that depends on values."""

_BITS = 64
"""Powers are computed with at most twice this many bits."""


def union(bounds: Iterable[Interval]) -> Interval | None:
    """Return the bounds that cover all the given ones, None if there are none."""
    known = list(bounds)
    if not known:
        return None
    return min(low for low, _ in known), max(high for _, high in known)


def size_of(node: Any) -> int:
    """Return the largest number of elements of a node's result, below 2**31 as on the device."""
    value = node.meta.get("val")
    shape = value.shape if isinstance(value, Tensor) else ()
    count = math.prod(_known(shape))
    return min(count, INT32[1])


def _corners(operation: Callable[[int, int], int], x: Interval, y: Interval) -> Interval:
    values = [operation(a, b) for a in x for b in y]
    return min(values), max(values)


Rule = Callable[[fx.Node, list[Any]], Interval]


def _alpha(node: fx.Node) -> int:
    value = node.kwargs.get("alpha", node.args[2] if len(node.args) > 2 else 1)
    return value if isinstance(value, int) else 1


def _add(node: fx.Node, of: list[Any]) -> Interval:
    return _corners(lambda x, y: x + _alpha(node) * y, of[0], of[1])


def _sub(node: fx.Node, of: list[Any]) -> Interval:
    return _corners(lambda x, y: x - _alpha(node) * y, of[0], of[1])


def _rsub(node: fx.Node, of: list[Any]) -> Interval:
    return _corners(lambda x, y: y - _alpha(node) * x, of[0], of[1])


def _mul(node: fx.Node, of: list[Any]) -> Interval:
    return _corners(operator.mul, of[0], of[1])


def _div(node: fx.Node, of: list[Any]) -> Interval:
    x, y = of[0], of[1]
    if y[0] <= 0 <= y[1]:
        largest = max(map(abs, x))
        return -largest, largest
    low, high = _corners(operator.floordiv, x, y)
    return low, high + 1


def _remainder(node: fx.Node, of: list[Any]) -> Interval:
    x, y = of[0], of[1]
    if x[0] >= 0 and x[1] < y[0]:
        result: Interval = x
        return result
    largest = max(max(map(abs, y)) - 1, 0)
    return (-largest if y[0] < 0 else 0), (largest if y[1] > 0 else 0)


def _fmod(node: fx.Node, of: list[Any]) -> Interval:
    x, y = of[0], of[1]
    largest = max(max(map(abs, y)) - 1, 0)
    return max(-largest, min(x[0], 0)), min(largest, max(x[1], 0))


def _power(base: int, exponent: int) -> int:
    if abs(base) < 2 or exponent < 1:
        return base if abs(base) < 2 and exponent % 2 else 1
    bits = min(exponent * abs(base).bit_length(), 2 * _BITS)
    result: int = base**exponent if bits < 2 * _BITS else (1 if base > 0 else -1) * 2 ** (2 * _BITS)
    return result


def _pow(node: fx.Node, of: list[Any]) -> Interval:
    x, y = of[0], of[1]
    largest = _power(max(*map(abs, x), 1), max(y[1], 0))
    return (-largest if x[0] < 0 else 0), largest


def _covering(bound: Interval) -> int:
    return max(value.bit_length() for value in (bound[1], ~bound[0] if bound[0] < 0 else 0, 0))


def _bitwise_and(node: fx.Node, of: list[Any]) -> Interval:
    tops = [bound[1] for bound in of[:2] if bound[0] >= 0]
    if tops:
        return 0, min(tops)
    bits = max(map(_covering, of[:2]))
    return -(2**bits), 2**bits - 1


def _bitwise(node: fx.Node, of: list[Any]) -> Interval:
    bits = max(map(_covering, of[:2]))
    return (0 if all(bound[0] >= 0 for bound in of[:2]) else -(2**bits)), 2**bits - 1


def _left(node: fx.Node, of: list[Any]) -> Interval:
    shift = tuple(min(max(value, 0), 2 * _BITS) for value in of[1])
    return _corners(lambda x, y: x << y, of[0], (shift[0], shift[1]))


def _right(node: fx.Node, of: list[Any]) -> Interval:
    shift = tuple(min(max(value, 0), 2 * _BITS) for value in of[1])
    return _corners(lambda x, y: x >> y, of[0], (shift[0], shift[1]))


def _together(node: fx.Node) -> int:
    """Return how many elements of the argument are combined into one of the result."""
    size, results = size_of(node.args[0]), size_of(node)
    return max(size // max(results, 1), 1)


def _sum(node: fx.Node, of: list[Any]) -> Interval:
    count = _together(node)
    return count * of[0][0], count * of[0][1]


def _cumsum(node: fx.Node, of: list[Any]) -> Interval:
    shape: Any = node.args[0].meta["val"].shape  # type: ignore[union-attr]
    axis: Any = node.args[1]
    count = shape[axis] if len(shape) else 1
    count = count if isinstance(count, int) else _UNKNOWN
    low, high = of[0]
    return min(low, count * low), max(high, count * high)


def _prod(node: fx.Node, of: list[Any]) -> Interval:
    largest = _power(max(*map(abs, of[0]), 1), size_of(node.args[0]))
    return (-largest if of[0][0] < 0 else 0), largest


def _product(node: fx.Node, of: list[Any]) -> Interval:
    """Return the bounds of a matrix product, including a tensor that is added to it."""
    name = name_of(node)
    offset, first, second = (0, 0), *of[-2:]
    if name in ("addmm", "baddbmm", "addmv"):
        offset, first, second = of[:3]
    length = node.args[-1 if name not in ("addmm", "baddbmm", "addmv") else 1]
    count = size_of(length)
    low, high = _corners(operator.mul, first, second)
    return offset[0] + min(count * low, 0), offset[1] + max(count * high, 0)


def _added(start: Interval, count: int, each: Interval) -> Interval:
    """Return the bounds of a number to which up to `count` others are added."""
    return start[0] + min(count * each[0], 0), start[1] + max(count * each[1], 0)


def _scatter_add(node: fx.Node, of: list[Any]) -> Interval:
    return _added(of[0], size_of(node.args[3]), of[3])


def _index_add(node: fx.Node, of: list[Any]) -> Interval:
    alpha = node.kwargs.get("alpha", node.args[4] if len(node.args) > 4 else 1)
    scale = alpha if isinstance(alpha, int) else 1
    each = _corners(operator.mul, of[3], (scale, scale))
    return _added(of[0], size_of(node.args[3]), each)


def _scatter_reduce(node: fx.Node, of: list[Any]) -> Interval:
    if node.args[4] != "prod":
        return _scatter_add(node, of)
    first, each = (max(*map(abs, bound), 1) for bound in (of[0], of[3]))
    largest = first * _power(each, size_of(node.args[3]))
    return (-largest if min(of[0][0], of[3][0]) < 0 else 0), largest


def _index_put(node: fx.Node, of: list[Any]) -> Interval:
    if len(node.args) > 3 and node.args[3]:
        return _added(of[0], _written(node), of[2])
    return union([of[0], of[2]]) or INT32


def _written(node: fx.Node) -> int:
    """Return how many elements an ``index_put`` writes, a place that is listed twice twice."""
    indices: Any = node.args[1]
    shape: Any = node.args[0].meta["val"].shape  # type: ignore[union-attr]
    places: list[list[int]] = []
    rest = []
    dim = 0
    for index in indices:
        value = None if index is None else index.meta["val"]
        if value is None:
            rest.append(shape[dim])
        elif value.dtype in (torch.bool, torch.uint8):  # at most all that the mask has
            places.append([size_of(index)])
            dim += value.dim() - 1
        else:
            places.append(_known(value.shape))
        dim += 1
    together = itertools.zip_longest(*map(reversed, places), fillvalue=1)
    count = math.prod(map(max, together)) * math.prod(_known([*rest, *shape[dim:]]))
    return min(count, INT32[1])


def _known(sizes: Iterable[Any]) -> list[int]:
    return [size if isinstance(size, int) else _UNKNOWN for size in sizes]


def _arange(node: fx.Node, of: list[Any]) -> Interval:
    known = [bound for bound in of[:2] if bound is not None]
    return union([*known, (0, 0)]) or INT32


def _iota(node: fx.Node, of: list[Any]) -> Interval:
    length: Any = node.args[0]
    start: Any = node.kwargs.get("start", 0)
    step: Any = node.kwargs.get("step", 1)
    ends = [start, start + step * max(length - 1, 0)]
    return min(ends), max(ends)


def _randint(node: fx.Node, of: list[Any]) -> Interval:
    numbers = [bound for bound in of if bound is not None and bound[0] == bound[1]]
    name = name_of(node)
    limits: list[Any] = [value for value in node.args if isinstance(value, int)]
    if name == "randperm":
        return 0, max(limits[0], 1)
    return (limits[0], limits[1]) if len(limits) > 1 else (0, limits[0] if numbers else INT32[1])


def _same(node: fx.Node, of: list[Any]) -> Interval:
    return of[0] if of[0] is not None else COUNTED


def _abs(node: fx.Node, of: list[Any]) -> Interval:
    return 0, max(map(abs, of[0]))


RULES: dict[str, Rule] = {
    "_to_copy": _same,
    "abs": _abs,
    "add": _add,
    "addmm": _product,
    "addmv": _product,
    "arange": _arange,
    "baddbmm": _product,
    "bitwise_and": _bitwise_and,
    "__and__": _bitwise_and,
    "bitwise_left_shift": _left,
    "__lshift__": _left,
    "bitwise_not": lambda node, of: (~of[0][1], ~of[0][0]),
    "bitwise_or": _bitwise,
    "__or__": _bitwise,
    "bitwise_right_shift": _right,
    "__rshift__": _right,
    "bitwise_xor": _bitwise,
    "__xor__": _bitwise,
    "bmm": _product,
    "ceil": _same,
    "convert_element_type": _same,
    "cumprod": _prod,
    "cumsum": _cumsum,
    "div": _div,
    "dot": _product,
    "empty": lambda node, of: (0, 0),
    "empty_like": lambda node, of: (0, 0),
    "eye": lambda node, of: (0, 1),
    "floor": _same,
    "floor_divide": _div,
    "floordiv": _div,
    "fmod": _fmod,
    "index_add": _index_add,
    "index_put": _index_put,
    "iota": _iota,
    "lshift": _left,
    "mm": _product,
    "mod": _remainder,
    "mul": _mul,
    "mv": _product,
    "neg": lambda node, of: (-of[0][1], -of[0][0]),
    "new_empty": lambda node, of: (0, 0),
    "new_ones": lambda node, of: (1, 1),
    "new_zeros": lambda node, of: (0, 0),
    "ones": lambda node, of: (1, 1),
    "ones_like": lambda node, of: (1, 1),
    "pow": _pow,
    "prod": _prod,
    "randint": _randint,
    "randint_like": _randint,
    "randperm": _randint,
    "remainder": _remainder,
    "round": _same,
    "rshift": _right,
    "rsub": _rsub,
    "scatter_add": _scatter_add,
    "scatter_reduce": _scatter_reduce,
    "sign": lambda node, of: (-1, 1),
    "sub": _sub,
    "sum": _sum,
    "sym_int": _same,
    "trunc": _same,
    "zeros": lambda node, of: (0, 0),
    "zeros_like": lambda node, of: (0, 0),
    "_unsafe_index_put": _index_put,
}

OF_FLOATS = frozenset(
    [
        "_to_copy",
        "ceil",
        "convert_element_type",
        "empty_like",
        "floor",
        "new_empty",
        "new_ones",
        "new_zeros",
        "ones_like",
        "randint_like",
        "round",
        "sign",
        "sym_int",
        "trunc",
        "zeros_like",
    ]
)
"""Operations that may make an integer from a float."""

INDEX_ONLY = frozenset(
    [
        "argmax",
        "argmin",
        "argsort",
        "bincount",
        "bucketize",
        "multinomial",
        "nonzero",
        "searchsorted",
        "sym_numel",
        "sym_size",
    ]
)
"""Operations whose results are positions of elements or counts of them."""
