"""Programs compiled before the first step, while the next shapes are traced."""

import collections
import os
import signal

import jax
import numpy as np
import pytest
from loading import loader_of
from tiny import sentences, tagger

import medjax
from medjax.loop import phases
from medjax.runtime import jit
from medjax.step import training

LADDER = medjax.Options(length_ladder=(4, 8, 16), length_window=10)
DATA = sentences(53, longest=14)


class Counts(medjax.TrainerCallback):
    """Records how many programs had been begun ahead after each batch of training."""

    def __init__(self, begun):
        self.begun = begun
        self.seen = []

    def on_step_end(self, step_idx, nb_batches, phase, **kwargs):
        if phase == "train":
            self.seen.append(len(self.begun))


@pytest.fixture
def begun(monkeypatch):
    """Return the list of the programs that are compiled aside."""
    programs, compile_aside = [], jit.compile_aside

    def watched(lowered):
        programs.append(lowered)
        return compile_aside(lowered)

    monkeypatch.setattr(jit, "compile_aside", watched)
    return programs


def trained(folder, begun):
    counts = Counts(begun)
    config = medjax.TrainerConfig(folder, 0.1, 2, batch_size=4, seed=0)
    result = medjax.train(tagger(), config, DATA, DATA[:20], callback=counts, options=LADDER)
    return result, counts.seen


def test_all_shapes_are_begun_before_the_first_step_and_train_alike(tmp_path, monkeypatch, begun):
    monkeypatch.setattr(training, "LARGE", 1)
    result, counts = trained(tmp_path / "ahead", begun)
    # Three lengths in each mode, and the update.
    assert set(counts) == {7} == {result.nb_compilations}

    monkeypatch.setattr(phases, "compile_ahead", lambda *args: None)
    later, counts = trained(tmp_path / "later", [])
    assert set(counts) == {0}
    assert later.nb_compilations == 7
    assert later.history == result.history
    equal = jax.tree.map(np.array_equal, later.state.variables, result.state.variables)
    assert all(jax.tree.leaves(equal))


def test_an_evaluation_reads_items_as_they_are_by_then(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "LARGE", 1)

    class Changes(medjax.TrainerCallback):
        def on_step_end(self, step_idx, nb_batches, phase, **kwargs):
            for item in evaluated:
                item["labels"] = np.zeros_like(item["labels"])

    def evaluation():
        nonlocal evaluated
        evaluated = sentences(20, longest=14, seed=1)
        config = medjax.TrainerConfig(tmp_path, 0.1, 1, batch_size=4, seed=0)
        run = medjax.train(tagger(), config, DATA, evaluated, callback=Changes(), options=LADDER)
        return run.history[-1]["eval"]["loss"]

    evaluated = []
    ahead = evaluation()
    monkeypatch.setattr(phases, "compile_ahead", lambda *args: None)
    assert evaluation() == ahead


def test_a_small_model_is_not_compiled_ahead(tmp_path, begun):
    _, counts = trained(tmp_path, begun)
    assert set(counts) == {0}


@pytest.mark.parametrize("start", [0, 2, 11])
def test_the_batches_ahead_are_those_of_the_epoch_and_read_once(start):
    read = collections.Counter()

    def preprocess(item):
        read[id(item)] += 1
        return dict(item)

    component = tagger(preprocess=preprocess)
    loader = loader_of(DATA, component, length_window=5, length_ladder=(4, 8, 16))
    ahead = [batch.indices.tolist() for batch in loader.first_of_shapes(2, start, keep=True)]
    batches = [*loader.batches(2, start)]
    assert set(read.values()) == {1}
    firsts = {}
    for batch in batches[: 5 - start % 5]:
        firsts.setdefault(batch.device["input_ids"].shape[1], batch.indices.tolist())
    assert ahead == [*firsts.values()]
    assert len(ahead) > 1


def test_no_batches_are_ahead_where_items_are_not_grouped():
    loader = loader_of(DATA, tagger(), length_window=0, length_ladder=(4, 8, 16))
    assert [*loader.first_of_shapes(1)] == []


@pytest.mark.parametrize(("count", "window"), [(40, 5), (28, 5), (40, 0)])
def test_no_batches_are_ahead_at_the_end_of_an_epoch(count, window):
    loader = loader_of(DATA[:count], tagger(), length_window=window, length_ladder=(4, 8, 16))
    assert [*loader.first_of_shapes(1, len(loader))] == []


def test_a_run_that_compiles_ahead_resumes_where_it_was_preempted_in_evaluation(
    tmp_path, monkeypatch, begun
):
    monkeypatch.setattr(training, "LARGE", 1)
    options = medjax.Options(length_ladder=(4, 8, 16), length_window=5)

    def run(folder, callback=(), resume=None):
        config = medjax.TrainerConfig(folder, 0.1, 2, batch_size=4, seed=0)
        data = DATA[:40]  # windows of 20 items: none is left after the last batch
        callback = list(callback)
        return medjax.train(
            tagger(), config, data, data[:20], callback=callback, options=options, resume=resume
        )

    class Preempted(medjax.TrainerCallback):
        def on_step_begin(self, step_idx, nb_batches, phase):
            if phase == "eval" and step_idx == 1:
                os.kill(os.getpid(), signal.SIGTERM)

    expected = run(tmp_path / "whole")
    with pytest.raises(SystemExit):
        run(tmp_path / "cut", [Preempted()])
    resumed = run(tmp_path / "cut", resume="auto")
    assert begun
    assert resumed.history == expected.history
