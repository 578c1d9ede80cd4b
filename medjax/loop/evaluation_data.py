"""Resuming with other evaluation data: scores of two data sets are never compared."""

from __future__ import annotations

import logging
from typing import Any

import jax

from medjax.callbacks import CallbackList, EarlyStopping
from medjax.checkpoint.progress import EVAL_ITEMS, EVAL_SINCE, Progress

__all__ = ["evaluated_before", "forget_other_scores", "with_evaluation"]

logger = logging.getLogger("medjax")


def with_evaluation(
    saved: Progress, data: dict[str, Any], *, reads_otherwise: bool = False
) -> dict[str, Any]:
    """Return a record of the data with the epochs whose scores are of other evaluation data.

    Without evaluation data, what the checkpoint knows of them is kept. A checkpoint of an earlier
    version knows nothing, and its scores are taken for those of the same data.

    Parameters
    ----------
    saved : Progress
        The checkpoint's.
    data : dict
        `Progress.data` of a new run.
    reads_otherwise : bool
        Whether the items are read otherwise, which the caller has told.
    """
    before, now = saved.data.get(EVAL_ITEMS), data.get(EVAL_ITEMS)
    since = evaluated_before(saved)
    is_other = None not in (before, now) and before != now
    if is_other or reads_otherwise:
        since = saved.epoch - 1
        if is_other and since and jax.process_index() == 0:
            logger.warning(
                f"Resuming: the evaluation data has {now} items, but it had {before} when the "
                "checkpoint was saved: scores of the two are not compared. The best checkpoint, "
                f"early stopping and reduce-on-plateau go by the evaluations from epoch "
                f"{saved.epoch} on"
            )
    found = {**data, EVAL_ITEMS: before if now is None else now}
    return {**found, EVAL_SINCE: since} if since else found


def evaluated_before(progress: Progress) -> int:
    """Return the number of epochs, from the first, whose scores are of other evaluation data."""
    return int(progress.data.get(EVAL_SINCE, 0))


def forget_other_scores(callback: CallbackList, progress: Progress) -> None:
    """Let early stopping start again if nothing has been evaluated on the current data yet.

    Parameters
    ----------
    callback : CallbackList
        Its callbacks have the states of the checkpoint.
    progress : Progress
        That of `reconcile`.
    """
    if not 0 < evaluated_before(progress) == progress.epoch - 1:
        return
    for each in callback.callbacks:
        if isinstance(each, EarlyStopping):
            each.forget()
