"""The rules of tracing: what is replaced or decomposed so that all of torch has a lowering."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from medjax.models.attention import AttentionImplementation
from medjax_torch.graph import Rules
from medjax_torch.graph.listed_rows import marking
from medjax_torch.graph.recurrent import replacements
from medjax_torch.lowerings import counted, custom_ops, decompositions
from medjax_torch.optimizers.rule import TOUCH


def tracing_rules(
    attention_implementation: AttentionImplementation = "xla", *, marks_rows: bool = False
) -> Rules:
    """Return the tracer's rules, so that it records only operations that have a lowering.

    Parameters
    ----------
    attention_implementation : {"xla", "cudnn"}
        See `Options`.
    marks_rows : bool
        Whether dense gradients mark the rows that a sparse gradient would list; see `listed_rows`.
    """
    attend = {F.scaled_dot_product_attention: custom_ops.scaled_dot_product_attention}
    return Rules(
        replacements={
            F.ctc_loss: custom_ops.ctc_loss,
            torch.ctc_loss: custom_ops.ctc_loss,
            **replacements(custom_ops.recur, of_tensors=True),
            **(attend if attention_implementation == "cudnn" else {}),
            **(marking(TOUCH) if marks_rows else {}),
        },
        mark=TOUCH,
        before_autograd=decompositions.before_autograd(),
        after_autograd=decompositions.after_autograd(),
        accept=counted.accept,
    )
