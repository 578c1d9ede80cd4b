"""Connectionist temporal classification by the forward algorithm in log space."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import torch
from jax import lax

from medjax_torch.lowerings import custom_ops as custom_ops
from medjax_torch.lowerings.table import lowers

_IMPOSSIBLE = -1e30
"""Log-probability of an impossible event; finite, so that derivatives of sums stay finite."""


def _padded(targets: jax.Array, lengths: jax.Array, most: int) -> jax.Array:
    """Return the first labels of padded or concatenated targets as ``(batch, longest)``.

    The longest length depends on values; `most`, or all the space available, is always enough.
    """
    if targets.ndim == 2:
        return targets[:, :most]
    starts = jnp.cumsum(lengths) - lengths
    longest = jnp.arange(min(most, targets.shape[0]))
    return jnp.take(targets, starts[:, None] + longest, mode="clip")


def _shifted(alpha: jax.Array, by: int) -> jax.Array:
    return jnp.pad(alpha, ((0, 0), (by, 0)), constant_values=_IMPOSSIBLE)[:, : alpha.shape[1]]


@lowers(torch.ops.medjax.ctc_nll.default)
def negative_log_likelihood(
    log_probs: jax.Array,
    targets: jax.Array,
    input_lengths: jax.Array,
    target_lengths: jax.Array,
    blank: int,
    zero_infinity: bool,
) -> jax.Array:
    """Return the negative log-likelihood of each sequence.

    The recursion is equations 5 to 8 of Graves et al., "Connectionist Temporal Classification",
    ICML 2006, over the labels with blanks between them and around them.

    Parameters
    ----------
    log_probs : jax.Array
        Float ``(time, batch, classes)``.
    targets : jax.Array
        Integer ``(batch, longest)`` or concatenated ``(sum of target_lengths,)``.
    input_lengths, target_lengths : jax.Array
        Integer ``(batch,)``.
    blank : int
        The class that means "no label".
    zero_infinity : bool
        Whether a sequence that does not fit into its input has the loss 0.

    Returns
    -------
    jax.Array
        Float ``(batch,)``; NaN for lengths that are out of range, for which torch raises an error.
    """
    time, batch, _ = log_probs.shape
    # A target that is longer than the input has probability 0, as has its end, which is clipped to
    # the blank after as many labels as there are frames.
    labels = _padded(targets, target_lengths, time)
    states = 2 * labels.shape[1] + 1
    symbols = jnp.full((batch, states), blank).at[:, 1::2].set(labels)
    # A blank between two labels may be skipped unless they are equal.
    before = jnp.pad(symbols, ((0, 0), (2, 0)), constant_values=blank)[:, :states]
    skippable = (symbols != blank) & (symbols != before)

    def emitted(at: jax.Array) -> jax.Array:
        return jnp.take_along_axis(at, symbols, 1)

    def step(alpha: jax.Array, inputs: tuple[Any, Any]) -> tuple[jax.Array, None]:
        at, index = inputs
        skipped = jnp.where(skippable, _shifted(alpha, 2), _IMPOSSIBLE)
        paths = jnp.stack([alpha, _shifted(alpha, 1), skipped])
        reached = jax.nn.logsumexp(paths, 0) + emitted(at)
        return jnp.where((index < input_lengths)[:, None], reached, alpha), None

    # Start before the first state: the first step reaches the first two, and no step leaves only
    # the empty target.
    start = jnp.full((batch, states), _IMPOSSIBLE, log_probs.dtype)
    first = jnp.where(jnp.arange(states) < 2, emitted(log_probs[0]), start)
    begun = jnp.where((input_lengths > 0)[:, None], first, start.at[:, 0].set(0))
    alpha, _ = lax.scan(step, begun, (log_probs[1:], jnp.arange(1, time)))

    def ending(state: jax.Array) -> jax.Array:
        return jnp.take_along_axis(alpha, jnp.clip(state, 0, states - 1)[:, None], 1)[:, 0]

    last = jnp.where(target_lengths > 0, ending(2 * target_lengths - 1), _IMPOSSIBLE)
    loss = -jnp.logaddexp(ending(2 * target_lengths), last)
    loss = jnp.where(loss > -_IMPOSSIBLE / 10, 0.0 if zero_infinity else jnp.inf, loss)
    return jnp.where(_possible(targets, input_lengths, target_lengths, time), loss, jnp.nan)


def _possible(
    targets: jax.Array, input_lengths: jax.Array, target_lengths: jax.Array, time: int
) -> jax.Array:
    """Return for each sequence whether its lengths are such that torch raises no error.

    Concatenated targets may have padding, so more of them than the lengths say are no error here.
    """
    lacking = jnp.sum(target_lengths) > targets.shape[0] if targets.ndim == 1 else False
    longest = targets.shape[-1]
    possible: jax.Array = (input_lengths >= 0) & (input_lengths <= time)
    return possible & (target_lengths >= 0) & (target_lengths <= longest) & ~jnp.asarray(lacking)


@lowers(torch.ops.medjax.ctc_nll_backward.default)
def _backward(
    gradient: jax.Array,
    log_probs: jax.Array,
    targets: jax.Array,
    input_lengths: jax.Array,
    *rest: Any,
) -> jax.Array:
    """Return torch's derivative, which assumes that the log-probabilities are a log-softmax.

    It is the derivative by the input of that log-softmax, plus a multiple of the probabilities
    that the log-softmax's own derivative cancels (equation 16 of the paper).
    """
    likelihood, derivative = jax.vjp(
        lambda values: negative_log_likelihood(values, targets, input_lengths, *rest), log_probs
    )
    fits = likelihood != 0 if rest[-1] else jnp.ones(likelihood.shape, bool)
    within = jnp.arange(log_probs.shape[0])[:, None] < input_lengths
    share = jnp.where(within & fits, gradient, 0)[:, :, None] * jnp.exp(log_probs)
    result: jax.Array = derivative(gradient)[0] + share
    return result
