"""Random transcripts and turns of speakers, the same in every version of Python."""

import random

from medjax.audio import Turn

NB_CASES = 1000
_TEXT = "the patient has no acute pain fever fièvre à l'hôpital 38,5 mg/kg. A a — naïve x"
_WORDS = _TEXT.split()
_SPACES = (" ", " ", " ", "  ", "   ")


class Draws:
    """Draws of a case; only `random.random` gives the same numbers in every version."""

    def __init__(self, kind, case):
        self._random = random.Random(f"{kind} {case}").random

    def below(self, end):
        return int(self._random() * end)

    def one_of(self, values):
        return values[self.below(len(values))]

    def happens(self, probability):
        return self._random() < probability


def transcripts(case):
    """Return references and hypotheses of a corpus; the first reference has a word."""
    draws = Draws("transcripts", case)
    noise = draws.one_of((0.0, 0.1, 0.4, 1.0))
    references, hypotheses = [], []
    for row in range(1 + draws.below(6)):
        count = draws.below(13) if row else 1 + draws.below(12)
        words = [draws.one_of(_WORDS) for _ in range(count)]
        heard = []
        for word in words:
            if draws.happens(noise / 3):
                continue
            heard.append(draws.one_of(_WORDS) if draws.happens(noise / 3) else word)
            if draws.happens(noise / 3):
                heard.append(draws.one_of(_WORDS))
        if draws.happens(noise / 5):
            heard = [draws.one_of(_WORDS) for _ in range(draws.below(4))]
        references.append(_spaced(draws, words))
        hypotheses.append(_spaced(draws, heard))
    return references, hypotheses


def _spaced(draws, words):
    text = "".join(word + draws.one_of(_SPACES) for word in words)
    if draws.happens(0.7):
        text = text.strip()
    return draws.one_of(_SPACES) + text if draws.happens(0.2) else text


def diarization(case):
    """Return annotated and recognised turns of some recordings, a collar and skip_overlap."""
    draws = Draws("diarization", case)
    truth, found = [], []
    for number in range(1 + draws.below(3)):
        name = f"recording {number}"
        nb_speakers, nb_found = 1 + draws.below(4), draws.below(6)
        truth += _turns(draws, name, nb_speakers, "speaker", 1 + draws.below(12))
        if draws.happens(0.7):
            found += _heard(draws, truth, name, nb_found)
        elif nb_found:
            found += _turns(draws, name, nb_found, "", draws.below(12))
    return truth, found, draws.one_of((0.0, 0.0, 0.25, 0.5, 2.0)), draws.happens(0.5)


def _turns(draws, file, nb_speakers, prefix, count):
    return [
        Turn(
            file,
            draws.below(20_000) / 1000,
            (1 + draws.below(6000)) / 1000,
            f"{prefix}{draws.below(nb_speakers)}",
        )
        for _ in range(count)
    ]


def _heard(draws, truth, file, nb_found):
    """Return turns with moved edges, sometimes of another speaker, sometimes none."""
    heard = []
    for turn in truth:
        if turn.file != file or draws.happens(0.1):
            continue
        speaker = turn.speaker[len("speaker") :]
        if nb_found and draws.happens(0.2):
            speaker = str(draws.below(nb_found))
        start = max(round(turn.start * 1000) + draws.below(600) - 300, 0)
        duration = max(round(turn.duration * 1000) + draws.below(600) - 300, 1)
        heard.append(Turn(file, start / 1000, duration / 1000, speaker))
    return heard
