"""Training of clinical NLP and audio models on JAX.

`train` runs a `TrainableComponent` (a record of pure functions) on any dataset; see README.md.
"""

from medjax import sharding as sharding
from medjax.batch import ROW_MASK as ROW_MASK
from medjax.batch import BatchData as BatchData
from medjax.callbacks import DefaultPrinterCallback as DefaultPrinterCallback
from medjax.callbacks import EarlyStopping as EarlyStopping
from medjax.callbacks import MetricsWriter as MetricsWriter
from medjax.callbacks import StopTraining as StopTraining
from medjax.callbacks import TensorBoardWriter as TensorBoardWriter
from medjax.callbacks import TrainerCallback as TrainerCallback
from medjax.checkpoint import CheckpointError as CheckpointError
from medjax.checkpoint import CheckpointStore as CheckpointStore
from medjax.checkpoint import CorruptCheckpointError as CorruptCheckpointError
from medjax.checkpoint import MismatchError as MismatchError
from medjax.checkpoint import best_checkpoint as best_checkpoint
from medjax.checkpoint import last_checkpoint as last_checkpoint
from medjax.compiled import OutOfMemoryError as OutOfMemoryError
from medjax.component import ExpandedData as ExpandedData
from medjax.component import TrainableComponent as TrainableComponent
from medjax.config import Options as Options
from medjax.config import TrainerConfig as TrainerConfig
from medjax.data import ItemError as ItemError
from medjax.data import WorkerError as WorkerError
from medjax.data import epoch_order as epoch_order
from medjax.data import get_dataloader as get_dataloader
from medjax.data import item_rng as item_rng
from medjax.distributed import initialize_distributed as initialize_distributed
from medjax.heap import keep_memory as keep_memory
from medjax.loop import TrainResult as TrainResult
from medjax.loop import evaluate as evaluate
from medjax.loop import evaluation_epoch as evaluation_epoch
from medjax.loop import save as save
from medjax.loop import train as train
from medjax.loop import training_epoch as training_epoch
from medjax.loop import update_learning_rate as update_learning_rate
from medjax.metrics import Accuracy as Accuracy
from medjax.metrics import Mean as Mean
from medjax.metrics import MetricsComputer as MetricsComputer
from medjax.metrics import SpanMetrics as SpanMetrics
from medjax.monitor import NonFiniteError as NonFiniteError
from medjax.plots import plot_history as plot_history
from medjax.schedules import Schedule as Schedule
from medjax.schedules import by_epoch as by_epoch
from medjax.schedules import by_step as by_step
from medjax.schedules import reduce_on_plateau as reduce_on_plateau
from medjax.schedules import with_warmup as with_warmup
from medjax.state import TrainState as TrainState
from medjax.step import Stacked as Stacked
from medjax.step import make_eval_step as make_eval_step
from medjax.step import make_forward_pass as make_forward_pass
from medjax.step import make_train_step as make_train_step
