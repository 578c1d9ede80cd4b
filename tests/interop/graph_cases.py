"""Components of a few lines, and the comparison of a traced graph with torch itself."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from medjax_torch.component_state import Inventory, find
from medjax_torch.graph import Graph, Rules, columns, trace


class Component:
    """A component as far as tracing needs it: only `forward`."""

    def __init__(self, forward: Callable[..., Any], **content: Any) -> None:
        self._forward = forward
        self.__dict__.update(content)

    def forward(self, batch: Mapping[str, Any], return_loss: bool, eval_mode: bool) -> Any:
        for value in vars(self).values():
            if isinstance(value, nn.Module):
                value.train(not eval_mode)
        return self._forward(self, batch)


def traced(component: Any, batch: Mapping[str, Any], train: bool = True, **options: Any) -> Graph:
    return trace(
        lambda values: component.forward(values, return_loss=True, eval_mode=not train),
        find(component),
        batch,
        train=train,
        rules=Rules(**options),
    )


def run(graph: Graph, component: Any, batch: Mapping[str, Any]) -> Any:
    """Evaluate the graph in torch on the component's own tensors."""
    with torch.no_grad():
        inputs = graph.inputs(find(component).tensors, columns(batch))
        return graph.results(graph.module(*inputs))


def guard_values(graph: Graph, component: Any, batch: Mapping[str, Any]) -> list[Any]:
    with torch.no_grad():
        inputs = graph.inputs(find(component).tensors, columns(batch))
        return [value.item() for value in graph.guard_module(*inputs)]


def eager(component: Any, batch: Mapping[str, Any], train: bool = True) -> Any:
    """Run torch on a copy; return loss, gradients by name, outputs and state afterwards."""
    copied, inventory = _copy(component)
    with torch.set_grad_enabled(train):
        outputs, loss = copied.forward(copy.deepcopy(dict(batch)), True, not train)
    if train:
        loss.backward()
    gradients = {
        name: parameter.grad
        for name, parameter in inventory.parameters.items()
        if parameter.grad is not None
    }
    return loss, gradients, outputs, find(copied).tensors


def _copy(component: Any) -> tuple[Any, Inventory]:
    copied = copy.deepcopy(component)
    return copied, find(copied)


def close(actual: Tensor, expected: Tensor) -> None:
    # torch's gradient of a sparse embedding is sparse, the graph's is not.
    expected = expected.detach().to_dense() if expected.is_sparse else expected.detach()
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


def check(component: Any, batch: Mapping[str, Any], train: bool = True, **options: Any) -> Graph:
    """Assert that the graph computes what torch computes, and return it."""
    loss, gradients, outputs, state = eager(component, batch, train)
    before = {name: tensor.clone() for name, tensor in find(component).tensors.items()}
    graph = traced(component, batch, train, **options)
    compare(graph, component, batch, loss, gradients, outputs)
    updated = run(graph, component, batch).updated
    for name, value in before.items():
        assert torch.equal(find(component).tensors[name], value)
        close(updated.get(name, value), state[name])
    return graph


def compare(
    graph: Graph,
    component: Any,
    batch: Mapping[str, Any],
    loss: Tensor,
    gradients: Mapping[str, Tensor],
    outputs: Mapping[str, Any],
) -> None:
    results = run(graph, component, batch)
    close(results.loss, loss.reshape(()))
    assert results.gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        close(results.gradients[name], gradient)
    rebuilt = graph.outputs.rebuild(results.outputs)
    assert rebuilt.keys() == dict(outputs or {}).keys()
    for name, value in (outputs or {}).items():
        if isinstance(value, Tensor):
            close(rebuilt[name], value)
        else:
            assert rebuilt[name] == value
