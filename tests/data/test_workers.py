"""Spawned workers give the same examples, and raise errors instead of hanging."""

import multiprocessing
import os
import signal
import time

import jax
import pytest
from tiny import as_it_is, config, mlp, one_device, points

from medjax import ItemError, Options, WorkerError, get_dataloader


def loader_of(preprocess, *, workers=2, nb_items=8, **options):
    return get_dataloader(
        points(nb_items),
        mlp(preprocess=preprocess),
        config("unused", batch_size=2, dataloader_nb_workers=workers),
        shuffle=True,
        seed=3,
        options=Options(**options),
        mesh=one_device(),
    )


def report(item, rng):
    """Return facts about the worker process."""
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGUSR1)]
    name = (os.getpid(), jax.config.jax_platforms, handlers, rng.random())
    if item["name"] == "item 6":
        raise KeyError("tokens")
    return {**item, "name": name}


def dies(item):
    if item["name"] == "item 3":
        os._exit(3)
    return item


def hangs(item):
    while item["name"] == "item 3":
        time.sleep(60)
    return item


def hosts(loader, epoch, start=0, stop=None):
    batches_so_far = []
    batches = loader.batches(epoch, start)
    for batch in batches:
        batches_so_far.append((batch.indices.tolist(), batch.host["name"]))
        if len(batches_so_far) == stop:
            break
    batches.close()
    return batches_so_far


def test_workers_equal_this_process_and_name_the_item_that_raises():
    alone, spawned = (
        loader_of(report, workers=0, length_window=0),
        loader_of(report, length_window=0),
    )
    try:
        with pytest.raises(ItemError) as expected:
            hosts(alone, 1)
        with pytest.raises(ItemError, match=r"item 6 .*KeyError: 'tokens'") as caught:
            hosts(spawned, 1)
        assert caught.value.index == expected.value.index == 6
        order = [index for number in range(4) for index in _order(number)]
        before = order.index(6) // 2  # batches that come before the broken item
        assert before > 0
        from_workers, same = hosts(spawned, 1, stop=before), hosts(alone, 1, stop=before)
        assert [indices for indices, _ in from_workers] == [indices for indices, _ in same]
        reports = [name for _, names in from_workers for name in names]
        assert [draw for *_, draw in reports] == [name[-1] for _, names in same for name in names]
        assert os.getpid() not in {pid for pid, *_ in reports}
        # The accelerator is the trainer's, and so are the signals that ask it to save.
        assert {platforms for _, platforms, *_ in reports} == {"cpu"}
        assert all(set(handlers) == {signal.SIG_IGN} for _, _, handlers, _ in reports)
    finally:
        spawned.close()
    assert multiprocessing.active_children() == []


def _order(number):
    from medjax import epoch_order

    return epoch_order(3, 1, 8).tolist()[2 * number : 2 * number + 2]


@pytest.mark.parametrize(
    ("preprocess", "message"),
    [
        (dies, r"a worker process died at one of the items \[.*3.*\]"),
        (hangs, r"the workers returned no example for 2 s while processing items \[.*3.*\]"),
    ],
)
def test_a_worker_that_dies_or_hangs_is_an_error_and_leaves_no_process(preprocess, message):
    loader = loader_of(preprocess, worker_timeout=2)
    try:
        with pytest.raises(WorkerError, match=message):
            hosts(loader, 1)
    finally:
        loader.close()
    assert multiprocessing.active_children() == []


def test_what_cannot_be_pickled_is_refused_by_name():
    with pytest.raises(ValueError, match=r"the preprocess, a function, cannot be sent"):
        loader_of(lambda item: item)
    with pytest.raises(
        ValueError, match=r"the dataset, a list, cannot be sent .* define it at the top"
    ):
        get_dataloader(
            [lambda: 0],
            mlp(preprocess=as_it_is),
            config("unused", dataloader_nb_workers=1),
            shuffle=False,
            mesh=one_device(),
        )
    assert multiprocessing.active_children() == []
