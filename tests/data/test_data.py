"""Data loading: order, grouping, the ladder, refusals, and resuming at any position."""

import itertools
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loading import loader_of, stream
from tiny import collate_sentences, mlp, points, sentences, tagger

from medjax import ROW_MASK, BatchData, ItemError, epoch_order
from medjax.data.ladder import Ladder
from medjax.data.order import batches_by_rung

SENTENCES = sentences(53)
NARROW = Ladder((4, 8), {"input_ids": 0, "labels": -100})


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**63 - 1), st.integers(0, 1000), st.integers(1, 200))
def test_an_order_is_a_permutation_and_pure(seed, epoch, count):
    order = epoch_order(seed, epoch, count)
    assert sorted(order.tolist()) == list(range(count))
    assert order.dtype == np.int64
    np.random.seed(0)  # the global generator has no say
    assert epoch_order(seed, epoch, count).tolist() == order.tolist()


def test_orders_differ_with_epoch_and_with_every_bit_of_the_seed():
    orders = {
        tuple(epoch_order(seed, epoch, 50)) for seed in (0, 1, 2**32, 2**62) for epoch in (0, 1, 2)
    }
    assert len(orders) == 12


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=40), st.integers(1, 9), st.booleans())
def test_grouping_uses_every_item_once(lengths, size, shuffle):
    batches = batches_by_rung(lengths, size, seed=1, epoch=2, window=3, shuffle=shuffle)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert all(len(batch) == size for batch in batches[:-1])
    spans = sorted((min(lengths[i] for i in b), max(lengths[i] for i in b)) for b in batches)
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans))


@pytest.mark.parametrize("window", [0, 1, 3, 50])
@pytest.mark.parametrize("shuffle", [True, False])
def test_every_item_is_used_once_an_epoch(window, shuffle):
    loader = loader_of(SENTENCES, tagger(), shuffle=shuffle, length_window=window)
    for epoch in (1, 2):
        batches = [indices for indices, _ in stream(loader, epoch)]
        assert len(batches) == len(loader) == 14
        assert sorted(itertools.chain(*batches)) == list(range(53))
        assert [len(batch) for batch in batches] == [4] * 13 + [1]


@pytest.mark.parametrize("window", [0, 3])
def test_the_batches_can_start_at_any_position(window):
    loader = loader_of(SENTENCES, tagger(), length_window=window)
    batches = stream(loader, 2)
    for start in (1, 2, 3, 4, 11, 13, 14):
        fresh = loader_of(SENTENCES, tagger(), length_window=window)
        assert stream(fresh, 2, start) == batches[start:]
    assert stream(loader, 2) == batches
    assert stream(loader, 3) != batches
    assert stream(loader_of(SENTENCES, tagger(), seed=4, length_window=window), 2) != batches
    assert [loader.indices(2, number) for number in (0, 5, 13)] == [
        batches[number][0] for number in (0, 5, 13)
    ]


def test_items_before_the_position_are_not_read():
    read = []

    class Data(list):
        def __getitem__(self, index):
            read.append(index)
            return super().__getitem__(index)

    loader = loader_of(Data(SENTENCES), tagger(), length_window=0, length_ladder=(16, 64))
    taken = [indices for indices, _ in stream(loader, 1, 10)]
    assert sorted(read) == sorted(itertools.chain(*taken))


def test_grouping_by_length_saves_padding():
    def cells(window):
        loader = loader_of(
            sentences(200), tagger(), length_window=window, length_ladder=range(1, 31)
        )
        return sum(batch.device["input_ids"].size for batch in loader.batches(1))

    assert cells(50) < 0.7 * cells(0)


def test_an_unshuffled_loader_keeps_the_order_without_a_window():
    loader = loader_of(SENTENCES, tagger(), shuffle=False, length_window=0)
    assert list(itertools.chain(*(indices for indices, _ in stream(loader, 5)))) == list(range(53))
    assert stream(loader, 5) == stream(loader, 6)


def test_the_host_batch_is_what_collate_returned_and_the_device_batch_is_padded():
    loader = loader_of(SENTENCES, tagger(), length_window=0)
    batches = list(loader.batches(1))
    for batch in batches:
        items = [SENTENCES[i] for i in batch.indices]
        expected = collate_sentences(items)
        assert batch.host["length"] == expected["length"]
        assert batch.host["input_ids"].tolist() == expected["input_ids"].tolist()
        rows, longest = expected["input_ids"].shape
        device = {name: np.asarray(column) for name, column in batch.device.items()}
        assert set(device) == {"input_ids", "labels", ROW_MASK}
        assert device["input_ids"].shape[0] == 4
        assert device["input_ids"].shape[1] in loader.lengths
        assert device["labels"].shape == device["input_ids"].shape
        assert device["input_ids"][:rows, :longest].tolist() == expected["input_ids"].tolist()
        assert (device["input_ids"][:, longest:] == 0).all()
        assert (device["labels"][:, longest:] == -100).all()
        assert device[ROW_MASK].tolist() == [1.0] * rows + [0.0] * (4 - rows)
        assert (device["input_ids"][rows:] == device["input_ids"][0]).all()
    assert loader.nb_shapes == len({b.device["input_ids"].shape for b in batches})


def test_too_many_shapes_name_the_column():
    def collate(examples):
        longest = max(len(example["input_ids"]) for example in examples)
        return BatchData(features=np.zeros((len(examples), longest)), other=np.zeros(len(examples)))

    loader = loader_of(SENTENCES, tagger(collate=collate), max_shapes=3, length_window=0)
    with pytest.raises(ValueError, match=r"after 3 others: column 'features' \(4, \d+\)") as caught:
        list(loader.batches(1))
    assert "'other'" not in str(caught.value)
    assert loader.nb_shapes == 3
    padded = loader_of(
        SENTENCES, tagger(collate=collate), max_shapes=3, length_window=0, padding={"features": 7}
    )
    assert all(batch.device["features"].shape[1] in (16, 24, 32) for batch in padded.batches(1))


def test_a_ragged_column_that_is_not_padded_is_named_once(caplog):
    def collate(examples):
        longest = max(len(example["input_ids"]) for example in examples)
        return BatchData(features=np.zeros((len(examples), longest)), other=np.zeros(len(examples)))

    list(loader_of(SENTENCES, tagger(collate=collate), length_window=0).batches(1))
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 1
    assert re.match(r"The column 'features' has had the lengths (\d+, ){3}\d+, .*\{'f", messages[0])
    caplog.clear()
    padded = {"length_window": 0, "padding": {"features": 0}}
    list(loader_of(SENTENCES, tagger(collate=collate), **padded).batches(1))
    assert not caplog.records


def test_a_hugging_face_column_can_be_left_as_it_is():
    def collate(examples):
        return BatchData(collate_sentences(examples), labels=np.zeros((len(examples), 3)))

    options = {"padding": {"labels": None}, "length_ladder": (64,)}
    loader = loader_of(SENTENCES[:4], tagger(collate=collate), **options)
    (batch,) = loader.batches(1)
    assert batch.device["labels"].shape == (4, 3)
    assert batch.device["input_ids"].shape == (4, 64)


def test_collate_must_return_a_row_for_each_example():
    loader = loader_of(
        SENTENCES[:7], tagger(collate=lambda examples: collate_sentences(examples[:-1] or examples))
    )
    with pytest.raises(ValueError, match=r"collate returned 3 rows for 4 examples"):
        list(loader.batches(1))


def test_an_item_that_raises_is_reported_with_its_index():
    def preprocess(item):
        if item["name"] == "item 5":
            raise KeyError("tokens")
        return item

    loader = loader_of(points(8), mlp(preprocess=preprocess))
    with pytest.raises(ItemError, match=r"item 5 .* KeyError: 'tokens'") as caught:
        list(loader.batches(1))
    assert caught.value.index == 5
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_cache_preprocesses_each_item_once():
    calls = []

    def preprocess(item):
        calls.append(item["name"])
        return item

    data = points(10)
    fixed = {"length_window": 2, "length_ladder": (8,)}  # nothing is measured
    plain = loader_of(data, mlp(preprocess=preprocess), **fixed)
    expected = [stream(plain, epoch) for epoch in (1, 2)]
    assert len(calls) == 20
    calls.clear()
    cached = loader_of(data, mlp(preprocess=preprocess), **fixed, cache_preprocessed=True)
    assert [stream(cached, epoch) for epoch in (1, 2)] == expected
    assert sorted(calls) == sorted(item["name"] for item in data)


def with_noise(item, rng):
    return {**item, "x": item["x"] + rng.normal(size=4)}


def test_augmentation_depends_on_seed_epoch_and_item_alone():
    data = points(10)

    def drawn(loader, epoch, start=0):
        by_index = {}
        for batch in loader.batches(epoch, start):
            by_index |= dict(zip(batch.indices.tolist(), batch.host["x"].tolist(), strict=True))
        return by_index

    component = mlp(preprocess=with_noise)
    first = drawn(loader_of(data, component), 1)
    assert drawn(loader_of(data, component, batch_size=3, length_window=0), 1) == first
    later = drawn(loader_of(data, component), 1, 2)
    assert later == {index: first[index] for index in later}
    for other in (
        drawn(loader_of(data, component), 2),
        drawn(loader_of(data, component, seed=9), 1),
    ):
        assert all(other[index] != first[index] for index in first)
    noise = [np.array(first[i]) - data[i]["x"] for i in (0, 1)]
    assert not np.allclose(*noise)


def test_a_cache_and_augmentation_exclude_each_other():
    with pytest.raises(ValueError, match=r"cache_preprocessed=True .* draws from rng="):
        loader_of(points(4), mlp(preprocess=with_noise), cache_preprocessed=True)


def test_items_are_evaluated_as_they_are():
    def preprocess(item, rng=None):
        return item if rng is None else with_noise(item, rng)

    plain, noisy = mlp(), mlp(preprocess=preprocess)
    data = points(10)
    for cached in (False, True):  # nothing is drawn, so the results may be kept
        found = loader_of(data, noisy, shuffle=False, cache_preprocessed=cached)
        assert stream(found, 1) == stream(loader_of(data, plain, shuffle=False), 1)
    assert stream(loader_of(data, noisy), 1) != stream(loader_of(data, plain), 1)
    with pytest.raises(ValueError, match="rng without a default, and in evaluation nothing is"):
        loader_of(data, mlp(preprocess=with_noise), shuffle=False)


class Minimal:
    """Has a length and items, and nothing else."""

    def __init__(self, items):
        self._items = items

    def __len__(self):
        return len(self._items)

    def __getitem__(self, index):
        assert type(index) is int
        return self._items[index]


class TorchData(Minimal, torch.utils.data.Dataset):
    pass


@pytest.mark.parametrize("kind", [Minimal, TorchData, tuple])
def test_any_dataset_is_accepted(kind):
    expected = stream(loader_of(SENTENCES, tagger()), 1)
    assert stream(loader_of(kind(SENTENCES), tagger()), 1) == expected


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "the data, a list, has no items; expected at least one"),
        (Minimal([]), "the data, a Minimal, has no items"),
        (iter([1]), "the data is a list_iterator; expected an object with __len__"),
        ({1, 2}, "the data is a set; expected"),
        (None, "the data is a NoneType"),
    ],
)
def test_data_without_items_or_length(data, message):
    with pytest.raises(ValueError, match=message):
        loader_of(data, mlp())
