"""Corpora in three parts: to train on, to choose the best epoch with, and to report on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from medjax.data import epoch_order

__all__ = ["SPLITS", "Parts", "find_split", "locate_parts", "split_parts"]

SPLITS = {"train": ("train",), "devel": ("devel", "dev", "valid", "validation"), "test": ("test",)}
"""How files and folders of each part may be named."""


class Parts(NamedTuple):
    """Items to train on, to choose the best epoch with, and to report on.

    Attributes
    ----------
    train, devel, test : list
        Documents or labelled texts.
    """

    train: list[Any]
    devel: list[Any]
    test: list[Any]


def split_parts(given: Sequence[Sequence[Any]], seed: int) -> Parts:
    """Return train, devel and test from one, two or three lists of items.

    One list is shuffled and split 80 / 10 / 10. Of two, the second is for the report, and a tenth
    of the first chooses the best epoch.

    Parameters
    ----------
    given : sequence of sequence
        The lists.
    seed : int
        Determines the order in which items are drawn.

    Raises
    ------
    ValueError
        If there are none or more than three lists, or a part is empty.

    Examples
    --------
    >>> [len(part) for part in split_parts([range(20)], seed=0)]
    [16, 2, 2]
    >>> [len(part) for part in split_parts([range(20), range(7)], seed=0)]
    [18, 2, 7]
    """
    if not 1 <= len(given) <= 3:
        msg = f"--data got {len(given)} files or folders; expected 1, 2 or 3: train, devel, test"
        raise ValueError(msg)
    parts = [list(items) for items in given]
    if len(parts) < 3:
        shuffled = [parts[0][index] for index in epoch_order(seed, 0, len(parts[0]))]
        first, second = int(len(shuffled) * 0.8), int(len(shuffled) * 0.9)
        if len(parts) == 1:
            parts = [shuffled[:first], shuffled[first:second], shuffled[second:]]
        else:
            parts = [shuffled[:second], shuffled[second:], parts[1]]
    sizes = " / ".join(str(len(part)) for part in parts)
    for name, part in zip(Parts._fields, parts, strict=True):
        if not part:
            msg = (
                f"--data gives {sizes} items to train, to choose the best epoch and to report on; "
                f"there is none in {name}"
            )
            raise ValueError(msg)
    return Parts(*parts)


def locate_parts(paths: Sequence[Path]) -> list[Path]:
    """Return the files or folders of a corpus, for train, devel and test as far as they are apart.

    Parameters
    ----------
    paths : sequence of Path
        One to three files or folders. A single folder has entries for all three parts, see
        `find_split`, or is a corpus in BRAT without any.

    Raises
    ------
    ValueError
        If a single folder has some of the parts only, or nothing that can be read.
    """
    if len(paths) != 1 or not paths[0].is_dir():
        return list(paths)
    folder = paths[0]
    found = [find_split(folder, name) for name in SPLITS]
    if found[0] is None and any(file.suffix.lower() == ".ann" for file in folder.rglob("*")):
        return [folder]
    for path, names in zip(found, SPLITS.values(), strict=True):
        if path is None:
            raise _not_one(folder, [], names)
    return [path for path in found if path is not None]


def find_split(folder: Path, name: str) -> Path | None:
    """Return the file or folder of a part: ``dev.tsv``, ``corpus.dev`` or a folder ``dev``.

    Parameters
    ----------
    folder : Path
        Where to look.
    name : str
        One of `SPLITS`, or the name itself.

    Returns
    -------
    Path or None
        None if there is none.

    Raises
    ------
    ValueError
        If there are several.
    """
    names = SPLITS.get(name, (name,))
    entries = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    texts = {path.with_suffix(".txt") for path in entries if path.suffix.lower() == ".ann"}
    found = [
        path
        for path in entries
        if {path.stem.lower(), path.suffix[1:].lower()} & set(names) and path not in texts
    ]
    if len(found) > 1:
        raise _not_one(folder, found, names)
    return found[0] if found else None


def _not_one(folder: Path, found: Sequence[Path], names: Sequence[str]) -> ValueError:
    which = f" ({', '.join(path.name for path in found)})" if found else ""
    named = " or ".join(names)
    return ValueError(
        f"{folder} has {len(found)} files or folders named {named}{which}; expected one"
    )
