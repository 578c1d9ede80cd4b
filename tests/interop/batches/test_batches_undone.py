"""Reading batches before training leaves data and component as they were."""

import io
import itertools
import random

import numpy as np
import pytest
import torch
from medkit_runs import largest_difference
from torch.utils.data import ConcatDataset, DataLoader, Dataset, SequentialSampler, Subset
from trained import DATA, Accuracy, Classifier, Tagger, make, sentences

from medjax.callbacks import TrainerCallback
from medjax_torch import Options
from medjax_torch.batches import first_batch, first_of_shapes, make_dataloader
from medjax_torch.batches.undone import undone


class Tally:
    """Counts in many ways at once."""

    __slots__ = ("__dict__", "slot")
    shared = 0

    def __init__(self):
        self.count, self.log, self.by_name, self.seen = 0, [], {"n": 0}, set()
        self.array, self.tensor, self.slot, self.last = np.zeros(3), torch.zeros(3), 0, None
        self.drawn = [np.random.default_rng(0), torch.Generator().manual_seed(0), random.Random(0)]

    def __call__(self):
        self.count += 1
        self.shared += 1
        self.slot += 1
        self.log.append(self.count)
        self.by_name["n"] += 1
        self.seen.add(self.count)
        self.array[0] += 1
        self.tensor += 1
        self.last = self.count
        own, of_torch, of_python = self.drawn
        noise = own.random() + torch.rand((), generator=of_torch).item() + of_python.random()
        return noise + self.count + float(self.tensor[0])

    def state(self):
        values = (self.count, self.shared, self.slot, self.log, self.by_name, self.seen, self.last)
        own, of_torch, of_python = self.drawn
        states = own.bit_generator.state, of_torch.get_state().tolist(), of_python.getstate()
        return repr((values, self.array, self.tensor, states))


class Points(Dataset):
    """Points that change with each that is read."""

    def __init__(self, items=DATA[:10]):
        self.items, self.tally = items, [Tally()]

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return {**self.items[index], "scale": 1 + self.tally[0]() / 500}


class Counting:
    """A component that counts in preprocess and in collate."""

    def __init__(self):
        super().__init__()
        self.tallies = {"preprocess": Tally(), "collate": Tally()}

    def preprocess(self, item):
        self.tallies["preprocess"]()
        return item

    def collate(self, examples):
        batch = super().collate(examples)
        self.tallies["collate"]()
        return batch

    def state(self):
        return [tally.state() for tally in self.tallies.values()]


class CountingClassifier(Counting, Classifier):
    """Scales the points by what was counted."""

    def __init__(self):
        super().__init__()
        self.optimizer = torch.optim.SGD

    def preprocess(self, item):
        scale = item.get("scale", 1.0) + self.tallies["preprocess"]() / 500
        return {**item, "x": item["x"] * scale}

    def collate(self, examples):
        batch = Classifier.collate(self, examples)
        batch["x"] = batch["x"] * (1 + self.tallies["collate"]() / 50)
        return batch


class CountingTagger(Counting, Tagger):
    pass


class Began(TrainerCallback):
    """Notes a state when training begins."""

    def __init__(self, state):
        self.state = state

    def on_train_begin(self, config):
        self.began = self.state()


@pytest.mark.parametrize("kind", [CountingClassifier, CountingTagger])
def test_training_begins_with_the_users_state(tmp_path, kind):
    items = DATA[:10] if kind is CountingClassifier else sentences(8)
    component, train, evaluated = kind(), Points(items), Points(items)

    def state():
        return [*component.state(), train.tally[0].state(), evaluated.tally[0].state()]

    began = Began(state)
    before = state()
    more = {} if kind is CountingTagger else {"metrics_computer": Accuracy()}
    make(
        tmp_path,
        component,
        train=ConcatDataset([train]),
        evaluated=Subset(evaluated, [0, 1, 2]),
        nb_training_epochs=1,
        callback=began,
        checkpoint_metric="accuracy" if more else "loss",
        minimize_checkpoint_metric=not more,
        **more,
    ).train()
    assert began.began == before
    assert all(one != other for one, other in zip(state(), before, strict=True))


def test_counts_and_own_generators_are_medkits(tmp_path):
    pytest.importorskip("medkit.training")
    component = CountingClassifier
    assert largest_difference(tmp_path, component, Points, lambda: Points(DATA[:5])) < 1e-5


def test_a_loader_of_the_user(tmp_path):
    class Shuffling(SequentialSampler):
        epoch = 0

        def __iter__(self):
            self.epoch += 1
            return super().__iter__()

    data, component = Points(), CountingClassifier()
    sampler = Shuffling(data)
    loader = DataLoader(data, 4, sampler=sampler, collate_fn=component.collate)
    before = data.tally[0].state(), component.state(), sampler.epoch
    first = first_batch(loader)
    assert (data.tally[0].state(), component.state(), sampler.epoch) == before
    assert torch.equal(first["x"], first_batch(loader)["x"])


def test_batches_of_other_shapes_are_read_without_a_trace():
    component = CountingTagger()
    options = Options(length_window=2)
    loader = make_dataloader(
        sentences(16), component, batch_size=4, shuffle=True, seed=3, options=options
    )
    before = component.state()
    assert list(first_of_shapes(loader, 1, 0))
    assert component.state() == before
    list(loader)
    assert component.tallies["preprocess"].count == 16


def test_cached_examples_that_count_are_made_again():
    component = CountingClassifier()
    options = Options(cache_preprocessed=True)
    loader = make_dataloader(
        DATA[:8], component, batch_size=4, shuffle=True, seed=3, options=options
    )
    first_batch(loader)
    list(loader)
    list(loader)
    assert component.tallies["preprocess"].count == 8


def test_only_counts_make_batches_depend_on_those_before():
    class Filling(Classifier):
        """Fills a cache, which is no count."""

        def __init__(self):
            super().__init__()
            self.cache, self.is_ready, self.name = {}, False, "A"

        def preprocess(self, item):
            self.is_ready = True
            self.name = self.name.upper()
            return self.cache.setdefault(len(self.cache), item)

    draws = []
    for component in (Filling(), CountingTagger(), Classifier()):
        items = sentences(8) if isinstance(component, Tagger) else DATA[:8]
        loader = make_dataloader(items, component, batch_size=4, shuffle=True, seed=3)
        first_batch(loader)
        draws.append(loader.dataset.work.draws)
    assert draws == [False, True, False]


def test_what_is_read_of_an_open_file_stays_noted():
    class Lines:
        def __init__(self):
            self.file, self.position, self.other = io.StringIO("a\nb\n"), 0, [0]

    data = Lines()
    with undone(data) as effects:
        data.file.readline()
        data.position += 1
        data.other[0] += 1
    assert (data.position, data.other) == (1, [0])
    assert [effect.path for effect in effects] == ["other"]


def test_long_lists_are_not_entered():
    class Item:
        copies = itertools.count()

        def __getattribute__(self, name):
            next(Item.copies)
            return super().__getattribute__(name)

    class Items(list):
        count = 0

    data = Items(Item() for _ in range(100))
    data.count = 0
    with undone(data):
        data.append(1)
        data.count += 1
    assert (len(data), data.count) == (100, 0)
    assert next(Item.copies) == 0
