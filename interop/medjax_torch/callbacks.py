"""medjax's callbacks, importable under medkit's module name."""

from medjax.callbacks import DefaultPrinterCallback as DefaultPrinterCallback
from medjax.callbacks import EarlyStopping as EarlyStopping
from medjax.callbacks import MetricsWriter as MetricsWriter
from medjax.callbacks import StopTraining as StopTraining
from medjax.callbacks import TensorBoardWriter as TensorBoardWriter
from medjax.callbacks import TrainerCallback as TrainerCallback

__all__ = ["DefaultPrinterCallback", "TrainerCallback"]
