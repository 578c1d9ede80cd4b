"""Merge masks that are computed twice, so that everything they select has the same size."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from medjax_torch.graph.checks import viewed, written_by

aten = torch.ops.aten

_VIEWS = (
    aten.expand.default,
    aten.select.int,
    aten.squeeze.dim,
    aten.unsqueeze.default,
    aten.view.default,
)


def merge_masks(module: fx.GraphModule) -> None:
    """Merge equal computations of integers and truth values, unless they are written to.

    Parameters
    ----------
    module : fx.GraphModule
        The graph of the first pass, with mutation and views. It is changed.
    """
    changing = {viewed(each) for node in module.graph.nodes for each in written_by(node)}
    known: dict[tuple[Any, str], fx.Node] = {}
    for node in list(module.graph.nodes):
        if not _is_repeatable(node):
            continue
        if any(viewed(each) in changing for each in (node, *node.all_input_nodes)):
            continue
        same = known.setdefault((node.target, str((node.args, node.kwargs))), node)
        if same is not node:
            node.replace_all_uses_with(same)
            module.graph.erase_node(node)
    module.recompile()


def _is_repeatable(node: fx.Node) -> bool:
    value = node.meta.get("val")
    if not isinstance(value, Tensor) or value.is_floating_point() or value.is_complex():
        return False
    if node.target in (*_VIEWS, aten._to_copy.default):
        return True
    return torch.Tag.pointwise in getattr(node.target, "tags", ()) and not node.is_impure()
