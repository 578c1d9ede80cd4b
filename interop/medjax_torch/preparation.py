"""Preparation: from a collated torch batch to what the step takes, and outputs back to torch."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from medjax import sharding
from medjax.batch import BatchData
from medjax.data import Batch
from medjax.step import CompiledStep, make_eval_step
from medjax_torch.batches import Padder, ShapeCount, to_arrays, to_tensors
from medjax_torch.component import (
    COLUMNS,
    GRAPH,
    WEIGHT,
    ConvertedComponent,
    GraphKey,
    dtypes_of,
    loss_weight,
)
from medjax_torch.graph import Graph, columns
from medjax_torch.graph.ranges import bounds, check_ranges
from medjax_torch.options import Options
from medjax_torch.verification import prove_padding, verify

logger = logging.getLogger("medjax")


class Padding(NamedTuple):
    """What the first batch showed about padding.

    Attributes
    ----------
    axes : dict of str to tuple of int
        The axes of each output that are as long as the padded columns.
    """

    axes: dict[str, tuple[int, ...]]


class Preparation:
    """Prepares batches for one component, and looks closely at the first of each mode.

    Parameters
    ----------
    converted : ConvertedComponent
        The component.
    options : Options
        For padding, verification, loss arithmetic and the number of shapes.
    mesh : jax.sharding.Mesh
        Where batches go.
    """

    def __init__(self, converted: ConvertedComponent, options: Options, mesh: Mesh) -> None:
        self.converted = converted
        self.mesh = mesh
        self._options = options
        self._padder = Padder(options)
        self._padding: dict[bool, Padding | None] = {}
        self._shapes = {True: ShapeCount(options.max_shapes), False: ShapeCount(options.max_shapes)}
        self._bounds: dict[GraphKey, Any] = {}
        self._eval_steps: dict[bool, CompiledStep] = {}

    def eval_step(self, *, with_outputs: bool) -> CompiledStep:
        """Return the evaluation step, the same one each time."""
        if with_outputs not in self._eval_steps:
            self._eval_steps[with_outputs] = make_eval_step(
                self.converted.forward,
                options=self._options,
                mesh=self.mesh,
                with_outputs=with_outputs,
            )
        return self._eval_steps[with_outputs]

    def first(self, batch: Any, *, train: bool) -> Graph:
        """Return the graph of a first batch, once torch agrees with it.

        Raises
        ------
        VerificationError
            If JAX computes something else than torch.
        TraceError
            If forward cannot be a graph.
        """
        self._padding[train] = self._prove(batch, train=train)
        padded = self._padded(batch, train=train)
        key = self.converted.graph_of(padded, train=train)
        graph = self.converted.graph(key)
        check_ranges(bounds(graph), columns(padded))
        if self._options.verify:
            call = self.converted.call_on(batch, train=train)
            worst = verify(
                *(call, self.converted.found, padded, graph),
                self.converted.constants(key),
            )
            phase = "training" if train else "evaluation"
            logger.info("torch and JAX agree on the first %s batch to %.1e", phase, worst)
        return graph

    def __call__(self, batch: Any, *, train: bool) -> BatchData:
        """Return a batch as the step takes it.

        Raises
        ------
        ValueError
            If a number does not fit the device, an identifier its embedding, or there are too
            many shapes.
        """
        if train not in self._padding:
            self.first(batch, train=train)
        padded = self._padded(batch, train=train)
        key = self.converted.graph_of(padded, train=train)
        graph = self.converted.graph(key)
        tensors = columns(padded)
        self._shapes[train].add(tensors)
        if key not in self._bounds:
            self._bounds[key] = bounds(graph)
        check_ranges(self._bounds[key], tensors)
        arrays: dict[str, Any] = {
            COLUMNS: to_arrays({name: tensors[name] for name in graph.columns})
        }
        if self._options.loss_arithmetic == "exact":
            arrays[WEIGHT] = jax.numpy.float32(loss_weight(batch))
        return BatchData({GRAPH: key, **place(arrays, self.mesh)})

    def unpad(self, outputs: Mapping[str, Any], batch: Batch) -> Any:
        """Return outputs of the device as the component's forward would have returned them."""
        graph = self.converted.graph(batch.device[GRAPH])
        names = graph.outputs.names
        arrays = jax.device_get([outputs[name] for name in names])
        padding = self._padding[graph.train]
        length = self._padder.length(batch.host) if padding is not None else None
        if padding is not None and length is not None:
            cut = [_cut(a, padding.axes[n], length) for n, a in zip(names, arrays, strict=True)]
            arrays = cut
        return type(batch.host)(graph.outputs.rebuild(to_tensors(arrays, dtypes_of(graph))))

    def _padded(self, batch: Any, *, train: bool) -> Any:
        length = self._padder.length(batch)
        if self._padding[train] is None or length is None:
            return batch
        rung = self._padder.rung(length)
        return batch if rung is None or rung == length else self._padder.pad_to(batch, rung)

    def _prove(self, batch: Any, *, train: bool) -> Padding | None:
        """Return how to pad, None if it is not harmless or there is nothing to pad."""
        length = self._padder.length(batch)
        if length is None:
            return None
        longer = self._padder.rung(length + 1) or length + 1
        call = self.converted.call_on(batch, train=train)
        proof = prove_padding(
            *(call, self.converted.found, batch, self._padder.pad_to(batch, longer)), train=train
        )
        if not isinstance(proof, str):
            return Padding(proof)
        logger.warning(
            "Batches run in their exact shapes, each of which is traced and compiled: padding "
            "%s is not harmless (%s)",
            *(", ".join(self._padder.columns(batch)), proof),
        )
        return None


def _cut(array: Any, axes: tuple[int, ...], length: int) -> Any:
    index = [slice(length) if axis in axes else slice(None) for axis in range(array.ndim)]
    return array[tuple(index)]


def place(arrays: Any, mesh: Mesh) -> Any:
    """Return arrays on the device, their first axis split over the mesh where it divides.

    What does not divide, the last batch or one without rows, is repeated: the result is the same.
    """
    rows, everywhere = sharding.row_sharding(mesh), sharding.replicated(mesh)

    def choose(array: Any) -> jax.sharding.Sharding:
        splits = mesh.size > 1 and array.ndim and array.shape[0] and not array.shape[0] % mesh.size
        return rows if splits else everywhere

    return sharding.put(arrays, jax.tree.map(choose, arrays))
