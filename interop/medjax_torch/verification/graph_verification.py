"""Comparison of a graph in JAX with torch itself, before anything is trained with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import Tensor

from medjax.data.ladder import narrow
from medjax.runtime import compile_aside
from medjax_torch.component_state import Inventory, to_numpy
from medjax_torch.graph.graph import Graph
from medjax_torch.graph.joint import Call
from medjax_torch.lowerings.interpreter import run
from medjax_torch.verification.comparison import differences
from medjax_torch.verification.diagnosis import Finding, diagnose, rounded_outputs
from medjax_torch.verification.reference import Outcome, outcome_of, reference

_TOLERANCES = {torch.bfloat16: 6e-2, torch.float16: 1e-2, torch.float32: 1e-3}
"""Largest relative difference by the coarsest dtype in a graph.

About sixteen roundings for the 16-bit types. For float32, about a hundred times the difference that
deep models show, and about a hundredth of the difference that errors cause.
"""

_LISTED = 8
_QUICKLY: dict[str, Any] = {"xla_backend_optimization_level": 0}
"""Halves the compilation time, which exceeds that of the single run that follows."""


class VerificationError(ValueError):
    """Raised if the results of JAX differ from torch's for a component."""


class Verified(NamedTuple):
    """The result of a successful comparison.

    Attributes
    ----------
    relative : float
        The largest relative difference of a result.
    name : str
        Name of that result.
    results : int
        Number of results compared.
    """

    relative: float
    name: str
    results: int


def verify(
    call: Call,
    inventory: Inventory,
    batch: Mapping[str, Any],
    graph: Graph,
    constants: Mapping[str, Any],
    evaluate: jax.stages.Wrapped | None = None,
) -> Verified:
    """Compare a graph in JAX with the component in torch on one batch.

    The comparison covers the loss, forward's outputs, which parameters have a gradient, those
    gradients, and all parameters and buffers afterwards. Random draws are fixed on both sides; see
    `reference`.

    Parameters
    ----------
    call : Call
        The component's forward, as passed to `graph.trace`.
    inventory : Inventory
        The component's content. It is left unchanged.
    batch : mapping of str to value
        A batch for which the graph is valid.
    graph : Graph
        The graph that will be trained or evaluated.
    constants : mapping of str to array
        The graph's constants, as the step will get them.
    evaluate : jax.stages.Wrapped, optional
        The result of `evaluator(graph)`, if the graph is compared more than once.

    Raises
    ------
    VerificationError
        If a difference is explained neither by the tolerance of the coarsest type in the graph,
        nor by how much torch's own result changes with roundings. The message names the cause; see
        `diagnosis`.
    """
    expected, actual = _in_both(call, inventory, batch, graph, constants, evaluate)
    listing = differences(actual, expected, ("JAX", "torch"), rounded_outputs(graph))
    tolerance = _TOLERANCES[_coarsest(graph)]
    wrong = [one for one in listing if one.relative > tolerance]
    if wrong:
        finding = diagnose(call, inventory, batch, graph, expected, wrong, tolerance)
        if finding is not None:
            raise VerificationError(_message(finding, len(listing), graph.train))
    return Verified(listing[0].relative, listing[0].name, len(listing))


def evaluator(graph: Graph) -> jax.stages.Wrapped:
    """Return a function that runs a graph in JAX; it is compiled at its first call."""

    def evaluate(arguments: list[jax.Array], constants: Mapping[str, jax.Array]) -> Any:
        return run(graph.device.module, arguments, None, constants)

    return jax.jit(evaluate, compiler_options=_QUICKLY)


def _in_both(
    call: Call,
    inventory: Inventory,
    batch: Mapping[str, Any],
    graph: Graph,
    constants: Mapping[str, Any],
    evaluate: jax.stages.Wrapped | None,
) -> tuple[Outcome, Outcome]:
    """Return what torch computes, and what JAX does; XLA compiles while torch computes."""
    evaluate = evaluate or evaluator(graph)
    # Lowered as it is going to be called: by the same arguments, with the same precision.
    with _exactly():
        compiled = compile_aside(evaluate.lower(_arguments(inventory, batch, graph), constants))
    expected = reference(call, inventory, batch, train=graph.train, leave_out=graph.left_out)
    compiled.result()
    return expected, _on_jax(inventory, batch, graph, constants, evaluate)


def _on_jax(
    inventory: Inventory,
    batch: Mapping[str, Any],
    graph: Graph,
    constants: Mapping[str, Any],
    evaluate: Callable[..., Any],
) -> Outcome:
    with _exactly():
        values = jax.device_get(evaluate(_arguments(inventory, batch, graph), constants))
    return outcome_of(graph, inventory, [np.asarray(value) for value in values])


def _arguments(inventory: Inventory, batch: Mapping[str, Any], graph: Graph) -> list[jax.Array]:
    """Return the inputs of a graph as JAX takes them."""
    tensors = graph.completed(graph.tensors_of(batch))
    named = {name: name for name in (*inventory.tensors, *tensors)}
    values = graph.device.inputs(inventory.tensors, tensors)
    return [
        jnp.array(narrow(name, to_numpy(value)))
        for name, value in zip(graph.device.inputs(named, named), values, strict=True)
    ]


def _exactly() -> AbstractContextManager[Any]:
    """Return a context without the faster, coarser matrix products of an accelerator.

    They are a choice of the step, not an error.
    """
    context: AbstractContextManager[Any] = jax.default_matmul_precision("highest")
    return context


def _coarsest(graph: Graph) -> torch.dtype:
    values = (node.meta.get("val") for node in graph.module.graph.nodes)
    types = {value.dtype for value in values if isinstance(value, Tensor)}
    return max(types & _TOLERANCES.keys(), key=_TOLERANCES.__getitem__, default=torch.float32)


def _message(finding: Finding, compared: int, train: bool) -> str:
    wrong = finding.wrong
    lines = [f"  {one}" for one in wrong[:_LISTED]]
    if len(wrong) > _LISTED:
        lines.append(f"  and {len(wrong) - _LISTED} more")
    return "\n".join(
        [
            f"JAX does not compute what torch computes for this component in "
            f"{'training' if train else 'evaluation'}: {len(wrong)} of {compared} results differ.",
            *lines,
            *finding.causes,
            "Nothing was trained. Options(verify=False) would train anyway.",
        ]
    )
