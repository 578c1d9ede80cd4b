"""Word and character error rate of transcripts, as a MetricsComputer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from medjax.metrics._columns import IGNORED, real_rows
from medjax.metrics.units import Units
from medjax.metrics.wer import character_error_rate, edit_distance, word_error_rate

__all__ = ["TranscriptionMetrics"]

Decode = Callable[[list[list[int]]], Sequence[str]]
"""Takes ids, returns the text of each row."""


class TranscriptionMetrics:
    """Scores transcripts by `word_error_rate` and `character_error_rate`.

    Works with both doors: outputs and batches may hold arrays or torch tensors. To resample
    utterances, pass it to `bootstrap` with the texts as columns.

    Parameters
    ----------
    decode : callable
        Takes predicted ids, a list for each row, and returns texts: for a CTC model what merges
        repeated ids and drops blanks, such as ``processor.batch_decode``.
    decode_labels : callable, optional
        The same for labels, which have neither blanks nor repetitions to merge; `decode` if it is
        not given.

    Examples
    --------
    >>> import numpy as np
    >>> metrics = TranscriptionMetrics(lambda rows: ["".join(map(chr, row)) for row in rows])
    >>> batch = {"labels": np.array([[97, 98, -100]])}
    >>> columns = metrics.prepare_batch({"predictions": np.array([[97, 99]])}, batch)
    >>> columns
    {'references': ['ab'], 'hypotheses': ['ac']}
    >>> metrics.compute(columns)
    {'word_error_rate': 1.0, 'character_error_rate': 0.5}
    """

    def __init__(self, decode: Decode, decode_labels: Decode | None = None) -> None:
        self._decode = decode
        self._decode_labels = decode_labels or decode

    def prepare_batch(
        self, model_output: Mapping[str, Any], input_batch: Mapping[str, Any]
    ) -> dict[str, list[str]]:
        """Return the texts of the real rows of a batch.

        Parameters
        ----------
        model_output : mapping
            ``"predictions"``, int, (rows, any length): ids, and -100 where nothing is predicted.
        input_batch : mapping
            ``"labels"``, int, (rows, any length): ids, and -100 where there is no label.

        Returns
        -------
        dict of str to list of str
            ``"references"`` and ``"hypotheses"``, one text for each row.

        Raises
        ------
        ValueError
            If a column is missing, or has another number of axes or rows.
        """
        labels = _ids(input_batch, "labels", "batch")
        predictions = _ids(model_output, "predictions", "output")
        if len(labels) != len(predictions):
            msg = f"found {len(predictions)} rows of predictions; expected {len(labels)}, as labels"
            raise ValueError(msg)
        return {
            "references": real_rows(self._decode_labels(labels), input_batch),
            "hypotheses": real_rows(self._decode(predictions), input_batch),
        }

    def compute(self, all_data: Mapping[str, list[str]]) -> dict[str, float]:
        """Return the error rates over all batches.

        Parameters
        ----------
        all_data : mapping of str to list
            The columns that `prepare_batch` returned for all batches, concatenated.

        Returns
        -------
        dict of str to float
            ``"word_error_rate"`` and ``"character_error_rate"``.

        Raises
        ------
        ValueError
            If no reference has a word.
        """
        references, hypotheses = all_data["references"], all_data["hypotheses"]
        return {
            "word_error_rate": word_error_rate(references, hypotheses),
            "character_error_rate": character_error_rate(references, hypotheses),
        }

    def units(self, all_data: Mapping[str, list[str]]) -> Units:
        """Return the utterances, each with its errors and its length in words and characters."""
        references, hypotheses = all_data["references"], all_data["hypotheses"]
        counted = {
            "word_error_rate": _errors_and_sizes(references, hypotheses, str.split),
            "character_error_rate": _errors_and_sizes(references, hypotheses, str.strip),
        }

        def weigh(weights: np.ndarray) -> dict[str, np.ndarray]:
            rates = {}
            for name, (errors, sizes) in counted.items():
                nb_units = weights @ sizes
                rates[name] = (weights @ errors) / np.where(nb_units > 0, nb_units, np.nan)
            return rates

        return Units(list(references), weigh)


def _ids(columns: Mapping[str, Any], name: str, where: str) -> list[list[int]]:
    if name not in columns:
        msg = f"the {where} has the columns {sorted(columns)}; expected {name!r} among them"
        raise ValueError(msg)
    ids = np.asarray(columns[name])
    if ids.ndim != 2 or ids.dtype.kind not in "iu":
        msg = (
            f"{name} has shape {ids.shape} and dtype {ids.dtype}; expected integers, one row of "
            "ids per utterance"
        )
        raise ValueError(msg)
    return [row[row != IGNORED].tolist() for row in ids]


def _errors_and_sizes(
    references: Sequence[str],
    hypotheses: Sequence[str],
    units_of: Callable[[str], Sequence[str]],
) -> np.ndarray:
    """Return the number of errors and of units of each utterance, shape (2, utterances)."""
    pairs = [
        (units_of(reference), units_of(hypothesis))
        for reference, hypothesis in zip(references, hypotheses, strict=True)
    ]
    return np.array([[edit_distance(a, b), len(a)] for a, b in pairs], np.float64).reshape(-1, 2).T
