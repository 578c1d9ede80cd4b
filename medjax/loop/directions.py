"""Warnings of scores that are followed in the wrong direction: the worst would be the best."""

from __future__ import annotations

import logging

import jax

from medjax.callbacks import EarlyStopping
from medjax.loop.request import RunRequest
from medjax.metrics.direction import is_higher_better

__all__ = ["warn_of_direction", "warn_of_directions"]

logger = logging.getLogger("medjax")

_SETTING = "TrainerConfig(minimize_checkpoint_metric={})"


def warn_of_directions(request: RunRequest) -> None:
    """Warn of each setting that takes the worst value of an evaluation metric for the best.

    Parameters
    ----------
    request : RunRequest
        Of a run with evaluation data.
    """
    config, schedule = request.config, request.schedule
    followed = [(config.checkpoint_metric, config.minimize_checkpoint_metric)]
    warn_of_direction("checkpoint_metric", *followed[0], _SETTING)
    for callback in request.callback.callbacks:
        if not isinstance(callback, EarlyStopping):
            continue
        own = (callback.metric, callback.minimize)
        if own not in followed:
            followed.append(own)
            warn_of_direction("the metric of EarlyStopping", *own, "EarlyStopping(minimize={})")
    if schedule.needs_metric and schedule.mode is not None:
        mode = f"reduce_on_plateau(mode={'max' if schedule.mode == 'min' else 'min'!r})"
        warn_of_direction(
            "metric_to_track_lr", config.metric_to_track_lr, schedule.mode == "min", mode
        )


def warn_of_direction(who: str, name: str, is_minimized: bool, setting: str) -> None:
    """Warn if a metric is followed in a direction that its name contradicts.

    Parameters
    ----------
    who : str
        What follows the metric.
    name : str
        The metric.
    is_minimized : bool
        Whether lower values are taken for better.
    setting : str
        What to set instead; ``{}`` in it becomes the value.
    """
    is_higher = is_higher_better(name)
    if is_higher is None or is_higher != is_minimized or jax.process_index() != 0:
        return
    found, better = ("lower", "higher") if is_minimized else ("higher", "lower")
    logger.warning(
        f"{who} is {name!r}: {found} values of it are taken for better, but by its name {better} "
        "ones are, so that the worst epoch counts as the best; set "
        f"{setting.format(not is_minimized)}"
    )
