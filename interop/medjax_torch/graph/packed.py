"""Packed sequences whose lengths come from the batch, kept padded while they are traced.

The number of packed rows in torch is the sum of the lengths, so a graph of fixed shape cannot hold
them. Here the padded tensor takes their place, with a mask of the valid steps, and what torch
computes on packed rows is computed on padded ones. Results and gradients are the same, and nothing
past the end of a row has an effect.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils import rnn

from medjax_torch.graph.guards import OPTIONAL
from medjax_torch.graph.longest_row import argument, before_padding
from medjax_torch.torch_internals import (
    FakeTensor,
    disable_torch_function,
    pack_padded_sequence,
    pad_packed_sequence,
    pytree,
)

SORTED: Any = torch.ops.aten._functional_assert_async.msg
"""Returns lengths asserted to be sorted; `ranges` checks the assertion before each step."""

_UNSORTED = (
    "`lengths` array must be sorted in decreasing order when `enforce_sorted` is True. You can "
    "pass `enforce_sorted=False` to pack_padded_sequence and/or pack_sequence to sidestep this "
    "requirement if you do not need ONNX exportability."
)


class Steps:
    """The valid steps of a padded batch, in place of `PackedSequence.batch_sizes`.

    Parameters
    ----------
    lengths : Tensor
        Integer, shape (rows,), each from 1 to `total`.
    total : int
        Number of steps of the padded batch.
    is_sorted : bool
        Whether torch requires the lengths in decreasing order and has not sorted them itself.

    Attributes
    ----------
    valid : Tensor
        Bool, shape (total, rows).
    """

    device = torch.device("cpu")  # where torch wants the sizes of a packed sequence

    def __init__(self, lengths: Tensor, total: int, *, is_sorted: bool = False) -> None:
        self.lengths = lengths
        self.total = total
        # Before the assertion, which a tracer would take for the source of the lengths.
        self._longest = lengths.max()
        if is_sorted:
            falls = (lengths[1:] <= lengths[:-1]).all()
            lengths = SORTED(falls, _UNSORTED, lengths)
        # A lookup, because the range of its index is checked on the host before each step, and
        # torch too raises if a length is 0 or greater than the number of steps.
        until = torch.ones(total, total, device=lengths.device).tril()
        self.valid = torch.embedding(until, lengths - 1).mT > 0

    def __getitem__(self, step: Any) -> Any:
        """Return the number of rows for step 0, where every row is valid; read any other entry."""
        return int(self.valid.shape[1]) if step == 0 else self.read()[step]

    def __getattr__(self, name: str) -> Any:
        return getattr(_not_special(self, name).read(), name)

    def size(self, dim: int | None = None) -> Any:
        """Return the longest length; for torch's own function, at first only an upper bound."""
        if sys._getframe(1).f_code is rnn.pad_packed_sequence.__code__:
            return _Longest(self)
        return self.longest() if dim == 0 else torch.Size((self.longest(),))

    def read(self) -> Tensor:
        """Return the sizes as torch stores them, which requires fixed lengths."""
        rows = torch.empty(self.valid.shape, device=self.lengths.device)
        return _packed(rows, self.lengths)[1]

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Read the sizes, then call the function on them."""
        return func(*_read(args), **_read(kwargs or {}))

    def longest(self) -> int:
        """Return the longest length: the number of steps, or a value that the graph depends on.

        Where the batch is padded, the number of steps stands for that before.
        """
        is_full = self._longest == before_padding(self.total)
        if isinstance(is_full, FakeTensor):
            torch.ops.aten._assert_async.msg(is_full, OPTIONAL)
            return self.total
        return self.total if is_full.item() else int(self._longest.item())

    def column(self, rank: int) -> Tensor:
        """Return the mask for tensors of `rank` dimensions, the first two being steps and rows."""
        return self.valid.reshape(*self.valid.shape, *(1,) * (rank - 2))

    def positions(self) -> Tensor:
        """Return the index at which torch packs each row of a step, int64, shape (total, rows)."""
        sizes = self.valid.sum(1, keepdim=True)
        rows = torch.arange(self.valid.shape[1], device=self.valid.device)
        return torch.where(self.valid, sizes.cumsum(0) - sizes + rows, 0)


class _Longest(int):
    """The longest length, known only as an upper bound until a comparison needs its value."""

    steps: Steps

    def __new__(cls, steps: Steps) -> _Longest:
        bound = super().__new__(cls, steps.total)
        bound.steps = steps
        return bound

    def __gt__(self, total_length: int) -> bool:
        """Return whether a sequence is longer than `total_length`."""
        return self.steps.total > total_length and self.steps.longest() > total_length


class Rows:
    """Packed rows kept padded, in place of `PackedSequence.data`.

    Parameters
    ----------
    padded : Tensor
        Shape (steps, rows, ...); set to zero at steps that are not valid.
    steps : Steps
        The valid steps.
    """

    def __init__(self, padded: Tensor, steps: Steps) -> None:
        self.padded = torch.where(steps.column(padded.dim()), padded, 0)
        self.steps = steps

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the elements."""
        return self.padded.dtype

    @property
    def device(self) -> torch.device:
        """The device of the elements."""
        return self.padded.device

    def dim(self) -> int:
        """Return the number of dimensions in torch, where steps and rows are one dimension."""
        return self.padded.dim() - 1

    def size(self, dim: int | None = None) -> Any:
        """Return the size of a dimension; that of the first is the number of valid rows."""
        if dim is None or dim % self.dim() == 0:
            return self.read().size(*() if dim is None else (dim,))
        return self.padded.shape[dim % self.dim() + 1]

    def to(self, *args: Any, **kwargs: Any) -> Rows:
        """Return the rows with another dtype or device."""
        return Rows(self.padded.to(*args, **kwargs), self.steps)

    def flat(self, fill: float = 0) -> Tensor:
        """Return all steps of all rows, shape (steps * rows, ...), with `fill` at invalid steps."""
        filled = torch.where(self.steps.column(self.padded.dim()), self.padded, fill)
        return filled.flatten(0, 1)

    def indices(self) -> Tensor:
        """Return the steps of all rows as ids, with the first of the row at invalid steps."""
        return torch.where(self.steps.column(self.padded.dim()), self.padded, self.padded[:1])

    def read(self) -> Tensor:
        """Return the rows as torch packs them, which requires fixed lengths."""
        return _packed(self.padded, self.steps.lengths)[0]

    def __getattr__(self, name: str) -> Any:
        if name in _METHODS:
            return lambda *args, **kwargs: _each_row(_METHODS[name], (self, *args), kwargs)
        return getattr(_not_special(self, name).read(), name)

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Apply row-wise functions to padded rows, all others to the rows as torch has them."""
        options = kwargs or {}
        if func in _LOSSES and all(isinstance(value, Rows) for value in args):
            return _loss(func, *args, **options)
        if func in (F.dropout, torch.dropout) and not options.get("inplace"):
            return _dropped(*args, **options)
        if func in _LOOKUPS:
            return _looked_up(func, *args, **options)
        if func in _BY_ROW:
            return _each_row(func, args, options)
        return func(*_read(args), **_read(options))


def _operator(name: str) -> Callable[..., Any]:
    def call(rows: Rows, *args: Any) -> Any:
        return getattr(rows.read(), name)(*_read(args))

    return call


for _symbol in ("add", "sub", "mul", "truediv", "pow", "matmul"):
    for _name in (f"__{_symbol}__", f"__r{_symbol}__"):
        setattr(Rows, _name, _operator(_name))
for _name in ("__neg__", "__getitem__", "__len__", "__lt__", "__le__", "__gt__", "__ge__"):
    setattr(Rows, _name, _operator(_name))


def _not_special(holder: Any, name: str) -> Any:
    """Return `holder`, unless Python itself is looking for a special method."""
    if name.startswith("__") or name in (
        "steps",
        "padded",
        "lengths",
        "valid",
        "total",
        "_longest",
    ):
        raise AttributeError(name)
    return holder


def _read(values: Any) -> Any:
    return pytree.tree_map(lambda v: v.read() if isinstance(v, Rows | Steps) else v, values)


_BY_ROW = frozenset(
    {
        *(F.linear, F.layer_norm, torch.layer_norm),
        *(F.relu, torch.relu, F.gelu, F.silu, F.elu, F.leaky_relu, torch.tanh, torch.sigmoid),
    }
)
"""Functions whose result for a row depends on no other row."""

_METHODS = {"relu": torch.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid}

_LOOKUPS = frozenset({F.embedding, torch.embedding})

_LOSSES = frozenset([F.cross_entropy, F.nll_loss])


def _each_row(func: Callable[..., Any], args: Any, kwargs: Any) -> Rows:
    rows = [value for value in (*args, *kwargs.values()) if isinstance(value, Rows)]
    args = [value.padded if isinstance(value, Rows) else value for value in args]
    kwargs = {k: v.padded if isinstance(v, Rows) else v for k, v in kwargs.items()}
    return Rows(func(*args, **kwargs), rows[0].steps)


def _looked_up(func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Look up the ids of the rows and no others: a lookup may change the table, or count ids."""
    by_frequency = 5 if func is F.embedding else 3
    if any(args[by_frequency : by_frequency + 1]) or kwargs.get("scale_grad_by_freq"):
        return func(*_read(args), **_read(kwargs))
    rows = next(value for value in (*args, *kwargs.values()) if isinstance(value, Rows))
    args = tuple(value.indices() if value is rows else value for value in args)
    kwargs = {name: value.indices() if value is rows else value for name, value in kwargs.items()}
    return Rows(func(*args, **kwargs), rows.steps)


def _dropped(rows: Rows, p: float = 0.5, training: bool = True, **_: Any) -> Rows:
    return Rows(dropout(rows.padded, p, rows.steps), rows.steps) if training else rows


def dropout(padded: Tensor, p: float, steps: Steps) -> Tensor:
    """Drop elements as torch does, drawing in the order in which it packs the rows."""
    drawn = torch.dropout(torch.ones_like(padded).flatten(0, 1), p, True)
    return padded * drawn[steps.positions()]


def _loss(func: Callable[..., Any], scores: Rows, target: Rows, **options: Any) -> Any:
    """Return a loss over classes in which the invalid steps are ignored."""
    if target.dtype.is_floating_point or options.get("reduction", "mean") == "none":
        return func(scores.read(), target.read(), **options)
    return func(scores.flat(), target.flat(options.get("ignore_index", -100)), **options)


def pack(padded: Tensor, lengths: Tensor, batch_first: bool) -> tuple[Any, Any]:
    """Replace ``torch._VF._pack_padded_sequence``."""
    padded = padded.transpose(0, 1) if batch_first else padded
    steps = Steps(lengths, padded.shape[0], is_sorted=_wants_sorted())
    return Rows(padded, steps), steps


def _wants_sorted() -> bool:
    """Return whether the lengths must be sorted: not if torch has sorted them itself."""
    return bool(argument(rnn.pack_padded_sequence, "enforce_sorted", True))


def pad(
    data: Any, batch_sizes: Any, batch_first: bool, padding_value: float, total_length: Any
) -> tuple[Tensor, Tensor]:
    """Replace ``torch._VF._pad_packed_sequence``."""
    if not isinstance(data, Rows) or not isinstance(batch_sizes, Steps):
        if isinstance(total_length, _Longest):
            total_length = total_length.steps.longest()
        rest = batch_first, padding_value, total_length
        result: tuple[Tensor, Tensor] = pad_packed_sequence(_read(data), _read(batch_sizes), *rest)
        return result
    if isinstance(total_length, _Longest):
        total_length = batch_sizes.longest()
    mask = batch_sizes.column(data.padded.dim())
    filled = torch.where(mask, data.padded, padding_value)
    missing = total_length - filled.shape[0]
    if missing > 0:
        filled = torch.cat([filled, filled.new_full((missing, *filled.shape[1:]), padding_value)])
    filled = filled[:total_length]
    return filled.transpose(0, 1) if batch_first else filled, batch_sizes.lengths


def _packed(padded: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    with disable_torch_function():  # the original function, which tracing replaces
        result: tuple[Tensor, Tensor] = pack_padded_sequence(padded, lengths, False)
        return result


PACKING: dict[Callable[..., Any], Callable[..., Any]] = {
    pack_padded_sequence: pack,
    pad_packed_sequence: pad,
}
"""Functions that torch calls for packed sequences, and their replacements."""
