"""Encoders of every family, by one function.

Matrices are multiplied in the dtype of the parameters: pass bfloat16 parameters to compute in
bfloat16. Between matrix products, values have that dtype on accelerators and are float32 on the
CPU. The softmax and the statistics of LayerNorm are always computed in float32.
"""

from __future__ import annotations

from typing import Any

from medjax.models.attention import AttentionImplementation
from medjax.models.config import EncoderConfig
from medjax.models.families import family_of

__all__ = ["make_encoder"]


def make_encoder(
    config: EncoderConfig,
    gradient_checkpointing: bool = False,
    attention_implementation: AttentionImplementation = "xla",
    *,
    name: str | None = None,
) -> Any:
    """Return a Flax module that computes a vector for each token.

    It is called as ``encoder(input_ids, attention_mask, token_type_ids=None, *, deterministic)``:

    - `input_ids`: tokens, shape (rows, length), integer;
    - `attention_mask`: nonzero for real tokens, zero for padding, shape (rows, length);
    - `token_type_ids`: types of the tokens, shape (rows, length), integer; by default all are 0;
    - `deterministic`: False in training, where dropout is applied, with the random stream
      ``"dropout"``.

    It returns hidden states, shape (rows, length, hidden_size), in the dtype of the parameters.
    Those of padding are finite but meaningless. It raises ValueError if the rows are longer than
    the model takes, the model has no token types but `token_type_ids` is passed, or
    `attention_implementation` is unknown.

    Parameters
    ----------
    config : EncoderConfig
        Sizes and settings, whose class and `model_type` determine the family.
    gradient_checkpointing : bool
        Whether the backward pass recomputes the activations inside each layer instead of keeping
        them. This takes a fraction of the memory and up to a third more time, and gives the same
        numbers.
    attention_implementation : {"xla", "cudnn"}
        "cudnn" uses NVIDIA's fused attention where it applies: with bfloat16 parameters, on a GPU
        of compute capability 8.0 or later, if no attention weights are dropped, that is, in
        evaluation and in training with ``attention_probs_dropout_prob`` 0. Padding must then follow
        the real tokens of a row; otherwise the row becomes NaN. XLA's attention is used elsewhere,
        and always for DeBERTa, whose scores depend on positions.
    name : str, optional
        Name of the module in the one that contains it.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from medjax.models import BertConfig
    >>> encoder = make_encoder(BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1,
    ...     num_attention_heads=2, intermediate_size=16))
    >>> ids = jnp.ones((2, 5), jnp.int32)
    >>> variables = encoder.init(jax.random.key(0), ids, ids, deterministic=True)
    >>> encoder.apply(variables, ids, ids, deterministic=True).shape
    (2, 5, 8)
    """
    make = family_of(config).encoder
    return make(config, gradient_checkpointing, attention_implementation, name=name)
