"""Numbers without values, as in a recording on shapes alone, and the places that need values."""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, fx

from medjax_torch.graph.errors import is_of_component
from medjax_torch.graph.joint import Joint
from medjax_torch.graph.recompute import barrier
from medjax_torch.graph.replacing import replaced
from medjax_torch.torch_internals import OpOverload


class UnreadableError(Exception):
    """Raised where forward needs a number's value, so that it must be recorded on real values."""


def _unreadable(*args: Any, **kwargs: Any) -> Any:
    raise UnreadableError


UNREADABLE: dict[Any, Any] = {Tensor.numpy: _unreadable, Tensor.__array__: _unreadable}
"""Functions that need the values of tensors, which do not exist here."""

_KNOWN = frozenset(
    {
        *(operator.add, operator.floordiv, operator.getitem, operator.mod, operator.mul),
        *(operator.neg, operator.pow, operator.sub, operator.truediv),
        *(torch.sym_float, torch.sym_int, torch.sym_max, torch.sym_min, barrier),
    }
)
"""Python functions that have a lowering."""


def check_symbols(recorded: fx.GraphModule, joint: Joint) -> None:
    """Raise UnreadableError if a graph computes numbers in a way that needs their values.

    An output that Python computed from a number is such a case: single precision would round it.
    """
    for node in recorded.graph.nodes:
        known = isinstance(node.target, OpOverload) or node.target in _KNOWN
        if node.op == "call_function" and not known:
            raise UnreadableError
    first = 1 + len(joint.gradients)
    results: Any = recorded.graph.output_node().args[0]
    for node in results[first : first + len(joint.outputs.names)]:
        if node.target is torch.ops.aten.scalar_tensor.default and _is_computed(node.args[0]):
            raise UnreadableError


def _is_computed(number: Any) -> bool:
    read = torch.ops.aten._local_scalar_dense.default
    return isinstance(number, fx.Node) and number.target is not read


@contextmanager
def noticing_text() -> Iterator[Callable[[], None]]:
    """Yield a check that raises UnreadableError if forward turned such a number into text."""
    texts: list[str] = []

    def noticed(original: Callable[..., str]) -> Callable[..., str]:
        def text(*args: Any) -> str:
            written = original(*args)
            if is_of_component(sys._getframe(1).f_code.co_filename):
                texts.append(written)
            return written

        return text

    def check() -> None:
        if texts:
            raise UnreadableError

    with ExitStack() as stack:
        for kind in (torch.SymFloat, torch.SymInt, torch.SymBool):
            for name in ("__repr__", "__str__", "__format__"):
                patched = noticed(getattr(kind, name))
                stack.enter_context(replaced(kind, name, patched))
        yield check
