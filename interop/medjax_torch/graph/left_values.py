"""The values that a run of forward leaves in the component, and whether they are constants."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, fx

from medjax_torch.component_state import Inventory
from medjax_torch.component_state.locations import MISSING, Location
from medjax_torch.graph import host_random
from medjax_torch.graph.environment import silent, tracing
from medjax_torch.graph.guards import add_guards, ancestry, is_random
from medjax_torch.graph.joint import Call, Joint
from medjax_torch.graph.numbers import Number
from medjax_torch.graph.passes import Rules, functionalize, record
from medjax_torch.graph.read_numbers import following_math
from medjax_torch.graph.reader import PASSED_ON, Reader

UNDECIDED: Any = object()
"""Stands for a tensor that depends on more than constants, or may do so."""


class Left(NamedTuple):
    """What a run of forward leaves.

    Attributes
    ----------
    values : dict of str to value
        The values that it changed, by path: true tensors, not recorded ones, or `UNDECIDED`.
    sources : frozenset of str
        The parameters and buffers that the constants among them are computed from.
    """

    values: dict[str, Any]
    sources: frozenset[str]


def left_values(
    call: Call,
    inventory: Inventory,
    batch: Mapping[str, Any],
    places: Mapping[str, Location],
    *,
    train: bool,
    rules: Rules,
    numbers: Sequence[Number] = (),
    changing: Collection[str] = (),
) -> Left:
    """Return what forward leaves in the places whose value it changes.

    A tensor is a constant if it depends neither on the batch, nor on state that changes, nor on a
    random number, and is complete before Python reads the first value of a tensor: what follows
    might depend on that value unseen.

    Parameters
    ----------
    call, inventory, batch, train, rules, numbers, changing
        As for `trace`.
    places : mapping of str to Location
        Where to look, by path.
    """
    looking = _Looking(call, places)
    joint = Joint(looking, inventory, batch, train=train, numbers=numbers, mark=rules.mark)

    def forward(*inputs: Tensor) -> list[Tensor]:
        joint.forward(*inputs)
        return [value.detach() for value in looking.tensors.values()]

    inputs = joint.arguments()
    reader = Reader(len(joint.trained) + len(joint.frozen))
    with (
        host_random.watched(inventory.content.generators),
        silent(),
        reader,
        following_math(),
        tracing({**rules.replacements, **PASSED_ON}),
    ):
        first = record(forward, inputs, "real", rules)
        add_guards(first)
        recorded = functionalize(first, inputs, "real", rules)
    results: Any = recorded.graph.output_node().args[0]
    made = dict(zip(looking.tensors, results, strict=False))
    steady = set(joint.state) - set(changing) - set(joint.trained)
    state = dict(zip(recorded.graph.find_nodes(op="placeholder"), joint.state, strict=False))
    fixed = _fixed(recorded.graph, results[len(made) :], {n for n in state if state[n] in steady})
    if any(read.kind == "array" for read in reader.reads):
        fixed = set()
    constant = {path: node for path, node in made.items() if ancestry(node) <= fixed}
    values = {
        path: value.detach().clone() if path in constant else UNDECIDED
        for path, value in looking.tensors.items()
    }
    behind = ancestry(*constant.values())
    return Left({**looking.left, **values}, frozenset(state[n] for n in behind if n in state))


class _Looking:
    """A component's forward that looks afterwards at what it has left.

    Attributes
    ----------
    left : dict of str to value
        After a call, the values that it changed.
    """

    def __init__(self, call: Call, places: Mapping[str, Location]) -> None:
        self._call, self._places = call, places
        self.divisor: int = getattr(call, "divisor", 1)
        self.left: dict[str, Any] = {}

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors among the values."""
        return {path: value for path, value in self.left.items() if isinstance(value, Tensor)}

    def __call__(self, batch: dict[str, Any]) -> Any:
        before = {path: location.get() for path, location in self._places.items()}
        results = self._call(batch)
        after = {path: location.get() for path, location in self._places.items()}
        self.left = {
            path: value
            for path, value in after.items()
            if value is not MISSING and value is not before[path]
        }
        return results


def _fixed(graph: fx.Graph, read: Sequence[fx.Node], steady: set[fx.Node]) -> set[fx.Node]:
    """Return the nodes before the first that Python read, without draws and other inputs."""
    fixed, compared = set(), set(read)
    for node in graph.nodes:
        if node in compared:
            break
        if node in steady or not (node.op == "placeholder" or is_random(node)):
            fixed.add(node)
    return fixed
