"""The batches of any DataLoader, ours or a user's, from any position on."""

from __future__ import annotations

import itertools
import re
from collections.abc import Generator, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader

from medjax.data.source import ItemError, WorkerError
from medjax_torch.batches.items import ItemDataset, StreamDataset
from medjax_torch.batches.order import EpochSampler

EpochBatch = tuple[np.ndarray | None, Mapping[str, Any]]

# What torch makes of an ItemError that a worker raised: text, with the worker's traceback before.
_ITEM = re.compile(
    r"ItemError: item (\d+) of the dataset could not be preprocessed: (.*); fix", re.DOTALL
)


def epoch_batches(loader: DataLoader[Any], epoch: int, start: int = 0) -> Generator[EpochBatch]:
    """Yield the batches of an epoch with the indices of their items.

    A loader made by `make_dataloader` begins at the batch asked for, and the earlier items are not
    even read. Any other is iterated as it is, in the order it has, and its first batches are
    dropped; what it draws from torch's global generator it draws. With workers, read it in the main
    thread: they work ahead by themselves, and in another thread torch notices a worker that died
    only after the loader's timeout.

    Parameters
    ----------
    loader : torch.utils.data.DataLoader
        Ours, or one that a user's `get_dataloader` returned.
    epoch : int
        Epoch, counted from 1.
    start : int
        Batches to leave out.

    Yields
    ------
    indices : numpy.ndarray or None
        Positions in the dataset, shape (rows,), int64; None if the loader is not ours.
    batch : mapping
        What `collate` returned.

    Raises
    ------
    ItemError
        If an item cannot be read or preprocessed, also in a worker.
    WorkerError
        If a worker dies or gives no batch in time.
    TypeError
        If `collate` does not return a mapping.
    """
    position = getattr(loader.dataset, "position", None)
    ordered = _is_ordered(loader)
    dataset = loader.dataset
    if (
        ordered
        and isinstance(dataset, ItemDataset)
        and not (loader.num_workers or loader.pin_memory)
    ):
        yield from _made_here(loader, dataset, epoch, start)
        return
    if position is not None:
        position.epoch, position.start = epoch, start if ordered else 0
    iterator = iter(loader)
    try:
        yield from itertools.islice(_pairs(loader, iterator), 0 if ordered else start, None)
    except Exception:
        close_workers(loader)
        raise
    finally:
        if not loader.persistent_workers:
            _stop(iterator)


def _made_here(
    loader: DataLoader[Any], dataset: ItemDataset, epoch: int, start: int
) -> Iterator[EpochBatch]:
    """Yield what torch's iterator of a loader of ours would, at less cost for each batch."""
    assert isinstance(loader.sampler, EpochSampler)
    dataset.position.epoch = epoch
    for indices in loader.sampler.batches(epoch, start, drop_last=loader.drop_last):
        examples = dataset.__getitems__(indices)
        yield np.array(indices, dtype=np.int64), _checked(loader.collate_fn(examples))


def first_batch(loader: DataLoader[Any]) -> Mapping[str, Any]:
    """Return a batch of epoch 1 to look at, made in this process; the loader's order goes on.

    Raises
    ------
    TypeError
        If `collate` does not return a mapping.
    """
    if _is_ordered(loader):
        dataset: Any = loader.dataset
        return _checked(
            loader.collate_fn([dataset[index] for index in batch_indices(loader, 1, 0)])
        )
    with torch.random.fork_rng(devices=[]):
        return _checked(next(iter(loader)))


def batch_indices(loader: DataLoader[Any], epoch: int, batch: int) -> list[int]:
    """Return the dataset positions of a batch's items, [] for a loader of the user's own."""
    if _is_ordered(loader):
        assert isinstance(loader.sampler, EpochSampler)
        return loader.sampler.batch(epoch, batch)
    if not isinstance(loader.dataset, StreamDataset):
        return []
    size = loader.batch_size or 1
    return list(range(batch * size, min((batch + 1) * size, len(loader.dataset))))


def check_length(loader: DataLoader[Any]) -> None:
    """Refuse a dataset that has become longer or shorter since its loader was made.

    Raises
    ------
    ValueError
        Names both lengths.
    """
    if not isinstance(loader.dataset, ItemDataset | StreamDataset):
        return
    data: Any = loader.dataset.work.examples.dataset
    now, before = len(data), len(loader.dataset)
    if now != before:
        msg = (
            f"the data, a {type(data).__name__}, has {now} items now and had {before} when the "
            "Trainer was made; expected the same number, on which epochs, schedules and resuming "
            "count. Make another Trainer for the data of now"
        )
        raise ValueError(msg)


def reseed(loader: DataLoader[Any], seed: int) -> None:
    """Give a loader of ours another seed, that of the run that is resumed."""
    if isinstance(loader.dataset, ItemDataset | StreamDataset):
        loader.dataset.position.seed = loader.dataset.work.examples.seed = seed


def close_workers(loader: DataLoader[Any]) -> None:
    """End the worker processes that a loader keeps between epochs, if there are any."""
    iterator, loader._iterator = loader._iterator, None
    _stop(iterator)


def _stop(iterator: Any) -> None:
    # torch ends workers when their iterator is collected, which a traceback can put off for long.
    if not hasattr(iterator, "_shutdown_workers"):
        return
    workers = list(iterator._workers)
    iterator._shutdown_workers()
    for worker in workers:
        worker.kill()  # one that hangs: torch has asked it to end by a signal that it outlives
        worker.join()


def _is_ordered(loader: DataLoader[Any]) -> bool:
    """Tell whether our sampler decides about the batches."""
    return (
        isinstance(loader.sampler, EpochSampler)
        and type(loader.batch_sampler) is BatchSampler
        and loader.batch_size == loader.sampler.batch_size
    )


def _pairs(loader: DataLoader[Any], iterator: Iterator[Any]) -> Iterator[EpochBatch]:
    for number in itertools.count():
        try:
            batch = next(iterator)
        except StopIteration:
            return
        except RuntimeError as error:
            explained = _explained(str(error), loader, number) if loader.num_workers else None
            if explained is None:
                raise
            raise explained from error
        yield _indices(loader, number), _checked(batch)


def _checked(batch: Any) -> Mapping[str, Any]:
    if not isinstance(batch, Mapping):
        msg = (
            f"collate returned a {type(batch).__name__}; expected a mapping of column names to "
            "tensors and lists, such as a BatchData or a dict"
        )
        raise TypeError(msg)
    return batch


def _indices(loader: DataLoader[Any], number: int) -> np.ndarray | None:
    """Return the positions of the items of the batch that comes next, if they are known."""
    size = loader.batch_size or 1
    if _is_ordered(loader):
        assert isinstance(loader.sampler, EpochSampler)
        handed_out = loader.sampler.handed_out
        taken = [handed_out.popleft() for _ in range(min(size, len(handed_out)))]
        return np.array(taken, dtype=np.int64)
    if isinstance(loader.dataset, StreamDataset):
        return np.arange(number * size, min((number + 1) * size, len(loader.dataset)))
    return None


def _explained(text: str, loader: DataLoader[Any], number: int) -> Exception | None:
    """Return what an error that torch raised for a worker means, if it is one of those known."""
    item = _ITEM.search(text)
    if item:
        return ItemError(int(item[1]), item[2])
    indices = _indices(loader, number)
    items = "an unknown batch" if indices is None else f"items {indices.tolist()}"
    if text.startswith("DataLoader timed out"):
        return WorkerError(
            f"the workers gave no batch for {loader.timeout:g} s; they were at {items}. Look for "
            "an item that hangs, or give Options(worker_timeout=...) more seconds"
        )
    if text.startswith("DataLoader worker"):
        return WorkerError(
            f"a worker process died, at {items} or after them; it may have run out of memory or "
            "crashed in native code, or it could not start: a script must train under "
            "`if __name__ == '__main__':`, and what a notebook defines cannot be imported by a "
            "worker. dataloader_nb_workers=0 runs it in this process"
        )
    return None
