"""From torch datasets to batches: the real DataLoader, its order, padding, arrays."""

from medjax_torch.batches.arrays import to_arrays as to_arrays
from medjax_torch.batches.arrays import to_tensors as to_tensors
from medjax_torch.batches.loader import batch_indices as batch_indices
from medjax_torch.batches.loader import epoch_batches as epoch_batches
from medjax_torch.batches.loader import first_batch as first_batch
from medjax_torch.batches.loader import make_dataloader as make_dataloader
from medjax_torch.batches.padding import Padder as Padder
from medjax_torch.batches.shapes import ShapeCount as ShapeCount
