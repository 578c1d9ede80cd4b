"""Loaders of small datasets, and what they yield."""

import numpy as np
from tiny import config, one_device

from medjax import Options, get_dataloader


def loader_of(data, component, *, shuffle=True, seed=3, batch_size=4, workers=0, **options):
    return get_dataloader(
        data,
        component,
        config("unused", batch_size=batch_size, dataloader_nb_workers=workers),
        shuffle=shuffle,
        seed=seed,
        options=Options(**options),
        mesh=one_device(),
    )


def stream(loader, epoch, start=0):
    """Return what the loader yields, in a form that compares."""
    return [
        (
            batch.indices.tolist(),
            {name: np.asarray(column).tolist() for name, column in batch.device.items()},
        )
        for batch in loader.batches(epoch, start)
    ]
