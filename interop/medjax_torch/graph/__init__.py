"""A torch component's forward and backward as one functional graph of aten operations."""

from medjax_torch.graph.batch_columns import columns as columns
from medjax_torch.graph.batch_columns import is_flat as is_flat
from medjax_torch.graph.batch_columns import signature as signature
from medjax_torch.graph.batch_columns import signature_of_tensors as signature_of_tensors
from medjax_torch.graph.errors import TraceError as TraceError
from medjax_torch.graph.graph import Graph as Graph
from medjax_torch.graph.graph import Results as Results
from medjax_torch.graph.graph import same as same
from medjax_torch.graph.guards import Guard as Guard
from medjax_torch.graph.outputs import OutputSpec as OutputSpec
from medjax_torch.graph.passes import Rules as Rules
from medjax_torch.graph.ranges import Bounds as Bounds
from medjax_torch.graph.ranges import bounds as bounds
from medjax_torch.graph.ranges import check_ranges as check_ranges
from medjax_torch.graph.trace import trace as trace
