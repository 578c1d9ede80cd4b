"""Forward and torch's own backward as one function of flat tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from medjax_torch.component_state import Inventory, swapped
from medjax_torch.component_state.locations import Effect, Location
from medjax_torch.component_state.modules import current, is_filled_in
from medjax_torch.component_state.watch.reads import AttributeReads
from medjax_torch.graph.batch_columns import flatten
from medjax_torch.graph.errors import TraceError
from medjax_torch.graph.examples import example
from medjax_torch.graph.layer_drop import LayerDrop
from medjax_torch.graph.numbers import Number, tensors_of
from medjax_torch.graph.outputs import OutputSpec, flatten_outputs
from medjax_torch.graph.recompute import BACKWARD, marked
from medjax_torch.torch_internals import pytree

Call = Callable[[dict[str, Any]], tuple[Mapping[str, Any] | None, Tensor | None]]
"""The component's forward on a batch, which returns outputs and loss."""


class Joint:
    """A component's forward, backward and state as a function that `make_fx` can record.

    Parameters
    ----------
    call : Call
        The component's forward, with everything fixed except the batch. If it has a `divisor`,
        the loss is divided by it before the backward pass, and the gradients are multiplied by it
        afterwards: a hook that clips sees what it would see in torch.
    inventory : Inventory
        The contents of the component.
    batch : mapping of str to value
        The batch; its tensors are inputs, everything else is fixed.
    train : bool
        Whether gradients are computed. If not, all parameters count as frozen.
    numbers : sequence of Number
        Numbers that are inputs as well.
    mark : float
        The number added to gradients in layers that may be left out at random but are kept. With 0,
        forward runs unchanged and leaves such layers out itself.

    Attributes
    ----------
    trained, frozen, buffers, columns : tuple of str
        Names of the inputs, in this order; numbers are among the columns.
    gradients : tuple of str
        After a call, the trained parameters that the loss depends on.
    droppable : tuple of str
        After a call, those of `gradients` that belong to layers that are left out at random.
    outputs : OutputSpec
        After a call, the structure of the outputs.
    reshaped : dict of str to Tensor
        After a call, the tensors of a different shape or dtype by which forward replaced others.
    replaced : tuple of str
        After a call, the names of the tensors in whose place forward left others.
    effects : tuple of Effect
        After a call, what forward left in the component, other than state and `filled_in`.
    filled_in : tuple of Effect
        After a call, the strings and objects that forward left where there was nothing, as
        transformers does in its configurations.
    counters : tuple of str
        After a call, the attributes that forward read before it changed them.
    modes : tuple of (nn.Module, bool)
        After a call, the modules and whether each was in training mode at the end of forward.
    attributes : AttributeReads
        What forward has read from the component's objects.
    """

    gradients: tuple[str, ...]
    droppable: tuple[str, ...]
    outputs: OutputSpec
    reshaped: dict[str, Tensor]
    replaced: tuple[str, ...]
    effects: tuple[Effect, ...]
    filled_in: tuple[Effect, ...]
    counters: tuple[str, ...]
    modes: tuple[tuple[nn.Module, bool], ...]

    def __init__(
        self,
        call: Call,
        inventory: Inventory,
        batch: Mapping[str, Any],
        *,
        train: bool,
        numbers: Sequence[Number] = (),
        mark: float = 0.0,
    ) -> None:
        self._mark = mark
        self._divisor: int = getattr(call, "divisor", 1)
        self.call, self.inventory, self.train = call, inventory, train
        self.numbers = tuple(numbers)
        self.attributes = AttributeReads(inventory.content, inventory.outside().content)
        learn = {name for name, p in inventory.parameters.items() if train and p.requires_grad}
        self.trained = tuple(name for name in inventory.parameters if name in learn)
        self.frozen = tuple(name for name in inventory.parameters if name not in learn)
        self.buffers = tuple(inventory.buffers)
        leaves, self._spec = flatten(batch)
        self._leaves = leaves
        self._column_tensors = {p: leaf for p, leaf in leaves.items() if isinstance(leaf, Tensor)}
        self._column_tensors |= tensors_of(batch, self.numbers)
        self.columns = tuple(self._column_tensors)

    @property
    def state(self) -> tuple[str, ...]:
        """The names of all parameters and buffers, in the order of the inputs."""
        return self.trained + self.frozen + self.buffers

    def arguments(self) -> list[Tensor]:
        """Return the inputs: the tensors of the component and of the batch, detached."""
        tensors = self.inventory.tensors
        values = [tensors[name] for name in self.state] + list(self._column_tensors.values())
        return [value.detach() for value in values]

    def eager(self) -> None:
        """Run forward on copies, as torch would, and undo its effects."""
        with swapped(self.inventory, self._place(self.arguments())):
            self._run(self._batch(self.arguments()))

    def forward(self, *inputs: Tensor) -> list[Tensor]:
        """Return loss, gradients, outputs, and all parameters and buffers as they are afterwards.

        The name matters: torch records the lines of the user's code from the first frame with this
        name.
        """
        placed = self._place(inputs)
        with swapped(self.inventory, placed, self._stand_ins(inputs)) as effects:
            layers = LayerDrop()
            with self.attributes.recording(), layers if self._mark else nullcontext():
                outputs, loss = self._run(self._batch(inputs))
            outermost = self.inventory.modules.values()
            self.modes = tuple((m, m.training) for outer in outermost for m in outer.modules())
            after = self._after(placed)
            self.outputs, values = flatten_outputs(outputs or {})
            gradients = self._differentiate(loss, [placed[name] for name in self.trained])
            owned = layers.names(placed)
            self.droppable = tuple(name for name in self.gradients if name in owned)
            gradients = [
                layers.marked(gradient, placed[name], self._mark) if name in owned else gradient
                for name, gradient in zip(self.gradients, gradients, strict=True)
            ]
            results = [_apart(each) for each in (loss.reshape(()), *gradients, *values, *after)]
        self.filled_in = tuple(filter(is_filled_in, effects))
        self.effects = tuple(
            each._replace(after=example(each.after)) for each in effects if not is_filled_in(each)
        )
        self.counters = tuple(self.attributes.changed)
        return results

    def _place(self, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return leaf tensors for the component: copies, because forward may write to them."""
        tensors = self.inventory.tensors
        placed = {}
        for name, value in zip(self.state, inputs, strict=False):
            own = tensors[name]
            leaf = value.clone().requires_grad_(own.requires_grad and own.is_leaf)
            for hook in (getattr(own, "_backward_hooks", None) or {}).values():
                leaf.register_hook(hook)
            placed[name] = leaf
        return placed

    def _batch(self, inputs: Sequence[Tensor]) -> dict[str, Any]:
        tensors = dict(zip(self.columns, inputs[len(self.state) :], strict=True))
        leaves = [
            tensors[path].clone() if path in tensors else leaf
            for path, leaf in self._leaves.items()
        ]
        batch: dict[str, Any] = pytree.tree_unflatten(leaves, self._spec)
        for number in self.numbers:
            if number.column is not None:
                batch[number.column] = number.handed(tensors[number.name])
        return batch

    def _stand_ins(self, inputs: Sequence[Tensor]) -> list[tuple[Location, Any]]:
        """Return the values that replace numbers outside the batch, with their locations."""
        tensors = dict(zip(self.columns, inputs[len(self.state) :], strict=True))
        return [
            (n.location, n.handed(tensors[n.name])) for n in self.numbers if n.location is not None
        ]

    def _run(self, batch: dict[str, Any]) -> tuple[Mapping[str, Any] | None, Tensor]:
        with torch.set_grad_enabled(self.train):
            outputs, loss = self.call(batch)
        if loss is None:
            raise ValueError("The component did not return a 'loss' from the input.")
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            what = (
                f"of shape {tuple(loss.shape)}"
                if isinstance(loss, Tensor)
                else f"of type {type(loss).__name__}"
            )
            raise TraceError(
                f"forward returned a loss {what}; expected a tensor with one element. Return its "
                "mean or sum."
            )
        return outputs, loss

    def _differentiate(self, loss: Tensor, leaves: list[Tensor]) -> list[Tensor]:
        if not self.train:
            self.gradients = ()
            return []
        if not loss.requires_grad:
            raise TraceError(
                f"The loss depends on none of the {len(leaves)} trained parameters, so nothing "
                "can be learned from it. Look for a detach, a no_grad block, or parameters with "
                "requires_grad=False."
            )
        divisor = self._divisor
        with marked(BACKWARD):
            divided = loss if divisor == 1 else loss / divisor
            gradients = torch.autograd.grad(divided, leaves, allow_unused=True) if leaves else ()
            found = [gradient for gradient in gradients if gradient is not None]
            found = found if divisor == 1 else [gradient * divisor for gradient in found]
        pairs = zip(self.trained, gradients, strict=True)
        self.gradients = tuple(name for name, gradient in pairs if gradient is not None)
        return found

    def _after(self, placed: Mapping[str, Tensor]) -> list[Tensor]:
        """Return the component's tensors after forward; reshaped ones as they were before it."""
        reshaped, replaced, after = {}, [], []
        for name, before in placed.items():
            try:
                value = current(self.inventory, name, before)
            except ValueError as error:
                raise TraceError(str(error)) from error
            if name in self.trained and value is not before:
                raise TraceError(
                    f"forward replaces {name}, which the optimizer updates, with another tensor. "
                    "Write to it in place, under torch.no_grad(), or compute with the other "
                    "tensor directly."
                )
            if value is not before:
                replaced.append(name)
            if value.shape != before.shape or value.dtype != before.dtype:
                reshaped[name] = value
                value = before
            after.append(value)
        self.reshaped, self.replaced = reshaped, tuple(replaced)
        return after


def _apart(value: Tensor) -> Tensor:
    """Return a tensor without its history, and not in memory of NumPy, which is to be restored."""
    value = value.detach()
    if type(value) is not Tensor or value.layout != torch.strided:
        return value
    return value if value.untyped_storage().resizable() else value.clone()
