"""Batches of torch tensors: loading in a known order, padding to few shapes, conversion."""

from medjax_torch.batches.arrays import to_arrays as to_arrays
from medjax_torch.batches.arrays import to_tensors as to_tensors
from medjax_torch.batches.fitted import Fit as Fit
from medjax_torch.batches.fitted import ladder_of_loader as ladder_of_loader
from medjax_torch.batches.fitted import lengths_of_loader as lengths_of_loader
from medjax_torch.batches.generators import generators_of as generators_of
from medjax_torch.batches.generators import restore as restore
from medjax_torch.batches.generators import states_of as states_of
from medjax_torch.batches.loader import make_dataloader as make_dataloader
from medjax_torch.batches.mapping import rebuilt as rebuilt
from medjax_torch.batches.order import medkit_order as medkit_order
from medjax_torch.batches.padding import padding_rules as padding_rules
from medjax_torch.batches.reading import batch_indices as batch_indices
from medjax_torch.batches.reading import check_draws as check_draws
from medjax_torch.batches.reading import check_length as check_length
from medjax_torch.batches.reading import close_workers as close_workers
from medjax_torch.batches.reading import data_of as data_of
from medjax_torch.batches.reading import epoch_batches as epoch_batches
from medjax_torch.batches.reading import expect_draws as expect_draws
from medjax_torch.batches.reading import first_batch as first_batch
from medjax_torch.batches.reading import first_of_shapes as first_of_shapes
from medjax_torch.batches.reading import reseed as reseed
from medjax_torch.batches.shapes import ShapeCount as ShapeCount
