"""Early stopping on an evaluation metric."""

from __future__ import annotations

import logging
import math
from typing import Any

from medjax.callbacks.base import StopTraining, TrainerCallback

__all__ = ["EarlyStopping"]

logger = logging.getLogger("medjax")


class EarlyStopping(TrainerCallback):
    """Stops training when an evaluation metric has not improved for several evaluations.

    Parameters
    ----------
    metric : str
        Evaluation metric to monitor.
    patience : int
        Number of consecutive evaluations without improvement after which training stops.
    threshold : float
        A change counts as an improvement only if it is larger than this.
    minimize : bool
        Whether lower is better.

    Examples
    --------
    >>> stopping = EarlyStopping("loss", patience=1)
    >>> stopping.on_epoch_end({"eval": {"loss": 0.5}}, epoch=1, epoch_duration=1.0)
    >>> stopping.on_epoch_end({"eval": {"loss": 0.6}}, epoch=2, epoch_duration=1.0)
    Traceback (most recent call last):
    medjax.callbacks.base.StopTraining: loss has not improved on 0.5 for 1 evaluations, at epoch 2
    """

    def __init__(
        self, metric: str, patience: int, *, threshold: float = 0.0, minimize: bool = True
    ) -> None:
        self.metric = metric
        self.patience = patience
        self.threshold = threshold
        self.minimize = minimize
        self.forget()

    def forget(self) -> None:
        """Start without a best value."""
        self._best = math.nan
        self._bad_epochs = 0

    def on_epoch_end(
        self, metrics: dict[str, dict[str, float]], epoch: int, epoch_duration: float
    ) -> None:
        """Count evaluations without improvement; raise StopTraining when there are too many."""
        scores = metrics.get("eval", {})
        if self.metric not in scores:
            msg = (
                f"early stopping monitors {self.metric!r}, but the evaluation returned "
                f"{sorted(scores)}; choose one of these as metric"
            )
            raise ValueError(msg)
        value = float(scores[self.metric])
        gain = (self._best - value) if self.minimize else (value - self._best)
        if gain > self.threshold or (math.isnan(self._best) and not math.isnan(value)):
            self._best, self._bad_epochs = value, 0
            return
        self._bad_epochs += 1
        if self.still_stops():
            msg = (
                f"{self.metric} has not improved on {self._best:g} for {self._bad_epochs} "
                f"evaluations, at epoch {epoch}"
            )
            raise StopTraining(msg)

    def still_stops(self) -> bool:
        """Return whether the count has reached the patience, which may have changed at a resume."""
        return self._bad_epochs >= self.patience

    def state_dict(self) -> dict[str, Any]:
        """Return the best value, the count, and which metric they belong to."""
        return {
            "best": self._best,
            "bad_epochs": self._bad_epochs,
            "metric": self.metric,
            "minimize": self.minimize,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the best value and the count, unless `metric` or `minimize` has changed."""
        self.forget()
        for name in ("metric", "minimize"):
            current = getattr(self, name)
            saved = state.get(name, current)
            if current != saved:
                logger.warning(
                    f"early stopping starts counting again: {name} is {current!r}, but it was "
                    f"{saved!r} in the checkpoint"
                )
                return
        self._best, self._bad_epochs = float(state["best"]), int(state["bad_epochs"])
