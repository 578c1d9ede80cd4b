"""The shapes of a run are traced before its first step, and compiled meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from torch.utils.data import DataLoader

from medjax import sharding
from medjax.batch import BatchData
from medjax.garbage import rare_collections
from medjax.step import SeparateUpdate, with_update_due
from medjax_torch.batches import first_of_shapes
from medjax_torch.conversion import BatchAdapter
from medjax_torch.conversion.host_evaluation import EvaluationStep
from medjax_torch.session.session import Session


class Ahead:
    """Compiles the programs of a large component while the next shapes are traced.

    It takes a batch of each shape that comes next in training and evaluation. Each is proved,
    traced and compared in this thread, and compiled in another, which a component with few
    parameters would hardly notice.

    Parameters
    ----------
    session : Session
        Provides state and programs.
    preparation : BatchAdapter
        Prepares the batches.
    train_loader, eval_loader : torch.utils.data.DataLoader
        The data.
    eval_step : EvaluationStep
        The evaluation step.
    """

    def __init__(
        self,
        session: Session,
        preparation: BatchAdapter,
        train_loader: DataLoader[Any],
        eval_loader: DataLoader[Any],
        eval_step: EvaluationStep,
    ) -> None:
        self._session = session
        self._preparation = preparation
        self._train_loader, self._eval_loader = train_loader, eval_loader
        self._eval_step = eval_step
        self._is_due = True

    @rare_collections()
    def __call__(self, epoch: int, start: int) -> None:
        """Begin with what the batches of an epoch need from number `start` on; once in a run.

        Raises
        ------
        TraceError, VerificationError
            As for the batches themselves.
        """
        session = self._session
        step = session.programs.one
        # Several processes have to compile in the same order.
        if not self._is_due or not isinstance(step, SeparateUpdate) or jax.process_count() > 1:
            return
        self._is_due = False
        mark = sharding.put(np.asarray(False), session.state.learning_rate.sharding)
        for batch in self._prepared(self._train_loader, epoch, start, train=True):
            step.compile_ahead(session.state, with_update_due(batch, mark))
        for batch in self._prepared(self._eval_loader, 0, 0, train=False):
            self._eval_step.compile_ahead(session.state.variables, batch)

    def _prepared(
        self, loader: DataLoader[Any], epoch: int, start: int, *, train: bool
    ) -> Iterator[BatchData]:
        draws = self._preparation.converted.host_draws
        for number, batch in first_of_shapes(loader, epoch, start):
            draws.position = (epoch, number)
            yield self._preparation(batch, train=train)
