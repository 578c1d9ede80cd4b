"""The torch DataLoader of a component, and passing over it from any position."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

from medjax.data.ladder import HUGGING_FACE_PADDING, Ladder
from medjax_torch.batches.dataset import PreprocessedDataset, PreprocessedStream
from medjax_torch.batches.sampler import EpochBatchSampler
from medjax_torch.options import Options


def make_dataloader(
    data: Any,
    component: Any,
    *,
    batch_size: int,
    shuffle: bool,
    seed: int,
    nb_workers: int,
    drop_last: bool,
    pin_memory: bool,
    options: Options,
) -> DataLoader[Any]:
    """Return a torch DataLoader of the component's collated batches.

    Parameters
    ----------
    data : dataset
        Map-style (torch, Hugging Face, a list), or an IterableDataset with a length, which keeps
        its own order.
    component : object
        Its `preprocess` and `collate` are used.
    batch_size : int
        Items of a batch.
    shuffle : bool
        Whether the order changes with the epoch.
    seed : int
        Seed of the order.
    nb_workers : int
        Spawned processes that preprocess and collate; 0 does so in this one.
    drop_last, pin_memory : bool
        As for torch's DataLoader.
    options : Options
        For order, grouping, cache and the workers' timeout.

    Raises
    ------
    ValueError
        If the dataset has no length or no items, or cannot be sent to worker processes.
    """
    # A generator of its own: passing over the data draws nothing from torch's.
    common: dict[str, Any] = {
        "collate_fn": component.collate,
        "num_workers": nb_workers,
        "pin_memory": pin_memory,
        "generator": torch.Generator().manual_seed(seed),
    }
    if nb_workers:
        # Not forked: a copy of a process in which JAX runs threads may hang.
        common |= {"multiprocessing_context": "spawn", "timeout": options.worker_timeout}
    if isinstance(data, IterableDataset):
        stream = PreprocessedStream(data, component.preprocess)
        if nb_workers:
            msg = (
                f"dataloader_nb_workers is {nb_workers} and the data a {type(data).__name__}, of "
                "which every worker would yield all items; expected 0"
            )
            raise ValueError(msg)
        return DataLoader(stream, batch_size=batch_size, drop_last=drop_last, **common)
    dataset = PreprocessedDataset(data, component.preprocess, keep=options.cache_preprocessed)
    if nb_workers:
        _check_picklable(dataset, component)
    fills = {**HUGGING_FACE_PADDING, **options.padding}
    sampler = EpochBatchSampler(
        *(dataset, batch_size),
        shuffle=shuffle,
        seed=seed,
        drop_last=drop_last,
        order=options.order,
        window=options.length_window,
        ladder=Ladder(options.length_ladder, {n: f for n, f in fills.items() if f is not None}),
    )
    return DataLoader(dataset, batch_sampler=sampler, **common)


def _check_picklable(dataset: PreprocessedDataset, component: Any) -> None:
    kinds = {"dataset": dataset.dataset, "component": component}
    for name, value in kinds.items():
        try:
            pickle.dumps(value)
        except Exception as error:
            msg = (
                f"the {name}, a {type(value).__name__}, cannot be sent to worker processes "
                f"({type(error).__name__}: {error}); set dataloader_nb_workers=0, or let it hold "
                "only what can be pickled"
            )
            raise ValueError(msg) from error


def epoch_batches(
    loader: DataLoader[Any], epoch: int, start: int = 0
) -> Iterator[tuple[np.ndarray | None, Any]]:
    """Yield indices and collated batches of an epoch from number `start` on.

    A loader whose order is not ours is passed over from its beginning, without indices.

    Parameters
    ----------
    loader : torch.utils.data.DataLoader
        From `make_dataloader`, or any.
    epoch : int
        From 1.
    start : int
        Batches to leave out.

    Raises
    ------
    ValueError
        If `collate` returned no mapping of columns.
    """
    sampler = loader.batch_sampler
    if not isinstance(sampler, EpochBatchSampler):
        for number, batch in enumerate(loader):
            if number >= start:
                yield None, _checked(batch)
        return
    sampler.epoch, sampler.start = epoch, start
    indices = sampler.batches(epoch, start)
    for batch in loader:
        yield next(indices), _checked(batch)


def batch_indices(loader: DataLoader[Any], epoch: int, batch: int) -> list[int]:
    """Return the dataset positions of a batch's items, [] if the order is not ours."""
    sampler = loader.batch_sampler
    if not isinstance(sampler, EpochBatchSampler):
        return []
    return [int(index) for index in next(sampler.batches(epoch, batch))]


def first_batch(loader: DataLoader[Any]) -> Any:
    """Return a batch to look at, made in this process, as if the loader had not been touched."""
    sampler, dataset = loader.batch_sampler, loader.dataset
    if isinstance(sampler, EpochBatchSampler):
        indices = next(sampler.batches(1))
        return _checked(loader.collate_fn([dataset[int(index)] for index in indices]))
    with torch.random.fork_rng(devices=[]):
        return _checked(next(iter(loader)))


def _checked(batch: Any) -> Any:
    if not isinstance(batch, Mapping):
        msg = (
            f"collate returned a {type(batch).__name__}; expected a BatchData or another mapping "
            "of column names to tensors"
        )
        raise ValueError(msg)
    return batch
