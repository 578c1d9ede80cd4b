"""Columns of tensors to the arrays a device uses, and arrays to tensors; memory is never shared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medjax.data.ladder import narrow
from medjax_torch.tensors import to_numpy, to_torch

_DTYPES = frozenset(
    {
        torch.bool,
        torch.uint8,
        torch.uint16,
        torch.uint32,
        torch.uint64,
        torch.int8,
        torch.int16,
        torch.int32,
        torch.int64,
        torch.float16,
        torch.bfloat16,
        torch.float32,
        torch.float64,
        torch.complex64,
    }
)


def to_arrays(columns: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Return columns as arrays of the device's types: int64 as int32, float64 as float32.

    Parameters
    ----------
    columns : mapping of str to torch.Tensor
        Dense tensors of any device.

    Raises
    ------
    ValueError
        If an integer does not fit into 32 bits, or a tensor is sparse, quantised, nested, without
        data, or of a type that JAX lacks; the message names the column.
    """
    return {name: _to_array(name, tensor) for name, tensor in columns.items()}


def to_tensors(
    arrays: Mapping[str, Any], dtypes: Mapping[str, torch.dtype] | None = None
) -> dict[str, Tensor]:
    """Return numpy or JAX arrays as tensors of the CPU.

    Parameters
    ----------
    arrays : mapping of str to array
        An array of no axes becomes a tensor of no axes.
    dtypes : mapping of str to torch.dtype, optional
        Types of the tensors, such as the int64 that `to_arrays` made int32; an array without one
        keeps its own.
    """
    dtypes = dtypes or {}
    tensors = {name: to_torch(np.asarray(array)) for name, array in arrays.items()}
    return {name: t.to(dtypes.get(name, t.dtype)) for name, t in tensors.items()}


def _to_array(name: str, tensor: Tensor) -> np.ndarray:
    found = _unsupported(tensor)
    if found:
        msg = (
            f"column {name!r} is {found}; expected a dense tensor of numbers that JAX has. Convert "
            "it in collate, or return it as a list to keep it on the host"
        )
        raise ValueError(msg)
    # A conjugated or negated view is lazy in torch and has no counterpart in numpy.
    return narrow(name, to_numpy(tensor.resolve_conj().resolve_neg()))


def _unsupported(tensor: Tensor) -> str:
    if tensor.is_nested:
        return "a nested tensor"
    if tensor.is_quantized or tensor.dtype not in _DTYPES:
        return f"a tensor of {tensor.dtype}"
    if tensor.layout != torch.strided:
        return f"a tensor of the layout {tensor.layout}"
    if tensor.is_meta:
        return "a tensor of the device 'meta', which has no values"
    return ""
