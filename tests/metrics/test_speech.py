"""Error rates of speech: what jiwer and pyannote.metrics do not say, and the MetricsComputer."""

import math

import numpy as np
import pytest

from medjax.audio import Turn
from medjax.metrics import (
    DiarizationErrors,
    TranscriptionMetrics,
    bootstrap,
    character_error_rate,
    diarization_error_rate,
    diarization_errors,
)

TRUTH = [Turn("a", 0.0, 4.0, "nurse"), Turn("a", 3.0, 3.0, "patient")]


def test_speakers_are_mapped_so_that_they_speak_together_the_longest():
    # Taking the best pair first, A to nurse, would leave B with the patient's nothing.
    truth = [Turn("a", 0, 7, "nurse"), Turn("a", 7, 4, "patient")]
    found = [Turn("a", 0, 3, "B"), Turn("a", 3, 8, "A")]
    expected = DiarizationErrors(false_alarm=0, missed=0, confusion=4, total=11)
    assert diarization_errors(truth, found)["a"] == expected


def test_each_second_counts_once_for_each_speaker():
    errors = diarization_errors(TRUTH, [Turn("a", 0.0, 7.0, "A")])
    assert errors["a"] == DiarizationErrors(false_alarm=1, missed=1, confusion=2, total=7)


def test_a_collar_is_left_out_half_before_and_half_after_each_edge():
    errors = diarization_errors(TRUTH, [Turn("a", 0.0, 3.2, "A")], collar=0.5)["a"]
    assert errors == pytest.approx((0, 2 * 0.5 + 1.5, 0, 2.5 + 2 * 0.5 + 1.5))


def test_overlaps_of_the_reference_are_left_out_on_request():
    errors = diarization_errors(TRUTH, [], skip_overlap=True)["a"]
    assert errors == DiarizationErrors(false_alarm=0, missed=5, confusion=0, total=5)


def test_recordings_are_scored_apart_and_none_is_dropped():
    errors = diarization_errors([Turn("a", 0, 2, "x")], [Turn("b", 1, 3, "x")])
    assert errors["a"] == DiarizationErrors(false_alarm=0, missed=2, confusion=0, total=2)
    assert errors["b"] == DiarizationErrors(false_alarm=3, missed=0, confusion=0, total=0)
    assert math.isnan(errors["b"].rate)
    assert diarization_error_rate([Turn("a", 0, 2, "x")], [Turn("b", 1, 3, "x")]) == 2.5


@pytest.mark.parametrize(
    ("truth", "options", "message"),
    [
        ([], {}, "no speech to score in the references of 0 recordings"),
        (TRUTH, {"collar": 20.0}, "no speech to score in the references of 1 recordings"),
        (TRUTH, {"collar": -1.0}, "collar is -1.0"),
        ([Turn("a", math.nan, 1.0, "x")], {}, "start=nan.*expected a start and a duration"),
        ([Turn("a", 1.0, -1.0, "x")], {}, "duration=-1.0.*expected a start and a duration"),
        ([Turn("a", -1.0, 2.0, "x")], {}, "start=-1.0.*expected a start and a duration"),
    ],
)
def test_diarization_without_speech_or_with_impossible_times_is_refused(truth, options, message):
    with pytest.raises(ValueError, match=message):
        diarization_error_rate(truth, [], **options)


def test_white_space_around_a_text_is_no_character():
    assert character_error_rate(["ab c"], [" ab  c "]) == 1 / 4


def letters(rows):
    return ["".join(map(chr, row)) for row in rows]


def test_transcripts_of_real_rows_are_scored():
    metrics = TranscriptionMetrics(lambda rows: ["x" for _ in rows], letters)
    batch = {"labels": np.array([[97, -100], [98, 99]]), "row_mask": np.array([1.0, 0.0])}
    columns = metrics.prepare_batch({"predictions": np.array([[1, 2], [3, 4]])}, batch)
    assert columns == {"references": ["a"], "hypotheses": ["x"]}
    assert metrics.compute(columns) == {"word_error_rate": 1.0, "character_error_rate": 1.0}


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ({"logits": np.zeros((1, 2, 3))}, "the output has the columns"),
        ({"predictions": np.zeros((1, 2))}, "predictions has shape .1, 2. and dtype float64"),
        ({"predictions": np.zeros((1, 2, 3), int)}, "expected integers, one row of ids"),
        ({"predictions": np.zeros((2, 2), int)}, "found 2 rows of predictions; expected 1"),
    ],
)
def test_transcripts_need_rows_of_ids(output, message):
    with pytest.raises(ValueError, match=message):
        TranscriptionMetrics(letters).prepare_batch(output, {"labels": np.array([[97]])})


def test_utterances_are_resampled_with_their_lengths():
    metrics = TranscriptionMetrics(letters)
    columns = {"references": ["a b c d", "e", ""], "hypotheses": ["a b x d", "y z", "w"]}
    weights = np.array([[2, 1, 0], [0, 0, 3]])
    by_units = metrics.units(columns).weigh(weights.astype(float))
    drawn = {name: [values[0], *values[:2]] for name, values in columns.items()}
    for name, score in metrics.compute(drawn).items():
        assert by_units[name][0] == pytest.approx(score)
        assert math.isnan(by_units[name][1])
    interval = bootstrap(metrics, columns, nb_resamples=50)["word_error_rate"]
    assert interval.value == 4 / 5
    assert interval.low < 0.8 < interval.high
