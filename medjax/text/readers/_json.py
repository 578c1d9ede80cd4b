"""Parse JSON and JSON lines, and take fields of a known kind from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from medjax.text.readers._files import split_lines

_NAMES = {
    str: "a string",
    int: "an integer",
    list: "a list",
    dict: "an object",
    type(None): "null",
}


def parse_json(text: str, path: Path, expected: str, line: int = 1) -> Any:
    """Return the value of a JSON text.

    Parameters
    ----------
    text : str
        The text.
    path : Path
        The file, for the message.
    expected : str
        The expected format, for the message.
    line : int
        Number of the line in the file at which the text starts.

    Raises
    ------
    ValueError
        If the text is not JSON, or too deeply nested.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        msg = (
            f"{path}:{line + error.lineno - 1}: found invalid JSON ({error.msg}, column "
            f"{error.colno}), expected {expected}"
        )
        raise ValueError(msg) from error
    except (ValueError, RecursionError) as error:  # numbers too long, brackets nested too deeply
        msg = f"{path}:{line}: found unreadable JSON ({error}), expected {expected}"
        raise ValueError(msg) from error


def parse_json_lines(text: str, path: Path, expected: str) -> list[tuple[str, Any]]:
    """Return the value of each line of JSON lines, or of a JSON list, and where it is.

    The place is the file with the number of the line or, in a list, that of the entry.

    Raises
    ------
    ValueError
        If there is no value, or a line is not JSON.
    """
    lines = [(number, line) for number, line in enumerate(split_lines(text), 1) if line.strip()]
    if not lines:
        raise ValueError(f"{path}:1: found no text, expected {expected}")
    if lines[0][1].lstrip().startswith("["):
        records = parse_json(text, path, expected)
        return [(f"{path}, entry {number}", record) for number, record in enumerate(records, 1)]
    if lines[0][1].strip() == "{":  # an indented object
        return [(f"{path}:1", parse_json(text, path, expected))]
    return [
        (f"{path}:{number}", parse_json(line, path, expected, number)) for number, line in lines
    ]


def field(record: Any, name: str, where: str, *kinds: type, default: Any = None) -> Any:
    """Return a field of a JSON object.

    Parameters
    ----------
    record : any
        The object.
    name : str
        Name of the field.
    where : str
        Where the object is, for the message.
    *kinds : type
        What the field may be: str, int (no boolean), list, dict, ``type(None)``.
    default : any
        The value if there is no such field.

    Raises
    ------
    ValueError
        If `record` is not an object, or the field is of another kind.

    Examples
    --------
    >>> field({"start": 3}, "start", "notes.json", int)
    3
    """
    expected = " or ".join(_NAMES[kind] for kind in kinds)
    if not isinstance(record, dict):
        msg = f"{where}: found {record!r:.60}, expected an object with {expected} as {name!r}"
        raise ValueError(msg)
    value = record.get(name, default)
    if not isinstance(value, kinds) or isinstance(value, bool):
        found = f"{value!r:.60}" if name in record else f"nothing among {list(record)!s:.120}"
        raise ValueError(f"{where}: found {found} as {name!r}, expected {expected}")
    return value
