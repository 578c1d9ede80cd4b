"""The host side of torch's learning-rate schedulers.

The scheduler is the user's own and sets the parameter groups of the user's optimizer, from which
`groups.read_hyperparams` reads the learning rate, and also momentum, betas or weight decay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from medjax_torch.optimizers.groups import rule_of


class Scheduler(Protocol):
    """Anything that can be stepped, such as torch's schedulers."""

    def step(self) -> object:
        """Move on to the next rate."""
        ...


def build_scheduler(
    builder: Callable[[torch.optim.Optimizer], Any],
    optimizer: torch.optim.Optimizer,
    interval: Literal["epoch", "step"] = "epoch",
) -> Any:
    """Return ``builder(optimizer)``, ready to be stepped.

    To resume, build both the optimizer and the scheduler before calling their ``load_state_dict``,
    as building a scheduler writes its first learning rate to the optimizer.

    Parameters
    ----------
    builder : callable
        medkit's ``lr_scheduler_builder``: takes the optimizer and returns a scheduler.
    optimizer : torch.optim.Optimizer
        The optimizer whose groups the scheduler sets.
    interval : {"epoch", "step"}
        Whether the scheduler is stepped after every epoch, with `end_epoch`, or after every
        update, with its own ``step()``.

    Raises
    ------
    ValueError
        If the scheduler follows a metric but is stepped after updates, which have none, or if
        `builder` is a class that requires further arguments.
    """
    try:
        scheduler = builder(optimizer)
    except TypeError as error:
        if not isinstance(builder, type):
            raise
        msg = (
            f"lr_scheduler_builder is the class {builder.__name__}, which needs more arguments "
            f"than the optimizer ({error}); expected a function of the optimizer, such as lambda "
            f"optimizer: {builder.__name__}(optimizer, ...)"
        )
        raise ValueError(msg) from error
    if interval == "step" and isinstance(scheduler, ReduceLROnPlateau):
        msg = (
            "ReduceLROnPlateau follows an evaluation metric, which does not exist after an update; "
            "set lr_scheduler_interval='epoch'"
        )
        raise ValueError(msg)
    # JAX does the updates, so torch would warn that the scheduler is stepped before the optimizer.
    # A step without gradients changes nothing and prevents that. A user's own step may behave
    # differently without gradients, so there only torch's flag is set.
    optimizer.zero_grad(set_to_none=True)
    if rule_of(optimizer) is None:
        optimizer._opt_called = True  # type: ignore[attr-defined]
    else:
        optimizer.step()
    return scheduler


def end_epoch(scheduler: Any, eval_metrics: Mapping[str, float], metric: str) -> None:
    """Step a scheduler at the end of an epoch, as medkit does.

    Parameters
    ----------
    scheduler : object
        A torch scheduler, or any object with ``step()``.
    eval_metrics : mapping of str to float
        Metrics of the evaluation.
    metric : str
        Name of the metric that ReduceLROnPlateau follows; other schedulers ignore it.

    Raises
    ------
    ValueError
        If ReduceLROnPlateau needs a metric that is not in `eval_metrics`.
    """
    if not isinstance(scheduler, ReduceLROnPlateau):
        scheduler.step()
        return
    value = eval_metrics.get(metric)
    if value is None:
        raise ValueError(metric_missing(metric))
    scheduler.step(value)


def metric_missing(metric: str) -> str:
    """Return medkit's message for a metric that a scheduler needs but that is missing."""
    return (
        "Learning scheduler needs an eval metric to update the learning rate, "
        f"'{metric}' was not found"
    )
