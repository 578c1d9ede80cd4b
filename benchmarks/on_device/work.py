"""The work that all do: a random encoder of BERT's make, tokens without padding, AdamW."""

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
        Type in which matrices are multiplied; all else is float32, but for what a contender's own
        bfloat16 rounds besides.
    option : str
        "compiled" (torch.compile), "cudnn" (`attention_implementation`), or empty.
    rows, length : int
        Of each batch.
    hidden_size, layers : int
        Of the encoder: 768 and 12 are those of BERT base.
    steps, epochs : int
        Steps of an epoch, which is what is timed, and epochs; the first compiles.
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
        """The encoder's configuration, by the names that transformers and medjax share."""
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
        """Floating-point operations that a step's products need.

        Six for each weight and token, and ``12 * layers * hidden_size * length`` for each token in
        attention: Chowdhery et al., "PaLM", 2022, appendix B. Looked-up embeddings are none.
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
