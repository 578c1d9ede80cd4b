"""What a torch component holds, where it lies, and what user code does to it."""

from medjax_torch.component_state.modules import Inventory as Inventory
from medjax_torch.component_state.modules import find as find
from medjax_torch.component_state.modules import read as read
from medjax_torch.component_state.modules import swapped as swapped
from medjax_torch.component_state.modules import write_back as write_back
from medjax_torch.component_state.tensors import as_numpy as as_numpy
from medjax_torch.component_state.tensors import to_numpy as to_numpy
from medjax_torch.component_state.tensors import to_torch as to_torch
