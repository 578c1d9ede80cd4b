"""Metrics: compare the predictions of a model with annotations."""

from medjax.metrics._columns import DOCUMENT, IGNORED
from medjax.metrics.accuracy import Accuracy
from medjax.metrics.bootstrap import Difference, Interval, bootstrap, paired_bootstrap
from medjax.metrics.classification import ClassificationMetrics
from medjax.metrics.computer import MetricsComputer
from medjax.metrics.confusion import Confusion, entity_confusion, label_confusion
from medjax.metrics.diarization import (
    DiarizationErrors,
    diarization_error_rate,
    diarization_errors,
)
from medjax.metrics.mean import Mean
from medjax.metrics.relation_metrics import PAIR, PairGold, RelationMetrics
from medjax.metrics.span_metrics import GOLD, Gold, SpanMetrics
from medjax.metrics.spans import entity_scores, span_scores
from medjax.metrics.tables import confusion_rows, format_confusion, format_scores, score_rows
from medjax.metrics.thresholds import choose_thresholds
from medjax.metrics.transcription import TranscriptionMetrics
from medjax.metrics.units import UnitMetrics, Units
from medjax.metrics.wer import character_error_rate, word_error_rate

__all__ = [
    "DOCUMENT",
    "GOLD",
    "IGNORED",
    "PAIR",
    "Accuracy",
    "ClassificationMetrics",
    "Confusion",
    "DiarizationErrors",
    "Difference",
    "Gold",
    "Interval",
    "Mean",
    "MetricsComputer",
    "PairGold",
    "RelationMetrics",
    "SpanMetrics",
    "TranscriptionMetrics",
    "UnitMetrics",
    "Units",
    "bootstrap",
    "character_error_rate",
    "choose_thresholds",
    "confusion_rows",
    "diarization_error_rate",
    "diarization_errors",
    "entity_confusion",
    "entity_scores",
    "format_confusion",
    "format_scores",
    "label_confusion",
    "paired_bootstrap",
    "score_rows",
    "span_scores",
    "word_error_rate",
]
