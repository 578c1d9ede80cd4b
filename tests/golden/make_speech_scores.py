"""Write speech_scores.json.gz: error rates of random cases by jiwer 4.0.0, pyannote.metrics 4.2.0.

Run by hand where both and medjax are installed:
``python tests/golden/make_speech_scores.py``.

A diarization score is stored as false alarm, missed, confusion and total in milliseconds, which
are whole numbers, summed over the recordings of a case.
"""

import gzip
import json
import warnings
from pathlib import Path

import jiwer
from pyannote.core import Annotation, Segment
from pyannote.metrics.diarization import DiarizationErrorRate
from speech_cases import NB_CASES, diarization, transcripts


def annotation(turns, file):
    result = Annotation(uri=file)
    for number, turn in enumerate(turns):
        if turn.file == file:
            result[Segment(turn.start, turn.end), number] = turn.speaker
    return result


def diarization_scores(case):
    truth, found, collar, skip_overlap = diarization(case)
    metric = DiarizationErrorRate(collar=collar, skip_overlap=skip_overlap)
    for file in dict.fromkeys(turn.file for turn in (*truth, *found)):
        metric(annotation(truth, file), annotation(found, file))
    names = ("false alarm", "missed detection", "confusion", "total")
    seconds = [metric[name] for name in names]
    milliseconds = [round(1000 * value * 2) / 2 for value in seconds]
    assert all(abs(a - 1000 * b) < 1e-3 for a, b in zip(milliseconds, seconds, strict=True))
    if milliseconds[-1]:
        assert abs(abs(metric) - sum(milliseconds[:3]) / milliseconds[3]) < 1e-9
    return milliseconds


def main():
    warnings.filterwarnings("ignore", message="'uem' was approximated")
    content = {
        "transcripts": [
            [jiwer.wer(*transcripts(case)), jiwer.cer(*transcripts(case))]
            for case in range(NB_CASES)
        ],
        "diarization": [diarization_scores(case) for case in range(NB_CASES)],
    }
    data = json.dumps(content, separators=(",", ":")).encode()
    target = Path(__file__).with_name("speech_scores.json.gz")
    target.write_bytes(gzip.compress(data, mtime=0))


if __name__ == "__main__":
    main()
