"""The forward pass in the precision and the loss arithmetic of a run."""

from __future__ import annotations

from typing import Protocol

import jax
import jax.numpy as jnp

from medjax.batch import ROW_MASK, BatchData
from medjax.component import Forward, Variables
from medjax.config import Options
from medjax.metrics.mean import Mean

LABELS = "labels"
"""Column of the targets, as in Hugging Face."""


class ForwardPass(Protocol):
    """A forward pass as the steps trace it."""

    def __call__(
        self, variables: Variables, batch: BatchData, key: jax.Array, eval_mode: bool, /
    ) -> tuple[BatchData, Mean, Variables]:
        """Return outputs, loss (`Mean.empty` without one) and the collections that changed."""
        ...


def make_forward_pass(
    forward: Forward, options: Options, *, return_loss: bool = True
) -> ForwardPass:
    """Make a function that runs `forward` in the precision and loss arithmetic of `options`.

    The function raises ValueError if the component returns no loss although `return_loss` asks for
    it.
    """
    bfloat16 = options.precision == "bfloat16"
    matmul_precision = "default" if bfloat16 else "highest"

    def forward_pass(
        variables: Variables, batch: BatchData, key: jax.Array, eval_mode: bool
    ) -> tuple[BatchData, Mean, Variables]:
        if bfloat16:
            # What is compared with outputs is not rounded: a target of 1013 would become 1012.
            exact = {name: batch[name] for name in (ROW_MASK, LABELS) if name in batch}
            # Not the other collections: a running average would lose its small steps.
            params, batch = jax.tree.map(_as_bfloat16, (variables["params"], batch))
            variables = {**variables, "params": params}
            batch.update(exact)
        with jax.default_matmul_precision(matmul_precision):
            outputs, loss, collections = forward(
                variables, batch, key, return_loss=return_loss, eval_mode=eval_mode
            )
        if not return_loss:
            return outputs, Mean.empty(), collections
        if loss is None:
            raise ValueError("The component did not return a 'loss' from the input.")
        return outputs, weighed(loss, options), collections

    return forward_pass


def weighed(loss: Mean, options: Options) -> Mean:
    """Convert the loss of a batch to float32 and weigh it as the options say."""
    weight = jnp.asarray(loss.weight, jnp.float32)
    weighs = ~(weight <= 0)  # a weight of NaN is an error, and no weight of 0
    # A loss without weight does not count, not even NaN, which torch's mean over no labels is.
    weight = jnp.where(weighs, weight, 0.0)
    total = jnp.where(weighs, jnp.asarray(loss.total, jnp.float32), 0.0)
    if options.loss_arithmetic == "medkit":
        # Divided by 1 where nothing is weighed: 0 / 0 would make the gradient NaN, `where` or not.
        total = total / jnp.where(weighs, weight, 1.0)
        weight = weighs.astype(jnp.float32)
    return Mean(total, weight)


def _as_bfloat16(leaf: jax.Array) -> jax.Array:
    return leaf.astype(jnp.bfloat16) if leaf.dtype == jnp.float32 else leaf
