"""Metrics: compare the predictions of a model with annotations."""

from medjax.metrics._columns import IGNORED as IGNORED
from medjax.metrics.accuracy import Accuracy as Accuracy
from medjax.metrics.computer import MetricsComputer as MetricsComputer
from medjax.metrics.confusion import Confusion as Confusion
from medjax.metrics.confusion import entity_confusion as entity_confusion
from medjax.metrics.confusion import label_confusion as label_confusion
from medjax.metrics.mean import Mean as Mean
from medjax.metrics.span_metrics import GOLD as GOLD
from medjax.metrics.span_metrics import Gold as Gold
from medjax.metrics.span_metrics import SpanMetrics as SpanMetrics
from medjax.metrics.spans import entity_scores as entity_scores
from medjax.metrics.spans import span_scores as span_scores
from medjax.metrics.tables import format_confusion as format_confusion
from medjax.metrics.tables import format_scores as format_scores
from medjax.metrics.wer import character_error_rate as character_error_rate
from medjax.metrics.wer import word_error_rate as word_error_rate
