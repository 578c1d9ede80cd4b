"""The two recordings that turn a joint function into a functional graph."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, fx
from torch._decomp import core_aten_decompositions, get_decompositions
from torch.fx.experimental.proxy_tensor import make_fx

from medjax_torch.graph.environment import Replacements
from medjax_torch.graph.sizes import Condition

Mode = Literal["fake", "real"]
Decompositions = Mapping[Any, Callable[..., Any]]

aten = torch.ops.aten


def _before_autograd() -> Decompositions:
    # It updates the running statistics in place and its schema does not say so, so left whole,
    # the second pass would lose the update.
    return dict(get_decompositions([aten.native_batch_norm]))


@dataclass(frozen=True)
class Rules:
    """What the tracer is told about single operations.

    Attributes
    ----------
    replacements : mapping of function to function
        Torch functions that cannot be traced, and what is called in their place.
    before_autograd, after_autograd : mapping of operation to function
        Decompositions for the two passes.
    mark : float
        See `Joint`.
    accept : callable, optional
        Takes the nodes of a graph with sizes that depend on values and returns the conditions
        under which what runs it is right; raises `ExactShapesError` if it cannot run it. Without
        it, every graph has fixed sizes.
    """

    replacements: Replacements = field(default_factory=dict)
    before_autograd: Decompositions = field(default_factory=_before_autograd)
    after_autograd: Decompositions = field(default_factory=core_aten_decompositions)
    mark: float = 0.0
    accept: Callable[[Sequence[fx.Node]], list[Condition]] | None = None


# A clone is none of them: it may change the strides, on which a later view depends.
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
    """Record a function with its backward as aten operations, mutation and views included.

    Torch's autograd runs here, so no_grad blocks, hooks and backward functions of the user's own
    mean what they mean in torch.
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
    """Record a graph again without mutation, in the operations that `rules` leave.

    Views are left out too unless `views`: of tensors whose size depends on values torch cannot
    record the copies that stand for them.
    """

    def run(*values: Tensor) -> Any:
        # Nodes keep the user's line of the first pass.
        with fx.traceback.preserve_node_meta():
            return fx.Interpreter(module).run(*values)

    pure = torch.func.functionalize(run, remove="mutations" if views else "mutations_and_views")
    with torch.no_grad():
        make = _make_fx(pure, mode, rules.after_autograd, strict=False, lines=False)
        result = make(*inputs)
    _simplify(result.graph)
    return result


def _make_fx(
    function: Callable[..., Any],
    mode: Mode,
    decompositions: Decompositions,
    *,
    strict: bool,
    lines: bool,
) -> Callable[..., fx.GraphModule]:
    # The last two are not in every supported release of torch.
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
    """Remove aliases, copies of inputs, explicit generators and what has no use."""
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
    """Return the overload that draws from torch's own generator: a graph has the step's key."""
    name = operation._overloadname
    plain = "_".join(part for part in name.split("_") if part != "generator")
    return getattr(operation.overloadpacket, plain or "default")
