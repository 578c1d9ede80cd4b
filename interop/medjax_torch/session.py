"""A training session: medjax's run with the Trainer's own methods as its phases."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from medjax import sharding
from medjax.checkpoint.space import bytes_of
from medjax.compiled import Compilation, Step
from medjax.data.ladder import narrow
from medjax.loop.run import Metrics, Run
from medjax.loop.save import save
from medjax.progress import Progress
from medjax.schedules import ScheduleState
from medjax.state import TrainState
from medjax_torch.assembly import Assembly
from medjax_torch.checkpoints import write_torch_files
from medjax_torch.component import ConvertedComponent
from medjax_torch.feed import Feed
from medjax_torch.flags import with_flags
from medjax_torch.graph import TraceError
from medjax_torch.modules import write_back
from medjax_torch.optimizers.link import OptimizerLink
from medjax_torch.preparation import Preparation
from medjax_torch.tensors import to_numpy
from medjax_torch.watch import TensorWatch


class Session:
    """What changes while a Trainer trains, at hand for its methods.

    The newest values are on the device, in `state`. User code finds them in the component's own
    tensors as soon as it looks there, and what it writes there is in the state of the next step.

    Parameters
    ----------
    converted : ConvertedComponent
        What is trained.
    assembly : Assembly
        Makes state and step anew when the component or its optimizer has changed.
    link : OptimizerLink or None
        The torch optimizer; None for one of optax.
    state : TrainState
        The state training begins with.
    progress : Progress
        Where it begins.

    Attributes
    ----------
    state : TrainState
        The state after the last step.
    progress : Progress
        Where the phase at hand began.
    step : CompiledStep or None
        The step that fits the state, if it is another one than training began with.
    metric : float or None
        Checkpoint metric of the save that is due.
    is_saving : bool
        Whether the loop has asked for a checkpoint.
    """

    def __init__(
        self,
        converted: ConvertedComponent,
        assembly: Assembly,
        link: OptimizerLink | None,
        state: TrainState,
        progress: Progress,
    ) -> None:
        self.converted, self.link = converted, link
        self.state, self.progress = state, progress
        self.step: Step | None = None
        self.metric: float | None = None
        self.is_saving = False
        self._assembly = assembly
        self._found = converted.found
        self._version = converted.version
        self._brought: dict[str, np.ndarray] = {}
        self._is_ahead = False
        self._watch = TensorWatch(self._found.tensors, self.bring)
        self.bring()

    def bring(self) -> None:
        """Write the weights of the state into the component's tensors, for user code to find."""
        if self._is_lost():
            return  # a step failed while it had the buffers; the component holds the last saved
        with self._watch.aside():
            variables = sharding.to_host(self.state.variables)
            self._brought = {n: leaf for held in variables.values() for n, leaf in held.items()}
            write_back(self._found, self._brought)

    def write_back(self) -> None:
        """Copy weights and moments into the component and the torch optimizer, and leave them."""
        self._watch.release()
        self.bring()
        if self.link is not None and not self._is_lost():
            self.link.hand_back(self.state)

    def merged(self, state: TrainState) -> TrainState:
        """Return the loop's state with what user code wrote since the loop got it."""
        if not self._is_ahead:
            return state
        return self.state.replace(learning_rate=state.learning_rate, losses=state.losses)

    def handed_on(self, state: TrainState) -> TrainState:
        """Return `merged` for a loop that takes it over."""
        state = self.merged(state)
        self._is_ahead = False
        return state

    def caught_up(self, state: TrainState) -> TrainState:
        """Return a state with everything that user code did to the component and its optimizer.

        From here on the tensors wait to be touched again.

        Raises
        ------
        TraceError
            If a parameter was replaced by another one.
        """
        before = state
        if self._watch.is_open:
            state = self._with_written(state)
        if self._watch.flags_changed or self._watch.is_open:
            self._watch.flags_changed = False
            with self._watch.aside():
                self.converted.refresh()
        is_current = self.link is None or self.link.is_current()
        if self._version != self.converted.version or not is_current:
            state = self._rebuilt(state)
        self._watch.close()
        self._is_ahead |= state is not before
        self.state = state
        return state

    def has_run(self, state: TrainState) -> None:
        """Take the state after a step; while somebody keeps views of the tensors, bring it."""
        self.state = state
        if self._watch.is_open:
            self.bring()

    def end(self) -> None:
        """Leave the tensors to the user."""
        self._watch.release()

    def _is_lost(self) -> bool:
        leaves = jax.tree.leaves(self.state)
        return any(leaf.is_deleted() for leaf in leaves if isinstance(leaf, jax.Array))

    def _with_written(self, state: TrainState) -> TrainState:
        """Return the state with the tensors that hold something else than was brought."""
        tensors = self._found.tensors
        written = {
            name: narrow(name, now)
            for name, before in self._brought.items()
            if not _equal(before, now := to_numpy(tensors[name]))
        }
        self._brought = {}  # the step takes over the buffers that these may be views of
        if not written:
            return state
        variables = {
            name: {
                path: sharding.put(written[path], leaf.sharding) if path in written else leaf
                for path, leaf in held.items()
            }
            for name, held in state.variables.items()
        }
        params = variables.pop("params")
        return state.replace(params=params, collections=variables)

    def _rebuilt(self, state: TrainState) -> TrainState:
        """Return the state for the component and the optimizer as they are now, with its step."""
        old, new = self._found, self.converted.found
        replaced = {
            name
            for name, tensor in new.tensors.items()
            if name in old.tensors and old.tensors[name] is not tensor
        }
        lost = sorted((old.parameters.keys() - new.parameters.keys()) | (replaced & old.parameters.keys()))
        if lost and self.link is not None:
            raise TraceError(
                f"{', '.join(lost)} of the component was replaced while it was trained, and the "
                "optimizer holds the old parameter. Write the new values into the old one "
                "(load_state_dict, copy_), or replace it before train()."
            )
        if old is not new:
            self._watch.release()
            self._found = new
            self._watch = TensorWatch(new.tensors, self.bring)
        self._version = self.converted.version
        parts = self._assembly.parts()
        if self.link is not None:
            self.link.hand_back(state)
        self.link = parts.link
        state = self._assembly.carried(parts, state, replaced)
        self.step = self._assembly.step(parts, state)
        return state


def _equal(before: np.ndarray, now: np.ndarray) -> bool:
    return np.array_equal(before, now, equal_nan=now.dtype.kind in "fc")


class WatchedStep:
    """The training step, with the host's hyperparameters in force and its state kept at hand.

    Parameters
    ----------
    step : Step
        The compiled step.
    session : Session
        Gets the state after each step.
    scheduler : object or None
        A torch scheduler to be stepped after each update.
    accumulation : int
        Batches that make one update.
    may_skip : bool
        Whether batches may be left out. Then each step is waited for, to know whether it made an
        update, for the next rate depends on it.
    """

    def __init__(
        self, step: Step, session: Session, scheduler: Any, *, accumulation: int, may_skip: bool
    ) -> None:
        self._step = step
        self._session = session
        self._scheduler = scheduler
        self._accumulation = accumulation
        self._may_skip = may_skip
        self._pending = int(session.state.pending)
        self._nb_updates = int(session.state.step)

    @property
    def phase(self) -> str:
        """Training."""
        return self._step.phase

    @property
    def compilations(self) -> Sequence[Compilation]:
        """What the step was compiled for."""
        return self._step.compilations

    def __call__(self, state: TrainState, batch: Any, flush: jax.Array) -> Any:
        """Run the step, and afterwards the scheduler if it is stepped by the update."""
        session = self._session
        state = session.caught_up(session.handed_on(state))
        session.handed_on(state)
        self._step = session.step or self._step
        if session.link is not None:
            state = session.link.sync(state)
        state, stats = self._step(state, batch, flush)
        session.has_run(state)
        if self._scheduler is not None and self._has_updated(state, flush):
            self._scheduler.step()
        return state, stats

    def _has_updated(self, state: TrainState, flush: jax.Array) -> bool:
        if self._may_skip:
            before, self._nb_updates = self._nb_updates, int(state.step)
            return self._nb_updates > before
        self._pending += 1
        if self._pending < self._accumulation and not bool(flush):
            return False
        self._pending = 0
        return True


class WatchedEvalStep:
    """The evaluation step, on what user code made of the weights since the evaluation began.

    Parameters
    ----------
    step : Step
        The compiled step.
    session : Session
        Has the newest state.
    """

    def __init__(self, step: Step, session: Session) -> None:
        self._step = step
        self._session = session

    @property
    def phase(self) -> str:
        """Evaluation."""
        return self._step.phase

    @property
    def compilations(self) -> Sequence[Compilation]:
        """What the step was compiled for."""
        return self._step.compilations

    def __call__(self, variables: Any, batch: Any) -> Any:
        """Run the step."""
        del variables  # those that the evaluation began with
        session = self._session
        return self._step(session.caught_up(session.state).variables, batch)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TorchRun(Run):
    """A run whose phases go through the methods of a Trainer, which a subclass may override."""

    trainer: Any
    session: Session
    preparation: Preparation

    @property
    def steps_per_dispatch(self) -> int:
        """Batches trained on in one call; 1 if a scheduler is stepped after each update."""
        by_step = self.trainer.options.lr_scheduler_interval == "step"
        return 1 if by_step else super().steps_per_dispatch

    def checkpoint_bytes(self, state: TrainState) -> int:
        """Return the bytes of a checkpoint, the file of a torch optimizer included."""
        moments = 0 if self.session.link is None else bytes_of(state.opt_state)
        return super().checkpoint_bytes(state) + moments

    def train_phase(
        self, state: TrainState, progress: Progress
    ) -> tuple[TrainState, Metrics, Progress]:
        """Call ``trainer.training_epoch()``."""
        self.session.state = self.session.handed_on(state)
        self.session.progress = progress
        metrics = self.trainer.training_epoch()
        if self.session.progress is progress and progress.batch < len(self.train_loader):
            msg = (
                f"{type(self.trainer).__name__}.training_epoch trained no batch; expected it to "
                "call super().training_epoch(), which trains in JAX"
            )
            raise RuntimeError(msg)
        return self.session.state, metrics, self.session.progress

    def train_here(self) -> Metrics:
        """Train the epoch that the session is at."""
        session = self.session
        session.state, metrics, session.progress = super().train_phase(
            session.state, session.progress
        )
        return metrics

    def eval_phase(self, state: TrainState, progress: Progress) -> Metrics:
        """Call ``trainer.evaluation_epoch(trainer.eval_dataloader)``."""
        self.session.state, self.session.progress = self.session.merged(state), progress
        metrics: Metrics = self.trainer.evaluation_epoch(self.trainer.eval_dataloader)
        return metrics

    def eval_here(self, loader: Any) -> Metrics:
        """Evaluate the state of the session on the batches of a DataLoader."""
        feed = Feed(loader, self.preparation, train=False)
        run = dataclasses.replace(self, eval_loader=feed)
        return Run.eval_phase(run, self.session.state, self.session.progress)

    def next_epoch(
        self, state: TrainState, progress: Progress, eval_metrics: Metrics
    ) -> tuple[TrainState, ScheduleState]:
        """Call ``trainer.update_learning_rate(eval_metrics)`` and put in force what it set."""
        self.trainer.update_learning_rate(eval_metrics)
        state = self.session.handed_on(state)
        state, schedule_state = super().next_epoch(state, progress, eval_metrics)
        if self.session.link is not None:
            state = self.session.link.sync(state)
            schedule_state = {"learning_rate": self.session.link.learning_rate}
        return state, schedule_state

    def save(
        self,
        state: TrainState,
        progress: Progress,
        *,
        epoch: int,
        metric: float | None,
        block: bool = False,
    ) -> str:
        """Call ``trainer.save(epoch)``."""
        del block  # always: the caller of Trainer.save finds a complete folder
        session = self.session
        session.state = session.caught_up(session.merged(state))
        session.progress, session.metric = progress, metric
        session.is_saving = True
        try:
            path: str = self.trainer.save(epoch)
        finally:
            session.is_saving = False
        return path

    def save_here(self, epoch: int) -> str:
        """Save the state of the session with everything that a resumed run needs."""
        session, trainer = self.session, self.trainer
        session.write_back()

        def write_files(folder: Path) -> None:
            write_torch_files(folder, trainer.optimizer, trainer.lr_scheduler, trainer.component)

        progress = with_flags(self.with_callbacks(session.progress), session.converted)
        return save(
            *(self.store, self.component, self.config, session.state, progress),
            epoch=epoch,
            metric=session.metric,
            callback=self.callback,
            block=True,
            write_files=write_files,
        )
