"""Orders and random draws that checkpoints rely on: these numbers must never change."""

import hashlib

import pytest

from medjax import epoch_order, item_rng
from medjax.data.order import batches_by_rung

ORDERS = {
    (0, 0, 5): [0, 2, 4, 1, 3],
    (0, 1, 10): [6, 7, 4, 0, 1, 8, 2, 9, 5, 3],
    (7, 3, 12): [5, 2, 3, 11, 1, 4, 7, 0, 6, 8, 9, 10],
    (2**32, 1, 10): [7, 1, 6, 5, 4, 2, 0, 9, 8, 3],
    (2**63 - 1, 100, 10): [7, 9, 0, 3, 2, 6, 1, 8, 5, 4],
}
DRAWS = {
    (0, 0, 0): [149215387, 49592932, 2628306354],
    (0, 1, 0): [4188131702, 3493329091, 1277232997],
    (0, 1, 1): [3890074735, 3028790402, 2814743590],
    (2**63 - 1, 9, 2**40): [3772254270, 3971779189, 1554293407],
}
LENGTHS = [5, 1, 4, 2, 3, 9, 8]


@pytest.mark.parametrize("where", ORDERS)
def test_orders(where):
    assert epoch_order(*where).tolist() == ORDERS[where]


def test_a_long_order():
    digest = hashlib.sha256(epoch_order(42, 9, 100_000).astype("<i8").tobytes()).hexdigest()
    assert digest == "deaff09bba6a10bb0b73f0cc49cf158d8824b7b1945e27442aa7c742087d32bc"


@pytest.mark.parametrize("where", DRAWS)
def test_draws(where):
    assert item_rng(*where).integers(2**32, size=3).tolist() == DRAWS[where]


@pytest.mark.parametrize(
    ("shuffle", "expected"),
    [(True, [[0, 6], [1, 3], [4, 2], [5]]), (False, [[1, 3], [4, 2], [0, 6], [5]])],
)
def test_batches_by_rung(shuffle, expected):
    batches = batches_by_rung(LENGTHS, 2, seed=1, epoch=2, window=3, shuffle=shuffle)
    assert [batch.tolist() for batch in batches] == expected
