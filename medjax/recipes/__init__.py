"""What the examples and the command line have in common: corpora in parts, and reports."""

from medjax.recipes.corpora import SPLITS, Parts, find_split, locate_parts, parts_in, split_parts
from medjax.recipes.reports import (
    Report,
    check_test,
    evaluated,
    report_entities,
    report_relations,
    report_texts,
)
from medjax.recipes.splits import keep_split, redo_split, refuse_trained_texts, run_of

__all__ = [
    "SPLITS",
    "Parts",
    "Report",
    "check_test",
    "evaluated",
    "find_split",
    "keep_split",
    "locate_parts",
    "parts_in",
    "redo_split",
    "refuse_trained_texts",
    "report_entities",
    "report_relations",
    "report_texts",
    "run_of",
    "split_parts",
]
