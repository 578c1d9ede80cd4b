"""Read the JSON that Label Studio exports of tasks with labelled texts and relations.

The format is described at https://labelstud.io/guide/export ("Label Studio JSON format").
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medjax.text.document import Document, Entity, Relation
from medjax.text.readers._dropped import LOST_RELATIONS, Tally
from medjax.text.readers._files import Texts
from medjax.text.readers._foreign import refuse_other_json, refuse_other_text
from medjax.text.readers._json import field, parse_json_lines
from medjax.text.readers._label_studio_fields import Taken, names_of_others, to_name
from medjax.text.readers._linked import UNNAMED_RELATION, linked_document
from medjax.text.readers._places import Mark, Places

__all__ = ["read_label_studio"]

CANCELLED = "cancelled annotations"
OTHERS = "annotations of a task other than the one taken"
UNANNOTATED = "tasks without an annotation"
EMPTY = "results without a label"
OTHER_FIELD = "which is another field than the one read"
UNNAMED = f"labels of relations without one, which are {UNNAMED_RELATION!r}"

_FORMAT = "a Label Studio export"
_DIRECTIONS = {"right": (True, False), "left": (False, True), "bi": (True, True)}


def read_label_studio(
    path: str | os.PathLike[str],
    *,
    text: str = "text",
    overlapping: bool = False,
    encoding: str = "utf-8",
) -> list[Document]:
    """Read the entities and relations of the tasks that Label Studio exports as JSON.

    Results of the types ``labels`` and ``relation`` are read. A result with several labels becomes
    an entity for each of them. A relation follows its direction, one in both directions becomes
    two, and one without labels has the label ``"related"``.

    Cancelled annotations are left out. Of several annotations of a task, the one marked as ground
    truth is taken or else the one created last, as in Label Studio's own conversions; a task
    without any is left out. A warning to the logger ``medjax`` says what was left out.

    Results about another field than `text` are left out and counted. Which these are, their
    ``source`` or ``to_name`` tells, or else the field that all results with one ``to_name`` fit.

    Offsets count characters. If this does not give the annotated text of all results of a task, but
    counting UTF-16 code units does, as browsers do, that is used and a warning says so.

    Parameters
    ----------
    path : path
        A file exported as "JSON" (not "JSON-MIN").
    text : str
        Name of the field of the tasks' data with the text.
    overlapping : bool
        Whether entities that overlap are kept. By default the longest of them is.
    encoding : str
        Encoding of the file, which may have a byte order mark.

    Returns
    -------
    list of Document
        The annotated tasks, named after their file and number.

    Raises
    ------
    ValueError
        If the file is not JSON or of another kind, a task lacks a field, an entity has another text
        than there is at its offsets, a relation refers to a result that is not there, or nothing
        tells which results are about `text`.

    Examples
    --------
    >>> import json, tempfile
    >>> value = {"start": 3, "end": 8, "text": "fever", "labels": ["Sign"]}
    >>> task = {"id": 1, "data": {"text": "No fever"}, "annotations": [
    ...     {"result": [{"id": "a", "type": "labels", "value": value}]}]}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "tasks.json")
    ...     _ = file.write_text(json.dumps([task]))
    ...     read_label_studio(file)[0].entities
    (Entity(label='Sign', start=3, end=8, score=None),)
    """
    path, tally = Path(path), Tally()
    with Texts(encoding) as texts:
        content = texts.read(path)
    refuse_other_text(path, content, _FORMAT)
    refuse_other_json(path, content, _FORMAT)
    tasks = _tasks(content, path, text, tally)
    others = names_of_others([taken for _, taken in tasks], text, str(path))
    places = Places("Label Studio", tally)
    documents = []
    for where, taken in tasks:
        written = taken.data[text]
        entities, relations = _results(
            taken.results, others, written, where, str(path), places, tally
        )
        documents.append(
            linked_document(
                written,
                entities,
                relations,
                where.removeprefix(f"{path.parent}{os.sep}"),
                overlapping=overlapping,
                file=str(path),
                tally=tally,
            )
        )
    places.warn()
    tally.warn("Label Studio")
    return documents


def _tasks(content: str, path: Path, text: str, tally: Tally) -> list[tuple[str, Taken]]:
    """Return where each annotated task is, and its annotation that is taken."""
    tasks = []
    for place, task in parse_json_lines(content, path, _FORMAT):
        if isinstance(task, dict) and "annotations" not in task:
            msg = (
                f"{place}: found a task with {list(task)!s:.120}, expected 'annotations' in it; "
                'export as "JSON", not "JSON-MIN"'
            )
            raise ValueError(msg)
        number = task.get("id") if isinstance(task, dict) else None
        where = place if number is None else f"{path}, task {number}"
        data = field(task, "data", where, dict)
        field(data, text, where, str)
        annotation = _annotation(task, where, str(path), tally)
        if annotation is not None:
            tasks.append((where, Taken(data, annotation["result"])))
    return tasks


def _annotation(task: Any, where: str, file: str, tally: Tally) -> Any:
    """Return the annotation of a task that is taken, or None; count the others."""
    annotations = field(task, "annotations", where, list)
    for annotation in annotations:
        field(annotation, "result", where, list)
    valid = [a for a in annotations if not a.get("was_cancelled") and not a.get("skipped")]
    tally.add(file, CANCELLED, len(annotations) - len(valid))
    tally.add(file, OTHERS, max(len(valid) - 1, 0))
    tally.add(file, UNANNOTATED, not valid)
    # Of those created at the same time, or at unknown times, the last in the list.
    ordered = sorted(
        valid, key=lambda a: (a.get("ground_truth") is True, str(a.get("created_at") or ""))
    )
    return ordered[-1] if ordered else None


def _results(
    results: Sequence[Any],
    others: frozenset[str],
    text: str,
    where: str,
    file: str,
    places: Places,
    tally: Tally,
) -> tuple[list[Entity], list[Relation]]:
    """Return the entities and relations of an annotation; count other results.

    Those whose ``to_name`` is among `others` are left out.
    """
    labelled: list[tuple[str, list[str]]] = []
    marks: list[Mark] = []
    links = []
    for result in results:
        kind = field(result, "type", where, str)
        if kind == "relation":
            links.append(result)
        elif kind == "labels":
            name = field(result, "id", where, str, int)
            if to_name(result) in others:
                labelled.append((str(name), []))
                tally.add(file, f"results with {to_name(result)!r} as 'to_name', {OTHER_FIELD}")
                continue
            value = field(result, "value", where, dict)
            labels = field(value, "labels", where, list, default=[])
            if not all(isinstance(label, str) for label in labels):
                raise ValueError(f"{where}: found {labels!s:.80} as labels, expected strings")
            at = f"{where}, result {name}"
            ends = (field(value, "start", at, int), field(value, "end", at, int))
            covered = field(value, "text", at, str, type(None))
            if labels:
                labelled.append((str(name), labels))
                marks.append(Mark(labels[0], [ends], covered, at))
            else:
                labelled.append((str(name), []))
                tally.add(file, EMPTY)
        else:
            tally.add(file, f"results of the type {kind}")
    entities: list[Entity] = []
    numbers: dict[str, list[int]] = {}
    found = iter(places.find(marks, text, file))
    for name, labels in labelled:
        start, end = next(found) if labels else (0, 0)
        first = len(entities)
        entities += [Entity(label, start, end) for label in labels]
        numbers.setdefault(name, []).extend(range(first, len(entities)))
    relations = [r for link in links for r in _relations(link, numbers, where, file, tally)]
    return entities, relations


def _relations(
    result: Any, numbers: dict[str, list[int]], where: str, file: str, tally: Tally
) -> list[Relation]:
    ends = []
    for name in ("from_id", "to_id"):
        number = str(field(result, name, where, str, int))
        if number not in numbers:
            msg = (
                f"{where}: found a relation of {number!r}, expected the id of one of its results "
                f"with labels, {[*numbers]!s:.120}"
            )
            raise ValueError(msg)
        ends.append(numbers[number])
    direction = field(result, "direction", where, str, default="right")
    if direction not in _DIRECTIONS:
        msg = f"{where}: found the direction {direction!r}, expected one of {[*_DIRECTIONS]}"
        raise ValueError(msg)
    labels = field(result, "labels", where, list, type(None)) or []
    tally.add(file, UNNAMED, not labels)
    forwards, backwards = _DIRECTIONS[direction]
    pairs = [(head, tail) for head in ends[0] for tail in ends[1]]
    both = [pair for pair in pairs if forwards] + [(t, h) for h, t in pairs if backwards]
    tally.add(file, LOST_RELATIONS, not both)
    return [
        Relation(str(label), head, tail)
        for label in labels or [UNNAMED_RELATION]
        for head, tail in both
    ]
