"""Scores of a phase: outputs are fetched one batch late, unpadded, kept, and scored at the end."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

import jax
import numpy as np

from medjax import distributed
from medjax.batch import BatchData
from medjax.checkpoint.columns_json import column_to_json, from_json
from medjax.component import Forward, Variables
from medjax.data import Batch
from medjax.metrics import DOCUMENT
from medjax.metrics.computer import MetricsComputer
from medjax.runtime.traces import tracing

_LOGGER = logging.getLogger("medjax")

LengthAxes = dict[str, tuple[int, ...]]
"""Maps an output column to its axes that are as long as the padded input."""

KnownAxes = dict[tuple[object, ...], LengthAxes]
"""Maps the kind of a batch to the axes of its outputs."""

Columns = dict[str, list[Any]]
"""What a metrics computer keeps, by name: one entry for each row or more."""


def in_order(columns: Columns) -> Columns:
    """Return rows in the order of their documents, where a column has them."""
    if DOCUMENT not in columns:
        return columns
    order = np.argsort(columns[DOCUMENT], kind="stable")
    return {name: [values[row] for row in order] for name, values in columns.items()}


def length_axes(
    forward: Forward, variables: Variables, batch: BatchData, ragged: set[str]
) -> LengthAxes:
    """Find the axes of the outputs that are as long as the padded input.

    The forward pass is evaluated abstractly (shapes only) at two lengths. Of an axis whose size
    changes otherwise, as in a model that halves the length, nobody but the model knows which
    entries are of padding: it is left out, with a warning.

    Parameters
    ----------
    forward : Forward
        The component's forward pass.
    variables : dict
        Arrays or abstract values.
    batch : BatchData
        A padded batch.
    ragged : set of str
        The columns that are padded along axis 1.
    """
    lengths = {batch[name].shape[1] for name in ragged if name in batch and batch[name].ndim > 1}
    longest = max(lengths, default=2)

    def shapes(length: int) -> BatchData:
        def resized(name: str, column: jax.Array) -> jax.ShapeDtypeStruct:
            shape = list(column.shape)
            if name in ragged and len(shape) > 1:
                shape[1] = length
            return jax.ShapeDtypeStruct(tuple(shape), column.dtype)

        inputs = BatchData({name: resized(name, column) for name, column in batch.items()})

        def outputs(variables: Variables, inputs: BatchData) -> BatchData:
            key = jax.random.key(0)
            return forward(variables, inputs, key, return_loss=False, eval_mode=True)[0]

        result: BatchData = jax.eval_shape(outputs, variables, inputs)
        return result

    shorter = longest // 2 or 2
    at_length, at_other = shapes(longest), shapes(shorter)
    axes: LengthAxes = {}
    for name, column in at_length.items():
        sizes = list(enumerate(zip(column.shape, at_other[name].shape, strict=True)))
        axes[name] = tuple(axis for axis, pair in sizes if pair == (longest, shorter))
        for axis, pair in sizes:
            if pair[0] != pair[1] and axis not in axes[name]:
                _warn_of_axis(name, axis, pair, (longest, shorter))
    return axes


def _warn_of_axis(name: str, axis: int, sizes: tuple[int, int], lengths: tuple[int, int]) -> None:
    if jax.process_index() == 0:
        _LOGGER.warning(
            f"axis {axis} of the output {name!r} has {sizes[0]} entries where the input is padded "
            f"to {lengths[0]}, and {sizes[1]} where it is padded to {lengths[1]}; metrics get all "
            "of them, those of padding too, as only an axis as long as the input is cut to the "
            "length before padding. Cut it in prepare_batch"
        )


class Unpadder:
    """Fetches outputs without padding rows and padded lengths.

    Parameters
    ----------
    forward : Forward
        The component's forward pass; evaluated once, abstractly, to find the axes to cut.
    variables : dict
        Arrays or abstract values.
    ragged : set of str
        Columns padded along axis 1.
    known : dict, optional
        Where to keep the axes, for another `Unpadder` of these variables.
    """

    def __init__(
        self,
        forward: Forward,
        variables: Variables,
        ragged: set[str],
        known: KnownAxes | None = None,
    ) -> None:
        self._forward = forward
        self._variables = jax.tree.map(_abstract, variables)
        self._ragged = ragged
        self._known: KnownAxes = {} if known is None else known
        self._axes: LengthAxes | None = None

    def __call__(self, outputs: BatchData, batch: Batch) -> tuple[BatchData, Any]:
        """Fetch the columns of `outputs` as numpy arrays with the rows and lengths of `batch`.

        They are returned with the batch that they are scored with, that on the host.
        """
        if self._axes is None:
            self._axes = self._axes_of(batch.device)
        lengths = [
            column.shape[1]
            for name, column in batch.host.arrays().items()
            if name in self._ragged and column.ndim > 1
        ]
        stripped = BatchData()
        for name, column in jax.device_get(outputs).items():
            if column.ndim == 0:
                msg = (
                    f"forward returned the output {name!r} as a scalar; expected one entry per row"
                )
                raise ValueError(msg)
            cut: list[slice | np.ndarray] = [slice(None)] * column.ndim
            for axis in self._axes[name] if lengths else ():
                cut[axis] = slice(max(lengths))
            cut[0] = slice(len(batch.indices)) if batch.rows is None else batch.rows
            stripped[name] = np.asarray(column)[tuple(cut)]
        return stripped, batch.host

    def _axes_of(self, batch: BatchData) -> LengthAxes:
        columns = ((name, column.shape, str(column.dtype)) for name, column in batch.items())
        key = (frozenset(self._ragged), *sorted(columns))
        if key not in self._known:
            with tracing():
                axes = length_axes(self._forward, self._variables, batch, self._ragged)
            self._known[key] = axes
        return self._known[key]


def _abstract(leaf: jax.Array | np.ndarray) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)


class Scores:
    """Collects what a metrics computer keeps of each batch of a phase.

    Parameters
    ----------
    computer : MetricsComputer
        Prepares batches and computes the scores.
    unpad : callable
        Fetches the outputs: an `Unpadder`.
    columns : dict, optional
        What was kept of earlier batches, when a phase is resumed.
    strict : bool
        Whether a score called ``"loss"``, which would replace the loss, and a string as a column,
        which would become its letters, are refused. medkit takes both.
    """

    def __init__(
        self,
        computer: MetricsComputer,
        unpad: Callable[[BatchData, Batch], tuple[BatchData, Any]],
        columns: Columns | None = None,
        *,
        strict: bool = False,
    ) -> None:
        self._computer = computer
        self._strict = strict
        self._unpad = unpad
        self._columns = {name: list(values) for name, values in (columns or {}).items()}
        self._waiting: tuple[BatchData, Batch, bool | jax.Array] | None = None
        self._shares: list[Columns] | None = None

    def add(self, outputs: BatchData, batch: Batch, taken: bool | jax.Array = True) -> None:
        """Take the outputs of a batch, and fetch those of the batch before, which are computed.

        Parameters
        ----------
        outputs : BatchData
            Outputs on the device.
        batch : Batch
            The batch they were computed from.
        taken : bool or jax.Array
            Whether the batch counts, shape ().
        """
        before, self._waiting = self._waiting, (outputs, batch, taken)
        if before is not None:
            self._prepare(*before)

    def columns(self) -> Columns:
        """Return what all processes kept of all batches added."""
        if self._waiting is not None:
            self._prepare(*self._waiting)
            self._waiting = None
        if self._shares is not None:
            shares, self._shares = self._shares, []
            for batch in zip(*_exchange(shares), strict=True):
                for share in batch:
                    self._keep(share)
        return self._columns

    def compute(self) -> dict[str, float]:
        """Compute the scores of all batches added."""
        found = self._computer.compute(self.columns())
        if not isinstance(found, Mapping):
            _refuse("compute", found, "a dict of scores by name")
        if self._strict:
            check_free_names(found)
        return found

    def _prepare(self, outputs: BatchData, batch: Batch, taken: bool | jax.Array) -> None:
        counts = bool(jax.device_get(taken))
        if batch.rows is None:
            if counts:
                self._keep(self._prepared(outputs, batch))
            return
        self._shares = [] if self._shares is None else self._shares
        self._shares.append({})
        if counts and len(batch.rows):  # without rows the host batch only serves as padding
            prepared = self._prepared(outputs, batch)
            self._shares[-1] = {name: list(values) for name, values in prepared.items()}

    def _prepared(self, outputs: BatchData, batch: Batch) -> Mapping[str, Iterable[Any]]:
        prepared = self._computer.prepare_batch(*self._unpad(outputs, batch))
        if not isinstance(prepared, Mapping):
            _refuse("prepare_batch", prepared, "a dict of columns by name")
        for name, values in prepared.items():
            is_text = self._strict and isinstance(values, str | bytes)
            if is_text or not isinstance(values, Iterable) or getattr(values, "ndim", 1) == 0:
                expected = "a list or an array of what is kept, one entry for each row or more"
                _refuse("prepare_batch", values, expected, name)
        return prepared

    def _keep(self, prepared: Mapping[str, Iterable[Any]]) -> None:
        for name, values in prepared.items():
            self._columns.setdefault(name, []).extend(values)


def check_free_names(scores: Mapping[str, object]) -> None:
    """Refuse a score that would take the place of the loss.

    Raises
    ------
    ValueError
        If there is a score called ``"loss"``.
    """
    if "loss" in scores:
        msg = (
            "metrics_computer.compute returned a score called 'loss', which would take the place "
            "of the loss of the component; give it another name, such as 'own_loss'"
        )
        raise ValueError(msg)


def _refuse(method: str, value: object, expected: str, column: str | None = None) -> NoReturn:
    of_column = "" if column is None else f" for the column {column!r}"
    msg = (
        f"metrics_computer.{method} returned {value!r:.60} of type {type(value).__name__}"
        f"{of_column}; expected {expected}"
    )
    raise ValueError(msg)


def _exchange(shares: list[Columns]) -> list[list[Columns]]:
    """Return for each process what it kept of each batch."""
    own = [{n: column_to_json(n, values) for n, values in share.items()} for share in shares]
    return [
        [{n: from_json(values) for n, values in share.items()} for share in json.loads(text)]
        for text in distributed.exchange(json.dumps(own))
    ]
