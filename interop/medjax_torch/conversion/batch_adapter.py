"""BatchAdapter: turns a collated torch batch into the step's input, and outputs back to torch."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from torch import Tensor

from medjax import sharding
from medjax.batch import BatchData
from medjax.component import TrainableComponent
from medjax.data import Batch
from medjax.data.ladder import narrow
from medjax.runtime import give_back_memory, waiting_for
from medjax.runtime.jit import Compiled
from medjax.step import make_collecting_eval_step
from medjax_torch.batches import ShapeCount, rebuilt, to_arrays, to_tensors
from medjax_torch.component_state import to_numpy
from medjax_torch.conversion.component import (
    COLUMNS,
    GRAPH,
    SIZES,
    WEIGHT,
    ConvertedComponent,
    GraphKey,
)
from medjax_torch.conversion.cost import ConversionCost
from medjax_torch.conversion.entries import NUMBER
from medjax_torch.conversion.forward_call import WRITTEN
from medjax_torch.conversion.graph_cache import Check
from medjax_torch.conversion.host_evaluation import (
    HOST,
    EvaluationStep,
    check_outputs,
    reason_of,
    rebuilt_outputs,
)
from medjax_torch.conversion.losses import loss_weight
from medjax_torch.graph import (
    Bounds,
    Graph,
    TraceError,
    bounds,
    check_ranges,
    columns,
    is_flat,
    signature_of_tensors,
)
from medjax_torch.graph.errors import StoredValueError
from medjax_torch.options import Options
from medjax_torch.verification import evaluator, verify
from medjax_torch.verification.padding_policy import Padding
from medjax_torch.verification.padding_proof import Prover

logger = logging.getLogger("medjax")

_GROWN = 2.0
"""How many times larger a number has to be for padding to be tested again."""


class BatchAdapter:
    """Prepares batches for one component, and checks the first of each mode against torch.

    Parameters
    ----------
    converted : ConvertedComponent
        The component.
    options : Options
        Options for padding, verification, loss arithmetic and the number of shapes.
    mesh : jax.sharding.Mesh
        The mesh that batches are placed on.
    lengths : mapping of bool to tuple of int
        The lengths to pad to in training (True) and in evaluation.

    Attributes
    ----------
    steps : list of Compiled
        The steps that run on its batches.
    """

    def __init__(
        self,
        converted: ConvertedComponent,
        options: Options,
        mesh: Mesh,
        lengths: Mapping[bool, tuple[int, ...]],
    ) -> None:
        self.converted = converted
        self.mesh = mesh
        self.lengths = lengths
        self._options = options
        self._padding = Padding(self._prover, options.padding, lengths)
        self._looked_at: set[bool] = set()
        self._tested_with: dict[tuple[bool, str], float] = {}
        self._shapes = {train: self._shape_count() for train in (True, False)}
        self._bounds: dict[GraphKey, Bounds] = {}
        self._eval_steps: dict[bool, EvaluationStep] = {}
        self._evaluates_outputs = False
        self._has_told_of_labels = False
        self._on_host = ""
        self._evaluators: dict[GraphKey, jax.stages.Wrapped] = {}
        self._trainable: tuple[Any, TrainableComponent] | None = None
        self._comparing = 0.0
        self.steps: list[Compiled] = []

    @property
    def step_options(self) -> Options:
        """Options of the steps; the converted component handles the precision itself."""
        return dataclasses.replace(self._options, precision="float32")

    def trainable(
        self, key: Any, configure_optimizer: Callable[[Any], optax.GradientTransformation]
    ) -> TrainableComponent:
        """Return the component's record; the former one if its optimizer has an equal key."""
        if self._trainable is None or self._trainable[0] != key:
            self._trainable = key, self.converted.as_trainable(configure_optimizer)
        return self._trainable[1]

    def eval_step(self, *, with_outputs: bool) -> EvaluationStep:
        """Return the evaluation step for `WritingEvaluation`, the same object on each call."""
        self._evaluates_outputs = with_outputs
        if with_outputs not in self._eval_steps:
            made = make_collecting_eval_step(
                self.converted.forward,
                options=self.step_options,
                mesh=self.mesh,
                with_outputs=with_outputs,
            )
            self._eval_steps[with_outputs] = EvaluationStep(
                made, self.converted, self.step_options, with_outputs=with_outputs
            )
            self.steps.append(made)
        return self._eval_steps[with_outputs]

    @property
    def cost(self) -> ConversionCost:
        """The cost of conversion so far."""
        compilations = [made for step in self.steps for made in step.compilations]
        variants = self.converted.variants
        return ConversionCost(
            nb_graphs=len(variants.graphs),
            tracing=variants.seconds,
            comparing=self._comparing + self._padding.seconds,
            nb_compilations=len(compilations),
            compiling=sum(made.seconds for made in compilations),
        )

    def first(self, batch: Any, *, train: bool) -> Graph:
        """Return the graph of a first batch, after comparing it with torch.

        Raises
        ------
        VerificationError
            If the results of JAX differ from torch's.
        TraceError
            If forward cannot be turned into a graph.
        ValueError
            If a number does not fit the device's types, or an index is out of range.
        """
        self._looked_at.add(train)
        if self._is_exact(train):
            logger.warning(
                "Batches run in their exact shapes, each of which is traced and compiled: padding "
                "would look up a row, and SparseAdam updates every row that is looked up"
            )
        padded = self._padded(batch, train=train)
        check = self._check_on(padded, train)
        key, padded = self.converted.placed(padded, train=train, check=check)
        graph = self.converted.graph(key)
        self._arrays(graph.tensors_of(padded), key)  # what cannot be converted is refused by name
        if self._options.verify:
            call = self.converted.call_on(batch, train=train)
            evaluate = self._evaluators.setdefault(key, evaluator(graph))
            constants = self.converted.constants(key)
            with self._comparison():
                verified = verify(
                    call, self.converted.inventory, padded, graph, constants, evaluate
                )
            logger.info(
                "torch and JAX agree on the first %s batch: %d results, largest relative "
                "difference %.1e (%s)",
                "training" if train else "evaluation",
                verified.results,
                verified.relative,
                verified.name,
            )
            give_back_memory(self.converted.inventory.nb_bytes)
        return graph

    def __call__(self, batch: Any, *, train: bool) -> BatchData:
        """Return a batch in the form that the step takes.

        Raises
        ------
        ValueError
            If a number does not fit the device's types, an index is out of range, or there are too
            many shapes.
        """
        if train:
            return self._for_device(batch, train=True)
        if not self._on_host and self._evaluates_outputs:
            # Outputs that training could not return are not traced for evaluation: tracing is slow.
            graphs = self.converted.variants.graphs
            self._on_host = next(filter(None, map(reason_of, graphs)), "")
        if not self._on_host:
            try:
                prepared = self._for_device(batch, train=False)
            except StoredValueError:
                raise  # a run in torch would not find the value either
            except TraceError as error:
                self._on_host = str(error)
            else:
                graph = self.converted.graph(prepared[GRAPH])
                self._on_host = reason_of(graph) if self._evaluates_outputs else ""
                if not self._on_host:
                    return prepared
        return BatchData({HOST: (batch, self._on_host), WEIGHT: self._weight(batch)})

    def _for_device(self, batch: Any, *, train: bool) -> BatchData:
        if train not in self._looked_at:
            self.first(batch, train=train)
        padded = self._padded(batch, train=train)
        flat = is_flat(padded)
        tensors = padded if flat else columns(padded)
        shape = signature_of_tensors(tensors)
        self._shapes[train].add(tensors, shape)
        nb_graphs = len(self.converted.variants.graphs)
        key, complete = self.converted.placed(
            padded,
            train=train,
            check=self._check_on(padded, train),
            shape=shape if flat else None,
        )
        graph = self.converted.graph(key)
        # A graph is new if its shape is, or if forward reads other values than before.
        is_new = len(self.converted.variants.graphs) > nb_graphs
        has_grown = self._has_grown(graph, complete)
        if (is_new or has_grown) and not self._padding.still_harmless(batch, train=train):
            return self._for_device(batch, train=train)
        if complete is not padded or graph.numbers:
            tensors = graph.tensors_of(complete)
        arrays: dict[str, Any] = {COLUMNS: self._arrays(tensors, key), WEIGHT: self._weight(batch)}
        if not train and graph.draws:
            arrays[NUMBER] = np.uint32(self.converted.host_draws.position[-1])
        return BatchData({GRAPH: key, **sharding.put_batch(arrays, self.mesh)})

    def _has_grown(self, graph: Graph, batch: Any) -> bool:
        """Return whether a number that is an input is far larger than when padding was tested.

        What a term of the loss does to padding may not show while its weight is almost 0.
        """
        has_grown = False
        for number in graph.numbers:
            size = float(number.read(batch).abs().max())
            if size > _GROWN * self._tested_with.get((graph.train, number.name), 0.0):
                self._tested_with[graph.train, number.name] = size
                has_grown = True
        return has_grown

    def _weight(self, batch: Any) -> np.float32:
        weight = loss_weight(batch, self._options.loss_arithmetic)
        if weight <= 0 and not self._has_told_of_labels:
            self._has_told_of_labels = True
            logger.warning(
                "a batch has no label that counts, all are -100: torch's cross entropy of it is "
                "NaN, and so would be the mean of the epoch. If its loss is not finite, it counts "
                "in no mean and makes no update"
            )
        return np.float32(weight)

    def unpad(self, outputs: Mapping[str, Any], batch: Batch) -> tuple[Any, Any]:
        """Return outputs of the device as forward would have returned them, and left the batch."""
        found = self._unpadded(outputs, batch)
        if WRITTEN not in found:
            return found, batch.host
        own = {name: value for name, value in found.items() if name != WRITTEN}
        return rebuilt(found, own), rebuilt(batch.host, {**batch.host, **found[WRITTEN]})

    def _unpadded(self, outputs: Mapping[str, Any], batch: Batch) -> Any:
        if HOST in batch.device:
            return rebuilt_outputs(outputs, batch.host)
        graph = self.converted.graph(batch.device[GRAPH])
        if graph.train:
            check_outputs(graph)
        arrays = jax.device_get(dict(outputs))
        arrays = graph.cut(arrays, arrays.pop(SIZES, ()))
        tensors = to_tensors(arrays, graph.output_dtypes())
        torch_outputs = graph.outputs.rebuild([tensors[name] for name in graph.outputs.names])
        if self._is_exact(graph.train):
            return rebuilt(batch.host, torch_outputs)
        return self._padding.unpad(torch_outputs, batch.host, train=graph.train)

    def _check_on(self, batch: Any, train: bool) -> Check | None:
        """Return a function that compares a graph with torch on a batch, None if not wanted."""
        if not self._options.verify:
            return None

        def check(graph: Graph) -> None:
            arrays = {n: to_numpy(value) for n, value in graph.device.constants.items()}
            constants = {name: narrow(name, array) for name, array in arrays.items()}
            call = self.converted.call_on(batch, train=train)
            with self._comparison():
                verify(call, self.converted.inventory, batch, graph, constants)

        return check

    @contextlib.contextmanager
    def _comparison(self) -> Iterator[None]:
        began = time.perf_counter()
        with waiting_for("comparing with torch"):
            yield
        self._comparing += time.perf_counter() - began

    def _arrays(self, tensors: Mapping[str, Tensor], key: GraphKey) -> dict[str, np.ndarray]:
        """Return the columns that a graph uses, after checking their ranges."""
        recorded = self.converted.graph(key)
        graph = recorded.device
        if key not in self._bounds:
            self._bounds[key] = bounds(graph)
        tensors = recorded.completed(tensors)
        check_ranges(self._bounds[key], tensors)
        return to_arrays({name: tensors[name] for name in graph.columns})

    def _padded(self, batch: Any, *, train: bool) -> Any:
        return batch if self._is_exact(train) else self._padding.pad(batch, train=train)

    def _is_exact(self, train: bool) -> bool:
        """Return whether padding would change an update, which the padding proof cannot see."""
        return train and self.converted.marks_rows

    def _prover(self, batch: Any, train: bool) -> Prover:
        call = self.converted.call_on(batch, train=train)
        return Prover(call, self.converted.inventory, batch, train=train)

    def _shape_count(self) -> ShapeCount:
        def seconds() -> float:
            return self.cost.tracing + self.cost.compiling

        return ShapeCount(self._options.max_shapes, seconds=seconds, reasons=self._padding.reasons)
