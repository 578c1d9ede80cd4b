"""A torch scheduler that goes on from a checkpoint, with arguments that may have changed since."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
from torch.optim.lr_scheduler import ReduceLROnPlateau

from medjax.checkpoint import MismatchError
from medjax_torch.session.stepped_schedulers import (
    copy_of,
    has_other_functions,
    nb_steps_of,
    take_over,
    take_steps,
)
from medjax_torch.session.torch_settings import NOT_PLAIN, PARTS, plain

logger = logging.getLogger("medjax")

INTERVAL = "lr_scheduler_interval"
"""The option that says whether a scheduler counts epochs or updates."""

_BASES = "base_lrs"  # they follow the rate of the optimizer, which is put in force by itself


class Counted(NamedTuple):
    """What the steps of a scheduler were when a checkpoint was saved, and what they are now.

    Attributes
    ----------
    then, now : {"epoch", "step"}
        The values of `INTERVAL`.
    nb_done : int
        Number of epochs or, if they are counted now, of updates that are done.
    """

    then: str
    now: str
    nb_done: int


class FreshScheduler:
    """A scheduler as the user created it, kept while its saved state is loaded.

    Parameters
    ----------
    scheduler : object
        A torch scheduler, any object with ``step()``, or None.

    Attributes
    ----------
    attributes : dict
        Copies of its plain attributes; under `PARTS` those of the schedulers it consists of.
    """

    def __init__(self, scheduler: Any) -> None:
        self._copy = copy_of(scheduler)
        self.attributes = _attributes(scheduler)

    def follow(
        self, scheduler: Any, old: dict[str, Any], new: dict[str, Any], counted: Counted
    ) -> None:
        """Let a scheduler that holds its saved state go on as the user has set it now.

        If only the rate of the optimizer has changed, the rate that the scheduler has reached
        stays in proportion. If anything else has, one of torch's goes on where a new one would
        stand after as many steps.

        Parameters
        ----------
        scheduler : object
            The scheduler, of the same class as when it was saved.
        old, new : dict
            From `torch_settings`: of the saved run, and of this one.
        counted : Counted
            What its steps are.

        Raises
        ------
        MismatchError
            If `INTERVAL` has changed and the steps cannot be counted in the other unit.
        """
        changes = list(_changes(scheduler, old, new))
        for text in changes:
            tell(text)
        is_other = counted.then != counted.now
        if is_other:
            tell(f"{INTERVAL} was {counted.then!r} and is {counted.now!r} now")
        if self._copy is not None and not changes and has_other_functions(scheduler, self._copy):
            tell(f"a function of the scheduler {type(scheduler).__name__} has changed")
        elif not changes and not is_other:
            _set_changed(scheduler, self.attributes, old, new)
            return
        if self._go_on_as_new(scheduler, counted):
            return
        if is_other:
            raise MismatchError(_cannot_count(scheduler, counted))
        _set_changed(scheduler, self.attributes, old, new)
        if hasattr(scheduler, "optimizer") and not isinstance(scheduler, ReduceLROnPlateau):
            tell(
                f"the learning rate stays {_rates(scheduler.optimizer)} until the scheduler "
                f"{type(scheduler).__name__} sets another"
            )

    def _go_on_as_new(self, scheduler: Any, counted: Counted) -> bool:
        fresh = self._copy
        if fresh is None:
            return False
        nb_steps, nb_left = counted.nb_done, counted.nb_done
        if counted.then == counted.now:
            nb_steps = nb_steps_of(scheduler)
            nb_left = nb_steps - nb_steps_of(fresh)
        if not take_steps(fresh, nb_left):
            return False
        before = _rates(scheduler.optimizer)
        take_over(scheduler, fresh)
        tell(
            f"the scheduler {type(scheduler).__name__} goes on where a new one would be after "
            f"{nb_steps} steps, each after {_UNITS[counted.now]}: the learning rate was {before} "
            f"and is {_rates(scheduler.optimizer)} now"
        )
        return True

    def forget_metric(
        self, scheduler: Any, former: dict[str, Any], current: tuple[Any, ...]
    ) -> None:
        """Let ReduceLROnPlateau start again where it would compare values of different things.

        Parameters
        ----------
        scheduler : object
            The scheduler.
        former : dict
            What its values were of, by the name of the setting.
        current : tuple
            What they are of now, in the same order.
        """
        if not isinstance(scheduler, ReduceLROnPlateau):
            return
        for (name, was), now in zip(former.items(), current, strict=True):
            if was == now:
                continue
            for attribute in ("best", "num_bad_epochs", "cooldown_counter"):
                setattr(scheduler, attribute, self.attributes[attribute])
            tell(
                f"{name} was {was!r} and is {now!r} now: what ReduceLROnPlateau has seen of the "
                "former is dropped"
            )


def are_different(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Return whether two schedulers are of different classes or consist of different numbers.

    Parameters
    ----------
    old, new : dict
        From `torch_settings`.
    """
    if old.get("class") != new.get("class"):
        return True
    return PARTS in old and len(old[PARTS]) != len(new.get(PARTS, ()))


def tell(text: str) -> None:
    """Log a warning about what a resumed run does otherwise than the one before."""
    if jax.process_index() == 0:
        logger.warning("Resuming: %s", text)


_UNITS = {"epoch": "an epoch", "step": "an update"}


def _cannot_count(scheduler: Any, counted: Counted) -> str:
    return (
        f"{INTERVAL} was {counted.then!r} when the checkpoint was saved and is {counted.now!r} "
        f"now, but where the scheduler {type(scheduler).__name__} would be after "
        f"{counted.nb_done} steps of the other kind cannot be computed. Resume with "
        f"{INTERVAL}={counted.then!r}, or start a new run from the weights of the checkpoint: "
        "component.load(checkpoint), then train(resume=None)"
    )


def _attributes(scheduler: Any) -> dict[str, Any]:
    held = dict(vars(scheduler)) if hasattr(scheduler, "__dict__") else {}
    held.pop("optimizer", None)
    parts = [_attributes(part) for part in held.pop(PARTS, ())]
    known = {name: value for name, value in held.items() if plain(value) is not NOT_PLAIN}
    return {**copy.deepcopy(known), PARTS: parts}


def _changed(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    """Yield the names of the settings of a scheduler that the user has changed."""
    for name, value in new.items():
        if name in old and old[name] != value and name not in {"class", "_last_lr"}:
            yield name


def _changes(scheduler: Any, old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    """Say what the user has changed about a scheduler, besides the rate of the optimizer."""
    kind = type(scheduler).__name__
    for name in _changed(old, new):
        if name == PARTS:
            for part in zip(getattr(scheduler, PARTS), old[name], new[name], strict=True):
                yield from _changes(*part)
        elif name != _BASES:
            yield f"{name} of the scheduler {kind} was {old[name]!r} and is {new[name]!r} now"


def _set_changed(
    scheduler: Any, fresh: dict[str, Any], old: dict[str, Any], new: dict[str, Any]
) -> None:
    for name in _changed(old, new):
        if name == PARTS:
            parts = zip(getattr(scheduler, PARTS), fresh[PARTS], old[name], new[name], strict=True)
            for part in parts:
                _set_changed(*part)
        elif name == _BASES:
            _rebase(scheduler, fresh[_BASES])
        elif name in fresh:
            setattr(scheduler, name, fresh[name])


def _rebase(scheduler: Any, bases: list[Any]) -> None:
    """Give a scheduler other rates to scale, and keep what it last set in proportion."""
    if hasattr(scheduler, "_last_lr"):
        scheduler._last_lr = [
            rate * (new / old) if old else rate
            for rate, old, new in zip(scheduler._last_lr, scheduler.base_lrs, bases, strict=True)
        ]
    scheduler.base_lrs = bases


def _rates(optimizer: Any) -> Any:
    rates = [plain(group["lr"]) for group in optimizer.param_groups]
    return rates[0] if len(set(rates)) == 1 else rates
