"""Run: everything that stays the same while a run goes on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from medjax.batch import BatchData
from medjax.checkpoint import CheckpointStore
from medjax.checkpoint.progress import Progress
from medjax.checkpoint.space import bytes_of
from medjax.data import Batch, Batches
from medjax.loop.epochs import Groups
from medjax.loop.plan import Plan
from medjax.loop.request import RunRequest
from medjax.loop.scores import Scores
from medjax.runtime import Compilation
from medjax.runtime.jit import Compiled
from medjax.runtime.preemption import Preemption
from medjax.state import TrainState
from medjax.step import EvalStep, TrainStep


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """The parts of a run; all that changes is passed as values.

    Attributes
    ----------
    request : RunRequest
        What it is asked to do; its schedule includes the warm-up.
    plan : Plan
        How far it goes.
    train_loader, eval_loader : Batches
        The data; `eval_loader` is None if there is nothing to evaluate on.
    train_step, eval_step : TrainStep, EvalStep
        The steps.
    groups : Groups or None
        How several batches are trained on in one call, if they are.
    unpad : callable
        Brings outputs to the host without padding, and returns them with the batch that they are
        scored with.
    store : CheckpointStore
        Its checkpoints.
    preemption : Preemption
        Asked after every batch whether the run has to end.
    more_checkpoint_bytes : int
        Bytes of a checkpoint besides state and weights.
    strict_scores : bool
        See `Scores`.
    read_outside : callable
        Returns what its programs depend on besides their arguments.
    renewed : callable
        Returns the run with programs that are traced anew, unless the component has kept programs
        for what they now read.
    nb_known_compilations : tuple of int
        How often each of `steps` had been compiled when the run was made.
    """

    request: RunRequest
    plan: Plan
    train_loader: Batches
    eval_loader: Batches | None
    train_step: TrainStep
    groups: Groups | None
    eval_step: EvalStep
    unpad: Callable[[BatchData, Batch], tuple[BatchData, Any]]
    store: CheckpointStore
    preemption: Preemption
    more_checkpoint_bytes: int = 0
    strict_scores: bool = False
    read_outside: Callable[[], object] = lambda: None
    renewed: Callable[[Run, TrainState], Run] = lambda run, _: run
    nb_known_compilations: tuple[int, ...] = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        known = tuple(len(step.compilations) for step in self.steps)
        object.__setattr__(self, "nb_known_compilations", known)

    @property
    def steps(self) -> list[Compiled]:
        """The steps that the run uses."""
        several = [] if self.groups is None else [self.groups.train_steps]
        return [self.train_step, *several, self.eval_step]

    @property
    def compilations(self) -> list[Compilation]:
        """The compilations of its steps in this run."""
        steps = zip(self.steps, self.nb_known_compilations, strict=True)
        return [made for step, nb_known in steps for made in step.compilations[nb_known:]]

    def check_space(self, state: TrainState, progress: Progress) -> None:
        """Check that the output folder has room for the checkpoints to come.

        Raises
        ------
        CheckpointError
            If it has not.
        """
        nb_saves = self.plan.nb_saves(
            len(self.train_loader),
            self.request.config,
            self.request.options,
            epoch=progress.epoch,
            batch=progress.batch,
        )
        if progress.stop_reason is not None:
            nb_saves = int(progress.batch > 0)  # the epoch that was cut short is still saved
        # A checkpoint has the weights twice: in the state and in the component's own files.
        size = bytes_of(state) + bytes_of(state.variables) + self.more_checkpoint_bytes
        self.store.check_space(size, nb_saves, has_best=self.eval_loader is not None)

    def with_callbacks(self, progress: Progress) -> Progress:
        """Add to `progress` what the callbacks must remember."""
        return progress._replace(**self.request.callback.record())

    def scores(self, columns: dict[str, list[object]] | None = None) -> Scores | None:
        """Begin a collection of scores; None without a metrics computer.

        Parameters
        ----------
        columns : dict, optional
            What was kept of earlier batches of the phase.
        """
        if self.request.metrics_computer is None:
            return None
        computer = self.request.metrics_computer
        return Scores(computer, self.unpad, columns, strict=self.strict_scores)
