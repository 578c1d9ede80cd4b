"""The difference between two outcomes of the same computation."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from medjax_torch.verification.reference import Outcome

_UNIT = 1e-3
"""Size below which outputs and state count as small: at a tolerance of 1e-3, 1e-6 is noise."""

_SHARE = 3e-2
"""Size below which a gradient counts as small, as a share of the norm of all gradients.

Gradients that are exactly 0 in theory are noise in float32: 1e-8 of that norm for the key bias of
an attention, 1.4e-6 for the bias of a convolution before a batch norm, a sum over 128,000 elements.
"""

_HUGE = 100
"""How many times larger than all differing numbers an equal one must be to count as a constant."""

_PIECE = 1 << 16
"""Number of elements that are squared at a time, so that the copies stay in the CPU's cache."""

_PEAK = 10
"""Factor by which a single element may exceed the tolerance for the average.

Where rounding decides a ReLU or a maximum, single elements differ by more than noise.
"""


@dataclass(frozen=True, eq=False)
class Difference:
    """The difference between one result and its counterpart.

    Attributes
    ----------
    name : str
        What is compared, in words.
    relative : float
        Difference relative to the size of the result; infinite if one side lacks the result.
    actual, expected : array or None
        The two results, None where it is missing.
    sides : (str, str)
        Names of the two sides.
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
            return f"only in {one if self.expected is None else other}"
        if self.actual.shape != self.expected.shape:
            return f"shape {self.actual.shape} in {one}, {self.expected.shape} in {other}"
        actual, expected = wide(self.actual), wide(self.expected)
        with np.errstate(invalid="ignore"):
            apart = np.abs(actual - expected)
        equal = (actual == expected) | (np.isnan(actual) & np.isnan(expected))
        apart = np.where(equal, 0, np.where(np.isnan(apart), np.inf, apart))
        place = np.unravel_index(np.argmax(apart), apart.shape)
        at = f"largest at {[int(i) for i in place]}: " if place else ""
        return (
            f"relative difference {self.relative:.1e}, {at}{actual[place]:.6g} in {one}, "
            f"{expected[place]:.6g} in {other}"
        )


def differences(
    actual: Outcome,
    expected: Outcome,
    sides: tuple[str, str],
    rounded: Collection[str] | None = None,
) -> list[Difference]:
    """Compare two outcomes, and return the differences, the largest first.

    Parameters
    ----------
    actual, expected : Outcome
        The outcomes to compare.
    sides : (str, str)
        Names of the two, such as ``("JAX", "torch")``.
    rounded : collection of str, optional
        Integer and boolean outputs that depend on floating-point numbers, by default all of them.
        A few of their elements may differ; all other integer and boolean outputs must be equal.
    """
    # With an infinite gradient in the norm, any difference of the others would count as nothing.
    total = math.hypot(*(_norm(_finite(each)) for each in expected.gradients.values()))
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
    return [
        _difference(
            naming.format(name),
            actual.get(name),
            expected.get(name),
            sides,
            norm,
            undecided=rounded is None or name in rounded,
        )
        for name in {**expected, **actual}
    ]


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
    """Return the difference between two arrays, relative to the second.

    Parameters
    ----------
    actual, expected : np.ndarray
        The arrays to compare.
    norm : float, optional
        The norm of all arrays to which these belong, compared with which they may be small. By
        default their elements are taken to be of order one.
    undecided : bool
        Whether integers and booleans may depend on rounding.

    Returns
    -------
    float
        Infinite if the arrays differ in shape, or in their non-finite elements.
    """
    if actual.shape != expected.shape:
        return math.inf
    if np.array_equal(actual, expected):
        return 0.0
    if _is_exact(actual) and _is_exact(expected):
        return _mismatch(wide(actual), wide(expected), undecided)
    return _relative(actual, expected, norm)


def shifted(outcome: Outcome, moved: Outcome, base: Outcome) -> Outcome:
    """Return an outcome shifted by the difference between two others, `moved` - `base`."""

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
    """Return the share of elements that differ, or 0 if rounding may explain all of them.

    An argmax of two nearly equal numbers may give either, and a count of such results may be off.
    """
    wrong = int((actual != expected).sum())
    allowed = max(1, actual.size // 100) if undecided else 0
    if actual.size == 1 and wrong and abs(actual - expected) > max(1, abs(expected) / 100):
        allowed = 0
    return wrong / actual.size if wrong > allowed else 0.0


def _relative(actual: np.ndarray, expected: np.ndarray, norm: float | None) -> float:
    """Return the larger of the average relative difference and that of the worst element.

    Parameters
    ----------
    actual, expected : np.ndarray
        Arrays of the same shape.
    norm : float or None
        The norm of all arrays to which these belong; None if their elements are of order one.
    """
    # Nearly all of the gradient of an embedding is 0 on both sides, which adds only to the size.
    told = (actual != 0) | (expected != 0)
    nb_zeros = told.size - np.count_nonzero(told)
    actual, expected = wide(actual[told]), wide(expected[told])
    broken = ~np.isfinite(expected)
    if not np.array_equal(actual[broken], expected[broken], equal_nan=True):
        return math.inf
    if not np.isfinite(actual[~broken]).all():
        return math.inf
    actual, expected = actual[~broken], expected[~broken]
    difference, expected = _without_constants(actual - expected, expected)
    if not difference.size:
        return 0.0
    size = difference.size + nb_zeros
    floor = _UNIT * math.sqrt(size) if norm is None else _SHARE * norm
    mean = _norm(difference) / (_norm(expected) + floor or 1)
    peak_floor = _UNIT if norm is None else _SHARE * norm
    peak = np.abs(difference).max() / (np.abs(expected).max() + peak_floor or 1)
    return float(max(mean, peak / _PEAK))


def _without_constants(
    difference: np.ndarray, expected: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Leave out elements that are equal and huge compared with all that differ.

    A masked score is -1e9 or the smallest float, compared with which every error looks small.
    """
    size = np.abs(expected)
    largest = size.max(where=difference != 0, initial=0.0)
    counts = (difference != 0) | (size <= _HUGE * (largest + _UNIT))
    return difference[counts], expected[counts]


def _is_exact(values: np.ndarray) -> bool:
    return values.dtype.kind in "biu"


def wide(values: np.ndarray) -> np.ndarray:
    """Convert values to a dtype in which differences and squares do not overflow."""
    if _is_exact(values):
        return values.astype(np.int64)
    return values.astype(np.complex128 if values.dtype.kind == "c" else np.float64)


def _finite(values: np.ndarray) -> np.ndarray:
    """Return values with 0 in place of what is not finite."""
    if _is_exact(values) or np.isfinite(values).all():
        return values
    return np.where(np.isfinite(values), values, 0)


def _norm(values: np.ndarray) -> float:
    flat = values.ravel()
    pieces = (wide(flat[at : at + _PIECE]) for at in range(0, flat.size, _PIECE))
    return math.hypot(*(float(np.linalg.norm(piece)) for piece in pieces))
