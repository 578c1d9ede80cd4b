"""The torch DataLoader for a dataset and a component."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

from medjax.data.fitting import STANDARD_LENGTHS
from medjax.data.order import epoch_order
from medjax.data.policy import check_worker_caches
from medjax.data.source import Examples, isolate_worker
from medjax_torch.batches.fitted import Fit, LoaderLadder
from medjax_torch.batches.generators import seed_workers
from medjax_torch.batches.items import (
    ItemDataset,
    Position,
    StreamDataset,
    Work,
    WorkerCollate,
)
from medjax_torch.batches.order import EpochSampler, GroupedSampler, Lengths, Order, medkit_order
from medjax_torch.batches.padding import padding_rules
from medjax_torch.options import Options


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
    options: Options | None = None,
    fit: Fit | None = None,
) -> DataLoader[Any]:
    """Return a DataLoader that preprocesses items on demand and collates them to batches.

    It does not draw from torch's global generator. `epoch_batches` can read it at any epoch.

    Parameters
    ----------
    data : map-style dataset or torch.utils.data.IterableDataset
        A list, a torch or Hugging Face dataset, anything with ``__len__`` and ``__getitem__``. A
        stream needs a ``__len__`` too; it keeps its own order.
    component : TrainableComponent
        Provides `preprocess` and `collate`.
    batch_size : int
        Rows in a batch.
    shuffle : bool
        Whether the order changes with the epoch.
    seed : int
        Seed of the order.
    nb_workers : int
        Number of spawned processes that preprocess and collate; they run until `close_workers`, or
        until an epoch begins for which the dataset or the component has changed.
    drop_last : bool
        Whether to drop a last batch with fewer rows.
    pin_memory : bool
        As in torch's DataLoader.
    options : Options, optional
        Order, grouping, padding and caching. Caching requires ``nb_workers=0``.
    fit : callable, optional
        Chooses the lengths that batches are padded to if ``options.length_ladder`` is "fitted".

    Raises
    ------
    ValueError
        If the data has no length or no items, cannot be sent to workers, or options conflict.
    """
    options = options or Options()
    _check(nb_workers, options)
    position = Position(seed)
    examples = Examples(data, component.preprocess, seed, training=shuffle, only_needed=True)
    work = Work(examples, component.collate)
    generator = torch.Generator()  # not torch's global one
    seed_workers(generator, seed, training=shuffle)
    common: dict[str, Any] = {
        "batch_size": batch_size,
        "drop_last": drop_last,
        "pin_memory": pin_memory,
        "collate_fn": component.collate,
        "generator": generator,
    }
    if isinstance(data, IterableDataset):
        _check_stream(nb_workers, options.cache_preprocessed)
        dataset: ItemDataset | StreamDataset = StreamDataset(work, position)
    else:
        dataset = ItemDataset(work, position, cache=options.cache_preprocessed)
        fills = padding_rules(options.padding)
        lengths = options.length_ladder
        fitted = fit or STANDARD_LENGTHS
        ladder = LoaderLadder(dataset, fills, fitted if lengths == "fitted" else lengths)
        items = (
            _order(options.order, len(dataset), shuffle),
            len(dataset),
            position,
            batch_size,
            ladder,
        )
        common["sampler"] = EpochSampler(*items)
        if options.length_window:
            common["sampler"] = GroupedSampler(
                *items,
                lengths=Lengths(dataset, fills, hand_over=nb_workers == 0),
                window=options.length_window,
                shuffle=shuffle,
            )
    if drop_last and len(dataset) < batch_size:
        msg = f"the data has {len(dataset)} items, fewer than batch_size={batch_size}"
        raise ValueError(
            f"{msg}, so drop_last=True leaves no batch; reduce batch_size or unset drop_last"
        )
    if nb_workers:
        common |= _worker_arguments(work, nb_workers, options.worker_timeout)
    return DataLoader(dataset, **common)


def _check(nb_workers: int, options: Options) -> None:
    if options.order == "medkit" and options.length_window:
        msg = (
            f"order='medkit' conflicts with length_window={options.length_window}, which changes "
            "the order"
        )
        raise ValueError(f"{msg}; set length_window=0, or order='uniform'")
    check_worker_caches(caches=options.cache_preprocessed, nb_workers=nb_workers)


def _check_stream(nb_workers: int, cache_preprocessed: bool) -> None:
    if nb_workers > 1:
        msg = (
            f"the data is a stream and dataloader_nb_workers is {nb_workers}, but each worker "
            "would read all of it; set dataloader_nb_workers to 0 or 1, or pass a map-style dataset"
        )
        raise ValueError(msg)
    if cache_preprocessed:
        msg = "cache_preprocessed=True needs items with an index, but the data is a stream"
        raise ValueError(f"{msg}; set cache_preprocessed=False, or pass a map-style dataset")


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
        # A forked process hangs when it uses JAX.
        "multiprocessing_context": "spawn",
        "timeout": timeout,
        "worker_init_fn": _start_worker,
        # Spawning takes seconds, as it imports torch and JAX. A worker learns the epoch when it
        # starts, so workers that need the epoch are restarted for each one, and others when the
        # dataset or the component has changed (see `epoch_batches`).
        "persistent_workers": not work.examples.is_random,
    }


def _start_worker(number: int) -> None:
    isolate_worker()
