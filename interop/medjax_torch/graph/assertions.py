"""Torch's checks of values (``torch._check``, ``torch._assert_async``) as values to be compared.

torch computes such a check and forgets the result, so a graph would drop it. Here the result is
one of the values under which a graph is valid: compared before a step if it depends on the batch
alone, and in the step otherwise.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx

from medjax_torch.graph.errors import is_of_component, line_of_stack
from medjax_torch.graph.guards import ASSERTS, OPTIONAL, Source, ancestry, asserted, is_random
from medjax_torch.graph.replacing import replaced
from medjax_torch.graph.sizes import Sizes
from medjax_torch.torch_internals import check_tensor_all_with, check_with

aten = torch.ops.aten

_WHY = "torch checks a value that is known only when the step runs"
_FAILED = "a check of forward fails"


class UndecidedError(Exception):
    """Raised where a check depends on more than the batch, so that it belongs in the step."""


@contextmanager
def following_checks() -> Iterator[None]:
    """Make torch's Python functions for checks call operators that a recording contains."""
    with (
        replaced(torch, "_check_tensor_all_with", _check_tensor(check_tensor_all_with)),
        replaced(torch, "_check_with", _check(check_with)),
    ):
        yield


def _check_tensor(original: Callable[..., None]) -> Callable[..., None]:
    def check(error_type: Any, cond: Any, message: Any = None) -> None:
        if not isinstance(cond, Tensor) or cond.dtype != torch.bool:
            original(error_type, cond, message)
        else:
            # If it fails while it is recorded, forward itself raises the error with its message.
            aten._assert_async.msg(cond.all(), _FAILED)

    return check


def _check(original: Callable[..., None]) -> Callable[..., None]:
    def check(error_type: Any, cond: Any, message: Any = None) -> None:
        if isinstance(cond, torch.SymBool) and _is_of_values(cond) and _is_called_by_component():
            cond = bool(cond)  # torch would assume that it holds
        original(error_type, cond, message)

    return check


def _is_of_values(cond: torch.SymBool) -> bool:
    """Return whether a truth value depends on no count; what is assumed of counts is noted."""
    sizes = cond.node.shape_env
    return isinstance(sizes, Sizes) and not sizes.counts(cond.node.expr)


def _is_called_by_component() -> bool:
    frame: Any = sys._getframe(2)
    while frame is not None and frame.f_globals.get("__name__") == torch.__name__:
        frame = frame.f_back
    return frame is not None and is_of_component(frame.f_code.co_filename)


def add_assertions(module: fx.GraphModule, nb_state: int) -> list[Source]:
    """Append to a graph's outputs what it asserts about the batch.

    Parameters
    ----------
    module : fx.GraphModule
        The module of the first pass, recorded on shapes alone. It is changed in place.
    nb_state : int
        How many of its inputs, counted from the first, are parameters and buffers.

    Returns
    -------
    list of Source
        The source of each appended output.

    Raises
    ------
    UndecidedError
        If it asserts something about parameters, buffers or random numbers.
    """
    graph = module.graph
    inputs = graph.find_nodes(op="placeholder")
    state, columns = set(inputs[:nb_state]), set(inputs[nb_state:])
    sources: list[Source] = []
    values: list[fx.Node] = []
    for node in list(graph.nodes):
        if node.target not in (*ASSERTS, aten._assert_scalar.default):
            continue
        behind = ancestry(*node.all_input_nodes)
        if behind & state or any(map(is_random, behind)):
            if OPTIONAL not in node.args:
                raise UndecidedError(_WHY)
        elif behind & columns:
            if node.target not in ASSERTS:
                raise UndecidedError(_WHY)
            with graph.inserting_before(node):
                values += asserted(graph, node)
            sources.append(Source(line_of_stack(node.stack_trace), str(node.target)))
    if values:
        output = graph.output_node()
        results: Any = output.args[0]
        output.args = ([*results, *values],)
        module.recompile()
    return sources
