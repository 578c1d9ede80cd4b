"""A training session: the state on the device, and the component as user code sees it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from medjax import sharding
from medjax.batch import BatchData
from medjax.checkpoint.progress import Progress
from medjax.data.ladder import narrow
from medjax.state import TrainState
from medjax_torch.component_state import to_numpy, write_back
from medjax_torch.component_state.watch import TensorWatch
from medjax_torch.conversion import ConvertedComponent
from medjax_torch.conversion.component import GRAPH, Variables
from medjax_torch.graph import TraceError
from medjax_torch.optimizers.link import OptimizerLink
from medjax_torch.session.assembly import Assembly, Programs
from medjax_torch.session.evaluation_state import applied
from medjax_torch.session.left_gradients import LeftGradients

logger = logging.getLogger("medjax")


class DueSave(NamedTuple):
    """A checkpoint that the loop wants saved by ``Trainer.save``, which only gets the epoch.

    Attributes
    ----------
    metric : float or None
        Value of the checkpoint metric; None within an epoch.
    """

    metric: float | None


class Session:
    """Holds what changes while a Trainer trains, for the Trainer's methods.

    The newest values are on the device, in `state`. User code sees them in the component's own
    tensors as soon as it reads those, and what it writes there is part of the state in the next
    step.

    Parameters
    ----------
    converted : ConvertedComponent
        The component that is trained.
    assembly : Assembly
        Makes state and programs again when the component or its optimizer changes.
    link : OptimizerLink or None
        The link to the torch optimizer; None for an optax optimizer.
    programs : Programs
        The programs at the beginning of training.
    state : TrainState
        The state at the beginning of training.
    progress : Progress
        The position at which training begins.

    Attributes
    ----------
    state : TrainState
        The state after the last step.
    progress : Progress
        The position at which the current phase began.
    programs : Programs
        The programs that fit the state.
    due_save : DueSave or None
        The checkpoint that the loop is waiting for, if any.
    """

    def __init__(
        self,
        converted: ConvertedComponent,
        assembly: Assembly,
        link: OptimizerLink | None,
        programs: Programs,
        state: TrainState,
        progress: Progress,
    ) -> None:
        self.converted, self.link = converted, link
        self.state, self.progress = state, progress
        self.programs = programs
        self.due_save: DueSave | None = None
        self._assembly = assembly
        self._content = converted.inventory
        self._version = converted.version
        self._brought: dict[str, np.ndarray] = {}
        self._is_ahead = False
        self._steps_per_call = 1
        self._has_warned_of = set[str]()
        self._settings: Any = None
        self._used: Any = None  # the settings of the latest call
        self._changed = False
        self._nb_left = 0  # batches for which `leave_early` has been called, but not `leave`
        self._left = LeftGradients()
        self._watch = self._watch_tensors()
        self._watch_optimizer()
        self.bring()

    def _watch_tensors(self) -> TensorWatch:
        watch = TensorWatch(self._content.tensors, self._touched)
        if self.converted.divisor > 1:
            watch.gradient_read = self._warn_of_gradients
        self.converted.variants.watch = watch
        return watch

    def _watch_optimizer(self) -> None:
        link = self.link
        if link is not None:
            link.watch(lambda: None if self._is_lost() else link.hand_back(self.state))

    def bring(self) -> None:
        """Write the weights of the state into the component's tensors, for user code to read."""
        if self._is_lost():
            return  # a failed step consumed the buffers; the component has the last saved values
        with self._watch.aside():
            variables = sharding.to_host(self.state.variables)
            self._brought = {n: leaf for each in variables.values() for n, leaf in each.items()}
            write_back(self._content, self._brought)

    @contextlib.contextmanager
    def training(self, steps_per_call: int) -> Iterator[None]:
        """Mark the block in which the loop runs steps, so many in each call of the device."""
        self._steps_per_call = steps_per_call
        self._nb_left = 0
        try:
            yield
        finally:
            self._steps_per_call = 1

    def _touched(self) -> None:
        """Bring the weights that user code is about to use, which may be late for it."""
        if self._steps_per_call > 1:
            self._warn(
                "the component's tensors are read or written between steps, by a callback or "
                "while data are prepared, but Options(steps_per_dispatch=%d) trains that many "
                "steps in one call, so they change only after each call. Set steps_per_dispatch=1 "
                "to reach them after every step",
                self._steps_per_call,
            )
        self.bring()

    def _warn_of_gradients(self) -> None:
        self._warn(
            "a callback reads .grad of the component's parameters, which is None in training: "
            "gradients stay on the device, so clipping or changing them in a callback has no "
            "effect. To clip those of each update, set Options(max_grad_norm=...); for anything "
            "else, use Tensor.register_hook or the step of an optimizer of your own"
        )

    def _warn_of_left_gradients(self) -> None:
        joined = [] if self.link is None else self._left.joined(self.link.held)
        if joined:
            logger.warning(
                "the optimizer has got %s, which forward has used with requires_grad=True before. "
                "In torch the gradients of all earlier batches would count in the first update, "
                "since zero_grad of the optimizer does not reach parameters that it does not hold; "
                "here only those of the new batches do. Set parameter.grad = None before they are "
                "added, and torch does the same; if you did, nothing differs",
                ", ".join(joined),
            )

    def note_settings(self) -> None:
        """Look, before a batch of a call is prepared, whether a callback changed the settings."""
        if self.link is None:
            return
        now = self.link.settings()
        if self._settings not in (None, now):
            self._warn_of_settings()
        self._settings = now

    def end_step(self) -> None:
        """Look, after the callbacks for the end of a step, whether they changed the settings.

        A change at the last step of a call is in time for the next call.
        """
        if self.link is None or self._steps_per_call == 1:
            return
        if self._changed:
            self._warn_of_settings()
        self._changed = self.link.settings() != self._used

    def _warn_of_settings(self) -> None:
        self._warn(
            "a callback changes the optimizer's settings between steps, but "
            "Options(steps_per_dispatch=%d) trains that many steps in one call, all of them "
            "with the same settings. Set steps_per_dispatch=1 to change them at every step",
            self._steps_per_call,
        )

    def _warn(self, message: str, *arguments: object) -> None:
        """Log a warning, but only once in a run."""
        if message not in self._has_warned_of:
            self._has_warned_of.add(message)
            logger.warning(message, *arguments)

    def write_back(self) -> None:
        """Copy weights and moments into the component and the torch optimizer, and stop watching.

        What user code has written to the component since the last step is kept.
        """
        before = self.state
        if self._watch.is_open and not self._is_lost():
            self.state = self._with_written(before)
        if self.link is not None and not self._is_lost():
            self.state = self.link.with_written(self.state)
        self._is_ahead |= self.state is not before
        self._watch.release()
        self.bring()
        if self.link is not None and not self._is_lost():
            self.link.hand_back(self.state)

    def merged(self, state: TrainState) -> TrainState:
        """Return the loop's state with what user code has written since the loop got it."""
        if not self._is_ahead:
            return state
        return self.state.replace(learning_rate=state.learning_rate, losses=state.losses)

    def handed_on(self, state: TrainState) -> TrainState:
        """Return `merged` for the loop, whose state is then the newest again."""
        state = self.merged(state)
        self._is_ahead = False
        return state

    def caught_up(self, state: TrainState) -> TrainState:
        """Return a state with everything that user code did to the component and its optimizer.

        Afterwards the tensors are watched until user code touches them again.

        Raises
        ------
        TraceError
            If a parameter was replaced by another object.
        """
        before = state
        if self._watch.is_open:
            state = self._with_written(state)
        if self._watch.flags_changed or self._watch.is_open:
            self._watch.flags_changed = False
            with self._watch.aside():
                self.converted.refresh()
            self.converted.variants.look_at_flags()
        if self.link is not None:
            state = self.link.with_written(state)
        is_current = self.link is None or self.link.is_current()
        if self._version != self.converted.version or not is_current:
            state = self._rebuilt(state)
        self._watch.close()
        self._is_ahead |= state is not before
        self.state = state
        return state

    def before_step(self, state: TrainState) -> TrainState:
        """Return the loop's state for the next step, with everything that was set on the host."""
        state = self.caught_up(self.handed_on(state))
        self._is_ahead = False
        self._settings, self._changed = None, False
        if self.link is None:
            return state
        state = self.link.sync(state)
        self._used = self.link.settings() if self._steps_per_call > 1 else None
        return state

    def take(self, written: Variables) -> None:
        """Put what forward wrote in evaluation into the state, and update views of user code."""
        if written:
            self._is_ahead = True
        self.has_run(applied(written, self.state) if written else self.state)

    def has_run(self, state: TrainState) -> None:
        """Store the state after a step; bring it at once while user code holds tensor views."""
        self.state = state
        if self.link is not None:
            self.link.outdate()
        if self._watch.is_open:
            self.bring()

    def leave(self, batch: BatchData, steps: int = 1) -> None:
        """Leave modes, flags and counts as so many steps with a batch leave them in torch.

        Callbacks that run a module themselves get what torch gives: dropout only in training.
        """
        early = min(self._nb_left, steps)
        self._nb_left -= early
        self._leave(batch, steps - early)

    def leave_early(self, batch: BatchData, number: int) -> None:
        """Leave modes, flags and counts as a step with a batch will, for the next of its call.

        That is prepared before the call, by a preprocess and a collate that may read them.
        """
        if (number + 1) % self._steps_per_call:
            self._nb_left += 1
            self._leave(batch, 1)

    def _leave(self, batch: BatchData, steps: int) -> None:
        if GRAPH in batch:
            graph = self.converted.graph(batch[GRAPH])
            if graph.train and self.link is not None:
                self._left.note(batch[GRAPH], graph.gradients, self.link.held)
            for module, training in graph.modes:
                if module.training != training:
                    module.training = training
            self.converted.variants.stored.repeat(graph, steps)

    def end(self) -> None:
        """Stop watching the tensors and the optimizer's state."""
        self._watch.release()
        if self.link is not None:
            self.link.release()
        self.converted.variants.watch = None

    def _is_lost(self) -> bool:
        leaves = jax.tree.leaves(self.state)
        return any(leaf.is_deleted() for leaf in leaves if isinstance(leaf, jax.Array))

    def _with_written(self, state: TrainState) -> TrainState:
        """Return a state with the values of tensors that user code has written to.

        Raises
        ------
        ValueError
            If a tensor's shape differs from its shape when training began.
        """
        tensors = self._content.tensors
        for name, before in self._brought.items():
            if tensors[name].shape != before.shape:
                raise ValueError(
                    f"{name} was given the shape {tuple(tensors[name].shape)} during training; "
                    f"expected {before.shape}. Write values of the same shape, or change the "
                    "component before train()."
                )
        written = {
            name: narrow(name, current)
            for name, before in self._brought.items()
            if not _equal(before, current := to_numpy(tensors[name]))
        }
        self._brought = {}  # the step takes over the buffers that these may be views of
        if not written:
            return state
        variables = {
            name: {
                path: sharding.put(written[path], leaf.sharding) if path in written else leaf
                for path, leaf in leaves.items()
            }
            for name, leaves in state.variables.items()
        }
        params = variables.pop("params")
        return state.replace(params=params, collections=variables)

    def _rebuilt(self, state: TrainState) -> TrainState:
        """Rebuild state and programs for the current component and optimizer."""
        old, new = self._content, self.converted.inventory
        replaced = {
            name
            for name, tensor in new.tensors.items()
            if name in old.tensors and old.tensors[name] is not tensor
        }
        lost = sorted(
            (old.parameters.keys() - new.parameters.keys()) | (replaced & old.parameters.keys())
        )
        if lost and self.link is not None:
            raise TraceError(
                f"{', '.join(lost)} of the component was replaced during training, but the "
                "optimizer still holds the old parameter. Write the new values into the old one "
                "(load_state_dict, copy_), or replace it before train()."
            )
        if old is not new:
            self._watch.release()
            self._content = new
            self._watch = self._watch_tensors()
        self._version = self.converted.version
        parts = self._assembly.parts()
        if self.link is not None:
            self.link.hand_back(state)
            self.link.release()
        self.link = parts.link
        self._warn_of_left_gradients()
        state = self._assembly.carried(parts, state, replaced)
        self._watch_optimizer()
        self.programs = self._assembly.programs(parts, state)
        return state


def _equal(before: np.ndarray, current: np.ndarray) -> bool:
    return np.array_equal(before, current, equal_nan=current.dtype.kind in "fc")
