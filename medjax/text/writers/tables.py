"""Write the entities of documents as a table."""

from __future__ import annotations

import csv
import logging
import os
from collections.abc import Iterable

from medjax.text.document import Document
from medjax.text.writers._files import checked, replacing

__all__ = ["write_csv"]

LOGGER = logging.getLogger("medjax")
_COLUMNS = ("document", "label", "start", "end", "text", "score")


def write_csv(documents: Iterable[Document], path: str | os.PathLike[str]) -> int:
    r"""Write a CSV file with a row for each entity.

    Its columns are the name of the document, or its number from 1 if it has none; label, start, end
    and text of the entity; and its score, empty if it was annotated. Documents without entities
    have no row; relations are left out, and a warning to the logger ``medjax`` says how many. The
    file is replaced once it is complete.

    Parameters
    ----------
    documents : iterable of Document
        The documents, of which one is held at a time.
    path : path
        File to write.

    Returns
    -------
    int
        Number of documents.

    Raises
    ------
    ValueError
        If an entity is empty or outside the text, a relation refers to no entity, a score is not
        between 0 and 1, or a string has half of a surrogate pair.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from medjax.text import Entity
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "entities.csv")
    ...     _ = write_csv([Document("No fever", (Entity("Sign", 3, 8, 0.9),), "note")], file)
    ...     file.read_text().splitlines()
    ['document,label,start,end,text,score', 'note,Sign,3,8,fever,0.9']
    """
    number, nb_left_out = 0, 0
    with replacing(path) as file:
        table = csv.writer(file)  # its line ends are CR LF, so that both are quoted in cells
        table.writerow(_COLUMNS)
        for number, document in checked(documents):
            nb_left_out += len(document.relations)
            for label, start, end, score in document.entities:
                cells = (document.name or number, label, start, end, document.text[start:end])
                table.writerow((*cells, "" if score is None else float(score)))
    if nb_left_out:
        LOGGER.warning("CSV: left out relations: %d (%s)", nb_left_out, path)
    return number
