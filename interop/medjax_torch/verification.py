"""Comparing JAX with torch on a batch before a run trusts it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import Tensor

from medjax_torch.batches.arrays import to_arrays
from medjax_torch.graph import Graph, columns
from medjax_torch.graph.joint import Call
from medjax_torch.lowerings import run
from medjax_torch.modules import Found
from medjax_torch.reference import Reference, reference
from medjax_torch.tensors import to_numpy

_TOLERANCE = 1e-3
"""Largest difference, relative to the largest value, that float32 may make in a deep model."""

_NARROW_TOLERANCE = 3e-2
"""The same where the tensor itself is of 16 bits."""

_NOISE = 1e-3
"""A gradient this much smaller than the largest one is measured against that one: what is zero but
for rounding, as that of an attention's key bias, is rounded differently on each side."""

_TIES = 0.01
"""Share of integers that may differ: where two scores tie but for rounding, argmax may choose
either."""

_SHOWN = 8


class VerificationError(ValueError):
    """JAX computes something else than torch for the first batch."""


class Difference(NamedTuple):
    """How far two values are apart."""

    name: str
    size: float
    """Relative to the largest value; infinite for other shapes, or NaN on one side only."""
    limit: float

    def __str__(self) -> str:
        return f"{self.name} (by {self.size:.1e})"


def verify(
    call: Call,
    found: Found,
    batch: Mapping[str, Any],
    graph: Graph,
    constants: Mapping[str, np.ndarray],
) -> float:
    """Compare what a graph computes in JAX with what torch computes, dropout kept whole.

    Parameters
    ----------
    call : Call
        The component's forward.
    found : Found
        The component's content.
    batch : mapping of str to value
        The batch, also with the columns that the graph does not see.
    graph : Graph
        What was traced for it.
    constants : mapping of str to numpy.ndarray
        The tensors that the graph holds.

    Returns
    -------
    float
        The largest relative difference.

    Raises
    ------
    VerificationError
        If loss, outputs, gradients or state differ by more than float32 rounding.
    """
    expected = reference(call, found, batch, train=graph.train)
    computed = graph.results(_run(graph, found, batch, constants))
    missing = set(expected.gradients) ^ set(computed.gradients)
    state = {name: value for name, value in expected.after.items() if name in computed.updated}
    kept = _written(expected, found, set(computed.updated))
    differences = [
        *_compare("the loss", {"": computed.loss}, {"": expected.loss}),
        *_compare(
            "output",
            dict(zip(graph.outputs.names, computed.outputs, strict=True)),
            expected.outputs,
        ),
        *_compare("gradient of", computed.gradients, expected.gradients),
        *_compare("new value of", computed.updated, state),
        *(Difference(f"gradient of {name}, on one side only", np.inf, 0) for name in missing),
        *(Difference(f"new value of {name}, which JAX leaves alone", np.inf, 0) for name in kept),
    ]
    wrong = sorted((d for d in differences if not d.size <= d.limit), key=lambda d: -d.size)
    if wrong:
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise VerificationError(
            f"JAX and torch differ on the first batch in {', '.join(map(str, wrong[:_SHOWN]))}"
            f"{more}; expected the same but for rounding. Please report it with the component; "
            "Options(verify=False) trains all the same"
        )
    return max(d.size for d in differences)


def prove_padding(
    call: Call, found: Found, batch: Mapping[str, Any], padded: Mapping[str, Any], *, train: bool
) -> dict[str, tuple[int, ...]] | str:
    """Find out with torch whether a padded batch gives what the batch itself gives.

    Parameters
    ----------
    call : Call
        The component's forward.
    found : Found
        The component's content.
    batch, padded : mapping of str to value
        A batch, and the same with some columns longer along their second axis.
    train : bool
        Whether gradients are compared too.

    Returns
    -------
    dict of str to tuple of int, or str
        The axes of each output that follow the padding; or in words why padding is not harmless.
    """
    expected = reference(call, found, batch, train=train)
    try:
        computed = reference(call, found, padded, train=train)
    except Exception as error:
        return f"forward raises {type(error).__name__} on the padded batch: {error}"
    axes = {
        name: tuple(
            axis
            for axis, (a, b) in enumerate(zip(value.shape, other.shape, strict=False))
            if a != b
        )
        for name, value in expected.outputs.items()
        if (other := computed.outputs.get(name)) is not None
    }
    outputs = {
        name: value[tuple(slice(size) for size in expected.outputs[name].shape)]
        for name, value in computed.outputs.items()
        if name in axes and value.ndim == expected.outputs[name].ndim
    }
    differences = [
        *_compare("the loss", {"": computed.loss}, {"": expected.loss}),
        *_compare("output", outputs, expected.outputs),
        *_compare("gradient of", computed.gradients, expected.gradients),
        *_compare("new value of", computed.after, expected.after),
    ]
    worst = max(differences, key=lambda d: d.size / max(d.limit, 1e-30))
    return axes if worst.size <= worst.limit else f"it changes {worst}"


def _run(
    graph: Graph, found: Found, batch: Mapping[str, Any], constants: Mapping[str, np.ndarray]
) -> Any:
    tensors = columns(batch)
    state = to_arrays({name: tensor.detach() for name, tensor in found.tensors.items()})
    arrays = to_arrays({name: tensors[name] for name in graph.columns})
    held = {name: jnp.asarray(value) for name, value in constants.items()}
    step = jax.jit(lambda *inputs: run(graph.module, inputs, None, held))
    with jax.default_matmul_precision("highest"):
        return jax.device_get(step(*graph.inputs(state, arrays)))


def _written(expected: Reference, found: Found, known: set[str]) -> Iterator[str]:
    """Yield the state that torch's forward changed and the graph does not."""
    for name, before in found.tensors.items():
        after = expected.after[name]
        if name not in known and not torch.equal(before.detach(), after):
            yield name


def _compare(
    kind: str, computed: Mapping[str, Any], expected: Mapping[str, Tensor]
) -> Iterator[Difference]:
    largest = max((_largest(to_numpy(value)) for value in expected.values()), default=0.0)
    for name, tensor in expected.items():
        label = f"{kind} {name}".strip()
        if name not in computed:
            if kind != "gradient of":  # reported by its caller
                yield Difference(label, np.inf, 0)
            continue
        found = computed[name]
        found = to_numpy(found) if isinstance(found, Tensor) else np.asarray(found)
        yield _difference(label, found, to_numpy(tensor), _NOISE * largest)


def _difference(name: str, found: np.ndarray, expected: np.ndarray, floor: float) -> Difference:
    if found.shape != expected.shape:
        return Difference(name, np.inf, 0)
    if expected.dtype.kind in "iub":
        share = float(np.mean(found != expected)) if expected.size else 0.0
        return Difference(name, share, _TIES)
    narrow = expected.dtype.itemsize < 4
    a, b = found.astype(np.complex128), expected.astype(np.complex128)
    equal = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        distance = np.where(equal, 0.0, np.abs(a - b))
    scale = max(_largest(expected), floor, 1e-12)
    size = float(distance.max(initial=0.0)) / scale
    return Difference(
        name, np.inf if np.isnan(size) else size, _NARROW_TOLERANCE if narrow else _TOLERANCE
    )


def _largest(values: np.ndarray) -> float:
    if values.dtype.kind in "iub":
        return 0.0
    finite = np.abs(values.astype(np.complex128))
    return float(np.max(finite, initial=0.0, where=np.isfinite(finite)))
