"""Options: what medkit's configuration lacks."""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

import medjax
from medjax.config import flag, integer, one_of, validate
from medjax.models.attention import AttentionImplementation


@dataclasses.dataclass(frozen=True)
class Options(medjax.Options):
    """What medkit's configuration lacks: `medjax.Options` with medkit's defaults, and more.

    Attributes
    ----------
    loss_arithmetic : {"medkit", "exact"}
        "medkit" averages the losses of batches and divides the training loss by the accumulation
        steps; "exact" weighs every batch by its labels, or by its rows where it has no ``labels``
        with -100 in them.
    length_window : int
        Batches that are grouped by length together; 0, the default here, keeps the uniform order.
    padding : mapping of str to float or None
        Besides the Hugging Face columns, axes that are seen to vary together are padded, rows
        included, where torch finds that harmless: integers with 0 or, as labels, -100, other
        numbers with 0. A value given here pads its column instead; None leaves the column as it is.
    order : {"uniform", "medkit"}
        Order of the training data: medjax's own, or the very one that medkit's trainer has with
        the same seed, for comparisons.
    lr_scheduler_interval : {"epoch", "step"}
        Whether the scheduler is stepped after each epoch, as in medkit, or after each update. By
        "step" and with ``on_non_finite="skip"`` each step is waited for, to know of its update.
    verify : bool
        Whether the first batch is computed by torch too, and training refused where JAX differs.
    max_variants : int
        Graphs traced for batches of one shape, where forward decides by their values.
    attention_implementation : {"xla", "cudnn"}
        "cudnn" computes `torch.nn.functional.scaled_dot_product_attention` by NVIDIA's fused
        attention where it applies: with ``precision="bfloat16"`` on a GPU of compute capability
        8.0 or later, in evaluation or with a ``dropout_p`` of 0, where a mask of truth values, if
        there is one, only hides padding at the end of rows. It is opt-in, as the first batch,
        compared with torch in float32, does not verify it.

    Raises
    ------
    ValueError
        If a value is not allowed; the message names field, value and what is allowed.
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
