import gzip
import json
import math
from pathlib import Path

import pytest
from speech_cases import NB_CASES, diarization, transcripts

from medjax.metrics import (
    character_error_rate,
    diarization_error_rate,
    diarization_errors,
    word_error_rate,
)

GOLDEN = json.loads(gzip.decompress(Path(__file__).with_name("speech_scores.json.gz").read_bytes()))


def test_error_rates_of_transcripts_equal_those_of_jiwer():
    assert len(GOLDEN["transcripts"]) == NB_CASES
    for case, (words, characters) in enumerate(GOLDEN["transcripts"]):
        references, hypotheses = transcripts(case)
        assert word_error_rate(references, hypotheses) == words
        assert character_error_rate(references, hypotheses) == characters


def test_diarization_errors_equal_those_of_pyannote():
    assert len(GOLDEN["diarization"]) == NB_CASES
    for case, milliseconds in enumerate(GOLDEN["diarization"]):
        truth, found, collar, skip = diarization(case)
        errors = diarization_errors(truth, found, collar=collar, skip_overlap=skip)
        summed = [1000 * math.fsum(each) for each in zip(*errors.values(), strict=True)]
        assert summed == pytest.approx(milliseconds, abs=1e-6), case
        *wrong, total = milliseconds
        if total:
            rate = diarization_error_rate(truth, found, collar=collar, skip_overlap=skip)
            assert rate == pytest.approx(sum(wrong) / total, rel=1e-9)


def test_the_golden_cases_contain_every_kind_of_error():
    columns = list(zip(*GOLDEN["diarization"], strict=True))
    assert all(sum(value > 0 for value in column) > 200 for column in columns)
    assert sum(total == 0 for total in columns[3]) < 50
    for column in zip(*GOLDEN["transcripts"], strict=True):
        assert sum(value == 0 for value in column) > 10
        assert sum(value > 0.5 for value in column) > 50
