"""The check of a device: the first batch there, and in float32 on the CPU of the same machine."""

from __future__ import annotations

import logging
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from medjax import sharding
from medjax.batch import BatchData
from medjax.component import Variables
from medjax.config import Options
from medjax.data import DataLoader
from medjax.loop.request import RunRequest
from medjax.step import make_eval_step
from medjax.target import platform_of

logger = logging.getLogger("medjax")

TOLERANCE = {"float32": 1e-3, "bfloat16": 1e-1}
"""Allowed difference of a result, in parts of its largest absolute value, by precision."""


class SelfCheckError(RuntimeError):
    """A device computes something else than the CPU."""


def self_check(request: RunRequest, variables: Variables, loader: DataLoader) -> None:
    """Compare loss and outputs of the first training batch with those of the CPU in float32.

    They are computed as in evaluation, where nothing is random. By default this is done on
    accelerators, and with one process only, since others do not hold the whole batch.

    Parameters
    ----------
    request : RunRequest
        What the run is asked to do.
    variables : dict
        The initial or restored variables.
    loader : DataLoader
        The training data.

    Raises
    ------
    SelfCheckError
        If a result differs by more than `TOLERANCE`; names it.
    """
    platform, options = platform_of(request.mesh), request.options
    wanted = platform != "cpu" if options.verify is None else options.verify
    if not wanted or jax.process_count() > 1:
        return
    cpu = sharding.host_mesh()
    if cpu is None:
        logger.warning("JAX has no CPU here to check the %s with; set JAX_PLATFORMS", platform)
        return
    batches = loader.batches(1)
    batch = next(batches)
    batches.close()
    forward = request.component.forward

    def results(options: Options, mesh: Any, variables: Variables, batch: BatchData) -> Any:
        step = make_eval_step(forward, options=options, mesh=mesh, with_outputs=True)
        loss, outputs = step(variables, batch)
        return jax.device_get({"loss": loss.compute(), **dict(outputs or {})})

    computed = results(options, request.mesh, variables, batch.device)
    on_host = jax.tree.map(sharding.to_host, (variables, batch.device))
    with jax.default_device(cpu.devices.flat[0]):
        expected = results(Options(loss_arithmetic=options.loss_arithmetic), cpu, *on_host)
    worst = _compare(computed, expected, options.precision, platform)
    logger.info("The first batch on the %s is that of the CPU, to %.1e", platform, worst)


def _compare(computed: Any, expected: Any, precision: str, platform: str) -> float:
    """Return the largest difference in parts of its result; raise if one is too large."""
    worst = 0.0
    for (path, value), wanted in zip(
        jax.tree_util.tree_leaves_with_path(computed), jax.tree.leaves(expected), strict=True
    ):
        if value.size == 0 or not jnp.issubdtype(wanted.dtype, jnp.floating):
            continue  # a label may be another one of two that are as probable
        value, wanted = value.astype(np.float64), wanted.astype(np.float64)
        scale = np.abs(wanted[np.isfinite(wanted)]).max(initial=0.0) or 1.0
        same = (value == wanted) | (np.isnan(value) & np.isnan(wanted))
        apart = np.where(same, 0.0, np.abs(value - wanted)) / scale
        difference = float(np.where(np.isnan(apart), np.inf, apart).max())
        if difference > TOLERANCE[precision]:
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            raise SelfCheckError(
                f"{name!r} of the first batch differs on the {platform} by {difference:.1e} of its "
                f"largest value from float32 on the CPU; expected {TOLERANCE[precision]:g} at "
                "most. Check the versions of jax and of the device's driver, use "
                "attention_implementation='xla' or precision='float32', or switch the check off "
                "with Options(verify=False)"
            )
        worst = max(worst, difference)
    return worst
