"""Annotated text: documents, their entities, their sentences and words."""

from medjax.text.document import (
    Document,
    Entity,
    LabelledText,
    Relation,
    relation_kinds,
    without_overlaps,
)
from medjax.text.sentences import ABBREVIATIONS, split_sentences
from medjax.text.words import find_words

__all__ = [
    "ABBREVIATIONS",
    "Document",
    "Entity",
    "LabelledText",
    "Relation",
    "find_words",
    "relation_kinds",
    "split_sentences",
    "without_overlaps",
]
