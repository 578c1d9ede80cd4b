"""A training step of two programs: the gradients of a batch, and the update."""

from __future__ import annotations

import jax

from medjax.batch import BatchData
from medjax.runtime import Compilation, CompiledStep
from medjax.state import TrainState
from medjax.step.due import Due, split_update_due
from medjax.step.update import BatchGradients, StepStats


class SeparateUpdate:
    """Runs gradients and update as two programs, of which the second serves batches of all shapes.

    Parameters
    ----------
    gradients : CompiledStep
        Gives the gradients of a batch and the outputs, if they are wanted.
    update : CompiledStep
        Makes the next state of them. It shares the record of compilations with `gradients`.
    accumulates : bool
        Whether several batches make one update.
    waits : bool
        Whether a step begins only when the one before has ended, for a CPU: a program whose
        arguments are not ready runs in another thread, which returns its memory to the kernel.
    """

    phase = "training"

    def __init__(
        self,
        gradients: CompiledStep[[TrainState, BatchData], tuple[BatchGradients, BatchData | None]],
        update: CompiledStep[[TrainState, BatchGradients, Due], tuple[TrainState, StepStats]],
        *,
        accumulates: bool,
        waits: bool,
    ) -> None:
        self._gradients = gradients
        self._update = update
        self._waits = waits
        self._accumulates = accumulates
        self._is_ahead = False

    @property
    def compilations(self) -> list[Compilation]:
        """The compilations of both programs, in order."""
        return self._gradients.compilations

    @property
    def nb_compilations(self) -> int:
        """How often a program was compiled."""
        return len(self.compilations)

    def __call__(self, state: TrainState, batch: BatchData) -> tuple[TrainState, StepStats]:
        """Run the step."""
        columns, due = split_update_due(batch, accumulates=self._accumulates)
        if self._waits:
            jax.block_until_ready(state.params)
        gradients, outputs = self._gradients(state, columns)
        state, stats = self._update(state, gradients, due)
        return state, stats._replace(outputs=outputs)

    def compile_ahead(self, state: TrainState, batch: BatchData) -> None:
        """Begin to compile both programs for a batch; see `CompiledStep.compile_ahead`."""
        columns, due = split_update_due(batch, accumulates=self._accumulates)
        gradients, _ = self._gradients.compile_ahead(state, columns)
        # Where XLA places the collections is known only once the first program is compiled.
        if not self._is_ahead and not gradients.collections:
            self._is_ahead = True
            known = jax.tree.map(_without_layout, gradients)
            self._update.compile_ahead(state, known, due)


def _without_layout(result: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(result.shape, result.dtype, sharding=result.sharding)
