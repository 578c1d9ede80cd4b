"""Connectionist temporal classification that can be traced with lengths from a batch.

torch's own function reads the lengths on the host. `ctc_loss` replaces it by a single operator,
whose derivative is another one; the shapes of both are known when tracing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op

_REDUCTIONS = {0: "none", 1: "mean", 2: "sum"}
"""The reductions of `torch.nn.functional.ctc_loss` by aten's codes."""


@custom_op("medjax::ctc_nll", mutates_args=())
def ctc_nll(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Tensor,
    target_lengths: Tensor,
    blank: int,
    zero_infinity: bool,
) -> Tensor:
    """Return the negative log-likelihood of each sequence, float ``(batch,)``, computed by torch.

    Parameters
    ----------
    log_probs : Tensor
        Float ``(time, batch, classes)``.
    targets : Tensor
        Integer, padded ``(batch, longest)`` or concatenated ``(sum of target_lengths,)``.
    input_lengths, target_lengths : Tensor
        Integer ``(batch,)``.
    blank : int
        The class that means "no label".
    zero_infinity : bool
        Whether a sequence that does not fit into its input has the loss 0 instead of infinity.
    """
    loss, _ = torch.ops.aten._ctc_loss.Tensor(
        log_probs, targets, input_lengths, target_lengths, blank, zero_infinity
    )
    # torch applies zero_infinity in the reduction and in the derivative, not in this operator.
    return torch.where(loss.isinf(), 0, loss) if zero_infinity else loss.clone()


@custom_op("medjax::ctc_nll_backward", mutates_args=())
def ctc_nll_backward(
    gradient: Tensor,
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Tensor,
    target_lengths: Tensor,
    blank: int,
    zero_infinity: bool,
) -> Tensor:
    """Return the derivative by the log-probabilities from the one by the result."""
    lengths = (input_lengths, target_lengths)
    loss, log_alpha = torch.ops.aten._ctc_loss.Tensor(
        log_probs, targets, *lengths, blank, zero_infinity
    )
    result: Tensor = torch.ops.aten._ctc_loss_backward.Tensor(
        gradient, log_probs, targets, *lengths, loss, log_alpha, blank, zero_infinity
    )
    return result


@ctc_nll.register_fake
def _(log_probs: Tensor, *rest: Any) -> Tensor:
    return log_probs.new_empty(log_probs.shape[1])


@ctc_nll_backward.register_fake
def _(gradient: Tensor, log_probs: Tensor, *rest: Any) -> Tensor:
    return torch.empty_like(log_probs)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.options = inputs[4:]


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    return ctc_nll_backward(gradient, *ctx.saved_tensors, *ctx.options), *(None,) * 5


ctc_nll.register_autograd(_backward, setup_context=_save)


def ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Tensor | Sequence[int],
    target_lengths: Tensor | Sequence[int],
    blank: int = 0,
    reduction: str | int = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    """Return the CTC loss; can be traced with lengths from the batch.

    It takes the arguments of both `torch.nn.functional.ctc_loss` and `torch.ctc_loss`, in their
    order, so a function mode can substitute it for either.

    Parameters
    ----------
    log_probs : Tensor
        Float ``(time, batch, classes)`` or, for one sequence, ``(time, classes)``.
    targets : Tensor
        Integer ``(batch, longest)`` or concatenated ``(sum of target_lengths,)``.
    input_lengths, target_lengths : Tensor or sequence of int
        ``(batch,)``, or a scalar for one sequence.
    blank : int
        The class that means "no label".
    reduction : {'none', 'mean', 'sum'} or {0, 1, 2}
        'mean' divides each loss by its target length, then averages over the batch.
    zero_infinity : bool
        Whether a sequence that does not fit into its input has the loss 0 and no gradient.

    Raises
    ------
    ValueError
        If `reduction` is none of these.
    """
    named = _REDUCTIONS.get(reduction, "") if isinstance(reduction, int) else reduction
    if named not in _REDUCTIONS.values():
        raise ValueError(
            f"ctc_loss: reduction is {reduction!r}; expected one of {list(_REDUCTIONS.values())} "
            f"or {list(_REDUCTIONS)}."
        )
    single = log_probs.dim() == 2
    if single:
        log_probs = log_probs.unsqueeze(1)
    inputs = torch.as_tensor(input_lengths).reshape(-1)
    lengths = torch.as_tensor(target_lengths).reshape(-1)
    loss: Tensor = ctc_nll(log_probs, targets, inputs, lengths, blank, zero_infinity)
    if named == "mean":
        return (loss / lengths.clamp(min=1).to(loss)).mean()
    if named == "sum":
        return loss.sum()
    return loss.squeeze(0) if single else loss
