"""SpecAugment of Hugging Face's speech models: drawing the spans of the input to mask.

Their function `_compute_mask_indices` draws with numpy, in as many calls as there are rows, and
reads the lengths of the rows. Here the whole call becomes a single operator of the graph. It takes
the attention mask and a seed, which is drawn like any other random number (see `host_draws`), and
the host runs it before each step (see `long_integers`).
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.library import custom_op

from medjax_torch.graph.replacing import replaced

FUNCTION = "_compute_mask_indices"

_running: list[str] = []


def is_drawing() -> bool:
    """Return whether a model's own function is running, whose draws are not to be replaced."""
    return bool(_running)


@custom_op("medjax::mask_indices", mutates_args=())
def mask_indices(
    seed: Tensor,
    attention_mask: Tensor | None,
    module: str,
    shape: Sequence[int],
    mask_prob: float,
    mask_length: int,
    min_masks: int,
) -> Tensor:
    """Return what a model's own function draws from a generator with the given seed.

    Parameters
    ----------
    seed : Tensor
        Integers below 2^32, ``(n,)``.
    attention_mask : Tensor, optional
        ``shape``, 1 where a row has input; by default everywhere.
    module : str
        Name of the module that defines the function.
    shape : sequence of int
        Number of rows and length.
    mask_prob, mask_length, min_masks
        Passed on: share of a row to mask, length of a span, and minimum number of spans.

    Returns
    -------
    Tensor
        Bool, ``shape``; True where the input is masked.
    """
    function = getattr(sys.modules[module], FUNCTION)
    if isinstance(function, _Operator):
        function = function.original
    before = np.random.get_state()
    np.random.seed(seed.cpu().numpy().astype(np.uint32))
    _running.append(module)
    try:
        drawn = function(tuple(shape), mask_prob, mask_length, attention_mask, min_masks)
    finally:
        _running.pop()
        np.random.set_state(before)
    return torch.from_numpy(np.ascontiguousarray(drawn)).to(torch.bool)


@mask_indices.register_fake
def _(
    seed: Tensor,
    attention_mask: Tensor | None,
    module: str,
    shape: Sequence[int],
    mask_prob: float,
    mask_length: int,
    min_masks: int,
) -> Tensor:
    return torch.empty(tuple(shape), dtype=torch.bool)


OPERATION = torch.ops.medjax.mask_indices.default


@contextmanager
def drawn_as_an_operator() -> Iterator[None]:
    """Make every loaded module that defines the function call `mask_indices` instead."""
    names = [
        name
        for name, module in list(sys.modules.items())
        if name.startswith("transformers.models.") and FUNCTION in vars(module)
    ]
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        # The models copy what the function returns, which is a tensor here and not an array.
        warnings.filterwarnings("ignore", message="To copy construct from a tensor")
        for name in names:
            module = sys.modules[name]
            function = getattr(module, FUNCTION)
            if not isinstance(function, _Operator):
                stack.enter_context(replaced(module, FUNCTION, _Operator(name, function)))
        yield


class _Operator:
    """Replaces the function of a module.

    Parameters
    ----------
    module : str
        Name of the module.
    original : callable
        Its function.
    """

    def __init__(self, module: str, original: Callable[..., Any]) -> None:
        self._module = module
        self.original = original

    def __call__(
        self,
        shape: Sequence[int],
        mask_prob: float,
        mask_length: int,
        attention_mask: Tensor | None = None,
        min_masks: int = 0,
    ) -> Tensor:
        """Return the mask, drawn with a seed that is itself drawn at random."""
        seed: Any = torch.as_tensor(np.random.randint(0, 2**31 - 1, 4))
        draw: Any = mask_indices
        result: Tensor = draw(
            seed, attention_mask, self._module, list(shape), mask_prob, mask_length, min_masks
        )
        return result
