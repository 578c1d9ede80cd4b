"""Read entities from named columns: Parquet, JSON lines and Hugging Face's datasets."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from medjax.text.document import Document, Entity
from medjax.text.readers._dropped import Tally
from medjax.text.readers._json import field
from medjax.text.readers._linked import linked_document
from medjax.text.readers._places import check_range
from medjax.text.readers._rows import Table, named, open_table
from medjax.text.readers._tags import warn_of_tags
from medjax.text.readers.conll import sentence_of
from medjax.text.tagging import TagError, standard_tags

__all__ = ["has_sentences", "read_dataset"]

EMPTY = "rows without tokens"
RELATIONS = "relations, which read_dataset does not read"
_ENTITIES = "entities"


def read_dataset(
    source: Any,
    *,
    split: str | None = None,
    tokens: str = "tokens",
    tags: str = "ner_tags",
    tag_names: Sequence[str] | None = None,
    joiner: str = " ",
    text: str = "text",
    entities: str | None = None,
    overlapping: bool = False,
    encoding: str = "utf-8",
) -> list[Document]:
    """Read documents from a table with named columns.

    By default each row is a sentence with a column of tokens and one of tags, as in Hugging Face's
    datasets for named entities. Tags are names, or whole numbers whose names ``datasets`` stores
    with them; they are read as `read_conll` does.

    With `entities`, or where there is no column of tokens but the columns ``text`` and
    ``entities``, each row has a text and its entities: a list of objects with ``start``, ``end``
    and ``label``, a list of ``[start, end, label]``, or an object with a list for each of the
    three. Offsets count characters; where there is a ``text`` next to them, it is compared.

    Parameters
    ----------
    source : path, datasets.Dataset or datasets.DatasetDict
        A ``.parquet`` file (needs pyarrow), JSON lines, a folder that ``save_to_disk`` has written
        (needs datasets), or a dataset itself.
    split : str, optional
        Name of the split to read, where there are several.
    tokens, tags : str
        Names of the columns of tokens and tags.
    tag_names : sequence of str, optional
        The names of tags that are numbers, where the data lack them or for others.
    joiner : str
        Inserted between the tokens to form the text of a document.
    text, entities : str
        Names of the columns of texts and entities, the latter by default ``entities`` in a table
        without tokens.
    overlapping : bool
        Whether entities that overlap are kept. By default the longest of them is, and a warning to
        the logger ``medjax`` says how many were left out. Tags cannot overlap.
    encoding : str
        Encoding of JSON lines, which may have a byte order mark.

    Returns
    -------
    list of Document
        One document per row, named after it.

    Raises
    ------
    ValueError
        If the source is something else, empty or damaged, a column is missing, or a cell is of
        another kind.
    ImportError
        If the source needs a package that is not installed.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "notes.jsonl")
    ...     _ = file.write_text('{"tokens": ["No", "fever"], "ner_tags": [0, 1]}')
    ...     read_dataset(file, tag_names=["O", "B-Sign"])[0].entities
    (Entity(label='Sign', start=3, end=8, score=None),)
    """
    table, tally = open_table(source, split, encoding), Tally()
    first, table = _peeked(table)
    if entities is None and _has_entities(first, tokens, text):
        entities = _ENTITIES
    if entities is None:
        names = tag_names or table.class_names(tags)
        documents = list(_sentences(table, tokens, tags, names, joiner, tally))
    else:
        documents = list(_annotated(table, text, entities, tally, overlapping=overlapping))
    if not documents:
        raise ValueError(f"{table.name}: found no rows, expected documents")
    tally.warn(table.name)
    return documents


def has_sentences(source: Any, *, split: str | None = None, encoding: str = "utf-8") -> bool:
    """Return whether `read_dataset` takes the rows of a source for sentences of tokens.

    Parameters
    ----------
    source, split, encoding
        As for `read_dataset`.
    """
    first, _ = _peeked(open_table(source, split, encoding))
    return not _has_entities(first, "tokens", "text")


def _peeked(table: Table) -> tuple[Mapping[str, Any], Table]:
    """Return the first row, empty if there is none, and the table with all its rows."""
    rows = iter(table.rows)
    first = list(itertools.islice(rows, 1))
    whole = table._replace(rows=itertools.chain(first, rows))
    return (first[0][1] if first else {}), whole


def _has_entities(row: Mapping[str, Any], tokens: str, text: str) -> bool:
    return tokens not in row and text in row and _ENTITIES in row


def _sentences(
    table: Table,
    tokens: str,
    tags: str,
    names: Sequence[str] | None,
    joiner: str,
    tally: Tally,
) -> Iterator[Document]:
    rows = []
    for where, row in table.rows:
        words, numbers = _cell(row, tokens, where), _cell(row, tags, where)
        if len(words) != len(numbers):
            msg = (
                f"{where}: found {len(words)} {tokens!r} and {len(numbers)} {tags!r}, expected a "
                "tag for each token"
            )
            raise ValueError(msg)
        for word in words:
            if not isinstance(word, str) or not word:
                raise ValueError(f"{where}: found the token {word!r:.60}, expected some text")
        tally.add(table.name, EMPTY, not words)
        if words:
            rows.append((where, words, [named(tag, names, where, tags) for tag in numbers]))
    first = {tag: where for where, _, labels in reversed(rows) for tag in labels}
    try:
        standard = standard_tags([tag for _, _, labels in rows for tag in labels])
    except TagError as error:
        msg = (
            f"{first[error.tag]}: found {error.tag!r:.80} in {tags!r}, expected O, or a prefix and "
            "a label such as B-Drug, in the same notation for all tags; pass the column as tags"
        )
        raise ValueError(msg) from error
    warn_of_tags(table.name, standard)
    for where, words, labels in rows:
        yield sentence_of(words, [standard[tag] for tag in labels], joiner, _name(where))


def _annotated(
    table: Table, text: str, entities: str, tally: Tally, *, overlapping: bool
) -> Iterator[Document]:
    for where, row in table.rows:
        written = _cell(row, text, where, str)
        _refuse_unaccepted(row, where)
        if isinstance(row.get("relations"), list):
            tally.add(table.name, RELATIONS, len(row["relations"]))
        found = [
            _entity(item, written, where) for item in _items(_cell(row, entities, where, None))
        ]
        yield linked_document(
            written,
            found,
            (),
            _name(where),
            overlapping=overlapping,
            file=table.name,
            tally=tally,
        )


def _refuse_unaccepted(row: Mapping[str, Any], where: str) -> None:
    """Raise ValueError for a row of Prodigy that an annotator has not accepted."""
    if (answer := row.get("answer")) in ("reject", "ignore"):
        msg = (
            f"{where}: the answer is {answer!r}; expected rows that were accepted: leave out the "
            "others, which have what was suggested, not what is right"
        )
        raise ValueError(msg)


def _cell(row: Mapping[str, Any], name: str, where: str, kind: type | None = list) -> Any:
    if name not in row:
        msg = (
            f"{where}: found the columns {[*row]!s:.120}, expected {name!r} among them; pass the "
            "name of the column"
        )
        raise ValueError(msg)
    return row[name] if kind is None else field(dict(row), name, where, kind)


def _items(cell: Any) -> list[Any]:
    """Return the entities in a cell, of which ``datasets`` may have made an object of lists."""
    if isinstance(cell, dict) and all(isinstance(values, list) for values in cell.values()):
        if len({len(values) for values in cell.values()}) > 1:
            return [cell]  # which is refused
        return [dict(zip(cell, values, strict=True)) for values in zip(*cell.values(), strict=True)]
    return cell if isinstance(cell, list) else [cell]


def _entity(item: Any, text: str, where: str) -> Entity:
    record = item
    if isinstance(item, list | tuple) and len(item) == 3:
        record = dict(zip(("start", "end", "label"), item, strict=True))
    start, end = field(record, "start", where, int), field(record, "end", where, int)
    label = field(record, "label", where, str)
    check_range(start, end, len(text), where)
    covered = record.get("text")
    if covered is not None and covered != text[start:end]:
        msg = (
            f"{where}: found the text {covered!r:.60}, expected {text[start:end]!r:.60}, at its "
            f"offsets {start} {end}; they should count characters"
        )
        raise ValueError(msg)
    return Entity(label, start, end)


def _name(where: str) -> str:
    return where.rpartition(os.sep)[2]
