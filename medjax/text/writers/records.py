"""Formats of one file, a record for each document, so that a file can be continued."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from medjax.text.document import Document

__all__ = ["RecordFormat", "Written"]


class Written(NamedTuple):
    """How much has been written, by which records number what they hold.

    Attributes
    ----------
    documents, entities, relations : int
        Numbers of each.

    Examples
    --------
    >>> Written().after(Document("No fever"))
    Written(documents=1, entities=0, relations=0)
    """

    documents: int = 0
    entities: int = 0
    relations: int = 0

    def after(self, document: Document) -> Written:
        """Return how much it is with one more document."""
        return Written(
            self.documents + 1,
            self.entities + len(document.entities),
            self.relations + len(document.relations),
        )


class RecordFormat(NamedTuple):
    """A format whose file is a header and a record for each document.

    Attributes
    ----------
    header : str
        What the file begins with.
    record : callable
        ``record(document, written)`` returns the text for a document, with line ends, where
        `written` is what the file has so far.
    """

    header: str
    record: Callable[[Document, Written], str]
