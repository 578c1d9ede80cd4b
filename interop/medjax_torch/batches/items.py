"""Datasets that preprocess a user's items when a DataLoader requests them."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch.utils.data import Dataset, IterableDataset

from medjax.data import Sampled
from medjax.data.dataset import length_of
from medjax.data.digests import digest_of
from medjax.data.policy import check_cache, check_picklable, nb_items_of
from medjax.data.source import Examples
from medjax_torch.batches.digests import WithoutWeights

Collate = Callable[[Sequence[Any]], Any]


@dataclasses.dataclass
class Position:
    """Where the next iteration of a loader starts; shared by its dataset and its sampler.

    Attributes
    ----------
    seed : int
        Seed of the order.
    epoch : int
        Epoch, counted from 1.
    start : int
        First batch. The iteration that reads it resets it to 0.
    """

    seed: int
    epoch: int = 1
    start: int = 0


class Work:
    """The processing of items: reading, preprocessing and collating.

    It is pickled to bytes for worker processes. Otherwise torch would move every tensor of the
    component to shared memory, which in containers is often too small for a model.

    Parameters
    ----------
    examples : Examples
        Reads and preprocesses items.
    collate : callable
        Joins examples to a batch.

    Attributes
    ----------
    draws : bool
        Whether it is known to draw from generators that go on from one batch to the next, such as
        torch's global one, or to count. Such batches depend on those before them in their epoch.
    """

    def __init__(self, examples: Examples, collate: Collate) -> None:
        self.draws = False
        self.examples = examples
        self.collate = collate
        self._digest: bytes | None = None

    def has_changed(self) -> bool:
        """Return whether the dataset or the component has changed since the last call.

        As dear as sending them to one worker once more, but without a copy in memory. Weights do
        not count (see `WithoutWeights`).
        """
        content = (self.examples, self.collate)
        before, self._digest = self._digest, digest_of(content, WithoutWeights)
        return self._digest not in (before, None)

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpack, (pickle.dumps((self.examples, self.collate)),)

    def check_pickles(self) -> None:
        """Raise ValueError if the dataset or the component cannot be sent to worker processes."""
        parts: dict[str, Any] = {"dataset": self.examples.dataset}
        for name, function in (("preprocess", self.examples.preprocess), ("collate", self.collate)):
            owner = getattr(function, "__self__", None)
            parts |= {"component": owner} if owner is not None else {f"function {name}": function}
        check_picklable(parts)


def _unpack(pickled: bytes) -> Work:
    return Work(*pickle.loads(pickled))


class WorkerCollate:
    """Collates in a worker process, using the same copy of the component as the dataset."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def __call__(self, examples: Sequence[Any]) -> Any:
        """Return the collated examples."""
        return self._work.collate(examples)


class ItemDataset(Dataset[Any]):
    """A map-style dataset that preprocesses an item on request, as medkit's trainer does.

    Parameters
    ----------
    work : Work
        Processing of a map-style dataset.
    position : Position
        Its epoch seeds the ``rng=`` argument of `preprocess`, if it has that parameter without
        a default.
    cache : bool
        Whether every example is kept, so that each item is preprocessed once. Collate gets a
        shallow copy.

    Raises
    ------
    ValueError
        If the dataset has no length or no items, is a `medjax.Sampled`, or if random preprocessing
        would be cached.
    """

    def __init__(self, work: Work, position: Position, *, cache: bool = False) -> None:
        check_cache(is_random=cache and work.examples.is_random)
        self._nb_items = length_of(work.examples.dataset)
        if isinstance(work.examples.dataset, Sampled):
            msg = (
                "the data is a medjax.Sampled, by whose weights only medjax.train draws; expected "
                "a dataset in which rare items are repeated"
            )
            raise ValueError(msg)
        self.work = work
        self.position = position
        self._cache = cache
        self._kept: dict[int, Any] = {}

    def __len__(self) -> int:
        """Return the number of items."""
        return self._nb_items

    @property
    def is_random(self) -> bool:
        """Whether an item may be preprocessed to different examples in different epochs."""
        return self.work.examples.is_random or self.work.draws

    def __getitem__(self, index: int) -> Any:
        """Return the example of an item.

        Raises
        ------
        ItemError
            If the item cannot be read or preprocessed; the cause is chained.
        """
        if self._cache:
            return copy.copy(self.peek(index))
        try:
            return self._kept.pop(index)
        except KeyError:
            return self._example(index)

    def __getitems__(self, indices: list[int]) -> list[Any]:
        """Return the examples of a batch's items; torch's DataLoader calls this.

        Raises
        ------
        ItemError
            If an item cannot be read or preprocessed; the cause is chained.
        """
        if not (self._cache or self._kept):
            # The usual case; the code below would take 5% of a tiny model's step.
            return self.work.examples(self.position.epoch, indices)
        missing = [index for index in indices if index not in self._kept]
        made = dict(zip(missing, self.work.examples(self.position.epoch, missing), strict=True))
        if self._cache:
            self._kept |= made
            return [copy.copy(self._kept[index]) for index in indices]
        made |= {index: self._kept.pop(index) for index in {*indices} - made.keys()}
        return [made[index] for index in indices]

    def peek(self, index: int) -> Any:
        """Return an example and keep it for the next `__getitem__`."""
        if index not in self._kept:
            self._kept[index] = self._example(index)
        return self._kept[index]

    def forget(self) -> None:
        """Drop examples that were peeked at but not requested, unless all are cached."""
        if not self._cache:
            self._kept.clear()

    def discard(self) -> None:
        """Drop all examples, also cached ones."""
        self._kept.clear()

    def _example(self, index: int) -> Any:
        return self.work.examples(self.position.epoch, [index])[0]


class StreamDataset(IterableDataset[Any]):
    """An iterable dataset that preprocesses the items of a stream in their order.

    Parameters
    ----------
    work : Work
        Processing of an iterable dataset that has a length.
    position : Position
        Provides the epoch.

    Raises
    ------
    ValueError
        If the stream has no length, or the length 0.
    """

    def __init__(self, work: Work, position: Position) -> None:
        self._nb_items = stream_length(work.examples.dataset)
        self.work = work
        self.position = position

    def __len__(self) -> int:
        """Return the number of items."""
        return self._nb_items

    def __iter__(self) -> Iterator[Any]:
        """Yield the examples.

        Raises
        ------
        ItemError
            If an item cannot be preprocessed; the cause is chained.
        ValueError
            If the stream has fewer or more items than its length says.
        """
        of_stream = self.work.examples
        stream: Any = of_stream.dataset
        current: dict[int, Any] = {}
        examples = Examples(
            current,
            of_stream.preprocess,
            of_stream.seed,
            training=of_stream.training,
            only_needed=True,
        )
        count = 0
        for item in stream:
            if count == self._nb_items:
                raise ValueError(self._miscounted(stream, "yields more items"))
            current.clear()
            current[count] = item
            yield examples(self.position.epoch, [count])[0]
            count += 1
        if count < self._nb_items:
            raise ValueError(self._miscounted(stream, f"ends after {count} items"))

    def _miscounted(self, stream: Any, observed: str) -> str:
        return (
            f"the data, a {type(stream).__name__}, has length {self._nb_items} but {observed}; "
            "epochs and schedules depend on its length, so correct its __len__ or pass a list"
        )


def stream_length(data: Any) -> int:
    """Return the number of items of an iterable dataset.

    Raises
    ------
    ValueError
        If it has no length or no items.
    """
    try:
        len(data)
    except (TypeError, NotImplementedError) as error:
        msg = (
            f"the data is a {type(data).__name__}, a stream without a length; expected one with "
            "__len__, since epochs, schedules and resuming count batches. Add a __len__ or pass "
            "list(data)"
        )
        raise ValueError(msg) from error
    return nb_items_of(data)
