"""The check of padding: a loss must not change when rows or tokens of padding are added."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from medjax import sharding
from medjax.batch import BatchData
from medjax.component import TrainableComponent, Variables
from medjax.config import Options
from medjax.data import Dataset
from medjax.data.ladder import Ladder, fix_shape
from medjax.data.make import ladder_of
from medjax.data.source import Examples
from medjax.loop.request import RunRequest
from medjax.runtime.jit import is_out_of_memory
from medjax.step.forward import make_forward_pass
from medjax.target import platform_of, tracing_for

TOLERANCE, TOLERANCE_ROUNDED = 1e-3, 5e-2
"""Allowed change of sum and weight, in parts of them; where forward computes in 16 bits or less."""

_ITEMS, _LOOKED_AT = 3, 8
_LARGEST = 2**20  # entries of a parameter that is looked at
_LOW_PRECISION = re.compile(r"\b(bf16|f16|f8\w*)\[")
_QUICKLY = {"xla_backend_optimization_level": 0}
"""How the CPU compiles what runs a few times: in half the time."""


class PaddingError(ValueError):
    """The loss of a component counts padding."""


def check_padding(
    request: RunRequest, variables: Variables, data: Dataset, lengths: Sequence[int]
) -> None:
    """Compare the loss of a few items with what it is when padding is added to them.

    It is computed as in evaluation, in float32. Ready components of medjax, which tests compare,
    are left out, and so are runs of several processes, which do not have the weights as a whole.

    Parameters
    ----------
    request : RunRequest
        Has the component and the option that switches the check off.
    variables : dict
        The initial or restored variables. Parameters whose entries are all equal, such as a head
        of zeros, for which all rows have the same loss, are moved by a little.
    data : Dataset
        The training data.
    lengths : sequence of int
        The lengths that batches may be padded to.

    Raises
    ------
    PaddingError
        If sum or weight of the loss change; says by what.
    """
    component, options = request.component, request.options
    if not options.verify_padding or jax.process_count() > 1 or is_ready(component):
        return
    batches = _padded(request, data, sorted(set(lengths)))
    if batches is None:
        return
    kinds = [(n, c.shape[1:], str(c.dtype)) for n, c in sorted(batches.few.items())]
    key = (kinds, tuple(lengths), options.loss_arithmetic, request.mesh)
    try:
        component.kept("padding", key, lambda: _compare(request, _moved(variables), batches))
    except Exception as error:
        if isinstance(error, jax.errors.JaxRuntimeError) and is_out_of_memory(error):
            return  # the run has too little, too, and says what to lower
        if not isinstance(error, PaddingError):
            error.add_note(
                "raised by component.forward on a few items that were padded to see whether the "
                "loss changes; Options(verify_padding=False) leaves this out"
            )
        raise


def is_ready(component: TrainableComponent) -> bool:
    """Return whether the functions that make a loss are those of a component of medjax."""
    for slot in (component.preprocess, component.collate, component.forward):
        owner = getattr(slot, "__self__", None)
        made_in = (getattr(slot, "__module__", None), getattr(type(owner), "__module__", None))
        own = [str(name).partition(".")[0] == "medjax" for name in made_in]
        if not own[0] or not (owner is None or own[1]):
            return False
    base = getattr(getattr(component.forward, "__self__", None), "base", None)  # of an adapter
    return not isinstance(base, TrainableComponent) or is_ready(base)


class _Padded(NamedTuple):
    """The same items with little padding and with more.

    Attributes
    ----------
    nb_items : int
        Number of items.
    few : BatchData
        Without rows of padding, at the shortest length.
    rows, longer : BatchData
        With rows of padding, and at a longer length; `few` if there is none.
    both : BatchData
        With both.
    """

    nb_items: int
    few: BatchData
    rows: BatchData
    longer: BatchData
    both: BatchData


def _padded(request: RunRequest, data: Dataset, lengths: Sequence[int]) -> _Padded | None:
    """Return the shortest of the first items as batches; None if they are too few for the mesh."""
    component, mesh = request.component, request.mesh
    nb_rows = sharding.rows_per_batch(min(_ITEMS, len(data)), mesh)
    if nb_rows > len(data):
        return None
    fills = ladder_of(request.options).fills
    numbers = range(min(len(data), max(_LOOKED_AT, nb_rows)))
    examples = Examples(data, component.preprocess, 0)(1, numbers)
    examples = sorted(examples, key=Ladder((), fills).length_of)[:nb_rows]
    batch = component.collate(examples)
    widths = [c.shape[1] for n, c in batch.arrays().items() if n in fills and c.ndim > 1]
    fitting = [each for each in lengths if each >= max(widths, default=0)]
    if not fitting:
        return None

    def at(length: int, rows: int) -> BatchData:
        return fix_shape(batch, Ladder((length,), fills), rows)

    short = fitting[0]
    longer = fitting[1] if len(fitting) > 1 and widths else short
    more = sharding.rows_per_batch(nb_rows + 2, mesh)
    return _Padded(
        nb_rows, at(short, nb_rows), at(short, more), at(longer, nb_rows), at(longer, more)
    )


def _moved(variables: Variables) -> Variables:
    """Return variables in which no parameter is constant."""

    def moved(leaf: jax.Array) -> Any:
        if not np.issubdtype(leaf.dtype, np.floating) or not 0 < leaf.size <= _LARGEST:
            return leaf
        values = np.asarray(leaf)
        if np.ptp(values):
            return leaf
        added = 0.1 * np.sin(1 + np.arange(leaf.size)).reshape(leaf.shape)
        return sharding.put((values + added).astype(values.dtype), leaf.sharding)

    return {**variables, "params": jax.tree.map(moved, variables["params"])}


def _compare(request: RunRequest, variables: Variables, batches: _Padded) -> bool:
    """Return True if the losses agree, or cannot be compared."""
    losses = _Losses(request, variables)
    plain, again, both = losses(batches.few), losses(batches.few, seed=1), losses(batches.both)
    if not np.isfinite([plain, again, both]).all() or losses.differ(plain, again):
        return True  # what is random in evaluation differs anyway
    if not losses.differ(plain, both):
        return True
    rows, longer = losses(batches.rows), losses(batches.longer)
    if losses.differ(plain, rows):
        nb_more = batches.rows.nb_rows - batches.nb_items
        _refuse(batches.nb_items, plain, f"with {nb_more} rows of padding", rows, _FOR_ROWS)
    found = longer if losses.differ(plain, longer) else both
    lengths = [
        (few.shape[1], more.shape[1])
        for few, more in zip(batches.few.values(), batches.longer.values(), strict=True)
        if few.shape != more.shape
    ]
    change = "padded from length {} to {}".format(*lengths[0])
    _refuse(batches.nb_items, plain, change, found, _FOR_LENGTHS)
    return False


_Sums = tuple[float, float]


class _Losses:
    """Computes sum and weight of losses."""

    def __init__(self, request: RunRequest, variables: Variables) -> None:
        options: Options = dataclasses.replace(request.options, precision="float32")
        forward_pass = make_forward_pass(request.component.forward, options)
        platform = platform_of(request.mesh)

        def loss_of(variables: Variables, batch: BatchData, key: jax.Array) -> Any:
            with tracing_for(platform, deterministic=options.deterministic):
                return forward_pass(variables, batch, key, True)[1]

        on_cpu = platform == "cpu"
        self._jitted = jax.jit(loss_of, compiler_options=_QUICKLY if on_cpu else None)
        self._variables, self._mesh = variables, request.mesh
        self._tolerance = TOLERANCE

    def __call__(self, batch: BatchData, seed: int = 0) -> _Sums:
        """Return sum and weight of the loss of a batch."""
        args = (self._variables, sharding.put_batch(batch, self._mesh), jax.random.key(seed))
        if _LOW_PRECISION.search(str(self._jitted.trace(*args).jaxpr)):
            self._tolerance = TOLERANCE_ROUNDED
        loss = jax.device_get(self._jitted(*args))
        return float(loss.total), float(loss.weight)

    def differ(self, first: _Sums, second: _Sums) -> bool:
        """Return whether two losses differ by more than rounding."""
        least = 0.01 * abs(first[1])  # a sum may be small because its terms cancel
        scales = (max(abs(first[0]), abs(second[0]), least), max(first[1], second[1], 1e-6))
        apart = np.abs(np.subtract(first, second))
        return bool((apart > self._tolerance * np.array(scales)).any())


_FOR_ROWS = (
    'Give rows of padding no weight: Mean.of(losses, batch["row_mask"]) with a loss for each row, '
    "whose logits and labels have the same shape"
)
_FOR_LENGTHS = (
    'Mask what is padded, as batch["attention_mask"] or labels of -100 tell, in the weights of the '
    "loss and in means, sums and maxima over tokens"
)


def _refuse(nb_items: int, plain: _Sums, change: str, found: _Sums, advice: str) -> None:
    if found[1] == plain[1]:
        numbers = f"sum {plain[0]:.4g} becomes {found[0]:.4g}"
    else:
        numbers = f"sum {plain[0]:.4g} and weight {plain[1]:.4g} become "
        numbers += f"{found[0]:.4g} and {found[1]:.4g}"
    raise PaddingError(
        f"the loss of component.forward counts padding: for {nb_items} items, its {numbers} "
        f"{change}. {advice}. If padding is to count, switch the check off with "
        "Options(verify_padding=False)"
    )
