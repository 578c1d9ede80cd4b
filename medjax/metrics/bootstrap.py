"""Confidence intervals of scores, and of differences between two models, by the bootstrap."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from medjax.metrics._resamples import Resamples, ScoredUnits
from medjax.metrics.computer import MetricsComputer
from medjax.metrics.units import Units

__all__ = ["Difference", "Interval", "bootstrap", "paired_bootstrap"]


class Interval(NamedTuple):
    """A score with its confidence interval.

    Attributes
    ----------
    value : float
        The score of the data.
    low, high : float
        Bounds of the interval; NaN if the score is undefined in more than half of the resamples.

    Examples
    --------
    >>> print(Interval(0.8123, 0.79, 0.834))
    0.812 [0.790, 0.834]
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """Return the score and its bounds with three decimals."""
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


class Difference(NamedTuple):
    """The score of model a minus that of model b.

    Attributes
    ----------
    value : float
        The difference on the data.
    low, high : float
        Bounds of its confidence interval.
    p : float
        Two-sided achieved significance level of the hypothesis that there is no difference. NaN
        like the bounds if the difference is undefined in more than half of the resamples.

    Examples
    --------
    >>> print(Difference(0.0123, -0.001, 0.025, 0.068))
    +0.012 [-0.001, +0.025] p=0.068
    """

    value: float
    low: float
    high: float
    p: float

    def __str__(self) -> str:
        """Return the difference, its bounds and p with three decimals."""
        return f"{self.value:+.3f} [{self.low:+.3f}, {self.high:+.3f}] p={self.p:.3f}"


def bootstrap(
    metrics: MetricsComputer,
    columns: Mapping[str, list[Any]],
    *,
    groups: Sequence[Hashable] | None = None,
    nb_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval]:
    r"""Return the confidence interval of every score of a model.

    From n units, n are drawn with replacement, `nb_resamples` times. The interval of a score
    :math:`s` is bounded by the :math:`(1 - level) / 2` and the :math:`(1 + level) / 2` quantile of
    its values :math:`s^*` on the resamples. Resamples on which a score is undefined (NaN, or not
    returned, as the scores of a label that does not occur) are left out for this score.

    Macro averages of resamples are over the labels of the whole data, so that a rare label makes
    no bound jump. A label that a resample tells nothing of has its score on the whole data there:
    for entities and relations, one of which no instance is annotated or predicted, and in
    ``macro_auroc`` and ``macro_auprc`` one whose area is undefined. In macro precision, recall and
    F1 of `ClassificationMetrics` it has the score 0, as in ``compute``.

    Parameters
    ----------
    metrics : MetricsComputer
        Computes the scores. If it has the method `UnitMetrics.units`, that computes those of the
        resamples, all at once; if not, ``compute`` is called on the columns of each resample.
    columns : mapping of str to list
        What ``compute`` takes. Row i of every column belongs to unit i; for `SpanMetrics`, units
        are documents, in the order of `SpanMetrics.entities`.
    groups : sequence of hashable, optional
        The group of each unit, for instance the patient of each document: whole groups are drawn
        instead of units. Their order is that of the units; an evaluation reads short documents
        first, see `ClassificationMetrics.in_order`.
    nb_resamples : int
        Number of resamples.
    level : float
        Confidence level, between 0 and 1.
    seed : int
        Determines the resamples, which are the same on every platform and in every process.

    Returns
    -------
    dict of str to Interval
        An interval for each score that ``compute`` returns.

    Raises
    ------
    ValueError
        If there are fewer than two units or groups, the lengths of columns or groups differ, an
        argument is out of range, or ``units`` and ``compute`` disagree.

    References
    ----------
    Efron and Tibshirani (1993), An Introduction to the Bootstrap, section 13.3.

    Examples
    --------
    >>> from medjax.metrics.accuracy import Accuracy
    >>> columns = {"labels": [1, 0, 1, 1] * 25, "predictions": [1, 0, 0, 1] * 25}
    >>> print(bootstrap(Accuracy(), columns)["accuracy"])
    0.750 [0.670, 0.840]
    >>> patients = [row // 4 for row in range(100)]
    >>> print(bootstrap(Accuracy(), columns, groups=patients)["accuracy"])
    0.750 [0.750, 0.750]
    """
    data = ScoredUnits.of(metrics, columns)
    _check_level(level)
    resamples = Resamples.of(data.units, groups, nb_resamples, seed)
    return {
        name: Interval(data.scores[name], *_bounds(samples, level))
        for name, samples in resamples.samples(data.units, data.scores).items()
    }


def paired_bootstrap(
    metrics: MetricsComputer,
    columns_a: Mapping[str, list[Any]],
    columns_b: Mapping[str, list[Any]],
    *,
    groups: Sequence[Hashable] | None = None,
    nb_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Difference]:
    r"""Compare the scores of two models on the same data.

    Both models are scored on the same resamples, and the differences
    :math:`\delta^* = s_a^* - s_b^*` are treated as the scores are in `bootstrap`. With the shares
    of the B resamples where :math:`\delta^*` is at most and at least 0 ::

        p = min(1, max(1 / B, 2 * min(share(delta <= 0), share(delta >= 0))))

    Parameters
    ----------
    metrics, groups, nb_resamples, level, seed
        As for `bootstrap`.
    columns_a, columns_b : mapping of str to list
        What ``compute`` takes for model a and for model b, with the same units in the same order.

    Returns
    -------
    dict of str to Difference
        A difference for each score that both models have. For a score that is better when lower,
        such as the Brier score, a negative difference is in favour of model a.

    Raises
    ------
    ValueError
        As for `bootstrap`, and if the units of the models differ in number or annotation.

    References
    ----------
    Efron and Tibshirani (1993), An Introduction to the Bootstrap, chapters 15 and 16, for p as the
    level at which the interval reaches 0; Berg-Kirkpatrick, Burkett and Klein (2012), An Empirical
    Investigation of Statistical Significance in NLP, EMNLP, for the paired use in NLP.

    Examples
    --------
    >>> from medjax.metrics.accuracy import Accuracy
    >>> truth = [1, 0, 1, 1] * 25
    >>> a = {"labels": truth, "predictions": [1, 0, 0, 1] * 25}
    >>> b = {"labels": truth, "predictions": [1, 1, 0, 1] * 25}
    >>> print(paired_bootstrap(Accuracy(), a, b)["accuracy"])
    +0.250 [+0.160, +0.330] p=0.001
    """
    data_a, data_b = ScoredUnits.of(metrics, columns_a), ScoredUnits.of(metrics, columns_b)
    _check_level(level)
    _check_same_truth(data_a.units, data_b.units)
    names = [name for name in data_a.scores if name in data_b.scores]
    resamples = Resamples.of(data_a.units, groups, nb_resamples, seed)
    samples_a = resamples.samples(data_a.units, names)
    samples_b = resamples.samples(data_b.units, names)
    differences = {}
    for name in names:
        a, b = samples_a[name], samples_b[name]
        # Equal scores may differ in the last digits, which must not decide the sign.
        samples = np.where(np.isclose(a, b, rtol=1e-12, atol=1e-15), 0.0, a - b)
        low, high = _bounds(samples, level)
        value = data_a.scores[name] - data_b.scores[name]
        differences[name] = Difference(value, low, high, _significance(samples))
    return differences


def _check_same_truth(units_a: Units, units_b: Units) -> None:
    if len(units_a.truth) != len(units_b.truth):
        msg = (
            f"model a has {len(units_a.truth)} units, model b {len(units_b.truth)}; expected the "
            "same units"
        )
        raise ValueError(msg)
    for unit, (of_a, of_b) in enumerate(zip(units_a.truth, units_b.truth, strict=True)):
        if of_a != of_b:
            msg = (
                f"unit {unit} is annotated with {of_a!r:.80} for model a and {of_b!r:.80} for "
                "model b; expected the same units in the same order"
            )
            raise ValueError(msg)


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level is {level!r}; expected a number between 0 and 1")


def _bounds(samples: np.ndarray, level: float) -> tuple[float, float]:
    defined = samples[~np.isnan(samples)]
    if 2 * len(defined) < len(samples):
        return math.nan, math.nan
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _significance(differences: np.ndarray) -> float:
    defined = differences[~np.isnan(differences)]
    if 2 * len(defined) < len(differences):
        return math.nan
    share = min((defined <= 0).mean(), (defined >= 0).mean())
    return float(min(1.0, max(1 / len(differences), 2 * share)))
