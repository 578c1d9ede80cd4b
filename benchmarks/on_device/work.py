"""The work that every contender does: a random BERT encoder, tokens without padding, AdamW."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

VOCABULARY, LABELS = 30522, 9


@dataclasses.dataclass(frozen=True)
class Work:
    """What to train and how.

    Attributes
    ----------
    precision : {"float32", "tf32", "bfloat16"}
        Type of matrix products; everything else is float32, except what a contender itself also
        computes in bfloat16.
    option : str
        "compiled" (torch.compile), "cudnn" (`attention_implementation`), or "".
    rows, length : int
        Size of each batch.
    hidden_size, layers : int
        Size of the encoder; BERT base has 768 and 12.
    steps, epochs : int
        Steps in an epoch, and epochs. Epochs are timed; the first one compiles.
    attention_dropout : float
        Probability of dropping an attention weight; other dropout is 0.1, as in BERT.
    """

    precision: str
    option: str
    rows: int
    length: int
    hidden_size: int
    layers: int
    steps: int
    epochs: int
    attention_dropout: float

    @property
    def sizes(self) -> dict[str, Any]:
        """The encoder's configuration, in the names that transformers and medjax share."""
        return {
            "vocab_size": VOCABULARY,
            "hidden_size": self.hidden_size,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.hidden_size // 64,
            "intermediate_size": 4 * self.hidden_size,
            "max_position_embeddings": 512,
            "attention_probs_dropout_prob": self.attention_dropout,
        }

    @property
    def step_flops(self) -> float:
        """Floating-point operations in the matrix products of a step.

        Six for each weight and token, and ``12 * layers * hidden_size * length`` for each token in
        attention: Chowdhery et al., "PaLM", 2022, appendix B. Embedding lookups count as none.
        """
        weights = self.layers * 12 * self.hidden_size**2 + self.hidden_size * LABELS
        attention = 12 * self.layers * self.hidden_size * self.length
        return self.rows * self.length * (6.0 * weights + attention)

    def items(self) -> list[dict[str, Any]]:
        """Return the rows of an epoch: ``input_ids``, ``attention_mask`` and ``labels``, int64."""
        draw = np.random.default_rng(0)
        ids = draw.integers(1, VOCABULARY, (self.rows * self.steps, self.length))
        mask = np.ones(self.length, np.int64)
        return [{"input_ids": row, "attention_mask": mask, "labels": row % LABELS} for row in ids]
