"""Checks made before training starts: arguments and names of metrics.

A mistake noticed here is reported in medjax's words. Noticed by the first step, it would be an
error of another library; noticed after the first epoch, it would cost that epoch.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping
from typing import NoReturn

import jax
import jaxlib
import numpy as np
import optax

from medjax.component import TrainableComponent
from medjax.config import Options, TrainerConfig
from medjax.loop.request import RunRequest
from medjax.optimizer import updates_nothing

logger = logging.getLogger("medjax")

UNSOUND = {
    "0.10.2": "it gives wrong results on CPUs (jax issue 39103)",
    "0.11.0": "it crashes on CPUs (jax issues 39257 and 40412)",
    "0.11.1": "its loops take quadratic time on CPUs",
}
"""Why releases of jaxlib are excluded in pyproject.toml."""


def warn_of_versions(installed: str = jaxlib.__version__) -> None:
    """Warn about a release of jaxlib that is known to be unsound."""
    if installed in UNSOUND:
        logger.warning(
            "jaxlib %s is installed: %s; install another release", installed, UNSOUND[installed]
        )


def warn_of_no_updates(optimizer: optax.GradientTransformation, params: object) -> None:
    """Warn if the optimizer of a run updates none of its parameters.

    Parameters
    ----------
    optimizer : optax.GradientTransformation
        From `make_optimizer`.
    params : pytree
        The parameters, or their shapes and dtypes.
    """
    if updates_nothing(optimizer, params) and jax.process_index() == 0:
        logger.warning(
            "The optimizer that component.configure_optimizer returned updates no parameter: the "
            "update of each is zero by construction, as by optax.set_to_zero, so training leaves "
            "the weights as they are. A mask of optax.freeze or optax.selective_transform is a "
            "tree of bools like the parameters, True where they are frozen; a function in its "
            "place counts as True. In optax.partition, set_to_zero belongs to the label of the "
            "frozen parameters only",
        )


def check_arguments(
    component: object, config: object, options: object = None, metrics_computer: object = None
) -> None:
    """Refuse arguments that `train` and `evaluate` do not take.

    Raises
    ------
    ValueError
        Names the argument or slot, its value and what was expected.
    """
    _check_component(component)
    if not isinstance(config, TrainerConfig):
        refuse("config", config, "a medjax.TrainerConfig")
    if options is not None and not isinstance(options, Options):
        refuse("options", options, "a medjax.Options, such as Options(weight_decay=0.01)")
    check_metrics_computer(metrics_computer)


def check_metrics_computer(metrics_computer: object) -> None:
    """Refuse what is neither a metrics computer nor None.

    Raises
    ------
    ValueError
        Names the value and what was expected.
    """
    if isinstance(metrics_computer, type):
        name = metrics_computer.__name__
        msg = f"metrics_computer is the class {name}; expected an instance: {name}(...)"
        raise ValueError(msg)
    for name in ("prepare_batch", "compute") if metrics_computer is not None else ():
        if not callable(getattr(metrics_computer, name, None)):
            refuse("metrics_computer", metrics_computer, f"an object with the method {name}")


def _check_component(component: object) -> None:
    if not isinstance(component, TrainableComponent):
        expected = "a medjax.TrainableComponent, a record of functions"
        if isinstance(getattr(component, "component", None), TrainableComponent):
            expected += "; give its attribute .component"
        elif hasattr(component, "state_dict") or hasattr(component, "configure_optimizer"):
            expected += "; torch components are trained by medjax_torch.Trainer"
        refuse("component", component, expected)
    slots = component._asdict()
    for name in ("identity", "loss_settings", "reading"):
        given = slots.pop(name)
        if given is not None and not (isinstance(given, dict) and _is_json(given)):
            refuse(f"component.{name}", given, "None, or a dict by strings that JSON gives back")
    for name, slot in slots.items():
        if name == "configure_optimizer" and isinstance(slot, optax.GradientTransformation):
            msg = (
                "component.configure_optimizer is an optimizer; expected a function of the "
                "learning rate that returns one: optax.adamw, or lambda rate: optax.adamw(rate)"
            )
            raise ValueError(msg)
        if not callable(slot) and not (name == "expand" and slot is None):
            refuse(f"component.{name}", slot, "a function")


def check_schedule_state(state: object) -> None:
    """Refuse a state of a schedule that a checkpoint would not give back as it was.

    Raises
    ------
    ValueError
        Names the value and what was expected.

    Examples
    --------
    >>> check_schedule_state({"learning_rate": 0.1, "best": None, "seen": [0.5, 0.4]})
    """
    if not isinstance(state, dict):
        refuse("the state of the schedule", state, "a dict with the item 'learning_rate'")
    for name, value in state.items():
        if not isinstance(name, str) or not _is_json(value):
            expected = "what JSON gives back: None, bool, number, string, list, or dict by strings"
            refuse(f"{name!r} in the state of the schedule", value, expected)
    rate = state.get("learning_rate")
    if not isinstance(rate, int | float | np.generic | jax.Array) or isinstance(rate, bool):
        refuse("'learning_rate' in the state of the schedule", rate, "a number")


def _is_json(value: object) -> bool:
    if isinstance(value, list):
        return all(map(_is_json, value))
    if isinstance(value, dict):
        return all(isinstance(name, str) and _is_json(item) for name, item in value.items())
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return value.ndim == 0 and value.dtype.kind in "biufV"  # V: bfloat16
    return value is None or isinstance(value, bool | int | float | str)


def refuse(name: str, value: object, expected: str) -> NoReturn:
    """Raise a ValueError that says what an argument is and was expected to be."""
    kind = type(value)
    of = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    msg = f"{name} is {value!r:.80} of type {of}; expected {expected}"
    raise ValueError(msg)


def check_wanted_metrics(request: RunRequest, *, has_eval_data: bool) -> dict[str, str]:
    """Return the evaluation metrics that a run needs, with what needs them.

    Parameters
    ----------
    request : RunRequest
        What the run is asked to do.
    has_eval_data : bool
        Whether there is anything to evaluate on.

    Raises
    ------
    ValueError
        If there is no evaluation to give a metric, or no metrics computer to give more than the
        loss.
    """
    config, wanted = request.config, {}
    if has_eval_data or config.checkpoint_metric != "loss":
        wanted[config.checkpoint_metric] = "TrainerConfig.checkpoint_metric"
    if request.options.early_stopping_patience is not None:
        wanted[config.checkpoint_metric] = "Options.early_stopping_patience with checkpoint_metric"
    if request.schedule.needs_metric:
        wanted[config.metric_to_track_lr] = "the schedule, by TrainerConfig.metric_to_track_lr,"
    for name, who in wanted.items():
        if not has_eval_data:
            msg = f"{who} follows the evaluation metric {name!r}, but there is no evaluation data"
            raise ValueError(f"{msg}; give eval_data, or leave it out")
        if request.metrics_computer is None and name != "loss":
            msg = f"{who} follows the metric {name!r}; without a metrics_computer there is only"
            raise ValueError(f"{msg} 'loss'")
    return wanted


def check_metric_names(wanted: Mapping[str, str], scores: Mapping[str, object]) -> None:
    """Refuse metrics that no evaluation will give, judged by the scores of a sample.

    A name with the ending of a label's score, such as ``Drug_recall`` beside ``Test_recall``, may
    occur with other data and is not refused.

    Parameters
    ----------
    wanted : mapping of str to str
        What `check_wanted_metrics` returns.
    scores : mapping of str to float
        Scores of a sample of the evaluation data, without the loss.

    Raises
    ------
    ValueError
        Names the metric, what needs it and a metric with a similar name.
    """
    known = ["loss", *scores]
    of_labels = {name.partition("_")[2] for name in scores} - {""}
    for name, who in wanted.items():
        if name in known or name.partition("_")[2] in of_labels:
            continue
        similar = difflib.get_close_matches(name.removeprefix("eval_"), known)
        hint = f"; did you mean {similar[0]!r}?" if similar else "."
        msg = f"{who} follows the metric {name!r}, which no evaluation gives{hint}"
        raise ValueError(f"{msg} There are {sorted(known)}")
