"""A training run of a torch component: setup, batches, steps, evaluation and results."""

from medjax_torch.session.evaluation import evaluate as evaluate
from medjax_torch.session.ladders import fit_of as fit_of
from medjax_torch.session.ladders import lengths_of as lengths_of
from medjax_torch.session.run import TorchRun as TorchRun
from medjax_torch.session.setup import set_up as set_up
