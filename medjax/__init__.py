"""Training of clinical NLP and audio models on JAX.

`train` trains a `TrainableComponent` (a record of pure functions) on any dataset; see README.md.
"""

from medjax import sharding
from medjax.batch import ROW_MASK, BatchData
from medjax.callbacks import (
    CallbackList,
    DefaultPrinterCallback,
    EarlyStopping,
    MetricsWriter,
    StopTraining,
    TensorBoardWriter,
    TrainerCallback,
)
from medjax.callbacks.plots import plot_history
from medjax.checkpoint import (
    CheckpointEntry,
    CheckpointError,
    CheckpointStore,
    CorruptCheckpointError,
    MismatchError,
    best_checkpoint,
    last_checkpoint,
)
from medjax.checkpoint.progress import Progress
from medjax.checkpoint.store import ResumePoint
from medjax.component import ExpandedData, Forward, TrainableComponent, Variables
from medjax.config import Options, TrainerConfig
from medjax.data import (
    Batch,
    Batches,
    DataLoader,
    Dataset,
    ItemError,
    WorkerError,
    epoch_order,
    get_dataloader,
    item_rng,
)
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
from medjax.loop.scores import Scores, Unpadder
from medjax.loop.self_check import SelfCheckError
from medjax.metrics import Accuracy, Mean, MetricsComputer, SpanMetrics
from medjax.runtime import Compilation, CompiledStep, OutOfMemoryError, keep_memory
from medjax.schedules import (
    Schedule,
    as_schedule,
    by_epoch,
    by_step,
    constant,
    reduce_on_plateau,
    with_warmup,
)
from medjax.sharding import make_mesh
from medjax.state import TrainState, create_state, create_state_on, make_optimizer
from medjax.step import (
    Differentiate,
    EvalStep,
    ForwardPass,
    SeparateUpdate,
    StepStats,
    TrainStep,
    make_eval_step,
    make_forward_pass,
    make_predict_step,
    make_train_step,
    make_train_steps,
    stack,
    with_update_due,
)

__all__ = [
    "ROW_MASK",
    "Accuracy",
    "Batch",
    "BatchData",
    "Batches",
    "CallbackList",
    "CheckpointEntry",
    "CheckpointError",
    "CheckpointStore",
    "Compilation",
    "CompiledStep",
    "CorruptCheckpointError",
    "DataLoader",
    "Dataset",
    "DefaultPrinterCallback",
    "Differentiate",
    "EarlyStopping",
    "EvalStep",
    "ExpandedData",
    "Forward",
    "ForwardPass",
    "Groups",
    "ItemError",
    "Mean",
    "MetricsComputer",
    "MetricsWriter",
    "MismatchError",
    "NonFiniteError",
    "Options",
    "OutOfMemoryError",
    "Progress",
    "ResumePoint",
    "RunRequest",
    "Schedule",
    "Scores",
    "SelfCheckError",
    "SeparateUpdate",
    "Span",
    "SpanMetrics",
    "StepStats",
    "StopTraining",
    "TensorBoardWriter",
    "TrainResult",
    "TrainState",
    "TrainStep",
    "TrainableComponent",
    "TrainerCallback",
    "TrainerConfig",
    "Unpadder",
    "Variables",
    "WorkerError",
    "as_schedule",
    "best_checkpoint",
    "by_epoch",
    "by_step",
    "constant",
    "create_state",
    "create_state_on",
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
    "make_mesh",
    "make_optimizer",
    "make_predict_step",
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
