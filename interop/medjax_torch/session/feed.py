"""Feed: passes the batches of a torch DataLoader to medjax's loop."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import numpy as np
from torch.utils.data import DataLoader

from medjax.batch import BatchData
from medjax.data import Batch
from medjax_torch.batches import batch_indices, check_length, epoch_batches
from medjax_torch.conversion import BatchAdapter
from medjax_torch.session.kept import Kept


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
    before : callable, optional
        Called with the epoch and the number of its first batch, before that is prepared.
    kept : Kept, optional
        Has what there was at the beginning of an epoch that is resumed.
    each : callable, optional
        Called before each batch is prepared.
    after : callable, optional
        Called with each batch when it is prepared, and with its number in the epoch.
    """

    def __init__(
        self,
        loader: DataLoader[Any],
        preparation: BatchAdapter,
        *,
        train: bool,
        before: Callable[[int, int], None] | None = None,
        kept: Kept | None = None,
        each: Callable[[], None] | None = None,
        after: Callable[[BatchData, int], None] | None = None,
    ) -> None:
        self.loader = loader
        self._preparation = preparation
        self._train = train
        self._before = before
        self._kept = kept
        self._each = each
        self._after = after

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return len(self.loader)

    def batches(self, epoch: int, start: int = 0) -> Generator[Batch]:
        """Yield the batches of an epoch, beginning with number `start`."""
        check_length(self.loader)
        if self._before is not None:
            self._before(epoch, start)
        at_start = self._kept.rewound() if self._kept is not None and start else None
        pairs = epoch_batches(self.loader, epoch, start, at_start)
        for number, (indices, batch) in enumerate(pairs, start):
            if self._each is not None:
                self._each()
            self._preparation.converted.host_draws.position = (epoch, number)
            device = self._preparation(batch, train=self._train)
            if self._after is not None:
                self._after(device, number)
            positions = np.zeros(0, np.int64) if indices is None else indices
            yield Batch(device, batch, positions)

    def indices(self, epoch: int, batch: int) -> list[int]:
        """Return the dataset positions of a batch's items, [] for a loader made by the user."""
        return batch_indices(self.loader, epoch, batch)
