"""Feed: passes the batches of a torch DataLoader to medjax's loop."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import numpy as np
from torch.utils.data import DataLoader

from medjax.batch import BatchData
from medjax.data import Batch
from medjax_torch.batches import batch_indices, check_length, epoch_batches, first_of_shapes
from medjax_torch.conversion import BatchAdapter


class Feed:
    """Prepares the batches of a loader; see `medjax.data.Batches`.

    A batch is prepared when the loop asks for it, so that tracing never runs in another thread.
    Meanwhile an accelerator computes the previous step, which JAX only queues. On the CPU that
    step has already ended, since it runs in this thread (see `medjax.runtime.allocator`).

    Parameters
    ----------
    loader : torch.utils.data.DataLoader
        Loader of collated batches.
    preparation : BatchAdapter
        Converts them to device batches.
    train : bool
        Whether gradients are computed.
    compile_ahead : callable, optional
        Begins to compile the step for a batch. It gets a batch of each shape that comes next,
        before the first batch is yielded, so that one shape is compiled while the next is traced.
    """

    def __init__(
        self,
        loader: DataLoader[Any],
        preparation: BatchAdapter,
        *,
        train: bool,
        compile_ahead: Callable[[BatchData], None] | None = None,
    ) -> None:
        self.loader = loader
        self._preparation = preparation
        self._train = train
        self._compile_ahead = compile_ahead

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return len(self.loader)

    def batches(self, epoch: int, start: int = 0) -> Generator[Batch]:
        """Yield the batches of an epoch, beginning with number `start`."""
        check_length(self.loader)
        generator = self.loader.generator
        seed = 0 if generator is None else generator.initial_seed()

        def prepared(batch: Any, number: int) -> BatchData:
            self._preparation.converted.host_draws.position = (seed, epoch, number)
            return self._preparation(batch, train=self._train)

        compile_ahead, self._compile_ahead = self._compile_ahead, None
        if compile_ahead is not None:
            for number, batch in first_of_shapes(self.loader, epoch, start):
                compile_ahead(prepared(batch, number))
        for number, (indices, batch) in enumerate(epoch_batches(self.loader, epoch, start), start):
            positions = np.zeros(0, np.int64) if indices is None else indices
            yield Batch(prepared(batch, number), batch, positions)

    def indices(self, epoch: int, batch: int) -> list[int]:
        """Return the dataset positions of a batch's items, [] for a loader made by the user."""
        return batch_indices(self.loader, epoch, batch)
