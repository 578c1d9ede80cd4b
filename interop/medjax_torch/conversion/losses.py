"""The loss of a batch: its weight, and what it is where the batch broke its graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from torch import Tensor

from medjax_torch.graph import Graph, Results


def unless_broken(graph: Graph, results: Results, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return loss and weight of a batch: NaN with a positive weight if a condition does not hold.

    A loss that is not finite ends training before the batch has any effect.
    """
    if not graph.conditions:
        return results.loss, weight
    pairs = zip(graph.conditions, results.checked, strict=True)
    holds = jnp.stack([value.reshape(()) == one.expected for one, value in pairs]).all()
    return jnp.where(holds, results.loss, jnp.nan), jnp.where(holds, weight, jnp.maximum(weight, 1))


IF_FINITE = -1.0
"""Stands for the weight of a batch that weighs 1 if its loss is finite, otherwise 0."""


def settled(loss: Any, weight: Any) -> jax.Array:
    """Return the weight of a batch whose loss is known."""
    return jnp.where(weight == IF_FINITE, jnp.isfinite(loss).astype(weight.dtype), weight)


def loss_weight(batch: Mapping[str, Any], arithmetic: str) -> float:
    """Return the weight of a batch's mean loss.

    Parameters
    ----------
    batch : mapping of str to value
        The batch. Labels of -100, the ``ignore_index`` of torch's cross entropy, do not count.
    arithmetic : {"medkit", "exact"}
        With "exact", batches weigh as much as they have labels that count, or rows if they have no
        tensor ``labels`` of integers. With "medkit", all weigh alike, but where no label counts,
        torch's cross entropy is NaN, and such a batch has no weight unless the component has
        another loss for it.
    """
    weight = _nb_counted(batch)
    if arithmetic == "exact":
        return weight
    return 1.0 if weight > 0 else IF_FINITE


def _nb_counted(batch: Mapping[str, Any]) -> float:
    """Return the number of labels that count, or of rows."""
    labels = batch.get("labels")
    # Whether a batch has a -100 is chance: without one, its labels count all the same.
    if isinstance(labels, Tensor) and not labels.is_floating_point():
        return float((labels != -100).sum())
    tensors = [v for v in batch.values() if isinstance(v, Tensor) and v.ndim]
    return float(len(tensors[0])) if tensors else 1.0
