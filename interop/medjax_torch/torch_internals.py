"""The parts of torch that are not public, or experimental: each enters medjax_torch here.

A release of torch that moves one of them needs a change of this module alone. Operators such as
``torch.ops.aten._to_copy`` are no such parts: a leading underscore belongs to their names.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch._decomp import core_aten_decompositions, get_decompositions
from torch._ops import OpOverload
from torch._subclasses import FakeTensor, FakeTensorMode
from torch.fx.experimental.proxy_tensor import (
    disable_proxy_modes_tracing,
    get_proxy_mode,
    make_fx,
)
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = [
    "FakeTensor",
    "FakeTensorMode",
    "OpOverload",
    "ShapeEnv",
    "TorchDispatchMode",
    "check_tensor_all_with",
    "check_with",
    "core_aten_decompositions",
    "count_owners",
    "disable_proxy_modes_tracing",
    "disable_torch_function",
    "disable_torch_function_of_subclasses",
    "get_decompositions",
    "get_proxy_mode",
    "is_alias",
    "is_onednn_enabled",
    "make_fx",
    "pack_padded_sequence",
    "pad_packed_sequence",
    "pytree",
    "refuse_reads_of_addresses",
    "set_onednn_enabled",
]

check_with: Any = torch._check_with
"""What `torch._check` and its relatives call."""

check_tensor_all_with: Any = torch._check_tensor_all_with
"""What `torch._check_tensor_all` and its relatives call."""

pack_padded_sequence: Any = torch._C._VariableFunctions._pack_padded_sequence
"""The operator below `torch.nn.utils.rnn.pack_padded_sequence`."""

pad_packed_sequence: Any = torch._C._VariableFunctions._pad_packed_sequence
"""The operator below `torch.nn.utils.rnn.pad_packed_sequence`."""


def disable_torch_function() -> AbstractContextManager[Any]:
    """Return a context without modes or tensor subclasses that intercept torch functions."""
    context: AbstractContextManager[Any] = torch._C.DisableTorchFunction()
    return context


def disable_torch_function_of_subclasses() -> AbstractContextManager[Any]:
    """Return a context without tensor subclasses that intercept torch functions."""
    context: AbstractContextManager[Any] = torch._C.DisableTorchFunctionSubclass()
    return context


def is_alias(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Return whether two tensors share their memory, as a view does with its base."""
    shared: bool = torch._C._is_alias_of(one, other)  # type: ignore[attr-defined]
    return shared


def is_onednn_enabled() -> bool:
    """Return whether torch may use oneDNN's kernels on a CPU."""
    enabled: bool = torch._C._get_mkldnn_enabled()
    return enabled


def set_onednn_enabled(enabled: bool) -> None:
    """Let torch use oneDNN's kernels on a CPU, or not."""
    torch._C._set_mkldnn_enabled(enabled)


def refuse_reads_of_addresses() -> AbstractContextManager[Any]:
    """Return a context in which a tensor without values refuses to say where its memory is."""
    context: AbstractContextManager[Any] = torch._functorch.config.patch(
        fake_tensor_allow_unsafe_data_ptr_access=False
    )
    return context


def count_owners(tensor: torch.Tensor) -> tuple[int, int]:
    """Return the address of a tensor's storage, and the number of tensors that own it."""
    storage = tensor.untyped_storage()
    # Do not count `storage` itself.
    return storage._cdata, torch._C._storage_Use_Count(storage._cdata) - 1
