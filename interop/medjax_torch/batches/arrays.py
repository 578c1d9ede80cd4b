"""Tensors of a batch as arrays for the device, and outputs of the device as tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medjax.data.ladder import narrow
from medjax_torch.tensors import to_numpy, to_torch


def to_arrays(columns: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Return columns as numpy arrays in the types the device uses, never sharing torch's memory.

    Parameters
    ----------
    columns : mapping of str to Tensor
        By path.

    Raises
    ------
    ValueError
        If an integer does not fit 32 bits, or a tensor is sparse or quantised.
    """
    arrays = {}
    for name, column in columns.items():
        if column.layout != torch.strided or column.is_quantized:
            what = "quantised" if column.is_quantized else f"{column.layout}"
            msg = f"column {name!r} is a {what} tensor; expected a dense one, make it in collate"
            raise ValueError(msg)
        arrays[name] = narrow(name, to_numpy(column))
    return arrays


def to_tensors(arrays: Sequence[Any], dtypes: Sequence[torch.dtype]) -> list[Tensor]:
    """Return arrays as tensors of the given dtypes, never sharing JAX's memory."""
    return [
        to_torch(np.asarray(array)).to(dtype) for array, dtype in zip(arrays, dtypes, strict=True)
    ]
