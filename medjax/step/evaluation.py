"""The step of evaluation, and that of prediction."""

from __future__ import annotations

from typing import Any

import jax
from jax.sharding import Mesh

from medjax import sharding
from medjax.batch import BatchData
from medjax.compiled import CompiledStep
from medjax.component import Forward, Variables
from medjax.config import Options
from medjax.step.forward import make_forward_pass


def make_eval_step(
    forward: Forward,
    *,
    options: Options,
    mesh: Mesh,
    with_outputs: bool = False,
    with_collections: bool = False,
) -> CompiledStep:
    """Return ``eval_step(variables, batch) -> (loss, outputs)``.

    Parameters
    ----------
    forward : Forward
        The component's forward pass.
    options : Options
        Precision and loss arithmetic.
    mesh : jax.sharding.Mesh
        Mesh of `sharding.make_mesh`.
    with_outputs : bool
        Whether `outputs` is what `forward` returned, or None.
    with_collections : bool
        Whether the step returns in addition what `forward` changed, which is dropped else.

    Returns
    -------
    CompiledStep
        A pure function; `loss` is the `Mean` of the batch.
    """
    forward_pass = make_forward_pass(forward, options)

    def eval_step(variables: Variables, batch: BatchData) -> tuple[Any, ...]:
        key = jax.random.key(0)  # nothing random happens in evaluation
        outputs, loss, collections = forward_pass(variables, batch, key, True)
        returned = loss, outputs if with_outputs else None
        return (*returned, collections) if with_collections else returned

    return CompiledStep(eval_step, "evaluation", out_shardings=sharding.replicated(mesh))


def make_predict_step(forward: Forward, options: Options) -> CompiledStep:
    """Return ``predict_step(variables, batch) -> outputs``: evaluation without a loss.

    Parameters
    ----------
    forward : Forward
        The component's forward pass.
    options : Options
        For `precision`.
    """
    forward_pass = make_forward_pass(forward, options, return_loss=False)

    def predict_step(variables: Variables, batch: BatchData) -> BatchData:
        outputs: BatchData = forward_pass(variables, batch, jax.random.key(0), True)[0]
        return outputs

    return CompiledStep(predict_step, "prediction")
