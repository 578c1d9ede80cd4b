"""Notations of tags used by other files and models, such as ``"DRUG-B"`` and ``"b_drug"``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from medjax.text.tagging.schemes import OUTSIDE, RULES, SCHEMES, split_tag

__all__ = ["UNNAMED_LABEL", "TagError", "scheme_of", "standard_tags"]

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
    """
    distinct = list(dict.fromkeys(tags))
    outside = [tag for tag in distinct if tag.upper() == OUTSIDE]
    others = [tag for tag in distinct if tag.upper() != OUTSIDE]
    readings = [[notation(tag) for tag in others] for notation in _NOTATIONS]
    if outside:  # without this condition, any column of words would pass for labels
        readings.append([_label_alone(tag) for tag in others])
    best_reading = min(readings, key=lambda reading: reading.count(None))
    standard = dict.fromkeys(outside, OUTSIDE)
    for tag, standard_tag in zip(others, best_reading, strict=True):
        if standard_tag is None:
            raise TagError(tag)
        standard[tag] = standard_tag
    return standard


_LETTERS = {**{letter: letter for letter in RULES["conlleval"]}, "M": "I", "W": "S"}
_NO_LABEL = re.compile(r"LABEL_\d+|[\W\d_]+|\[.*\]|<.*>|[BIESLUMW][-_:./|].*", re.IGNORECASE)

_Notation = Callable[[str], str | None]


def _tag(letter: str, label: str) -> str | None:
    prefix = _LETTERS.get(letter.upper()) if len(letter) == 1 else None
    return f"{prefix}-{label}" if prefix and label else None


def _before(separator: str) -> _Notation:
    def read(tag: str) -> str | None:
        letter, _, label = tag.partition(separator)
        return _tag(letter, label)

    return read


def _after(separator: str) -> _Notation:
    def read(tag: str) -> str | None:
        label, _, letter = tag.rpartition(separator)
        return _tag(letter, label)

    return read


def _bare(tag: str) -> str | None:
    return _tag(tag, UNNAMED_LABEL)


def _label_alone(tag: str) -> str | None:
    return f"I-{tag}" if tag and not _NO_LABEL.fullmatch(tag) else None


# In order of preference.
_NOTATIONS: tuple[_Notation, ...] = (
    *(_before(separator) for separator in "-_:./|"),
    *(_after(separator) for separator in "-_:./|"),
    _bare,
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
