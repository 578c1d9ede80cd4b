"""TrainerCallback: medkit's events, for any number of callbacks at once."""

from __future__ import annotations

import contextlib
import copy
import inspect
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from medjax.config import TrainerConfig

__all__ = ["CallbackList", "StopTraining", "TrainerCallback", "as_callback_list"]

logger = logging.getLogger("medjax")


class StopTraining(Exception):  # noqa: N818  (a request, like StopIteration, not an error)
    """Raised by a callback to end training properly: the model is evaluated and saved as usual.

    If it is raised at the beginning of an epoch or during its training batches, training ends after
    the current batch, or with gradient accumulation, after the current update. If it is raised
    later, training ends after the epoch. With several processes, any of them may raise it, and all
    end after the epoch.

    Examples
    --------
    >>> class StopAtLowLoss(TrainerCallback):
    ...     def on_epoch_end(self, metrics):
    ...         if metrics["train"]["loss"] < 0.01:
    ...             raise StopTraining("the training loss is low enough")
    """


class TrainerCallback:
    """Base class of callbacks; every event does nothing until overridden.

    An override may leave out parameters that it does not need. With several processes, each has its
    own callbacks, and all must ask for the same. A callback that prints or writes files sets
    `of_process_0`.

    Attributes
    ----------
    of_process_0 : bool
        Whether only process 0 gets the events.

    Examples
    --------
    >>> class PrintLoss(TrainerCallback):
    ...     def on_epoch_end(self, metrics, epoch):
    ...         print(epoch, metrics["train"]["loss"])
    >>> as_callback_list(PrintLoss()).on_epoch_end(
    ...     metrics={"train": {"loss": 0.5}}, epoch=1, epoch_duration=2.0
    ... )
    1 0.5
    """

    of_process_0 = False

    def on_train_begin(self, config: TrainerConfig) -> None:
        """Event called at the beginning of training."""

    def on_resume(
        self, checkpoint_dir: str, epoch: int, step_idx: int, nb_batches: int, nb_epochs: int
    ) -> None:
        """Event called after `on_train_begin` when training resumes from a checkpoint.

        Parameters
        ----------
        checkpoint_dir : str
            Folder of the checkpoint.
        epoch : int
            Epoch in which training resumes, from 1; above `nb_epochs` if nothing is left to do.
        step_idx : int
            Number of training batches of this epoch that are done.
        nb_batches : int
            Number of training batches in an epoch.
        nb_epochs : int
            Number of epochs in the run.
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
        """Event called before a batch; for the parameters see `on_step_end`."""

    def on_step_end(
        self, step_idx: int, nb_batches: int, phase: str, loss: float | None = None
    ) -> None:
        """Event called after a batch was sent to the device.

        Parameters
        ----------
        step_idx : int
            Index of the batch, from 0.
        nb_batches : int
            Number of batches in the phase.
        phase : {"train", "eval"}
            Whether the batch is for training or evaluation.
        loss : float, optional
            Mean loss of the epoch so far: the latest that can be read without waiting for the
            device.
        """

    def on_wait(self, reason: str | None) -> None:
        """Event called when something other than a batch takes a while.

        It may come before `on_train_begin`, and while JAX traces, so it must not compute with JAX.

        Parameters
        ----------
        reason : str or None
            What is waited for, such as ``"compiling 16 x 24"``; None when that is over.
        """

    def on_save(self, checkpoint_dir: str) -> None:
        """Event called before a checkpoint is saved to `checkpoint_dir`."""

    def on_exception(self, error: BaseException) -> None:
        """Event called when training fails or is interrupted; `error` is raised afterwards."""

    def state_dict(self) -> dict[str, Any]:
        """Return what the callback must remember when a run is resumed, ready for JSON."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""

    def forget(self) -> None:
        """Drop what an earlier run left.

        Called before a run that has no state for `load_state_dict`: a callback may serve several.
        """


_EVENTS = (
    "on_train_begin",
    "on_train_end",
    "on_epoch_begin",
    "on_resume",
    "on_epoch_end",
    "on_step_begin",
    "on_step_end",
    "on_wait",
    "on_save",
    "on_exception",
)
_RENAMED = {"epoch_duration": "epoch_time"}
"""Other names of parameters, which an override may use: those in medkit's base class."""


class CallbackList(TrainerCallback):
    """Calls several callbacks in order, as if they were one.

    Each gets the arguments that its method takes. An exception gets a note that names the callback
    and the event. A `StopTraining` is recorded, and the other callbacks still get the event.

    Parameters
    ----------
    callbacks : sequence
        Objects with any of the methods of `TrainerCallback`.

    Attributes
    ----------
    stop_reason : str or None
        Message of the first `StopTraining`.
    stopped_by : str or None
        Class and number of the callback that raised it.

    Examples
    --------
    >>> class Stop(TrainerCallback):
    ...     def on_epoch_end(self, epoch):
    ...         raise StopTraining(f"epoch {epoch} is over")
    >>> callbacks = CallbackList([TrainerCallback(), Stop()])
    >>> callbacks.on_epoch_end(metrics={}, epoch=3, epoch_duration=1.0)
    >>> callbacks.stop_reason, callbacks.stopped_by
    ('epoch 3 is over', 'Stop:0')
    """

    def __init__(self, callbacks: Sequence[Any]) -> None:
        self.callbacks = list(callbacks)
        self.stop_reason: str | None = None
        self.stopped_by: str | None = None
        self._names = _numbered([type(callback).__name__ for callback in self.callbacks])
        for event in _EVENTS:
            setattr(self, event, self._dispatcher(event))
        self._before: dict[str, Any] | None = None  # the evaluation that is running

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

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Mark an evaluation: a checkpoint that is saved meanwhile repeats it from its beginning.

        Until it ends, `record` returns what it would have returned then.
        """
        record = self.record()
        try:
            self._before = copy.deepcopy(record)  # a callback may go on to change what it returned
        except Exception as error:
            error.add_note(
                f"copying the states of the callbacks {', '.join(self._names)} failed; expected "
                "state_dict to return what JSON can hold"
            )
            raise
        try:
            yield
        finally:
            self._before = None

    def record(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: the states of the callbacks and whether one stopped."""
        if self._before is not None:
            return self._before
        return {
            "callbacks": self.state_dict(),
            "stop_reason": self.stop_reason,
            "stopped_by": self.stopped_by,
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the states of the callbacks by class; those of one class are numbered from 0."""
        return {
            name: callback.state_dict()
            for name, callback in zip(self._names, self.callbacks, strict=True)
            if hasattr(callback, "state_dict")
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state of each callback, whatever its place in the list is.

        A callback that is new starts without a state and, if it has served another run, forgets
        that; the state of one that is gone is dropped.
        """
        states = _by_class(state)
        for name, callback in zip(self._names, self.callbacks, strict=True):
            own_state = states.pop(name, None)
            if own_state is not None:
                callback.load_state_dict(own_state)
            elif isinstance(callback, TrainerCallback):
                callback.forget()
        for name in states:
            kind = name.partition(":")[0]
            logger.warning(
                f"the callback {kind} of the checkpoint is not among the callbacks of this run; "
                "its state is dropped"
            )

    def resume_stop(self, reason: str | None, stopped_by: str | None) -> None:
        """Record that training was stopped, unless its callback would no longer stop it.

        Call it after `load_state_dict`.

        Parameters
        ----------
        reason, stopped_by : str or None
            `stop_reason` and `stopped_by` of the checkpoint; `stopped_by` is None in checkpoints of
            older versions.
        """
        self.stop_reason, self.stopped_by = reason, stopped_by
        if reason is None or stopped_by is None:
            return
        callback = dict(zip(self._names, self.callbacks, strict=True)).get(stopped_by)
        if callback is not None and getattr(callback, "still_stops", lambda: True)():
            return
        kind = stopped_by.partition(":")[0]
        why = "is not used in this run" if callback is None else "would no longer stop it"
        logger.warning(f"training was stopped ({reason}) by {kind}, which {why}: it continues")
        self.stop_reason = self.stopped_by = None


def _numbered(kinds: Sequence[str]) -> list[str]:
    """Return ``"Kind:0"``, ``"Kind:1"`` and so on, counting each name separately."""
    seen: Counter[str] = Counter()
    names = []
    for kind in kinds:
        names.append(f"{kind}:{seen[kind]}")
        seen[kind] += 1
    return names


def _by_class(state: dict[str, Any]) -> dict[str, Any]:
    """Return saved states by class and number; old checkpoints have them by position and class."""
    old = [name for name in state if name.partition(":")[0].isdigit()]
    old.sort(key=lambda name: int(name.partition(":")[0]))
    new = _numbered([name.partition(":")[2] for name in old])
    renamed = dict(zip(old, new, strict=True))
    return {renamed.get(name, name): value for name, value in state.items()}


def as_callback_list(callback: Any) -> CallbackList:
    """Turn None, a callback or a sequence of callbacks into a `CallbackList`.

    Raises
    ------
    ValueError
        If a callback is a class instead of an instance.

    Examples
    --------
    >>> len(as_callback_list(TrainerCallback()).callbacks), len(as_callback_list(None).callbacks)
    (1, 0)
    """
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
    """Return whether a callback handles an event; most callbacks ignore most events."""
    own = getattr(callback, "__dict__", {}).get(event)  # assigned to this callback alone
    method = own or getattr(type(callback), event, None) or getattr(callback, event, None)
    return method is not None and method is not getattr(TrainerCallback, event, None)


def _accepting(method: Callable[..., None]) -> Callable[..., None]:
    """Return a function that calls `method` with only the arguments that it takes."""
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
        # Positional arguments must not go to parameters that get their value by name.
        nb_free = sum(name not in taken for name in by_position)
        positional = args if any_number else args[:nb_free]
        method(*positional, **taken)

    return call
