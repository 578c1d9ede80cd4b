"""Notations of tags used by other files and models, such as ``"DRUG-B"`` and ``"b_drug"``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from medjax.text.tagging.schemes import OUTSIDE, RULES, SCHEMES, split_tag

__all__ = ["UNNAMED_LABEL", "TagError", "other_reading", "scheme_of", "standard_tags"]

UNNAMED_LABEL = "Entity"
"""Label of entities whose tags consist of a prefix only, B or I."""


class TagError(ValueError):
    """Raised for a tag that is not written in any known notation.

    Attributes
    ----------
    tag : str
        The tag.

    Examples
    --------
    >>> try:
    ...     standard_tags(["O", "LABEL_1"])
    ... except TagError as error:
    ...     print(error.tag)
    LABEL_1
    """

    def __init__(self, tag: str) -> None:
        super().__init__(tag)
        self.tag = tag

    def __str__(self) -> str:
        return (
            f"found the tag {self.tag!r}; expected O, or a prefix (B, I, E, S, L or U) with a "
            "label, such as B-Drug, in the same notation for all tags"
        )


def standard_tags(tags: Iterable[str]) -> dict[str, str]:
    """Return the tags of a corpus or a model in medjax's notation, such as ``B-Drug``.

    A tag may have its prefix before the label (``B-Drug``, ``b_drug``, ``B:Drug``) or after it
    (``Drug-B``). It may also be a prefix only (``B``, ``I``), whose label becomes `UNNAMED_LABEL`,
    or, if some tag is ``O``, a label only (``Drug``), which is read as ``I-Drug``. M (middle) and
    W (whole) are read as I and S. All tags must follow one notation.

    The end of a label may look like a prefix (``Hepatitis_B``, ``S_phase``). So other notations
    than ``B-Drug`` and ``B`` count only if the letters make one scheme, and some label has both B
    and I (or M), or B, the letter of the last token and that of a single one. ``B-Drug`` and ``B``
    count if there is a B or an I, or all letters are S, or all are U. Otherwise, tags are labels.

    Parameters
    ----------
    tags : iterable of str
        The tags, each at least once.

    Returns
    -------
    dict of str to str
        Each distinct tag and its standard form. Prefixes and ``O`` are in upper case; labels are
        unchanged.

    Raises
    ------
    TagError
        If a tag follows no known notation, or not that of the other tags.

    Examples
    --------
    >>> standard_tags(["O", "drug_b", "drug_i"])
    {'O': 'O', 'drug_b': 'B-drug', 'drug_i': 'I-drug'}
    >>> standard_tags(["O", "Drug"])
    {'O': 'O', 'Drug': 'I-Drug'}
    >>> standard_tags(["O", "Hepatitis_B", "Hepatitis_E"])
    {'O': 'O', 'Hepatitis_B': 'I-Hepatitis_B', 'Hepatitis_E': 'I-Hepatitis_E'}
    """
    distinct = list(dict.fromkeys(tags))
    outside = [tag for tag in distinct if tag.upper() == OUTSIDE]
    others = [tag for tag in distinct if tag.upper() != OUTSIDE]
    readings = [[notation.read(tag) for tag in others] for notation in _NOTATIONS]
    counts = [notation.counts(read) for notation, read in zip(_NOTATIONS, readings, strict=True)]
    has_prefixes = any(counts[: len(_SEPARATORS)])
    if outside and not has_prefixes:  # without O, any column of words would pass for labels
        readings.append([_label_alone(tag) for tag in others])
        counts.append(True)
    # Of the readings of most tags, the first that counts.
    best = min(range(len(readings)), key=lambda n: (readings[n].count(None), not counts[n]))
    found = {tag: parts for tag, parts in zip(others, readings[best], strict=True) if parts}
    if len(found) < len(others) or (others and not counts[best]):
        raise TagError(next((tag for tag in others if tag not in found), others[0]))
    return {**dict.fromkeys(outside, OUTSIDE), **{tag: _written(p) for tag, p in found.items()}}


def other_reading(standard: Mapping[str, str]) -> dict[str, str]:
    """Return another standard form of the tags that is possible as well, or {} if there is none.

    Tags that were read as labels may all end or begin like a prefix, and tags whose prefixes are
    all S may be labels such as S-phase.

    Parameters
    ----------
    standard : mapping of str to str
        What `standard_tags` has returned.

    Examples
    --------
    >>> other_reading(standard_tags(["O", "Hepatitis_B"]))
    {'Hepatitis_B': 'B-Hepatitis'}
    >>> other_reading(standard_tags(["O", "Hepatitis_B", "Drug"]))
    {}
    """
    others = {tag: name for tag, name in standard.items() if name != OUTSIDE}
    if OUTSIDE not in standard.values():
        return {}
    if all(name == f"I-{tag}" for tag, name in others.items()):
        for notation in _NOTATIONS:
            found = {tag: parts for tag in others if (parts := notation.read(tag)) is not None}
            if len(found) == len(others):
                return {tag: _written(parts) for tag, parts in found.items()}
    elif all(tag[0].upper() + tag[1:] == name for tag, name in others.items()):
        is_single = {name[0] for name in others.values()} in ({"S"}, {"U"})
        return {tag: f"I-{tag}" for tag in others} if is_single else {}
    return {}


_LETTERS = {**{letter: letter for letter in RULES["conlleval"]}, "M": "I", "W": "S"}
_NO_LABEL = re.compile(r"LABEL_\d+|[\W\d_]+|\[.*\]|<.*>|[BIESLUMW][-_:./|]+", re.IGNORECASE)
_SCHEMES = ("BI", "BILU", "BIES", "BMES", "BMEW")
_SEPARATORS = "-_:./|"

_Parts = tuple[str, str]  # the letter, in upper case, and the label


class _Notation(NamedTuple):
    separator: str
    is_before: bool  # whether the letter stands before the label

    def read(self, tag: str) -> _Parts | None:
        """Return the letter and the label of a tag, or None if it is written otherwise."""
        if not self.separator:
            letter, label = tag, UNNAMED_LABEL
        elif self.is_before:
            letter, _, label = tag.partition(self.separator)
        else:
            label, _, letter = tag.rpartition(self.separator)
        letter = letter.upper()
        return (letter, label) if letter in _LETTERS and label else None

    def counts(self, reading: Sequence[_Parts | None]) -> bool:
        """Return whether the letters of the tags make a scheme, and not the ends of labels."""
        letters: dict[str, set[str]] = {}
        for letter, label in filter(None, reading):
            letters.setdefault(label, set()).add(letter)
        every = set().union(*letters.values())
        if not self.separator or (self.separator == "-" and self.is_before):
            return bool(every & {"B", "I"}) or every in ({"S"}, {"U"})
        return any(
            every <= set(scheme) and any(_makes(found, scheme) for found in letters.values())
            for scheme in _SCHEMES
        )


def _makes(letters: set[str], scheme: str) -> bool:
    """Return whether the letters of one label are enough for a scheme, and no chance."""
    first, ends = scheme[0], scheme[2:]
    return set(scheme[:2]) <= letters or (bool(ends) and {first, *ends} <= letters)


def _label_alone(tag: str) -> _Parts | None:
    return ("I", tag) if tag and not _NO_LABEL.fullmatch(tag) else None


def _written(parts: _Parts) -> str:
    letter, label = parts
    return f"{_LETTERS[letter]}-{label}"


# In order of preference.
_NOTATIONS = (
    *(_Notation(separator, is_before=True) for separator in _SEPARATORS),
    *(_Notation(separator, is_before=False) for separator in _SEPARATORS),
    _Notation("", is_before=False),
)


def scheme_of(tags: Sequence[str]) -> str:
    """Return the scheme of a model's tags, inferred from their prefixes.

    Parameters
    ----------
    tags : sequence of str
        Tags in the standard notation.

    Raises
    ------
    ValueError
        If all tags are O, or no scheme has all the prefixes.

    Examples
    --------
    >>> scheme_of(["O", "B-Drug", "I-Drug"])
    'iob2'
    """
    prefixes = {split_tag(tag)[0] for tag in tags} - {OUTSIDE}
    for scheme in ("io", "iob2", "bilou", "iobes"):
        if prefixes and prefixes <= set(SCHEMES[scheme]):
            return scheme
    msg = f"the tags {list(tags)} follow no tagging scheme; expected one of {sorted(SCHEMES)}"
    raise ValueError(msg)
