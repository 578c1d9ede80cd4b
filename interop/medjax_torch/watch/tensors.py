"""Tensors that notice when somebody looks at them or writes to them.

While JAX trains, the newest weights are on its device and the component's tensors are behind. To
bring them up to date after every step would cost a copy of the model each time, for a look that
few callbacks take. So the tensors are given a class that tells of the first operation on any of
them; until then a step costs nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class _Noticing:
    """Mixed into the class of a watched tensor."""

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Tell the watch of an operation before it is done."""
        if func in _FLAGS:
            for watch in _watches_of((args, kwargs)):
                watch.flags_changed = True
        if func not in _FLAGS and func not in _HARMLESS:
            for watch in _watches_of((args, kwargs)):
                watch.open()
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    def __deepcopy__(self, memo: Any) -> Any:
        """Copy the tensor as what it was before it was watched."""
        for watch in _watches_of([self]):
            watch.open()
        tensor: Any = self
        return type(tensor).__deepcopy__(tensor, memo)


_KEY = "_medjax_watch"

_FLAGS = {Tensor.requires_grad.__set__, Tensor.requires_grad_}  # type: ignore[attr-defined]
"""What changes whether a tensor is trained, and none of its values."""


def _getters(*names: str) -> set[Any]:
    # Not every release of torch has each of them.
    return {getattr(Tensor, name).__get__ for name in names if hasattr(Tensor, name)}


_HARMLESS: set[Any] = {
    *_getters("shape", "dtype", "device", "layout", "ndim", "requires_grad", "is_leaf"),
    *_getters("grad", "is_sparse", "is_cuda", "is_meta", "_backward_hooks", "grad_fn"),
    *_getters("itemsize", "nbytes", "is_quantized", "is_nested", "retains_grad", "output_nr"),
    *(Tensor.size, Tensor.dim, Tensor.numel, Tensor.stride, Tensor.is_contiguous),
    *(Tensor.is_floating_point, Tensor.is_complex, Tensor.element_size, Tensor.__len__),
    *(Tensor.nelement, Tensor.ndimension, Tensor.storage_offset, Tensor.get_device),
}
"""What tells nothing of the values."""


def _watches_of(values: Any) -> list[TensorWatch]:
    """Return the watches of the noticing tensors among the arguments of a function."""
    found: dict[int, TensorWatch] = {}
    pending = [values]
    while pending:
        value = pending.pop()
        if isinstance(value, _Noticing):
            watch = value.__dict__[_KEY]
            found[id(watch)] = watch
        elif isinstance(value, list | tuple):
            pending.extend(value)
        elif isinstance(value, dict):
            pending.extend(value.values())
    return list(found.values())


@functools.cache
def _noticing(kind: type) -> type:
    return type(kind.__name__, (_Noticing, kind), {"__module__": kind.__module__})


class TensorWatch:
    """Watches the tensors of a component; closed, it waits for somebody to touch one of them.

    Parameters
    ----------
    tensors : mapping of str to Tensor
        The tensors.
    bring : callable
        Called at the first touch, to write the newest values into the tensors.

    Attributes
    ----------
    is_open : bool
        Whether the tensors have their own classes, for anybody to use.
    flags_changed : bool
        Whether somebody set ``requires_grad`` since this was last set to False.
    """

    def __init__(self, tensors: Mapping[str, Tensor], bring: Callable[[], None]) -> None:
        self.is_open = True
        self.flags_changed = False
        self._tensors = list(tensors.values())
        self._kinds = [type(tensor) for tensor in self._tensors]
        self._bring = bring

    def close(self) -> None:
        """Let the tensors notice from here on, unless their memory can be seen from elsewhere."""
        if not self.is_open or self.is_exposed():
            return
        self.is_open = False
        for tensor, kind in zip(self._tensors, self._kinds, strict=True):
            tensor.__dict__[_KEY] = self
            tensor.__class__ = _noticing(kind)

    def open(self) -> None:
        """Give the tensors their own classes back and bring the newest values."""
        if not self.is_open:
            self.release()
            self._bring()

    def release(self) -> None:
        """Give the tensors their own classes back, with the values they have."""
        if self.is_open:
            return
        self.is_open = True
        for tensor, kind in zip(self._tensors, self._kinds, strict=True):
            tensor.__class__ = kind
            tensor.__dict__.pop(_KEY, None)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Let this package work with the tensors, as they are, without being noticed."""
        was_open = self.is_open
        self.release()
        try:
            yield
        finally:
            if not was_open:
                self.close()

    def is_exposed(self) -> bool:
        """Tell whether somebody keeps a view of a tensor, or its class cannot be changed.

        A view, such as ``parameter.data`` or a NumPy array, reads and writes memory without any
        operation on the tensor itself.
        """
        if any(not _can_notice(kind) for kind in set(self._kinds)):
            return True
        counts: dict[int, list[int]] = {}
        for tensor in self._tensors:
            if tensor.layout == torch.strided:
                counts.setdefault(*_owners(tensor))[1] += 1
        return any(owners > known for owners, known in counts.values())


def _owners(tensor: Tensor) -> tuple[int, list[int]]:
    """Return the address of a tensor's memory with how many tensors own it, and a count of 0."""
    storage = tensor.untyped_storage()
    # One owner more is the object that was just made to ask.
    return storage._cdata, [torch._C._storage_Use_Count(storage._cdata) - 1, 0]


@functools.cache
def _can_notice(kind: type) -> bool:
    """Tell whether instances of a class may be given another one."""
    return kind in (Tensor, nn.Parameter) or "__torch_dispatch__" not in vars(kind)
