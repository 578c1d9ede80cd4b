"""Precision, recall and F1 of the relations that a classifier of pairs finds, batch by batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from medjax.metrics._columns import labels_and_predictions, real_rows
from medjax.metrics.spans import entity_scores, weighed_scores
from medjax.metrics.units import Units

__all__ = ["PAIR", "PairGold", "RelationMetrics"]

PAIR = "pair"
"""Name of the batch column that contains a `PairGold` for each row."""


class PairGold(NamedTuple):
    """What a row with a pair of entities is scored against.

    Attributes
    ----------
    document : int
        Position of the document in its dataset.
    pair : (int, int) or None
        Places of head and tail among the entities of the document, which tell entities of the same
        offsets apart; None for a row without a pair, whose prediction does not count.
    label : str or None
        Annotated relation of the pair, or None.
    missed : sequence of (str, int, int)
        Label, head and tail of further relations of the document, which are no candidates.

    Examples
    --------
    >>> PairGold(0, (0, 1), "Treats", ()).label
    'Treats'
    """

    document: int
    pair: tuple[int, int] | None
    label: str | None
    missed: Sequence[tuple[str, int, int]]


class RelationMetrics:
    """Precision, recall and F1 of relations against all that are annotated.

    A predicted relation is correct if its label and its two entities are, in this order. Annotated
    relations that are no candidates, such as those of entities that are far apart, count as missed.
    The formulas are those of `span_scores`.

    Parameters
    ----------
    classes : sequence of str
        Name of each class, that of no relation first; `RelationClassification.classes`.

    Examples
    --------
    >>> import numpy as np
    >>> metrics = RelationMetrics(("none", "Treats"))
    >>> gold = [PairGold(0, (0, 1), "Treats", [("Causes", 0, 5)])]
    >>> batch = {"labels": np.array([1]), PAIR: gold}
    >>> columns = metrics.prepare_batch({"predictions": np.array([1])}, batch)
    >>> scores = metrics.compute(columns)
    >>> scores["micro_precision"], scores["micro_recall"]
    (1.0, 0.5)
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)

    def prepare_batch(
        self, model_output: Mapping[str, Any], input_batch: Mapping[str, Any]
    ) -> dict[str, list[Any]]:
        """Return the pairs of a batch and their predicted classes, without padding rows.

        Parameters
        ----------
        model_output : mapping
            ``"predictions"``, int, shape (rows,), or ``"logits"``, shape (rows, classes).
        input_batch : mapping
            ``"labels"``, int, shape (rows,), and `PAIR`, a list of `PairGold`.

        Raises
        ------
        ValueError
            If a column is missing or shapes differ.
        """
        if PAIR not in input_batch:
            msg = (
                f"the batch has the columns {sorted(input_batch)}; expected {PAIR!r} among them, "
                "as RelationClassification makes it"
            )
            raise ValueError(msg)
        _, predictions = labels_and_predictions(model_output, input_batch)
        return {
            PAIR: real_rows(input_batch[PAIR], input_batch),
            "y_pred": [self.classes[number] for number in predictions.tolist()],
        }

    def relations(
        self, all_data: Mapping[str, list[Any]]
    ) -> tuple[list[list[Any]], list[list[Any]]]:
        """Return the annotated and the predicted relations of each document, in order.

        Parameters
        ----------
        all_data : mapping of str to list
            The columns that `prepare_batch` returned for all batches, concatenated.

        Returns
        -------
        y_true, y_pred : list of list of tuple
            Label, head and tail, of the documents that have a row.
        """
        y_true: dict[int, list[Any]] = {}
        y_pred: dict[int, list[Any]] = {}
        for row, name in zip(all_data[PAIR], all_data["y_pred"], strict=True):
            document, pair, label, missed = row
            true, predicted = y_true.setdefault(document, []), y_pred.setdefault(document, [])
            # Columns that a checkpoint has kept come back as lists.
            true += [tuple(relation) for relation in missed]
            if pair is None:
                continue
            if label is not None:
                true.append((label, *pair))
            if name != self.classes[0]:
                predicted.append((name, *pair))
        order = sorted(y_true)
        return [y_true[document] for document in order], [y_pred[document] for document in order]

    def compute(self, all_data: Mapping[str, list[Any]]) -> dict[str, float]:
        """Return the scores over all batches.

        Parameters
        ----------
        all_data : mapping of str to list
            The columns that `prepare_batch` returned for all batches, concatenated.

        Returns
        -------
        dict of str to float
            The scores that `entity_scores` describes, of relations.
        """
        return entity_scores(*self.relations(all_data))

    def units(self, all_data: Mapping[str, list[Any]]) -> Units:
        """Return the documents as units to resample, for `medjax.metrics.bootstrap`.

        Parameters
        ----------
        all_data : mapping of str to list
            The columns that `prepare_batch` returned for all batches, concatenated.

        Returns
        -------
        Units
            The documents that have a row. The scores of a label that no relation of a resample has
            are NaN; in macro averages it has its scores on the whole data.
        """
        y_true, y_pred = self.relations(all_data)
        return Units([sorted(relations) for relations in y_true], weighed_scores(y_true, y_pred))
