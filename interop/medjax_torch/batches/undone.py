"""Reading data before training without a trace: training then begins with the state of the user."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader

from medjax_torch.batches.items import ItemDataset, StreamDataset
from medjax_torch.component_state.locations import Effect
from medjax_torch.component_state.putting_back import Before
from medjax_torch.component_state.walk import Walk, walk_shallow
from medjax_torch.graph import host_random


@contextlib.contextmanager
def undone(dataset: Any, loader: DataLoader[Any] | None = None) -> Iterator[list[Effect]]:
    """Put back after the block what reading data changes in it and in the component.

    These are attributes, containers and small arrays and tensors, also of other objects that they
    hold, their random generators and the global ones. Not put back: files, globals, and what is
    inside the items of long lists.

    Parameters
    ----------
    dataset : Dataset
        The dataset of a loader: of `make_dataloader`'s, or a user's.
    loader : torch.utils.data.DataLoader, optional
        A user's loader, whose samplers and `collate_fn` are used as well.

    Yields
    ------
    list of Effect
        Empty within the block; afterwards, what had changed.
    """
    effects: list[Effect] = []
    before = Before(*_contents(dataset, loader))
    with host_random.watched(before.generators):
        try:
            yield effects
        finally:
            effects += before.put_back()
            if effects and isinstance(dataset, ItemDataset):
                dataset.discard()


def _contents(dataset: Any, loader: DataLoader[Any] | None) -> tuple[Walk, Walk]:
    """Walk through the component, then through the data."""
    code: list[Any] = []
    data = dataset
    if isinstance(dataset, ItemDataset | StreamDataset):
        work = dataset.work
        code += [work.examples.preprocess, work.collate]
        data = work.examples.dataset
    objects = [data]
    if loader is not None:
        code.append(loader.collate_fn)
        objects += [loader.sampler, loader.batch_sampler]
    component = walk_shallow(("", each) for each in code)
    return component, walk_shallow((("", each) for each in objects), component)
