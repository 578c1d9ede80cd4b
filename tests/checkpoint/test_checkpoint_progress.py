"""Progress is restored from JSON unchanged, and metric columns keep their types."""

from __future__ import annotations

import json

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medjax import CorruptCheckpointError
from medjax.checkpoint.progress import Progress, progress_record, read_progress

START = Progress(seed=1, data={"items": 10}, schedule={"learning_rate": 0.1})


def through_json(progress: Progress) -> Progress:
    return read_progress(json.loads(json.dumps(progress_record(progress))))


def identical(a, b) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(identical, a, b))
    if isinstance(a, dict):
        return identical(list(a.items()), list(b.items()))
    if isinstance(a, np.ndarray | np.generic):
        return (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    return a == b or (a != a and b != b)


DTYPES = ["bool", "int8", "int64", "uint64", "float16", "float32", "float64", "<U3"]
numpy_scalars = st.builds(
    lambda dtype, number: np.dtype(dtype).type(number), st.sampled_from(DTYPES), st.integers(0, 99)
)
numbers = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3))
values = st.recursive(
    st.one_of(
        numbers, numpy_scalars, st.just(np.arange(6.0).reshape(2, 3)), st.just(np.float32(np.nan))
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.text(max_size=3), inner, max_size=3),
    ),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.text(max_size=3), st.lists(values, max_size=4), max_size=3))
def test_columns_are_restored_identically(columns):
    restored = through_json(START._replace(batch=2, columns=columns)).columns
    assert identical(restored, columns)


@pytest.mark.parametrize("dtype", [*DTYPES, "bfloat16"])
def test_a_column_of_scalars(dtype):
    column = list(np.arange(5).astype(jnp.dtype(dtype)))
    restored = through_json(START._replace(batch=2, columns={"p": column})).columns["p"]
    assert identical(restored, column)


def test_jax_arrays_become_numpy():
    restored = through_json(START._replace(batch=2, columns={"p": [jnp.arange(3)]})).columns["p"]
    assert identical(restored, [np.arange(3, dtype=np.int32)])


@pytest.mark.parametrize("value", [{1, 2}, b"bytes", 1j, np.datetime64("2020"), object()])
def test_values_that_cannot_be_restored_are_refused(value):
    with pytest.raises(TypeError, match="column 'p' of the metrics computer"):
        progress_record(START._replace(columns={"p": [value]}))


def test_history_and_states_are_restored():
    progress = START._replace(
        epoch=3,
        history=[{"train": {"loss": 0.1}, "eval": {"loss": float("inf"), "f1": 1 / 3}}],
        callbacks={"0:Mine": {"best": [1, None, "x"]}},
        schedule={"learning_rate": 1e-5, "best": float("-inf")},
        stop_reason="enough",
        stopped_by="Mine:0",
        settings={"learning_rate": 1e-5, "padding": {"x": None}},
    )
    assert through_json(progress) == progress


def test_fields_of_another_version_are_ignored():
    saved = {**progress_record(START), "from the future": 1}
    assert read_progress(saved) == START
    del saved["stop_reason"], saved["stopped_by"], saved["settings"]
    assert read_progress(saved) == START


@pytest.mark.parametrize("value", [None, "x", [1, [2.5]], {"a": {"b": None}}, True])
def test_the_state_of_a_schedule_may_be_any_json(value):
    progress = START._replace(schedule={"learning_rate": 0.1, "more": value})
    assert through_json(progress) == progress


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ({"numpy scalars": ["<U500000000", [1], ["x"]]}, r"have more than 1024 MiB"),
        ({"numpy array": ["O", [1], [[]]]}, r"an array of object"),
        ({"numpy array": ["int32", [1], [2**31]]}, r"OverflowError"),
        ({"numpy array": ["V9", [1], [3]]}, r"an array of \|V9"),
        ({"numpy array": ["int8", [10**9, 10**9], [3]]}, r"cannot reshape"),
        ({"pickle": "x"}, r"damaged"),
        (3, r"damaged"),
    ],
)
def test_malformed_columns_are_refused(column, said):
    saved = progress_record(START._replace(batch=2)) | {"columns": {"p": column}}
    with pytest.raises(CorruptCheckpointError, match=said):
        read_progress(saved)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("epoch", 0), ("epoch", True), ("batch", -1), ("seed", 2**63), ("seed", None)),
        *(("history", [3]), ("history", [{"train": 1}]), ("schedule", {"learning_rate": "x"})),
        *(("schedule", {"learning_rate": value}) for value in (None, [0.1], True, 1e39)),
        *(("updates", -1), ("updates", "3"), ("left_out", -1), ("left_out", None)),
        *(("skipped", -1), ("skipped", "3")),
        *(("ladders", {"train": lengths}) for lengths in ([], "abc", [8, 8], [0], [2**40], [True])),
        *(("callbacks", []), ("stop_reason", 3), ("settings", 3), ("data", None), ("columns", [])),
    ],
)
def test_malformed_fields_are_refused(field, value):
    with pytest.raises(CorruptCheckpointError, match="progress of the checkpoint is damaged"):
        read_progress(progress_record(START) | {field: value})
