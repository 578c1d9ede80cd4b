"""Preprocessed examples of a dataset: in this process, from memory, or from worker processes."""

from __future__ import annotations

import inspect
import multiprocessing
import os
import pickle
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from multiprocessing.context import SpawnContext
from typing import Any, Protocol

import jax
import numpy as np

from medjax.component import Preprocess
from medjax.data.dataset import Dataset, origins_of
from medjax.data.order import item_rng

Example = dict[str, Any]

_START_TIMEOUT = 120.0  # seconds for a worker process to start
_GRACE = 10.0  # seconds that a worker outlives SIGTERM: for the batch that the trainer still needs


class ItemError(RuntimeError):
    """An item of the dataset could not be read or preprocessed.

    Attributes
    ----------
    index : int
        Position of the item in the dataset.
    """

    def __init__(self, index: int, cause: str) -> None:
        super().__init__(index, cause)
        self.index = index
        self.cause = cause

    def __str__(self) -> str:
        return (
            f"item {self.index} of the dataset could not be preprocessed: {self.cause}; "
            "mend or remove it, then resume"
        )


class WorkerError(RuntimeError):
    """A worker process died or did not answer in time."""


class Examples:
    """Reads items and preprocesses them, each with its own random generator.

    Parameters
    ----------
    dataset : Dataset
        Where items come from.
    preprocess : Preprocess
        Item to example; called with ``rng=`` when it has a parameter of that name.
    seed : int
        Seed of the items' generators.
    """

    def __init__(self, dataset: Dataset, preprocess: Preprocess, seed: int) -> None:
        self.dataset = dataset
        self.preprocess = preprocess
        self.seed = seed
        self.is_random = _takes_rng(preprocess)

    def __call__(self, epoch: int, indices: Sequence[int]) -> list[Example]:
        """Return the examples of some items.

        Raises
        ------
        ItemError
            If an item raises; the cause is chained.
        """
        examples: list[Example] = []
        index = -1
        try:
            for index in map(int, indices):
                item = self.dataset[index]
                if self.is_random:
                    rng = item_rng(self.seed, epoch, index)
                    example = self.preprocess(item, rng=rng)  # type: ignore[call-arg]
                else:
                    example = self.preprocess(item)
                examples.append(example)
        except Exception as error:
            cause = f"{type(error).__name__}: {error}"
            raise ItemError(origins_of(self.dataset, [index])[0], cause) from error
        return examples


def _takes_rng(preprocess: Callable[..., Any]) -> bool:
    try:
        return "rng" in inspect.signature(preprocess).parameters
    except (TypeError, ValueError):  # builtins without a signature
        return False


class ExampleSource(Protocol):
    """Hands out examples; `submit` starts the work and returns how to get the result."""

    def submit(self, epoch: int, indices: np.ndarray) -> Callable[[], list[Example]]:
        """Return a function that returns the examples of `indices`, in their order."""
        ...

    def close(self) -> None:
        """End what was started for this source."""
        ...


class InProcess:
    """Preprocesses in the calling thread."""

    def __init__(self, examples: Examples) -> None:
        self._examples = examples

    def submit(self, epoch: int, indices: np.ndarray) -> Callable[[], list[Example]]:
        """Return a function that preprocesses `indices` when called."""
        return lambda: self._examples(epoch, indices.tolist())

    def close(self) -> None:
        """Nothing was started."""


class Cache:
    """Keeps what another source returned, so that each item is preprocessed once.

    Raises
    ------
    ValueError
        If `preprocess` draws random numbers, which a cache would freeze.
    """

    def __init__(self, source: ExampleSource, examples: Examples) -> None:
        if examples.is_random:
            msg = (
                "cache_preprocessed=True keeps the first result of preprocess, but this "
                "preprocess draws from rng=; switch the cache off or drop the parameter"
            )
            raise ValueError(msg)
        self._source = source
        self._kept: dict[int, Example] = {}

    def submit(self, epoch: int, indices: np.ndarray) -> Callable[[], list[Example]]:
        """Start on the items that are not kept yet."""
        new = np.array([i for i in indices.tolist() if i not in self._kept], dtype=np.int64)
        result = self._source.submit(epoch, new) if len(new) else list

        def examples() -> list[Example]:
            self._kept.update(zip(new.tolist(), result(), strict=True))
            return [self._kept[index] for index in indices.tolist()]

        return examples

    def close(self) -> None:
        """Close the source behind the cache."""
        self._source.close()


class _Spawn(SpawnContext):
    """Spawns processes and remembers them; the pool starts them one by one, when it has work."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[Any] = []

    def Process(self, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]  # noqa: N802
        """Return a process that is not started yet."""
        self.started.append(SpawnContext.Process(*args, **kwargs))
        return self.started[-1]


class Workers:
    """Preprocesses in spawned processes, which get the dataset and `preprocess` and nothing else.

    They are spawned because a forked process that touches JAX hangs.

    Parameters
    ----------
    examples : Examples
        What each worker runs; it must pickle.
    nb_workers : int
        Number of processes.
    timeout : float
        Seconds to wait for a result.

    Raises
    ------
    ValueError
        If the dataset or `preprocess` does not pickle.
    """

    def __init__(self, examples: Examples, nb_workers: int, timeout: float) -> None:
        self._nb_workers = nb_workers
        self._timeout = timeout
        self._context = _Spawn()
        self._pool = ProcessPoolExecutor(
            nb_workers,
            mp_context=self._context,
            initializer=_start_worker,
            initargs=(_pickled(examples),),
        )
        # So that `timeout` is not spent on the start: importing takes seconds on a busy machine.
        self._starting = [self._pool.submit(os.getpid) for _ in range(nb_workers)]

    def submit(self, epoch: int, indices: np.ndarray) -> Callable[[], list[Example]]:
        """Start preprocessing `indices`, split over the workers."""
        try:
            futures = [
                self._pool.submit(_work, epoch, part.tolist())
                for part in np.array_split(indices, self._nb_workers)
                if len(part)
            ]
        except BrokenProcessPool as error:
            raise self._died(indices) from error
        return lambda: self._gather(indices, futures)

    def _gather(self, indices: np.ndarray, futures: list[Future[list[Example]]]) -> list[Example]:
        try:
            for started in self._starting:
                started.result(max(self._timeout, _START_TIMEOUT))
            return [example for f in futures for example in f.result(self._timeout)]
        except FutureTimeoutError:
            self.close(kill=True)
            msg = (
                f"the workers gave no example for {self._timeout:g} s; they were at items "
                f"{indices.tolist()}. Look for an item that hangs, or give "
                "Options(worker_timeout=...) more seconds"
            )
            raise WorkerError(msg) from None
        except BrokenProcessPool as error:
            raise self._died(indices) from error

    def _died(self, indices: np.ndarray) -> WorkerError:
        self.close(kill=True)
        return WorkerError(
            f"a worker process died at one of the items {indices.tolist()}; it may have run out "
            "of memory or crashed in native code. dataloader_nb_workers=0 runs it in this process"
        )

    def close(self, *, kill: bool = False) -> None:
        """End the workers: after their work, or at once with `kill`."""
        if kill:
            for process in self._context.started:
                process.kill()
        self._pool.shutdown(cancel_futures=True)


_examples_of_worker: Examples | None = None


def isolate_worker() -> None:
    """Leave signals and accelerator to the process that trains, and end with it.

    For the start of a worker process.
    """
    # Ctrl-C and a batch system's signal reach every process of the job; the trainer answers them by
    # saving, and needs its batches until then.
    for name in ("SIGINT", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    heard, waker = socket.socketpair()
    waker.setblocking(False)
    signal.set_wakeup_fd(waker.fileno())
    signal.signal(signal.SIGTERM, lambda *_: None)
    watch = threading.Thread(target=_end_with_trainer, args=(heard, waker), daemon=True)
    watch.start()
    # The environment alone would not do: jax, which this module imports, has read it by now.
    os.environ["JAX_PLATFORMS"] = "cpu"
    jax.config.update("jax_platforms", "cpu")


def _end_with_trainer(heard: socket.socket, waker: socket.socket) -> None:
    """End this process as soon as the trainer has ended, or a while after SIGTERM.

    `waker` is the other end of `heard`, open as long as this runs.
    """
    trainer = multiprocessing.parent_process()
    assert trainer is not None
    wait([trainer.sentinel, heard])
    wait([trainer.sentinel], _GRACE)
    os._exit(1)


def _start_worker(pickled: bytes) -> None:
    isolate_worker()
    global _examples_of_worker  # one dataset a worker, for its whole life
    _examples_of_worker = pickle.loads(pickled)


def _work(epoch: int, indices: list[int]) -> list[Example]:
    assert _examples_of_worker is not None
    return _examples_of_worker(epoch, indices)


def _pickled(examples: Examples) -> bytes:
    for name, value in (("dataset", examples.dataset), ("preprocess", examples.preprocess)):
        try:
            pickle.dumps(value)
        except Exception as error:
            msg = (
                f"the {name} cannot be sent to worker processes ({type(error).__name__}: {error});"
                " define it at the top of a module and without open files, lambdas or locks, or "
                "set dataloader_nb_workers=0"
            )
            raise ValueError(msg) from error
    return pickle.dumps(examples)
