"""Texts that occur more than once: kept in one part, told of or refused where parts share them."""

from __future__ import annotations

import collections
import itertools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = [
    "join_repeats",
    "refuse_same_files",
    "refuse_same_texts",
    "tell_shared_texts",
    "tell_similar_groups",
]

_LOGGER = logging.getLogger("medjax")

_NB_SHOWN = 3  # number of groups that a message names


def join_repeats(units: Sequence[list[Any]]) -> list[list[Any]]:
    """Join the units with the same texts, so that a part cannot have what another was trained on.

    Units that share some of their texts only, as patients with the same short letter do, stay
    apart: joined, they could be most of a corpus.

    Parameters
    ----------
    units : sequence of list
        Items that belong together. Items without a text are never the same.

    Returns
    -------
    list of list
        The units in the order in which they begin; the same ones if no text is repeated.
    """
    joined: dict[object, list[Any]] = {}
    for position, unit in enumerate(units):
        texts = frozenset(getattr(item, "text", None) for item in unit)
        joined.setdefault(position if None in texts else texts, []).extend(unit)
    if nb_fewer := len(units) - len(joined):
        _LOGGER.warning(
            f"{nb_fewer} of {len(units)} texts, groups or notes have the same text as an earlier "
            "one; those with the same text stay in one part"
        )
    return list(joined.values())


def refuse_same_files(paths: Sequence[Path]) -> None:
    """Raise ValueError if a file or folder is given for two parts."""
    for first, second in itertools.combinations(paths, 2):
        if first.resolve() == second.resolve():
            msg = (
                f"--data: {first} and {second} are the same file or folder; expected another for "
                "each part, as scores on texts that were trained on are too high. Give it once to "
                "have it split"
            )
            raise ValueError(msg)


def refuse_same_texts(lists: Sequence[Sequence[Any]]) -> None:
    """Raise ValueError if two lists have the same texts, each as often."""
    counted = [_texts(items) for items in lists]
    for (first, texts), (second, others) in itertools.combinations(enumerate(counted, 1), 2):
        if texts and texts == others:
            msg = (
                f"--data: file or folder {second} has the same {texts.total()} texts as {first}; "
                "expected other texts in each part, as scores on texts that were trained on are "
                "too high. Give one of them to have it split"
            )
            raise ValueError(msg)


def tell_shared_texts(parts: Mapping[str, Sequence[Any]]) -> None:
    """Warn of the texts of each part that are also in a part before it.

    Parameters
    ----------
    parts : mapping of str to sequence
        The items of each part by its name, those to train on first.
    """
    counted = {name: _texts(items) for name, items in parts.items()}
    told = []
    for (earlier, texts), (later, others) in itertools.combinations(counted.items(), 2):
        if nb_shared := sum(count for text, count in others.items() if text in texts):
            told.append(f"{nb_shared} of {others.total()} {later} texts are also in {earlier}")
    if told:
        _LOGGER.warning(
            f"{', '.join(told)}; scores on texts that were trained on are too high: remove them "
            "from one of the parts"
        )


def tell_similar_groups(parts: Mapping[str, Sequence[Any]]) -> None:
    """Warn of groups in two parts that differ in leading zeros: spreadsheets remove them.

    Parameters
    ----------
    parts : mapping of str to sequence
        The items of each part by its name.
    """
    known: dict[str, dict[str, str]] = {}  # part of each spelling of a number
    for name, items in parts.items():
        for group in sorted({getattr(item, "group", "") for item in items}):
            if group.isascii() and group.isdecimal():
                known.setdefault(group.lstrip("0"), {})[group] = name
    similar = [spelt for spelt in known.values() if len({*spelt.values()}) > 1]
    if similar:
        shown = "; ".join(
            ", ".join(f"{group!r} in {name}" for group, name in spelt.items())
            for spelt in similar[:_NB_SHOWN]
        )
        _LOGGER.warning(
            f"--group: {len(similar)} groups in two parts or more differ in leading zeros only "
            f"({shown}): if they are the same patients, write them alike in all files"
        )


def _texts(items: Sequence[Any]) -> collections.Counter[str]:
    texts = (getattr(item, "text", None) for item in items)
    return collections.Counter(text for text in texts if text is not None)
