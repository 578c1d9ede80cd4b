"""The component, tried on a few items before training: on shapes and types alone."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import jax
import numpy as np

from medjax.batch import ROW_MASK, BatchData
from medjax.component import TrainableComponent, Variables
from medjax.data import Dataset
from medjax.data.ladder import Ladder, fix_shape
from medjax.data.source import Examples
from medjax.loop.request import RunRequest
from medjax.metrics.computer import MetricsComputer
from medjax.metrics.mean import Mean
from medjax.step.forward import LABELS
from medjax.step.update import check_collections

__all__ = ["check_component", "check_labels", "sample_columns", "sample_scores"]


def check_component(
    component: TrainableComponent,
    variables: Variables,
    data: Dataset,
    ladder: Ladder,
    padding: Mapping[str, float | None],
) -> None:
    """Try a component on one item, on shapes and types alone.

    Parameters
    ----------
    component : TrainableComponent
        The component to check.
    variables : dict
        Its variables; shapes and types suffice.
    data : Dataset
        The training data.
    ladder : Ladder
        Lengths, and columns to pad to them.
    padding : mapping of str to float or None
        The columns of which the user has said whether to pad them, `Options.padding`.

    Raises
    ------
    ValueError
        Names the slot that returned something unexpected, or the column `labels` if it has one
        value for each row and would be padded.
    ItemError
        If the item cannot be preprocessed.
    """
    check_labels(component, data, ladder, padding)
    batch = _collated(component, data, 1)
    fixed = fix_shape(batch, ladder, 1)
    try:
        _outputs(component, variables, fixed, eval_mode=False)
    except (TypeError, ValueError) as error:
        unpadded = _unpadded(batch, fixed)
        if unpadded:
            raise ValueError(f"{unpadded} component.forward failed on it: {error}") from error
        shapes = {name: tuple(column.shape) for name, column in fixed.items()}
        error.add_note(f"raised by component.forward on a batch with the columns {shapes}")
        raise


def check_labels(
    component: TrainableComponent,
    data: Dataset,
    ladder: Ladder,
    padding: Mapping[str, float | None],
) -> None:
    """Refuse labels of shape (rows, 1) that are padded: a loss may broadcast over the padding.

    Parameters
    ----------
    component, data, ladder, padding
        As for `check_component`.

    Raises
    ------
    ValueError
        If the first item has such labels and `padding` does not say what they are.
    """
    if LABELS in padding:
        return
    batch = _collated(component, data, 1)
    fixed = fix_shape(batch, ladder, 1)
    widths = {name: c.shape[1] for name, c in batch.arrays().items() if c.ndim > 1}
    if widths.pop(LABELS, 0) != 1 or fixed[LABELS].shape[1] == 1 or 1 in widths.values():
        return
    msg = (
        f"collate returned the column {LABELS!r} with shape {np.shape(batch[LABELS])}, which is "
        f"padded with -100 to length {fixed[LABELS].shape[1]}, as labels of tokens are: with one "
        f"label for each row give Options(padding={{{LABELS!r}: None}}), with labels of tokens "
        f"{{{LABELS!r}: -100}}"
    )
    raise ValueError(msg)


_TENSORS = frozenset({"tensorflow", "torch"})
"""Packages whose arrays no step takes."""


def _collated(component: TrainableComponent, data: Dataset, count: int) -> BatchData:
    examples = Examples(data, component.preprocess, 0)(1, range(count))
    if not isinstance(examples[0], Mapping):
        _refuse_result("preprocess", examples[0], "a dict with a value for each name")
    batch = component.collate(examples)
    if not isinstance(batch, BatchData):
        _refuse_result("collate", batch, "a medjax.BatchData with one row for each example")
    for name, column in batch.items():
        kind = type(column)
        if kind.__module__.partition(".")[0] in _TENSORS:
            msg = (
                f"component.collate returned the column {name!r} as a {kind.__module__}."
                f"{kind.__name__}; expected a numpy array, as its .numpy() gives, or a list to "
                "keep it on the host"
            )
            raise ValueError(msg)
    return batch


def _outputs(
    component: TrainableComponent, variables: Variables, inputs: BatchData, *, eval_mode: bool
) -> BatchData:
    """Compute shapes and types of the outputs."""

    def forward(variables: Variables, inputs: BatchData) -> BatchData:
        key = jax.random.key(0)
        result = component.forward(variables, inputs, key, return_loss=True, eval_mode=eval_mode)
        _check_result(result)
        if not eval_mode:
            check_collections(result[2], variables)
        return result[0]

    kinds = [
        (path, tuple(leaf.shape), leaf.dtype)
        for path, leaf in jax.tree_util.tree_leaves_with_path((variables, inputs))
    ]
    shapes: BatchData = component.kept(
        "outputs",
        (eval_mode, kinds),
        lambda: jax.eval_shape(forward, variables, inputs),
    )
    return shapes


def _check_result(result: object) -> None:
    if not isinstance(result, tuple) or len(result) != 3:
        kind = f"{len(result)} values" if isinstance(result, tuple) else type(result).__name__
        msg = (
            f"component.forward returned {kind}; expected three: outputs (a BatchData), loss (a "
            "medjax.Mean or None) and the collections that changed (a dict, {} for none)"
        )
        raise ValueError(msg)
    outputs, loss, collections = result
    if not isinstance(outputs, BatchData):
        _refuse_result("forward", outputs, "a medjax.BatchData as first value, the outputs")
    if not isinstance(loss, Mean):
        expected = (
            "a medjax.Mean as second value, the loss: Mean.of(losses, weights) of the losses of "
            "rows or labels and what each weighs, 0 for padding"
        )
        _refuse_result("forward", loss, expected)
    shapes = {name: np.shape(getattr(loss, name)) for name in ("total", "weight")}
    if any(shapes.values()):
        msg = (
            f"component.forward returned a loss with arrays of shapes {shapes}; expected sums, of "
            "shape (): Mean.of(losses, weights)"
        )
        raise ValueError(msg)
    if not isinstance(collections, Mapping):
        _refuse_result("forward", collections, "a dict of collections as third value, {} for none")


def _refuse_result(slot: str, value: object, expected: str) -> None:
    msg = f"component.{slot} returned a {type(value).__name__}; expected {expected}"
    raise ValueError(msg)


def _unpadded(batch: BatchData, fixed: BatchData) -> str:
    """Describe columns that were as long as a padded column and no longer are; "" if none."""
    lengths = {n: c.shape[1] for n, c in batch.arrays().items() if c.ndim > 1}
    padded = {n for n, length in lengths.items() if fixed[n].shape[1] != length}
    others = sorted(
        n for n in lengths.keys() - padded if lengths[n] in {lengths[p] for p in padded}
    )
    if not others:
        return ""
    first = sorted(padded)[0]
    return (
        f"the column {first!r} is padded from length {lengths[first]} to {fixed[first].shape[1]}, "
        f"and {', '.join(map(repr, others))} of the same length is not: give Options(padding="
        f"{{{others[0]!r}: 0}}) to pad it too, or {{{first!r}: None}} to pad neither."
    )


def sample_scores(request: RunRequest, variables: Variables, data: Dataset) -> dict[str, object]:
    """Compute the scores of a batch when all outputs are 0; {} if the metrics computer fails.

    They give the names of the metrics before anything is trained. A copy of the metrics computer
    makes them.

    Parameters
    ----------
    request : RunRequest
        Has the component and the metrics computer.
    variables : dict
        Variables of the component; shapes and types suffice.
    data : Dataset
        The evaluation data.
    """
    assert request.metrics_computer is not None
    count = min(request.config.batch_size, len(data))
    sample = _zeros_for(request.component, variables, data, count)
    try:
        computer = copy.deepcopy(request.metrics_computer)
        kept = computer.prepare_batch(*sample)
        return dict(computer.compute({name: list(values) for name, values in kept.items()}))
    except Exception:  # a user's own code, on numbers it was not made for
        return {}


def sample_columns(
    component: TrainableComponent,
    metrics_computer: MetricsComputer,
    variables: Variables,
    data: Dataset,
) -> frozenset[str]:
    """Return the names of what a metrics computer keeps of one item; none if it fails.

    Parameters
    ----------
    component, metrics_computer
        As for `train`. A copy of the metrics computer is asked.
    variables, data
        As for `sample_scores`.
    """
    sample = _zeros_for(component, variables, data, 1)
    try:
        return frozenset(copy.deepcopy(metrics_computer).prepare_batch(*sample))
    except Exception:  # a user's own code, on numbers it was not made for
        return frozenset()


def _zeros_for(
    component: TrainableComponent, variables: Variables, data: Dataset, count: int
) -> tuple[BatchData, BatchData]:
    """Return outputs that are 0, and the batch of the first items that they are of."""
    batch = _collated(component, data, count)
    inputs = BatchData({**batch.arrays(), ROW_MASK: np.ones(batch.nb_rows, np.float32)})
    outputs = _outputs(component, variables, inputs, eval_mode=True)
    zeros = BatchData({name: np.zeros(o.shape, o.dtype) for name, o in outputs.items()})
    return zeros, batch
