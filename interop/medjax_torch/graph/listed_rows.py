"""Marks in a dense gradient for the rows of a table that a sparse gradient would list."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from medjax_torch.graph.environment import REPLACEMENTS, Replacements
from medjax_torch.graph.packed import Rows


def marking(touch: float) -> Replacements:
    """Return replacements for embeddings that mark the rows that torch's gradient lists.

    With ``sparse=True`` torch lists every row that was looked up except `padding_idx`, even if its
    gradient is 0, such as that of a token whose loss is ignored.

    Parameters
    ----------
    touch : float
        The value put into listed rows whose gradient is all 0. It must be rounded away in every
        sum.
    """
    return {
        functional.embedding: _marked(functional.embedding, 0, 2, 6, touch),
        torch.embedding: _marked(torch.embedding, 1, 2, 4, touch),
        functional.embedding_bag: _marked(functional.embedding_bag, 0, 10, 7, touch),
    }


_NAMES = {
    functional.embedding: ("input", "weight"),
    torch.embedding: ("indices", "weight"),
    functional.embedding_bag: ("input", "weight"),
}


def _marked(
    function: Callable[..., Any], index_at: int, padding_at: int, sparse_at: int, touch: float
) -> Callable[..., Any]:
    dense = REPLACEMENTS[function]

    def call(*args: Any, **kwargs: Any) -> Any:
        sparse = args[sparse_at] if len(args) > sparse_at else kwargs.get("sparse", False)
        if not sparse:
            return dense(*args, **kwargs)
        padding = args[padding_at] if len(args) > padding_at else kwargs.get("padding_idx")
        index_name, weight_name = _NAMES[function]
        places = {index_name: index_at, weight_name: 1 - index_at}
        by_name = {n: args[at] if at < len(args) else kwargs[n] for n, at in places.items()}
        index, weight = by_name[index_name], by_name[weight_name]
        if isinstance(index, Rows):
            index = index.indices()
        marked = _Marked.apply(weight, index, padding, touch)
        at = places[weight_name]
        if at < len(args):
            args = (*args[:at], marked, *args[at + 1 :])
        else:
            kwargs = {**kwargs, weight_name: marked}
        return dense(*args, **kwargs)

    return call


class _Marked(torch.autograd.Function):
    """Returns the table unchanged; its gradient has `touch` in listed rows that are all 0."""

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, index: Tensor, padding_idx: int | None, touch: float
    ) -> Tensor:
        """Return the table, and save the indices that are looked up in it."""
        ctx.save_for_backward(index)
        ctx.padding_idx, ctx.touch = padding_idx, touch
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        """Return the marked gradient of the table."""
        (gradient,) = gradients
        (index,) = ctx.saved_tensors
        count = gradient.shape[0]
        flat = index.reshape(-1).to(torch.int64)
        listed = torch.zeros(count, device=gradient.device).scatter(0, flat, 1.0) > 0
        if ctx.padding_idx is not None and ctx.padding_idx != -1:
            rows = torch.arange(count, device=gradient.device)
            listed = listed & (rows != ctx.padding_idx % count)
        is_zero = (gradient == 0).all(1)
        marked = torch.where((listed & is_zero).unsqueeze(1), ctx.touch, gradient)
        return marked, None, None, None
