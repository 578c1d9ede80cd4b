"""Calls of attention as one operator."""

import torch
from table_calls import calls
from torch_cases import f

import medjax_torch.lowerings  # noqa: F401

medjax = torch.ops.medjax

SHAPES = (2, 3, 4, 8), (2, 3, 5, 8), (2, 3, 5, 8)
"""Batch, heads, length and head size of query, key and value."""
PADDING = (torch.arange(5) < torch.tensor([[5], [3]]))[:, None, None]
MASKS = {
    "none": None,
    "padding at the end": PADDING,
    "padding of a whole row": PADDING & torch.tensor([True, False])[:, None, None, None],
    "padding at the beginning": PADDING.flip(-1),
    "by query and key": torch.tensor([[1, 0, 1, 1, 0], [0] * 5, [1] * 5, [0, 1, 0, 0, 0]]) > 0,
    "by head": torch.arange(60).reshape(1, 3, 4, 5) % 7 != 0,
}

for _mask, _is_causal, _scale in (
    *((mask, False, None) for mask in MASKS.values()),
    (None, True, None),
    (None, False, 0.3),
    (PADDING, False, 0.3),
):
    _arguments = (*map(f, *zip(*SHAPES, strict=True)), _mask, _is_causal, _scale)
    calls("attention", medjax.attention.default, _arguments)
    calls(
        "attention",
        medjax.attention_backward.default,
        (f(*SHAPES[0]), *_arguments),
        tolerance=2e-6,
    )
