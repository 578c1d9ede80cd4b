"""Operators on tensors of which a size depends on values, such as ``x[mask]``.

torch has as many rows there as the mask selects. Here they are held at the most it can select, and
how many are counted is known within the graph: see `held`. What is not in the table of this package
is refused, and the graph is then recorded on the exact shapes of a batch.
"""

from medjax_torch.lowerings.counted import ctc as ctc
from medjax_torch.lowerings.counted import looking_up as looking_up
from medjax_torch.lowerings.counted import reducing as reducing
from medjax_torch.lowerings.counted import selecting as selecting
from medjax_torch.lowerings.counted import structure as structure
from medjax_torch.lowerings.counted.held import Counts as Counts
from medjax_torch.lowerings.counted.run import accept as accept
from medjax_torch.lowerings.counted.run import concerns as concerns
from medjax_torch.lowerings.counted.run import counted_symbols as counted_symbols
from medjax_torch.lowerings.counted.run import plain as plain
from medjax_torch.lowerings.counted.run import run_counted as run_counted
