"""From a dataset to batches on the device: order, preprocessing, lengths, prefetching."""

from medjax.data.batches import Batch, Batches
from medjax.data.dataset import Dataset, expand, length_of
from medjax.data.loader import DataLoader
from medjax.data.make import get_dataloader
from medjax.data.order import epoch_order, item_rng
from medjax.data.sampling import Sampled
from medjax.data.source import ItemError, WorkerError

__all__ = [
    "Batch",
    "Batches",
    "DataLoader",
    "Dataset",
    "ItemError",
    "Sampled",
    "WorkerError",
    "epoch_order",
    "expand",
    "get_dataloader",
    "item_rng",
    "length_of",
]
