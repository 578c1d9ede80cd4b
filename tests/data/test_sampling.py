"""Datasets of which some items are drawn more often than others."""

import re

import numpy as np
import pytest
from tiny import config, mlp, one_device, points, same_bits

import medjax
from medjax import Options, Sampled
from medjax.data.order import drawn_order

DATA = points(60)
WEIGHTS = np.arange(60.0)


def test_items_are_drawn_in_proportion_to_their_weights():
    counts = np.zeros(60)
    for epoch in range(400):
        counts += np.bincount(drawn_order(5, epoch, WEIGHTS), minlength=60)
    expected = 400 * 60 * WEIGHTS / WEIGHTS.sum()
    assert counts[0] == 0
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected.max())


def test_an_epoch_depends_on_seed_and_number_only():
    first = drawn_order(5, 1, WEIGHTS)
    assert first.tolist() == drawn_order(5, 1, 10 * WEIGHTS).tolist()
    for seed, epoch in ((5, 2), (6, 1)):
        assert first.tolist() != drawn_order(seed, epoch, WEIGHTS).tolist()


def loader(data, *, shuffle=True, **options):
    return medjax.get_dataloader(
        data,
        mlp(),
        config("unused", batch_size=8),
        shuffle=shuffle,
        seed=5,
        options=Options(**options),
        mesh=one_device(),
    )


def names(loaded, epoch):
    return [name for batch in loaded.batches(epoch) for name in batch.host["name"]]


@pytest.mark.parametrize("window", [0, 3])
def test_training_reads_what_is_drawn(window):
    read = names(loader(Sampled(DATA, WEIGHTS), length_window=window), 1)
    drawn = [f"item {n}" for n in drawn_order(5, 1, WEIGHTS / WEIGHTS.sum())]
    assert sorted(read) == sorted(drawn)
    assert len(read) == 60


def test_evaluation_reads_each_item_once():
    assert names(loader(Sampled(DATA, WEIGHTS), shuffle=False), 1) == [d["name"] for d in DATA]


def test_balanced_classes_are_drawn_equally_often():
    classes = ["rare"] * 5 + ["common"] * 55
    sampled = Sampled.balanced(DATA, classes)
    assert sampled.weights[:5].sum() == pytest.approx(0.5)


def test_rows_of_an_item_have_its_weight():
    def expand(data, *, training=True):
        return medjax.ExpandedData([data[n // 2] for n in range(8)], [n // 2 for n in range(8)])

    expanded = medjax.data.expand(
        Sampled(DATA[:4], [1, 2, 3, 4]), mlp()._replace(expand=expand), training=True
    )
    np.testing.assert_allclose(expanded.weights, np.repeat([0.1, 0.2, 0.3, 0.4], 2))


@pytest.mark.parametrize(
    ("origins", "message"),
    [([0, 0], "all 2 rows come from items of weight 0"), ([], "has no items")],
)
def test_rows_of_which_none_can_be_drawn_are_refused(origins, message):
    def expand(data, *, training=True):
        return medjax.ExpandedData([data[n] for n in origins], origins)

    with pytest.raises(ValueError, match=message):
        medjax.data.expand(Sampled(DATA[:2], [0, 1]), mlp()._replace(expand=expand), training=True)


class Stops(medjax.TrainerCallback):
    def on_step_begin(self, step_idx, phase):
        if phase == "train" and step_idx == 5:
            raise KeyboardInterrupt


def train(folder, data, **more):
    return medjax.train(
        mlp(),
        config(folder, batch_size=8),
        data,
        options=Options(save_interval_steps=3),
        **{"callback": [], **more},
    )


def test_an_interrupted_run_resumes_bit_for_bit(tmp_path):
    data = Sampled(DATA, WEIGHTS)
    expected = train(tmp_path / "whole", data)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", data, callback=[Stops()])
    resumed = train(tmp_path / "cut", data, resume="auto")
    assert same_bits(resumed.state.params, expected.state.params)


@pytest.mark.parametrize("other", [DATA, Sampled(DATA, WEIGHTS + 1)])
def test_other_weights_within_an_epoch_are_refused(tmp_path, other):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, Sampled(DATA, WEIGHTS), callback=[Stops()])
    with pytest.raises(medjax.MismatchError, match="where sampling was"):
        train(tmp_path, other, resume="auto")


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        ([1.0, 2.0], "weights have shape (2,); expected (60,)"),
        (-WEIGHTS, "found a weight of -1.0; expected finite numbers"),
        (np.full(60, np.nan), "found a weight of nan"),
        (np.zeros(60), "found weights that are all 0"),
    ],
)
def test_unusable_weights_are_refused(weights, told):
    with pytest.raises(ValueError, match=re.escape(told)):
        Sampled(DATA, weights)
