"""Pickling for a digest that does not depend on the weights of a component."""

from __future__ import annotations

import pickle
from typing import Any

import torch
from torch import Tensor, nn

from medjax_torch.torch_internals import disable_torch_function_of_subclasses


class WithoutWeights(pickle.Pickler):
    """Pickles in a form that cannot be read back, only compared.

    Parameters, and whether a module is in training mode, are left out: training changes them in
    each epoch. Nothing counts as read by the user, so that the weights stay on their device.
    """

    def reducer_override(self, value: Any) -> Any:
        """Return what stands for tensors and modules."""
        if isinstance(value, nn.Parameter):
            return tuple, ((),)
        if isinstance(value, Tensor):
            return _tensor, (str(value.dtype), tuple(value.shape), _bytes(value))
        if isinstance(value, nn.Module):
            reduced = value.__reduce_ex__(4)
            if isinstance(reduced, tuple) and len(reduced) > 2 and isinstance(reduced[2], dict):
                state = {name: each for name, each in reduced[2].items() if name != "training"}
                return (*reduced[:2], state, *reduced[3:])
            return reduced
        return NotImplemented


def _tensor(*parts: Any) -> Any:
    """Stand for a tensor; never called, as nothing is unpickled."""
    return parts


def _bytes(tensor: Tensor) -> Any:
    """Return the memory of a tensor as something that can be pickled."""
    # Not through the tensor's own class, which may be watched for reads by user code.
    with disable_torch_function_of_subclasses(), torch.no_grad():
        plain = tensor.detach()
        if plain.is_sparse:
            plain = plain.coalesce()
            return _bytes(plain.indices()), _bytes(plain.values())
        if plain.layout != torch.strided or plain.device.type == "meta":
            return str(plain.layout)
        plain = plain.int_repr() if plain.is_quantized else plain.resolve_conj().resolve_neg()
        return plain.cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
