"""Conditions that held while forward was traced but are broken in a later step."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np

from medjax import sharding
from medjax.data import Batch, Batches
from medjax.loop.monitor import NonFiniteError
from medjax_torch.conversion import ConvertedComponent
from medjax_torch.conversion.component import COLUMNS, GRAPH
from medjax_torch.conversion.entries import key_of
from medjax_torch.conversion.host_evaluation import in_torch, tensors_of
from medjax_torch.graph import TraceError
from medjax_torch.graph.conditions import Condition
from medjax_torch.graph.errors import at
from medjax_torch.session.session import Session


@contextlib.contextmanager
def explaining(session: Session, train_loader: Batches) -> Iterator[None]:
    """Report which condition was broken if training in the block ends with a loss of NaN.

    Parameters
    ----------
    session : Session
        The session that trains.
    train_loader : Batches
        The training data.

    Raises
    ------
    TraceError
        Instead of NonFiniteError, if forward takes another branch for this batch.
    """
    try:
        yield
    except NonFiniteError as error:
        converted, state = session.converted, session.state
        if not any(graph.conditions for graph in converted.variants.graphs):
            raise
        batches = train_loader.batches(error.epoch, error.step)
        with contextlib.closing(batches):
            batch = next(batches)
        key = jax.random.fold_in(state.key, state.batch_step)
        condition = _broken(converted, state.variables, batch, key)
        if condition is None:
            raise
        if condition.raises and condition.is_of_finiteness:
            error.add_note(f"forward itself checks for this{at(condition.line)}")
            raise
        where = f"in epoch {error.epoch}, batch {error.step}"
        _raise_own_error(converted, state.variables, batch, condition, train=True)
        raise TraceError(_message(condition, where)) from error


def check_evaluation(
    converted: ConvertedComponent, variables: Any, loss: float, batches: Iterable[Batch]
) -> None:
    """Raise the error of a broken condition if the loss of an evaluation is NaN.

    Parameters
    ----------
    converted : ConvertedComponent
        The component that was evaluated.
    variables : dict
        The variables with which it was evaluated.
    loss : float
        The loss of the evaluation.
    batches : iterable of Batch
        The evaluation data again.

    Raises
    ------
    TraceError
        If forward takes another branch for one of the batches.
    Exception
        Any exception that forward itself raises in that case.
    """
    if not np.isnan(loss) or not any(graph.conditions for graph in converted.variants.graphs):
        return
    for number, batch in enumerate(batches):
        condition = _broken(converted, variables, batch, jax.random.key(0))
        if condition is not None:
            _raise_own_error(converted, variables, batch, condition, train=False)
            raise TraceError(_message(condition, f"in evaluation, batch {number}"))


def _broken(
    converted: ConvertedComponent, variables: Any, batch: Batch, key: jax.Array
) -> Condition | None:
    """Return the first condition that does not hold with the random numbers of the step."""
    if GRAPH not in batch.device:
        return None
    number = batch.device[GRAPH]
    conditions = converted.graph(number).conditions
    if not conditions:
        return None

    checked = jax.jit(functools.partial(converted.checked, number))
    key = key_of(batch.device, key)
    values = sharding.to_host(checked(variables, batch.device[COLUMNS], key))
    for condition, value in zip(conditions, values, strict=True):
        if bool(np.asarray(value).reshape(())) != condition.expected:
            return condition
    return None


def _raise_own_error(
    converted: ConvertedComponent,
    variables: Any,
    batch: Batch,
    condition: Condition,
    *,
    train: bool,
) -> None:
    """Run forward in torch if a broken condition means that it raises an error of its own."""
    if condition.raises:
        weights = tensors_of(converted, sharding.to_host(variables))
        in_torch(converted, weights, batch.host, train=train)


def _message(condition: Condition, where: str) -> str:
    return (
        f"forward branches on a condition{at(condition.line)} that was {condition.expected} when "
        f"it was traced and is {not condition.expected} {where}, so the graph is not valid there. "
        "No step was taken with this batch. Use torch.where with both results, or torch.clamp in "
        "place of min and max."
    )
