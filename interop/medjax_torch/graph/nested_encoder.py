"""What `nn.TransformerEncoder` gives for padded positions where torch uses nested tensors.

In evaluation without gradients torch computes only the positions before the padding, and its result
is 0 at the others. A graph has no nested tensors: it computes all positions and puts the 0 there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from medjax_torch.graph.replacing import replaced

_plain = nn.TransformerEncoder.forward


@contextmanager
def padded_with_zeros() -> Iterator[None]:
    """Make encoders give torch's result without its fast path, unless the user switched it off."""
    if not torch.backends.mha.get_fastpath_enabled():
        yield
        return
    with replaced(nn.TransformerEncoder, "forward", _forward):
        yield


def _forward(
    self: Any,
    src: Tensor,
    mask: Tensor | None = None,
    src_key_padding_mask: Tensor | None = None,
    is_causal: bool | None = None,
) -> Tensor:
    padding = src_key_padding_mask
    if padding is None or mask is not None or not _is_nested(self, src, padding):
        return _plain(self, src, mask, padding, is_causal)
    valid = padding.logical_not()
    # torch keeps as many of the first positions as are valid; otherwise it checks that these are.
    kept = torch.arange(valid.shape[1], device=valid.device) < valid.sum(1, keepdim=True)
    left_out = ~kept
    if getattr(self, "mask_check", True):
        is_nested = (kept == valid).all()
        dropped = left_out if padding.dtype == torch.bool else _as_float(left_out, padding)
        padding = torch.where(is_nested, dropped, padding)
        left_out = left_out & is_nested
    else:
        padding = left_out
    output = src
    for layer in self.layers:
        output = layer(output, src_key_padding_mask=padding)
    output = output.masked_fill(left_out.unsqueeze(-1), 0)
    return output if self.norm is None else self.norm(output)


def _is_nested(encoder: Any, src: Tensor, padding: Tensor) -> bool:
    """Return whether torch would use nested tensors if the valid positions come first."""
    first = encoder.layers[0]
    if not getattr(encoder, "use_nested_tensor", False) or first.training or src.dim() != 3:
        return False
    is_mask = padding.dtype == torch.bool or padding.is_floating_point()
    if not is_mask or torch.is_autocast_enabled():
        return False
    if not torch.is_grad_enabled():
        return True
    attention = first.self_attn
    modules = (attention.out_proj, first.norm1, first.norm2, first.linear1, first.linear2)
    weights = [attention.in_proj_weight, attention.in_proj_bias]
    weights += [each for module in modules for each in (module.weight, module.bias)]
    return not any(each.requires_grad for each in (src, *weights))


def _as_float(left_out: Tensor, like: Tensor) -> Tensor:
    return torch.zeros_like(like).masked_fill(left_out, -torch.inf)
