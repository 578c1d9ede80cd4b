"""A component's forward, in the form that the tracer and torch itself call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from medjax_torch.batches.mapping import rebuilt
from medjax_torch.conversion.column_reads import ColumnReads
from medjax_torch.graph import host_draws


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
        """Return outputs and loss."""
        drawn = {n: v for n, v in values.items() if str(n).startswith(host_draws.PREFIX)}
        own = {name: value for name, value in values.items() if name not in drawn}
        with host_draws.returning(drawn):
            return self._call(self.reads.wrap(rebuilt(self._batch, own)), not self._train)
