"""Callbacks: progress bar, tables, files, trackers and early stopping; the report of a run."""

from medjax.callbacks.base import CallbackList, StopTraining, TrainerCallback, as_callback_list
from medjax.callbacks.early_stopping import EarlyStopping
from medjax.callbacks.highlight import ErrorExample
from medjax.callbacks.printer import DefaultPrinterCallback
from medjax.callbacks.report import write_report
from medjax.callbacks.report_writer import ReportWriter
from medjax.callbacks.trackers import MLflowTracker, TrackioTracker, WandbTracker
from medjax.callbacks.writers import MetricsWriter, TensorBoardWriter

__all__ = [
    "CallbackList",
    "DefaultPrinterCallback",
    "EarlyStopping",
    "ErrorExample",
    "MLflowTracker",
    "MetricsWriter",
    "ReportWriter",
    "StopTraining",
    "TensorBoardWriter",
    "TrackioTracker",
    "TrainerCallback",
    "WandbTracker",
    "as_callback_list",
    "write_report",
]
