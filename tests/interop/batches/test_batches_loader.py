"""The drop-in's loaders: accepted and refused data, workers, and users' loaders."""

import itertools
import multiprocessing
import os

import numpy as np
import pytest
import torch
from sentence_data import (
    SENTENCES,
    Batch,
    DyingComponent,
    HangingComponent,
    RandomComponent,
    SentenceComponent,
    TellingComponent,
    arguments_of,
)
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    IterableDataset,
    Subset,
    WeightedRandomSampler,
)

from medjax import ItemError, Sampled, WorkerError, epoch_order
from medjax_torch.batches import (
    check_draws,
    close_workers,
    epoch_batches,
    first_batch,
    make_dataloader,
)


class Stream(IterableDataset):
    def __init__(self, items, length):
        self.items = items
        self.length = length

    def __iter__(self):
        return iter(self.items)

    def __len__(self):
        return self.length


class Endless(IterableDataset):
    def __iter__(self):
        return iter(SENTENCES)


class Unsized(torch.utils.data.Dataset):
    def __getitem__(self, index):
        return SENTENCES[index]


def loader_of(data=SENTENCES, component=None, *, batch_size=4, shuffle=False, **options):
    component = component or SentenceComponent()
    return make_dataloader(
        data, component, batch_size=batch_size, shuffle=shuffle, seed=3, **arguments_of(options)
    )


def lengths(loader, epoch=1, start=0):
    return [batch["labels"][:, 0].tolist() for _, batch in epoch_batches(loader, epoch, start)]


EXPECTED = lengths(loader_of())


def test_a_batch_is_what_the_components_collate_returns():
    component = SentenceComponent()
    loader = loader_of(component=component)
    assert isinstance(loader, DataLoader)
    assert loader.collate_fn == component.collate
    assert component.preprocessed == []  # items are preprocessed on demand
    batch = next(iter(loader))
    assert type(batch) is Batch
    assert batch["input_ids"].shape == (4, max(map(len, SENTENCES[:4])))
    assert component.preprocessed == list(map(tuple, SENTENCES[:4]))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"drop_last": True},
        {"length_window": 2},
        {"cache_preprocessed": True, "length_window": 2, "order": "uniform"},
        {"order": "medkit"},
    ],
    ids=["plain", "drop_last", "grouped", "cached", "medkit"],
)
def test_batches_equal_those_of_torchs_iterator(options):
    loader, again = (loader_of(shuffle=True, **options) for _ in range(2))
    for epoch in (1, 2):
        again.sampler.epoch = epoch
        expected = list(again)
        batches = [batch for _, batch in epoch_batches(loader, epoch)]
        assert len(batches) == len(expected) == len(loader)
        for ours, theirs in zip(batches, expected, strict=True):
            assert ours.keys() == theirs.keys()
            assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_users_dataset_may_be_read_in_our_order():
    ours = loader_of(shuffle=True)
    rows = [ours.dataset[index] for index in range(len(ours.dataset))]
    theirs = DataLoader(rows, batch_size=4, sampler=ours.sampler, collate_fn=ours.collate_fn)
    expected = lengths(loader_of(shuffle=True))
    assert lengths(theirs) == expected
    assert first_batch(theirs)["labels"][:, 0].tolist() == expected[0]


def test_map_style_datasets_of_every_kind_are_read():
    concatenated = ConcatDataset([SENTENCES[:5], Subset(SENTENCES, range(5, 23))])
    assert lengths(loader_of(concatenated)) == EXPECTED
    assert lengths(loader_of(tuple(SENTENCES))) == EXPECTED
    assert lengths(loader_of(np.array(SENTENCES, dtype=object))) == EXPECTED


def test_a_hugging_face_dataset_is_read():
    datasets = pytest.importorskip("datasets")

    class Component(SentenceComponent):
        def preprocess(self, item):
            return super().preprocess(item["words"])

    data = datasets.Dataset.from_dict({"words": SENTENCES})
    assert lengths(loader_of(data, Component(), length_window=0)) == EXPECTED


def test_a_stream_keeps_its_order_and_can_start_at_any_batch():
    loader = loader_of(Stream(SENTENCES, 23), shuffle=True)
    assert len(loader) == 6
    assert lengths(loader, epoch=2) == EXPECTED
    batches = list(epoch_batches(loader, 3, start=4))
    assert [indices.tolist() for indices, _ in batches] == [[16, 17, 18, 19], [20, 21, 22]]
    assert [batch["labels"][:, 0].tolist() for _, batch in batches] == EXPECTED[4:]


@pytest.mark.parametrize(
    ("length", "message"),
    [
        (25, r"a Stream, has length 25 but ends after 23"),
        (20, r"length 20 but yields more items"),
    ],
)
def test_a_stream_with_a_wrong_length_is_refused(length, message):
    with pytest.raises(ValueError, match=message):
        lengths(loader_of(Stream(SENTENCES, length)))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Endless(), r"the data is a Endless, a stream without a length; expected one with __len__"),
        (Stream([], 0), r"the data, a Stream, has no items"),
        (Sampled(SENTENCES, [1] * len(SENTENCES)), r"by whose weights only medjax.train draws"),
        ([], r"the data, a list, has no items; expected at least one"),
        (Unsized(), r"the data is a Unsized; expected an object with __len__ and __getitem__"),
        (None, r"the data is a NoneType; expected"),
        (iter(SENTENCES), r"the data is a list_iterator; .* Turn a stream into a list first"),
    ],
)
def test_data_without_a_length_or_items_is_refused(data, message):
    with pytest.raises(ValueError, match=message):
        loader_of(data)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": "random"}, r"Options.order is 'random'; expected one of 'uniform', 'medkit'"),
        ({"order": "medkit", "length_window": 5}, r"with length_window=5, which changes the order"),
        ({"cache_preprocessed": True, "nb_workers": 2}, r"dataloader_nb_workers=2, as each worker"),
        ({"data": Stream([1], 1), "nb_workers": 2}, r"each worker would read all of it"),
        (
            {"data": Stream([1], 1), "cache_preprocessed": True},
            r"the data is a stream; set cache_preprocessed",
        ),
        (
            {"component": RandomComponent(), "shuffle": True, "cache_preprocessed": True},
            r"this preprocess draws from rng=",
        ),
    ],
)
def test_conflicting_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        loader_of(**options)


@pytest.mark.parametrize("window", [0, 2])
def test_a_failing_item_is_named(window):
    data = [*SENTENCES[:9], None, *SENTENCES[10:]]
    with pytest.raises(ItemError, match=r"item 9 of the dataset .*TypeError") as caught:
        lengths(loader_of(data, length_window=window))
    assert caught.value.index == 9
    assert isinstance(caught.value.__cause__, TypeError)
    with pytest.raises(ItemError, match=r"item 9 "):
        lengths(loader_of(Stream(data, 23)))


@pytest.mark.parametrize("window", [0, 2])
def test_a_cache_preprocesses_once_and_survives_a_collate_that_removes_columns(window):
    class Component(SentenceComponent):
        def collate(self, examples):
            batch = super().collate(examples)
            for example in examples:
                del example["labels"]
            return batch

    component = Component()
    loader = loader_of(
        component=component, shuffle=True, cache_preprocessed=True, length_window=window
    )
    first, again = lengths(loader, 1), lengths(loader, 1)
    assert first == again
    lengths(loader, 2)
    assert len(component.preprocessed) == 23


def test_a_collate_that_returns_no_mapping_is_refused():
    component = SentenceComponent()
    component.collate = torch.tensor
    component.preprocess = len
    with pytest.raises(TypeError, match=r"collate returned a Tensor; expected a mapping"):
        lengths(loader_of(component=component))


def test_a_users_loader_is_read_in_its_own_order():
    weighted = WeightedRandomSampler([1.0] * 23, 10, generator=torch.Generator().manual_seed(1))
    component = SentenceComponent()
    ours = loader_of(component=component)
    theirs = DataLoader(ours.dataset, 4, sampler=weighted, collate_fn=ours.collate_fn)
    batches = list(epoch_batches(theirs, 1))
    assert [(indices, len(batch["labels"])) for indices, batch in batches] == [
        (None, 4),
        (None, 4),
        (None, 2),
    ]
    weighted.generator.manual_seed(1)
    ((_, last),) = epoch_batches(theirs, 1, start=2)
    assert torch.equal(last["input_ids"], batches[2][1]["input_ids"])
    # Our sampler in a loader with another batch size: items are in our order, batches are not ours.
    other = DataLoader(ours.dataset, 5, sampler=ours.sampler, collate_fn=ours.collate_fn)
    assert lengths(other, start=1)[0] == [*EXPECTED[1][1:], *EXPECTED[2][:2]]


def test_a_users_loader_leaves_its_generator_as_a_loop_of_torch_does():
    own, another = (torch.Generator().manual_seed(3) for _ in range(2))
    ours, theirs = (
        DataLoader(range(10), 4, shuffle=True, generator=each, collate_fn=lambda x: {"x": x})
        for each in (own, another)
    )
    batches = epoch_batches(ours, 1)
    read = [next(batches)[1] for _ in range(len(ours))]
    batches.close()
    assert read == list(theirs)
    assert torch.equal(own.get_state(), another.get_state())


def test_workers_return_the_same_batches_and_leave_the_accelerator_and_signals_alone():
    loader = loader_of(list(range(6)), TellingComponent(), batch_size=2, nb_workers=2, shuffle=True)
    try:
        left = epoch_batches(loader, 3)
        assert next(left)[0].tolist() == epoch_order(3, 3, 6).tolist()[:2]
        left.close()
        for epoch in (1, 2):
            batches = list(epoch_batches(loader, epoch, start=1))
            told = [one for _, batch in batches for one in batch["told"]]
            assert [item for *_, item in told] == np.concatenate([i for i, _ in batches]).tolist()
            assert {tuple(rest) for _, *rest, _ in told} == {("cpu", True)}
            processes = {process.pid for process in multiprocessing.active_children()}
            assert len(processes) == 2  # they keep running
            assert {pid for pid, *_ in told} <= processes - {os.getpid()}
    finally:
        close_workers(loader)
    assert multiprocessing.active_children() == []


def test_workers_see_the_epoch_name_a_failing_item_and_stop():
    component = RandomComponent()
    arguments = {"component": component, "length_window": 2, "shuffle": True}
    here = loader_of(SENTENCES[:6], **arguments)
    there = loader_of(SENTENCES[:6], **arguments, nb_workers=1)
    for (_, batch), (_, same) in zip(epoch_batches(there, 2), epoch_batches(here, 2), strict=True):
        assert torch.equal(batch["input_ids"], same["input_ids"])
    assert multiprocessing.active_children() == []
    failing = loader_of(list(range(9)), TellingComponent(), nb_workers=1)
    with pytest.raises(
        ItemError, match=r"item 6 of the dataset .*: KeyError: 'tokens'; f"
    ) as caught:
        list(epoch_batches(failing, 1))
    assert caught.value.index == 6
    assert multiprocessing.active_children() == []


def test_a_worker_that_dies_is_an_error_and_leaves_no_process():
    loader = loader_of(list(range(9)), DyingComponent(), nb_workers=1)
    with pytest.raises(
        WorkerError, match=r"died while processing items \[0, 1, 2, 3\].*notebook.*workers=0"
    ):
        list(epoch_batches(loader, 1))
    assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_a_worker_that_hangs_is_an_error_and_leaves_no_process():
    loader = loader_of(list(range(9)), HangingComponent(), nb_workers=1, worker_timeout=1)
    with pytest.raises(
        WorkerError, match=r"no batch for 1 s; they were processing items \[0, 1, 2, 3\]"
    ):
        list(epoch_batches(loader, 1))
    assert multiprocessing.active_children() == []


def test_objects_that_cannot_be_pickled_are_named():
    component = SentenceComponent()
    component.tokenizer = lambda: 0
    with pytest.raises(ValueError, match=r"the component, a SentenceComponent, .*nb_workers=0"):
        loader_of(component=component, nb_workers=1)
    component.tokenizer, component.collate = None, lambda examples: {}
    with pytest.raises(ValueError, match=r"the component, a SentenceComponent, cannot be sent"):
        loader_of(component=component, nb_workers=1)
    del component.collate
    with pytest.raises(ValueError, match=r"the dataset, a list, cannot be sent to worker"):
        loader_of([lambda: 0], nb_workers=1)


def test_evaluation_draws_nothing_and_training_on_its_loader_is_refused():
    def inputs(loader):
        return [batch["input_ids"].tolist() for _, batch in epoch_batches(loader, 1)]

    loader = loader_of(SENTENCES[:6], RandomComponent())
    assert inputs(loader) == inputs(loader_of(SENTENCES[:6]))
    with pytest.raises(ValueError, match="the loader to train on was made with shuffle=False"):
        check_draws(loader)
    check_draws(loader_of(SENTENCES[:6], RandomComponent(), shuffle=True))
    check_draws(loader_of(SENTENCES[:6]))


@pytest.mark.parametrize("data", [SENTENCES[:6], Stream(SENTENCES[:6], 6)])
def test_the_default_of_rng_applies_as_in_medkit(data):
    class Noisy(SentenceComponent):
        def preprocess(self, item, rng=None):
            assert rng is None
            return super().preprocess(item)

    for shuffle in (True, False):
        loader = loader_of(data, Noisy(), shuffle=shuffle)
        assert sorted(itertools.chain(*lengths(loader))) == sorted(map(len, SENTENCES[:6]))
        check_draws(loader)
