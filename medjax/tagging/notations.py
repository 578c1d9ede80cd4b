"""Tags as files and models from elsewhere write them, ``"DRUG-B"`` or ``"b_drug"``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from medjax.tagging.schemes import OUTSIDE, RULES, SCHEMES, split_tag

UNNAMED_LABEL = "Entity"
"""Label of entities whose tags are a bare B, I or O."""


class TagError(ValueError):
    """A tag that no known notation explains.

    Attributes
    ----------
    tag : str
        The tag.
    """

    def __init__(self, tag: str) -> None:
        super().__init__(tag)
        self.tag = tag

    def __str__(self) -> str:
        return (
            f"found the tag {self.tag!r}; expected O, and a prefix (B, I, E, S, L or U) and a "
            "label, such as B-Drug, in the same notation for all tags"
        )


def standard_tags(tags: Iterable[str]) -> dict[str, str]:
    """Return the tags of a corpus or a model as medjax writes them.

    Read are a prefix before the label (``B-Drug``, ``b_drug``, ``B:Drug``), one after it
    (``Drug-B``), a bare ``B``, ``I`` and ``O``, whose label becomes `UNNAMED_LABEL`, and, where
    there is an ``O`` as well, the label alone (``Drug``), which is taken for ``I-Drug``. M
    (middle) and W (whole) stand for I and S. All tags must follow one notation.

    Parameters
    ----------
    tags : iterable of str
        The tags, each at least once.

    Returns
    -------
    dict of str to str
        Each different tag and its standard form; prefix and ``O`` are in upper case, labels as
        they were.

    Raises
    ------
    TagError
        If a tag follows no notation, or another one than the others.

    Examples
    --------
    >>> standard_tags(["O", "drug_b", "drug_i"])
    {'O': 'O', 'drug_b': 'B-drug', 'drug_i': 'I-drug'}
    >>> standard_tags(["O", "Drug"])
    {'O': 'O', 'Drug': 'I-Drug'}
    """
    different = list(dict.fromkeys(tags))
    outside = [tag for tag in different if tag.upper() == OUTSIDE]
    others = [tag for tag in different if tag.upper() != OUTSIDE]
    readings = [[notation(tag) for tag in others] for notation in _NOTATIONS]
    if outside:  # without an O, any column of words would pass for labels
        readings.append([_label_alone(tag) for tag in others])
    fewest = min(readings, key=lambda reading: reading.count(None))
    standard = dict.fromkeys(outside, OUTSIDE)
    for tag, read in zip(others, fewest, strict=True):
        if read is None:
            raise TagError(tag)
        standard[tag] = read
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


# In the order in which they are preferred.
_NOTATIONS: tuple[_Notation, ...] = (
    *(_before(separator) for separator in "-_:./|"),
    *(_after(separator) for separator in "-_:./|"),
    _bare,
)


def scheme_of(tags: Sequence[str]) -> str:
    """Return the scheme of a model's tags, told by their prefixes.

    Parameters
    ----------
    tags : sequence of str
        Standard tags.

    Raises
    ------
    ValueError
        If there is no tag but O, or the prefixes are of no scheme.

    Examples
    --------
    >>> scheme_of(["O", "B-Drug", "I-Drug"])
    'iob2'
    """
    prefixes = {split_tag(tag)[0] for tag in tags} - {OUTSIDE}
    for scheme in ("io", "iob2", "bilou", "iobes"):
        if prefixes and prefixes <= set(SCHEMES[scheme]):
            return scheme
    msg = f"the tags {list(tags)} are of no tagging scheme; expected one of {sorted(SCHEMES)}"
    raise ValueError(msg)
