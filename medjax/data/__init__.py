"""From a dataset to batches on the device: order, preprocessing, lengths, prefetch."""

from medjax.data.dataset import Dataset as Dataset
from medjax.data.dataset import expand as expand
from medjax.data.dataset import length_of as length_of
from medjax.data.loader import Batch as Batch
from medjax.data.loader import Batches as Batches
from medjax.data.loader import DataLoader as DataLoader
from medjax.data.loader import get_dataloader as get_dataloader
from medjax.data.order import epoch_order as epoch_order
from medjax.data.order import item_rng as item_rng
from medjax.data.source import ItemError as ItemError
from medjax.data.source import WorkerError as WorkerError
