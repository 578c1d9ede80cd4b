"""Units: what is drawn when the data of a metrics computer are resampled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from medjax.metrics.computer import MetricsComputer

__all__ = ["UnitMetrics", "Units"]


class Units(NamedTuple):
    """The units of a data set, such as documents, and their scores with weights.

    Attributes
    ----------
    truth : list
        What each unit is annotated with. Two models are compared on the same truth only.
    weigh : callable
        Takes weights, float64 whole numbers, shape (resamples, units). Returns the scores by name,
        shape (resamples,): what ``compute`` returns for data in which a unit with weight w occurs
        w times; NaN where a score is undefined or ``compute`` does not return it. A mean over
        labels may count one that these data tell nothing of with its score on all units; see
        `bootstrap`.

    Examples
    --------
    >>> hits = np.array([1.0, 0.0, 1.0])
    >>> units = Units([1, 1, 1], lambda weights: {"recall": weights @ hits / weights.sum(axis=1)})
    >>> units.weigh(np.array([[1.0, 1.0, 1.0], [0.0, 3.0, 0.0]]))["recall"].round(3)
    array([0.667, 0.   ])
    """

    truth: list[Any]
    weigh: Callable[[np.ndarray], dict[str, np.ndarray]]


@runtime_checkable
class UnitMetrics(MetricsComputer, Protocol):
    """A MetricsComputer that scores resampled data without computing from their columns.

    Examples
    --------
    >>> from medjax.metrics.span_metrics import SpanMetrics
    >>> isinstance(SpanMetrics(("O", "B-Drug")), UnitMetrics)
    True
    """

    def units(self, all_data: dict[str, list[Any]]) -> Units:
        """Return the units of the concatenated columns of all batches."""
        ...
