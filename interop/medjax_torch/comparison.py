"""How far two outcomes of the same computation are apart."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from medjax_torch.reference import Outcome

_UNIT = 1e-3
"""What counts as small in outputs and state: at a tolerance of 1e-3, 1e-6 is noise."""

_SHARE = 3e-2
"""What counts as small in a gradient, as a share of the norm of all gradients.

Gradients that are 0 exactly are noise in float32: of an attention's key bias 1e-8 of that norm, of
the bias of a convolution before a batch norm, a sum over 128,000 places, 1.4e-6.
"""

_HUGE = 100
"""How many times larger than all that differ a number has to be to pass for a constant."""

_PEAK = 10
"""By how much a single element may exceed the tolerance that holds for all on average.

Where a ReLU or a maximum is undecided to the last bit, single elements differ by more than noise.
"""


@dataclass(frozen=True, eq=False)
class Difference:
    """How far one result is from its counterpart.

    Attributes
    ----------
    name : str
        What is compared, in words.
    relative : float
        Relative to the size of the result; infinite if only one of them has it.
    actual, expected : array or None
        The two, None if there is none.
    sides : (str, str)
        What to call them.
    """

    name: str
    relative: float
    actual: np.ndarray | None
    expected: np.ndarray | None
    sides: tuple[str, str]

    def __str__(self) -> str:
        return f"{self.name}: {self._detail()}"

    def _detail(self) -> str:
        one, other = self.sides
        if self.actual is None or self.expected is None:
            return f"there in {one if self.expected is None else other} only"
        if self.actual.shape != self.expected.shape:
            return f"shape {self.actual.shape} in {one}, {self.expected.shape} in {other}"
        actual, expected = wide(self.actual), wide(self.expected)
        with np.errstate(invalid="ignore"):
            apart = np.abs(actual - expected)
        equal = (actual == expected) | (np.isnan(actual) & np.isnan(expected))
        apart = np.where(equal, 0, np.where(np.isnan(apart), np.inf, apart))
        place = np.unravel_index(np.argmax(apart), apart.shape)
        at = f" at {[int(i) for i in place]}" if place else ""
        return (
            f"relative difference {self.relative:.1e}, the largest{at}: "
            f"{actual[place]:.6g} in {one}, {expected[place]:.6g} in {other}"
        )


def differences(
    actual: Outcome,
    expected: Outcome,
    sides: tuple[str, str],
    rounded: Collection[str] | None = None,
) -> list[Difference]:
    """Compare two outcomes, the most different result first.

    Parameters
    ----------
    actual, expected : Outcome
        What to compare with what.
    sides : (str, str)
        What to call the two, as in ``("JAX", "torch")``.
    rounded : collection of str, optional
        The outputs of integers or truth values that depend on floating-point numbers; by default
        all of them. Few of their elements may differ; the others have to be equal.
    """
    total = math.sqrt(sum(_norm(gradient) ** 2 for gradient in expected.gradients.values()))
    gradients = _each(actual.gradients, expected.gradients, "the gradient of {}", sides, total)
    outputs = _each(actual.outputs, expected.outputs, "output {}", sides, rounded=rounded)
    state = _each(actual.state, expected.state, "{} after the step", sides, rounded=())
    loss = _difference("the loss", actual.loss, expected.loss, sides)
    return sorted([loss, *outputs, *gradients, *state], key=lambda one: -one.relative)


def _each(
    actual: Mapping[str, np.ndarray],
    expected: Mapping[str, np.ndarray],
    naming: str,
    sides: tuple[str, str],
    norm: float | None = None,
    rounded: Collection[str] | None = None,
) -> list[Difference]:
    found = []
    for name in {**expected, **actual}:
        free = rounded is None or name in rounded
        pair = actual.get(name), expected.get(name)
        found.append(_difference(naming.format(name), *pair, sides, norm, undecided=free))
    return found


def _difference(
    name: str,
    actual: np.ndarray | None,
    expected: np.ndarray | None,
    sides: tuple[str, str],
    norm: float | None = None,
    *,
    undecided: bool = False,
) -> Difference:
    relative = math.inf
    if actual is not None and expected is not None:
        relative = apart(actual, expected, norm, undecided=undecided)
    return Difference(name, relative, actual, expected, sides)


def apart(
    actual: np.ndarray,
    expected: np.ndarray,
    norm: float | None = None,
    *,
    undecided: bool = False,
) -> float:
    """Return how far two arrays are apart, relative to the second.

    Parameters
    ----------
    actual, expected : np.ndarray
        What to compare with what.
    norm : float, optional
        The norm of what the arrays are a part of, beside which they may be small; if not given,
        their elements are of order one.
    undecided : bool
        Whether integers and truth values may depend on rounding.

    Returns
    -------
    float
        Infinite if they differ in shape, or in where they are not finite.
    """
    if actual.shape != expected.shape:
        return math.inf
    if np.array_equal(actual, expected):
        return 0.0
    if _is_exact(actual) and _is_exact(expected):
        return _mismatch(wide(actual), wide(expected), undecided)
    return _relative(wide(actual), wide(expected), norm)


def shifted(outcome: Outcome, moved: Outcome, base: Outcome) -> Outcome:
    """Return an outcome moved by what lies between two others of the same computation."""

    def each(
        values: Mapping[str, np.ndarray],
        others: Mapping[str, np.ndarray],
        starts: Mapping[str, np.ndarray],
    ) -> dict[str, np.ndarray]:
        common = values.keys() & others.keys() & starts.keys()
        return {
            name: _shift(value, others[name], starts[name]) if name in common else value
            for name, value in values.items()
        }

    return Outcome(
        loss=_shift(outcome.loss, moved.loss, base.loss),
        gradients=each(outcome.gradients, moved.gradients, base.gradients),
        outputs=each(outcome.outputs, moved.outputs, base.outputs),
        state=each(outcome.state, moved.state, base.state),
    )


def _shift(value: np.ndarray, moved: np.ndarray, base: np.ndarray) -> np.ndarray:
    if not value.shape == moved.shape == base.shape:
        return value
    if _is_exact(value):
        return np.where(moved != base, moved.astype(value.dtype), value)
    with np.errstate(invalid="ignore"):
        step = wide(moved) - wide(base)
    return wide(value) + np.where(np.isfinite(step), step, 0)


def _mismatch(actual: np.ndarray, expected: np.ndarray, undecided: bool) -> float:
    """Return the share of elements that differ, 0 if rounding may explain all of them.

    An argmax between two nearly equal numbers may fall either way, and a count of such may be off.
    """
    wrong = int((actual != expected).sum())
    allowed = max(1, actual.size // 100) if undecided else 0
    if actual.size == 1 and wrong and abs(actual - expected) > max(1, abs(expected) / 100):
        allowed = 0
    return wrong / actual.size if wrong > allowed else 0.0


def _relative(actual: np.ndarray, expected: np.ndarray, norm: float | None) -> float:
    """Return the larger of the relative differences on average and of the worst element.

    Parameters
    ----------
    actual, expected : np.ndarray
        Of one shape.
    norm : float or None
        The norm of what the array is a part of; None if its elements are of order one.
    """
    broken = ~np.isfinite(expected)
    if not np.array_equal(actual[broken], expected[broken], equal_nan=True):
        return math.inf
    if not np.isfinite(actual[~broken]).all():
        return math.inf
    actual, expected = actual[~broken], expected[~broken]
    difference, expected = _without_constants(actual - expected, expected)
    if not difference.size:
        return 0.0
    floor = _UNIT * math.sqrt(difference.size) if norm is None else _SHARE * norm
    mean = _norm(difference) / (_norm(expected) + floor or 1)
    peak_floor = _UNIT if norm is None else _SHARE * norm
    peak = np.abs(difference).max() / (np.abs(expected).max() + peak_floor or 1)
    return float(max(mean, peak / _PEAK))


def _without_constants(
    difference: np.ndarray, expected: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Leave out elements that are equal and huge beside all that differ.

    A masked score is -1e9 or the least float, by the side of which every error looks small.
    """
    size = np.abs(expected)
    largest = size.max(where=difference != 0, initial=0.0)
    counts = (difference != 0) | (size <= _HUGE * (largest + _UNIT))
    return difference[counts], expected[counts]


def _is_exact(values: np.ndarray) -> bool:
    return values.dtype.kind in "biu"


def wide(values: np.ndarray) -> np.ndarray:
    """Return values in a type in which differences and squares do not overflow."""
    if _is_exact(values):
        return values.astype(np.int64)
    return values.astype(np.complex128 if values.dtype.kind == "c" else np.float64)


def _norm(values: np.ndarray) -> float:
    return float(np.linalg.norm(wide(values).ravel()))
