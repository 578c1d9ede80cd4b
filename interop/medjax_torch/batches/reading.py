"""Reading the batches of a DataLoader, `make_dataloader`'s or a user's, from any position."""

from __future__ import annotations

import collections
import contextlib
import itertools
import re
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any

import numpy as np
from torch.utils.data import BatchSampler, DataLoader

from medjax.data.source import ItemError, WorkerError, takes_rng
from medjax_torch.batches.generators import (
    OWN,
    generators_of,
    restore,
    seed_workers,
    states_of,
)
from medjax_torch.batches.items import ItemDataset, StreamDataset
from medjax_torch.batches.order import EpochSampler, GroupedSampler
from medjax_torch.batches.undone import undone
from medjax_torch.component_state.locations import Effect
from medjax_torch.component_state.putting_back import is_count

EpochBatch = tuple[np.ndarray | None, Mapping[str, Any]]

# torch turns an ItemError raised in a worker into text, preceded by the worker's traceback.
_ITEM = re.compile(
    r"ItemError: item (\d+) of the dataset could not be preprocessed: (.*); fix", re.DOTALL
)


def epoch_batches(
    loader: DataLoader[Any],
    epoch: int,
    start: int = 0,
    at_start: Callable[[], None] | None = None,
) -> Generator[EpochBatch]:
    """Yield the batches of an epoch with the indices of their items.

    A loader from `make_dataloader` starts directly at batch `start`, without reading the items
    before it, unless they are known to draw from generators that later ones draw from as well. Any
    other loader is iterated in its own order, its first `start` batches are discarded, and it may
    draw from torch's global generator. Read a loader with workers in the main
    thread: the workers prefetch anyway, and in another thread torch notices that a worker died only
    after the loader's timeout.

    Parameters
    ----------
    loader : torch.utils.data.DataLoader
        From `make_dataloader`, or from a user's `get_dataloader`.
    epoch : int
        Epoch, counted from 1.
    start : int
        Number of batches to skip.
    at_start : callable, optional
        Called when they are skipped.

    Yields
    ------
    indices : numpy.ndarray or None
        Positions in the dataset, shape (rows,), int64; None for a user's loader.
    batch : mapping
        The result of `collate`.

    Raises
    ------
    ItemError
        If an item cannot be read or preprocessed, also in a worker.
    WorkerError
        If a worker dies, or returns no batch in time.
    TypeError
        If `collate` does not return a mapping.
    """
    skipped = start if not _is_ordered(loader) or _draws(loader) else 0
    pairs = _epoch_pairs(loader, epoch, start - skipped)
    with contextlib.closing(pairs):
        collections.deque(itertools.islice(pairs, skipped), maxlen=0)
        if at_start is not None:
            at_start()
        yield from pairs


def _epoch_pairs(loader: DataLoader[Any], epoch: int, start: int) -> Generator[EpochBatch]:
    """Yield the batches of an epoch from number `start` on, 0 for a user's loader."""
    dataset: Any = loader.dataset
    in_process = not (loader.num_workers or loader.pin_memory)
    if _is_ordered(loader) and isinstance(dataset, ItemDataset) and in_process:
        yield from _without_iterator(loader, dataset, epoch, start)
        return
    if hasattr(dataset, "position"):
        dataset.position.epoch, dataset.position.start = epoch, start
    _renew_workers(loader)
    iterator = iter(loader)
    nb_read = 0
    try:
        for pair in _pairs(loader, iterator):
            nb_read += 1
            yield pair
    except Exception:
        close_workers(loader)
        raise
    finally:
        if not _is_ordered(loader) and nb_read == len(loader):
            # The loop stops at the last batch; medkit's looks for another, for which a
            # RandomSampler draws.
            next(iterator, None)
        if not loader.persistent_workers:
            _stop(iterator)


def _without_iterator(
    loader: DataLoader[Any], dataset: ItemDataset, epoch: int, start: int
) -> Iterator[EpochBatch]:
    """Yield the batches that torch's iterator would, with less overhead for each batch."""
    assert isinstance(loader.sampler, EpochSampler)
    dataset.position.epoch = epoch
    for indices in loader.sampler.batches(epoch, start, drop_last=loader.drop_last):
        examples = dataset.__getitems__(indices)
        yield np.array(indices, dtype=np.int64), _checked(loader.collate_fn(examples))


def first_batch(loader: DataLoader[Any]) -> Mapping[str, Any]:
    """Return the first batch of epoch 1, made in this process, without advancing the loader.

    Random generators and attributes are left as they were (see `undone`), and it is noted whether
    it drew from any, or changed any value.

    Raises
    ------
    TypeError
        If `collate` does not return a mapping.
    """
    dataset: Any = loader.dataset
    is_ordered = _is_ordered(loader)
    generators = generators_of(loader)
    before = after = states_of(generators)
    effects: list[Effect] = []
    try:
        with undone(dataset, None if is_ordered else loader) as effects:
            try:
                if not is_ordered:
                    return _checked(next(iter(loader)))
                examples = [dataset[index] for index in batch_indices(loader, 1, 0)]
                return _checked(loader.collate_fn(examples))
            finally:
                after = states_of(generators)
    finally:
        restore(generators, before)
        if isinstance(dataset, ItemDataset | StreamDataset):
            drawn = {path for path, state in after.items() if state != before[path]}
            counts = any(map(is_count, effects))
            dataset.work.draws = counts or bool(drawn - {f"loader 0.{OWN}"})


def expect_draws(loader: DataLoader[Any], of: DataLoader[Any]) -> None:
    """Expect of a loader from `make_dataloader` that it draws if the first batch of another did."""
    dataset: Any = loader.dataset
    if isinstance(dataset, ItemDataset | StreamDataset):
        dataset.work.draws |= _draws(of)


def _draws(loader: DataLoader[Any]) -> bool:
    dataset: Any = loader.dataset
    return isinstance(dataset, ItemDataset | StreamDataset) and dataset.work.draws


def first_of_shapes(
    loader: DataLoader[Any], epoch: int, start: int
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield the first batch of each shape that comes next, made in this process, with its number.

    There are none for a loader that does not group its items by length, nor where the preprocessing
    is random. The loader is not advanced.

    Parameters
    ----------
    loader, epoch, start
        As for `epoch_batches`.

    Raises
    ------
    ItemError
        If an item cannot be read or preprocessed.
    TypeError
        If `collate` does not return a mapping.
    """
    sampler, dataset = loader.sampler, loader.dataset
    if not isinstance(sampler, GroupedSampler) or not isinstance(dataset, ItemDataset):
        return
    if dataset.is_random:
        return
    dataset.position.epoch = epoch
    work = dataset.work
    with undone(dataset):
        firsts = sampler.first_of_shapes(epoch, start)
        batches = {
            number: _checked(work.collate(work.examples(epoch, indices)))
            for number, indices in firsts.items()
        }
    yield from batches.items()


def batch_indices(loader: DataLoader[Any], epoch: int, batch: int) -> list[int]:
    """Return the dataset positions of a batch's items, or [] for a user's loader."""
    if _is_ordered(loader):
        assert isinstance(loader.sampler, EpochSampler)
        return loader.sampler.batch(epoch, batch)
    if not isinstance(loader.dataset, StreamDataset):
        return []
    size = loader.batch_size or 1
    return list(range(batch * size, min((batch + 1) * size, len(loader.dataset))))


def data_of(loader: DataLoader[Any]) -> Any:
    """Return the user's dataset, of which the loader's own may be made."""
    dataset = loader.dataset
    if isinstance(dataset, ItemDataset | StreamDataset):
        return dataset.work.examples.dataset
    return dataset


def check_length(loader: DataLoader[Any]) -> None:
    """Refuse a dataset whose length has changed since its loader was made.

    Raises
    ------
    ValueError
        If it has changed; the message names both lengths.
    """
    if not isinstance(loader.dataset, ItemDataset | StreamDataset):
        return
    data = data_of(loader)
    nb_items, before = len(data), len(loader.dataset)
    if nb_items != before:
        msg = (
            f"the data, a {type(data).__name__}, has {nb_items} items; expected {before}, as when "
            "the Trainer was created, since epochs, schedules and resuming depend on the number. "
            "Create a new Trainer for the changed data"
        )
        raise ValueError(msg)


def check_draws(loader: DataLoader[Any]) -> None:
    """Refuse to train on a loader whose preprocess draws nothing, though it could.

    Raises
    ------
    ValueError
        If preprocess cannot do without ``rng`` and the loader was made without `shuffle`.
    """
    if not isinstance(loader.dataset, ItemDataset | StreamDataset):
        return
    examples = loader.dataset.work.examples
    if not examples.training and takes_rng(examples.preprocess, needed=True):
        msg = (
            "preprocess has a parameter rng, but the loader to train on was made with "
            "shuffle=False, as for evaluation, so that nothing is drawn; expected shuffle=True, or "
            "a preprocess without rng"
        )
        raise ValueError(msg)


def reseed(loader: DataLoader[Any], seed: int) -> None:
    """Set the seed of a loader from `make_dataloader` to that of the run."""
    dataset = loader.dataset
    if isinstance(dataset, ItemDataset | StreamDataset):
        dataset.position.seed = dataset.work.examples.seed = seed
        if _is_ordered(loader):  # else the generator is the user's
            seed_workers(loader.generator, seed, training=dataset.work.examples.training)


def close_workers(loader: DataLoader[Any]) -> None:
    """Stop the worker processes that a loader keeps between epochs, if it has any."""
    iterator, loader._iterator = loader._iterator, None
    _stop(iterator)


def _renew_workers(loader: DataLoader[Any]) -> None:
    """Stop workers that a loader has kept if dataset or component have changed since.

    A callback may have set a rate that preprocess reads, or called ``dataset.set_epoch``. torch
    then starts others, as medkit does for every epoch. Workers that draw get a new seed.
    """
    dataset: Any = loader.dataset
    if not loader.persistent_workers or not isinstance(dataset, ItemDataset | StreamDataset):
        return
    if dataset.work.draws or dataset.work.has_changed():
        close_workers(loader)


def _stop(iterator: Any) -> None:
    # torch stops workers when their iterator is collected, which a traceback can delay.
    if not hasattr(iterator, "_shutdown_workers"):
        return
    workers = list(iterator._workers)
    iterator._shutdown_workers()
    for worker in workers:
        worker.kill()  # a worker that hangs survives the signal that torch has sent
        worker.join()


def _is_ordered(loader: DataLoader[Any]) -> bool:
    """Return whether an `EpochSampler` determines the batches of a loader."""
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
    """Return the positions of the next batch's items, if they are known."""
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
    """Translate an error that torch raised for a worker; return None if it is not a known one."""
    item = _ITEM.search(text)
    if item:
        return ItemError(int(item[1]), item[2])
    indices = _indices(loader, number)
    items = "an unknown batch" if indices is None else f"items {indices.tolist()}"
    if text.startswith("DataLoader timed out"):
        return WorkerError(
            f"the workers returned no batch for {loader.timeout:g} s; they were processing "
            f"{items}. Look for an item that hangs, or increase Options(worker_timeout=...)"
        )
    if text.startswith("DataLoader worker"):
        return WorkerError(
            f"a worker process died while processing {items} or a later batch; it may have run out "
            "of memory, crashed in native code, or failed to start: a script must train under "
            "`if __name__ == '__main__':`, and a worker cannot import definitions from a notebook. "
            "Set dataloader_nb_workers=0 to preprocess in this process"
        )
    return None
