"""TrainerCallback: medkit's events, for any number of callbacks at once."""

from __future__ import annotations

import inspect
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import jax

from medjax.config import TrainerConfig

logger = logging.getLogger("medjax")


class StopTraining(Exception):  # noqa: N818  (a request, like StopIteration, not an error)
    """Raised by a callback to end training in good order: evaluated and saved as usual.

    Raised at the begin of an epoch or during its training batches it ends the epoch after the
    batch at hand, or after those that its update still needs when gradients are accumulated;
    raised later after this epoch. With several processes it may be raised in any of them and ends
    all after this epoch.
    """


class TrainerCallback:
    """Base class of callbacks; every event does nothing until overridden.

    An override may leave out any parameter it does not need. With several processes each has its
    own callbacks, which must ask for the same; one that prints or writes sets `of_process_0`.

    Attributes
    ----------
    of_process_0 : bool
        Whether the callback gets events in process 0 only.
    """

    of_process_0 = False

    def on_train_begin(self, config: TrainerConfig) -> None:
        """Event called at the beginning of training."""

    def on_resume(
        self, checkpoint_dir: str, epoch: int, step_idx: int, nb_batches: int, nb_epochs: int
    ) -> None:
        """Event called after `on_train_begin` when training goes on from a checkpoint.

        Parameters
        ----------
        checkpoint_dir : str
            The checkpoint.
        epoch : int
            Epoch to go on with, from 1; beyond `nb_epochs` if nothing is left to do.
        step_idx : int
            Training batches of it that are done.
        nb_batches : int
            Training batches of an epoch.
        nb_epochs : int
            Epochs of the whole run.
        """

    def on_train_end(self) -> None:
        """Event called at the end of training."""

    def on_epoch_begin(self, epoch: int) -> None:
        """Event called at the beginning of an epoch, counted from 1."""

    def on_epoch_end(
        self, metrics: dict[str, dict[str, float]], epoch: int, epoch_duration: float
    ) -> None:
        """Event called at the end of an epoch.

        Parameters
        ----------
        metrics : dict
            ``{"train": {...}, "eval": {...}}``; ``"eval"`` is absent without evaluation data.
        epoch : int
            Counted from 1.
        epoch_duration : float
            Seconds of training and evaluation together. An override may call it ``epoch_time``.
        """

    def on_step_begin(self, step_idx: int, nb_batches: int, phase: str) -> None:
        """Event called before a batch; `phase` is "train" or "eval"."""

    def on_step_end(
        self, step_idx: int, nb_batches: int, phase: str, loss: float | None = None
    ) -> None:
        """Event called after a batch was handed to the device.

        Parameters
        ----------
        step_idx : int
            Number of the batch, from 0.
        nb_batches : int
            Batches of the phase.
        phase : {"train", "eval"}
            What the batch is for.
        loss : float, optional
            Latest mean loss of the epoch that was read without waiting for the device.
        """

    def on_save(self, checkpoint_dir: str) -> None:
        """Event called before a checkpoint is saved into `checkpoint_dir`."""

    def on_exception(self, error: BaseException) -> None:
        """Event called when training fails or is interrupted; `error` is raised after it."""

    def state_dict(self) -> dict[str, Any]:
        """Return what the callback must remember when a run is resumed, ready for JSON."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` returned."""


_EVENTS = (
    "on_train_begin",
    "on_train_end",
    "on_epoch_begin",
    "on_resume",
    "on_epoch_end",
    "on_step_begin",
    "on_step_end",
    "on_save",
    "on_exception",
)
_RENAMED = {
    "epoch_duration": "epoch_time"
}  # the name medkit's base class has, see its callbacks.py


class CallbackList(TrainerCallback):
    """Several callbacks as one, called in order.

    Each gets the arguments its method takes. An exception gets a note that names callback and
    event. `StopTraining` is noted, and the others still get the event.

    Parameters
    ----------
    callbacks : sequence
        Objects with any of the methods of `TrainerCallback`.

    Attributes
    ----------
    stop_reason : str or None
        What the first `StopTraining` said.
    stopped_by : str or None
        Class and number of the callback that raised it.
    """

    def __init__(self, callbacks: Sequence[Any]) -> None:
        self.callbacks = list(callbacks)
        self.stop_reason: str | None = None
        self.stopped_by: str | None = None
        self._names = _numbered([type(callback).__name__ for callback in self.callbacks])
        for event in _EVENTS:
            setattr(self, event, self._dispatcher(event))

    def _dispatcher(self, event: str) -> Callable[..., None]:
        receivers = [
            (name, _accepting(getattr(callback, event)))
            for name, callback in zip(self._names, self.callbacks, strict=True)
            if _overrides(callback, event)
            and not (getattr(callback, "of_process_0", False) and jax.process_index())
        ]

        def dispatch(*args: Any, **kwargs: Any) -> None:
            for name, receive in receivers:
                try:
                    receive(*args, **kwargs)
                except StopTraining as request:
                    if self.stop_reason is None:
                        kind = name.partition(":")[0]
                        self.stop_reason = str(request) or f"{kind} asked for it"
                        self.stopped_by = name
                except Exception as error:
                    kind = name.partition(":")[0]
                    error.add_note(f"raised by the callback {kind} in {event}")
                    raise

        return dispatch

    def state_dict(self) -> dict[str, Any]:
        """Return the states of the callbacks by class, those of one class numbered from 0."""
        return {
            name: callback.state_dict()
            for name, callback in zip(self._names, self.callbacks, strict=True)
            if hasattr(callback, "state_dict")
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Give each callback its state, wherever it stands in the list now.

        One that was not there before starts afresh; a state whose callback is gone is dropped.
        """
        states = _by_class(state)
        for name, callback in zip(self._names, self.callbacks, strict=True):
            known = states.pop(name, None)
            if known is not None:
                callback.load_state_dict(known)
        for name in states:
            kind = name.partition(":")[0]
            logger.warning(f"the callback {kind} of the checkpoint is gone; its state is dropped")

    def resume_stop(self, reason: str | None, stopped_by: str | None) -> None:
        """Take over that training was stopped, unless what stopped it would not do so now.

        Parameters
        ----------
        reason, stopped_by : str or None
            `stop_reason` and `stopped_by` of the checkpoint; the second is None in those of older
            versions. The callbacks have their states back.
        """
        self.stop_reason, self.stopped_by = reason, stopped_by
        if reason is None or stopped_by is None:
            return
        now = dict(zip(self._names, self.callbacks, strict=True)).get(stopped_by)
        if now is not None and getattr(now, "still_stops", lambda: True)():
            return
        kind = stopped_by.partition(":")[0]
        why = "is gone" if now is None else "would not stop it now"
        logger.warning(f"training was stopped ({reason}) by {kind}, which {why}: it goes on")
        self.stop_reason = self.stopped_by = None


def _numbered(kinds: Sequence[str]) -> list[str]:
    """Return ``"Kind:0"``, ``"Kind:1"`` and so on for each name, counting each by itself."""
    seen: Counter[str] = Counter()
    names = []
    for kind in kinds:
        names.append(f"{kind}:{seen[kind]}")
        seen[kind] += 1
    return names


def _by_class(state: dict[str, Any]) -> dict[str, Any]:
    """Return saved states by class and number; older checkpoints have position and class."""
    old = [name for name in state if name.partition(":")[0].isdigit()]
    old.sort(key=lambda name: int(name.partition(":")[0]))
    new = _numbered([name.partition(":")[2] for name in old])
    renamed = dict(zip(old, new, strict=True))
    return {renamed.get(name, name): value for name, value in state.items()}


def as_callback_list(callback: Any) -> CallbackList:
    """Return None, one callback or a sequence of them as a `CallbackList`."""
    if isinstance(callback, CallbackList):
        return callback
    if callback is None:
        return CallbackList([])
    callbacks = callback if isinstance(callback, list | tuple) else [callback]
    for each in callbacks:
        if isinstance(each, type):
            name = each.__name__
            raise ValueError(f"callback is the class {name}; expected an instance: {name}(...)")
    return CallbackList(callbacks)


def _overrides(callback: Any, event: str) -> bool:
    """Return whether a callback does anything at an event; most do not at most."""
    own = getattr(callback, "__dict__", {}).get(event)  # assigned to this callback alone
    method = own or getattr(type(callback), event, None) or getattr(callback, event, None)
    return method is not None and method is not getattr(TrainerCallback, event, None)


def _accepting(method: Callable[..., None]) -> Callable[..., None]:
    """Return `method` called with those arguments only that it takes."""
    parameters = inspect.signature(method).parameters
    kinds = [parameter.kind for parameter in parameters.values()]
    any_name = inspect.Parameter.VAR_KEYWORD in kinds
    any_number = inspect.Parameter.VAR_POSITIONAL in kinds
    by_position = [
        name
        for name, parameter in parameters.items()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]

    def call(*args: Any, **kwargs: Any) -> None:
        taken = {}
        for name, value in kwargs.items():
            renamed = name if name in parameters else _RENAMED.get(name, name)
            if renamed in parameters:
                taken[renamed] = value
            elif any_name:
                taken[name] = value
        # A parameter that has its value by name does not stand for one by position.
        free = [name for name in by_position if name not in taken]
        method(*(args if any_number else args[: len(free)]), **taken)

    return call
