"""Evaluates a recorded graph in torch: in its own dtypes, or in float64 with chosen roundings."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from medjax_torch.component_state import Inventory, to_numpy
from medjax_torch.graph import host_random
from medjax_torch.graph.environment import plain_kernels
from medjax_torch.graph.graph import Graph
from medjax_torch.graph.guards import is_random
from medjax_torch.graph.operations import CHOICES, MOVES, name_of
from medjax_torch.torch_internals import pytree
from medjax_torch.verification.reference import FixedDraws, Outcome, outcome_of

_EXACT = MOVES | CHOICES | {"abs", "neg", "sign", "zeros", "ones", "zeros_like", "ones_like"}

Watch = Callable[[fx.Node, Any, Any], None]
"""Called for each call in a graph, with the node, its arguments and options, and torch's result."""


def outcome_in_torch(
    graph: Graph,
    inventory: Inventory,
    batch: Mapping[str, Any],
    *,
    wide: bool = False,
    roundings: Mapping[torch.dtype, float] | None = None,
    seed: int = 0,
    watch: Watch | None = None,
) -> Outcome:
    """Evaluate a graph in torch with the fixed draws of a reference.

    Parameters
    ----------
    graph : Graph
        The graph to evaluate.
    inventory : Inventory
        The component's content.
    batch : mapping of str to value
        A batch for which the graph is valid.
    wide : bool
        Whether to compute in float64 what the graph has in a shorter floating-point type.
    roundings : mapping of dtype to float, optional
        By what share of itself each floating-point input and each result of arithmetic is moved
        up or down, depending on its type in the graph. Exact results are not moved.
    seed : int
        Determines which of them are moved up.
    watch : callable, optional
        Called for each call of the graph; see `Watch`.
    """
    runner = _Runner(graph, wide, roundings or {}, seed, watch)
    inputs = [value.detach() for value in graph.inputs(inventory.tensors, graph.tensors_of(batch))]
    with host_random.watched({}), torch.no_grad(), plain_kernels():
        values = runner.run(*inputs)
    return outcome_of(graph, inventory, [to_numpy(torch.as_tensor(value)) for value in values])


class _Runner(fx.Interpreter):
    def __init__(
        self,
        graph: Graph,
        wide: bool,
        roundings: Mapping[torch.dtype, float],
        seed: int,
        watch: Watch | None,
    ) -> None:
        super().__init__(graph.module)
        self._constants = graph.constants
        self._is_wide = wide
        self._roundings = roundings
        self._signs = np.random.default_rng(seed)
        self._watch = watch

    def run_node(self, n: fx.Node) -> Any:
        if n.op == "output":
            return super().run_node(n)
        with FixedDraws() if is_random(n) else contextlib.nullcontext():
            result = super().run_node(n)
        if self._watch is not None and n.op == "call_function":
            self._watch(n, self.fetch_args_kwargs_from_env(n), result)
        traced = pytree.tree_leaves(n.meta.get("val"))
        values, structure = pytree.tree_flatten(result)
        if len(traced) == len(values):
            values = [self._settled(n, v, t) for v, t in zip(values, traced, strict=True)]
        return pytree.tree_unflatten(values, structure)

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        return self._constants[target]  # the recorded value: the component may have written to it

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        if self._is_wide:
            args, kwargs = pytree.tree_map_only(torch.dtype, _widened, (args, kwargs))
        return super().call_function(target, args, kwargs)

    def _settled(self, node: fx.Node, value: Any, traced: Any) -> Any:
        """Return a result in the dtype and with the rounding that it should have."""
        if not isinstance(value, Tensor) or not is_inexact(traced):
            return value
        value = value.to(_widened(traced.dtype) if self._is_wide else traced.dtype)
        exact = node.op == "get_attr" or name_of(node) in _EXACT
        return moved(value, 0.0 if exact else self._roundings.get(traced.dtype, 0.0), self._signs)


def moved(value: Tensor, share: float, signs: np.random.Generator) -> Tensor:
    """Return a tensor with each element made larger or smaller by a share of itself."""
    if not share or not value.numel():
        return value
    drawn = signs.integers(0, 2, tuple(value.shape), np.int8) * 2 - 1
    result = (value * (1 + share * torch.from_numpy(np.asarray(drawn)))).to(value.dtype)
    return torch.where(torch.isfinite(result), result, value)


def is_inexact(value: Any) -> bool:
    """Return whether a value is a tensor of floating-point or complex numbers."""
    return isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())


def _widened(dtype: torch.dtype) -> torch.dtype:
    if dtype.is_complex:
        return torch.complex128
    return torch.float64 if dtype.is_floating_point else dtype
