"""Evaluation of a functional aten graph in JAX, node by node."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import torch
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from medjax.target import target_platform
from medjax_torch.lowerings import counted
from medjax_torch.lowerings.callback import call_on_host
from medjax_torch.lowerings.dtypes import jax_dtype
from medjax_torch.lowerings.fixed_draws import FIXED_DRAWS, steps
from medjax_torch.lowerings.table import TABLE, Kind, Lowering, Traced
from medjax_torch.torch_internals import OpOverload, pytree


class LoweringError(ValueError):
    """Raised when a graph cannot be evaluated in JAX."""


class MissingOperatorWarning(UserWarning):
    """Issued when operators of the graph have no lowering and run in torch on the host."""


class MissingOperator(NamedTuple):
    """An operator of a graph that has no lowering."""

    name: str
    where: str
    """The innermost line of the traced program that called it, if the trace recorded it."""

    def __str__(self) -> str:
        return f"{self.name} (called at {self.where})"


def where(node: Node) -> str:
    """Return the innermost traced line that created a node, as ``file:line in function``."""
    frames = [
        line.strip()
        for line in (node.meta.get("stack_trace") or "").splitlines()
        if line.strip().startswith("File ")
    ]
    return frames[-1] if frames else "an unrecorded line, such as one in the backward pass"


def _name(target: Any) -> str:
    """Return a readable name of a node's target; builtins without their memory address."""
    return (
        str(target) if isinstance(target, OpOverload) else getattr(target, "__name__", str(target))
    )


def _lacking(graph_module: GraphModule) -> list[Node]:
    calls = (node for node in graph_module.graph.nodes if node.op.startswith("call_"))
    first: dict[Any, Node] = {}
    for node in calls:
        if node.target not in TABLE:
            first.setdefault(node.target, node)
    return list(first.values())


def missing_operators(graph_module: GraphModule) -> list[MissingOperator]:
    """Return the operators of a graph that have no lowering, each once, in graph order."""
    return [MissingOperator(str(node.target), where(node)) for node in _lacking(graph_module)]


def _check_missing(graph_module: GraphModule, platform: str) -> None:
    """Warn about operators that will run on the host.

    Raises
    ------
    LoweringError
        If the platform cannot call the host, or if an operator would not be correct there.
    """
    lacking = _lacking(graph_module)
    if not lacking:
        return
    for node in lacking:
        if not isinstance(node.target, OpOverload):
            raise LoweringError(
                f"forward calls {_name(node.target)} (at {where(node)}) on a number read from a "
                "tensor, which has no JAX lowering; expected arithmetic or torch operators. "
                "Keep the number as a tensor: remove .item() and float(...)."
            )
        if node.target._schema.is_mutable:
            raise LoweringError(
                f"forward calls {node.target} (at {where(node)}), which writes to its arguments "
                "in a way that torch does not record. Use an operation that returns a new tensor."
            )
        if torch.Tag.nondeterministic_seeded in node.target.tags:
            raise LoweringError(
                f"forward calls {node.target} (at {where(node)}), which draws random numbers and "
                "has no JAX lowering. Use another torch random function, such as torch.rand or "
                "torch.bernoulli."
            )
    names = ", ".join(str(missing) for missing in missing_operators(graph_module))
    if platform == "tpu":
        raise LoweringError(
            f"No JAX lowering for {names}. On CPU and GPU, torch would compute them on the host; "
            "on TPU this is not possible. Use other torch functions, or train on CPU or GPU."
        )
    message = f"No JAX lowering for {names}: torch computes them on the host, which is slow."
    warnings.warn(message, MissingOperatorWarning, stacklevel=3)


def _conform(value: Any, traced: Any, node: Node) -> Any:
    """Cast a node's result to torch's dtypes and check that its shapes are torch's."""
    if isinstance(traced, tuple | list) and isinstance(value, tuple | list):
        if len(value) != len(traced):
            raise LoweringError(
                f"{node.target} (called at {where(node)}) returned {len(value)} results in JAX and "
                f"{len(traced)} in torch. Its lowering is wrong; please report it."
            )
        return [_conform(v, t, node) for v, t in zip(value, traced, strict=True)]
    if not isinstance(traced, torch.Tensor) or value is None:
        return value
    if not all(isinstance(length, int) for length in traced.shape):
        raise LoweringError(
            f"The shape of the result of {node.target} (called at {where(node)}) depends on "
            "values; expected a fixed shape. Compute it in collate, or use a mask of fixed shape."
        )
    if value.shape != tuple(traced.shape):
        raise LoweringError(
            f"{node.target} (called at {where(node)}) has shape {value.shape} in JAX and "
            f"{tuple(traced.shape)} in torch. Its lowering is wrong; please report it."
        )
    return value.astype(jax_dtype(traced.dtype))


def _plain(outputs: Any) -> Any:
    """Convert fx's immutable lists, which are not JAX pytrees, to plain lists."""
    if isinstance(outputs, tuple):
        return tuple(map(_plain, outputs))
    return list(map(_plain, outputs)) if isinstance(outputs, list) else outputs


Recorded = Callable[[Node], Any]
"""Returns the recorded result of a node."""


def _value(node: Node) -> Any:
    return node.meta.get("val")


def _is_swapped(argument: Any) -> bool:
    """Return whether an argument was created by swapping the last two axes of a tensor."""
    if not isinstance(argument, Node):
        return False
    if argument.target is torch.ops.aten.clone.default:
        return _is_swapped(argument.args[0])
    if argument.target not in (torch.ops.aten.permute.default, torch.ops.aten.permute_copy.default):
        return False
    order: Any = argument.args[1]
    rank = len(order)
    return rank > 1 and list(order) == [*range(rank - 2), rank - 1, rank - 2]


def _fixed_draw(node: Node, arguments: Any, options: Any, recorded: Recorded) -> Any:
    """Return the fixed values a random operator yields when evaluated without a key."""
    traced = pytree.tree_leaves(recorded(node))
    shape = tuple(traced[0].shape)
    index = jnp.arange(math.prod(shape)).reshape(shape)
    drawn = FIXED_DRAWS[node.target](steps(index), *arguments, **options)
    if len(traced) == 1:
        return jnp.broadcast_to(drawn, shape)
    return [jnp.broadcast_to(d, t.shape) for d, t in zip(drawn, traced, strict=True)]


def _call(
    node: Node,
    lowering: Lowering | None,
    key: jax.Array | None,
    inputs: Any,
    recorded: Recorded = _value,
) -> Any:
    arguments, options = inputs
    if lowering is None:
        return call_on_host(node, arguments, options)
    if lowering.kind is Kind.RANDOM:
        if key is None:
            return _fixed_draw(node, arguments, options, recorded)
        return lowering.function(key, *arguments, **options)
    if lowering.kind is Kind.TRACED:
        swapped = tuple(map(_is_swapped, node.args))
        traced = Traced(recorded(node), map_arg(node.args, recorded), swapped)
        return lowering.function(traced, *arguments, **options)
    return lowering.function(*arguments, **options)


def run(
    graph_module: GraphModule,
    arguments: Sequence[jax.Array],
    key: jax.Array | None,
    constants: Mapping[str, jax.Array],
    *,
    platform: str | None = None,
) -> Any:
    """Evaluate a graph; may be called under `jax.jit`.

    After every operator the result is cast to the dtype it has in torch (64-bit types to 32 bits
    unless `jax_enable_x64` is set), so type promotion is torch's.

    Parameters
    ----------
    graph_module : GraphModule
        A functional graph with flat inputs and the traced results in the nodes' ``meta["val"]``.
    arguments : sequence of jax.Array
        A value for each input.
    key : jax.Array or None
        Random key; the i-th random operator of the graph draws with ``fold_in(key, i)``. With
        None nothing is random: each operator returns its values from `fixed_draws`, as in the
        torch reference.
    constants : mapping of str to jax.Array
        The value of each tensor stored in the graph, by attribute name.
    platform : {'cpu', 'gpu', 'tpu'}, optional
        Platform to compile for; by default, that of `medjax.target`.

    Returns
    -------
    Any
        The graph's outputs, with arrays in place of tensors.

    Raises
    ------
    LoweringError
        If the graph cannot be evaluated in JAX, or the number of arguments does not match the
        number of its inputs.
    """
    _check_missing(graph_module, platform or target_platform())
    inputs = [node for node in graph_module.graph.nodes if node.op == "placeholder"]
    if len(arguments) != len(inputs):
        raise LoweringError(
            f"The graph got {len(arguments)} arguments; expected {len(inputs)}: its parameters, "
            "buffers and columns, in the order in which they were traced."
        )
    values: dict[Node, Any] = dict(zip(inputs, arguments, strict=True))
    symbols, sized = counted.counted_symbols(graph_module.graph.nodes)
    counts = counted.Counts()

    def bounded(node: Node) -> Any:
        return counts.at_bounds(_value(node)) if sized else _value(node)

    drawn = 0
    for node in graph_module.graph.nodes:
        if node.op == "get_attr":
            values[node] = constants[node.target]
        elif node.op == "output":
            return _plain(map_arg(node.args[0], lambda n: counted.plain(values[n])))
        elif node.op != "placeholder":
            lowering = TABLE.get(node.target)
            own_key = key
            if key is not None and lowering is not None and lowering.kind is Kind.RANDOM:
                own_key, drawn = jax.random.fold_in(key, drawn), drawn + 1
            operands = map_arg((node.args, node.kwargs), values.__getitem__)
            call = functools.partial(_call, node, lowering, own_key, recorded=bounded)
            with _in_terms_of_forward(node):
                if symbols and counted.concerns(node, symbols):
                    result = counted.run_counted(node, operands, counts, call)
                else:
                    result = call(operands)
                values[node] = _conform(result, bounded(node), node)
    raise LoweringError("The graph has no output node, so it returns nothing.")


def evaluated(node: Node, operands: Any, key: jax.Array | None) -> Any:
    """Evaluate a single node in JAX.

    Parameters
    ----------
    node : Node
        A call, with its traced result in the metadata.
    operands : (tuple, dict)
        Its positional and keyword arguments, with JAX arrays in place of nodes.
    key : jax.Array or None
        As in `run`, but for this node alone.

    Raises
    ------
    LoweringError
        For any error raised in the lowering; names the operator and the line.
    """
    target: Any = node.target
    with _in_terms_of_forward(node):
        result = _call(node, TABLE.get(target), key, operands, recorded=_value)
        return _conform(result, _value(node), node)


@contextmanager
def _in_terms_of_forward(node: Node) -> Iterator[None]:
    """Convert errors to `LoweringError`s that name the operator and the line of forward."""
    try:
        yield
    except LoweringError:
        raise
    except Exception as error:
        message = str(error).strip().partition("\n")[0].rstrip(".")
        raise LoweringError(
            f"forward calls {_name(node.target)} (at {where(node)}) in a way that its JAX lowering "
            f"does not support: {type(error).__name__}: {message}. Write this line with other "
            "torch operations, or report it."
        ) from error
