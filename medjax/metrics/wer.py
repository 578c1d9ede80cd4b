"""Error rates of transcripts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["character_error_rate", "edit_distance", "word_error_rate"]


def word_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Return the word error rate of a corpus.

    With the numbers S of substitutions, D of deletions and I of insertions in the cheapest
    alignment of each pair (Levenshtein 1966), and N of words in the references, all summed over
    the corpus::

        WER = (S + D + I) / N

    Words are separated by white space. Case and punctuation count, so normalise the texts first.
    On texts whose words are separated by spaces this is ``jiwer.wer``; an utterance without words
    in the reference is allowed, and all words recognised there are insertions.

    Parameters
    ----------
    references, hypotheses : sequence of str
        Correct and recognised text of each utterance.

    Returns
    -------
    float
        0 if all words are correct; above 1 if there are more errors than words.

    Raises
    ------
    ValueError
        If the numbers of hypotheses and references differ, or no reference has a word.

    Examples
    --------
    >>> word_error_rate(["no acute distress", "stable"], ["no cute distress", "is stable"])
    0.5
    """
    return _error_rate(
        [text.split() for text in references], [text.split() for text in hypotheses], "word"
    )


def character_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Return the character error rate of a corpus.

    The formula is that of `word_error_rate`, with characters (code points) instead of words. White
    space counts, except at the beginning and the end of a text. This is ``jiwer.cer``.

    Parameters
    ----------
    references, hypotheses : sequence of str
        Correct and recognised text of each utterance.

    Returns
    -------
    float
        0 if all characters are correct.

    Raises
    ------
    ValueError
        If the numbers of hypotheses and references differ, or no reference has a character.

    Examples
    --------
    >>> character_error_rate(["acute"], ["cute"])
    0.2
    """
    return _error_rate(
        [list(text.strip()) for text in references],
        [list(text.strip()) for text in hypotheses],
        "character",
    )


def _error_rate(references: list[list[str]], hypotheses: list[list[str]], unit: str) -> float:
    if len(references) != len(hypotheses):
        msg = f"found {len(hypotheses)} hypotheses; expected {len(references)}, one per reference"
        raise ValueError(msg)
    total = sum(map(len, references))
    if total == 0:
        msg = f"found no {unit} in {len(references)} references; expected at least one"
        raise ValueError(msg)
    return sum(map(edit_distance, references, hypotheses)) / total


def edit_distance(reference: Sequence[str], hypothesis: Sequence[str]) -> int:
    """Return the least number of substitutions, deletions and insertions between two sequences.

    Examples
    --------
    >>> edit_distance("kitten", "sitting")
    3
    """
    ids: dict[str, int] = {}
    first = [ids.setdefault(unit, len(ids)) for unit in reference]
    second = np.array([ids.setdefault(unit, len(ids)) for unit in hypothesis], dtype=np.int64)
    columns = np.arange(len(second) + 1)
    row = columns.copy()
    for unit in first:
        best = row + 1  # a deletion
        best[1:] = np.minimum(best[1:], row[:-1] + (second != unit))  # a match or substitution
        # An insertion costs 1 per column: once that slope is subtracted, the best sequence of
        # insertions is a running minimum.
        row = np.minimum.accumulate(best - columns) + columns
    return int(row[-1])
