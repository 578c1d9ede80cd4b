"""What happens beside training: progress bar, tables, files, early stopping."""

from medjax.callbacks.base import CallbackList as CallbackList
from medjax.callbacks.base import StopTraining as StopTraining
from medjax.callbacks.base import TrainerCallback as TrainerCallback
from medjax.callbacks.base import as_callback_list as as_callback_list
from medjax.callbacks.early_stopping import EarlyStopping as EarlyStopping
from medjax.callbacks.printer import DefaultPrinterCallback as DefaultPrinterCallback
from medjax.callbacks.writers import MetricsWriter as MetricsWriter
from medjax.callbacks.writers import TensorBoardWriter as TensorBoardWriter
