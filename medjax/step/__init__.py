"""The steps of training, evaluation and prediction; compiled nowhere else."""

from medjax.step.due import UPDATE_DUE as UPDATE_DUE
from medjax.step.due import with_update_due as with_update_due
from medjax.step.evaluation import make_collecting_eval_step as make_collecting_eval_step
from medjax.step.evaluation import make_eval_step as make_eval_step
from medjax.step.evaluation import make_predict_step as make_predict_step
from medjax.step.forward import ForwardPass as ForwardPass
from medjax.step.forward import make_forward_pass as make_forward_pass
from medjax.step.forward import weighed as weighed
from medjax.step.protocols import CollectingEvalStep as CollectingEvalStep
from medjax.step.protocols import EvalStep as EvalStep
from medjax.step.protocols import TrainStep as TrainStep
from medjax.step.separate import SeparateUpdate as SeparateUpdate
from medjax.step.stacked import stack as stack
from medjax.step.training import Differentiate as Differentiate
from medjax.step.training import make_train_step as make_train_step
from medjax.step.training import make_train_steps as make_train_steps
from medjax.step.update import StepStats as StepStats
