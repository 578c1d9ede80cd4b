"""Diarization error rate: how much of the speech is attributed to the wrong speakers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from medjax.audio import Turn

__all__ = ["DiarizationErrors", "diarization_error_rate", "diarization_errors"]


class DiarizationErrors(NamedTuple):
    """Seconds of speech that are attributed wrongly; where n speakers speak, each second counts n.

    Attributes
    ----------
    false_alarm : float
        Recognised speech where nobody, or fewer speakers, speak.
    missed : float
        Speech that is not recognised.
    confusion : float
        Speech attributed to another speaker.
    total : float
        Speech of the reference.

    Examples
    --------
    >>> DiarizationErrors(1.0, 0.5, 0.5, 10.0).rate
    0.2
    """

    false_alarm: float
    missed: float
    confusion: float
    total: float

    @property
    def rate(self) -> float:
        """The diarization error rate; NaN if nobody speaks in the reference."""
        errors = self.false_alarm + self.missed + self.confusion
        return errors / self.total if self.total else math.nan


def diarization_error_rate(
    references: Iterable[Turn],
    hypotheses: Iterable[Turn],
    *,
    collar: float = 0.0,
    skip_overlap: bool = False,
) -> float:
    """Return the diarization error rate of all recordings together.

    It is the sum of the `diarization_errors` of all recordings::

        DER = (false alarm + missed + confusion) / total

    This is the ``DiarizationErrorRate`` of pyannote.metrics, accumulated over recordings.

    Parameters
    ----------
    references, hypotheses, collar, skip_overlap
        As for `diarization_errors`.

    Returns
    -------
    float
        0 if all is correct; above 1 if there is more wrong than there is speech.

    Raises
    ------
    ValueError
        If no speech is left to score, or an argument is out of range.

    Examples
    --------
    >>> truth = [Turn("visit", 0.0, 6.0, "nurse"), Turn("visit", 6.0, 4.0, "patient")]
    >>> found = [Turn("visit", 0.0, 5.0, "A"), Turn("visit", 5.0, 5.0, "B")]
    >>> diarization_error_rate(truth, found)
    0.1
    """
    errors = diarization_errors(references, hypotheses, collar=collar, skip_overlap=skip_overlap)
    total = math.fsum(each.total for each in errors.values())
    if total == 0:
        msg = (
            f"found no speech to score in the references of {len(errors)} recordings; expected some"
            ": pass their turns, or a shorter collar"
        )
        raise ValueError(msg)
    wrong = math.fsum(second for each in errors.values() for second in each[:-1])
    return wrong / total


def diarization_errors(
    references: Iterable[Turn],
    hypotheses: Iterable[Turn],
    *,
    collar: float = 0.0,
    skip_overlap: bool = False,
) -> dict[str, DiarizationErrors]:
    """Return the diarization errors of each recording.

    The names of recognised speakers are arbitrary: in each recording they are mapped one to one to
    those of the reference, so that the seconds they speak together are the most possible.

    Parameters
    ----------
    references, hypotheses : iterable of Turn
        Annotated and recognised turns, of any number of recordings. In a recording that only one
        of them has, all speech is missed or all is false alarm.
    collar : float
        Seconds around each start and end of a turn in the reference that are not scored, half of
        them before it and half after it.
    skip_overlap : bool
        Whether to leave out where turns of the reference overlap.

    Returns
    -------
    dict of str to DiarizationErrors
        The errors by recording.

    Raises
    ------
    ValueError
        If a turn or `collar` has a time that is negative or not finite.

    Examples
    --------
    >>> truth = [Turn("a", 0.0, 2.0, "nurse"), Turn("b", 0.0, 3.0, "nurse")]
    >>> diarization_errors(truth, [Turn("a", 1.0, 2.0, "1")])["a"]
    DiarizationErrors(false_alarm=1.0, missed=1.0, confusion=0.0, total=2.0)
    """
    if not 0 <= collar < math.inf:
        raise ValueError(f"collar is {collar!r}; expected a number of seconds from 0")
    truth, found = _by_recording(references), _by_recording(hypotheses)
    return {
        name: _errors(truth.get(name, []), found.get(name, []), collar, skip_overlap)
        for name in dict.fromkeys((*truth, *found))
    }


def _by_recording(turns: Iterable[Turn]) -> dict[str, list[Turn]]:
    recordings: dict[str, list[Turn]] = {}
    for turn in turns:
        if not (turn.start >= 0 and turn.duration >= 0 and turn.end < math.inf):
            raise ValueError(f"found {turn}; expected a start and a duration in seconds from 0")
        recordings.setdefault(turn.file, []).append(turn)
    return recordings


def _errors(
    truth: Sequence[Turn], found: Sequence[Turn], collar: float, skip_overlap: bool
) -> DiarizationErrors:
    from scipy.optimize import linear_sum_assignment  # takes 0.25 s to import

    edges = [edge for turn in truth for edge in (turn.start, turn.end)]
    collars = [Turn("", edge - collar / 2, collar, "") for edge in edges] if collar else []
    every = [*truth, *found, *collars]
    times = np.unique([time for turn in every for time in (turn.start, turn.end)])
    # Between two neighbouring times nobody starts or stops.
    speaking, recognised = _counts(truth, times), _counts(found, times)
    scored = _counts(collars, times).sum(axis=0) == 0
    if skip_overlap:
        scored &= speaking.sum(axis=0) < 2
    seconds = np.diff(times) * scored
    together = (speaking * seconds) @ recognised.T
    pairs = linear_sum_assignment(together, maximize=True)
    correct = np.minimum(speaking[pairs[0]], recognised[pairs[1]]).sum(axis=0)
    nb_true, nb_found = speaking.sum(axis=0), recognised.sum(axis=0)
    return DiarizationErrors(
        false_alarm=float(seconds @ np.maximum(nb_found - nb_true, 0)),
        missed=float(seconds @ np.maximum(nb_true - nb_found, 0)),
        confusion=float(seconds @ (np.minimum(nb_true, nb_found) - correct)),
        total=float(seconds @ nb_true),
    )


def _counts(turns: Sequence[Turn], times: np.ndarray) -> np.ndarray:
    """Return how many turns each speaker has between neighbouring times, (speakers, times - 1)."""
    rows: dict[str, int] = {}
    speakers = [rows.setdefault(turn.speaker, len(rows)) for turn in turns]
    counts = np.zeros((len(rows), max(len(times) - 1, 0)))
    starts = np.searchsorted(times, [turn.start for turn in turns])
    ends = np.searchsorted(times, [turn.end for turn in turns])
    for speaker, start, end in zip(speakers, starts, ends, strict=True):
        counts[speaker, start:end] += 1
    return counts
