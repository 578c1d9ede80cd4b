"""The reference for a graph: what torch computes for a batch, with random draws fixed."""

from __future__ import annotations

import contextlib
import enum
import functools
import operator
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from medjax.runtime import is_compiling_aside
from medjax_torch.component_state import Inventory, as_numpy, read, to_numpy
from medjax_torch.graph import host_random
from medjax_torch.graph.batch_columns import flatten
from medjax_torch.graph.environment import plain_kernels
from medjax_torch.graph.graph import Graph
from medjax_torch.graph.joint import Call, Joint
from medjax_torch.graph.passes import without_generator
from medjax_torch.lowerings.fixed_draws import FIXED_DRAWS, LARGEST, steps
from medjax_torch.torch_internals import TorchDispatchMode, pytree
from medjax_torch.verification.trail import Operation

aten = torch.ops.aten


_PLACES = 2**13
"""Draws of `Spread.RISING` and `Spread.FALLING` differ at so many places, and no more beyond."""


class Spread(enum.Enum):
    """How fixed draws differ between the elements of a result.

    Attributes
    ----------
    EVEN
        As random numbers do.
    RISING, FALLING
        By next to nothing, so that dropout keeps everything, and by the place along each axis: an
        element that stays where it is gets the same number in a longer result. What is longer gets
        the largest numbers, or the smallest there are. Of classes that are as likely, the last is
        drawn, or the first.
    """

    EVEN = "even"
    RISING = "rising"
    FALLING = "falling"


class Outcome(NamedTuple):
    """All results of a step or an evaluation, by name, as numpy arrays.

    Attributes
    ----------
    loss : array
        The loss, a scalar.
    gradients : dict of str to array
        Gradients of the parameters on which the loss depends; empty in evaluation.
    outputs : dict of str to array
        Tensors and numbers among forward's outputs, by path.
    state : dict of str to array
        All parameters and buffers after forward.
    trail : sequence of Operation
        What forward has called for it; empty where that was not noted.
    drawn : sequence of tuple of int
        The shapes of what was drawn; empty for a graph.
    """

    loss: np.ndarray
    gradients: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]
    state: dict[str, np.ndarray]
    trail: Sequence[Operation] = ()
    drawn: Sequence[tuple[int, ...]] = ()

    @property
    def says_something(self) -> bool:
        """Whether any number is finite; at impossible weights, none is."""
        arrays = [self.loss, *self.gradients.values(), *self.outputs.values()]
        return any(array.size and np.isfinite(array).any() for array in arrays)

    @property
    def is_telling(self) -> bool:
        """Whether the loss is a number, and not 0, with gradients if they were asked for.

        If none of the rows has a label, it is 0 or no number.
        """
        told = [*self.gradients.values()] or [self.loss]
        return bool(np.isfinite(self.loss).all()) and any(array.any() for array in told)


def reference(
    call: Call,
    inventory: Inventory,
    batch: Mapping[str, Any],
    *,
    train: bool,
    spread: Spread = Spread.EVEN,
    shorter: Sequence[tuple[int, ...]] = (),
    drops_layers: bool = False,
    mark: float = 0.0,
    leave_out: Collection[str] = (),
) -> Outcome:
    """Run forward, and in training backward, in torch, on copies and with fixed random draws.

    Parameters
    ----------
    call : Call
        The component's forward, as in `graph.trace`.
    inventory : Inventory
        The component's tensors. They and all random generators are left unchanged.
    batch : mapping of str to value
        The batch.
    train : bool
        Whether to compute gradients of the parameters that require them.
    spread : Spread
        How draws differ between elements; by default as in `lowerings.run` without a key.
    shorter : sequence of tuple of int
        `Outcome.drawn` of a shorter batch, to which `spread` refers.
    drops_layers : bool
        Whether scalars of `torch.rand` are the smallest it draws, for which LayerDrop leaves out
        every layer.
    mark : float
        As in `Joint`.
    leave_out : collection of str
        Outputs of forward to leave out.

    Raises
    ------
    ValueError
        If forward draws with an operation for which no fixed draws are defined.
    Exception
        Any exception of forward on this batch.
    """
    joint = Joint(call, inventory, batch, train=train, mark=mark)
    with (
        _sharing_cores(),
        host_random.watched(inventory.content.generators),
        plain_kernels(),
        FixedDraws(spread=spread, shorter=shorter, drops_layers=drops_layers) as draws,
    ):
        values = joint.forward(*joint.arguments())
    first = 1 + len(joint.gradients)
    last = first + len(joint.outputs.names)
    # Nothing but this outcome holds the joint's copies; of the rest forward may hold any.
    owned = set(joint.state) - set(joint.replaced)
    names = [*[""] * last, *joint.state]
    arrays = [
        (as_numpy if name in owned else to_numpy)(value.to_dense())
        for name, value in zip(names, values, strict=True)
    ]
    outputs = joint.outputs.rebuild(arrays[first:last])
    return Outcome(
        loss=arrays[0],
        gradients=dict(zip(joint.gradients, arrays[1:first], strict=True)),
        outputs=_numeric({n: value for n, value in outputs.items() if n not in leave_out}),
        state=dict(zip(joint.state, arrays[last:], strict=True)),
        drawn=draws.shapes,
    )


@contextlib.contextmanager
def _sharing_cores() -> Iterator[None]:
    """Leave half of the cores to XLA while it compiles: torch's threads wait for the slowest."""
    number = torch.get_num_threads()
    if is_compiling_aside():
        torch.set_num_threads(max(1, number // 2))
    try:
        yield
    finally:
        torch.set_num_threads(number)


def outcome_of(graph: Graph, inventory: Inventory, values: Sequence[np.ndarray]) -> Outcome:
    """Convert a graph's results to an outcome, including the state that it does not update."""
    results = graph.results(values)
    names = graph.outputs.names
    outputs = graph.cut(dict(zip(names, results.outputs, strict=True)), results.sizes)
    return Outcome(
        loss=results.loss,
        gradients=results.gradients,
        outputs=_numeric(graph.outputs.rebuild([outputs[name] for name in names])),
        state={**read(inventory), **results.updated},
    )


def _numeric(outputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    leaves, _ = flatten(outputs)
    return {name: np.asarray(leaf) for name, leaf in leaves.items() if is_numeric(leaf)}


def is_numeric(leaf: Any) -> bool:
    """Return whether an output is an array or a number."""
    return isinstance(leaf, np.ndarray | bool | int | float)


_FUNCTIONAL: dict[Any, Any] = {
    aten.bernoulli_.float: aten.bernoulli.p,
    aten.bernoulli_.Tensor: aten.bernoulli.Tensor,
    aten.uniform_.default: aten.uniform.default,
    aten.normal_.default: aten.normal_functional.default,
    aten.exponential_.default: aten.exponential.default,
    aten.cauchy_.default: aten.cauchy.default,
    aten.geometric_.default: aten.geometric.default,
    aten.log_normal_.default: aten.log_normal.default,
    aten.rrelu_with_noise.default: aten.rrelu_with_noise_functional.default,
    aten.rrelu_with_noise_.default: aten.rrelu_with_noise_functional.default,
}
"""Operators that write to their arguments, and the operators `functionalize` replaces them by."""


class FixedDraws(TorchDispatchMode):
    """A dispatch mode that replaces random draws by those of `fixed_draws`.

    Parameters
    ----------
    spread : Spread
    shorter : sequence of tuple of int
    drops_layers : bool
        As in `reference`.

    Attributes
    ----------
    shapes : list of tuple of int
        The shapes of what was drawn so far.
    """

    def __init__(
        self,
        *,
        spread: Spread = Spread.EVEN,
        shorter: Sequence[tuple[int, ...]] = (),
        drops_layers: bool = False,
    ) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []
        self._shorter = shorter
        self._drops_layers = drops_layers
        self._spread = spread

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        options = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **options)
        functional = _functional(func)
        if functional not in FIXED_DRAWS:
            return self._decomposed(func, args, options)
        arguments = _with_schema(func, args)
        written = [value for value, argument in arguments if argument.is_write]
        before = [value.clone() if argument.is_write else value for value, argument in arguments]
        result = func(*args, **options)
        targets = [*pytree.tree_leaves(result)]
        targets += [value for value in written if all(value is not other for other in targets)]
        place = self._steps(targets[0])
        self.shapes.append(tuple(targets[0].shape))
        if self._drops_layers and functional is aten.rand.default and targets[0].dim() == 0:
            place = torch.zeros_like(place)
        draw = FIXED_DRAWS[functional]
        if functional is aten.multinomial.default and self._spread is Spread.RISING:
            draw = _last_of_equals
        drawn = draw(place, *before, **options)
        for target, value in zip(targets, drawn if len(targets) > 1 else [drawn], strict=True):
            target.copy_(torch.as_tensor(value))
        return result

    def _decomposed(self, func: Any, args: tuple[Any, ...], options: Any) -> Any:
        """Run an operation by its decomposition; inference mode does not decompose operations."""
        with self:
            result = func.decompose(*args, **options)
        if result is NotImplemented:
            raise ValueError(
                f"forward calls {func}, which draws random numbers and has no JAX lowering. Use "
                "another torch random function, such as torch.rand or torch.bernoulli."
            )
        return result

    def _steps(self, result: Tensor) -> Tensor:
        if self._spread is Spread.EVEN:
            index = torch.arange(result.numel(), device=result.device)
            returned: Tensor = steps(index.reshape(result.shape))
            return returned
        place = torch.zeros(result.shape, dtype=torch.int64, device=result.device)
        for axis, size in enumerate(result.shape):
            place.transpose(axis, -1).add_(torch.arange(size, device=result.device))
        place.clamp_(max=_PLACES)
        if self._spread is Spread.RISING:
            return LARGEST - _PLACES + place
        falling = LARGEST - place
        for axis, size in enumerate(self._shorter_shape(result)):
            falling.narrow(axis, size, max(0, result.shape[axis] - size)).zero_()
        return falling

    def _shorter_shape(self, result: Tensor) -> tuple[int, ...]:
        """Return the shape that a shorter batch has drawn at this place, if it has."""
        number = len(self.shapes)
        shape = self._shorter[number] if number < len(self._shorter) else ()
        fits = len(shape) == result.dim() and all(map(operator.le, shape, result.shape))
        return shape if fits else ()


def _last_of_equals(place: Tensor, weights: Tensor, *args: Any, **options: Any) -> Tensor:
    draw = FIXED_DRAWS[aten.multinomial.default]
    drawn: Tensor = weights.shape[-1] - 1 - draw(place, weights.flip(-1), *args, **options)
    return drawn


@functools.cache
def _functional(func: Any) -> Any:
    return _FUNCTIONAL.get(func) or without_generator(func)


def _with_schema(func: Any, args: tuple[Any, ...]) -> list[tuple[Any, Any]]:
    """Return the positional arguments, each with its entry in the schema."""
    return list(zip(args, func._schema.arguments, strict=False))
