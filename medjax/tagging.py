"""Tagging schemes: labelled spans of tokens as one tag a token, and back.

A tag is ``"O"`` or a prefix and a label, ``"B-Drug"``. Four schemes are written:

- ``"iob2"``: B- on the first token of a span, I- on the others;
- ``"bilou"``: B-, I-..., L- on the last token, U- on a span of one token;
- ``"iobes"``: the same with E- for L- and S- for U-;
- ``"io"``: I- on every token; neighbouring spans of one label become one.

What a model predicts need not follow any scheme, so five rules read tags back:

- ``"iob2"`` (strict): a span is B- and the I- of the same label that follow; other I- are ignored;
- ``"bilou"`` (strict): a span is U-, or B-, any I- and L- of one label; all else is ignored;
- ``"iobes"`` (strict): the same with E- and S-;
- ``"io"``: a span is a run of I- of one label;
- ``"conlleval"`` (lenient): every tag but O is in a span; a new span starts at B-, U- and S-,
  after O, after L-, U-, E- and S-, and where the label changes.

The strict rules and the lenient one are those of seqeval 1.2.2 with ``mode="strict"`` and without;
the lenient one goes back to the script conlleval.pl of the CoNLL-2000 shared task. seqeval's
lenient mode has no notion of L- and U- and can lose a span there; here they count as E- and S-.

Files and models from elsewhere write tags in other ways, ``"DRUG-B"`` or ``"b_drug"``;
`standard_tags` turns them into these.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

OUTSIDE = "O"
"""The tag of a token that is in no span."""

UNNAMED_LABEL = "Entity"
"""Label of entities whose tags are a bare B, I or O."""

SCHEMES: dict[str, str] = {"iob2": "BI", "bilou": "BILU", "iobes": "BIES", "io": "I"}
"""Prefixes of each scheme, in the order of `tag_names`."""

RULES: dict[str, str] = {**SCHEMES, "conlleval": "BIESLU"}
"""Prefixes that each rule of `tags_to_spans` accepts."""

# Prefixes of a span of one token, and of the first, the inner and the last token of a longer one.
_PLACES = {
    "iob2": ("B", "B", "I", "I"),
    "bilou": ("U", "B", "I", "L"),
    "iobes": ("S", "B", "I", "E"),
    "io": ("I", "I", "I", "I"),
}


class TokenSpan(NamedTuple):
    """A labelled run of tokens.

    Attributes
    ----------
    label : str
        Kind of entity.
    first, stop : int
        Positions of the first token and of the one after the last.
    """

    label: str
    first: int
    stop: int


def check_scheme(scheme: str) -> None:
    """Refuse a scheme that is not in `SCHEMES`.

    Raises
    ------
    ValueError
        If `scheme` is unknown.
    """
    if scheme not in SCHEMES:
        msg = f"unknown tagging scheme {scheme!r}; expected one of {sorted(SCHEMES)}"
        raise ValueError(msg)


def check_rule(rule: str) -> None:
    """Refuse a rule that is not in `RULES`.

    Raises
    ------
    ValueError
        If `rule` is unknown.
    """
    if rule not in RULES:
        msg = f"unknown rule {rule!r} for reading tags; expected one of {sorted(RULES)}"
        raise ValueError(msg)


def tag_names(labels: Iterable[str], scheme: str) -> tuple[str, ...]:
    """Return the tags of a scheme; the position of a tag is its id.

    The order is that of ``convert_labels_to_tags`` in medkit 0.17, so the ids of models trained
    there stay good.

    Parameters
    ----------
    labels : iterable of str
        Labels of the entities, in the order that fixes the ids.
    scheme : {"iob2", "bilou", "iobes", "io"}
        Tagging scheme.

    Returns
    -------
    tuple of str
        ``"O"``, then all tags of the first label, and so on.

    Raises
    ------
    ValueError
        If the scheme is unknown, or a label is empty or comes twice.

    Examples
    --------
    >>> tag_names(["Drug", "Test"], "iob2")
    ('O', 'B-Drug', 'I-Drug', 'B-Test', 'I-Test')
    """
    check_scheme(scheme)
    labels = list(labels)
    if "" in labels or len(set(labels)) < len(labels):
        msg = f"labels are {labels}; expected different, non-empty names"
        raise ValueError(msg)
    return (OUTSIDE, *(f"{prefix}-{label}" for label in labels for prefix in SCHEMES[scheme]))


def labels_of(tags: Iterable[str]) -> list[str]:
    """Return the labels of tags, each once, in their order.

    Examples
    --------
    >>> labels_of(["O", "B-Drug", "I-Drug", "B-Test"])
    ['Drug', 'Test']
    """
    return list(dict.fromkeys(split_tag(tag)[1] for tag in tags if tag != OUTSIDE))


def split_tag(tag: str, rule: str = "conlleval") -> tuple[str, str]:
    """Return the prefix and the label of a tag, ``("O", "")`` for ``"O"``.

    Parameters
    ----------
    tag : str
        For instance ``"B-Drug"``.
    rule : {"conlleval", "iob2", "bilou", "iobes", "io"}
        Which prefixes are allowed.

    Raises
    ------
    ValueError
        If the tag has no label or a prefix that the rule does not know.

    Examples
    --------
    >>> split_tag("B-Side-effect")
    ('B', 'Side-effect')
    """
    if tag == OUTSIDE:
        return OUTSIDE, ""
    prefix, hyphen, label = tag.partition("-")
    if not (len(prefix) == 1 and prefix in RULES[rule] and hyphen and label):
        allowed = ", ".join(f"{prefix}-" for prefix in RULES[rule])
        msg = (
            f"tag {tag!r} found under the rule {rule!r}; expected O or one of {allowed} and a label"
        )
        raise ValueError(msg)
    return prefix, label


def spans_to_tags(spans: Iterable[tuple[str, int, int]], nb_tokens: int, scheme: str) -> list[str]:
    """Return one tag a token.

    Parameters
    ----------
    spans : iterable of (label, first, stop)
        Spans of tokens, in any order, that do not overlap.
    nb_tokens : int
        Number of tokens.
    scheme : {"iob2", "bilou", "iobes", "io"}
        Tagging scheme.

    Returns
    -------
    list of str
        `nb_tokens` tags.

    Raises
    ------
    ValueError
        If the scheme is unknown, or a span is empty, outside the tokens or overlaps another.

    Examples
    --------
    >>> spans_to_tags([("Drug", 1, 3)], 4, "bilou")
    ['O', 'B-Drug', 'L-Drug', 'O']
    """
    check_scheme(scheme)
    tags = [OUTSIDE] * nb_tokens
    for label, first, stop in spans:
        found = f"span {(label, first, stop)}"
        if not 0 <= first < stop <= nb_tokens or not label:
            msg = f"{found} found; expected a label and 0 <= first < stop <= {nb_tokens}"
            raise ValueError(msg)
        if any(tag != OUTSIDE for tag in tags[first:stop]):
            msg = (
                f"{found} overlaps another; keep one of them, as medjax.text.without_overlaps does"
            )
            raise ValueError(msg)
        tags[first:stop] = _span_tags(label, stop - first, scheme)
    return tags


def _span_tags(label: str, nb_tokens: int, scheme: str) -> list[str]:
    single, first, inner, last = _PLACES[scheme]
    if nb_tokens == 1:
        return [f"{single}-{label}"]
    return [f"{first}-{label}", *[f"{inner}-{label}"] * (nb_tokens - 2), f"{last}-{label}"]


def tags_to_spans(tags: Iterable[str], rule: str = "conlleval") -> list[TokenSpan]:
    """Return the spans that a sequence of tags stands for, in order.

    Parameters
    ----------
    tags : iterable of str
        One tag a token.
    rule : {"conlleval", "iob2", "bilou", "iobes", "io"}
        How to read them, see the module.

    Returns
    -------
    list of TokenSpan
        Spans that do not overlap.

    Raises
    ------
    ValueError
        If the rule is unknown or a tag is none of it.

    Examples
    --------
    >>> tags = ["I-Drug", "O", "B-Drug", "I-Drug"]
    >>> tags_to_spans(tags, "conlleval")
    [TokenSpan(label='Drug', first=0, stop=1), TokenSpan(label='Drug', first=2, stop=4)]
    >>> tags_to_spans(tags, "iob2")
    [TokenSpan(label='Drug', first=2, stop=4)]
    """
    check_rule(rule)
    parts: dict[str, tuple[str, str]] = {}  # a corpus has few different tags: parse each once
    spans: list[TokenSpan] = []
    first = -1  # start of the open span, -1 when none is open
    last_prefix, last_label = OUTSIDE, ""
    position = -1
    for position, tag in enumerate(tags):
        if tag not in parts:
            parts[tag] = split_tag(tag, rule)
        prefix, label = parts[tag]
        goes_on = first >= 0 and label == last_label and _continues(prefix, last_prefix)
        if not goes_on:
            if first >= 0 and _may_end(last_prefix, rule):
                spans.append(TokenSpan(last_label, first, position))
            first = position if _may_start(prefix, rule) else -1
        last_prefix, last_label = prefix, label
    if first >= 0 and _may_end(last_prefix, rule):
        spans.append(TokenSpan(last_label, first, position + 1))
    return spans


def _continues(prefix: str, last_prefix: str) -> bool:
    return prefix in "IEL" and last_prefix in "BI"


def _may_start(prefix: str, rule: str) -> bool:
    return prefix != OUTSIDE if rule in {"conlleval", "io"} else prefix in "BUS"


def _may_end(last_prefix: str, rule: str) -> bool:
    return last_prefix in "LUES" or rule not in {"bilou", "iobes"}


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
