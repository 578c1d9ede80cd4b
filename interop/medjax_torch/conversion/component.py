"""A torch component as a medjax TrainableComponent, with the same contract as a Flax component."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import medjax
from medjax.batch import BatchData
from medjax.data.ladder import narrow
from medjax.metrics.mean import Mean
from medjax.models.attention import AttentionImplementation, has_cudnn_attention
from medjax.step import Differentiate, weighed
from medjax_torch.batches.mapping import rebuilt
from medjax_torch.component_state import Inventory, find, read, to_numpy, write_back
from medjax_torch.conversion.entries import COLUMNS as COLUMNS
from medjax_torch.conversion.entries import GRAPH as GRAPH
from medjax_torch.conversion.entries import WEIGHT as WEIGHT
from medjax_torch.conversion.entries import key_of
from medjax_torch.conversion.forward_call import ForwardCall
from medjax_torch.conversion.graph_cache import Check, GraphCache
from medjax_torch.conversion.losses import settled, unless_broken
from medjax_torch.conversion.tracing_rules import tracing_rules
from medjax_torch.graph import Graph, Results, TraceError, host_draws, host_random
from medjax_torch.graph.host_random import HostRandomError
from medjax_torch.graph.joint import Joint
from medjax_torch.lowerings import run
from medjax_torch.lowerings.dtypes import jax_dtype
from medjax_torch.lowerings.precision import multiplying_in
from medjax_torch.optimizers.rule import touched

SIZES = "sizes of outputs\0"
"""Name under which a step's outputs contain `Results.sizes`, if there are any."""
_DISCOVERIES = 8
"""Limit on the ways in which forward draws on the host, each in a branch of the one before."""

Variables = dict[str, Any]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class GraphKey:
    """The number of a batch's graph. It holds no array, so steps are compiled for each graph."""

    number: int


class ConvertedComponent:
    """The content and computation of a component, as pure functions of arrays.

    Parameters
    ----------
    component : object
        A torch component with medkit's protocol; its tensors are read, and written by `write`.
    call : callable
        ``call(batch, eval_mode) -> (outputs, loss)``, the component's forward.
    max_variants : int
        See `GraphCache`.
    precision : {"float32", "bfloat16"}
        The type in which matrices are multiplied. Parameters and everything else stay float32.
    attention_implementation : {"xla", "cudnn"}
        See `Options`.
    marks_rows : bool
        Whether the optimizer updates only the rows that sparse gradients list.
    may_skip : bool
        Whether batches whose loss is not finite are skipped.
    divisor : int
        What torch divides the loss of a batch by before its backward pass.

    Attributes
    ----------
    inventory : Inventory
        The component's content.
    variants : GraphCache
        Its graphs.
    trained : tuple of str
        Names of the parameters that have required a gradient since training began.
    initially : tuple of str
        Names of those that required one when the component was converted.
    earlier : frozenset of str
        The value of `sometimes` in the run that is resumed.
    version : int
        Increases when the component's tensors, `trained` or the set of parameters that get a
        gradient change.
    marks_rows, divisor
        The arguments of these names.
    host_draws : HostDraws
        The numbers that forward draws from `random` and `numpy.random`.
    """

    def __init__(
        self,
        component: Any,
        call: Callable[[Any, bool], Any],
        *,
        max_variants: int,
        precision: str = "float32",
        attention_implementation: AttentionImplementation = "xla",
        marks_rows: bool = False,
        may_skip: bool = False,
        divisor: int = 1,
    ) -> None:
        self.component = component
        self._functions = (component.forward, call)
        self.inventory: Inventory = find(component, self._functions)
        # As one operation it is slow without a kernel, so it is one only where cuDNN may run it.
        if precision != "bfloat16" or not has_cudnn_attention():
            attention_implementation = "xla"
        self.initially = self.trained = self._requiring()
        self.earlier: frozenset[str] = frozenset()
        self.version = 0
        rules = tracing_rules(attention_implementation, marks_rows=marks_rows)
        self.marks_rows, self.divisor = marks_rows, divisor
        self.variants = GraphCache(self.inventory, max_variants, rules, may_skip=may_skip)
        self.host_draws = host_draws.HostDraws()
        self._call = call
        self._multiplies_in = jnp.bfloat16 if precision == "bfloat16" else None
        self._constants: dict[int, dict[str, np.ndarray]] = {}

    @property
    def without_gradient(self) -> frozenset[str]:
        """Names of the trained parameters that have had no gradient in any training graph."""
        return frozenset(self.trained).difference(*self._gradients())

    @property
    def sometimes(self) -> frozenset[str]:
        """Names of the parameters that get a gradient from some batches but not from others."""
        with_gradient = self._gradients()
        each = frozenset().union(*with_gradient)
        dropped = {name for graph in self.variants.graphs for name in graph.droppable}
        return self.earlier | dropped | each.difference(each.intersection(*with_gradient))

    def _gradients(self) -> list[frozenset[str]]:
        return [frozenset(graph.gradients) for graph in self.variants.graphs if graph.train]

    def is_current(self) -> bool:
        """Return whether the component still holds the tensor objects in the inventory."""
        new = find(self.component).tensors
        old = self.inventory.tensors
        return new.keys() == old.keys() and all(new[name] is old[name] for name in new)

    def refresh(self) -> None:
        """Look up the component's tensors again if they changed, and the trained parameters."""
        if not self.is_current():
            self.inventory = find(self.component, self._functions)
            self.variants.inventory = self.inventory
            self.version += 1
        known = set(self.trained)
        requiring = set(self._requiring())
        if not requiring <= known:
            # A parameter that has been trained keeps its moments, as in torch.
            names = self.inventory.parameters
            self.trained = tuple(name for name in names if name in known | requiring)
            self.version += 1

    def _requiring(self) -> tuple[str, ...]:
        return tuple(name for name, p in self.inventory.parameters.items() if p.requires_grad)

    def call_on(self, batch: Mapping[str, Any], *, train: bool) -> ForwardCall:
        """Return forward as the tracer calls it: on dicts, converted to the type of `batch`."""
        return ForwardCall(self._call, batch, train=train, divisor=self.divisor)

    def placed(
        self, batch: Any, *, train: bool, check: Check | None = None, shape: Hashable = None
    ) -> tuple[GraphKey, Any]:
        """Return the graph of a batch, and the batch with the numbers drawn on the host added.

        Parameters
        ----------
        batch, train, check, shape
            As for `graph_of`.

        Raises
        ------
        TraceError
            If forward cannot be turned into a graph.
        """
        for _ in range(_DISCOVERIES):
            drawn = self.host_draws.columns(train=train)
            with_draws = rebuilt(batch, {**batch, **drawn}) if drawn else batch
            try:
                known = None if drawn else shape
                return self.graph_of(with_draws, train=train, check=check, shape=known), with_draws
            except HostRandomError:
                joint = Joint(self.call_on(batch, train=train), self.inventory, batch, train=train)
                with host_random.watched(self.inventory.content.generators):
                    if not self.host_draws.discover(joint.eager, train=train):
                        raise
                if jax.process_count() > 1:
                    raise  # each process has rows of its own, and the numbers are for all
        raise TraceError(
            f"forward drew different numbers from random or numpy.random in each of {_DISCOVERIES} "
            "attempts. Draw with torch (torch.rand, torch.randperm ...), or in collate."
        )

    def graph_of(
        self,
        batch: Mapping[str, Any],
        *,
        train: bool,
        check: Check | None = None,
        shape: Hashable = None,
    ) -> GraphKey:
        """Return the graph of a batch of tensors, tracing it if it is new.

        Parameters
        ----------
        batch : mapping of str to value
            The batch.
        train : bool
            Whether gradients are computed.
        check : callable, optional
            See `GraphCache.add`.
        shape : hashable, optional
            See `GraphCache.known`.
        """
        number = self.variants.known(batch, train=train, shape=shape)
        if number is None:
            self.refresh()
            before = self.without_gradient, self.sometimes
            call = self.call_on(batch, train=train)
            number = self.variants.add(call, batch, train=train, check=check)
            self.version += (self.without_gradient, self.sometimes) != before
        return GraphKey(number)

    def graph(self, key: GraphKey) -> Graph:
        """Return the graph that belongs to a key from `graph_of`."""
        return self.variants.graphs[key.number]

    def constants(self, key: GraphKey) -> dict[str, np.ndarray]:
        """Return the tensors that a graph itself holds, as arrays for the device."""
        if key.number not in self._constants:
            tensors = self.graph(key).device.constants
            self._constants[key.number] = {
                name: narrow(f"constant {name}", to_numpy(value)) for name, value in tensors.items()
            }
        return self._constants[key.number]

    def variables(self) -> Variables:
        """Return copies of all tensors: ``params``, ``frozen`` parameters and ``buffers``."""
        arrays = {name: _narrowed(name, array) for name, array in read(self.inventory).items()}
        trained = set(self.trained)
        collections: Variables = {"params": {}, "frozen": {}, "buffers": {}}
        for name, array in arrays.items():
            frozen = "frozen" if name in self.inventory.parameters else "buffers"
            collections["params" if name in trained else frozen][name] = array
        return collections

    def write(self, variables: Variables) -> None:
        """Copy variables (numpy arrays) into the component's tensors."""
        for collection in variables.values():
            write_back(self.inventory, collection)

    def forward(
        self,
        variables: Variables,
        input_batch: BatchData,
        key: jax.Array,
        /,
        *,
        return_loss: bool,
        eval_mode: bool,
    ) -> tuple[BatchData, Mean | None, Variables]:
        """Return outputs, loss and changed collections; see `medjax.component.Forward`."""
        del eval_mode  # the graph was traced for one of the two modes
        outputs, loss, collections, _ = self._run(variables, input_batch, key)
        return outputs, loss if return_loss else None, collections

    def differentiate(self, options: medjax.Options) -> Differentiate:
        """Return the function that gives a step torch's recorded gradients; JAX derives none.

        Parameters
        ----------
        options : medjax.Options
            Options for the loss arithmetic.
        """

        def differentiate(
            variables: Variables, batch: BatchData, key: jax.Array, *, of_sum: bool
        ) -> tuple[BatchData, Mean, Variables, Any]:
            with jax.default_matmul_precision("highest"):
                outputs, loss, collections, traced = self._run(variables, batch, key)
            loss = weighed(loss, options)
            gradients = {
                name: traced[name].astype(leaf.dtype) if name in traced else jnp.zeros_like(leaf)
                for name, leaf in variables["params"].items()
            }
            # SparseAdam's marks concern rows; they also tell whether there is a gradient at all.
            if not self.marks_rows:
                own = self.graph(batch[GRAPH]).droppable  # with marks in the graph
                for name in (self.sometimes & traced.keys()).difference(own):
                    gradients[name] = touched(gradients[name])
            if of_sum:
                gradients = jax.tree.map(lambda gradient: gradient * loss.weight, gradients)
            return outputs, loss, collections, gradients

        return differentiate

    def _run(
        self, variables: Variables, input_batch: BatchData, key: jax.Array
    ) -> tuple[BatchData, Mean, Variables, dict[str, jax.Array]]:
        """Return outputs, loss, changed collections and the gradients of the mean loss."""
        number = input_batch[GRAPH]
        key = key_of(input_batch, key)
        inputs = {name: leaf for each in variables.values() for name, leaf in each.items()}
        results = self._evaluate(number, inputs, input_batch[COLUMNS], key)
        collections = {
            name: {
                path: results.updated.get(path, value).astype(value.dtype)
                for path, value in collection.items()
                # The step expects only those parameters that forward wrote to.
                if name != "params" or path in results.updated
            }
            for name, collection in variables.items()
            if collection.keys() & results.updated.keys()
        }
        outputs = BatchData(zip(self.graph(number).outputs.names, results.outputs, strict=True))
        if results.sizes:
            outputs[SIZES] = jnp.stack(list(results.sizes))
        weight = settled(results.loss, input_batch.get(WEIGHT, jnp.float32(1)))
        loss, weight = unless_broken(self.graph(number), results, weight)
        return outputs, Mean(loss * weight, weight), collections, results.gradients

    def checked(
        self, key: GraphKey, variables: Variables, columns: Any, random_key: jax.Array
    ) -> list[jax.Array]:
        """Return the values that the conditions of a graph are checked on."""
        inputs = {name: leaf for each in variables.values() for name, leaf in each.items()}
        with jax.default_matmul_precision("highest"):
            return list(self._evaluate(key, inputs, columns, random_key).checked)

    def _evaluate(
        self, key: GraphKey, state: Variables, columns: Any, random_key: jax.Array
    ) -> Results:
        """Return the results of a graph for the given state and batch columns."""
        graph = self.graph(key).device
        nodes = graph.module.graph.find_nodes(op="placeholder")
        inputs = [
            value.astype(jax_dtype(node.meta["val"].dtype))
            for value, node in zip(graph.inputs(state, columns), nodes, strict=True)
        ]
        constants = {name: jnp.asarray(value) for name, value in self.constants(key).items()}
        with multiplying_in(self._multiplies_in):
            return graph.results(run(graph.module, inputs, random_key, constants))

    def as_trainable(
        self, configure_optimizer: Callable[[Any], optax.GradientTransformation]
    ) -> medjax.TrainableComponent:
        """Return the record that the loop trains; its batches come from a `Feed`."""

        def save(path: Path, variables: Variables) -> None:
            self.write(variables)
            self.component.save(path)

        def load(path: Path) -> Variables:
            self.component.load(path)
            return self.variables()

        return Trainable(
            init=lambda key: self.variables(),
            preprocess=self.component.preprocess,
            collate=self.component.collate,
            forward=self.forward,
            configure_optimizer=configure_optimizer,
            save=save,
            load=load,
            identity=self.inventory.classes,
        )


class Trainable(medjax.TrainableComponent):
    """The record of a torch component, whose graphs stay as they were traced.

    Before each training run they are compared with what the component computes in torch.
    """

    def read_outside(self) -> None:
        """Return None, as there is nothing to compare."""


def _narrowed(name: str, array: np.ndarray) -> np.ndarray:
    """Convert a tensor of the component to the type that the device uses."""
    try:
        return narrow(name, array)
    except ValueError as error:
        raise ValueError(
            f"{name} holds {array.dtype} values from {array.min()} to {array.max()}, but the "
            "device's integers have 32 bits. Keep it as a Python number, which becomes a constant "
            "of the graph, or use smaller values."
        ) from error
