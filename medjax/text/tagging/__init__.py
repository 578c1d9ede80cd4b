"""Tagging schemes for labelled spans of tokens, rules that read tags, and other notations."""

from medjax.text.tagging.layers import layered_tag_names, tag_layers
from medjax.text.tagging.notations import UNNAMED_LABEL, TagError, scheme_of, standard_tags
from medjax.text.tagging.schemes import (
    OUTSIDE,
    RULES,
    SCHEMES,
    TokenSpan,
    check_rule,
    check_scheme,
    labels_of,
    spans_to_tags,
    split_tag,
    tag_names,
    tags_to_spans,
)

__all__ = [
    "OUTSIDE",
    "RULES",
    "SCHEMES",
    "UNNAMED_LABEL",
    "TagError",
    "TokenSpan",
    "check_rule",
    "check_scheme",
    "labels_of",
    "layered_tag_names",
    "scheme_of",
    "spans_to_tags",
    "split_tag",
    "standard_tags",
    "tag_layers",
    "tag_names",
    "tags_to_spans",
]
