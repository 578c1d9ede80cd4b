"""Process settings and function replacements in force while torch traces a component."""

from __future__ import annotations

import io
import logging
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stdout
from typing import Any

import torch
import torch.utils.checkpoint
from torch import Tensor, fx
from torch.distributions import Distribution
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from medjax_torch.graph.assertions import following_checks
from medjax_torch.graph.distinct import DISTINCT
from medjax_torch.graph.errors import TraceError, at, frames_here, line_here
from medjax_torch.graph.index_tensors import IndexTensors
from medjax_torch.graph.nested_encoder import padded_with_zeros
from medjax_torch.graph.number_lists import Numbers, stacked
from medjax_torch.graph.packed import PACKING
from medjax_torch.graph.recompute import marked
from medjax_torch.graph.recurrent import RECURRENT
from medjax_torch.graph.replacing import replaced
from medjax_torch.graph.sizes import Sizes
from medjax_torch.graph.value_checks import CHECKED
from medjax_torch.torch_internals import is_onednn_enabled, set_onednn_enabled

Replacements = Mapping[Callable[..., Any], Callable[..., Any]]
"""Torch functions, and the functions called instead of them with the same arguments."""


class _Replace(TorchFunctionMode):
    def __init__(self, replacements: Replacements, indices: IndexTensors) -> None:
        super().__init__()
        own: Replacements = {Tensor.__getitem__: indices.read, Tensor.__setitem__: indices.write}
        self._replacements = {**own, **replacements}
        self._indices = indices

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self._indices.check_use(func, (args, kwargs))
        return self._replacements.get(func, func)(*args, **(kwargs or {}))


@contextmanager
def tracing(replacements: Replacements) -> Iterator[None]:
    """Make torch traceable: plain kernels, one thread, no reads that the tracer misses.

    Parameters
    ----------
    replacements : mapping of function to function
        Functions to call instead of torch's. They take precedence over `REPLACEMENTS`.
    """
    indices = IndexTensors(_set_item)
    with ExitStack() as stack:
        stack.enter_context(plain_kernels())
        # No fused kernels for attention in evaluation; the comparison with torch uses them.
        stack.enter_context(padded_with_zeros())
        mha = torch.backends.mha
        stack.enter_context(_switched_off(mha.get_fastpath_enabled, mha.set_fastpath_enabled))
        # Libraries then avoid reading values, as transformers does for its masks.
        stack.enter_context(replaced(torch.compiler, "_is_compiling_flag", True))
        # Validation reads all arguments of a distribution; the comparison with torch does it too.
        stack.enter_context(replaced(Distribution, "_validate_args", False))
        stack.enter_context(_quiet("torch._subclasses.fake_tensor"))
        stack.enter_context(_lines_of_the_component())
        stack.enter_context(following_checks())
        stack.enter_context(_Replace({**REPLACEMENTS, **replacements}, indices))
        yield
    indices.check_writes()


@contextmanager
def plain_kernels() -> Iterator[None]:
    """Make torch compute as the operations of a graph do, and only in this thread."""
    with ExitStack() as stack:
        # Functions wrapped by torch.compile run as they are written.
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        # No fused kernels for recurrent layers.
        stack.enter_context(_switched_off(is_onednn_enabled, set_onednn_enabled))
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        # Modes that watch torch's operations belong to one thread, so backward must run in it.
        stack.enter_context(torch.autograd.set_multithreading_enabled(False))
        stack.enter_context(_checkpoints_kept())
        yield


@contextmanager
def _checkpoints_kept() -> Iterator[None]:
    """Run checkpointed functions once, and mark their operations for `recompute`.

    Running them again in backward would draw different dropout masks: torch rewinds its generator,
    but a graph has none.
    """
    module = torch.utils.checkpoint
    with ExitStack() as stack:
        for name in filter(module.__dict__.__contains__, _AROUND):
            stack.enter_context(replaced(module, name, _around))
        stack.enter_context(replaced(module, "CheckpointFunction", _Reentrant))
        yield


_AROUND = (
    "_checkpoint_without_reentrant_generator",
    "_checkpoint_without_reentrant_generator_impl",
)
"""Names of what `torch.utils.checkpoint` runs around a function: up to torch 2.14, and in 2.15."""


def _around(*args: Any, **kwargs: Any) -> Iterator[None]:
    """Mark the operations of the checkpointed function, which runs at the ``yield``."""
    with marked():
        yield


class _Reentrant:
    """Replaces the autograd function of checkpoints with `use_reentrant=True`."""

    @staticmethod
    def apply(function: Callable[..., Any], _preserve_rng_state: bool, *args: Any) -> Any:
        """Call the function, without gradients if no argument requires one, as in torch."""
        needed = any(isinstance(value, Tensor) and value.requires_grad for value in args)
        with marked(), torch.set_grad_enabled(needed and torch.is_grad_enabled()):
            return function(*args)


@contextmanager
def silent() -> Iterator[None]:
    """Suppress what forward prints and logs when it runs on made-up values."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(disabled)


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Silence torch's log messages about failures that are handled here."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def _switched_off(get: Callable[[], bool], set_to: Callable[[bool], Any]) -> Iterator[None]:
    enabled = get()
    set_to(False)
    try:
        yield
    finally:
        set_to(enabled)


@contextmanager
def _lines_of_the_component() -> Iterator[None]:
    """Make torch record every line of the component, not only those in functions named forward.

    torch would look up the source of all frames on the stack for each operation, which takes a
    quarter of the time of a recording.
    """
    name = "_filter_traceback_frames"
    module: Any = fx.proxy
    if not hasattr(module.TracerBase, name):
        yield
        return

    def keep(_: Any, summary: traceback.StackSummary) -> traceback.StackSummary:
        return summary

    with replaced(module.TracerBase, name, keep), replaced(module, "CapturedTraceback", _Frames):
        yield


class _Frames:
    """Replaces torch's `CapturedTraceback` by the frames of the component's forward."""

    @staticmethod
    def extract() -> type[_Frames]:
        """Return the class itself, as its summary is made at once."""
        return _Frames

    @staticmethod
    def summary() -> traceback.StackSummary:
        """Return the frames, the outermost first."""
        return traceback.StackSummary.from_list(frames_here())


def _dense(function: Callable[..., Any], position: int) -> Callable[..., Any]:
    """Return `function` with its argument `sparse`, at `position`, always set to False."""

    def call(*args: Any, **kwargs: Any) -> Any:
        if len(args) > position:
            return function(*args[:position], False, *args[position + 1 :], **kwargs)
        return function(*args, **{**kwargs, "sparse": False})

    return call


def _set_data(tensor: Tensor, value: Tensor) -> None:
    """Copy `value` into `tensor` instead of ``tensor.data = value``, which no tracer sees."""
    if tensor.shape != value.shape or tensor.dtype != value.dtype:
        raise TraceError(
            f"forward assigns a tensor of shape {tuple(value.shape)} and {value.dtype} to "
            f".data{at(line_here())}; expected {tuple(tensor.shape)} and {tensor.dtype}."
        )
    tensor.data.copy_(value)


def _set_item(tensor: Tensor, index: Any, value: Any) -> None:
    """Assign `value` to ``tensor[index]``, so that assigning by a mask can be traced.

    A mask becomes `torch.where` if `value` does not depend on how many elements it selects.
    """
    mask = index[0] if isinstance(index, tuple) and len(index) == 1 else index
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.dim() == 0:
        tensor[index] = value
        return
    rest = tensor.dim() - mask.dim()
    varies = isinstance(value, Tensor) and value.dim() > rest
    truncates = isinstance(value, float) and not tensor.is_floating_point()
    if varies or truncates or tensor.shape[: mask.dim()] != mask.shape:
        tensor[index] = value
        return
    at = mask.reshape(*mask.shape, *[1] * rest)
    if isinstance(value, Tensor):
        tensor.copy_(torch.where(at, value.to(tensor), tensor))
    else:
        tensor.masked_fill_(at, value)


def _to_list(tensor: Tensor) -> Any:
    """Return the values, read one by one: `Tensor.tolist` reads memory, which tracers miss."""
    if tensor.dim() == 1 and not tensor.is_floating_point() and tensor.dtype != torch.bool:
        return Numbers(tensor.unbind(0))
    return tensor.item() if tensor.dim() == 0 else [_to_list(row) for row in tensor.unbind(0)]


def _one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """Compute `torch.nn.functional.one_hot` without its check of the range of the values.

    It is a scatter, as in torch, so that the range can be derived from the graph.
    """
    classes = int(tensor.max().item()) + 1 if num_classes < 0 else num_classes
    zeros = torch.zeros(*tensor.shape, classes, dtype=torch.int64, device=tensor.device)
    return zeros.scatter(-1, tensor.unsqueeze(-1), 1)


def _bincount(input: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    """Compute `torch.bincount`, with exactly `minlength` bins if all ids are below `minlength`."""
    if weights is not None or not minlength:
        return torch.bincount(input, weights, minlength)
    outside: Any = (input >= minlength).nonzero().size(0)
    if isinstance(outside, torch.SymInt) and isinstance(outside.node.shape_env, Sizes):
        outside.node.shape_env.expect(outside.node.expr, 0)
    if outside != 0:
        return torch.bincount(input, weights, minlength)
    ids = input.long()
    zeros = torch.zeros(minlength, dtype=torch.int64, device=input.device)
    return zeros.scatter_add(0, ids, torch.ones_like(ids))


def _refused(name: str) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        raise TraceError(
            f"forward calls {name}{at(line_here())}: numpy would see the values of one batch only, "
            "and the graph would use them for every other batch. Compute with torch there, or "
            "return the tensor and convert it in prepare_batch."
        )

    return call


REPLACEMENTS: Replacements = {
    functional.embedding: _dense(functional.embedding, 6),
    functional.embedding_bag: _dense(functional.embedding_bag, 7),
    functional.one_hot: _one_hot,
    torch.bincount: _bincount,
    Tensor.bincount: _bincount,
    torch.embedding: _dense(torch.embedding, 4),
    torch.embedding_bag: _dense(torch.embedding_bag, 5),
    torch.as_tensor: stacked(torch.as_tensor),
    torch.tensor: stacked(torch.tensor),
    **CHECKED,
    **DISTINCT,
    **PACKING,
    **RECURRENT,
    Tensor.tolist: _to_list,
    Tensor.data.__set__: _set_data,  # type: ignore[attr-defined]
    Tensor.numpy: _refused("Tensor.numpy"),
    Tensor.__array__: _refused("numpy.asarray on a tensor"),
    Tensor.__dlpack__: _refused("Tensor.__dlpack__"),
}
"""The replacements that every trace uses."""
