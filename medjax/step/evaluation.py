"""The step of evaluation, and that of prediction."""

from __future__ import annotations

import jax
from jax.sharding import Mesh

from medjax import sharding
from medjax.batch import BatchData
from medjax.component import Forward, Variables
from medjax.config import Options
from medjax.metrics.mean import Mean
from medjax.runtime import CompiledStep
from medjax.step.compiler import compiled_for
from medjax.step.forward import make_forward_pass


def make_eval_step(
    forward: Forward,
    *,
    options: Options | None = None,
    mesh: Mesh | None = None,
    with_outputs: bool = False,
) -> CompiledStep[[Variables, BatchData], tuple[Mean, BatchData | None]]:
    """Make ``eval_step(variables, batch) -> (loss, outputs)``.

    Parameters
    ----------
    forward : Forward
        The component's forward pass.
    options : Options, optional
        Precision and loss arithmetic.
    mesh : jax.sharding.Mesh, optional
        Mesh of `make_mesh`, which is the default.
    with_outputs : bool
        Whether `outputs` is what `forward` returned, or None.

    Returns
    -------
    CompiledStep
        A pure function; `loss` is the `Mean` of the batch.
    """
    mesh = sharding.make_mesh() if mesh is None else mesh
    forward_pass = make_forward_pass(forward, options or Options())

    def eval_step(variables: Variables, batch: BatchData) -> tuple[Mean, BatchData | None]:
        # Nothing random happens in evaluation.
        outputs, loss, _ = forward_pass(variables, batch, jax.random.key(0), True)
        return loss, outputs if with_outputs else None

    layout = sharding.replicated(mesh)
    return CompiledStep(
        eval_step, "evaluation", out_shardings=layout, **compiled_for(mesh, options)
    )


def make_collecting_eval_step(
    forward: Forward, *, options: Options, mesh: Mesh, with_outputs: bool = False
) -> CompiledStep[[Variables, BatchData], tuple[Mean, BatchData | None, Variables]]:
    """Make ``eval_step(variables, batch) -> (loss, outputs, collections)``.

    The parameters are those of `make_eval_step`. `collections` is what `forward` changed.
    """
    forward_pass = make_forward_pass(forward, options)

    def eval_step(
        variables: Variables, batch: BatchData
    ) -> tuple[Mean, BatchData | None, Variables]:
        outputs, loss, collections = forward_pass(variables, batch, jax.random.key(0), True)
        return loss, outputs if with_outputs else None, collections

    layout = sharding.replicated(mesh)
    return CompiledStep(
        eval_step, "evaluation", out_shardings=layout, **compiled_for(mesh, options)
    )


def make_predict_step(
    forward: Forward, options: Options
) -> CompiledStep[[Variables, BatchData], BatchData]:
    """Make ``predict_step(variables, batch) -> outputs``: evaluation without a loss.

    Parameters
    ----------
    forward : Forward
        The component's forward pass.
    options : Options
        For `precision`.
    """
    forward_pass = make_forward_pass(forward, options, return_loss=False)

    def predict_step(variables: Variables, batch: BatchData) -> BatchData:
        return forward_pass(variables, batch, jax.random.key(0), True)[0]

    return CompiledStep(predict_step, "prediction")
