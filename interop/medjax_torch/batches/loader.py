"""The torch DataLoader of a dataset and a component."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

from medjax.data.order import epoch_order
from medjax.data.source import Examples, isolate_worker
from medjax_torch.batches.items import (
    ItemDataset,
    Position,
    StreamDataset,
    Work,
    WorkerCollate,
)
from medjax_torch.batches.order import EpochSampler, GroupedSampler, Lengths, Order, medkit_order
from medjax_torch.batches.padding import padding_rules


def make_dataloader(
    data: Any,
    component: Any,
    *,
    batch_size: int,
    shuffle: bool,
    seed: int,
    nb_workers: int = 0,
    drop_last: bool = False,
    pin_memory: bool = False,
    order: Literal["uniform", "medkit"] = "uniform",
    length_window: int = 0,
    padding: Mapping[str, float | None] | None = None,
    cache_preprocessed: bool = False,
    worker_timeout: float = 300.0,
) -> DataLoader[Any]:
    """Return the DataLoader of a dataset: items preprocessed lazily, batches from `collate`.

    It draws nothing from torch's global generator. `epoch_batches` reads it at any epoch.

    Parameters
    ----------
    data : map-style dataset or torch.utils.data.IterableDataset
        A list, a torch or Hugging Face dataset, anything with ``__len__`` and ``__getitem__``. A
        stream needs a ``__len__`` too; it keeps its own order.
    component : TrainableComponent
        Its `preprocess` and `collate` are used.
    batch_size : int
        Rows of a batch.
    shuffle : bool
        Whether the order changes with the epoch.
    seed : int
        Seed of the order.
    nb_workers : int
        Spawned processes that preprocess and collate; they stay until `close_workers`.
    drop_last : bool
        Whether a last batch with fewer rows is left out.
    pin_memory : bool
        As for torch's DataLoader.
    order : {"uniform", "medkit"}
        How items are shuffled: as by medjax, or as by medkit's trainer (see `medkit_order`).
    length_window : int
        Batches grouped by length together; 0 for none. Lengths are measured in this process.
    padding : mapping of str to float or None, optional
        Ragged columns besides the Hugging Face ones, for measuring.
    cache_preprocessed : bool
        Whether examples are kept in memory; needs ``nb_workers=0``.
    worker_timeout : float
        Seconds to wait for a batch of the workers, their start included.

    Raises
    ------
    ValueError
        If the data has no length or no items, cannot be sent to workers, or options disagree.
    """
    _check(nb_workers, order, length_window, cache_preprocessed)
    position = Position(seed)
    work = Work(Examples(data, component.preprocess, seed), component.collate)
    common: dict[str, Any] = {
        "batch_size": batch_size,
        "drop_last": drop_last,
        "pin_memory": pin_memory,
        "collate_fn": component.collate,
        # A generator of its own: the loader takes a seed for its workers from it.
        "generator": torch.Generator().manual_seed(seed),
    }
    if isinstance(data, IterableDataset):
        _check_stream(nb_workers, cache_preprocessed)
        dataset: ItemDataset | StreamDataset = StreamDataset(work, position)
    else:
        dataset = ItemDataset(work, position, cache=cache_preprocessed)
        items = _order(order, len(dataset), shuffle), len(dataset), position, batch_size
        common["sampler"] = EpochSampler(*items)
        if length_window:
            common["sampler"] = GroupedSampler(
                *items,
                lengths=Lengths(dataset, padding_rules(padding or {}), hand_over=nb_workers == 0),
                window=length_window,
                shuffle=shuffle,
            )
    if drop_last and len(dataset) < batch_size:
        msg = f"the data has {len(dataset)} items, fewer than batch_size={batch_size}"
        raise ValueError(f"{msg}, so drop_last=True leaves no batch; lower one or drop the other")
    if nb_workers:
        common |= _worker_arguments(work, nb_workers, worker_timeout)
    return DataLoader(dataset, **common)


def _check(nb_workers: int, order: str, length_window: int, cache_preprocessed: bool) -> None:
    if order not in ("uniform", "medkit"):
        raise ValueError(f"order is {order!r}; expected 'uniform' or 'medkit'")
    if order == "medkit" and length_window:
        msg = f"order='medkit' was asked for with length_window={length_window}, which changes it"
        raise ValueError(f"{msg}; set length_window=0, or order='uniform'")
    if cache_preprocessed and nb_workers:
        msg = (
            f"cache_preprocessed=True was asked for with dataloader_nb_workers={nb_workers}; each "
            "worker would fill a cache of its own. Set one of them to 0 or False"
        )
        raise ValueError(msg)


def _check_stream(nb_workers: int, cache_preprocessed: bool) -> None:
    if nb_workers > 1:
        msg = (
            f"the data is a stream and dataloader_nb_workers is {nb_workers}; each worker would "
            "read all of it. Set dataloader_nb_workers to 0 or 1, or pass a map-style dataset"
        )
        raise ValueError(msg)
    if cache_preprocessed:
        msg = "cache_preprocessed=True was asked for, but the data is a stream without positions"
        raise ValueError(f"{msg} to keep examples by; switch it off, or pass a map-style dataset")


def _order(name: str, nb_items: int, shuffle: bool) -> Order:
    if not shuffle:
        return lambda seed, epoch: np.arange(nb_items)
    function = medkit_order if name == "medkit" else epoch_order
    return lambda seed, epoch: function(seed, epoch, nb_items)


def _worker_arguments(work: Work, nb_workers: int, timeout: float) -> dict[str, Any]:
    work.check_pickles()
    return {
        "num_workers": nb_workers,
        "collate_fn": WorkerCollate(work),
        # A forked process that touches JAX hangs.
        "multiprocessing_context": "spawn",
        "timeout": timeout,
        "worker_init_fn": _start_worker,
        # Spawning imports torch and JAX, which takes seconds. A worker is told the epoch when it
        # starts, so those that need it start anew in each.
        "persistent_workers": not work.examples.is_random,
    }


def _start_worker(number: int) -> None:
    isolate_worker()
