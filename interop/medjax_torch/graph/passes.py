"""The two recordings that turn a joint function into a functional graph."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, fx

from medjax_torch.graph.environment import Replacements
from medjax_torch.graph.repeated_operations import rewrite_each_once
from medjax_torch.graph.sizes import Condition
from medjax_torch.torch_internals import core_aten_decompositions, get_decompositions, make_fx

Mode = Literal["fake", "real"]
Decompositions = Mapping[Any, Callable[..., Any]]

aten = torch.ops.aten


def _before_autograd() -> Decompositions:
    # It updates the running statistics in place without declaring it in its schema. If it were not
    # decomposed, the second pass would lose the update.
    return dict(get_decompositions([aten.native_batch_norm]))


@dataclass(frozen=True)
class Rules:
    """Rules that tell the tracer how to treat single operations.

    Attributes
    ----------
    replacements : mapping of function to function
        Torch functions that cannot be traced, with their replacements.
    before_autograd, after_autograd : mapping of operation to function
        Decompositions for the two passes.
    mark : float
        See `Joint`.
    accept : callable, optional
        Takes the nodes of a graph with sizes that depend on values and returns the conditions
        under which the compiled graph is correct; raises `ExactShapesError` if such a graph cannot
        be run. Without `accept`, every graph has fixed sizes.
    """

    replacements: Replacements = field(default_factory=dict)
    before_autograd: Decompositions = field(default_factory=_before_autograd)
    after_autograd: Decompositions = field(default_factory=core_aten_decompositions)
    mark: float = 0.0
    accept: Callable[[Sequence[fx.Node]], list[Condition]] | None = None


# A clone is not among them: it may change the strides, on which a later view may depend.
_IDENTITIES = (
    aten.alias.default,
    aten.alias_copy.default,
    aten.detach.default,
    aten.detach_copy.default,
    aten.lift_fresh.default,
    aten.lift_fresh_copy.default,
)


def record(
    function: Callable[..., list[Tensor]], inputs: Sequence[Tensor], mode: Mode, rules: Rules
) -> fx.GraphModule:
    """Record a function and its backward pass as aten operations, including mutation and views.

    Torch's autograd runs here, so no_grad blocks, hooks and the user's own backward functions
    have the same meaning as in torch.
    """
    make = _make_fx(function, mode, rules.before_autograd, strict=mode == "fake", lines=True)
    return make(*inputs)


def functionalize(
    module: fx.GraphModule,
    inputs: Sequence[Tensor],
    mode: Mode,
    rules: Rules,
    *,
    views: bool = False,
) -> fx.GraphModule:
    """Record a graph again without mutation, using only the operations that `rules` leave.

    Views are removed too unless `views` is set: for tensors whose size depends on values, torch
    cannot record the copies that replace them.
    """
    result = None
    if mode == "fake" and not views:
        # An error is raised again by the whole graph, with the line that it comes from.
        with suppress(Exception):
            result = rewrite_each_once(
                module,
                lambda small, examples: _functionalized(small, examples, mode, rules),
            )
    if result is None:
        result = _functionalized(module, inputs, mode, rules, views=views)
    _simplify(result.graph)
    return result


def _functionalized(
    module: fx.GraphModule,
    inputs: Sequence[Tensor],
    mode: Mode,
    rules: Rules,
    *,
    views: bool = False,
) -> fx.GraphModule:
    def run(*values: Tensor) -> Any:
        # Nodes keep the user's source line from the first pass.
        with fx.traceback.preserve_node_meta():
            return fx.Interpreter(module).run(*values)

    pure = torch.func.functionalize(run, remove="mutations" if views else "mutations_and_views")
    with torch.no_grad():
        make = _make_fx(pure, mode, rules.after_autograd, strict=False, lines=False)
        return make(*inputs)


def _make_fx(
    function: Callable[..., Any],
    mode: Mode,
    decompositions: Decompositions,
    *,
    strict: bool,
    lines: bool,
) -> Callable[..., fx.GraphModule]:
    # The last two arguments do not exist in every supported release of torch.
    known = inspect.signature(make_fx).parameters
    optional = {"_error_on_data_dependent_ops": strict, "record_stack_traces": lines}
    return make_fx(
        function,
        decomposition_table=dict(decompositions),
        tracing_mode=mode,
        _allow_non_fake_inputs=True,
        **{name: value for name, value in optional.items() if name in known},
    )


def _simplify(graph: fx.Graph) -> None:
    """Remove aliases, copies of inputs, explicit generators and unused nodes."""
    for node in list(graph.nodes):
        copied = node.target is aten.clone.default and node.args[0].op == "placeholder"
        if copied or node.target in _IDENTITIES:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
        elif "generator" in node.kwargs:
            node.kwargs = {k: v for k, v in node.kwargs.items() if k != "generator"}
            node.target = without_generator(node.target)
    # Assertions and draws that nothing uses are dropped too.
    graph.eliminate_dead_code(lambda node: node.op in ("placeholder", "output"))


def without_generator(operation: Any) -> Any:
    """Return the overload that uses torch's default generator: graphs draw from the step's key."""
    name = operation._overloadname
    plain = "_".join(part for part in name.split("_") if part != "generator")
    return getattr(operation.overloadpacket, plain or "default")
