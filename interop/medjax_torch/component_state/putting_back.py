"""Putting back what user code changes when it runs outside of training."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from medjax_torch.component_state.locations import MISSING, Effect, Snapshot
from medjax_torch.component_state.tensors import is_expanded
from medjax_torch.component_state.walk import Walk
from medjax_torch.component_state.watch.places import token
from medjax_torch.torch_internals import disable_torch_function_of_subclasses

_LARGEST = 1 << 16
"""Bytes of the largest array or tensor whose content is put back: one that counts, not data."""


class Before:
    """The content of objects at one time, to put it back later.

    An object with an open file keeps its attributes, as they may say what has been read of it.
    Parameters keep their values, and so do large arrays and tensors.

    Parameters
    ----------
    *contents : Walk
        The objects.

    Attributes
    ----------
    generators : dict of str to object
        Their random generators, which are not put back here.
    """

    def __init__(self, *contents: Walk) -> None:
        self.generators: dict[str, Any] = {}
        self._snapshots: list[Snapshot] = []
        self._tensors: dict[int, tuple[Tensor, Tensor]] = {}
        for number, content in enumerate(contents):
            for path, generator in content.generators.items():
                self.generators[f"{number} {path}"] = generator
            self._snapshots += [
                Snapshot(path, holder)
                for path, holder in content.holders
                if not (has_open_file(holder) or is_large(holder))
            ]
            with disable_torch_function_of_subclasses():
                for _, _, tensor in content.tensors:
                    if id(tensor) not in self._tensors and _is_small(tensor):
                        self._tensors[id(tensor)] = tensor, tensor.detach().clone()

    def put_back(self) -> list[Effect]:
        """Put the content back, and return what had changed; of tensors, only which is where."""
        effects = [change for snapshot in self._snapshots for change in snapshot.changes()]
        for snapshot in self._snapshots:
            snapshot.restore()
        with disable_torch_function_of_subclasses():
            for tensor, content in self._tensors.values():
                if tensor.shape == content.shape and _bytes(tensor) != _bytes(content):
                    tensor.detach().copy_(content)
        return effects


def is_count(effect: Effect) -> bool:
    """Return whether a value was replaced by another: no cache was filled, and no flag was set."""
    before, after = effect.before, effect.after
    is_filled = before is None or before is MISSING or type(before) is bool
    return not is_filled and token(before) != token(after)


def has_open_file(holder: Any) -> bool:
    """Return whether a dict, such as the attributes of an object, has an open file."""
    return isinstance(holder, dict) and any(
        isinstance(value, io.IOBase) for value in dict.values(holder)
    )


def is_large(holder: Any) -> bool:
    """Return whether an array is so large that it is data and does not count."""
    return isinstance(holder, np.ndarray) and holder.nbytes > _LARGEST


def _is_small(tensor: Tensor) -> bool:
    is_plain = tensor.layout == torch.strided and tensor.device.type == "cpu"
    return (
        is_plain
        and tensor.nbytes <= _LARGEST
        and not isinstance(tensor, nn.Parameter)
        and not is_expanded(tensor)
    )


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()
