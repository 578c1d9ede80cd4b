"""Ladders that are fitted to data: the best of all, stored, and continued for longer items."""

import itertools
import json
import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loading import loader_of, stream
from tiny import config, sentences, tagger

import medjax
from medjax import Options
from medjax.checkpoint import MismatchError
from medjax.data.fitting import Passes, ShapeCost, fit_lengths, lengths_beyond
from medjax.data.order import batches_by_rung, epoch_order

CHEAP = ShapeCost(compile=1.0, token=1e-4)
"""Costs at which a few thousand positions are worth a shape."""


def seconds(ladder, lengths, passes, cost):
    """Return what the batches of all epochs cost, by the formula of `fit_lengths`."""
    below = [np.mean([n <= rung for n in lengths]) for rung in (0, *ladder)]
    rows, total = passes.nb_items * passes.nb_epochs, len(ladder) * cost.compile
    for number, rung in enumerate(ladder, 1):
        low, high = below[number - 1], below[number]
        if passes.window:
            windows = passes.nb_epochs * -(-passes.nb_items // (passes.window * passes.batch_size))
            left_over = windows * passes.batch_size / 2 if number > 1 else 0
            total += cost.token * rung * ((high - low) * rows + left_over)
        else:
            size = passes.batch_size
            total += cost.token * rung * (high**size - low**size) * rows
    return total


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=30),
    st.integers(1, 4000),
    st.sampled_from([0, 10]),
)
def test_no_ladder_is_better(lengths, nb_items, window):
    passes = Passes(nb_items, 3, 4, window)
    fitted = fit_lengths(lengths, passes, CHEAP, "cpu")
    top = 8 * -(-max(lengths) // 8)
    rest = range(8, top, 8)
    ladders = [
        (*chosen, top)
        for count in range(len(rest) + 1)
        for chosen in itertools.combinations(rest, count)
    ]
    best = min(seconds(ladder, lengths, passes, CHEAP) for ladder in ladders)
    assert seconds(fitted, lengths, passes, CHEAP) == pytest.approx(best)
    assert fitted[-1] == top


def test_more_data_is_worth_more_shapes_and_evaluation_fewer():
    lengths = [len(item["input_ids"]) for item in sentences(500, longest=128)]
    cost = {train: ShapeCost.of("cpu", 22_700_000, train=train) for train in (True, False)}
    numbers = [
        len(fit_lengths(lengths, Passes(count, 3, 16, 100), cost[True], "cpu"))
        for count in (50, 1_000, 5_000, 100_000)
    ]
    assert numbers == sorted(numbers)
    assert numbers[0] == 1
    assert numbers[-1] > 6
    evaluated = fit_lengths(lengths, Passes(160, 3, 16, 100), cost[False], "cpu")
    assert len(evaluated) <= 3


@pytest.mark.parametrize(("platform", "tile"), [("cpu", 8), ("gpu", 16), ("tpu", 16)])
def test_lengths_are_multiples_of_the_platforms_tile(platform, tile):
    fitted = fit_lengths(range(1, 500), Passes(10**7, 3, 16, 0), CHEAP, platform)
    assert all(length % tile == 0 for length in fitted)
    if platform == "tpu":
        assert all(length % 128 == 0 for length in fitted if length > 128)
    beyond = lengths_beyond(fitted[-1], platform)
    assert beyond[0] > fitted[-1]
    assert all(a < b for a, b in itertools.pairwise(beyond))


def test_batches_of_one_rung_differ_from_epoch_to_epoch():
    """Sorted by their exact length, items would have the same companions in every epoch."""
    lengths = np.array([len(item["input_ids"]) for item in sentences(96, longest=24)])
    together = []
    for epoch in (1, 2):
        order = epoch_order(3, epoch, 96)
        rungs = np.where(lengths[order] <= 12, 12, 24)
        batches = batches_by_rung(rungs, 8, seed=3, epoch=epoch, window=0, shuffle=True)
        together.append({frozenset(order[batch].tolist()) for batch in batches})
        mixed = [batch for batch in batches if len(set(rungs[batch])) > 1]
        assert len(mixed) <= 1  # what is left over on the lower rung
    assert len(together[0] & together[1]) == 0


def test_a_loader_pads_to_the_lengths_that_it_fitted():
    loader = loader_of(sentences(60, longest=20), tagger(), length_window=0)
    widths = {len(columns["input_ids"][0]) for _, columns in stream(loader, 1)}
    assert widths <= set(loader.lengths)
    assert loader.lengths[-1] == 24


def test_a_longer_item_adds_a_length_and_the_log_says_so(caplog):
    component, data = tagger(), sentences(30, longest=20)
    known = loader_of(data, component).lengths
    data += [{"input_ids": np.ones(50, int), "labels": np.zeros(50, int)}]
    loader = medjax.get_dataloader(
        data, component, config("unused", batch_size=4), shuffle=True, fitted=known
    )
    with caplog.at_level(logging.WARNING, "medjax"):
        widths = [len(columns["input_ids"][0]) for _, columns in stream(loader, 1)]
    assert max(widths) == 56
    assert loader.lengths == known
    assert f"is padded to 56, beyond the {known[-1]} that were fitted" in caplog.text


def run(folder, data, *, epochs, resume=None, callback=(), **options):
    return medjax.train(
        tagger(),
        config(folder, nb_training_epochs=epochs, batch_size=4),
        data,
        sentences(9, seed=1),
        options=Options(**options),
        callback=list(callback),
        resume=resume,
    )


class Stops(medjax.TrainerCallback):
    def on_step_begin(self, step_idx, phase):
        if phase == "train" and step_idx == 5:
            raise RuntimeError("stopped")


def test_a_resumed_run_keeps_its_ladder_within_an_epoch(tmp_path, monkeypatch):
    data = sentences(40, longest=20)
    expected = run(tmp_path / "whole", data, epochs=1)
    with pytest.raises(RuntimeError, match="stopped"):
        run(tmp_path / "cut", data, epochs=1, callback=[Stops()], save_interval_steps=3)
    (saved,) = (tmp_path / "cut").glob("checkpoint_*")
    ladders = json.loads((saved / "training_state.json").read_text())["progress"]["ladders"]
    assert ladders["train"][-1] == 24
    assert set(ladders) == {"train", "eval"}
    with pytest.raises(MismatchError, match=r"length_ladder was 'fitted', but now it is \[32"):
        run(tmp_path / "cut", data, epochs=1, resume=saved, length_ladder=(32,))
    monkeypatch.setattr("medjax.data.make.fit_lengths", None)  # no ladder is fitted again
    resumed = run(tmp_path / "cut", data, epochs=1, resume="auto", save_interval_steps=3)
    assert resumed.history == expected.history
