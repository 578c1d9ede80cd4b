"""Garbage collection while many objects are made."""

import gc

import pytest

from medjax.garbage import rare_collections
from medjax.text import readers


@pytest.fixture(autouse=True)
def _thresholds():
    before = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    yield
    gc.set_threshold(*before)


def collections_of(function):
    full = []

    def seen(phase, info):
        if phase == "start" and info["generation"] == 2:
            full.append(info)

    gc.callbacks.append(seen)
    try:
        function()
    finally:
        gc.callbacks.remove(seen)
    return len(full)


def test_thresholds_are_restored_even_if_the_block_fails():
    within = []

    @rare_collections()
    def fail():
        within.append(gc.get_threshold())
        raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert within == [(50_000, 20, 100)]
    assert gc.get_threshold() == (700, 10, 10)


@pytest.mark.parametrize("chosen", [(0, 10, 10), (100_000, 50, 1_000)])
def test_what_the_user_has_chosen_stays(chosen):
    gc.set_threshold(*chosen)
    with rare_collections():
        assert gc.get_threshold()[0] == chosen[0]
    assert gc.get_threshold() == chosen


def test_a_corpus_is_read_without_full_collections(tmp_path):
    word = "pain\tB-Problem\n" * 8
    (tmp_path / "corpus.tsv").write_text("\n".join([word] * 4_000))
    gc.collect()
    assert collections_of(lambda: [[n] for n in range(200_000)]) > 0
    gc.collect()
    assert collections_of(lambda: readers.read_documents(tmp_path / "corpus.tsv")) == 0
