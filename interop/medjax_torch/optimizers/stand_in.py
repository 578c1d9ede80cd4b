"""Running a torch optimizer's step on other tensors than its own."""

from __future__ import annotations

import copy
import inspect
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from medjax_torch.graph.errors import TraceError

Entries = dict[str, Any]
"""A parameter group without its parameters."""

States = dict[str, dict[str, Any]]
"""An optimizer's state by parameter name."""

_CONTAINERS = (list, tuple, dict, set)
NOTES = ("_warned", "_opt_called")
"""Attributes in which torch stores flags about an optimizer that are not state."""


class _Noting(dict[str, Any]):
    """State of a parameter that records the first value of each entry."""

    def __init__(self) -> None:
        super().__init__()
        self.first: dict[str, Any] = {}

    def __setitem__(self, key: str, value: Any) -> None:
        self.first.setdefault(key, value.clone() if isinstance(value, Tensor) else value)
        super().__setitem__(key, value)

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Set an entry if it is missing, and return its value."""
        if key not in self:
            self[key] = default
        return self[key]

    def update(self, *arguments: Any, **entries: Any) -> None:
        """Set several entries."""
        for key, value in dict(*arguments, **entries).items():
            self[key] = value


class StandIn:
    """Runs an optimizer's step on other tensors, without changing the optimizer.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Provides the step of its class, and the attributes that the step reads.
    names : sequence of sequence of str
        For each group, the names of its parameters.

    Attributes
    ----------
    kind : str
        Full name of the class.
    parameters : dict of str to Tensor
        The optimizer's own parameters.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, names: Sequence[Sequence[str]]) -> None:
        self._optimizer = optimizer
        self._names = names
        self.kind = f"{type(optimizer).__module__}.{type(optimizer).__qualname__}"
        self.parameters: dict[str, Tensor] = {
            name: parameter
            for group, own in zip(optimizer.param_groups, names, strict=True)
            for parameter, name in zip(group["params"], own, strict=True)
        }

    def step(
        self,
        entries: Sequence[Entries],
        parameters: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor],
        states: Mapping[str, dict[str, Any]],
    ) -> tuple[States, States]:
        """Run a step, which may change parameters and tensors of the states in place.

        Parameters
        ----------
        entries : sequence of dict
            The groups without their parameters.
        parameters, gradients : mapping of str to Tensor
            Tensors by name; the gradient of a parameter that has none is None in torch.
        states : mapping of str to dict
            States by name; the step creates those that are missing.

        Returns
        -------
        after : dict
            The states after the step.
        first : dict
            The first value of each entry, for parameters that had no state.

        Raises
        ------
        TraceError
            If the step changes anything else of the optimizer than the state of parameters.
        """
        stand_in = object.__new__(type(self._optimizer))
        attributes = {n: _own(v) for n, v in vars(self._optimizer).items() if n != "step"}
        stand_in.__dict__.update(attributes)
        groups = [
            {**_own(group), "params": [parameters[name] for name in names]}
            for group, names in zip(entries, self._names, strict=True)
        ]
        state: Any = defaultdict(_Noting)
        for name, parameter in parameters.items():
            parameter.grad = gradients.get(name)
            if name in states:
                state[parameter] = dict(states[name])
        stand_in.param_groups, stand_in.state = groups, state
        attributes |= {"param_groups": groups, "state": state}
        before = {"its attributes": _content(attributes)}
        before |= {f"its group {i}": _content(group) for i, group in enumerate(groups)}
        type(self._optimizer).step(stand_in)
        after = {"its attributes": _content(vars(stand_in))}
        after |= {f"its group {i}": _content(group) for i, group in enumerate(groups)}
        self._check_same(before, after)
        by_name = {name: parameter for name, parameter in parameters.items() if parameter in state}
        self._check_owners(state, by_name)
        return (
            {name: dict(state[parameter]) for name, parameter in by_name.items()},
            {
                name: dict(state[parameter].first)
                for name, parameter in by_name.items()
                if isinstance(state[parameter], _Noting)
            },
        )

    def _check_same(self, before: dict[str, Any], after: dict[str, Any]) -> None:
        for place, content in after.items():
            for name in sorted(content.keys() | before[place].keys()):
                value, expected = content.get(name), before[place].get(name)
                if name.startswith(NOTES) or _is_same(value, expected):
                    continue
                raise TraceError(
                    f"the step of {self.kind} changes {name!r} of {place}; expected it to change "
                    "only parameters and self.state[parameter], which are all that the state in "
                    "JAX contains. Keep it in self.state[parameter], or return an "
                    "optax.GradientTransformation from configure_optimizer"
                )

    def _check_owners(self, state: Any, by_name: Mapping[str, Tensor]) -> None:
        if len(state) > len(by_name):
            raise TraceError(
                f"the step of {self.kind} keeps a state that belongs to no parameter; expected "
                "self.state to have only entries for parameters. Keep it in self.state[parameter], "
                "or return an optax.GradientTransformation from configure_optimizer"
            )


def refuse(optimizer: torch.optim.Optimizer) -> None:
    """Raise ValueError if the optimizer does more than its class's step on its parameters."""
    kind = f"{type(optimizer).__module__}.{type(optimizer).__qualname__}"
    other = "return an optax.GradientTransformation over {name: array} from configure_optimizer"
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    if isinstance(optimizer, torch.optim.LBFGS) or (
        closure is not None and closure.default is inspect.Parameter.empty
    ):
        raise ValueError(
            f"the optimizer is a {kind}, whose step needs a closure that recomputes the loss; "
            "expected an optimizer whose step only uses the gradients. Use another one, such as "
            f"torch.optim.AdamW, or {other}, for instance optax.adamw(lr)"
        )
    if isinstance(optimizer, torch.optim.SparseAdam):
        raise ValueError(
            f"the optimizer is a {kind}, whose step takes sparse gradients; expected SparseAdam "
            f"itself, or a step that takes dense gradients, as JAX's are. Otherwise {other}"
        )
    for name, value in vars(optimizer).items():
        values = value if isinstance(value, list | tuple) else [value]
        if any(isinstance(one, torch.optim.Optimizer) for one in values):
            raise ValueError(
                f"the {kind} has another optimizer in {name!r}; expected an optimizer whose step "
                "does not use another one. Combine both rules in one step, or "
                f"{other}, for instance with optax.lookahead or optax.multi_transform"
            )


def _own(value: Any) -> Any:
    """Copy nested containers, but not the objects in them."""
    if isinstance(value, dict) and type(value) in (dict, defaultdict):
        made = copy.copy(value)
        made.update({name: _own(element) for name, element in value.items()})
        return made
    if type(value) in (list, tuple):
        return type(value)(_own(element) for element in value)
    return set(value) if type(value) is set else value


def _content(holder: dict[str, Any]) -> dict[str, Any]:
    """Return the entries of a dict in a form that `_is_same` compares."""
    skipped = ("param_groups", "state", "params")
    return {str(n): _frozen(v) for n, v in holder.items() if n not in skipped}


def _frozen(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value, value._version
    if isinstance(value, dict):
        return [(name, _frozen(element)) for name, element in value.items()]
    if isinstance(value, list | tuple):
        return [_frozen(element) for element in value]
    return frozenset(value) if isinstance(value, set) else value


def _is_same(first: Any, second: Any) -> bool:
    if first is second:
        return True
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return len(first) == len(second) and all(map(_is_same, first, second))
    plain = (int, float, str, frozenset)
    return type(first) is type(second) and isinstance(first, plain) and first == second
