"""Operators on tensors whose sizes depend on values, such as ``x[mask]``.

In torch the result has as many rows as the mask selects. In JAX it has as many as the mask can
select at most, and the graph computes how many of them count: see `counts`. Operators that are not
in this package's table are refused; the graph is then recorded on the exact shapes of a batch.
"""

from medjax_torch.lowerings.counted import ctc as ctc
from medjax_torch.lowerings.counted import drawing as drawing
from medjax_torch.lowerings.counted import looking_up as looking_up
from medjax_torch.lowerings.counted import reducing as reducing
from medjax_torch.lowerings.counted import selecting as selecting
from medjax_torch.lowerings.counted import structure as structure
from medjax_torch.lowerings.counted.counts import Counts as Counts
from medjax_torch.lowerings.counted.run import accept as accept
from medjax_torch.lowerings.counted.run import concerns as concerns
from medjax_torch.lowerings.counted.run import counted_symbols as counted_symbols
from medjax_torch.lowerings.counted.run import plain as plain
from medjax_torch.lowerings.counted.run import run_counted as run_counted
