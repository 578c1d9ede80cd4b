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
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

OUTSIDE = "O"
"""The tag of a token that is in no span."""

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
