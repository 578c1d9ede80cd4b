"""Host callbacks: operators without a lowering are run by torch, the rest of the graph by JAX."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import torch

from medjax_torch.lowerings.dtypes import jax_dtype
from medjax_torch.torch_internals import pytree


def _is_array(value: Any) -> bool:
    return isinstance(value, jax.Array)


def _to_torch(array: Any, like: Any) -> Any:
    """Copy an array to the type recorded in the trace: JAX may store 64-bit types in 32 bits."""
    values = np.asarray(array)
    if not isinstance(like, torch.Tensor):
        return values.item()
    if like.dtype == torch.bfloat16:  # torch cannot read numpy's bfloat16
        return torch.from_numpy(values.astype(np.float32)).to(torch.bfloat16)
    return torch.from_numpy(np.array(values)).to(like.dtype)


def _to_numpy(tensor: torch.Tensor, dtype: np.dtype[Any]) -> np.ndarray:
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.float()
    values = np.asarray(tensor.detach().resolve_conj().resolve_neg().contiguous().numpy())
    narrowed = values.astype(dtype)
    if dtype.kind in "iu" and not np.array_equal(narrowed, values):
        raise OverflowError(
            "an operation that torch computes on the host returned integers, such as "
            f"{values.flat[0]}, not all of which fit the device's {dtype}; keep integers within "
            "32 bits"
        )
    return narrowed


def call_on_host(node: torch.fx.Node, arguments: Any, options: Any) -> Any:
    """Compute the result of a node with torch on the host.

    JAX never differentiates the call: the graph already contains torch's backward operators.

    Parameters
    ----------
    node : torch.fx.Node
        A call of an operator, with the traced result in its metadata.
    arguments, options : tuple and dict
        The node's positional and keyword arguments, with JAX arrays in place of nodes.
    """
    values, structure = pytree.tree_flatten((tuple(arguments), dict(options)))
    traced = pytree.tree_leaves(
        torch.fx.node.map_arg((node.args, node.kwargs), lambda n: n.meta.get("val"))
    )
    places = [i for i, value in enumerate(values) if _is_array(value)]
    results, result_structure = pytree.tree_flatten(node.meta["val"])
    shapes = [
        jax.ShapeDtypeStruct(tuple(t.shape), jax_dtype(t.dtype))
        for t in results
        if isinstance(t, torch.Tensor)
    ]
    operator: Any = node.target

    def on_host(*arrays: Any) -> tuple[np.ndarray, ...]:
        filled = list(values)
        for place, array in zip(places, arrays, strict=True):
            filled[place] = _to_torch(array, traced[place])
        args, kwargs = pytree.tree_unflatten(filled, structure)
        with torch.no_grad():
            returned = pytree.tree_leaves(operator(*args, **kwargs))
        tensors = [t for t in returned if isinstance(t, torch.Tensor)]
        return tuple(_to_numpy(t, s.dtype) for t, s in zip(tensors, shapes, strict=True))

    arrays: Iterator[Any] = iter(
        jax.pure_callback(on_host, tuple(shapes), *(values[i] for i in places))
    )
    filled = [next(arrays) if isinstance(t, torch.Tensor) else t for t in results]
    return pytree.tree_unflatten(filled, result_structure)
