"""A component's forward, in the form that the tracer and torch itself call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from medjax_torch.batches.mapping import rebuilt
from medjax_torch.conversion.column_reads import ColumnReads
from medjax_torch.graph import host_draws, longest_row
from medjax_torch.torch_internals import pytree

WRITTEN = "_medjax_written"
"""Name of an output with the columns of the batch that forward has written to in place.

A metrics computer gets them as they are then.
"""


class ForwardCall:
    """A component's forward on the columns of one kind of batch.

    Parameters
    ----------
    call : callable
        ``call(batch, eval_mode) -> (outputs, loss)``.
    batch : mapping of str to value
        A batch of the type that forward expects.
    train : bool
        Whether gradients are computed.
    divisor : int
        What torch divides the loss by before its backward pass.

    Attributes
    ----------
    reads : ColumnReads
        What forward has read from the batches.
    divisor : int
        The argument of that name.
    """

    def __init__(
        self,
        call: Callable[[Any, bool], Any],
        batch: Mapping[str, Any],
        *,
        train: bool,
        divisor: int = 1,
    ) -> None:
        self.reads = ColumnReads()
        self._call = call
        self._batch = batch
        self._train = train
        self.divisor = divisor

    def __call__(self, values: dict[str, Any]) -> Any:
        """Return outputs, with `WRITTEN` among them if there are such columns, and loss."""
        drawn = _named(values, host_draws.PREFIX)
        sizes = _named(values, longest_row.PREFIX)
        own = {name: value for name, value in values.items() if name not in {*drawn, *sizes}}
        before = _versions(own)
        with host_draws.returning(drawn), longest_row.unpacking(sizes):
            result = self._call(self.reads.wrap(rebuilt(self._batch, own)), not self._train)
        written = {name: own[name] for name, each in _versions(own).items() if each != before[name]}
        if not written:
            return result
        outputs, loss = result
        return {**(outputs or {}), WRITTEN: written}, loss


def _named(values: Mapping[str, Any], prefix: str) -> dict[str, Tensor]:
    return {name: value for name, value in values.items() if str(name).startswith(prefix)}


def _versions(values: Mapping[str, Any]) -> dict[str, list[int]]:
    """Return for each column how often each of its tensors has been written to."""
    return {
        name: [leaf._version for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)]
        for name, value in values.items()
    }
