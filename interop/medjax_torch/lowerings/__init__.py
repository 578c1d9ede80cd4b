"""JAX lowerings of aten operators, by family, and the interpreter that runs them.

The input is a graph made by `make_fx` and `functionalize` with the decompositions of
`lowerings.decompositions`: functional, without views, and including the backward pass.
"""

from medjax_torch.lowerings import attention as attention
from medjax_torch.lowerings import convolution as convolution
from medjax_torch.lowerings import creation as creation
from medjax_torch.lowerings import ctc as ctc
from medjax_torch.lowerings import custom_ops as custom_ops
from medjax_torch.lowerings import decompositions as decompositions
from medjax_torch.lowerings import division as division
from medjax_torch.lowerings import embedding as embedding
from medjax_torch.lowerings import fourier as fourier
from medjax_torch.lowerings import indexing as indexing
from medjax_torch.lowerings import interpolation as interpolation
from medjax_torch.lowerings import linear_algebra as linear_algebra
from medjax_torch.lowerings import losses as losses
from medjax_torch.lowerings import normalisation as normalisation
from medjax_torch.lowerings import pointwise as pointwise
from medjax_torch.lowerings import pooling as pooling
from medjax_torch.lowerings import random_ops as random_ops
from medjax_torch.lowerings import recurrence as recurrence
from medjax_torch.lowerings import reductions as reductions
from medjax_torch.lowerings import scattering as scattering
from medjax_torch.lowerings import shapes as shapes
from medjax_torch.lowerings import sorting as sorting
from medjax_torch.lowerings import strides as strides
from medjax_torch.lowerings import symbolic as symbolic
from medjax_torch.lowerings.interpreter import LoweringError as LoweringError
from medjax_torch.lowerings.interpreter import MissingOperator as MissingOperator
from medjax_torch.lowerings.interpreter import MissingOperatorWarning as MissingOperatorWarning
from medjax_torch.lowerings.interpreter import missing_operators as missing_operators
from medjax_torch.lowerings.interpreter import run as run
