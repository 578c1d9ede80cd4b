"""Precision, recall and F1 of the spans that a token classifier predicts, batch by batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from medjax.metrics._columns import IGNORED, labels_and_predictions, real_rows
from medjax.metrics.spans import (
    entity_scores,
    span_pairs,
    weighed_scores,
    with_accuracy,
)
from medjax.metrics.units import Units
from medjax.text.tagging import check_rule, split_tag, tag_layers, tags_to_spans

__all__ = ["GOLD", "Gold", "SpanMetrics"]

GOLD = "gold"
"""Name of the batch column that contains a `Gold` for each row."""


class Gold(NamedTuple):
    """The annotation that a row of a batch is scored against.

    Attributes
    ----------
    document : int or None
        Number of the document that the row is a window of; None if the row is a whole document.
    words : sequence of (int, int)
        Start and end of each labelled word of the row, in characters of the document's text.
    entities : sequence of (str, int, int)
        Label, start and end of the annotated entities that start in this window.

    Examples
    --------
    >>> Gold(document=None, words=[(0, 2), (3, 8)], entities=[("Sign", 3, 8)]).entities
    [('Sign', 3, 8)]
    """

    document: int | None
    words: Sequence[tuple[int, int]]
    entities: Sequence[tuple[str, int, int]]


class SpanMetrics:
    """Precision, recall and F1 of predicted spans, as a MetricsComputer.

    Batches with the column `GOLD`, such as those of `medjax.components.TokenClassification`, are
    scored per document and by characters: the windows of a document are joined, their tags are
    converted to entities, and these are compared with the annotated entities. An annotated entity
    that no sequence of tags can represent, because it ends inside a word, counts as missed. Without
    the column, the spans of the predicted tags are compared with those of the true tags. The
    formulas are those of `span_scores`.

    Parameters
    ----------
    tags : sequence of str
        Name of each tag id, as `medjax.text.tagging.tag_names` returns them, or for entities that
        may overlap `medjax.text.tagging.layered_tag_names`. Then each label has a sequence of tags,
        and labels and predictions have one more axis, which they may lack with a single label.
    rule : {"conlleval", "iob2", "bilou", "iobes", "io"}
        How spans are read from tags. medkit reads iob2 tags by ``"conlleval"`` and bilou tags by
        ``"bilou"``.

    Raises
    ------
    ValueError
        If the rule is unknown or does not allow a tag.

    Examples
    --------
    >>> metrics = SpanMetrics(("O", "B-Drug", "I-Drug"))
    >>> batch = {"labels": np.array([[-100, 1, 2, 0]])}
    >>> columns = metrics.prepare_batch({"predictions": np.array([[0, 1, 2, 2]])}, batch)
    >>> columns
    {'y_true': [['B-Drug', 'I-Drug', 'O']], 'y_pred': [['B-Drug', 'I-Drug', 'I-Drug']]}
    >>> metrics.compute(columns)["micro_f1-score"]
    0.0
    """

    def __init__(self, tags: Sequence[str], rule: str = "conlleval") -> None:
        check_rule(rule)
        self.layers = tag_layers(tags)
        for layer in self.layers:
            for tag in layer:
                split_tag(tag, rule)
        self.tags = tuple(tags)
        self.rule = rule

    def prepare_batch(
        self, model_output: Mapping[str, Any], input_batch: Mapping[str, Any]
    ) -> dict[str, list[Any]]:
        """Return the tags of a batch, without positions labelled -100 and padding rows.

        Parameters
        ----------
        model_output : mapping
            ``"predictions"``, int, shape (rows, length), or ``"logits"``, shape (rows, length,
            tags); numpy or JAX arrays.
        input_batch : mapping
            ``"labels"``, int, shape (rows, length), -100 where nothing is to be predicted, and
            optionally `GOLD`, a list of `Gold`.

        Returns
        -------
        dict of str to list
            ``"y_true"`` and ``"y_pred"``, a list of tags for each row, and `GOLD` if the batch
            has it.

        Raises
        ------
        ValueError
            If a column is missing, shapes differ, or an id is not that of a tag.
        """
        labels, predictions = labels_and_predictions(model_output, input_batch)
        nb_layers = len(self.layers)
        is_layered = nb_layers > 1 or (self.layers[0] != self.tags and labels.ndim > 2)
        expected = (*labels.shape[:2], nb_layers) if is_layered else labels.shape[:2]
        if labels.ndim < 2 or labels.shape != expected:
            of = f"(rows, length, {nb_layers})" if is_layered else "(rows, length)"
            raise ValueError(f"labels have shape {labels.shape}; expected {of}")
        counts = labels != IGNORED
        prepared: dict[str, list[Any]] = {
            "y_true": self._names(labels, counts),
            "y_pred": self._names(predictions, counts),
        }
        if GOLD in input_batch:
            prepared[GOLD] = real_rows(input_batch[GOLD], input_batch)
            for gold, tags in zip(prepared[GOLD], prepared["y_true"], strict=True):
                nb_tags = len(tags[0]) if is_layered else len(tags)
                if len(gold[1]) != nb_tags:
                    msg = (
                        f"a row has {nb_tags} labels for {len(gold[1])} words; expected one "
                        "label per word"
                    )
                    raise ValueError(msg)
        return prepared

    def _names(self, ids: np.ndarray, counts: np.ndarray) -> list[Any]:
        """Return the tags of each row or, of entities that may overlap, a list for each label."""
        counted, tags = ids[counts], self.layers[0]
        if counted.size and not 0 <= counted.min() <= counted.max() < len(tags):
            msg = (
                f"found tag ids from {counted.min()} to {counted.max()}; expected 0 to "
                f"{len(tags) - 1}, the positions in {tags}"
            )
            raise ValueError(msg)
        pairs = zip(ids, counts, strict=True)
        if ids.ndim == 2:
            return [[tags[tag_id] for tag_id in row[mask].tolist()] for row, mask in pairs]
        return [
            [
                [names[tag_id] for tag_id in row[mask[:, number], number].tolist()]
                for number, names in enumerate(self.layers)
            ]
            for row, mask in pairs
        ]

    def compute(self, all_data: Mapping[str, list[Any]]) -> dict[str, float]:
        """Return the scores over all batches.

        Parameters
        ----------
        all_data : mapping of str to list
            The columns that `prepare_batch` returned for all batches, concatenated.

        Returns
        -------
        dict of str to float
            The scores that `span_scores` describes; ``accuracy`` is that of the tags.
        """
        y_true, y_pred = (
            [tags for row in all_data[name] for tags in sequences_of(row)]
            for name in ("y_true", "y_pred")
        )
        return with_accuracy(entity_scores(*self.entities(all_data)), y_true, y_pred)

    def entities(
        self, all_data: Mapping[str, list[Any]]
    ) -> tuple[list[list[Any]], list[list[Any]]]:
        """Return the annotated and the predicted entities of each document.

        Parameters
        ----------
        all_data : mapping of str to list
            The columns that `prepare_batch` returned for all batches, concatenated.

        Returns
        -------
        y_true, y_pred : list of list of tuple
            (label, start, end) in characters, ordered by the numbers of the documents if all have
            one; without the column `GOLD`, the spans of tags of each row.

        Raises
        ------
        ValueError
            If only some of the rows have an annotation.

        Examples
        --------
        >>> gold = [Gold(None, words=[(0, 2), (3, 8)], entities=[("Sign", 3, 8)])]
        >>> columns = {"y_true": [["O", "B-Sign"]], "y_pred": [["B-Sign", "O"]], GOLD: gold}
        >>> SpanMetrics(("O", "B-Sign")).entities(columns)
        ([[('Sign', 3, 8)]], [[('Sign', 0, 2)]])
        """
        if GOLD not in all_data:
            return self._of_rows(all_data)
        if len(all_data[GOLD]) != len(all_data["y_pred"]):
            msg = (
                f"found annotations for {len(all_data[GOLD])} rows and tags for "
                f"{len(all_data['y_pred'])}; expected the same number: an epoch with training "
                "metrics must be resumed with the version of medjax that started it"
            )
            raise ValueError(msg)
        y_true: list[list[Any]] = []
        y_pred: list[list[Any]] = []
        for rows in _by_document(all_data[GOLD]):
            of_rows = [sequences_of(all_data["y_pred"][row]) for row in rows]
            words = [word for row in rows for word in all_data[GOLD][row][1]]
            y_true.append([tuple(e) for row in rows for e in all_data[GOLD][row][2]])
            y_pred.append(
                [
                    (label, words[first][0], words[stop - 1][1])
                    for sequences in zip(*of_rows, strict=True)
                    for label, first, stop in tags_to_spans(
                        [tag for tags in sequences for tag in tags], self.rule
                    )
                ]
            )
        return y_true, y_pred

    def _of_rows(
        self, all_data: Mapping[str, list[Any]]
    ) -> tuple[list[list[Any]], list[list[Any]]]:
        """Return the spans of the tags of each row."""
        of_rows = [
            span_pairs(sequences_of(true), sequences_of(predicted), self.rule)
            for true, predicted in zip(all_data["y_true"], all_data["y_pred"], strict=True)
        ]
        return (
            [[span for true, _ in pairs for span in true] for pairs in of_rows],
            [[span for _, predicted in pairs for span in predicted] for pairs in of_rows],
        )

    def units(self, all_data: Mapping[str, list[Any]]) -> Units:
        """Return the documents as units to resample, for `medjax.metrics.bootstrap`.

        Parameters
        ----------
        all_data : mapping of str to list
            The columns that `prepare_batch` returned for all batches, concatenated.

        Returns
        -------
        Units
            The documents, or without the column `GOLD` the rows, in the order of `entities`. The
            scores of a label that no entity of a resample has are NaN; in macro averages it has
            its scores on the whole data.

        Raises
        ------
        ValueError
            If only some of the rows have an annotation.
        """
        y_true, y_pred = self.entities(all_data)
        of_entities = weighed_scores(y_true, y_pred)
        nb_correct_tags, nb_tags = _tag_counts(all_data)

        def weigh(weights: np.ndarray) -> dict[str, np.ndarray]:
            scores = of_entities(weights)
            scores["accuracy"] = weights @ nb_correct_tags / np.maximum(weights @ nb_tags, 1)
            return scores

        return Units([sorted(entities) for entities in y_true], weigh)


def sequences_of(row: Sequence[Any]) -> list[Sequence[str]]:
    """Return the sequences of tags of a row: itself, or its own if entities may overlap."""
    return [row] if not row or isinstance(row[0], str) else list(row)


def _tag_counts(all_data: Mapping[str, list[Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of correct tags and of all tags of each document."""
    true_rows, pred_rows = (
        [[tag for tags in sequences_of(row) for tag in tags] for row in all_data[name]]
        for name in ("y_true", "y_pred")
    )
    correct = [
        sum(true == predicted for true, predicted in zip(true_tags, pred_tags, strict=True))
        for true_tags, pred_tags in zip(true_rows, pred_rows, strict=True)
    ]
    lengths = [len(tags) for tags in true_rows]
    documents = (
        _by_document(all_data[GOLD]) if GOLD in all_data else [[row] for row in range(len(lengths))]
    )
    summed = [[sum(c[row] for row in rows) for rows in documents] for c in (correct, lengths)]
    return np.array(summed[0], np.float64), np.array(summed[1], np.float64)


def _by_document(golds: Sequence[Any]) -> list[list[int]]:
    """Return the rows of each document, in the order of its text."""
    documents: dict[Any, list[int]] = {}
    for row, (document, _, _) in enumerate(golds):
        key = ("row", row) if document is None else document
        documents.setdefault(key, []).append(row)
    if all(isinstance(document, int) for document in documents):
        # An evaluation reads short documents first; data that belong to documents are in order.
        documents = dict(sorted(documents.items()))
    # The position of a window without words does not matter: it only contributes entities.
    return [
        sorted(rows, key=lambda row: golds[row][1][0][0] if golds[row][1] else -1)
        for rows in documents.values()
    ]
