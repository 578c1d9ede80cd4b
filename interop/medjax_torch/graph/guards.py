"""The values that Python read while a graph was recorded, and on which the graph depends."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import fx

from medjax_torch.graph.errors import TraceError, at, line_of_stack

aten = torch.ops.aten

READ = "medjax_read"
"""The metadata key of a recorded node for the position of the `Read` that a `Reader` noticed."""


@dataclass(frozen=True)
class Guard:
    """A value that must be the same as in the recording for a graph to be valid.

    Attributes
    ----------
    expected : bool, int or float
        The value for the batch that was traced.
    line : str
        The line of forward that depends on it, ``""`` if unknown.
    what : str
        The torch operation that depends on it.
    """

    expected: bool | int | float
    line: str
    what: str

    def holds(self, value: bool | int | float) -> bool:
        """Return whether `value` equals the expected one.

        Floats may differ in their last digits, as results of XLA and of torch do.
        """
        if isinstance(self.expected, float):
            both_nan = math.isnan(self.expected) and math.isnan(value)
            return both_nan or math.isclose(value, self.expected, rel_tol=1e-6)
        return bool(value == self.expected)


Count = Callable[[fx.Graph, fx.Node], Iterator[fx.Node]]
"""Adds nodes for the values on which Python, or the shape of a node's result, depends."""


def _scalar(graph: fx.Graph, node: fx.Node) -> Iterator[fx.Node]:
    yield graph.call_function(aten.clone.default, (node.args[0],))


def _equal(graph: fx.Graph, node: fx.Node) -> Iterator[fx.Node]:
    first, second = node.args
    if _meta(first).shape == _meta(second).shape:
        same = graph.call_function(aten.eq.Tensor, (first, second))
        yield graph.call_function(aten.all.default, (same,))


def _nonzero(position: int) -> Count:
    def count(graph: fx.Graph, node: fx.Node) -> Iterator[fx.Node]:
        yield _true(graph, node.args[position])

    return count


def _masks(graph: fx.Graph, node: fx.Node) -> Iterator[fx.Node]:
    """Yield nodes that count the elements selected by boolean masks.

    Indexing by integers needs none, because the shape of its result depends on no value.
    """
    if node.target is not aten.index.Tensor and _meta(node.args[2]).shape.numel() == 1:
        return
    indices: Any = node.args[1]
    for index in indices:
        if index is not None and _meta(index).dtype in (torch.bool, torch.uint8):
            yield _true(graph, index)


def _total(graph: fx.Graph, node: fx.Node) -> Iterator[fx.Node]:
    if node.kwargs.get("output_size") is None:
        yield graph.call_function(aten.sum.default, (node.args[0],))


def bins(graph: fx.Graph, node: fx.Node) -> fx.Node:
    """Return a new node that computes the length of the result of a bincount."""
    least: Any = node.args[2] if len(node.args) > 2 else node.kwargs.get("minlength", 0)
    # Without any ids, there are as many bins as for the single id `least - 1`.
    padded = (node.args[0], [0, 1], int(least) - 1)
    ids = graph.call_function(aten.constant_pad_nd.default, padded)
    largest = graph.call_function(aten.max.default, (ids,))
    return graph.call_function(aten.add.Tensor, (largest, 1))


ASSERTS = (aten._assert_async.default, aten._assert_async.msg)
"""Operators that raise an error if their argument is false."""

OPTIONAL = "medjax compares this before a step"
"""The message of assertions that are dropped if they depend on more than the batch."""


def asserted(graph: fx.Graph, node: fx.Node) -> Iterator[fx.Node]:
    """Yield a new node for the truth value that a node asserts."""
    yield graph.call_function(aten.ne.Scalar, (node.args[0], 0))


def _largest(graph: fx.Graph, node: fx.Node) -> Iterator[fx.Node]:
    yield bins(graph, node)


_COUNTS: dict[Any, Count] = {
    aten._local_scalar_dense.default: _scalar,
    aten.equal.default: _equal,
    aten.nonzero.default: _nonzero(0),
    aten.argwhere.default: _nonzero(0),
    aten.masked_select.default: _nonzero(1),
    aten.index.Tensor: _masks,
    aten.index_put.default: _masks,
    aten.index_put_.default: _masks,
    aten._index_put_impl_.default: _masks,
    aten.repeat_interleave.Tensor: _total,
    aten.bincount.default: _largest,
    **dict.fromkeys(ASSERTS, asserted),
}


def selects(operation: str) -> bool:
    """Return whether the size of an operation's result depends on the guarded value."""
    read = (aten._local_scalar_dense.default, aten.equal.default, *ASSERTS)
    return operation in {str(target) for target in _COUNTS if target not in read}


class Source(NamedTuple):
    """The place where a value was read.

    Attributes
    ----------
    line, what : str
        The user's line and the torch operation.
    read : int or None
        The position of its `Read`, None if no `Reader` noticed it.
    is_truth : bool
        Whether the value is True or False.
    is_optional : bool
        Whether the value is not compared if it depends on more than the batch.
    """

    line: str
    what: str
    read: int | None = None
    is_truth: bool = False
    is_optional: bool = False

    @property
    def is_assertion(self) -> bool:
        """Whether torch itself raises an error if the value is false."""
        return self.what in map(str, ASSERTS)


def add_guards(module: fx.GraphModule) -> list[Source]:
    """Append the values that Python read to a graph's outputs.

    Parameters
    ----------
    module : fx.GraphModule
        The module of the first pass, recorded on real values. It is changed in place.

    Returns
    -------
    list of Source
        The source of each appended output.
    """
    graph = module.graph
    sources: list[Source] = []
    values: list[fx.Node] = []
    for node in list(graph.nodes):
        if node.target in _COUNTS:
            # Before the node itself, because the tensor may be overwritten later.
            with graph.inserting_before(node):
                added = list(_COUNTS[node.target](graph, node))
            values += added
            line = line_of_stack(node.stack_trace)
            source = Source(
                line,
                str(node.target),
                node.meta.get(READ),
                _is_truth(node),
                node.target in ASSERTS and OPTIONAL in node.args,
            )
            sources += [source] * len(added)
    output = graph.output_node()
    results: Any = output.args[0]
    output.args = ([*results, *values],)
    module.recompile()
    return sources


def refuse_random(source: Source) -> TraceError:
    """Return the error for a value that is random."""
    return TraceError(
        f"forward branches on a random number{at(source.line)}: a graph would take the same branch "
        "at every step. Use torch.where with both results, or draw with random.random()"
        f"{_of_layers(source.line)}."
    )


def _of_layers(line: str) -> str:
    is_library = "transformers" in line or "layerdrop" in line.lower()
    return ", or disable it (layerdrop=0)" if is_library else ""


def refuse_unguarded(graph: fx.Graph) -> None:
    """Raise TraceError if an operation reads values of an input that no guard covers."""
    for node in graph.nodes:
        tags = getattr(node.target, "tags", ())
        packs = node.target is aten._pack_padded_sequence.default
        sized = torch.Tag.dynamic_output_shape in tags or torch.Tag.data_dependent_output in tags
        if not packs and (not sized or node.target in _COUNTS):
            continue
        read = [node.args[1]] if packs else node.all_input_nodes
        if not any(n.op == "placeholder" for source in read for n in ancestry(source)):
            continue
        where = at(line_of_stack(node.stack_trace))
        if packs:
            raise TraceError(
                f"forward computes on the rows of a packed sequence{where}, whose number depends "
                "on the lengths in the batch. Recurrent layers, linear layers, embeddings without "
                "scale_grad_by_freq, common activations, dropout and cross entropy accept packed "
                "rows; for anything else "
                "call pad_packed_sequence first and mask the padding."
            )
        raise TraceError(
            f"forward calls {node.target}{where}, whose result has a shape that depends on "
            "values of the batch. Compute it in collate, or with a mask of fixed shape."
        )


def ancestry(*nodes: Any) -> set[fx.Node]:
    """Return the nodes and all nodes from which they are computed."""
    ancestors: set[fx.Node] = set()
    pending = list(nodes)
    while pending:
        latest = pending.pop()
        if latest not in ancestors:
            ancestors.add(latest)
            pending += latest.all_input_nodes
    return ancestors


def is_random(node: fx.Node) -> bool:
    """Return whether torch draws random numbers in this node."""
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def _true(graph: fx.Graph, mask: Any) -> fx.Node:
    chosen = graph.call_function(aten.ne.Scalar, (mask, 0))
    return graph.call_function(aten.sum.default, (chosen,))


def _is_truth(node: fx.Node) -> bool:
    if node.target is aten._local_scalar_dense.default:
        return bool(_meta(node.args[0]).dtype == torch.bool)
    return node.target in (aten.equal.default, *ASSERTS)


def _meta(node: Any) -> Any:
    return node.meta["tensor_meta"]
