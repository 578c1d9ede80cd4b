"""Read PubTator: titles and abstracts with mentions of concepts, and relations between those.

The format is described at https://www.ncbi.nlm.nih.gov/research/pubtator3/tutorial (Wei et al.
2013); it is that of the BioCreative V CDR, NCBI disease and BioRED corpora.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from medjax.text.document import Document, Entity, Relation
from medjax.text.readers._dropped import Tally
from medjax.text.readers._files import Texts, split_lines
from medjax.text.readers._foreign import refuse_other_json, refuse_other_text
from medjax.text.readers._linked import UNMENTIONED, between_mentions, concepts_of, linked_document
from medjax.text.readers._places import Mark, Places

__all__ = ["read_pubtator"]

CONCEPTS = "identifiers of concepts"

_FORMAT = "PubTator"
_HEAD = re.compile(r"([^|\t]+)\|([ta])\|(.*)")
_OFFSET = re.compile(r"[0-9]{1,12}")
_EXPECTED = (
    "ID|t|TITLE, ID|a|ABSTRACT, a mention as ID, START, END, TEXT, TYPE and maybe a CONCEPT, or a "
    "relation as ID, TYPE, CONCEPT, CONCEPT, separated by tabs"
)


def read_pubtator(
    path: str | os.PathLike[str], *, overlapping: bool = False, encoding: str = "utf-8"
) -> list[Document]:
    r"""Read articles with their entities and relations from a file in PubTator format.

    The text of a document is title, line feed, abstract, to which the offsets of the format refer.
    They count characters. If this does not give the text of all mentions of an article, but
    counting UTF-16 code units or bytes does, that is used and a warning says so.

    The relations of the format are between concepts. Every pair of a mention of the one and a
    mention of the other concept becomes a relation, as is usual in training by distant supervision
    on these corpora; a pair that two relations of one type give is one relation. A mention with
    several identifiers (``D003711|D009410``) mentions each of them.

    The identifiers themselves, relations of concepts that are not mentioned, and relations that
    lose an entity are left out; a warning to the logger ``medjax`` says how many.

    Parameters
    ----------
    path : path
        File to read.
    overlapping : bool
        Whether entities that overlap are kept. By default the longest of them is.
    encoding : str
        Encoding of the file, which may have a byte order mark.

    Returns
    -------
    list of Document
        One document per article, named after its identifier.

    Raises
    ------
    ValueError
        If a line has another form, belongs to another article, or has offsets at which there is
        another text than its own.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "notes.pubtator")
    ...     _ = file.write_text("1|t|A case of rash.\n1|a|None.\n1\t10\t14\trash\tSign\tD005076\n")
    ...     (article,) = read_pubtator(file)
    >>> article.text, article.entities
    ('A case of rash.\nNone.', (Entity(label='Sign', start=10, end=14, score=None),))

    References
    ----------
    Wei, Kao and Lu (2013), PubTator: a web-based text mining tool for assisting biocuration.
    Gu, Sun, Qian and Zhou (2017), Chemical-induced disease relation extraction via convolutional
    neural network, for the relations between mentions.
    """
    path, tally = Path(path), Tally()
    with Texts(encoding) as texts:
        text = texts.read(path)
    refuse_other_text(path, text, _FORMAT)
    refuse_other_json(path, text, _FORMAT)
    places = Places(_FORMAT, tally)
    documents = [
        article.document(str(path), places, tally, overlapping=overlapping)
        for article in _articles(path, text)
    ]
    places.warn()
    tally.warn(_FORMAT)
    return documents


class _Article:
    """The lines of an article."""

    def __init__(self, name: str, title: str) -> None:
        self.name = name
        self.title = title
        self.abstract: str | None = None
        self.marks: list[Mark] = []
        self.concepts: dict[str, list[int]] = {}  # the places of their mentions
        self.nb_identified = 0
        self.relations: list[tuple[str, str, str]] = []

    def add(self, cells: list[str], where: str) -> None:
        """Add the line of a mention or a relation."""
        is_mention = len(cells) >= 5 and all(map(_OFFSET.fullmatch, cells[1:3]))
        is_relation = len(cells) in (4, 5) and not _OFFSET.fullmatch(cells[1])
        if not all(cell.strip() for cell in cells[1:5]) or not (is_mention or is_relation):
            raise ValueError(f"{where}: found {cells!s:.200}, expected {_EXPECTED}")
        if is_relation:
            self.relations.append((cells[1], cells[2], cells[3]))
            return
        concepts = list(concepts_of(cells[5].strip())) if len(cells) > 5 else []
        for concept in concepts:
            self.concepts.setdefault(concept, []).append(len(self.marks))
        self.nb_identified += bool(concepts)
        self.marks.append(Mark(cells[4], [(int(cells[1]), int(cells[2]))], cells[3], where))

    def document(self, file: str, places: Places, tally: Tally, *, overlapping: bool) -> Document:
        """Return the article as a document."""
        text = f"{self.title}\n{self.abstract}" if self.abstract else self.title
        found = places.find(self.marks, text, file)
        entities = [
            Entity(mark.label, start, end)
            for mark, (start, end) in zip(self.marks, found, strict=True)
        ]
        tally.add(file, CONCEPTS, self.nb_identified)
        relations: dict[Relation, None] = {}
        for label, head, tail in self.relations:
            heads, tails = self.concepts.get(head, []), self.concepts.get(tail, [])
            tally.add(file, UNMENTIONED, not (heads and tails))
            relations |= dict.fromkeys(between_mentions(label, heads, tails, file, tally))
        return linked_document(
            text, entities, relations, self.name, overlapping=overlapping, file=file, tally=tally
        )


def _articles(path: Path, text: str) -> list[_Article]:
    articles: list[_Article] = []
    for number, line in enumerate(split_lines(text), start=1):
        where = f"{path}:{number}"
        head, cells = _HEAD.fullmatch(line), line.split("\t")
        if not line.strip():
            continue
        if head and head[2] == "t":
            articles.append(_Article(head[1], head[3]))
            continue
        name = head[1] if head else cells[0]
        if not articles or name != articles[-1].name:
            after = f"the article {articles[-1].name!r}" if articles else "no article"
            msg = (
                f"{where}: found {line!r:.80} after {after}, expected the title of an article "
                "(ID|t|TITLE) first and its own lines next; sort the lines by article"
            )
            raise ValueError(msg)
        if head is None:
            articles[-1].add(cells, where)
        elif articles[-1].abstract is None and not articles[-1].marks:
            articles[-1].abstract = head[3]
        else:
            msg = f"{where}: found an abstract of {name!r}, expected one, right after the title"
            raise ValueError(msg)
    if not articles:
        raise ValueError(f"{path}:1: found no article, expected {_EXPECTED}")
    return articles
