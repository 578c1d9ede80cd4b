"""Sizes that depend on values, as torch's symbols, and the assumptions of a recording about them.

When it is recorded on shapes alone, ``x[mask]`` has a number of rows that is a symbol of torch's
shape environment. Where torch or forward must decide by that number, it is assumed to be large and
the assumption is noted. The graph is valid where all these assumptions hold.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import sympy
import torch
from torch import Tensor, fx

from medjax_torch.graph.errors import at, line_here, line_of_stack
from medjax_torch.graph.guards import bins
from medjax_torch.torch_internals import FakeTensorMode, ShapeEnv, pytree, refuse_reads_of_addresses

aten = torch.ops.aten

Length = Any
"""An int, or a sympy expression in symbols that are counts."""


class ExactShapesError(Exception):
    """Raised where a graph needs the exact shapes of one batch; says why, with the line."""


class Condition(NamedTuple):
    """An assumption of a recording about counts.

    Attributes
    ----------
    holds : sympy.Basic
        A relation between symbols.
    line : str
        The component's line that needs it, ``""`` if unknown.
    """

    holds: Any
    line: str


class Sizes(ShapeEnv):
    """torch's shape environment, extended to assume large counts and note these assumptions.

    Attributes
    ----------
    conditions : list of Condition
        The assumptions, in the order in which they were made.
    """

    conditions: list[Condition]

    def __init__(self) -> None:
        super().__init__()
        self.conditions = []
        self._counts: set[Any] = set()

    def _constrain_range_for_size(self, a: Any, min: Any = None, max: Any = None) -> None:
        super()._constrain_range_for_size(a, min, max)
        if a not in self._counts:
            # A mask can select everything, and an id can be any up to its bound. Without a bound,
            # the least value is likely.
            self.expect(a, max if max is not None and max < 2**40 else (min or 0))

    def expect(self, symbol: Any, value: Any) -> None:
        """Make decisions that depend on a symbol as if it were `value`, and note them."""
        self._counts.add(symbol)
        # The method has another name up to torch 2.11.
        names = ("set_real_tensor_prop_unbacked_vals", "set_unbacked_var_to_val")
        tell = next((getattr(self, name) for name in names if hasattr(self, name)), None)
        if tell is not None:
            tell(symbol, value)

    def counts(self, expression: Any) -> bool:
        """Return whether an expression contains a count."""
        return bool(expression.free_symbols & self._counts)

    def guard_or_defer_runtime_assert(  # type: ignore[override]
        self, orig_expr: Any, *args: Any, **kwargs: Any
    ) -> bool:
        """Note the assumption; see the method of the base class."""
        before = self._noted()
        result = super().guard_or_defer_runtime_assert(orig_expr, *args, **kwargs)
        # What follows from the range of a count is not deferred. About other numbers torch asserts
        # only what it would otherwise raise on.
        if self._noted() > before and self.counts(orig_expr):
            self.conditions.append(Condition(orig_expr, line_here()))
        return bool(result)

    def _noted(self) -> int:
        return sum(map(len, self.deferred_runtime_asserts.values()))

    def _log_real_tensor_propagation(self, *args: Any) -> None:
        """Do nothing: the decision is noted, so no warning is needed."""


def without_values(inputs: Sequence[Tensor]) -> tuple[Sizes, list[Tensor]]:
    """Return a shape environment, and tensors without values that have the shapes of the inputs."""
    sizes = Sizes()
    with refuse_reads_of_addresses():
        mode = FakeTensorMode(
            allow_fallback_kernels=True,
            allow_non_fake_inputs=True,
            shape_env=sizes,
            static_shapes=True,
        )
    return sizes, [mode.from_tensor(value, static_shapes=True) for value in inputs]


def length(size: Any) -> Length:
    """Return a size of a recorded tensor, or a recorded number, as an int or an expression."""
    if not isinstance(size, torch.SymInt):
        return int(size)
    expression = size.node.expr
    return int(expression) if expression.is_number else expression


def lengths(value: Any) -> tuple[Length, ...]:
    """Return the shape of a recorded tensor."""
    return tuple(length(size) for size in value.shape)


def tensors(node: fx.Node) -> list[Tensor]:
    """Return those recorded results of a node that are tensors."""
    return [v for v in pytree.tree_leaves(node.meta.get("val")) if isinstance(v, Tensor)]


def is_counted(node: fx.Node) -> bool:
    """Return whether a result of a node has a size that depends on values."""
    return any(isinstance(n, sympy.Basic) for value in tensors(node) for n in lengths(value))


def selecting(node: fx.Node) -> Any:
    """Return the mask by which a node selects, or None if there is no mask or more than one."""
    arguments: Any = node.args
    if node.target is aten.nonzero.default:
        return arguments[0]
    if node.target is aten.masked_select.default:
        return arguments[1]
    if node.target is aten.index.Tensor:
        indices = [index for index in arguments[1] if index is not None]
        if len(indices) == 1 and indices[0].meta["val"].dtype in (torch.bool, torch.uint8):
            return indices[0]
    return None


def conditions_of_squeezing(graph: fx.Graph) -> Iterator[Condition]:
    """Yield the conditions, which torch does not note, that squeezed counted dimensions are not 1.

    Parameters
    ----------
    graph : fx.Graph
        The graph of the first pass, whose operations are those that forward called.
    """
    for node in graph.nodes:
        if getattr(node.target, "overloadpacket", None) in (aten.squeeze, aten.squeeze_):
            arguments: Any = node.args
            shape = lengths(arguments[0].meta["val"])
            dims = arguments[1] if len(arguments) > 1 else range(len(shape))
            for dim in [dims] if isinstance(dims, int) else dims:
                if isinstance(shape[dim], sympy.Basic):
                    yield Condition(sympy.Ne(shape[dim], 1), line_of_stack(node.stack_trace))


def add_conditions(
    module: fx.GraphModule, conditions: Iterable[Condition]
) -> list[tuple[str, str]]:
    """Append to the outputs of a graph whether each condition holds.

    Parameters
    ----------
    module : fx.GraphModule
        The graph, with the recorded values in its metadata. It is changed.
    conditions : iterable of Condition
        Conditions on the sizes in the graph itself.

    Returns
    -------
    list of (str, str)
        The line and ``"size"`` for each appended output.

    Raises
    ------
    ExactShapesError
        If a condition cannot be computed.
    """
    wanted = {each.holds: each.line for each in conditions if each.holds is not sympy.true}
    if sympy.false in wanted:
        raise ExactShapesError(f"a condition on a count cannot hold{at(wanted[sympy.false])}")
    graph = module.graph
    output = graph.output_node()
    counts = _Counts(graph)
    added = []
    for holds, line in wanted.items():
        with graph.inserting_before(output):
            added.append(_computed(graph, holds, counts, line))
    results: Any = output.args[0]
    output.args = ([*results, *added],)
    module.recompile()
    return [(line, "size") for line in wanted.values()]


class _Counts(Mapping[Any, fx.Node]):
    """The nodes of a graph that compute the counts behind its symbols, created on request."""

    def __init__(self, graph: fx.Graph) -> None:
        self._graph = graph
        self._sources: dict[Any, fx.Node] = {}
        self._made: dict[Any, fx.Node] = {}
        for node in graph.nodes:
            for value in tensors(node):
                for size in value.shape:
                    if isinstance(size, torch.SymInt) and size.node._expr.is_Symbol:
                        self._sources.setdefault(size.node._expr, node)
            if node.target is aten._local_scalar_dense.default:
                for symbol in node.meta["val"].node._expr.free_symbols:
                    self._sources.setdefault(symbol, node)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)

    def __getitem__(self, symbol: Any) -> fx.Node:
        if symbol not in self._made:
            source = self._sources[symbol]
            # Immediately before the source, because a mask may be overwritten later.
            with self._graph.inserting_before(source):
                self._made[symbol] = self._count(source)
        return self._made[symbol]

    def _count(self, source: fx.Node) -> fx.Node:
        graph: fx.Graph = self._graph
        arguments: Any = source.args
        if source.target is aten.bincount.default:
            return bins(graph, source)
        if source.target is aten._local_scalar_dense.default:
            # In the precision that Python compares in.
            kind = torch.float64 if isinstance(source.meta["val"], torch.SymFloat) else torch.int64
            return graph.call_function(aten._to_copy.default, arguments, {"dtype": kind})
        mask = selecting(source)
        if mask is None:
            raise ExactShapesError(f"the size of {source.target} cannot be counted")
        shape = lengths(mask.meta["val"])
        if source.target is aten.masked_select.default:
            shape = lengths(torch.broadcast_tensors(arguments[0].meta["val"], mask.meta["val"])[0])
            if any(isinstance(n, sympy.Basic) for n in shape):
                raise ExactShapesError("the size of masked_select on a selection cannot be counted")
            mask = graph.call_function(aten.expand.default, (mask, list(shape)))
        chosen = graph.call_function(aten.ne.Scalar, (mask, 0))
        return graph.call_function(aten.sum.default, (chosen,))


_RELATIONS: dict[Any, Callable[..., Any]] = {
    sympy.Eq: operator.eq,
    sympy.Ne: operator.ne,
    sympy.StrictLessThan: operator.lt,
    sympy.LessThan: operator.le,
    sympy.StrictGreaterThan: operator.gt,
    sympy.GreaterThan: operator.ge,
}
_MANY: dict[Any, Callable[..., Any]] = {
    sympy.Add: operator.add,
    sympy.Mul: operator.mul,
    sympy.Pow: operator.pow,
    sympy.And: operator.and_,
    sympy.Or: operator.or_,
}


def _computed(graph: fx.Graph, expression: Any, counts: _Counts, line: str) -> Any:
    """Return the node that computes an expression of counts, or a number."""
    if expression.is_Symbol and expression in counts:
        return counts[expression]
    if expression.is_Integer:
        return int(expression)
    if expression.is_Float:
        return float(expression)
    parts = [_computed(graph, part, counts, line) for part in expression.args]
    if expression.func in _RELATIONS:
        return graph.call_function(_RELATIONS[expression.func], tuple(parts))
    if expression.func in _MANY:
        function = _MANY[expression.func]
        return functools.reduce(lambda x, y: graph.call_function(function, (x, y)), parts)
    raise ExactShapesError(f"the condition {expression}{at(line)} cannot be computed")
