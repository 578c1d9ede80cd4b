"""Fixed shapes and dtypes: lengths, rows, and what a device can store."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from loading import loader_of, stream
from tiny import collate_sentences, mlp, points, sentences, tagger

from medjax import BatchData
from medjax.data.ladder import Ladder, fix_shape, narrow

SENTENCES = sentences(53)
NARROW = Ladder((4, 8), {"input_ids": 0, "labels": -100})


def test_a_length_beyond_the_ladder_names_column_and_shape():
    loader = loader_of(SENTENCES, tagger(), length_ladder=(4, 8), length_window=0)
    with pytest.raises(ValueError, match=r"column 'input_ids' has shape \(4, \d+\).* ends at 8"):
        list(loader.batches(1))


def test_jax_columns_are_padded_like_numpy_columns():
    def collate(examples):
        batch = collate_sentences(examples)
        return BatchData({**batch, "input_ids": jnp.asarray(batch["input_ids"])})

    ours = loader_of(SENTENCES, tagger(collate=collate), length_window=0)
    assert stream(ours, 1) == stream(loader_of(SENTENCES, tagger(), length_window=0), 1)


@pytest.mark.parametrize("value", [2**31, -(2**31) - 1, 2**40])
def test_integers_that_do_not_fit_are_refused(value):
    column = np.array([0, value])
    with pytest.raises(ValueError, match=rf"column 'ids' holds {value} as int64"):
        narrow("ids", column)
    batch = BatchData(ids=column)
    with pytest.raises(ValueError, match="'ids'"):
        fix_shape(batch, NARROW, 2)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("int64", "int32"),
        ("uint32", "int32"),
        ("uint64", "int32"),
        ("float64", "float32"),
        ("float32", "float32"),
        ("float16", "float16"),
        ("bool", "bool"),
        ("uint8", "uint8"),
        ("int32", "int32"),
    ],
)
def test_dtypes_of_the_device(dtype, expected):
    column = narrow("a", np.array([0, 1], dtype))
    assert column.dtype == expected
    assert column.tolist() == [0, 1]
    assert narrow("a", np.zeros((0,), dtype)).dtype == expected


def test_the_largest_integers_fit():
    limits = [2**31 - 1, -(2**31)]
    assert narrow("a", np.array(limits)).tolist() == limits


@pytest.mark.parametrize("column", [np.array([None, 1]), np.array(["a", "b"])])
def test_columns_of_objects_are_refused(column):
    with pytest.raises(
        ValueError, match=r"column 'a' is an array of .*; expected numbers, or a list"
    ):
        narrow("a", column)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (BatchData(a=np.zeros(3)), "collate returned 3 rows; expected at least 1 and at most 2"),
        (BatchData(a=np.zeros(0)), "collate returned 0 rows"),
        (BatchData(), "collate returned 0 rows"),
        (BatchData(a=np.zeros(2), b=["x"]), "differ in length"),
        (BatchData(a=np.zeros(2), row_mask=np.ones(2)), "a column 'row_mask', which medjax"),
    ],
)
def test_bad_results_of_collate_are_refused(batch, message):
    with pytest.raises(ValueError, match=message):
        fix_shape(batch, NARROW, 2)


def test_later_writes_of_collate_do_not_reach_the_device():
    kept = np.zeros((2, 3), np.float32)

    def collate(examples):
        kept[:] = len(examples)
        return BatchData(x=kept)

    loader = loader_of(points(4), mlp(collate=collate), batch_size=2)
    first = next(loader.batches(1))
    kept[:] = -1
    assert (np.asarray(first.device["x"]) == 2).all()


def test_the_length_of_an_example():
    ladder = Ladder((4,), {"ids": 0, "labels": 0})
    assert ladder.length_of({"ids": [1, 2], "labels": np.zeros(3), "other": [1] * 9}) == 3
    assert ladder.length_of({"ids": torch.zeros(5), "labels": 1}) == 5
    assert ladder.length_of({"labels": np.int64(3)}) == 0
    assert ladder.length_of({"labels": [[1], [2, 3]]}) == 2
    assert ladder.length_of({}) == 0
