"""Preprocessing the items of a dataset: in this process, in worker processes, or from memory."""

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
from medjax.data.digests import digest_of
from medjax.data.order import item_rng
from medjax.data.policy import check_cache, check_picklable

__all__ = [
    "Cache",
    "Example",
    "ExampleSource",
    "Examples",
    "InProcess",
    "ItemError",
    "WorkerError",
    "Workers",
    "isolate_worker",
    "takes_rng",
]

Example = dict[str, Any]
"""What `preprocess` returns for an item."""

_START_TIMEOUT = 120.0  # seconds for a worker process to start
_GRACE = 10.0  # seconds that a worker outlives SIGTERM, as the trainer may still need a batch


class ItemError(RuntimeError):
    """An item of the dataset could not be read or preprocessed.

    Attributes
    ----------
    index : int
        Position of the item in the dataset.
    cause : str
        Type and message of the exception that it raised.

    Examples
    --------
    >>> print(ItemError(3, "KeyError: 'text'"))
    item 3 of the dataset could not be preprocessed: KeyError: 'text'; fix or remove it, then resume
    """

    def __init__(self, index: int, cause: str) -> None:
        super().__init__(index, cause)
        self.index = index
        self.cause = cause

    def __str__(self) -> str:
        return (
            f"item {self.index} of the dataset could not be preprocessed: {self.cause}; "
            "fix or remove it, then resume"
        )


class WorkerError(RuntimeError):
    """A worker process died or did not respond in time."""


class Examples:
    """Reads and preprocesses items, each with a random generator of its own.

    Parameters
    ----------
    dataset : Dataset
        The items.
    preprocess : Preprocess
        Turns an item into an example; called with ``rng=`` in training if it has a parameter of
        that name.
    seed : int
        Seed of the items' generators.
    training : bool
        Whether to train on the examples; otherwise nothing is drawn, and ``rng`` is not given.
    only_needed : bool
        Whether a default of ``rng`` always applies, as in medkit. Without a default, `preprocess`
        gets a generator in training, and None otherwise.

    Raises
    ------
    ValueError
        If `preprocess` cannot do without ``rng`` and it is not for training, unless `only_needed`.

    Examples
    --------
    >>> Examples(["No fever"], lambda item: {"text": item.lower()}, seed=7)(1, [0])
    [{'text': 'no fever'}]
    """

    def __init__(
        self,
        dataset: Dataset,
        preprocess: Preprocess,
        seed: int,
        *,
        training: bool = True,
        only_needed: bool = False,
    ) -> None:
        self.dataset = dataset
        self.preprocess = preprocess
        self.seed = seed
        self.training = training
        self._passes_rng = takes_rng(preprocess, needed=only_needed) and (training or only_needed)
        self.is_random = self._passes_rng and training
        if not (training or only_needed) and takes_rng(preprocess, needed=True):
            msg = (
                "preprocess has a parameter rng without a default, and in evaluation nothing is "
                "drawn, so that scores are of the items as they are: expected rng=None, with which "
                "preprocess leaves the item unchanged"
            )
            raise ValueError(msg)

    def __call__(self, epoch: int, indices: Sequence[int]) -> list[Example]:
        """Return the examples of the items at `indices`.

        Raises
        ------
        ItemError
            If an item raises; the original exception is chained.
        """
        examples: list[Example] = []
        index = -1
        try:
            for index in map(int, indices):
                item = self.dataset[index]
                given = {}
                if self._passes_rng:
                    given["rng"] = item_rng(self.seed, epoch, index) if self.training else None
                examples.append(self.preprocess(item, **given))
        except Exception as error:
            cause = f"{type(error).__name__}: {error}"
            raise ItemError(origins_of(self.dataset, [index])[0], cause) from error
        return examples


def takes_rng(preprocess: Callable[..., Any], *, needed: bool = False) -> bool:
    """Return whether a function has a parameter ``rng``, or cannot do without it."""
    try:
        rng = inspect.signature(preprocess).parameters.get("rng")
    except (TypeError, ValueError):  # builtins without a signature
        return False
    return rng is not None and (not needed or rng.default is inspect.Parameter.empty)


class ExampleSource(Protocol):
    """Preprocesses items; `submit` starts the work and returns a function that gets the result."""

    def submit(self, epoch: int, indices: np.ndarray) -> Callable[[], list[Example]]:
        """Start the work and return a function that returns the examples of `indices`, in order."""
        ...

    def renew(self) -> None:
        """Notice changes of the dataset and of `preprocess`; called before each pass over it."""
        ...

    def close(self) -> None:
        """Release everything that was started for this source."""
        ...


class InProcess:
    """Preprocesses items in the calling thread.

    Examples
    --------
    >>> source = InProcess(Examples([1, 2, 3], lambda item: {"x": item}, seed=7))
    >>> source.submit(1, np.array([2, 0]))()
    [{'x': 3}, {'x': 1}]
    """

    def __init__(self, examples: Examples) -> None:
        self._examples = examples

    def submit(self, epoch: int, indices: np.ndarray) -> Callable[[], list[Example]]:
        """Return a function that preprocesses `indices` when called."""
        return lambda: self._examples(epoch, indices.tolist())

    def renew(self) -> None:
        """Do nothing, as the dataset itself is read."""

    def close(self) -> None:
        """Do nothing, as nothing was started."""


class Cache:
    """Keeps the examples of another source in memory, so each item is preprocessed only once.

    Raises
    ------
    ValueError
        If `preprocess` draws random numbers, which a cache would freeze.

    Examples
    --------
    >>> examples = Examples([1, 2, 3], lambda item: {"x": item}, seed=7)
    >>> cache = Cache(InProcess(examples), examples)
    >>> cache.submit(1, np.array([2]))()[0] is cache.submit(2, np.array([2]))()[0]
    True
    """

    def __init__(self, source: ExampleSource, examples: Examples) -> None:
        check_cache(is_random=examples.is_random)
        self._source = source
        self._kept: dict[int, Example] = {}

    def submit(self, epoch: int, indices: np.ndarray) -> Callable[[], list[Example]]:
        """Start preprocessing the items that are not in memory yet."""
        new = np.array([i for i in indices.tolist() if i not in self._kept], dtype=np.int64)
        result = self._source.submit(epoch, new) if len(new) else list

        def examples() -> list[Example]:
            self._kept.update(zip(new.tolist(), result(), strict=True))
            return [self._kept[index] for index in indices.tolist()]

        return examples

    def renew(self) -> None:
        """Do nothing, as examples are kept as they are."""

    def close(self) -> None:
        """Close the other source."""
        self._source.close()


class _Spawn(SpawnContext):
    """Spawns processes and remembers them; the pool starts them one at a time, as it needs them."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[Any] = []

    def Process(self, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]  # noqa: N802
        """Return a process that is not started yet."""
        self.started.append(SpawnContext.Process(*args, **kwargs))
        return self.started[-1]


class Workers:
    """Preprocesses items in spawned processes, which get only the dataset and `preprocess`.

    They are spawned because a forked process that uses JAX hangs.

    Parameters
    ----------
    examples : Examples
        What each worker runs; it must be picklable.
    nb_workers : int
        Number of processes.
    timeout : float
        Seconds to wait for a result.

    Raises
    ------
    ValueError
        If the dataset or `preprocess` cannot be pickled.
    """

    def __init__(self, examples: Examples, nb_workers: int, timeout: float) -> None:
        self._examples = examples
        self._nb_workers = nb_workers
        self._timeout = timeout
        self._start()

    def _start(self) -> None:
        pickled = _pickled(self._examples)
        self._digest = digest_of(self._examples)
        self._context = _Spawn()
        self._pool = ProcessPoolExecutor(
            self._nb_workers,
            mp_context=self._context,
            initializer=_start_worker,
            initargs=(pickled,),
        )
        # Waited for separately from `timeout`: imports can take seconds on a busy machine.
        self._starting = [self._pool.submit(os.getpid) for _ in range(self._nb_workers)]

    def renew(self) -> None:
        """Start other workers if the dataset or `preprocess` has changed since these started.

        A callback may have called ``dataset.set_epoch``. To notice that is as dear as sending the
        dataset to one worker once more, but takes no memory.
        """
        if digest_of(self._examples) not in (self._digest, None):
            self.close()
            self._start()

    def submit(self, epoch: int, indices: np.ndarray) -> Callable[[], list[Example]]:
        """Start preprocessing `indices`, divided among the workers."""
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
                f"the workers returned no example for {self._timeout:g} s while processing items "
                f"{indices.tolist()}. Look for an item that hangs, or increase "
                "Options.worker_timeout"
            )
            raise WorkerError(msg) from None
        except BrokenProcessPool as error:
            raise self._died(indices) from error

    def _died(self, indices: np.ndarray) -> WorkerError:
        self.close(kill=True)
        return WorkerError(
            f"a worker process died at one of the items {indices.tolist()}; it may have run out of "
            "memory or crashed in native code. Set dataloader_nb_workers=0 to preprocess in this "
            "process"
        )

    def close(self, *, kill: bool = False) -> None:
        """End the workers: when they have finished their work, or immediately with `kill`."""
        if kill:
            for process in self._context.started:
                process.kill()
        self._pool.shutdown(cancel_futures=True)


_examples_of_worker: Examples | None = None


def isolate_worker() -> None:
    """Make a worker process leave signals and accelerators to the trainer, and end with it.

    Call it when the worker starts.
    """
    # Ctrl-C and the signals of a batch system reach every process of the job. The trainer saves
    # when it gets one, and needs its batches until then.
    for name in ("SIGINT", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    heard, waker = socket.socketpair()
    waker.setblocking(False)
    signal.set_wakeup_fd(waker.fileno())
    signal.signal(signal.SIGTERM, lambda *_: None)
    watch = threading.Thread(target=_end_with_trainer, args=(heard, waker), daemon=True)
    watch.start()
    # The environment alone is not enough: jax, which this module imports, has already read it.
    os.environ["JAX_PLATFORMS"] = "cpu"
    jax.config.update("jax_platforms", "cpu")


def _end_with_trainer(heard: socket.socket, waker: socket.socket) -> None:
    """End this process as soon as the trainer has ended, or some time after SIGTERM.

    `waker` is the other end of `heard`; the parameter keeps it open.
    """
    trainer = multiprocessing.parent_process()
    assert trainer is not None
    wait([trainer.sentinel, heard])
    wait([trainer.sentinel], _GRACE)
    os._exit(1)


def _start_worker(pickled: bytes) -> None:
    isolate_worker()
    global _examples_of_worker  # each worker has one dataset for as long as it lives
    _examples_of_worker = pickle.loads(pickled)


def _work(epoch: int, indices: list[int]) -> list[Example]:
    assert _examples_of_worker is not None
    return _examples_of_worker(epoch, indices)


def _pickled(examples: Examples) -> bytes:
    check_picklable({"dataset": examples.dataset, "preprocess": examples.preprocess})
    return pickle.dumps(examples)
