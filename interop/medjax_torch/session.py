"""A training session: the state on the device, and the component as user code sees it."""

from __future__ import annotations

import jax
import numpy as np

from medjax import sharding
from medjax.compiled import Step
from medjax.data.ladder import narrow
from medjax.progress import Progress
from medjax.state import TrainState
from medjax_torch.assembly import Assembly
from medjax_torch.component import ConvertedComponent, Variables
from medjax_torch.evaluation_state import applied
from medjax_torch.graph import TraceError
from medjax_torch.modules import write_back
from medjax_torch.optimizers.link import OptimizerLink
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
        self._watch = converted.variants.watch = TensorWatch(self._found.tensors, self.bring)
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
        """Copy weights and moments into the component and the torch optimizer, and leave them.

        What user code has written to the component since the last step stays.
        """
        if self._watch.is_open and not self._is_lost():
            self.state = self._with_written(self.state)
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
            self.converted.variants.look_at_flags()
        is_current = self.link is None or self.link.is_current()
        if self._version != self.converted.version or not is_current:
            state = self._rebuilt(state)
        self._watch.close()
        self._is_ahead |= state is not before
        self.state = state
        return state

    def take(self, written: Variables) -> None:
        """Have in the state what forward wrote in evaluation, and go on watching views."""
        if written:
            self._is_ahead = True
        self.has_run(applied(written, self.state) if written else self.state)

    def has_run(self, state: TrainState) -> None:
        """Take the state after a step; while somebody keeps views of the tensors, bring it."""
        self.state = state
        if self._watch.is_open:
            self.bring()

    def end(self) -> None:
        """Leave the tensors to the user."""
        self._watch.release()
        self.converted.variants.watch = None

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
        lost = sorted(
            (old.parameters.keys() - new.parameters.keys()) | (replaced & old.parameters.keys())
        )
        if lost and self.link is not None:
            raise TraceError(
                f"{', '.join(lost)} of the component was replaced while it was trained, and the "
                "optimizer holds the old parameter. Write the new values into the old one "
                "(load_state_dict, copy_), or replace it before train()."
            )
        if old is not new:
            self._watch.release()
            self._found = new
            watch = TensorWatch(new.tensors, self.bring)
            self._watch = self.converted.variants.watch = watch
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
