"""Options that medkit's configuration does not have."""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

import medjax
from medjax.checks import flag, integer, one_of, validate
from medjax.models.attention import AttentionImplementation


@dataclasses.dataclass(frozen=True)
class Options(medjax.Options):
    """Options that `TrainerConfig` does not have: `medjax.Options`, and those of the drop-in.

    The defaults are medkit's behaviour.

    Attributes
    ----------
    loss_arithmetic : {"medkit", "exact"}
        "medkit" averages the losses of batches and divides the training loss by the number of
        accumulation steps. "exact" weights every batch by its number of labels that are not -100,
        or by its number of rows if it has no ``labels`` of integers; see `medjax.Options`.
    length_window : int
        Number of batches that are grouped by length together; 0, the default here, keeps the
        uniform order.
    padding : mapping of str to float or None
        Padding value of each column, None to not pad it. Without an entry, the Hugging Face
        columns have their usual values. Other axes whose sizes vary together, rows included, are
        padded where a comparison in torch shows that this is harmless: labels with -100, all else
        with 0.
    order : {"uniform", "medkit"}
        Order of the training data: medjax's own, or, for comparisons, exactly that of medkit's
        trainer with the same seed.
    lr_scheduler_interval : {"epoch", "step"}
        Whether the scheduler is stepped after each epoch, as in medkit, or after each update. With
        "step" and ``on_non_finite="skip"``, training waits for the result of each step, to know
        whether it was skipped.
    verify : bool
        Whether the first batch is also computed by torch, and training is refused if JAX's results
        differ.
    max_variants : int
        Maximum number of graphs traced for one batch shape if forward has data-dependent control
        flow.
    attention_implementation : {"xla", "cudnn"}
        "cudnn" computes `torch.nn.functional.scaled_dot_product_attention` with NVIDIA's fused
        attention where it applies: with ``precision="bfloat16"`` on a GPU of compute capability
        8.0 or later, in evaluation or with ``dropout_p=0``, and with no mask or a boolean mask
        that hides only padding at the end of rows. It is opt-in because the verification of the
        first batch, which runs in float32, does not cover it.

    Raises
    ------
    ValueError
        If a value is not allowed; the message names the field, the value and the allowed values.

    Examples
    --------
    >>> options = Options(order="medkit", padding={"tag_ids": -1})
    >>> options.order, options.loss_arithmetic
    ('medkit', 'medkit')
    """

    loss_arithmetic: Literal["exact", "medkit"] = "medkit"
    length_window: int = 0
    order: Literal["uniform", "medkit"] = "uniform"
    lr_scheduler_interval: Literal["epoch", "step"] = "epoch"
    verify: bool = True
    max_variants: int = 8
    attention_implementation: AttentionImplementation = "xla"

    def __post_init__(self) -> None:
        super().__post_init__()
        validate(self, _CHECKS)


_CHECKS = {
    "order": one_of("uniform", "medkit"),
    "lr_scheduler_interval": one_of("epoch", "step"),
    "verify": flag,
    "max_variants": integer(1),
    "attention_implementation": one_of(*get_args(AttentionImplementation)),
}
