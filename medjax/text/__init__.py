"""Annotated text: documents, their entities, their sentences and words."""

from medjax.text.document import Document as Document
from medjax.text.document import Entity as Entity
from medjax.text.document import without_overlaps as without_overlaps
from medjax.text.sentences import ABBREVIATIONS as ABBREVIATIONS
from medjax.text.sentences import split_sentences as split_sentences
from medjax.text.words import find_words as find_words
