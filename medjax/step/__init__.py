"""The steps of training, evaluation and prediction; compiled nowhere else."""

from medjax.step.evaluation import make_eval_step as make_eval_step
from medjax.step.evaluation import make_predict_step as make_predict_step
from medjax.step.forward import make_forward_pass as make_forward_pass
from medjax.step.forward import weighed as weighed
from medjax.step.stacked import Stacked as Stacked
from medjax.step.stacked import stacked as stacked
from medjax.step.training import Differentiate as Differentiate
from medjax.step.training import make_train_step as make_train_step
from medjax.step.update import StepStats as StepStats
