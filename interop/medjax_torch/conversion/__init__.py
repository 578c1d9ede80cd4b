"""Conversion of a torch component into a medjax one: graphs by kind of batch, batches as arrays."""

from medjax_torch.conversion.batch_adapter import BatchAdapter as BatchAdapter
from medjax_torch.conversion.component import ConvertedComponent as ConvertedComponent
from medjax_torch.conversion.cost import ConversionCost as ConversionCost
from medjax_torch.conversion.wrapped_step import WrappedStep as WrappedStep
