"""Corpora in three parts: to train on, to choose the best epoch with, and to report on."""

from __future__ import annotations

import bisect
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from medjax.data import epoch_order
from medjax.recipes.repeats import (
    join_repeats,
    refuse_same_files,
    refuse_same_texts,
    tell_shared_texts,
    tell_similar_groups,
)

__all__ = ["SPLITS", "Parts", "find_split", "locate_parts", "parts_in", "split_parts"]

SPLITS = {
    "train": ("train", "training"),
    "devel": ("devel", "dev", "valid", "validation"),
    "test": ("test",),
}
"""How files and folders of each part may be named."""

# Shares of the items of the first list at which its parts end, by the number of lists.
_SHARES = {1: (0.8, 0.9), 2: (0.9,)}

_NB_SHOWN = 3  # number of groups that a message names

_SENTENCE = re.compile(r"(.*)#[0-9]+", re.DOTALL)


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
    of the first chooses the best epoch. Items that belong together stay in one part: the texts of a
    group, and the sentences of a note, which `medjax.text.split_sentences` names ``"note#1"``,
    ``"note#2"`` and so on. Groups and notes are drawn as a whole: as many as fit into the share of
    a part, and at least one. So are items, groups and notes with the same texts. Where two parts
    share a text nevertheless, a warning says how many they are.

    Parameters
    ----------
    given : sequence of sequence
        The lists.
    seed : int
        Determines the order in which items, groups or notes are drawn.

    Raises
    ------
    ValueError
        If there are none or more than three lists, a part is empty, or a group of texts or all
        texts of a list are in two of the lists.

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
    refuse_same_texts(given)
    parts, reason = [list(items) for items in given], ""
    if shares := _SHARES.get(len(parts)):
        units = _units_of(parts[0])
        if len(units) <= len(shares) and len(units) < len(parts[0]):
            reason = (
                f": its {len(parts[0])} items belong to {len(units)} groups, notes or different "
                f"texts, which stay together; expected at least {len(shares) + 1}"
            )
        parts[:1] = _divided(units, seed, shares)
    sizes = " / ".join(str(len(part)) for part in parts)
    for name, part in zip(Parts._fields, parts, strict=True):
        if not part:
            msg = (
                f"--data gives {sizes} items to train, to choose the best epoch and to report on; "
                f"there is none in {name}{reason}"
            )
            raise ValueError(msg)
    _refuse_shared_groups(Parts(*parts))
    tell_shared_texts(Parts(*parts)._asdict())
    tell_similar_groups(Parts(*parts)._asdict())
    return Parts(*parts)


def _refuse_shared_groups(parts: Parts) -> None:
    """Raise ValueError if a group is in two parts, which only lists that were given can cause."""
    counts: dict[str, dict[str, int]] = {}
    for name, part in parts._asdict().items():
        for item in part:
            if group := getattr(item, "group", ""):
                of_group = counts.setdefault(group, {})
                of_group[name] = of_group.get(name, 0) + 1
    shared = {group: found for group, found in counts.items() if len(found) > 1}
    if not shared:
        return
    shown = [
        f"{group!r} ({', '.join(f'{count} in {name}' for name, count in found.items())})"
        for group, found in itertools.islice(shared.items(), _NB_SHOWN)
    ]
    more = ", ..." if len(shared) > _NB_SHOWN else ""
    msg = (
        f"--group: {len(shared)} of {len(counts)} groups have texts in two parts or more: "
        f"{', '.join(shown)}{more}; expected each group in one part, as scores on texts of a "
        "patient who was trained on are too high. Move them to one part, or give all texts as one "
        "file, which is split by group"
    )
    raise ValueError(msg)


def _units_of(items: Sequence[Any]) -> list[list[Any]]:
    """Return the items that must be in the same part, in the order in which they begin."""
    units: dict[object, list[Any]] = {}
    for position, item in enumerate(items):
        sentence = _SENTENCE.fullmatch(getattr(item, "name", ""))
        if group := getattr(item, "group", ""):
            key: object = ("group", group)
        else:
            key = position if sentence is None else ("note", sentence[1])
        units.setdefault(key, []).append(item)
    return join_repeats(list(units.values()))


def _divided(units: Sequence[Sequence[Any]], seed: int, shares: Sequence[float]) -> list[list[Any]]:
    """Return the items in parts that end at these shares of them, each unit in one part."""
    drawn = [units[index] for index in epoch_order(seed, 0, len(units))]
    ends = list(itertools.accumulate(map(len, drawn)))
    cuts = [0]
    for nb_later, share in zip(range(len(shares), 0, -1), shares, strict=True):
        fitting = bisect.bisect_right(ends, int(sum(map(len, units)) * share))
        cuts.append(max(min(fitting, len(drawn) - nb_later), cuts[-1] + 1))
    bounds = itertools.pairwise([*cuts, len(drawn)])
    return [[item for unit in drawn[first:stop] for item in unit] for first, stop in bounds]


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
        If a single folder has some of the parts only, or nothing that can be read, or a file or
        folder is given twice. A corpus in BRAT is not shuffled where an entry is named devel or
        test: these notes were set apart.
    """
    refuse_same_files(paths)
    if len(paths) != 1 or not paths[0].is_dir():
        return list(paths)
    folder = paths[0]
    found = [find_split(folder, name) for name in SPLITS]
    if found[0] is None and any(file.suffix.lower() == ".ann" for file in folder.rglob("*")):
        if others := parts_in(folder):
            raise _without_train(folder, others)
        return [folder]
    for path, names in zip(found, SPLITS.values(), strict=True):
        if path is None:
            raise _not_one(folder, [], names)
    return [path for path in found if path is not None]


def parts_in(folder: Path) -> list[Path]:
    """Return the entries of a folder that are named after a part of a corpus.

    A note of a corpus in BRAT is none, though it may be called ``test.ann``.

    Parameters
    ----------
    folder : Path
        Where to look.

    Raises
    ------
    ValueError
        If there are several of a part.
    """
    found = [find_split(folder, name) for name in SPLITS]
    return [path for path in found if path is not None and path.suffix.lower() != ".ann"]


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


def _without_train(folder: Path, others: Sequence[Path]) -> ValueError:
    found = ", ".join(path.name for path in others)
    accepted = "; ".join(f"{part}: {' or '.join(names)}" for part, names in SPLITS.items())
    return ValueError(
        f"{folder} has some of the parts only ({found}) and none to train on; expected entries "
        f"named for each ({accepted}), or the folders one by one: train, devel, test"
    )


def _not_one(folder: Path, found: Sequence[Path], names: Sequence[str]) -> ValueError:
    which = f" ({', '.join(path.name for path in found)})" if found else ""
    named = " or ".join(names)
    return ValueError(
        f"{folder} has {len(found)} files or folders named {named}{which}; expected one"
    )
