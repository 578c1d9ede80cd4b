"""Evaluation in torch on the host, for a forward that cannot be turned into an evaluation graph."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medjax import sharding
from medjax.batch import BatchData
from medjax.component import Variables
from medjax.metrics.mean import Mean
from medjax.runtime import CompiledStep
from medjax.step import weighed
from medjax_torch.batches.mapping import rebuilt
from medjax_torch.component_state import swapped, to_numpy, to_torch
from medjax_torch.conversion.component import WEIGHT, ConvertedComponent
from medjax_torch.conversion.losses import settled
from medjax_torch.conversion.wrapped_step import WrappedStep
from medjax_torch.graph import Graph, TraceError, host_random
from medjax_torch.graph.errors import at
from medjax_torch.options import Options
from medjax_torch.torch_internals import pytree

logger = logging.getLogger("medjax")

_EvalStep = CompiledStep[[Variables, BatchData], tuple[Mean, BatchData | None, Variables]]

HOST = "host"
"""Key of a batch for the host; its value holds the collated batch itself."""


class EvaluationStep(WrappedStep[_EvalStep]):
    """Evaluates a batch in JAX, or in torch if the batch is marked for the host.

    Parameters
    ----------
    step : CompiledStep
        The step in JAX.
    converted : ConvertedComponent
        The component to evaluate.
    options : Options
        Options for the loss arithmetic.
    with_outputs : bool
        Whether to return outputs; None is returned otherwise.
    """

    def __init__(
        self,
        step: _EvalStep,
        converted: ConvertedComponent,
        options: Options,
        *,
        with_outputs: bool,
    ) -> None:
        super().__init__(step)
        self._converted = converted
        self._options = options
        self._with_outputs = with_outputs
        self._weights: tuple[list[Any], dict[str, Tensor]] = [], {}
        self._has_warned = False

    def __call__(self, variables: Variables, batch: BatchData) -> tuple[Mean, Any, Variables]:
        """Return loss and outputs of a batch, and the collections that forward changed."""
        if HOST not in batch:
            return self._step(variables, batch)
        began = time.perf_counter()
        collections = list(variables.values())
        if list(map(id, self._weights[0])) != list(map(id, collections)):
            self._weights = collections, tensors_of(self._converted, sharding.to_host(variables))
        host_batch, reason = batch[HOST]
        stored = self._converted.variants.stored
        stored.examine_evaluation(lambda: self._comparable(host_batch))
        outputs, loss = self._in_torch(host_batch, keep=True)
        if not self._has_warned:
            self._has_warned = True
            logger.warning(
                "Evaluation runs in torch on the CPU, at %.2g s per batch: %s The results are "
                "those of the trained weights, but JAX would be many times faster, especially on "
                "an accelerator. To evaluate in JAX, return tensors from forward and convert them "
                "to lists or strings in the metrics computer's prepare_batch.",
                time.perf_counter() - began,
                reason,
            )
        value = np.float32(loss.item())
        weight = settled(value, batch[WEIGHT])
        mean = Mean(value * weight, weight)
        return weighed(mean, self._options), outputs if self._with_outputs else None, {}

    def _in_torch(self, batch: Any, *, keep: bool) -> tuple[Any, Tensor]:
        converted, weights = self._converted, self._weights[1]
        return in_torch(converted, weights, batch, train=False, keep=keep)

    def _comparable(self, batch: Any) -> list[Any]:
        """Return loss and outputs of a batch in a form that can be compared."""
        leaves = pytree.tree_leaves(self._in_torch(batch, keep=False))
        return [to_numpy(x).tobytes() if isinstance(x, Tensor) else repr(x) for x in leaves]

    def compile_ahead(self, variables: Variables, batch: BatchData) -> None:
        """Begin to compile for a batch, unless it is evaluated in torch."""
        if HOST not in batch:
            self._step.compile_ahead(variables, batch)


def tensors_of(converted: ConvertedComponent, variables: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return variables (numpy arrays) as tensors of the component's dtypes, by name."""
    tensors = converted.inventory.tensors
    return {
        name: to_torch(np.array(array)).to(tensors[name].device, tensors[name].dtype)
        for arrays in variables.values()
        for name, array in arrays.items()
    }


def in_torch(
    converted: ConvertedComponent,
    weights: Mapping[str, Tensor],
    batch: Any,
    *,
    train: bool,
    keep: bool = False,
) -> tuple[Any, Tensor]:
    """Run forward in torch, unchanged, and return outputs and loss.

    Tensors and all random generators are left unchanged. As in an evaluation step in JAX, what is
    drawn depends on the number of the batch only; what forward writes to buffers is not kept.

    Parameters
    ----------
    converted : ConvertedComponent
        The converted component.
    weights : dict of str to Tensor
        The values that its tensors have during the run.
    batch : mapping
        A collated batch.
    train : bool
        Whether to run in training mode.
    keep : bool
        Whether the component keeps the plain values that forward stores.
    """
    inventory = converted.inventory
    placed = {
        name: value if name in inventory.parameters else value.clone()
        for name, value in weights.items()
    }
    apart = pytree.tree_map_only(Tensor, Tensor.clone, dict(batch))  # forward may write to it
    with (
        host_random.watched(inventory.content.generators),
        swapped(inventory, placed) as effects,
        torch.no_grad(),
    ):
        number = converted.host_draws.position[-1]
        random.seed(number)
        np.random.seed(number)
        torch.default_generator.manual_seed(number)
        outputs, loss = converted.call_on(batch, train=train)(apart)
    for effect in effects if keep else ():
        effect.location.set(effect.after)
    if loss is None:
        raise ValueError("The component did not return a 'loss' from the input.")
    return outputs, loss


def rebuilt_outputs(outputs: Any, batch: Any) -> Any:
    """Return outputs of `in_torch` as a mapping of the batch's type."""
    return rebuilt(batch, dict(outputs or {}))


def reason_of(graph: Graph) -> str:
    """Return why a graph does not return all outputs, or ``""`` if it does."""
    if not graph.left_out:
        return ""
    line = next(iter(graph.left_out.values()))
    return f"forward reads values{at(line)} for {_names(graph)}, which cannot be part of a graph."


def check_outputs(graph: Graph) -> None:
    """Raise TraceError if a training graph lacks some of the outputs.

    Raises
    ------
    TraceError
        If outputs are missing; the message names the line and a way out.
    """
    if graph.left_out:
        raise TraceError(
            f"do_metrics_in_training needs all of forward's outputs, but {reason_of(graph)} Return "
            "tensors and convert them to lists or strings in prepare_batch, or set "
            "do_metrics_in_training=False: evaluation still has these outputs."
        )


def _names(graph: Graph) -> str:
    return "output " + ", ".join(map(repr, graph.left_out))
