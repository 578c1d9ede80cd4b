"""The programs of a run, compiled before its first step while the next ones are traced."""

from __future__ import annotations

import jax
import numpy as np

from medjax import sharding
from medjax.checkpoint.progress import Progress
from medjax.data import DataLoader
from medjax.garbage import rare_collections
from medjax.loop.run import Run
from medjax.runtime import CompiledStep
from medjax.state import TrainState
from medjax.step import SeparateUpdate, with_update_due


@rare_collections()
def compile_ahead(run: Run, state: TrainState, progress: Progress) -> None:
    """Begin to compile what the next batches of training and evaluation need.

    Each shape is traced in this thread and compiled in others, so that two cores share the work.
    A model with few parameters would hardly notice, and several processes have to compile in the
    same order.

    Parameters
    ----------
    run : Run
        The run.
    state, progress
        Where it is.
    """
    step, evaluate = run.train_step, run.eval_step
    train_loader, eval_loader = run.train_loader, run.eval_loader
    if not isinstance(step, SeparateUpdate) or run.groups is not None or jax.process_count() > 1:
        return
    if not isinstance(train_loader, DataLoader):
        return
    mark = sharding.put(np.asarray(False), state.learning_rate.sharding)
    for batch in train_loader.first_of_shapes(progress.epoch, progress.batch, keep=True):
        step.compile_ahead(state, with_update_due(batch.device, mark))
    if isinstance(eval_loader, DataLoader) and isinstance(evaluate, CompiledStep):
        # Read again when it is evaluated: a callback may have changed what its items are.
        for batch in eval_loader.first_of_shapes(epoch=0):
            evaluate.compile_ahead(state.variables, batch.device)
