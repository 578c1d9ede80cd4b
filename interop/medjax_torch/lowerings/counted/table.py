"""The table of operators that accept tensors whose size is counted: when they may run, and how."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import sympy
from torch.fx import Node

from medjax_torch.graph.errors import at, line_of_stack
from medjax_torch.graph.sizes import Condition, ExactShapesError, Length, lengths
from medjax_torch.lowerings.counted.counts import Counts, Number

Function = TypeVar("Function", bound=Callable[..., Any])
Check = Callable[[Node], Iterable[Any] | None]
"""Raises `ExactShapesError` if an operator cannot run; returns the relations it relies on."""


class Call(NamedTuple):
    """A call of an operator.

    Attributes
    ----------
    node : Node
        The recorded call.
    counts : Counts
        The counts so far.
    ordinary : callable
        Runs the operator's lowering for fixed sizes on its arguments.
    """

    node: Node
    counts: Counts
    ordinary: Callable[..., Any]

    def recorded(self, position: int) -> Any:
        """Return the recorded value of an argument."""
        return value_of(self.node.args[position])

    def shape(self, position: int) -> tuple[Length, ...]:
        """Return the recorded shape of an argument."""
        return lengths(self.recorded(position))

    @property
    def output(self) -> Any:
        """The recorded result."""
        return self.node.meta["val"]

    def filled(
        self, x: jax.Array, position: int, value: Any, dims: Iterable[int] | None = None
    ) -> jax.Array:
        """Replace the padding of an argument with `value`."""
        return self.counts.filled(x, self.recorded(position), value, dims)


class Rule(NamedTuple):
    """A row of the table; without `run`, the lowering for fixed sizes is used unchanged."""

    check: Check
    run: Callable[..., Any] | None


RULES: dict[Any, Rule] = {}
"""All rows. Each module of this package adds its own when it is imported."""


def counts_in(*targets: Any, check: Check) -> Callable[[Function], Function]:
    """Register the decorated function as the implementation of each target."""

    def enter(function: Function) -> Function:
        for target in targets:
            assert target not in RULES, target
            RULES[target] = Rule(check, function)
        return function

    return enter


def as_it_is(*targets: Any, check: Check = lambda node: None) -> None:
    """Register targets whose lowering for fixed sizes works with padding, if `check` passes."""
    for target in targets:
        assert target not in RULES, target
        RULES[target] = Rule(check, None)


def value_of(argument: Any) -> Any:
    """Return the recorded value of an argument."""
    return argument.meta.get("val") if isinstance(argument, Node) else argument


def shape_of(node: Any) -> tuple[Length, ...]:
    """Return the recorded shape of a node."""
    return lengths(node.meta["val"])


def refuse(node: Node, why: str) -> ExactShapesError:
    """Return the error which says that a node needs exact shapes."""
    return ExactShapesError(f"{node.target} {why}{at(line_of_stack(node.stack_trace))}")


def need(fulfilled: Any, node: Node, why: str = "is not known to ignore padding") -> None:
    """Raise `ExactShapesError` unless a condition is fulfilled."""
    if not fulfilled:
        raise refuse(node, why)


def is_plain(size: Any) -> bool:
    """Return whether a size or a number is fixed."""
    return isinstance(size, int)


def argument(node: Node, position: int, name: str, default: Any = None) -> Any:
    """Return an argument of a node, whether passed by position or by name."""
    if len(node.args) > position:
        return node.args[position]
    return node.kwargs.get(name, default)


def relied_on(node: Node, relations: Iterable[Any] | None) -> Iterator[Condition]:
    """Yield relations together with the node's line of code."""
    for relation in relations or ():
        if relation is not True and relation is not sympy.true:
            yield Condition(relation, line_of_stack(node.stack_trace))


def numbers(target: Any, arguments: Sequence[Any], options: dict[str, Any]) -> Any:
    """Replace each `Number` by its bound where the schema has an integer, else by its value."""
    schema = getattr(target, "_schema", None)
    kinds = [str(a.real_type) for a in schema.arguments] if schema else []
    named = {a.name: str(a.real_type) for a in schema.arguments} if schema else {}

    def plain(value: Any, kind: str) -> Any:
        if isinstance(value, Number):
            return value.bound if "Int" in kind or "int" in kind else value.value
        if isinstance(value, list | tuple):
            return [plain(v, kind) for v in value]
        return value

    placed = [plain(v, k) for v, k in zip(arguments, kinds + [""] * len(arguments), strict=False)]
    return tuple(placed), {name: plain(v, named.get(name, "")) for name, v in options.items()}
