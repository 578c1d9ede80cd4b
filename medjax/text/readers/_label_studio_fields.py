"""Tell which field of a task's data the results of a Label Studio export are about.

A result has as ``to_name`` the tag of the labelling configuration that shows its text. Which field
this is, the configuration says, which is not in the export. Some results have it as ``source``;
otherwise, the tag usually has the name of the field, and the annotated texts fit only there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from medjax.text.readers._brat_offsets import TextBound, locate


class Taken(NamedTuple):
    """The annotation of a task that is read.

    Attributes
    ----------
    data : mapping
        The fields of the task.
    results : sequence of any
        The results of the annotation.
    """

    data: Mapping[str, Any]
    results: Sequence[Any]


def names_of_others(taken: Sequence[Taken], text: str, file: str) -> frozenset[str]:
    """Return the ``to_name`` of results that are about other fields than that with the text.

    Parameters
    ----------
    taken : sequence of Taken
        The annotations of all tasks, which have one configuration.
    text : str
        The field that is read.
    file : str
        The file, for the message.

    Raises
    ------
    ValueError
        If there are several of which nothing tells whether they are about the text.

    Examples
    --------
    >>> result = {"type": "labels", "to_name": "heading", "value": {"start": 0, "end": 1}}
    >>> names_of_others([Taken({"text": "", "title": "Cough"}, [result])], "text", "tasks.json")
    frozenset({'heading'})
    """
    names = {name for task in taken for name in map(to_name, _spans(task)) if name is not None}
    if names <= {text}:
        return frozenset()
    fields = {name: _fields(name, taken) for name in sorted(names)}
    # Results that fit nowhere are kept if their name says so: the error names what does not fit.
    sure = {
        name
        for name, possible in fields.items()
        if possible == {text} or (name == text and (not possible or text in possible))
    }
    if sure:
        return frozenset(names - sure)
    unclear = [
        name
        for name, possible in fields.items()
        if not possible or (text in possible and name not in possible)
    ]
    if len(unclear) > 1:
        msg = (
            f"{file}: found results with {' and '.join(map(repr, unclear))} as 'to_name', expected "
            f"to tell by their names or texts which are about {text!r}; remove the results of "
            "other fields from the file"
        )
        raise ValueError(msg)
    return frozenset(names.difference(unclear))


def to_name(result: Any) -> str | None:
    """Return the ``to_name`` of a result, None if it has none.

    Examples
    --------
    >>> to_name({"to_name": "title"})
    'title'
    """
    name = result.get("to_name")
    return name if isinstance(name, str) else None


def _spans(task: Taken) -> list[Any]:
    return [r for r in task.results if isinstance(r, dict) and r.get("type") == "labels"]


def _fields(name: str, taken: Sequence[Taken]) -> set[str]:
    """Return the fields that all results with a ``to_name`` may be about."""
    by_task = [(t.data, [span for span in _spans(t) if to_name(span) == name]) for t in taken]
    sources = {str(span.get("source")) for _, spans in by_task for span in spans}
    if all(source.startswith("$") for source in sources):
        return {source.removeprefix("$") for source in sources}
    fitting = [
        {field for field, content in data.items() if _fit(spans, content)}
        for data, spans in by_task
        if spans
    ]
    return set.intersection(*fitting)


def _fit(spans: Sequence[Any], content: Any) -> bool:
    """Return whether all results have offsets in a text, at which there is what they have."""
    if not isinstance(content, str):
        return False
    lines = []
    for span in spans:
        value = span.get("value")
        value = value if isinstance(value, dict) else {}
        start, end, covered = value.get("start"), value.get("end"), value.get("text")
        if not (isinstance(start, int) and isinstance(end, int) and 0 <= start < end):
            return False
        if isinstance(covered, str):
            lines.append(TextBound("", "", [(start, end)], covered, ""))
        elif end > len(content):
            return False
    try:
        locate(lines, content)
    except ValueError:
        return False
    return True
