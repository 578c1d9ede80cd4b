"""What a torch scheduler is after a number of steps, found by stepping a copy of it.

torch's schedulers compute most rates from the one before, so the rate at which a schedule with
other arguments goes on is found by taking its steps.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from torch.optim import lr_scheduler

from medjax_torch.session.torch_settings import NOT_PLAIN, PARTS, plain

_CYCLED = ("momentum", "betas")  # what OneCycleLR and CyclicLR set besides the rate
_RELATIVE = 1e-6  # rates that are tensors are rounded to float32


def copy_of(scheduler: Any) -> Any:
    """Return a copy with an optimizer of its own, which has groups without parameters.

    Parameters
    ----------
    scheduler : object
        A scheduler.

    Returns
    -------
    object or None
        None unless the scheduler is one of torch's that needs nothing but steps: a class of the
        user may do anything in a step, and ReduceLROnPlateau follows a metric.
    """
    if not all(_needs_only_steps(each) for each in _all_of(scheduler)):
        return None
    groups = [
        {name: copy.deepcopy(value) for name, value in group.items() if name != "params"}
        for group in scheduler.optimizer.param_groups
    ]
    return _copied(scheduler, SimpleNamespace(param_groups=groups, step=None))


def nb_steps_of(scheduler: Any) -> int:
    """Return how many steps one of torch's schedulers has counted."""
    while not hasattr(scheduler, "last_epoch"):  # ChainedScheduler
        scheduler = getattr(scheduler, PARTS)[0]
    nb_steps: int = scheduler.last_epoch
    return nb_steps


def take_steps(fresh: Any, nb_steps: int) -> bool:
    """Step a copy from `copy_of`, and return whether it could be stepped so often."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no optimizer has been stepped before the copy
        try:
            for _ in range(nb_steps):
                fresh.step()
        except Exception:  # the user's function, or OneCycleLR beyond its last step
            return False
    return True


def take_over(scheduler: Any, stepped: Any) -> None:
    """Put a scheduler and the groups of its optimizer where a copy stands."""
    scheduler.load_state_dict(stepped.state_dict())
    is_cycled = any(getattr(each, "cycle_momentum", False) for each in _all_of(stepped))
    names = ("lr", *_CYCLED) if is_cycled else ("lr",)
    for group, other in zip(
        scheduler.optimizer.param_groups, stepped.optimizer.param_groups, strict=True
    ):
        for name in names:
            if name in other:
                group[name] = like(group[name], plain(other[name]))


def like(former: Any, value: Any) -> Any:
    """Return a plain value as the kind of object that stood in its place."""
    if hasattr(former, "new_tensor"):
        return former.new_tensor(value)
    return tuple(value) if isinstance(former, tuple) else value


def has_other_functions(scheduler: Any, fresh: Any) -> bool:
    """Return whether a LambdaLR gives another rate now than when it was saved.

    torch does not save functions, so only what they return tells whether they have changed.

    Parameters
    ----------
    scheduler : object
        A scheduler with its saved state.
    fresh : object
        From `copy_of`, before the state was loaded.
    """
    return any(map(_gives_another_rate, _all_of(scheduler), _all_of(fresh)))


def _gives_another_rate(saved: Any, fresh: Any) -> bool:
    # A part of SequentialLR whose turn has not come counts from below 0.
    if not isinstance(saved, lr_scheduler.LambdaLR) or saved.last_epoch < 0:
        return False
    for function, new, base, rate in zip(
        saved.lr_lambdas, fresh.lr_lambdas, saved.base_lrs, saved.get_last_lr(), strict=True
    ):
        held = plain(getattr(function, "__dict__", {}))
        if held is NOT_PLAIN or held != plain(getattr(new, "__dict__", {})):
            continue  # what it returns may depend on what it has counted
        try:
            factor = copy.copy(function)(saved.last_epoch)
        except Exception:  # it would also fail in a step, if there is another
            return False
        if not math.isclose(float(base * factor), float(rate), rel_tol=_RELATIVE):
            return True
    return False


def _needs_only_steps(scheduler: Any) -> bool:
    kind = type(scheduler)
    is_torchs = kind.__module__ == lr_scheduler.__name__ and "step" not in vars(scheduler)
    return is_torchs and kind is not lr_scheduler.ReduceLROnPlateau


def _all_of(scheduler: Any) -> Iterator[Any]:
    """Yield a scheduler and those that it consists of."""
    yield scheduler
    for part in getattr(scheduler, PARTS, ()):
        yield from _all_of(part)


def _copied(value: Any, optimizer: Any) -> Any:
    if isinstance(value, lr_scheduler.LRScheduler):
        made = copy.copy(value)
        for name, held in vars(value).items():
            setattr(made, name, optimizer if name == "optimizer" else _copied(held, optimizer))
        return made
    if isinstance(value, list | tuple):
        return [_copied(item, optimizer) for item in value]
    # A method must not be copied with the object that it belongs to, such as the component.
    return copy.copy(value) if callable(value) else copy.deepcopy(value)
