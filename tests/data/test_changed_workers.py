"""Worker processes get what has changed between two passes over the data."""

import multiprocessing

import numpy as np
from tiny import config, mlp, one_device, points

from medjax import Options, get_dataloader

ITEMS = points(4)


class Curriculum:
    """Items that change with the epoch, which a callback sets."""

    epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return {**ITEMS[index], "x": np.full(4, self.epoch, np.float32)}


class Preprocess:
    scale = 1.0

    def __call__(self, item):
        return {**item, "x": item["x"] * self.scale}


def seen(loader, epoch):
    values = {float(x) for batch in loader.batches(epoch) for x in batch.host["x"].ravel()}
    return values, {process.pid for process in multiprocessing.active_children()}


def test_workers_get_a_changed_dataset_and_preprocess_and_otherwise_keep_running():
    data, preprocess = Curriculum(), Preprocess()
    loader = get_dataloader(
        data,
        mlp(preprocess=preprocess),
        config("unused", batch_size=2, dataloader_nb_workers=1),
        shuffle=True,
        options=Options(length_window=0),
        mesh=one_device(),
    )
    try:
        values, first = seen(loader, 1)
        assert values == {0.0}
        assert seen(loader, 2) == ({0.0}, first)
        data.set_epoch(3)
        values, second = seen(loader, 3)
        assert values == {3.0}
        assert not first & second
        preprocess.scale = 2.0
        assert seen(loader, 4)[0] == {6.0}
    finally:
        loader.close()


def test_a_dataset_that_can_no_longer_be_pickled_is_told(caplog):
    data = Curriculum()
    loader = get_dataloader(
        data,
        mlp(preprocess=Preprocess()),
        config("unused", batch_size=2, dataloader_nb_workers=1),
        shuffle=True,
        options=Options(length_window=0),
        mesh=one_device(),
    )
    try:
        data.transform = lambda item: item
        assert seen(loader, 1)[0] == {0.0}
        assert "can no longer be pickled" in caplog.text
    finally:
        loader.close()
