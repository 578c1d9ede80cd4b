"""Observation of user code: what forward reads, and what is read or written between steps."""

from medjax_torch.component_state.watch.outside import Outside as Outside
from medjax_torch.component_state.watch.outside import outer_places as outer_places
from medjax_torch.component_state.watch.places import Place as Place
from medjax_torch.component_state.watch.places import Places as Places
from medjax_torch.component_state.watch.reads import AttributeReads as AttributeReads
from medjax_torch.component_state.watch.tensors import TensorWatch as TensorWatch
