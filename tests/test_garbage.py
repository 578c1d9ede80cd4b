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


def nb_collections(function, *args):
    begun = []

    def seen(phase, info):
        if phase == "start":
            begun.append(info)

    gc.callbacks.append(seen)
    try:
        function(*args)
    finally:
        gc.callbacks.remove(seen)
    return len(begun)


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


def test_few_collections_interrupt_the_reading_of_a_corpus(tmp_path):
    corpus = tmp_path / "corpus.tsv"
    corpus.write_text("\n".join(["pain\tB-Problem\n" * 8] * 4_000))
    read = readers.read_documents
    assert 10 * nb_collections(read, corpus) < nb_collections(read.__wrapped__, corpus)
