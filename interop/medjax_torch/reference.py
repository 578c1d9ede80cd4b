"""What torch itself computes for a batch, with nothing drawn: the reference for JAX."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from medjax_torch.graph.environment import plain_kernels
from medjax_torch.graph.joint import Call, Joint
from medjax_torch.lowerings.fixed_draws import (
    dropout_scale,
    fixed_value,
    has_fixed_value,
    named,
    rrelu_slope,
)
from medjax_torch.modules import Found


class Reference(NamedTuple):
    """What torch computed.

    Attributes
    ----------
    loss : Tensor
        Shape ().
    gradients : dict of str to Tensor
        Of the trained parameters that have one.
    outputs : dict of str to Tensor
        The tensors of forward's outputs by path.
    after : dict of str to Tensor
        Every parameter and buffer as forward left it.
    """

    loss: Tensor
    gradients: dict[str, Tensor]
    outputs: dict[str, Tensor]
    after: dict[str, Tensor]


def reference(call: Call, found: Found, batch: Mapping[str, Any], *, train: bool) -> Reference:
    """Run forward, and in training torch's backward, on copies of the component's tensors.

    Parameters
    ----------
    call : Call
        The component's forward.
    found : Found
        The component's content; left as it was.
    batch : mapping of str to value
        A collated batch.
    train : bool
        Whether to compute gradients.

    Raises
    ------
    Exception
        Whatever forward raises.
    """
    joint = Joint(call, found, batch, train=train)
    with nothing_drawn():
        values = joint.forward(*joint.arguments())
    first = 1 + len(joint.gradients)
    last = first + len(joint.outputs.names)
    return Reference(
        values[0],
        dict(zip(joint.gradients, values[1:first], strict=True)),
        dict(zip(joint.outputs.names, values[first:last], strict=True)),
        dict(zip(joint.state, values[last:], strict=True)),
    )


@contextmanager
def nothing_drawn() -> Iterator[None]:
    """Run torch by the convention of `fixed_draws`, its generators left as they were."""
    with torch.random.fork_rng(devices=[]), plain_kernels(), _Fixed():
        yield


class _Fixed(TorchDispatchMode):
    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name, given = named(func, args, kwargs or {})
        if name == "native_dropout":
            kept = given.get("train") is not False
            x = given["input"]
            scale = dropout_scale(given["p"]) if kept else 1
            return x * scale, torch.ones_like(x, dtype=torch.bool)
        if name == "rrelu_with_noise" and given.get("training"):
            slope = torch.where(given["self"] <= 0, rrelu_slope(given), 1.0)
            given["noise"].copy_(slope)
            return given["self"] * slope
        if not has_fixed_value(name):
            return func(*args, **(kwargs or {}))
        # Called for the shape and type of its result, which it may write in place.
        value = torch.as_tensor(fixed_value(name, given))
        drawn = func(*args, **(kwargs or {}))
        drawn.copy_(value.expand(drawn.shape))
        return drawn
