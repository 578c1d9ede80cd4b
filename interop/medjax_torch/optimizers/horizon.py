"""Warnings about schedulers made for updates but stepped after epochs, or the other way round."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

from torch.optim import lr_scheduler


class Horizon(NamedTuple):
    """The number of steps that a scheduler is made for.

    Attributes
    ----------
    scheduler : str
        Class of the scheduler.
    setting : str
        The scheduler's setting, such as ``total_steps``.
    steps : int
        Value of the setting.
    ends : bool
        Whether the schedule ends after these steps, so that they are the length of the training.
    """

    scheduler: str
    setting: str
    steps: int
    ends: bool


_SETTINGS: dict[type, tuple[tuple[str, bool], ...]] = {
    lr_scheduler.OneCycleLR: (("total_steps", True),),
    lr_scheduler.CosineAnnealingLR: (("T_max", True),),
    lr_scheduler.CosineAnnealingWarmRestarts: (("T_0", False),),
    lr_scheduler.CyclicLR: (("total_size", False),),
    lr_scheduler.LinearLR: (("total_iters", False),),
    lr_scheduler.ConstantLR: (("total_iters", False),),
    lr_scheduler.PolynomialLR: (("total_iters", False),),
    lr_scheduler.StepLR: (("step_size", False),),
    lr_scheduler.MultiStepLR: (("milestones", False),),
    lr_scheduler.SequentialLR: (("_milestones", False),),
}
"""Attributes of torch's schedulers that count steps, and whether the schedule ends after them."""

_ARGUMENTS = {
    "num_training_steps": True,
    "num_warmup_steps": False,
    "total_steps": True,
    "warmup_steps": False,
}
"""The corresponding argument names of functions for LambdaLR, including transformers'."""


def warn_of_interval(
    scheduler: Any,
    interval: Literal["epoch", "step"],
    *,
    nb_epochs: int,
    nb_updates: int,
    warn: Callable[[str], None],
) -> None:
    """Warn if a scheduler is made for another number of steps than it will get.

    Parameters
    ----------
    scheduler : object
        A torch scheduler.
    interval : {"epoch", "step"}
        When it is stepped.
    nb_epochs, nb_updates : int
        Numbers of epochs and updates of the run.
    warn : callable
        Takes the message.
    """
    for horizon in horizons(scheduler):
        made_for = f"{horizon.scheduler} is made for {horizon.setting}={horizon.steps} steps"
        if interval == "epoch" and horizon.steps > nb_epochs:
            warn(
                f"{made_for}, but it is stepped after each epoch, of which there are {nb_epochs}, "
                "so it hardly changes the learning rate; set "
                f'Options(lr_scheduler_interval="step") to step it after each of {nb_updates} '
                "updates"
            )
            return
        if interval == "step" and horizon.ends and horizon.steps <= nb_epochs < nb_updates:
            warn(
                f"{made_for}, but it is stepped after each update, of which there are "
                f'{nb_updates}; set Options(lr_scheduler_interval="epoch") to step it after each '
                f"of {nb_epochs} epochs"
            )
            return


def horizons(scheduler: Any) -> Iterator[Horizon]:
    """Yield the horizons of a scheduler and of the schedulers that it consists of."""
    name = type(scheduler).__name__
    for kind, settings in _SETTINGS.items():
        for setting, ends in settings if type(scheduler) is kind else ():
            steps: Any = getattr(scheduler, setting, None)
            if setting.endswith("milestones"):
                # Only the first: later ones may be meant for longer runs and never be reached.
                steps = min(steps, default=None)
            if steps:
                yield Horizon(name, setting.strip("_"), int(steps), ends)
    for function in getattr(scheduler, "lr_lambdas", ()):
        for argument, value in _arguments(function).items():
            if argument in _ARGUMENTS and isinstance(value, int):
                yield Horizon(name, argument, value, _ARGUMENTS[argument])
    for part in getattr(scheduler, "_schedulers", ()):
        yield from (each._replace(ends=False) for each in horizons(part))


def _arguments(function: Any) -> dict[str, Any]:
    """Return the values bound to a function when it was created, by name."""
    if isinstance(function, functools.partial):
        return {**_arguments(function.func), **function.keywords}
    if not inspect.isfunction(function):
        return dict(getattr(function, "__dict__", {}))
    return dict(inspect.getclosurevars(function).nonlocals)
