"""Tagging schemes for labelled spans of tokens, rules that read tags, and other notations."""

from medjax.tagging.notations import UNNAMED_LABEL as UNNAMED_LABEL
from medjax.tagging.notations import TagError as TagError
from medjax.tagging.notations import scheme_of as scheme_of
from medjax.tagging.notations import standard_tags as standard_tags
from medjax.tagging.schemes import OUTSIDE as OUTSIDE
from medjax.tagging.schemes import RULES as RULES
from medjax.tagging.schemes import SCHEMES as SCHEMES
from medjax.tagging.schemes import TokenSpan as TokenSpan
from medjax.tagging.schemes import check_rule as check_rule
from medjax.tagging.schemes import check_scheme as check_scheme
from medjax.tagging.schemes import labels_of as labels_of
from medjax.tagging.schemes import spans_to_tags as spans_to_tags
from medjax.tagging.schemes import split_tag as split_tag
from medjax.tagging.schemes import tag_names as tag_names
from medjax.tagging.schemes import tags_to_spans as tags_to_spans
