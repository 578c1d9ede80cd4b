"""Batches are prepared ahead, in a thread if preparing them is slow."""

import threading
import time

import pytest

from medjax.data.prefetch import prefetch


def slow(made, nb_items=100):
    for number in range(nb_items):
        time.sleep(0.1 if number == 0 else 0)
        made.append(number)
        yield number


def prefetch_threads():
    return [t for t in threading.enumerate() if t.name == "medjax-prefetch"]


@pytest.mark.parametrize("delay", [0, 0.1])
def test_prefetch_raises_an_error_in_place_of_the_item(delay):
    def items():
        time.sleep(delay)
        yield 1
        yield 2
        raise KeyError("third")

    ahead = prefetch(items(), 8)
    assert [next(ahead), next(ahead)] == [1, 2]
    with pytest.raises(KeyError, match="third"):
        next(ahead)


def test_prefetch_ends_its_thread_and_is_at_most_its_size_ahead():
    made = []
    ahead = prefetch(slow(made), 2)
    assert [next(ahead), next(ahead)] == [0, 1]
    (thread,) = prefetch_threads()
    ahead.close()
    assert not thread.is_alive()
    assert len(made) <= 6


def test_cheap_items_are_computed_without_a_thread():
    for number in prefetch(iter(range(100)), 2):
        assert number < 100
        assert not prefetch_threads()
    assert list(prefetch(slow([]), 2)) == list(range(100))
