"""The order of the drop-in's loaders: medkit's, medjax's, and starting at any epoch."""

import itertools
import warnings

import numpy as np
import pytest
import torch
from sentence_data import SENTENCES, RandomComponent, SentenceComponent, arguments_of
from tiny import mlp, one_device
from torch.utils.data import DataLoader

from medjax import BatchData, Options, TrainerConfig, epoch_order, get_dataloader
from medjax_torch.batches import (
    epoch_batches,
    first_of_shapes,
    make_dataloader,
    medkit_order,
    reseed,
)


def loader_of(component=None, data=SENTENCES, *, batch_size=4, shuffle=True, seed=3, **options):
    component = component or SentenceComponent()
    return make_dataloader(
        data, component, batch_size=batch_size, shuffle=shuffle, seed=seed, **arguments_of(options)
    )


def rows(loader, epoch, start=0):
    return [indices.tolist() for indices, _ in epoch_batches(loader, epoch, start)]


def flat(lists):
    return list(itertools.chain.from_iterable(lists))


@pytest.mark.parametrize(("seed", "nb_items"), [(0, 1), (7, 2), (42, 10), (2**40, 33)])
def test_medkit_order_equals_that_of_medkits_loaders_over_epochs(seed, nb_items):
    torch.manual_seed(seed)
    train = DataLoader(range(nb_items), batch_size=3, shuffle=True)
    evaluation = DataLoader(range(5), batch_size=3, shuffle=False)
    for epoch in range(1, 8):
        actual = torch.cat(list(train)).tolist()
        assert medkit_order(seed, epoch, nb_items).tolist() == actual
        list(evaluation)


def test_medkit_order_equals_that_of_medkits_trainer(tmp_path):
    training = pytest.importorskip("medkit.training")

    class Component(SentenceComponent):
        device = torch.device("cpu")
        seen = None

        def configure_optimizer(self, lr):
            return torch.optim.SGD(self.weight.parameters(), lr)

        def collate(self, examples):
            return training.BatchData(super().collate(examples))

        def forward(self, input_batch, *, return_loss, eval_mode):
            if not eval_mode:
                self.seen.append(input_batch["input_ids"].sum(1).tolist())
            return input_batch, self.weight.weight.sum()

        def save(self, path):
            pass

    data = [[number + 1] for number in range(11)]
    component = Component()
    component.seen = []
    config = training.TrainerConfig(tmp_path, batch_size=4, seed=5, checkpoint_period=0)
    quiet = training.TrainerCallback()
    quiet.on_epoch_end = lambda **_: None
    trainer = training.Trainer(component, config, data, data[:3], callback=quiet)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # medkit's utcnow
        trainer.train()
    ours = loader_of(component, data, seed=5, order="medkit")
    actual = [
        batch["input_ids"].sum(1).tolist()
        for epoch in (1, 2, 3)
        for _, batch in epoch_batches(ours, epoch)
    ]
    assert actual == component.seen


def test_uniform_order_equals_medjaxs_and_is_sequential_without_shuffle():
    loader = loader_of()
    for epoch in (1, 7):
        assert flat(rows(loader, epoch)) == epoch_order(3, epoch, 23).tolist()
    assert flat(rows(loader_of(shuffle=False), 4)) == list(range(23))


@pytest.mark.parametrize("options", [{}, {"order": "medkit"}, {"length_window": 2}])
@pytest.mark.parametrize("component", [SentenceComponent, RandomComponent])
def test_any_epoch_and_batch_can_be_read_without_the_previous_ones(component, options):
    complete = loader_of(component(), **options)
    epochs = {epoch: list(epoch_batches(complete, epoch)) for epoch in (1, 2, 3)}
    for epoch, start in itertools.product((3, 1), (0, 1, 3, 5, 6)):
        actual = list(epoch_batches(loader_of(component(), **options), epoch, start))
        expected = epochs[epoch][start:]
        assert [i.tolist() for i, _ in actual] == [i.tolist() for i, _ in expected]
        for (_, batch), (_, same) in zip(actual, expected, strict=True):
            assert torch.equal(batch["input_ids"], same["input_ids"])
    assert sorted(flat(i.tolist() for i, _ in epochs[2])) == list(range(23))
    assert rows(complete, 1) != rows(complete, 2)


@pytest.mark.parametrize("shuffle", [True, False])
def test_grouped_batches_equal_those_of_medjax(shuffle):
    functional = mlp(
        preprocess=lambda item: {"input_ids": np.array(item)},
        collate=lambda examples: BatchData(rows=np.zeros(len(examples))),
    )
    theirs = get_dataloader(
        SENTENCES,
        functional,
        TrainerConfig("unused", batch_size=4),
        shuffle=shuffle,
        seed=3,
        options=Options(length_window=2, length_ladder=(4, 8, 16, 32)),
        mesh=one_device(),
    )
    ours = loader_of(shuffle=shuffle, length_window=2, length_ladder=(4, 8, 16, 32))
    for epoch, start in ((1, 0), (2, 3)):
        actual = [batch.indices.tolist() for batch in theirs.batches(epoch, start)]
        assert rows(ours, epoch, start) == actual


def test_grouping_preprocesses_each_item_once_per_epoch_and_keeps_one_window():
    component = SentenceComponent()
    loader = loader_of(component, length_window=2)
    for epoch in (1, 2):
        component.preprocessed.clear()
        for number, (indices, batch) in enumerate(epoch_batches(loader, epoch)):
            assert batch["labels"][:, 0].tolist() == [len(SENTENCES[i]) for i in indices]
            if epoch == 1:  # a window at a time
                assert len(component.preprocessed) == min(8 * (number // 2 + 1), 23)
        assert sorted(component.preprocessed) == sorted(map(tuple, SENTENCES))


def test_an_epoch_that_stops_early_leaves_no_examples_to_the_next():
    loader = loader_of(RandomComponent(), length_window=2)
    left = epoch_batches(loader, 1)
    next(left)
    left.close()
    fresh = loader_of(RandomComponent(), length_window=2)
    for (_, batch), (_, same) in zip(
        epoch_batches(loader, 2), epoch_batches(fresh, 2), strict=True
    ):
        assert torch.equal(batch["input_ids"], same["input_ids"])


def test_grouped_batches_are_of_similar_length():
    def spread(loader):
        lengths = [[len(SENTENCES[i]) for i in batch] for batch in rows(loader, 1)]
        return sum(max(batch) - min(batch) for batch in lengths)

    every = range(1, 31)
    assert spread(loader_of(length_window=6, length_ladder=every)) < spread(loader_of()) / 3


def test_without_ragged_columns_grouping_measures_one_item_per_window():
    component = SentenceComponent()
    padding = {"input_ids": None, "labels": None}
    loader = loader_of(component, length_window=6, padding=padding)
    assert sorted(flat(rows(loader, 1))) == list(range(23))
    assert len(component.preprocessed) == 23


def test_lengths_are_those_of_the_longest_ragged_list_or_tensor():
    class Component(SentenceComponent):
        def preprocess(self, item):
            return {"input_ids": [1], "words": torch.ones(item), "other": [0] * 99, "labels": [1]}

    lengths = [5, 1, 4, 2, 3, 6]
    loader = loader_of(
        Component(),
        lengths,
        batch_size=2,
        shuffle=False,
        length_window=3,
        padding={"words": 0},
        length_ladder=range(1, 9),
    )
    assert rows(loader, 1) == [[1, 3], [4, 2], [0, 5]]


def test_global_generators_are_neither_used_nor_changed():
    component = SentenceComponent()
    generators = torch.random.get_rng_state(), np.random.get_state()[1]
    for options in ({"order": "medkit"}, {"length_window": 2}, {"shuffle": False}):
        loader = loader_of(component, **options)
        list(loader)
        rows(loader, 2)
    assert torch.equal(generators[0], torch.random.get_rng_state())
    assert (generators[1] == np.random.get_state()[1]).all()


def test_the_position_can_be_set_and_start_applies_to_one_iteration():
    loader = loader_of(shuffle=True)
    loader.sampler.epoch, loader.sampler.start = 2, 4
    assert (len(loader), len(list(loader)), len(list(loader))) == (6, 2, 6)
    assert flat(rows(loader, 2)) == epoch_order(3, 2, 23).tolist()
    assert (loader.batch_size, loader.drop_last) == (4, False)


def test_drop_last_drops_the_short_batch():
    loader = loader_of(drop_last=True)
    assert len(loader) == len(rows(loader, 1)) == 5
    assert flat(rows(loader, 1)) == epoch_order(3, 1, 23).tolist()[:20]
    with pytest.raises(ValueError, match=r"23 items, fewer than batch_size=24, so drop_last=True"):
        loader_of(drop_last=True, batch_size=24)


@pytest.mark.parametrize("start", [0, 1, 3])
def test_the_first_batches_of_all_shapes_are_those_of_the_epoch(start):
    ladder = (4, 8, 16)
    loader = loader_of(length_window=3, length_ladder=ladder)
    torch_state = torch.get_rng_state()
    firsts = dict(first_of_shapes(loader, 2, start))
    assert torch.equal(torch.get_rng_state(), torch_state)

    def shape(batch):
        rows, length = batch["input_ids"].shape
        return rows, next(rung for rung in ladder if rung >= length)

    window = 3 - start % 3
    batches = [batch for _, batch in itertools.islice(epoch_batches(loader, 2, start), window)]
    shapes = [shape(batch) for batch in batches]
    assert [*firsts] == [start + shapes.index(each) for each in dict.fromkeys(shapes)]
    for number, batch in firsts.items():
        assert torch.equal(batch["input_ids"], batches[number - start]["input_ids"])


def test_no_first_batches_of_random_items_or_without_groups():
    random = loader_of(RandomComponent(), length_window=3)
    assert [*first_of_shapes(random, 1, 0)] == []
    assert [*first_of_shapes(loader_of(length_window=0), 1, 0)] == []


def test_workers_draw_other_numbers_for_each_seed_and_phase():
    loaders = {
        (seed, shuffle): loader_of(seed=seed, shuffle=shuffle)
        for seed in (1, 2)
        for shuffle in (False, True)
    }
    seeds = {key: loader.generator.initial_seed() for key, loader in loaders.items()}
    assert len(set(seeds.values())) == 4
    for shuffle in (False, True):
        reseed(loaders[1, shuffle], 2)
        assert loaders[1, shuffle].generator.initial_seed() == seeds[2, shuffle]
