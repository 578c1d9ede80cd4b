"""torch optimizers and schedulers, which hold the hyperparameters while JAX does the updates."""

from medjax_torch.optimizers.groups import GroupPlan as GroupPlan
from medjax_torch.optimizers.groups import plan_groups as plan_groups
from medjax_torch.optimizers.groups import read_hyperparams as read_hyperparams
from medjax_torch.optimizers.plans import plan_of as plan_of
from medjax_torch.optimizers.schedulers import build_scheduler as build_scheduler
from medjax_torch.optimizers.schedulers import end_epoch as end_epoch
from medjax_torch.optimizers.torch_state import read_moments as read_moments
from medjax_torch.optimizers.torch_state import write_moments as write_moments
from medjax_torch.optimizers.transformation import OptimizerState as OptimizerState
from medjax_torch.optimizers.transformation import find_state as find_state
from medjax_torch.optimizers.transformation import make_transformation as make_transformation
from medjax_torch.optimizers.transformation import set_hyperparams as set_hyperparams
