"""BatchData: a dict of columns, rows by index, and a pytree."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax import BatchData


def batch():
    return BatchData(x=np.arange(6.0).reshape(3, 2), y=jnp.array([1, 2, 3]), words=["a", "b", "c"])


def test_columns_and_rows():
    data = batch()
    assert data["words"] == ["a", "b", "c"]
    row = data[1]
    assert type(row) is dict
    assert row["words"] == "b"
    assert row["x"].tolist() == [2.0, 3.0]
    assert int(row["y"]) == 2
    assert data[-1]["words"] == "c"
    assert data[np.int64(2)]["words"] == "c"


def test_slices_are_plain_dicts_of_rows():
    rows = batch()[1:]
    assert type(rows) is dict
    assert rows["x"].tolist() == [[2.0, 3.0], [4.0, 5.0]]
    assert rows["words"] == ["b", "c"]
    assert batch()[5:]["words"] == []


def test_ragged_lists_are_columns():
    data = BatchData(spans=[[1], [], [1, 2]], x=np.zeros(3))
    assert data.nb_rows == 3
    assert data[2]["spans"] == [1, 2]


def test_len_counts_columns_and_nb_rows_counts_rows():
    assert len(batch()) == 3
    assert batch().nb_rows == 3
    assert BatchData().nb_rows == 0


def test_repr_shows_types_and_shapes_instead_of_values():
    data = BatchData(batch(), path=np.zeros((1000, 8), np.float32), texts=["long " * 1000] * 1000)
    assert repr(data) == (
        "BatchData(x: float64[3,2], y: int32[3], words: list of 3, path: float32[1000,8], "
        "texts: list of 1000)"
    )


def test_an_unknown_column_or_row_is_an_error():
    with pytest.raises(KeyError, match="missing"):
        batch()["missing"]
    for index in (3, -4):
        with pytest.raises(IndexError, match=f"row {index} is out of range for a batch of 3 rows"):
            batch()[index]
    with pytest.raises(IndexError):
        BatchData()[0]


def test_columns_of_unequal_length_are_an_error():
    data = BatchData(a=[1, 2], b=np.zeros(3))
    with pytest.raises(ValueError, match=r"\{'a': 2, 'b': 3\}"):
        _ = data.nb_rows
    with pytest.raises(ValueError, match="differ in length"):
        data[0]


@pytest.mark.parametrize("value", [3, None, np.zeros(()), jnp.zeros(())])
def test_a_column_without_rows_is_an_error(value):
    with pytest.raises(ValueError, match=r"column 'a' .* one entry per row"):
        _ = BatchData(a=value).nb_rows


def test_a_batch_can_be_passed_to_jit_and_grad():
    data = batch().arrays()
    result = jax.jit(lambda b: BatchData(twice=b["x"] * 2))(data)
    assert type(result) is BatchData
    assert result["twice"].tolist() == (data["x"] * 2).tolist()
    floats = BatchData(x=jnp.array([1.0, 2.0]))
    slope = jax.grad(lambda b: (b["x"] ** 2).sum())(floats)
    assert type(slope) is BatchData
    assert slope["x"].tolist() == [2.0, 4.0]


def test_a_batch_is_a_pytree_keyed_by_column_name():
    data = BatchData(z=np.ones(2), a=np.zeros(2))
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(data)]
    assert paths == ["['a']", "['z']"]
    other = BatchData(a=np.zeros(2), z=np.ones(2))
    assert jax.tree.structure(data) == jax.tree.structure(other)
    assert jax.tree.structure(data) != jax.tree.structure(BatchData(a=np.zeros(2)))
    doubled = jax.tree.map(lambda column: column + 1, data)
    assert type(doubled) is BatchData
    assert doubled["z"].tolist() == [2.0, 2.0]


def test_device_put_and_to_device_move_the_arrays():
    device = jax.devices()[0]
    put = jax.device_put(batch().arrays(), device)
    assert type(put) is BatchData
    original = batch()
    moved = original.to_device(device)
    assert type(moved) is BatchData
    assert isinstance(moved["x"], jax.Array)
    assert moved["x"].devices() == {device}
    assert moved["words"] == original["words"]
    assert list(moved) == list(original)
    assert isinstance(original["x"], np.ndarray)
    sharding = jax.sharding.SingleDeviceSharding(device)
    assert original.to_device(sharding)["x"].sharding == sharding


def test_arrays_leaves_lists_out():
    assert set(batch().arrays()) == {"x", "y"}


def test_rows_and_columns_equal_those_of_medkit():
    medkit = pytest.importorskip("medkit.training.utils")
    columns = {"ids": [[1, 2], [3, 4]], "text": ["a", "b"], "x": np.arange(4).reshape(2, 2)}
    ours, theirs = BatchData(columns), medkit.BatchData(columns)
    assert len(ours) == len(theirs)
    assert list(ours) == list(theirs)
    for index in ("text", 0, 1, slice(0, 1)):
        assert str(ours[index]) == str(theirs[index])
        assert type(ours[index]) is type(theirs[index])
    for data in (ours, theirs):
        with pytest.raises(KeyError):
            data["missing"]
