"""Lists of operator calls, evaluated as one graph per family."""

from typing import Any, NamedTuple

import jax
import numpy as np
import torch
from torch.utils import _pytree as pytree
from torch_graphs import QUICKLY, to_jax

from medjax_torch.lowerings.interpreter import run

aten = torch.ops.aten
SPECIAL = torch.tensor([0.0, -0.0, 1.0, -1.5, 2.5, float("inf"), float("-inf"), float("nan")])


class Call(NamedTuple):
    target: Any
    args: tuple
    kwargs: dict
    compare: tuple | None
    """Which results are defined; None means all of them."""
    tolerance: float

    def __str__(self):
        shown = pytree.tree_map(
            lambda v: f"{v.dtype}{tuple(v.shape)}" if isinstance(v, torch.Tensor) else v,
            (self.args, self.kwargs),
        )
        return f"{self.target}{shown}"


FAMILIES: dict[str, list[Call]] = {}


def calls(family, target, *argument_lists, compare=None, tolerance=1e-6, **kwargs):
    """List one call of the target for each tuple of arguments."""
    for args in argument_lists:
        args = args if isinstance(args, tuple) else (args,)
        call = Call(target, args, kwargs, compare, tolerance)
        FAMILIES.setdefault(family, []).append(call)


def listed():
    return {call.target for family in FAMILIES.values() for call in family}


def torch_result(call):
    copied = pytree.tree_map(
        lambda v: v.clone() if isinstance(v, torch.Tensor) else v, (call.args, call.kwargs)
    )
    with torch.no_grad():
        return call.target(*copied[0], **copied[1])


def graph_of(listing, results):
    """Return a graph that makes every call, and the tensors that are its inputs."""
    graph, inputs = torch.fx.Graph(), []

    def placeholder(value):
        if not isinstance(value, torch.Tensor):
            return value
        node = graph.placeholder(f"input_{len(inputs)}")
        node.meta["val"] = value
        inputs.append(value)
        return node

    # All inputs come before the first call, as in a traced graph.
    operands = [pytree.tree_map(placeholder, (call.args, call.kwargs)) for call in listing]
    nodes = []
    for call, (args, kwargs), result in zip(listing, operands, results, strict=True):
        node = graph.call_function(call.target, args, kwargs)
        node.meta["val"] = result
        nodes.append(node)
    graph.output(nodes)
    return torch.fx.GraphModule(torch.nn.Module(), graph), inputs


def lowered(listing, results, key=None):
    """Return JAX's results of every call, as numpy arrays."""
    graph, inputs = graph_of(listing, results)
    key = jax.random.key(0) if key is None else key
    function = jax.jit(
        lambda *values: run(graph, values[1:], values[0], {}), compiler_options=QUICKLY
    )
    return jax.tree.map(np.asarray, function(key, *map(to_jax, inputs)))


def compared(call, actual, expected):
    """Return why a call's results differ from torch's, or an empty string if they do not."""
    actual, expected = (list(v) if isinstance(v, list | tuple) else [v] for v in (actual, expected))
    for i, (value, wanted) in enumerate(zip(actual, expected, strict=True)):
        if wanted is None or (call.compare is not None and i not in call.compare):
            continue
        wanted = wanted.resolve_conj()
        coarse = wanted.dtype in (torch.bfloat16, torch.float16)
        wanted = (wanted.float() if coarse else wanted).numpy()
        finite = wanted[np.isfinite(wanted)]
        tolerance = 1e-2 if coarse else call.tolerance
        exact = not np.issubdtype(wanted.dtype, np.inexact)
        allowed = 0 if exact else tolerance * max(1, np.abs(finite).max(initial=0))
        value = value.astype(np.float32) if coarse else value
        if value.shape != wanted.shape:
            return f"{call}, result {i}: shape {value.shape}, in torch {wanted.shape}"
        if not np.allclose(value, wanted, rtol=allowed and tolerance, atol=allowed, equal_nan=True):
            return f"{call}, result {i}:\n{value}\nin torch:\n{wanted}"
    return ""
