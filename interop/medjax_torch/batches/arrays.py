"""Conversion between columns of tensors and arrays for the device; they never share memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medjax.data.ladder import narrow
from medjax_torch.component_state import to_numpy, to_torch

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
    """Convert columns to arrays of the device's dtypes: int64 to int32, float64 to float32.

    Parameters
    ----------
    columns : mapping of str to torch.Tensor
        Dense tensors on any device.

    Raises
    ------
    ValueError
        If an integer does not fit into 32 bits, or a tensor is sparse, quantised, nested, without
        data, or of a dtype that JAX lacks; the message names the column.
    """
    return {name: _to_array(name, tensor) for name, tensor in columns.items()}


def to_tensors(
    arrays: Mapping[str, Any], dtypes: Mapping[str, torch.dtype] | None = None
) -> dict[str, Tensor]:
    """Convert numpy or JAX arrays to tensors on the CPU.

    Parameters
    ----------
    arrays : mapping of str to array
        Arrays of any shape; a scalar array becomes a scalar tensor.
    dtypes : mapping of str to torch.dtype, optional
        Dtypes of the tensors, such as the int64 that `to_arrays` converted to int32; an array that
        is not listed keeps its own.
    """
    dtypes = dtypes or {}
    tensors = {name: to_torch(np.asarray(array)) for name, array in arrays.items()}
    return {name: t.to(dtypes.get(name, t.dtype)) for name, t in tensors.items()}


def _to_array(name: str, tensor: Tensor) -> np.ndarray:
    unsupported = _unsupported(tensor)
    if unsupported:
        msg = (
            f"column {name!r} is {unsupported}; expected a dense tensor of a dtype that JAX "
            "supports. Convert it in collate, or return it as a list to keep it on the host"
        )
        raise ValueError(msg)
    # Conjugated and negated views are lazy in torch and have no counterpart in numpy.
    return narrow(name, to_numpy(tensor.resolve_conj().resolve_neg()))


def _unsupported(tensor: Tensor) -> str:
    if tensor.is_nested:
        return "a nested tensor"
    if tensor.is_quantized or tensor.dtype not in _DTYPES:
        return f"a tensor of {tensor.dtype}"
    if tensor.layout != torch.strided:
        return f"a tensor with the layout {tensor.layout}"
    if tensor.is_meta:
        return "a tensor on the device 'meta', which has no values"
    return ""
