"""Digests of how the results of a recording are computed, to compare two recordings."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx
from torch.fx.node import map_arg

from medjax_torch.component_state import to_numpy
from medjax_torch.graph.guards import is_random
from medjax_torch.graph.joint import Joint
from medjax_torch.graph.read_numbers import Expression


@dataclass(frozen=True)
class Summary:
    """A summary of a recording; recordings that compute the same have equal summaries.

    Attributes
    ----------
    core : tuple
        Names and digests of loss, gradients and state.
    outputs : dict of str to list of (str, object)
        The path and the content of each leaf, by output.
    """

    core: tuple[Any, ...]
    outputs: dict[str, list[tuple[str, Any]]]


def summary(joint: Joint, recorded: fx.GraphModule) -> Summary:
    """Return a summary of what `joint` has just recorded."""
    digests = _digests(recorded)
    results: Any = recorded.graph.output_node().args[0]
    digested = [digests[node] for node in results]
    first = 1 + len(joint.gradients)
    last = first + len(joint.outputs.names)
    outputs = {
        key: [
            (path, _content(kind, [digested[first + p] for p in positions]))
            for path, kind, positions in joint.outputs.parts(key)
        ]
        for key in joint.outputs.keys
    }
    state = digested[last : last + len(joint.state)]
    return Summary((*joint.gradients, *digested[:first], *state, *joint.reshaped), outputs)


def _content(kind: Any, digests: Sequence[str]) -> Any:
    if isinstance(kind, Expression):
        return _shape(kind), *digests
    return tuple(digests) if digests else (type(kind).__name__, repr(kind))


def _shape(expression: Expression) -> Any:
    operands = (
        _shape(o) if isinstance(o, Expression) else "tensor" if isinstance(o, Tensor) else repr(o)
        for o in expression.operands
    )
    return (expression.function, *operands)


class _Digest:
    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def _digests(recorded: fx.GraphModule) -> dict[fx.Node, str]:
    digests: dict[fx.Node, str] = {}
    nb_inputs = nb_draws = 0
    for node in recorded.graph.nodes:
        if node.op == "placeholder":
            parts: tuple[Any, ...] = ("input", nb_inputs)
            nb_inputs += 1
        elif node.op == "get_attr":
            value = getattr(recorded, node.target)
            parts = ("constant", _of_constant(value))
        elif node.op == "output":
            break
        else:
            digest: Any = {n: _Digest(digests[n]) for n in node.all_input_nodes}
            inputs = map_arg((node.args, node.kwargs), digest.__getitem__)
            parts = (str(node.target), inputs)
            if is_random(node):
                parts += (nb_draws,)
                nb_draws += 1
        digests[node] = hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()
    return digests


def _of_constant(value: Any) -> str:
    if not isinstance(value, Tensor):
        return repr(value)
    array = to_numpy(value.detach())
    content = hashlib.blake2b(array.tobytes(), digest_size=16).hexdigest()
    return f"{array.dtype}{array.shape}{content}"
