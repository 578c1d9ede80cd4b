"""What torch itself computes for a batch, with nothing random: what a graph has to equal."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.utils._pytree as pytree
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from medjax_torch.graph import host_random
from medjax_torch.graph.batches import flatten
from medjax_torch.graph.environment import plain_kernels
from medjax_torch.graph.joint import Call, Joint
from medjax_torch.graph.passes import without_generator
from medjax_torch.graph.record import Graph
from medjax_torch.lowerings.fixed_draws import FIXED_DRAWS, UNSPREAD, steps
from medjax_torch.modules import Found, read
from medjax_torch.tensors import to_numpy

aten = torch.ops.aten


class Outcome(NamedTuple):
    """Everything that a step or an evaluation computes, by name, as numpy arrays.

    Attributes
    ----------
    loss : array
        Scalar.
    gradients : dict of str to array
        Of the parameters that the loss depends on; empty in evaluation.
    outputs : dict of str to array
        Tensors and numbers among forward's outputs, by path.
    state : dict of str to array
        Every parameter and buffer as forward left it.
    """

    loss: np.ndarray
    gradients: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]
    state: dict[str, np.ndarray]


def reference(
    call: Call,
    found: Found,
    batch: Mapping[str, Any],
    *,
    train: bool,
    spread: bool = True,
    drops_layers: bool = False,
    mark: float = 0.0,
    leave_out: Collection[str] = (),
) -> Outcome:
    """Run forward, and in training backward, in torch, on copies and with fixed draws.

    Parameters
    ----------
    call : Call
        The component's forward, as `graph.trace` takes it.
    found : Found
        The component's content. It and every random generator are left as they were.
    batch : mapping of str to value
        The batch.
    train : bool
        Whether to compute gradients of the parameters that require one.
    spread : bool
        Whether draws differ from element to element, as they do in `lowerings.run` without a key.
        If not, they are all alike, whatever the shape, and dropout keeps everything.
    drops_layers : bool
        Whether scalars of `torch.rand` are the smallest it draws, for which LayerDrop leaves out
        every layer.
    mark : float
        See `Joint`.
    leave_out : collection of str
        Outputs of forward that are not wanted.

    Raises
    ------
    ValueError
        If forward draws with an operation for which there is no convention.
    Exception
        Whatever forward raises on this batch.
    """
    joint = Joint(call, found, batch, train=train, mark=mark)
    with (
        host_random.watched(found.content.generators),
        plain_kernels(),
        FixedDraws(spread=spread, drops_layers=drops_layers),
    ):
        values = joint.forward(*joint.arguments())
    arrays = [to_numpy(value.to_dense()) for value in values]
    first = 1 + len(joint.gradients)
    last = first + len(joint.outputs.names)
    given = joint.outputs.rebuild(arrays[first:last])
    return Outcome(
        loss=arrays[0],
        gradients=dict(zip(joint.gradients, arrays[1:first], strict=True)),
        outputs=_numeric({n: value for n, value in given.items() if n not in leave_out}),
        state=dict(zip(joint.state, arrays[last:], strict=True)),
    )


def outcome_of(graph: Graph, found: Found, values: Sequence[np.ndarray]) -> Outcome:
    """Return the outcome that a graph's results are, with what it leaves alone of the state."""
    results = graph.results(values)
    names = graph.outputs.names
    outputs = graph.cut(dict(zip(names, results.outputs, strict=True)), results.sizes)
    return Outcome(
        loss=results.loss,
        gradients=results.gradients,
        outputs=_numeric(graph.outputs.rebuild([outputs[name] for name in names])),
        state={**read(found), **results.updated},
    )


def _numeric(outputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    leaves, _ = flatten(outputs)
    return {name: np.asarray(leaf) for name, leaf in leaves.items() if is_numeric(leaf)}


def is_numeric(leaf: Any) -> bool:
    """Tell whether an output is an array or a number."""
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
"""Operations that write to their arguments, and those that `functionalize` makes of them."""


class FixedDraws(TorchDispatchMode):
    """Overwrites what random operations draw by what `fixed_draws` says.

    Parameters
    ----------
    spread, drops_layers : bool
        See `reference`.
    """

    def __init__(self, *, spread: bool, drops_layers: bool = False) -> None:
        super().__init__()
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
        written = [value for value, argument in _given(func, args) if argument.is_write]
        before = [
            value.clone() if argument.is_write else value for value, argument in _given(func, args)
        ]
        result = func(*args, **options)
        targets = [*pytree.tree_leaves(result)]
        targets += [value for value in written if all(value is not other for other in targets)]
        place = self._steps(targets[0])
        if self._drops_layers and functional is aten.rand.default and targets[0].dim() == 0:
            place = torch.zeros_like(place)
        drawn = FIXED_DRAWS[functional](place, *before, **options)
        for target, value in zip(targets, drawn if len(targets) > 1 else [drawn], strict=True):
            target.copy_(torch.as_tensor(value))
        return result

    def _decomposed(self, func: Any, args: tuple[Any, ...], options: Any) -> Any:
        """Run what is made of other operations, as all are that inference mode leaves whole."""
        with self:
            result = func.decompose(*args, **options)
        if result is NotImplemented:
            raise ValueError(
                f"forward calls {func}, which draws random numbers and has no JAX lowering. Use "
                "another random function of torch, such as torch.rand or bernoulli."
            )
        return result

    def _steps(self, result: Tensor) -> Tensor:
        if not self._spread:
            return torch.full(result.shape, UNSPREAD, device=result.device)
        return steps(torch.arange(result.numel(), device=result.device).reshape(result.shape))


@functools.cache
def _functional(func: Any) -> Any:
    return _FUNCTIONAL.get(func) or without_generator(func)


def _given(func: Any, args: tuple[Any, ...]) -> list[tuple[Any, Any]]:
    """Return the positional arguments with what the schema says about each."""
    return list(zip(args, func._schema.arguments, strict=False))
