"""Callbacks: progress bar, tables, files and early stopping."""

from medjax.callbacks.base import CallbackList, StopTraining, TrainerCallback, as_callback_list
from medjax.callbacks.early_stopping import EarlyStopping
from medjax.callbacks.printer import DefaultPrinterCallback
from medjax.callbacks.writers import MetricsWriter, TensorBoardWriter

__all__ = [
    "CallbackList",
    "DefaultPrinterCallback",
    "EarlyStopping",
    "MetricsWriter",
    "StopTraining",
    "TensorBoardWriter",
    "TrainerCallback",
    "as_callback_list",
]
