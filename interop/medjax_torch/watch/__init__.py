"""Observation of user code: what forward reads, and what is read or written between steps."""

from medjax_torch.watch.columns import ColumnReads as ColumnReads
from medjax_torch.watch.places import Place as Place
from medjax_torch.watch.places import Places as Places
from medjax_torch.watch.reads import AttributeReads as AttributeReads
from medjax_torch.watch.reads import outer_places as outer_places
from medjax_torch.watch.tensors import TensorWatch as TensorWatch
