"""Which checkpoints are kept, compared with a reference model of a few lines."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medjax.checkpoint.retention import CheckpointEntry, best, last, superseded

SPECIAL = [None, math.nan, math.inf, -math.inf, 0.0, -0.0, 1.0, 1.0, 2.0]
METRICS = st.lists(st.one_of(st.sampled_from(SPECIAL), st.floats()), max_size=12)


def reference_best(metrics: list[float | None], minimize: bool) -> int | None:
    """Return the index of the first best number, or of the first NaN if there is no number."""
    numbers = [m for m in metrics if m is not None and not math.isnan(m)]
    if numbers:
        return metrics.index(min(numbers) if minimize else max(numbers))
    return next((i for i, m in enumerate(metrics) if m is not None), None)


def entries_of(metrics: list[float | None]) -> list[CheckpointEntry]:
    return [
        CheckpointEntry(i + 1, Path(f"c{i}"), "run", metric) for i, metric in enumerate(metrics)
    ]


@settings(max_examples=1000, deadline=None)
@given(METRICS, st.booleans(), st.randoms(use_true_random=False))
def test_kept_after_each_save(metrics, minimize, random):
    """CheckpointEntry by entry, as in the store: no deleted checkpoint is needed later."""
    kept: list[CheckpointEntry] = []
    for count, entry in enumerate(entries_of(metrics), start=1):
        kept.append(entry)
        random.shuffle(kept)
        gone = superseded(kept, minimize=minimize, keep_all=False)
        kept = [entry for entry in kept if entry not in gone]
        wanted = reference_best(metrics[:count], minimize)
        assert {entry.serial - 1 for entry in kept} == {count - 1} | (
            set() if wanted is None else {wanted}
        )
        best_entry = best(kept, minimize=minimize)
        assert (best_entry and best_entry.serial - 1) == wanted
        assert last(kept) == entry
        assert superseded(kept, minimize=minimize, keep_all=True) == []


def test_no_entries():
    assert best([], minimize=True) is None
    assert last([]) is None
    assert superseded([], minimize=True, keep_all=False) == []


@pytest.mark.parametrize("minimize", [True, False])
def test_of_equal_checkpoints_the_older_is_best(minimize):
    entries = entries_of([1.0, 1.0, 1.0])
    assert best(entries, minimize=minimize) == entries[0]
    assert superseded(entries, minimize=minimize, keep_all=False) == [entries[1]]
