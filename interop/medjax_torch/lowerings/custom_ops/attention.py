"""torch's scaled dot-product attention as a single operator of the graph.

torch's own function is traced as products and a softmax, which cannot be replaced by a library's
kernel afterwards. `scaled_dot_product_attention` is a single operator, and so is its derivative.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op
from torch.nn import functional as F

_of_torch = F.scaled_dot_product_attention


@custom_op("medjax::attention", mutates_args=())
def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    is_causal: bool,
    scale: float | None,
) -> Tensor:
    """Return the attended values in the shape of `query`, computed by torch.

    Parameters
    ----------
    query : Tensor
        Float ``(batch, heads, length, head size)``.
    key, value : Tensor
        Float ``(batch, heads, number of keys, head size)``.
    mask : Tensor, optional
        Bool, True where a query may attend to a key, broadcastable to ``(batch, heads, length,
        number of keys)``.
    is_causal : bool
        Whether the i-th query attends only to the first i keys.
    scale : float, optional
        Factor of the scores; by default, one over the square root of the head size.
    """
    return _of_torch(query, key, value, mask, 0.0, is_causal, scale=scale)


@custom_op("medjax::attention_backward", mutates_args=())
def attention_backward(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    is_causal: bool,
    scale: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the derivatives by query, key and value from the one by the result."""
    # Written out, as torch does not differentiate the body of a custom operator.
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    scores = query @ key.mT * scale
    if is_causal:
        mask = torch.ones_like(scores, dtype=torch.bool).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    # A query that may not attend to any key gets zeros.
    weights = scores.softmax(-1).nan_to_num(0)
    to_weights = gradient @ value.mT
    to_scores = weights * (to_weights - (weights * to_weights).sum(-1, keepdim=True)) * scale
    return to_scores @ key, to_scores.mT @ query, weights.mT @ gradient


@attention.register_fake
def _(query: Tensor, *rest: Any) -> Tensor:
    return torch.empty_like(query, memory_format=torch.contiguous_format)


@attention_backward.register_fake
def _(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.options = inputs[4:]


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    return *attention_backward(gradient, *ctx.saved_tensors, *ctx.options), None, None, None


attention.register_autograd(_backward, setup_context=_save)


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Replace `torch.nn.functional.scaled_dot_product_attention`, as one operator if possible.

    It takes torch's arguments in torch's order, so a function mode can substitute it. It is a
    single operator if there is no dropout, the mask is boolean or None, and query, key and value
    have four axes and share batch, heads and head size. Other calls go to torch's function.
    """
    masks = attn_mask is None or (attn_mask.dtype == torch.bool and not is_causal)
    alike = query.dim() == 4 and all(
        tensor.shape[:2] == query.shape[:2] and tensor.shape[3:] == query.shape[3:]
        for tensor in (key, value)
    )
    if dropout_p == 0 and not enable_gqa and masks and alike:
        result: Tensor = attention(query, key, value, attn_mask, is_causal, scale)
        return result
    return _of_torch(
        query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
    )
