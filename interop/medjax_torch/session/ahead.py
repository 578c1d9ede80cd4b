"""The shapes of a run are traced before its first step, and compiled meanwhile."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from torch.utils.data import DataLoader

from medjax import sharding
from medjax.batch import BatchData
from medjax.checkpoint.progress import Progress
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
    parameters would hardly notice. The first can be begun before it is compared.

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

    def begin(self, progress: Progress) -> None:
        """Compile for the first batch, if it is traced: nothing else is prepared yet."""
        firsts = first_of_shapes(self._train_loader, progress.epoch, progress.batch)
        for number, batch in itertools.islice(firsts, 1 if self._applies else 0):
            if self._preparation.is_known(batch, train=True):
                self._compile(self._placed(batch, progress.epoch, number))

    @rare_collections()
    def __call__(self, epoch: int, start: int) -> None:
        """Begin with what the batches of an epoch need from number `start` on; once in a run.

        Raises
        ------
        TraceError, VerificationError
            As for the batches themselves.
        """
        if not self._is_due or not self._applies:
            return
        self._is_due = False
        session = self._session
        for number, batch in first_of_shapes(self._train_loader, epoch, start):
            self._compile(self._placed(batch, epoch, number))
        for number, batch in first_of_shapes(self._eval_loader, 0, 0):
            evaluated = self._placed(batch, 0, number, train=False)
            self._eval_step.compile_ahead(session.state.variables, evaluated)

    @property
    def _applies(self) -> bool:
        # Several processes have to compile in the same order.
        step = self._session.programs.one
        return isinstance(step, SeparateUpdate) and jax.process_count() == 1

    def _compile(self, batch: BatchData) -> None:
        step, state = self._session.programs.one, self._session.state
        assert isinstance(step, SeparateUpdate)
        mark = sharding.put(np.asarray(False), state.learning_rate.sharding)
        step.compile_ahead(state, with_update_due(batch, mark))

    def _placed(
        self, batch: Mapping[str, Any], epoch: int, number: int, *, train: bool = True
    ) -> BatchData:
        loader = self._train_loader if train else self._eval_loader
        generator: Any = loader.generator
        draws = self._preparation.converted.host_draws
        draws.position = (generator.initial_seed(), epoch, number)
        return self._preparation(batch, train=train)
