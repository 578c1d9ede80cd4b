"""Tensors to numpy and back, and which tensors share memory."""

from __future__ import annotations

from collections.abc import Mapping

import ml_dtypes
import numpy as np
import torch
from torch import Tensor


def to_numpy(tensor: Tensor) -> np.ndarray:
    """Return a copy as numpy array; bfloat16, which numpy lacks, as `ml_dtypes.bfloat16`."""
    return as_numpy(tensor).copy()


def as_numpy(tensor: Tensor) -> np.ndarray:
    """Return the array of `to_numpy`, in the memory of the tensor if that is on the host."""
    values = tensor.detach().cpu().contiguous()
    if values.dtype == torch.bfloat16:
        result: np.ndarray = values.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
        return result
    return values.numpy()


def to_torch(values: np.ndarray) -> Tensor:
    """Return a copy as torch tensor, the inverse of `to_numpy`."""
    copy = np.array(values, order="C")
    if copy.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(copy.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(copy)


def is_expanded(tensor: Tensor) -> bool:
    """Tell whether elements of the tensor share memory, as those of `Tensor.expand` do."""
    return any(
        stride == 0 and size > 1 for stride, size in zip(tensor.stride(), tensor.shape, strict=True)
    )


def overlapping(tensors: Mapping[str, Tensor]) -> list[tuple[str, str]]:
    """Return pairs of the tensors whose extents in memory overlap, every such tensor at least once.

    Extents are compared, so two interleaved views count as overlapping.
    """
    storages: dict[int, list[tuple[int, int, str]]] = {}
    for name, tensor in tensors.items():
        if tensor.layout == torch.strided and tensor.device.type != "meta" and tensor.numel():
            size = tensor.element_size()
            steps = zip(tensor.stride(), tensor.shape, strict=True)
            start = int(tensor.storage_offset()) * size
            end = start + (1 + sum(int(stride) * (length - 1) for stride, length in steps)) * size
            storage = tensor.untyped_storage().data_ptr()
            storages.setdefault(storage, []).append((start, end, name))
    pairs = []
    for extents in storages.values():
        _, reach, owner = min(extents)
        for start, end, name in sorted(extents)[1:]:
            if start < reach:
                pairs.append((owner, name))
            if end > reach:
                reach, owner = end, name
    return pairs
