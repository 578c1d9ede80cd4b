"""Training of clinical NLP and audio models on JAX.

`train` trains a `TrainableComponent` (a record of pure functions) on any dataset; see README.md.
"""

from medjax import sharding
from medjax.batch import ROW_MASK, BatchData
from medjax.callbacks import (
    DefaultPrinterCallback,
    EarlyStopping,
    MetricsWriter,
    StopTraining,
    TensorBoardWriter,
    TrainerCallback,
)
from medjax.callbacks.plots import plot_history
from medjax.checkpoint import (
    CheckpointError,
    CheckpointStore,
    CorruptCheckpointError,
    MismatchError,
    best_checkpoint,
    last_checkpoint,
)
from medjax.component import ExpandedData, TrainableComponent
from medjax.config import Options, TrainerConfig
from medjax.data import ItemError, WorkerError, epoch_order, get_dataloader, item_rng
from medjax.distributed import initialize_distributed
from medjax.loop import (
    Groups,
    RunRequest,
    Span,
    TrainResult,
    evaluate,
    evaluation_epoch,
    save,
    train,
    training_epoch,
    update_learning_rate,
)
from medjax.loop.monitor import NonFiniteError
from medjax.metrics import Accuracy, Mean, MetricsComputer, SpanMetrics
from medjax.runtime import OutOfMemoryError, keep_memory
from medjax.schedules import Schedule, by_epoch, by_step, reduce_on_plateau, with_warmup
from medjax.state import TrainState
from medjax.step import (
    StepStats,
    make_eval_step,
    make_forward_pass,
    make_train_step,
    make_train_steps,
    stack,
    with_update_due,
)

__all__ = [
    "ROW_MASK",
    "Accuracy",
    "BatchData",
    "CheckpointError",
    "CheckpointStore",
    "CorruptCheckpointError",
    "DefaultPrinterCallback",
    "EarlyStopping",
    "ExpandedData",
    "Groups",
    "ItemError",
    "Mean",
    "MetricsComputer",
    "MetricsWriter",
    "MismatchError",
    "NonFiniteError",
    "Options",
    "OutOfMemoryError",
    "RunRequest",
    "Schedule",
    "Span",
    "SpanMetrics",
    "StepStats",
    "StopTraining",
    "TensorBoardWriter",
    "TrainResult",
    "TrainState",
    "TrainableComponent",
    "TrainerCallback",
    "TrainerConfig",
    "WorkerError",
    "best_checkpoint",
    "by_epoch",
    "by_step",
    "epoch_order",
    "evaluate",
    "evaluation_epoch",
    "get_dataloader",
    "initialize_distributed",
    "item_rng",
    "keep_memory",
    "last_checkpoint",
    "make_eval_step",
    "make_forward_pass",
    "make_train_step",
    "make_train_steps",
    "plot_history",
    "reduce_on_plateau",
    "save",
    "sharding",
    "stack",
    "train",
    "training_epoch",
    "update_learning_rate",
    "with_update_due",
    "with_warmup",
]
