"""A torch component as a medjax TrainableComponent: the same contract as a Flax one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from torch import Tensor

import medjax
from medjax.batch import BatchData
from medjax.data.ladder import narrow
from medjax.metrics.mean import Mean
from medjax.models.attention import AttentionImplementation, has_cudnn_attention
from medjax.step import Differentiate, weighed
from medjax_torch.batches.mapping import rebuilt
from medjax_torch.graph import Graph, Results
from medjax_torch.graph.joint import Call
from medjax_torch.lowerings import run
from medjax_torch.lowerings.dtypes import jax_dtype
from medjax_torch.lowerings.precision import multiplying_in
from medjax_torch.modules import Found, find, read, write_back
from medjax_torch.tensors import to_numpy
from medjax_torch.variants import Variants, tracing_rules

COLUMNS, GRAPH, WEIGHT = "columns", "graph", "weight"
"""What a device batch holds: arrays by path, the graph they go through, the weight of the loss."""

Variables = dict[str, Any]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class GraphKey:
    """The graph of a batch, by its number. It holds no array, so steps are compiled for each."""

    number: int


class ConvertedComponent:
    """What a component holds and how it computes, as pure functions of arrays.

    Parameters
    ----------
    component : object
        A torch component with medkit's protocol; its tensors are read, and written by `write`.
    call : callable
        ``call(batch, eval_mode) -> (outputs, loss)``, the component's forward.
    max_variants : int
        See `Variants`.
    precision : {"float32", "bfloat16"}
        Type in which matrices are multiplied. Parameters and all else stay float32.
    attention_implementation : {"xla", "cudnn"}
        See `Options`.
    may_skip : bool
        Whether batches whose loss is not finite are left out.

    Attributes
    ----------
    found : Found
        The component's content.
    variants : Variants
        Its graphs.
    """

    def __init__(
        self,
        component: Any,
        call: Callable[[Any, bool], Any],
        *,
        max_variants: int,
        precision: str = "float32",
        attention_implementation: AttentionImplementation = "xla",
        may_skip: bool = False,
    ) -> None:
        self.component = component
        self.found: Found = find(component)
        # One operation costs where no kernel takes it, so it is one only where cuDNN may.
        if precision != "bfloat16" or not has_cudnn_attention():
            attention_implementation = "xla"
        self.variants = Variants(
            *(self.found, max_variants, tracing_rules(attention_implementation)), may_skip=may_skip
        )
        self._call = call
        self._multiplies_in = jnp.bfloat16 if precision == "bfloat16" else None
        self._constants: dict[int, dict[str, np.ndarray]] = {}

    @property
    def trained(self) -> tuple[str, ...]:
        """Names of the parameters that the optimizer may update."""
        return tuple(name for name, p in self.found.parameters.items() if p.requires_grad)

    def is_current(self) -> bool:
        """Tell whether the component still holds the very tensors that were found."""
        now = find(self.component).tensors
        before = self.found.tensors
        return now.keys() == before.keys() and all(now[name] is before[name] for name in now)

    def call_on(self, batch: Mapping[str, Any], *, train: bool) -> Call:
        """Return forward as the tracer calls it: on dicts, which become what `batch` is."""

        def call(values: dict[str, Any]) -> Any:
            return self._call(rebuilt(batch, values), not train)

        return call

    def graph_of(self, batch: Mapping[str, Any], *, train: bool) -> GraphKey:
        """Return the graph of a batch of tensors, traced if it is new."""
        call = self.call_on(batch, train=train)
        return GraphKey(self.variants.number(call, batch, train=train))

    def graph(self, key: GraphKey) -> Graph:
        """Return a graph that `graph_of` named."""
        return self.variants.graphs[key.number]

    def constants(self, key: GraphKey) -> dict[str, np.ndarray]:
        """Return the tensors that a graph holds itself, as arrays for the device."""
        if key.number not in self._constants:
            held = self.graph(key).constants
            self._constants[key.number] = {
                name: narrow(f"constant {name}", to_numpy(value)) for name, value in held.items()
            }
        return self._constants[key.number]

    def variables(self) -> Variables:
        """Return copies of all tensors: ``params``, ``frozen`` parameters and ``buffers``."""
        arrays = {name: narrow(name, array) for name, array in read(self.found).items()}
        trained = set(self.trained)
        collections: Variables = {"params": {}, "frozen": {}, "buffers": {}}
        for name, array in arrays.items():
            frozen = "frozen" if name in self.found.parameters else "buffers"
            collections["params" if name in trained else frozen][name] = array
        return collections

    def write(self, variables: Variables) -> None:
        """Copy variables (numpy arrays) into the component's tensors."""
        for collection in variables.values():
            write_back(self.found, collection)

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
        del eval_mode  # the graph was traced for one of both
        outputs, loss, collections, _ = self._run(variables, input_batch, key)
        return outputs, loss if return_loss else None, collections

    def differentiate(self, options: medjax.Options) -> Differentiate:
        """Return what gives the step the gradients that torch recorded; JAX differentiates nothing.

        Parameters
        ----------
        options : medjax.Options
            For the loss arithmetic.
        """

        def differentiate(
            variables: Variables, batch: BatchData, key: jax.Array, *, of_sum: bool
        ) -> tuple[BatchData, Mean, Variables, Any]:
            with jax.default_matmul_precision("highest"):
                outputs, loss, collections, found = self._run(variables, batch, key)
            loss = weighed(loss, options)
            gradients = {
                name: found[name].astype(leaf.dtype) if name in found else jnp.zeros_like(leaf)
                for name, leaf in variables["params"].items()
            }
            if of_sum:
                gradients = jax.tree.map(lambda gradient: gradient * loss.weight, gradients)
            return outputs, loss, collections, gradients

        return differentiate

    def _run(
        self, variables: Variables, input_batch: BatchData, key: jax.Array
    ) -> tuple[BatchData, Mean, Variables, dict[str, jax.Array]]:
        """Return outputs, loss, changed collections and the gradients of the mean loss."""
        number = input_batch[GRAPH]
        inputs = {name: leaf for held in variables.values() for name, leaf in held.items()}
        found = self._evaluate(number, inputs, input_batch[COLUMNS], key)
        collections = {
            name: {**held, **{path: found.updated[path] for path in held if path in found.updated}}
            for name, held in variables.items()
            if name != "params" and held.keys() & found.updated.keys()
        }
        outputs = BatchData(zip(self.graph(number).outputs.names, found.outputs, strict=True))
        weight = input_batch.get(WEIGHT, jnp.float32(1))
        loss, weight = _unless_broken(self.graph(number), found, weight)
        return outputs, Mean(loss * weight, weight), collections, found.gradients

    def checked(
        self, key: GraphKey, variables: Variables, columns: Any, random_key: jax.Array
    ) -> list[jax.Array]:
        """Return the values that the conditions of a graph are about."""
        inputs = {name: leaf for held in variables.values() for name, leaf in held.items()}
        with jax.default_matmul_precision("highest"):
            return list(self._evaluate(key, inputs, columns, random_key).checked)

    def _evaluate(
        self, key: GraphKey, state: Variables, columns: Any, random_key: jax.Array
    ) -> Results:
        """Return what a graph computes from the state and the columns of a batch."""
        graph = self.graph(key)
        nodes = graph.module.graph.find_nodes(op="placeholder")
        inputs = [
            value.astype(jax_dtype(node.meta["val"].dtype))
            for value, node in zip(graph.inputs(state, columns), nodes, strict=True)
        ]
        held = {name: jnp.asarray(value) for name, value in self.constants(key).items()}
        with multiplying_in(self._multiplies_in):
            return graph.results(run(graph.module, inputs, random_key, held))

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
        )


class Trainable(medjax.TrainableComponent):
    """The record of a torch component, whose graphs stand as they were traced.

    Whether they are still what the component does is compared with torch before each training.
    """

    def read_outside(self) -> None:
        """Return nothing to compare."""


def _unless_broken(graph: Graph, found: Results, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return loss and weight of a batch: NaN with a weight where a condition does not hold.

    A loss that is not finite ends training before anything is learnt from it.
    """
    if not graph.conditions:
        return found.loss, weight
    pairs = zip(graph.conditions, found.checked, strict=True)
    holds = jnp.stack([value.reshape(()) == one.expected for one, value in pairs]).all()
    return jnp.where(holds, found.loss, jnp.nan), jnp.where(holds, weight, jnp.maximum(weight, 1))


def loss_weight(batch: Mapping[str, Any]) -> float:
    """Return what the mean loss of a batch weighs: its labels that count, or its rows.

    Labels of -100 do not count, which is the ``ignore_index`` of torch's cross entropy.
    """
    labels = batch.get("labels")
    if isinstance(labels, Tensor) and not labels.is_floating_point() and (labels == -100).any():
        return float((labels != -100).sum())
    tensors = [v for v in batch.values() if isinstance(v, Tensor) and v.ndim]
    return float(len(tensors[0])) if tensors else 1.0


def dtypes_of(graph: Graph) -> dict[str, torch.dtype]:
    """Return torch's dtype of each output of a graph by name."""
    results: Any = graph.module.graph.output_node().args[0]
    nodes = graph.results(results).outputs
    return {
        name: node.meta["val"].dtype for name, node in zip(graph.outputs.names, nodes, strict=True)
    }
