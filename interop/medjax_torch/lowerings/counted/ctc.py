"""Connectionist temporal classification with concatenated targets, whose number is counted."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import torch
from torch.fx import Node

from medjax_torch.lowerings import custom_ops as custom_ops
from medjax_torch.lowerings.counted.table import Call, argument, counts_in, is_plain, need, shape_of

_POSITIONS: dict[Any, int] = {
    torch.ops.medjax.ctc_nll.default: 1,
    torch.ops.medjax.ctc_nll_backward.default: 2,
}
"""Where the targets are."""


def _counts_targets_only(node: Node) -> None:
    targets = node.args[_POSITIONS[node.target]]
    for source in node.all_input_nodes:
        one = len(shape_of(source)) == 1 if source is targets else False
        need(one or all(map(is_plain, shape_of(source))), node)


@counts_in(*_POSITIONS, check=_counts_targets_only)
def _ctc(call: Call, *args: Any) -> jax.Array:
    """Run with blanks for the padding; no row's length reaches it."""
    position = _POSITIONS[call.node.target]
    blank = argument(call.node, position + 3, "blank")
    targets = call.filled(args[position], position, blank)
    result: jax.Array = call.ordinary(*args[:position], targets, *args[position + 1 :])
    if position == 1:
        # torch raises an error unless there are as many labels as the lengths say.
        agree = jnp.sum(args[3]) == call.counts.value(call.shape(1)[0])
        result = jnp.where(agree, result, jnp.nan)
    return result
