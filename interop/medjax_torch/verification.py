"""A graph in JAX is compared with torch itself before anything is trained with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import Tensor

from medjax_torch.comparison import Difference, differences
from medjax_torch.graph.batches import columns, flatten
from medjax_torch.graph.guards import ancestry
from medjax_torch.graph.joint import Call
from medjax_torch.graph.record import Graph
from medjax_torch.lowerings.interpreter import run
from medjax_torch.modules import Found, read
from medjax_torch.reference import Outcome, is_numeric, reference
from medjax_torch.tensors import to_numpy

_TOLERANCES = {torch.bfloat16: 6e-2, torch.float16: 1e-2, torch.float32: 1e-3}
"""Largest relative difference by the coarsest dtype in a graph.

Of the 16-bit types some sixteen roundings; of float32 some hundred times what deep models show and
some hundredth of what errors do.
"""

_AMPLIFIED = 4
"""How many times what torch's own result moves with a rounding of its arguments is excused.

Through many layers of bfloat16 with batch norm, gradients move by a fourth of themselves.
"""
_LIMIT = 0.5
"""No larger relative difference is excused by anything."""

_LISTED = 8
_QUICKLY: dict[str, Any] = {"xla_backend_optimization_level": 0}
"""Halves compilation, which takes longer than the one run that follows it."""


class VerificationError(ValueError):
    """JAX computes something else than torch for a component."""


class Verified(NamedTuple):
    """A comparison that went well.

    Attributes
    ----------
    relative : float
        The largest relative difference of a result.
    name : str
        Which result that was.
    results : int
        How many results were compared.
    """

    relative: float
    name: str
    results: int


def verify(
    call: Call,
    found: Found,
    batch: Mapping[str, Any],
    graph: Graph,
    constants: Mapping[str, Any],
    evaluate: Callable[..., Any] | None = None,
) -> Verified:
    """Compare a graph in JAX with the component in torch on one batch.

    Compared are the loss, forward's outputs, which parameters have a gradient and those gradients,
    and all parameters and buffers afterwards. Nothing is random on either side: see `reference`.

    Parameters
    ----------
    call : Call
        The component's forward, as `graph.trace` took it.
    found : Found
        The component's content. It is left as it was.
    batch : mapping of str to value
        A batch for which the graph is valid.
    graph : Graph
        What will be trained or evaluated.
    constants : mapping of str to array
        The graph's constants as the step will get them.
    evaluate : callable, optional
        From `evaluator(graph)`, by who compares the graph more than once.

    Raises
    ------
    VerificationError
        If a result differs by more than the coarsest type in the graph explains: neither by its
        tolerance, nor by how far torch's own result moves with a rounding of its arguments.
    """
    expected = reference(call, found, batch, train=graph.train, leave_out=graph.left_out)
    actual = _on_jax(found, batch, graph, constants, evaluate or evaluator(graph))
    listing = differences(actual, expected, ("JAX", "torch"), _rounded(graph))
    coarsest = _coarsest(graph)
    wrong = [one for one in listing if one.relative > _TOLERANCES[coarsest]]
    if wrong:
        moved = reference(
            call, found, batch, train=graph.train, rounding=torch.finfo(coarsest).eps / 2
        )
        sides = ("torch after rounding", "torch")
        excused = {one.name: one.relative for one in differences(moved, expected, sides)}
        wrong = [
            one
            for one in wrong
            if one.relative > min(_LIMIT, _AMPLIFIED * excused.get(one.name, 0.0))
        ]
    if wrong:
        raise VerificationError(_message(wrong, len(listing), graph.train))
    return Verified(listing[0].relative, listing[0].name, len(listing))


def evaluator(graph: Graph) -> Callable[..., Any]:
    """Return what runs a graph in JAX; it is compiled with the first run."""

    def evaluate(arguments: list[jax.Array], constants: Mapping[str, jax.Array]) -> Any:
        return run(graph.module, arguments, None, constants)

    return jax.jit(evaluate, compiler_options=_QUICKLY)


def _on_jax(
    found: Found,
    batch: Mapping[str, Any],
    graph: Graph,
    constants: Mapping[str, Any],
    evaluate: Callable[..., Any],
) -> Outcome:
    arguments = [_array(value) for value in graph.inputs(found.tensors, columns(batch))]
    # A faster, coarser product on an accelerator is a choice of the step, not an error.
    with jax.default_matmul_precision("highest"):
        values = jax.device_get(evaluate(arguments, constants))
    results = graph.results([np.asarray(value) for value in values])
    outputs, _ = flatten(graph.outputs.rebuild(results.outputs))
    return Outcome(
        loss=results.loss,
        gradients=results.gradients,
        outputs={name: np.asarray(leaf) for name, leaf in outputs.items() if is_numeric(leaf)},
        state={**read(found), **results.updated},
    )


def _array(tensor: Tensor) -> jax.Array:
    return jnp.array(to_numpy(tensor))


def _rounded(graph: Graph) -> set[str]:
    """Return the outputs that depend on floating-point numbers."""
    results: Any = graph.module.graph.output_node().args[0]
    nodes = graph.results(results).outputs
    return {
        name
        for name, node in zip(graph.outputs.names, nodes, strict=True)
        if any(_floating(ancestor) for ancestor in ancestry(node))
    }


def _floating(node: torch.fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.is_floating_point()


def _coarsest(graph: Graph) -> torch.dtype:
    values = (node.meta.get("val") for node in graph.module.graph.nodes)
    types = {value.dtype for value in values if isinstance(value, Tensor)}
    return max(types & _TOLERANCES.keys(), key=_TOLERANCES.__getitem__, default=torch.float32)


def _message(wrong: list[Difference], compared: int, train: bool) -> str:
    lines = [f"  {one}" for one in wrong[:_LISTED]]
    if len(wrong) > _LISTED:
        lines.append(f"  and {len(wrong) - _LISTED} more")
    return "\n".join(
        [
            f"JAX does not compute what torch computes for this component in "
            f"{'training' if train else 'evaluation'}: {len(wrong)} of {compared} results differ.",
            *lines,
            "Nothing was trained. This is an error in a lowering, or forward is not the same "
            "function each time it runs; please report it. Options(verify=False) trains anyway.",
        ]
    )
