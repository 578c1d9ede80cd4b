"""Tagging schemes: write labelled spans of tokens as one tag per token, and read them back.

A tag is ``"O"`` or a prefix and a label, such as ``"B-Drug"``. Spans are written in one of four
schemes:

- ``"iob2"``: B- on the first token of a span, I- on the others;
- ``"bilou"``: B- on the first token, I- on the inner ones, L- on the last, U- on a single one;
- ``"iobes"``: the same with E- for L- and S- for U-;
- ``"io"``: I- on every token, so adjacent spans with the same label become one.

The tags that a model predicts need not follow any scheme. They are read by one of five rules:

- ``"iob2"`` (strict): a span is B- and the I- of the same label that follow; other I- are ignored;
- ``"bilou"`` (strict): a span is U-, or B-, any I- and L- of one label; other tags are ignored;
- ``"iobes"`` (strict): the same with E- and S-;
- ``"io"``: a span is a run of I- of one label;
- ``"conlleval"`` (lenient): every tag but O is in a span; a new span starts at B-, U- and S-,
  after O, after L-, U-, E- and S-, and where the label changes.

The strict rules equal seqeval 1.2.2 with ``mode="strict"``, the lenient one equals its default,
which follows the script conlleval.pl of the CoNLL-2000 shared task. One difference: seqeval's
default does not know L- and U- and can lose spans that have them; here they count as E- and S-.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

__all__ = [
    "OUTSIDE",
    "RULES",
    "SCHEMES",
    "TokenSpan",
    "check_rule",
    "check_scheme",
    "labels_of",
    "spans_to_tags",
    "split_tag",
    "tag_names",
    "tags_to_spans",
]

OUTSIDE = "O"
"""The tag of a token that is in no span."""

SCHEMES: dict[str, str] = {"iob2": "BI", "bilou": "BILU", "iobes": "BIES", "io": "I"}
"""Prefixes of each scheme, in the order of `tag_names`."""

RULES: dict[str, str] = {**SCHEMES, "conlleval": "BIESLU"}
"""Prefixes that each rule of `tags_to_spans` accepts."""

# Prefixes of the token of a span of one, and of the first, inner and last tokens of a longer span.
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

    Examples
    --------
    >>> span = TokenSpan("Drug", first=1, stop=3)
    >>> ["take", "acetylsalicylic", "acid"][span.first : span.stop]
    ['acetylsalicylic', 'acid']
    """

    label: str
    first: int
    stop: int


def check_scheme(scheme: str) -> None:
    """Raise ValueError unless `scheme` is one of `SCHEMES`.

    Examples
    --------
    >>> check_scheme("iob2")
    """
    if scheme not in SCHEMES:
        msg = f"unknown tagging scheme {scheme!r}; expected one of {sorted(SCHEMES)}"
        raise ValueError(msg)


def check_rule(rule: str) -> None:
    """Raise ValueError unless `rule` is one of `RULES`.

    Examples
    --------
    >>> check_rule("conlleval")
    """
    if rule not in RULES:
        msg = f"unknown rule {rule!r} for reading tags; expected one of {sorted(RULES)}"
        raise ValueError(msg)


def tag_names(labels: Iterable[str], scheme: str) -> tuple[str, ...]:
    """Return the tags of a scheme; the position of a tag is its id.

    The order is that of ``convert_labels_to_tags`` in medkit 0.17, so the ids of models trained
    with medkit remain valid.

    Parameters
    ----------
    labels : iterable of str
        Labels of the entities, in the order of the ids.
    scheme : {"iob2", "bilou", "iobes", "io"}
        Tagging scheme.

    Returns
    -------
    tuple of str
        ``"O"``, then all tags of the first label, and so on.

    Raises
    ------
    ValueError
        If the scheme is unknown, or a label is empty or occurs twice.

    Examples
    --------
    >>> tag_names(["Drug", "Test"], "iob2")
    ('O', 'B-Drug', 'I-Drug', 'B-Test', 'I-Test')
    """
    check_scheme(scheme)
    labels = list(labels)
    if "" in labels or len(set(labels)) < len(labels):
        msg = f"labels are {labels}; expected distinct, non-empty names"
        raise ValueError(msg)
    return (OUTSIDE, *(f"{prefix}-{label}" for label in labels for prefix in SCHEMES[scheme]))


def labels_of(tags: Iterable[str]) -> list[str]:
    """Return the labels of tags, each once, in the order of the tags.

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
        If the tag has no label, or a prefix that the rule does not allow.

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
            f"found the tag {tag!r} under the rule {rule!r}; expected O, or one of {allowed} and "
            "a label"
        )
        raise ValueError(msg)
    return prefix, label


def spans_to_tags(spans: Iterable[tuple[str, int, int]], nb_tokens: int, scheme: str) -> list[str]:
    """Return one tag per token for labelled spans of tokens.

    Parameters
    ----------
    spans : iterable of (label, first, stop)
        Spans of tokens that do not overlap, in any order.
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
        If the scheme is unknown, or a span is empty, is outside the tokens or overlaps another.

    Examples
    --------
    >>> spans_to_tags([("Drug", 1, 3)], 4, "bilou")
    ['O', 'B-Drug', 'L-Drug', 'O']
    """
    check_scheme(scheme)
    tags = [OUTSIDE] * nb_tokens
    for label, first, stop in spans:
        span = (label, first, stop)
        if not 0 <= first < stop <= nb_tokens or not label:
            msg = f"found the span {span}; expected a label and 0 <= first < stop <= {nb_tokens}"
            raise ValueError(msg)
        if any(tag != OUTSIDE for tag in tags[first:stop]):
            msg = (
                f"the span {span} overlaps another; keep one of them, as "
                "medjax.text.without_overlaps does"
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
        One tag per token.
    rule : {"conlleval", "iob2", "bilou", "iobes", "io"}
        How to read the tags; the module `medjax.text.tagging.schemes` describes the rules.

    Returns
    -------
    list of TokenSpan
        Spans that do not overlap.

    Raises
    ------
    ValueError
        If the rule is unknown or does not allow a tag.

    Examples
    --------
    >>> tags = ["I-Drug", "O", "B-Drug", "I-Drug"]
    >>> tags_to_spans(tags, "conlleval")
    [TokenSpan(label='Drug', first=0, stop=1), TokenSpan(label='Drug', first=2, stop=4)]
    >>> tags_to_spans(tags, "iob2")
    [TokenSpan(label='Drug', first=2, stop=4)]
    """
    check_rule(rule)
    parts: dict[str, tuple[str, str]] = {}  # a corpus has few distinct tags: split each once
    spans: list[TokenSpan] = []
    first = -1  # start of the open span, -1 when none is open
    last_prefix, last_label = OUTSIDE, ""
    position = -1
    for position, tag in enumerate(tags):
        if tag not in parts:
            parts[tag] = split_tag(tag, rule)
        prefix, label = parts[tag]
        is_continued = first >= 0 and label == last_label and _continues(prefix, last_prefix)
        if not is_continued:
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
