"""The operators that torch itself decomposes, so that they need no lowering."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from medjax_torch.torch_internals import core_aten_decompositions, get_decompositions

aten = torch.ops.aten

# Core aten does not decompose these, or only some of their overloads; torch has a rule for each.
_BEYOND_CORE = (
    aten._native_batch_norm_legit,
    aten._native_batch_norm_legit_functional,
    aten._native_batch_norm_legit_no_training,
    aten._fused_rms_norm,
    aten._fused_rms_norm_backward,
    aten._log_softmax_backward_data,
    aten._softmax_backward_data,
    aten.embedding_dense_backward,
    aten.gelu_backward,
    aten.grid_sampler_2d,
    aten.im2col,
    aten.linalg_vector_norm,
    aten.logsumexp,
    aten.multi_margin_loss,
    aten.native_batch_norm_backward,
    aten.native_group_norm,
    aten.native_group_norm_backward,
    aten.native_layer_norm,
    aten.native_layer_norm_backward,
    aten.nll_loss_backward,
    aten.norm,
    aten.reflection_pad1d,
    aten.std,
    aten.std_mean,
    aten.unfold,
    aten.unfold_copy,
    aten.var_mean,
)

# Not decomposed: they need a random key, or a lowering takes fewer operations than torch's rule, or
# torch's rule is wrong (that of index_add counts negative indices from the end).
_NOT_DECOMPOSED = (
    aten.index_add.default,
    aten.native_dropout.default,
    aten.multilabel_margin_loss_forward.default,
    aten.upsample_bilinear2d.default,
    aten.upsample_linear1d.default,
    aten.upsample_nearest1d.default,
    aten.upsample_nearest2d.default,
    aten.upsample_nearest3d.default,
    aten._upsample_nearest_exact1d.default,
    aten._upsample_nearest_exact2d.default,
    aten._upsample_nearest_exact3d.default,
)


def before_autograd() -> dict[Any, Callable[..., Any]]:
    """Return the decompositions for the first trace, in which torch's autograd runs.

    `aten.native_batch_norm` updates the running statistics in place, but its schema does not say
    so; `functionalize` would lose the update. `aten.as_strided` depends on the memory layout, and
    `functionalize` replaces views by copies with another layout. torch cannot decompose
    `aten.clamp_min_`, which cosine_similarity uses, when a size depends on values.
    """
    rules = get_decompositions([aten.native_batch_norm])
    return {
        **rules,
        aten.as_strided.default: _as_strided_of_contiguous,
        aten.clamp_min_.Tensor: _clamp_in_place,
    }


def _clamp_in_place(x: Tensor, least: Tensor) -> Tensor:
    return x.copy_(torch.maximum(x, least))


def _as_strided_of_contiguous(
    x: Tensor, size: Sequence[int], stride: Sequence[int], storage_offset: int | None = None
) -> Any:
    """Permute the dimensions of `x` into memory order, then apply the strides.

    Raises
    ------
    ValueError
        If `x` is a view with gaps, or one that does not start at the beginning of its memory.
    """
    # An offset that is given counts from the beginning of the memory, not of the view.
    starts_elsewhere = storage_offset is not None and x.storage_offset() != 0
    if x.is_contiguous() and not starts_elsewhere:
        return NotImplemented
    order = sorted(range(x.dim()), key=lambda dim: x.stride(dim), reverse=True)
    ordered = x.permute(order)
    if not ordered.is_contiguous() or starts_elsewhere:
        raise ValueError(
            f"as_strided of a view of shape {tuple(x.shape)}, strides {x.stride()} and offset "
            f"{x.storage_offset()} cannot be traced; expected a tensor without gaps in memory. "
            "Call .contiguous() first (torch.stft without centering also uses as_strided)."
        )
    return ordered.as_strided(size, stride, storage_offset)


@functools.cache
def _after_autograd() -> dict[Any, Callable[..., Any]]:
    table = {**core_aten_decompositions(), **get_decompositions(list(_BEYOND_CORE))}
    return {target: rule for target, rule in table.items() if target not in _NOT_DECOMPOSED}


def after_autograd() -> dict[Any, Callable[..., Any]]:
    """Return the decompositions for the second trace, whose graph is lowered to JAX."""
    return dict(_after_autograd())
