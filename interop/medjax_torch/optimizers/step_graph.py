"""An optimizer's step as a functional graph of parameters, gradients, states and numbers."""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, fx

from medjax_torch.component_state import to_numpy
from medjax_torch.graph import host_random
from medjax_torch.graph.checks import viewed, written_by
from medjax_torch.graph.environment import tracing
from medjax_torch.graph.errors import TraceError, at
from medjax_torch.graph.guards import is_random
from medjax_torch.graph.passes import Rules, functionalize, record
from medjax_torch.graph.replacing import replaced
from medjax_torch.lowerings import decompositions
from medjax_torch.optimizers.entries import numbers_of, with_numbers
from medjax_torch.optimizers.first_step import StateSpecs
from medjax_torch.optimizers.foreach import ONE_BY_ONE
from medjax_torch.optimizers.numbers import (
    REPLACEMENTS,
    BranchesOnValueError,
    Decision,
    Numbers,
    as_tensor,
)
from medjax_torch.optimizers.stand_in import Entries, StandIn, States

aten = torch.ops.aten

_NOT_DECOMPOSED = (
    aten.addcdiv.default,
    aten.addcmul.default,
    aten.lerp.Scalar,
    aten.lerp.Tensor,
)
"""Operations with a lowering whose decompositions in torch read the values of numbers."""


class StepGraph(NamedTuple):
    """A step without mutation, views or Python code.

    Attributes
    ----------
    module : fx.GraphModule
        Takes parameters, gradients, state entries and numbers, and returns parameters and state
        entries. Entries that are numbers in torch are float64 tensors of shape ().
    constants : dict of str to numpy array
        Constants of the graph.
    decisions : tuple of Decision
        Decisions that must have the same outcome for the graph to be valid.
    """

    module: fx.GraphModule
    constants: dict[str, np.ndarray]
    decisions: tuple[Decision, ...]


class Traced:
    """The step of an optimizer as a function that can be traced.

    Parameters
    ----------
    stand_in : StandIn
        Runs the step.
    entries : sequence of dict
        The groups, with their current numbers.
    parameters : mapping of str to Tensor
        All parameters of the groups.
    trained : sequence of str
        The parameters that get a gradient.
    slots : dict
        The state of each parameter.
    is_first : bool
        Whether this step creates the states.

    Attributes
    ----------
    trained : sequence of str
        The parameters that get a gradient.
    """

    def __init__(
        self,
        stand_in: StandIn,
        entries: Sequence[Entries],
        parameters: Mapping[str, Tensor],
        trained: Sequence[str],
        slots: StateSpecs,
        *,
        is_first: bool,
    ) -> None:
        self._stand_in, self._entries, self._is_first = stand_in, entries, is_first
        self.trained, self._slots = trained, slots
        self._parameters = {name: parameters[name].detach().cpu() for name in trained}
        # torch skips parameters without a gradient, so their values must not matter.
        self._others = {n: torch.zeros_like(p) for n, p in parameters.items() if n not in trained}
        self._numbers = Numbers()
        self._paths = [(i, path) for i, group in enumerate(entries) for path in numbers_of(group)]

    @property
    def kept(self) -> list[tuple[str, str]]:
        """Parameter and entry of each state input, in order."""
        return entries_kept(self._slots)

    def inputs(
        self,
        entries: Sequence[Entries],
        parameters: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor],
        states: States,
    ) -> list[Tensor]:
        """Return values in the order of the graph's inputs."""
        inputs = [parameters[name].clone() for name in self.trained]
        inputs += [gradients[name].clone() for name in self.trained]
        for name, entry in () if self._is_first else self.kept:
            dtype = self._slots[name][entry].dtype or torch.float64
            inputs.append(torch.as_tensor(states[name][entry], dtype=dtype).clone())
        numbers = [numbers_of(group) for group in entries]
        inputs += [torch.tensor(numbers[i][path], dtype=torch.float64) for i, path in self._paths]
        return inputs

    def _arguments(self) -> list[Tensor]:
        zeros = {name: torch.zeros_like(value) for name, value in self._parameters.items()}
        states: States = {name: {} for name in self._slots}
        for name, entry in self.kept:
            states[name][entry] = self._empty(name, entry)
        return self.inputs(self._entries, self._parameters, zeros, states)

    def _empty(self, name: str, entry: str) -> Tensor:
        slot = self._slots[name][entry]
        return torch.zeros(slot.shape, dtype=slot.dtype or torch.float64)

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        """Run the step on copies of the inputs."""
        count = len(self.trained)
        own = [value.detach().clone().requires_grad_() for value in inputs[:count]]
        trained = dict(zip(self.trained, own, strict=True))
        parameters = {**trained, **self._others}
        gradients = [value.clone() for value in inputs[count : 2 * count]]
        nb_kept = 0 if self._is_first else len(self.kept)
        kept, rest = inputs[2 * count : 2 * count + nb_kept], inputs[2 * count + nb_kept :]
        with torch.no_grad():
            after, _ = self._stand_in.step(
                self._in_numbers(rest),
                parameters,
                dict(zip(self.trained, gradients, strict=True)),
                self._states(kept),
            )
        results = [trained[name].detach() for name in self.trained]
        return results + [self._result(after, *place) for place in self.kept]

    def _in_numbers(self, tensors: Sequence[Tensor]) -> list[Entries]:
        by_path = dict(zip(self._paths, tensors, strict=True))
        made = []
        for index, group in enumerate(self._entries):

            def number(path: str, value: Any, index: int = index) -> Any:
                tensor = by_path[index, path]
                if isinstance(value, Tensor):
                    return tensor.to(value.dtype).reshape(value.shape)
                # The rate may come from a schedule on the device.
                known = None if path == "lr" else float(value)
                return self._numbers.read(tensor, (index, path), known)

            made.append(with_numbers(group, number))
        return made

    def _states(self, tensors: Sequence[Tensor]) -> States:
        if self._is_first:
            return {}
        states: States = {name: {} for name in self._slots}
        for name, kept in self._slots.items():
            states[name] = {e: slot.start for e, slot in kept.items() if slot.kind == "fixed"}
        for (name, entry), tensor in zip(self.kept, tensors, strict=True):
            is_tensor = self._slots[name][entry].kind == "tensor"
            states[name][entry] = tensor.clone() if is_tensor else self._numbers.read(tensor)
        return states

    def _result(self, after: States, name: str, entry: str) -> Tensor:
        slot, value = self._slots[name][entry], after.get(name, {}).get(entry)
        if isinstance(value, Tensor) and (tuple(value.shape), value.dtype) == slot[1:3]:
            return value.detach()
        is_number = not isinstance(value, bool | str | None)
        if not is_number or slot.shape or (isinstance(value, Tensor) and value.dim()):
            expected = f"{slot.kind} of shape {slot.shape}"
            raise TraceError(f"it stores {value!r} in {entry!r}; expected a {expected}")
        return as_tensor(value).to(slot.dtype or torch.float64)

    def record(self, *, on_device: bool) -> StepGraph:
        """Trace the step.

        Parameters
        ----------
        on_device : bool
            Whether the groups select torch's capturable implementation, which torch checks less
            strictly while it is compiling.

        Raises
        ------
        TraceError
            If the step cannot be traced.
        """
        inputs = self._arguments()
        decomposed = decompositions.after_autograd()
        rules = Rules(
            replacements={**ONE_BY_ONE, **REPLACEMENTS},
            before_autograd={},
            after_autograd={
                op: rule for op, rule in decomposed.items() if op not in _NOT_DECOMPOSED
            },
        )
        try:
            with host_random.watched({}) as drawn, ExitStack() as stack:
                stack.enter_context(tracing(rules.replacements))
                if not on_device:
                    name = "_is_compiling_flag"
                    stack.enter_context(replaced(torch.compiler, name, False))
                stack.enter_context(self._numbers.in_force())
                first = record(self, inputs, "fake", rules)
                self._check_constants(first)
                module = functionalize(first, inputs, "fake", rules)
                names = [f"torch's {n}" for n in _random_names(module)] + sorted(drawn())
        except TraceError as error:
            raise self._explained(error, str(error)) from error
        except Exception as error:
            what = f"{type(error).__name__}: {error}".splitlines()[0]
            raise self._explained(error, what) from error
        if names:
            raise TraceError(
                f"the step of {self._stand_in.kind} draws random numbers ({', '.join(names)}), "
                "which a graph would repeat at every update. Return an "
                "optax.GradientTransformation from configure_optimizer"
            )
        self._check_changed(module)
        return StepGraph(module, _constants(module), tuple(self._numbers.decisions))

    def _explained(self, error: Exception, what: str) -> TraceError:
        if what.startswith("the step of"):
            return TraceError(what)
        explained = type(error) if isinstance(error, BranchesOnValueError) else TraceError
        return explained(
            f"the step of {self._stand_in.kind} cannot be traced{at(_line_of(error))}: {what}. "
            "Expected tensor operations and arithmetic; select by values with torch.where, or "
            "return an optax.GradientTransformation from configure_optimizer"
        )

    def _check_constants(self, recorded: fx.GraphModule) -> None:
        names = {t.data_ptr(): n for n, t in self._others.items() if t.numel()}
        for name, parameter in self._stand_in.parameters.items():
            names[parameter.data_ptr()] = name
        for node in recorded.graph.find_nodes(op="get_attr"):
            value = getattr(recorded, node.target)
            if isinstance(value, Tensor) and value.numel() and value.data_ptr() in names:
                raise TraceError(
                    f"it reads {names[value.data_ptr()]} other than through its groups, or "
                    "although it has no gradient"
                )
        for node in recorded.graph.nodes:
            for target in written_by(node):
                if viewed(target).op == "get_attr":
                    raise TraceError("it writes to a tensor that is not in a parameter's state")

    def _check_changed(self, module: fx.GraphModule) -> None:
        results: Any = module.graph.output_node().args[0]
        inputs = module.graph.find_nodes(op="placeholder")
        for name, node in zip(self.trained, results, strict=False):
            if node in inputs:
                raise TraceError(
                    f"the step of {self._stand_in.kind} does not change {name}, although it has a "
                    "gradient; expected it to change every parameter with a gradient"
                )


def entries_kept(slots: StateSpecs) -> list[tuple[str, str]]:
    """Return parameter and entry of all state that changes, in the order of a graph's inputs."""
    return [
        (name, entry)
        for name, kept in slots.items()
        for entry, slot in kept.items()
        if slot.kind != "fixed"
    ]


def _random_names(module: fx.GraphModule) -> list[str]:
    return sorted({str(node.target) for node in module.graph.nodes if is_random(node)})


def _constants(module: fx.GraphModule) -> dict[str, np.ndarray]:
    nodes = module.graph.find_nodes(op="get_attr")
    return {n.target: to_numpy(getattr(module, n.target).detach().clone()) for n in nodes}


_TORCH = Path(torch.__file__).parent
_OWN = Path(__file__).parents[1]


def _line_of(error: BaseException) -> str:
    """Return the innermost line of the step, in the user's code or torch's optimizers."""
    frames = traceback.extract_tb(error.__traceback__)
    outside = [f for f in frames if Path(f.filename).is_relative_to(_TORCH / "optim")]
    for frame in frames:
        path = Path(frame.filename)
        if not path.is_relative_to(_TORCH) and not path.is_relative_to(_OWN):
            outside.append(frame)
    if not outside:
        return ""
    last = max(outside, key=frames.index)
    return f"{last.filename}:{last.lineno} in {last.name}: {(last.line or '').rstrip(':')}"
