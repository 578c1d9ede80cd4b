"""Custom operators, opaque to torch's tracer, whose lowerings are in the table."""

from medjax_torch.lowerings.custom_ops.attention import (
    scaled_dot_product_attention as scaled_dot_product_attention,
)
from medjax_torch.lowerings.custom_ops.ctc import ctc_loss as ctc_loss
from medjax_torch.lowerings.custom_ops.recurrence import recur as recur
