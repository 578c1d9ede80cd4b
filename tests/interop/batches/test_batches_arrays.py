"""Conversion between tensors and arrays: dtypes, and no shared memory."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch

from medjax_torch.batches import to_arrays, to_tensors

KEPT = {
    torch.bool: np.bool_,
    torch.uint8: np.uint8,
    torch.int8: np.int8,
    torch.int16: np.int16,
    torch.int32: np.int32,
    torch.float16: np.float16,
    torch.bfloat16: ml_dtypes.bfloat16,
    torch.float32: np.float32,
    torch.complex64: np.complex64,
}
NARROWED = {torch.int64: np.int32, torch.float64: np.float32, torch.uint32: np.int32}


@pytest.mark.parametrize(("dtype", "expected"), [*KEPT.items(), *NARROWED.items()])
def test_dtypes_are_converted_for_the_device_and_back(dtype, expected):
    columns = {"a": torch.tensor([[0, 1, 1], [1, 0, 1]]).to(dtype), "b": torch.tensor(1).to(dtype)}
    arrays = to_arrays(columns)
    assert {array.dtype for array in arrays.values()} == {np.dtype(expected)}
    back = to_tensors(jax.tree.map(jnp.asarray, arrays), dict.fromkeys(columns, dtype))
    for name, column in columns.items():
        assert back[name].dtype == dtype
        assert back[name].shape == column.shape
        assert torch.equal(back[name], column)


@pytest.mark.parametrize("dtype", [*KEPT, *NARROWED])
def test_memory_is_not_shared(dtype):
    column = torch.ones(2, 3).to(dtype)
    array = to_arrays({"a": column})["a"]
    column.zero_()
    assert (array == 1).all()
    on_device = jnp.asarray(array)
    tensor = to_tensors({"a": on_device}, {"a": dtype})["a"]
    tensor.zero_()
    assert (np.asarray(on_device) == 1).all()
    natural = to_tensors({"a": array})["a"]
    natural.zero_()
    assert (array == 1).all()


def test_views_and_leaves_are_copied():
    values = torch.arange(6.0).reshape(2, 3)
    columns = {
        "transposed": values.T,
        "expanded": values[:1].expand(4, 3),
        "stepped": values[:, ::2],
        "leaf": torch.nn.Parameter(values),
        "conjugate": torch.tensor([1 + 2j]).conj(),
        "empty": values[:0],
    }
    for name, array in to_arrays(columns).items():
        assert array.flags.c_contiguous
        assert array.tolist() == columns[name].detach().tolist()


def test_an_integer_that_does_not_fit_is_refused_by_column():
    with pytest.raises(ValueError, match=r"column 'ids' holds 2147483648 as int64, which does not"):
        to_arrays({"ids": torch.tensor([1, 2**31])})


def nested():
    return torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: torch.ones(2, 2).to_sparse(),
            r"column 'x' is a tensor with the layout .*sparse_coo",
        ),
        (lambda: torch.ones(2, dtype=torch.complex128), r"column 'x' is a tensor of .*complex128"),
        (lambda: torch.ones(2).to(torch.float8_e5m2), r"a tensor of torch.float8_e5m2; expected"),
        (lambda: torch.ones(2, device="meta"), r"on the device 'meta', which has no values"),
        (nested, r"column 'x' is a nested tensor; expected a dense tensor"),
    ],
)
def test_tensors_without_a_counterpart_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        to_arrays({"x": make()})
