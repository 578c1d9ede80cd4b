"""Recording with sizes that depend on values, where these can be run at an upper bound."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, fx

from medjax_torch.graph.errors import at
from medjax_torch.graph.guards import ancestry
from medjax_torch.graph.passes import Rules, functionalize
from medjax_torch.graph.same_masks import merge_masks
from medjax_torch.graph.sizes import (
    ExactShapesError,
    Sizes,
    add_conditions,
    conditions_of_squeezing,
    without_values,
)


def record_sized(
    first: fx.GraphModule,
    sizes: Sizes,
    inputs: Sequence[Tensor],
    rules: Rules,
    nb_asserted: int = 0,
) -> tuple[fx.GraphModule, list[tuple[str, str]]]:
    """Return the functional graph, its conditions appended to its outputs, and their lines.

    Parameters
    ----------
    first : fx.GraphModule
        The graph of the first pass. It is changed.
    sizes : Sizes
        The environment in which it was recorded.
    inputs : sequence of Tensor
        The inputs of the graph.
    rules : Rules
        The tracer's rules; they must include `accept`.
    nb_asserted : int
        How many of the graph's last outputs are only compared, by torch on the host.

    Raises
    ------
    ExactShapesError
        If a size, an operation or a condition cannot be run at an upper bound.
    """
    conditions = [*sizes.conditions, *conditions_of_squeezing(first.graph)]
    sources = add_conditions(first, conditions)
    merge_masks(first)
    again, stand_ins = without_values(inputs)
    recorded = functionalize(first, stand_ins, "fake", rules, views=True)
    results: Any = recorded.graph.output_node().args[0]
    needed = ancestry(*results[: len(results) - len(sources) - nb_asserted])
    assert rules.accept is not None
    more = rules.accept([node for node in recorded.graph.nodes if node in needed])
    sources += add_conditions(recorded, [*again.conditions, *more])
    results = recorded.graph.output_node().args[0]
    for (line, _), result in zip(sources, results[len(results) - len(sources) :], strict=True):
        if not any(node.op == "placeholder" for node in ancestry(result)):
            raise ExactShapesError(f"the condition{at(line)} does not depend on the inputs")
    return recorded, sources
