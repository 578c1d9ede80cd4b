"""Pairs of entities as data for a classifier of relations: which ones, and how they are marked."""

from __future__ import annotations

import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from medjax.component import ExpandedData
from medjax.components.documents import check_document, name_of
from medjax.data.sampling import Sampled
from medjax.metrics import PairGold
from medjax.models.tokenizer import Tokenizer
from medjax.text import Entity

__all__ = [
    "MARKS",
    "Kinds",
    "Pair",
    "PairReader",
    "Stratum",
    "choose_marks",
    "expand_pairs",
    "gold_of",
    "marked_text",
]

_LONGEST_WORD = 40  # characters

MARKS = "@*#^"
"""The characters that mark a pair where the tokenizer knows them."""

_MARKS = f"{MARKS}$&~|=+<>{{}}[]%_/();:-!?"

Kinds = tuple[tuple[str, str], ...]
"""Labels of the entities that a relation may go from and to."""


class Pair(NamedTuple):
    """An ordered pair of entities of a document.

    Attributes
    ----------
    documents : Dataset
        The dataset.
    position : int
        Position of the document in the dataset.
    head, tail : int or None
        Places of the two entities in the document; None for a document without any pair.
    label : str or None
        The annotated relation of the pair, or None.
    missed : tuple of (str, int, int)
        Label, head and tail of relations that are no candidates, one pair of each document has
        them.
    """

    documents: Any
    position: int
    head: int | None
    tail: int | None
    label: str | None = None
    missed: tuple[tuple[str, int, int], ...] = ()

    def __repr__(self) -> str:
        """Leave out the documents."""
        return f"Pair(position={self.position}, head={self.head}, tail={self.tail})"


class Stratum(NamedTuple):
    """Pairs without a relation, of which one is drawn in each epoch.

    Attributes
    ----------
    pairs : sequence of Pair
        The pairs.
    position : int
        Position of the document whose weight the stratum has, where documents have weights.
    """

    pairs: Sequence[Pair]
    position: int

    def draw(self, rng: np.random.Generator) -> Pair:
        """Return one of the pairs, drawn in proportion to the weights of their documents.

        Parameters
        ----------
        rng : numpy.random.Generator
            That of the item in this epoch.
        """
        weights = _weights_of(self.pairs)
        if weights is None or np.ptp(weights) == 0:
            return self.pairs[int(rng.integers(len(self.pairs)))]
        return self.pairs[int(rng.choice(len(self.pairs), p=weights / weights.sum()))]


@dataclasses.dataclass(frozen=True)
class PairReader:
    """Finds the candidates among the pairs of entities.

    Attributes
    ----------
    labels : tuple of str
        Kinds of relations.
    kinds : Kinds
        Kinds of pairs that are candidates.
    reach : int
        Largest number of characters between the two entities.
    """

    labels: tuple[str, ...]
    kinds: Kinds
    reach: int

    def candidates(self, document: Any) -> Iterator[tuple[int, int]]:
        """Yield head and tail of the candidates of a document, in the order of its entities."""
        entities = document.entities
        for head, first in enumerate(entities):
            for tail, second in enumerate(entities):
                if head != tail and self.why_not(first, second) is None:
                    yield head, tail

    def why_not(self, head: Entity, tail: Entity) -> str | None:
        """Return why a pair is no candidate, or None."""
        if (head.label, tail.label) not in self.kinds:
            return "another kind of pair"
        between = max(head.start, tail.start) - min(head.end, tail.end)
        return "too far apart" if between > self.reach else None

    def pairs(self, documents: Any, position: int, *, training: bool) -> tuple[list[Pair], Any]:
        """Return the candidates of a document, and why other relations are none.

        Parameters
        ----------
        documents : Dataset
            Documents.
        position : int
            Position of the document.
        training : bool
            If False, a document without candidates has one pair without entities.

        Raises
        ------
        ValueError
            If the document is malformed, or in training has an unknown kind of relation.
        """
        document = documents[position]
        check_document(document)
        candidates = list(self.candidates(document))
        among = set(candidates)
        labels: dict[tuple[int, int], str] = {}
        reasons: dict[tuple[str, int, int], str] = {}
        for relation in dict.fromkeys(_relations_of(document)):
            label, head, tail = relation
            if label not in self.labels and training:
                msg = (
                    f"{name_of(document)} has the relation {label!r}; expected one of "
                    f"{list(self.labels)}"
                )
                raise ValueError(msg)
            if label not in self.labels:
                reasons[relation] = "an unknown label"
            elif (head, tail) not in among:
                entities = document.entities
                reasons[relation] = self.why_not(entities[head], entities[tail]) or "itself"
            elif (head, tail) in labels:
                reasons[relation] = "another relation of the same pair"
            else:
                labels[head, tail] = label
        found = [
            Pair(documents, position, head, tail, labels.get((head, tail)))
            for head, tail in candidates
        ]
        if not found and not training:
            found = [Pair(documents, position, None, None)]
        if found:
            found[0] = found[0]._replace(missed=tuple(reasons))
        return found, reasons


def _relations_of(document: Any) -> Iterator[tuple[str, int, int]]:
    nb_entities = len(document.entities)
    for relation in getattr(document, "relations", ()):
        label, head, tail = relation[:3]
        if not (0 <= head < nb_entities and 0 <= tail < nb_entities):
            msg = (
                f"{name_of(document)} has {label} from entity {head} to {tail}; expected places "
                f"below {nb_entities}, the number of its entities"
            )
            raise ValueError(msg)
        yield label, head, tail


def expand_pairs(
    documents: Any, reader: PairReader, *, training: bool, negatives: float | None
) -> ExpandedData:
    """Return the candidates of all documents; see `RelationClassification.expand`."""
    pairs: list[Any] = []
    why: dict[str, int] = defaultdict(int)
    nb_relations = nb_missed = 0
    for position in range(len(documents)):
        found, reasons = reader.pairs(documents, position, training=training)
        pairs += found
        nb_missed += len(reasons)
        nb_relations += len(reasons) + sum(pair.label is not None for pair in found)
        for reason in reasons.values():
            why[reason] += 1
    notes = []
    if nb_missed:
        counted = ", ".join(f"{reason}: {count}" for reason, count in sorted(why.items()))
        notes.append(
            f"{nb_missed} of {nb_relations} annotated relations ({nb_missed / nb_relations:.1%}) in"
            f" {len(documents):,} documents are no candidates ({counted}); scores count them as "
            "missed"
        )
    if training and negatives is not None:
        pairs = _with_strata(pairs, negatives)
    if not pairs:
        msg = (
            f"no two entities of {len(documents):,} documents are a candidate; expected pairs of "
            f"the kinds {list(reader.kinds)}, at most {reader.reach} characters apart"
        )
        raise ValueError(msg)
    return ExpandedData(pairs, [pair.position for pair in pairs], tuple(notes))


def _with_strata(pairs: list[Pair], negatives: float) -> list[Pair | Stratum]:
    """Return the pairs with a relation, and strata of the others: `negatives` for each of these.

    A stratum is drawn by the weight of a single document. So where documents have weights, those of
    one stratum are as similar as can be, and pairs of weight 0 are in none and count for none.
    """
    positive = [pair for pair in pairs if pair.label is not None]
    others = [pair for pair in pairs if pair.label is None]
    nb_positive, weights = len(positive), _weights_of(pairs)
    if weights is not None:
        weight_of = {pair.position: weight for pair, weight in zip(pairs, weights, strict=True)}
        nb_positive = sum(weight_of[pair.position] > 0 for pair in positive)
        others = [pair for pair in others if weight_of[pair.position] > 0]
        others.sort(key=lambda pair: weight_of[pair.position])
    count = min(len(others), round(negatives * max(nb_positive, 1)))
    edges = np.linspace(0, len(others), count + 1).astype(int)
    return [*positive, *(_stratum(others[a:b]) for a, b in itertools.pairwise(edges))]


def _stratum(pairs: list[Pair]) -> Stratum:
    weights = _weights_of(pairs)
    typical = 0 if weights is None else np.argmin(np.abs(weights - weights.mean()))
    return Stratum(pairs, pairs[typical].position)


def _weights_of(pairs: Sequence[Pair]) -> np.ndarray | None:
    """Return the weights of the documents of pairs, None if these have no weights."""
    if not pairs or not isinstance(pairs[0].documents, Sampled):
        return None
    weights: np.ndarray = pairs[0].documents.weights[[pair.position for pair in pairs]]
    return weights


def gold_of(pair: Pair) -> PairGold:
    """Return what a pair is scored against."""
    between = None if pair.head is None or pair.tail is None else (pair.head, pair.tail)
    return PairGold(pair.position, between, pair.label, pair.missed)


def choose_marks(tokenizer: Tokenizer) -> str:
    """Return four characters that a tokenizer tells apart, to mark entities with.

    Parameters
    ----------
    tokenizer : Tokenizer
        The model's tokenizer.

    Raises
    ------
    ValueError
        If it knows fewer: a pair could not be told from another one of the same sentence.
    """
    known: dict[tuple[int, ...], str] = {}
    for mark, encoding in zip(_MARKS, tokenizer.encode([f"x {m} x" for m in _MARKS]), strict=True):
        if tokenizer.unknown_token_id not in encoding.ids:
            known.setdefault(tuple(encoding.ids), mark)
    if len(known) < len(MARKS):
        msg = (
            f"the tokenizer knows only {len(known)} of the characters {_MARKS}; expected at least "
            f"{len(MARKS)}, to mark entities with: use a model with a larger vocabulary"
        )
        raise ValueError(msg)
    return "".join(list(known.values())[: len(MARKS)])


def marked_text(text: str, head: Entity, tail: Entity, context: int, marks: str = MARKS) -> str:
    """Return the text around two entities, with both and their labels marked by punctuation.

    Parameters
    ----------
    text : str
        Text of the document.
    head, tail : Entity
        The entities.
    context : int
        Number of characters that are kept on both sides; words of up to 40 characters are not cut.
        Of the text between the entities, as much is kept beside each of them.
    marks : str
        Four characters, for head, its label, tail and its label.

    References
    ----------
    Zhou and Chen, "An improved baseline for sentence-level relation extraction", 2022: typed entity
    markers made of punctuation, which need no new tokens.

    Examples
    --------
    >>> marked_text("Aspirin relieved her headache.", Entity("Drug", 0, 7),
    ...     Entity("Sign", 21, 29), context=100)
    '@ * Drug * Aspirin @ relieved her # ^ Sign ^ headache #.'
    """
    inserted: list[tuple[int, int, int, str]] = []
    for number, (entity, mark, of_label) in enumerate(((head, *marks[:2]), (tail, *marks[2:]))):
        # At the same place marks close before others open; of nested entities the outer one opens
        # first and closes last.
        length = 2 * (entity.end - entity.start) - number
        opening = f"{mark} {of_label} {entity.label} {of_label} "
        inserted.append((entity.start, 1, -length, opening))
        inserted.append((entity.end, 0, length, f" {mark}"))
    first = min(head.start, tail.start)
    last = max(head.end, tail.end)
    begin, stop = _at_spaces(text, first - context, last + context)
    between = (min(head.end, tail.end), max(head.start, tail.start))
    pieces, place = ["" if begin == 0 else "… "], begin
    for position, _, _, mark in sorted(inserted):
        pieces += [_shortened(text, place, position, between, context), mark]
        place = position
    pieces += [text[place:stop], "" if stop == len(text) else " …"]
    return "".join(pieces)


def _at_spaces(text: str, begin: int, stop: int) -> tuple[int, int]:
    """Move both ends of a range outwards to white space or the ends of the text.

    In a script without spaces there may be none for thousands of characters; then they stay.
    """
    begin, stop = max(begin, 0), min(stop, len(text))
    before, after = text[max(begin - _LONGEST_WORD, 0) : begin], text[stop : stop + _LONGEST_WORD]
    start = max((place for place, each in enumerate(before) if each.isspace()), default=-1) + 1
    if start > 0 or len(before) == begin:
        begin -= len(before) - start
    end = next((place for place, each in enumerate(after) if each.isspace()), len(after))
    if end < _LONGEST_WORD or stop + end == len(text):
        stop += end
    return begin, stop


def _shortened(text: str, start: int, stop: int, between: tuple[int, int], context: int) -> str:
    """Return a piece of text, of the one between both entities only its ends."""
    if (start, stop) != between or stop - start <= 2 * context + 3:
        return text[start:stop]
    return f"{text[start : start + context]} … {text[stop - context : stop]}"
