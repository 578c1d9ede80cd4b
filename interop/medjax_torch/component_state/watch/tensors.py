"""Tensors that notice when they are read or written.

While JAX trains, the latest weights are on its device and the component's tensors are out of date.
Updating them after every step would copy the model each time, although few callbacks read them.
Instead, the tensors get a class that reports the first operation on any of them; until then a step
has no extra cost.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from medjax_torch.torch_internals import count_owners, disable_torch_function_of_subclasses


class _Noticing:
    """Mixin for the class of a watched tensor."""

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Notify the watch of an operation before it is executed."""
        if func in _FLAGS:
            for watch in _watches_of((args, kwargs)):
                watch.flags_changed = True
        if func == _GRADIENT:
            for watch in _watches_of((args, kwargs)):
                watch.gradient_read()
        if func not in _FLAGS and func not in _HARMLESS:
            for watch in _watches_of((args, kwargs)):
                watch.open()
        with disable_torch_function_of_subclasses():
            return func(*args, **(kwargs or {}))

    def __deepcopy__(self, memo: Any) -> Any:
        """Copy the tensor with its original class."""
        for watch in _watches_of([self]):
            watch.open()
        tensor: Any = self
        return type(tensor).__deepcopy__(tensor, memo)


_KEY = "_medjax_watch"

_FLAGS = {Tensor.requires_grad.__set__, Tensor.requires_grad_}  # type: ignore[attr-defined]
"""Operations that change whether a tensor is trained, but not its values."""


def _getters(*names: str) -> set[Any]:
    # Not every torch release has all of them.
    return {getattr(Tensor, name).__get__ for name in names if hasattr(Tensor, name)}


(_GRADIENT,) = _getters("grad")

_HARMLESS: set[Any] = {
    *_getters("shape", "dtype", "device", "layout", "ndim", "requires_grad", "is_leaf"),
    *_getters("grad", "is_sparse", "is_cuda", "is_meta", "_backward_hooks", "grad_fn"),
    *_getters("itemsize", "nbytes", "is_quantized", "is_nested", "retains_grad", "output_nr"),
    Tensor.size,
    Tensor.dim,
    Tensor.numel,
    Tensor.stride,
    Tensor.is_contiguous,
    Tensor.is_floating_point,
    Tensor.is_complex,
    Tensor.element_size,
    Tensor.__len__,
    Tensor.nelement,
    Tensor.ndimension,
    Tensor.storage_offset,
    Tensor.get_device,
}
"""Operations that do not depend on the values."""


def _watches_of(values: Any) -> list[TensorWatch]:
    """Return the watches of the watched tensors among the arguments of a function."""
    watches: dict[int, TensorWatch] = {}
    pending = [values]
    while pending:
        value = pending.pop()
        if isinstance(value, _Noticing):
            watch = value.__dict__[_KEY]
            watches[id(watch)] = watch
        elif isinstance(value, list | tuple):
            pending.extend(value)
        elif isinstance(value, dict):
            pending.extend(value.values())
    return list(watches.values())


@functools.cache
def _noticing(kind: type) -> type:
    return type(kind.__name__, (_Noticing, kind), {"__module__": kind.__module__})


class TensorWatch:
    """Watches the tensors of a component; while closed, the first use of any of them opens it.

    Parameters
    ----------
    tensors : mapping of str to Tensor
        The tensors.
    bring : callable
        Called at the first use, to write the latest values into the tensors.

    Attributes
    ----------
    is_open : bool
        Whether the tensors have their own classes and are up to date.
    flags_changed : bool
        Whether ``requires_grad`` was set since this attribute was last set to False.
    gradient_read : callable
        Called when the gradient of a watched tensor is read; does nothing by default.
    """

    def __init__(self, tensors: Mapping[str, Tensor], bring: Callable[[], None]) -> None:
        self.is_open = True
        self.flags_changed = False
        self.gradient_read: Callable[[], None] = lambda: None
        self._tensors = list(tensors.values())
        self._kinds = [type(tensor) for tensor in self._tensors]
        self._bring = bring

    def close(self) -> None:
        """Start watching the tensors, unless their memory is visible from elsewhere."""
        if not self.is_open or self.is_exposed():
            return
        self.is_open = False
        for tensor, kind in zip(self._tensors, self._kinds, strict=True):
            tensor.__dict__[_KEY] = self
            tensor.__class__ = _noticing(kind)

    def open(self) -> None:
        """Restore the tensors' own classes and write the latest values."""
        if not self.is_open:
            self.release()
            self._bring()

    def release(self) -> None:
        """Restore the tensors' own classes without changing their values."""
        if self.is_open:
            return
        self.is_open = True
        for tensor, kind in zip(self._tensors, self._kinds, strict=True):
            tensor.__class__ = kind
            tensor.__dict__.pop(_KEY, None)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Suspend watching in the block, so that this package can use the tensors as they are."""
        was_open = self.is_open
        self.release()
        try:
            yield
        finally:
            if not was_open:
                self.close()

    def is_exposed(self) -> bool:
        """Return whether user code has a view of a tensor, or its class cannot be changed.

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
    """Return the address of a tensor's memory, and a pair: its number of owners, and a 0."""
    address, owners = count_owners(tensor)
    return address, [owners, 0]


@functools.cache
def _can_notice(kind: type) -> bool:
    """Return whether the class of instances of `kind` can be changed."""
    return kind in (Tensor, nn.Parameter) or "__torch_dispatch__" not in vars(kind)
