"""Layers that are left out at random (LayerDrop), in a single graph.

Fan, Grave and Joulin, "Reducing Transformer Depth on Demand with Structured Dropout", ICLR 2020.
Hugging Face's models write it as ``if torch.rand([]) >= layerdrop: x = layer(x)``. A graph runs
every layer and takes its result if the number keeps the layer, otherwise its input. In torch, a
parameter of a layer that was left out has no gradient, which the optimizer learns from a mark.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks
from torch.overrides import TorchFunctionMode

from medjax_torch.graph.errors import TraceError, at, line_here

_COMPARISONS: dict[Any, Callable[[float, float], bool]] = {
    Tensor.__lt__: operator.lt,
    Tensor.__le__: operator.le,
    Tensor.__gt__: operator.gt,
    Tensor.__ge__: operator.ge,
    Tensor.lt: operator.lt,
    Tensor.le: operator.le,
    Tensor.gt: operator.gt,
    Tensor.ge: operator.ge,
}

_ALMOST_1 = 1 - 2**-24
"""The largest number that `torch.rand` can draw, which keeps a layer."""


class _Question:
    """A comparison of a random number with a constant.

    Attributes
    ----------
    value : Tensor
        The result: bool, shape ().
    kept : bool
        The result that keeps the layer.
    line : str
        The line of the comparison.
    is_settled : bool
        Whether the layer that it controls has run, or the result is always the same.
    """

    def __init__(self, value: Tensor, *, kept: bool) -> None:
        self.value = value
        self.kept = kept
        self.line = line_here()
        self.is_settled = False


class LayerDrop(TorchFunctionMode):
    """Runs the layers of a `torch.nn.ModuleList` that forward leaves out at random.

    Used as a context manager around forward. A comparison of ``torch.rand([])`` with a number is
    answered as if the largest possible number had been drawn, which keeps the layer. The comparison
    itself then chooses between the result and the input of the next member of a `ModuleList`.

    Attributes
    ----------
    left_out : list of (tuple of Tensor, Tensor)
        The parameters of a layer, and whether it was left out: bool, shape ().
    """

    def __init__(self) -> None:
        super().__init__()
        self.left_out: list[tuple[tuple[Tensor, ...], Tensor]] = []
        self._numbers: list[Tensor] = []
        self._questions: list[_Question] = []
        self._pending: _Question | None = None
        self._layer: tuple[nn.Module, _Question, Tensor] | None = None
        self._members: set[int] = set()
        self._stack = ExitStack()

    def __enter__(self) -> Any:
        self._stack.enter_context(hooks.register_module_forward_pre_hook(self._before))
        self._stack.enter_context(hooks.register_module_forward_hook(self._after))
        return super().__enter__()

    def __exit__(self, *details: Any) -> None:
        self._stack.close()
        super().__exit__(*details)
        if details[0] is None and self._pending is not None:
            raise _decides(self._pending)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is Tensor.__bool__:
            question = next((q for q in self._questions if q.value is args[0]), None)
            if question is not None:
                return self._answered(question)
        result = func(*args, **(kwargs or {}))
        if func is torch.rand and isinstance(result, Tensor) and result.dim() == 0:
            self._numbers.append(result)
        elif func in _COMPARISONS and any(args[0] is number for number in self._numbers):
            self._compared(func, args[1], result)
        return result

    def _compared(self, func: Any, bound: Any, result: Tensor) -> None:
        if not isinstance(bound, int | float):
            return
        compare = _COMPARISONS[func]
        question = _Question(result, kept=compare(_ALMOST_1, bound))
        # With a probability of 0 or 1 there is no choice.
        question.is_settled = compare(0.0, bound) == question.kept
        self._questions.append(question)

    def _answered(self, question: _Question) -> bool:
        if self._pending is not None and self._pending is not question:
            raise _decides(self._pending)
        if not question.is_settled:
            self._pending = question
        return question.kept

    def _before(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        lists = (child for child in module.children() if isinstance(child, nn.ModuleList))
        self._members.update(id(member) for each in lists for member in each)
        question = self._pending
        if question is None or id(module) not in self._members:
            return
        if not args or not isinstance(args[0], Tensor) or _counts_batches(module):
            raise _decides(question)
        self._pending = None
        # A copy, because the layer may write to its input.
        self._layer = module, question, args[0].clone()

    def _after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        if self._layer is None or self._layer[0] is not module:
            return None
        _, question, before = self._layer
        self._layer = None
        question.is_settled = True
        first, *others = output if isinstance(output, tuple | list) else (output,)
        alike = isinstance(first, Tensor) and first.shape == before.shape
        if not alike or any(isinstance(other, Tensor) for other in others):
            raise _decides(question)
        left_out = question.value != question.kept
        self.left_out.append((tuple(module.parameters()), left_out))
        chosen = torch.where(left_out, before, first)
        return chosen if isinstance(output, Tensor) else type(output)((chosen, *others))

    def marked(self, gradient: Tensor, leaf: Tensor, mark: float) -> Tensor:
        """Return the gradient of a parameter, with a mark added if its layer was kept."""
        uses = [out for owned, out in self.left_out if any(each is leaf for each in owned)]
        return gradient + torch.where(torch.stack(uses).all(), 0.0, mark).to(gradient)

    def names(self, leaves: Mapping[str, Tensor]) -> set[str]:
        """Return the names of the parameters of layers that may be left out."""
        owned = {id(parameter) for parameters, _ in self.left_out for parameter in parameters}
        return {name for name, leaf in leaves.items() if id(leaf) in owned}


def _counts_batches(module: nn.Module) -> bool:
    """Return whether a layer updates its buffers, which a layer that is left out must not do."""
    return any(getattr(each, "running_mean", None) is not None for each in module.modules())


def _decides(question: _Question) -> TraceError:
    return TraceError(
        f"forward branches on a random number{at(question.line)}, which determines more than "
        "whether the next layer of a ModuleList is skipped: a graph would take the same branch at "
        "every step. Use torch.where with both results, or disable it (layerdrop=0)."
    )
