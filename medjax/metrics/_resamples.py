"""Resamples of the units of a data set, and the scores on them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from medjax.metrics.computer import MetricsComputer
from medjax.metrics.groups import number_groups
from medjax.metrics.units import UnitMetrics, Units

_MAX_WEIGHTS = 2**20
"""How many weights are computed with at once: memory is bounded for any number of resamples."""


class ScoredUnits(NamedTuple):
    """The scores of a model, and its units."""

    scores: dict[str, float]
    units: Units

    @classmethod
    def of(cls, metrics: MetricsComputer, columns: Mapping[str, list[Any]]) -> ScoredUnits:
        """Return the scores and units of what ``compute`` takes."""
        data = {name: list(values) for name, values in columns.items()}
        if isinstance(metrics, UnitMetrics):
            units = metrics.units(data)
            scores = metrics.compute(data) if units.truth else {}
            _check_agreement(type(metrics).__name__, scores, units)
            return cls(scores, units)
        lengths = {name: len(values) for name, values in data.items()}
        if len(set(lengths.values())) != 1:
            msg = f"the columns have the lengths {lengths}; expected one row per unit in each"
            raise ValueError(msg)
        nb_rows = next(iter(lengths.values()))

        def weigh(weights: np.ndarray) -> dict[str, np.ndarray]:
            return _computed(metrics.compute, data, weights)

        return cls(metrics.compute(data) if nb_rows else {}, Units(list(range(nb_rows)), weigh))


def _computed(
    compute: Callable[[dict[str, list[Any]]], dict[str, float]],
    columns: dict[str, list[Any]],
    weights: np.ndarray,
) -> dict[str, np.ndarray]:
    """Return the scores of resamples, each computed from its columns."""
    scores: dict[str, np.ndarray] = {}
    for resample, counts in enumerate(weights.astype(np.int64)):
        rows = np.repeat(np.arange(len(counts)), counts).tolist()
        drawn = {name: [values[row] for row in rows] for name, values in columns.items()}
        for name, value in compute(drawn).items():
            scores.setdefault(name, np.full(len(weights), np.nan))[resample] = value
    return scores


def _check_agreement(kind: str, scores: Mapping[str, float], units: Units) -> None:
    """Raise ValueError if the units do not have the scores that were computed from all data."""
    if not scores:
        return
    weighed = units.weigh(np.ones((1, len(units.truth))))
    found = {name: float(values[0]) for name, values in weighed.items()}
    for name in sorted(found.keys() | scores.keys()):
        expected, value = scores.get(name), found.get(name)
        if (
            expected is None
            or value is None
            or not np.isclose(value, expected, rtol=1e-9, atol=1e-9, equal_nan=True)
        ):
            msg = (
                f"{kind}.units gives {name} = {value}, {kind}.compute gives {expected}; expected "
                "the same: a class that overrides one of them must override both"
            )
            raise ValueError(msg)


@dataclasses.dataclass(frozen=True)
class Resamples:
    """The resamples of the units of a data set."""

    group_of_unit: np.ndarray
    nb_resamples: int
    seed: int

    @classmethod
    def of(
        cls,
        units: Units,
        groups: Sequence[Hashable] | None,
        nb_resamples: int,
        seed: int,
    ) -> Resamples:
        """Return the resamples of units or, if given, of groups of them."""
        if nb_resamples < 1:
            raise ValueError(f"nb_resamples is {nb_resamples!r}; expected at least 1")
        nb_units = len(units.truth)
        if groups is not None and len(groups) != nb_units:
            msg = f"found groups for {len(groups)} units; expected {nb_units}, one per unit"
            raise ValueError(msg)
        group_of_unit = [*range(nb_units)] if groups is None else number_groups(groups)
        nb_groups = len(set(group_of_unit))
        if nb_groups < 2:
            kind = "units" if groups is None else "groups"
            msg = f"found {nb_groups} {kind} to draw from; expected at least 2"
            raise ValueError(msg)
        return cls(np.array(group_of_unit), nb_resamples, seed)

    def samples(self, units: Units, names: Iterable[str]) -> dict[str, np.ndarray]:
        """Return the scores of these names on each resample, shape (resamples,)."""
        parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
        for weights in self._weights():
            weighed = units.weigh(weights)
            undefined = np.full(len(weights), np.nan)
            for name, part in parts.items():
                part.append(weighed.get(name, undefined))
        return {name: np.concatenate(part) for name, part in parts.items()}

    def _weights(self) -> Iterator[np.ndarray]:
        """Yield how often each unit is drawn, float64, shape (some resamples, units)."""
        # Whole numbers are drawn: a multinomial distribution takes exponentials, whose last digits
        # depend on the platform.
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(self.seed)))
        nb_groups = int(self.group_of_unit.max()) + 1
        step = max(_MAX_WEIGHTS // len(self.group_of_unit), 1)
        for first in range(0, self.nb_resamples, step):
            drawn = [
                np.bincount(generator.integers(nb_groups, size=nb_groups), minlength=nb_groups)
                for _ in range(first, min(first + step, self.nb_resamples))
            ]
            yield np.stack(drawn)[:, self.group_of_unit].astype(np.float64)
