"""Early stopping on an evaluation metric."""

from __future__ import annotations

import logging
import math
from typing import Any

from medjax.callbacks.base import StopTraining, TrainerCallback

logger = logging.getLogger("medjax")


class EarlyStopping(TrainerCallback):
    """Stops training when an evaluation metric has not improved for some epochs.

    Parameters
    ----------
    metric : str
        Evaluation metric to follow.
    patience : int
        Evaluations in a row without improvement after which training stops.
    threshold : float
        Least change that counts as an improvement.
    minimize : bool
        Whether lower is better.
    """

    def __init__(
        self, metric: str, patience: int, *, threshold: float = 0.0, minimize: bool = True
    ) -> None:
        self.metric = metric
        self.patience = patience
        self.threshold = threshold
        self.minimize = minimize
        self._best = math.nan
        self._bad_epochs = 0

    def on_epoch_end(
        self, metrics: dict[str, dict[str, float]], epoch: int, epoch_duration: float
    ) -> None:
        """Count the epoch, and raise StopTraining when there were too many."""
        scores = metrics.get("eval", {})
        if self.metric not in scores:
            msg = f"early stopping follows {self.metric!r}; the evaluation gave {sorted(scores)}"
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
        """Return whether training has to stop by the patience that is set now."""
        return self._bad_epochs >= self.patience

    def state_dict(self) -> dict[str, Any]:
        """Return the best value and the count, and the metric that they are of."""
        return {
            "best": self._best,
            "bad_epochs": self._bad_epochs,
            "metric": self.metric,
            "minimize": self.minimize,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take both back, unless they are of another metric or direction."""
        for name in ("metric", "minimize"):
            now, then = getattr(self, name), state.get(name, getattr(self, name))
            if now != then:
                logger.warning(
                    f"early stopping counts afresh: {name} was {then!r} in the checkpoint and is "
                    f"{now!r} now"
                )
                return
        self._best, self._bad_epochs = float(state["best"]), int(state["bad_epochs"])
