"""Compares each operation of a graph in JAX and in torch, on the same arguments."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import Tensor, fx

from medjax_torch.component_state import Inventory, to_numpy
from medjax_torch.graph import Graph
from medjax_torch.graph.errors import line_of_stack
from medjax_torch.graph.guards import is_random
from medjax_torch.graph.operations import name_of
from medjax_torch.lowerings.interpreter import LoweringError, evaluated
from medjax_torch.lowerings.table import TABLE
from medjax_torch.torch_internals import pytree
from medjax_torch.verification.comparison import Difference, apart, wide
from medjax_torch.verification.graph_in_torch import is_inexact, moved, outcome_in_torch
from medjax_torch.verification.reference import FixedDraws
from medjax_torch.verification.rounding import AMPLIFIED, SAMPLES, roundings

_TOLERANCES = {torch.bfloat16: 3e-2, torch.float16: 5e-3}
_TOLERANCE = 1e-4
"""Tolerance for one operation in float32, which rounds many times if it sums."""

_SKIPPED = frozenset(
    [
        "barrier",
        "empty",
        "empty_like",
        "empty_permuted",
        "empty_strided",
        "new_empty",
        "new_empty_strided",
    ]
)
"""Operations whose result is undefined or not an array."""

_LISTED = 3

_INT32 = 2**31 - 1


def wrong_lowerings(
    graph: Graph, inventory: Inventory, batch: Mapping[str, Any], wanted: Collection[fx.Node]
) -> list[str]:
    """Return messages about the operations whose results differ between JAX and torch.

    Parameters
    ----------
    graph : Graph
        The graph, evaluated in torch; in JAX every operation gets torch's own arguments.
    inventory : Inventory
        The component's content.
    batch : mapping of str to value
        A batch for which the graph is valid.
    wanted : collection of fx.Node
        The nodes to compare.

    Returns
    -------
    list of str
        Sentences on each such operation, with its line, in the order of the graph; at most three.
    """
    said: list[str] = []

    def watch(node: fx.Node, arguments: Any, result: Any) -> None:
        known = name_of(node) not in _SKIPPED and node.target in TABLE
        if known and node in wanted and len(said) < _LISTED:
            with contextlib.suppress(_BeyondError):
                said.extend(_compared(node, arguments, result))

    with jax.default_matmul_precision("highest"):
        outcome_in_torch(graph, inventory, batch, watch=watch)
    return said


class _BeyondError(Exception):
    """Raised for an argument that the device cannot hold."""


def _compared(node: fx.Node, arguments: Any, result: Any) -> list[str]:
    try:
        operands = pytree.tree_map_only(Tensor, _to_jax, arguments)
        ours = jax.device_get(pytree.tree_leaves(evaluated(node, operands, None)))
    except LoweringError as error:
        return [str(error)]
    theirs = pytree.tree_leaves(result)
    undecided = any(is_inexact(value) for value in pytree.tree_leaves(arguments))
    for place, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        if not isinstance(other, Tensor):
            continue
        actual, expected = np.asarray(one), to_numpy(other)
        relative = apart(actual, expected, 0.0, undecided=undecided)
        tolerance = max(
            (_tolerance(v) for v in (*pytree.tree_leaves(arguments), other)), default=0.0
        )
        if relative <= tolerance:
            continue
        if not is_inexact(other):
            relative = apart(actual.astype(np.float64), expected.astype(np.float64), 0.0)
        if relative > AMPLIFIED * _sensitivity(node, arguments, place, other):
            line = line_of_stack(node.stack_trace)
            where = f"called at {line}" if line else "in the backward pass or at an unknown line"
            if expected.dtype == np.int64 and np.abs(wide(expected)).max() > _INT32:
                return [
                    f"{node.target} ({where}) returns integers from {expected.min()} to "
                    f"{expected.max()}, but the device's have 32 bits. Compute with floats there."
                ]
            what = f"the JAX lowering of {node.target} ({where}), given the same arguments"
            difference = Difference(what, relative, actual, expected, ("JAX", "torch"))
            return [f"This is an error in a lowering; please report it: {difference}."]
    return []


def _tolerance(value: Any) -> float:
    return _TOLERANCES.get(value.dtype, _TOLERANCE) if is_inexact(value) else 0.0


def _sensitivity(node: fx.Node, arguments: Any, place: int, result: Tensor) -> float:
    """Return how much the result changes with roundings of the arguments and of itself."""
    signs = np.random.default_rng(0)
    traced = [value.dtype for value in pytree.tree_leaves(arguments) if is_inexact(value)]
    traced.append(result.dtype)
    shares = roundings(traced)

    def evaluate(share: bool) -> np.ndarray:
        def widened(value: Tensor) -> Tensor:
            if not is_inexact(value):
                return value
            wide = torch.complex128 if value.is_complex() else torch.float64
            return moved(value.to(wide), shares[value.dtype] if share else 0.0, signs)

        args, kwargs = pytree.tree_map_only(Tensor, widened, arguments)
        target: Any = node.target
        with FixedDraws() if is_random(node) else contextlib.nullcontext():
            value = pytree.tree_leaves(target(*args, **kwargs))[place]
        return to_numpy(moved(value, shares.get(result.dtype, 0.0) if share else 0.0, signs))

    # Integers made from floats are compared as numbers: they change as little as the floats.
    wide_type = np.complex128 if result.is_complex() else np.float64
    try:
        with torch.no_grad():
            base, ours = evaluate(False).astype(wide_type), to_numpy(result).astype(wide_type)
            steps = [evaluate(True).astype(wide_type) - base for _ in range(SAMPLES)]
            changes = [apart(ours + step, ours, 0.0) for step in steps]
    except Exception:
        return 0.0  # torch has no such operation in float64, so no difference is excused
    largest = max(changes)
    return largest if np.isfinite(largest) else 0.0


def _to_jax(value: Tensor) -> jax.Array:
    array = to_numpy(value.resolve_conj().resolve_neg())
    if array.dtype == np.int64 and array.size and np.abs(array).max() > _INT32:
        raise _BeyondError
    return jnp.array(array)
