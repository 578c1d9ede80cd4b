"""Ladders of lengths fitted to data: few shapes where compiling is dear, many where data is."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from medjax import distributed
from medjax.data.ladder import Ladder
from medjax.data.order import fixed_sample
from medjax.data.source import ExampleSource

__all__ = [
    "MEASURED",
    "STANDARD_LENGTHS",
    "Passes",
    "ShapeCost",
    "fit_lengths",
    "lengths_beyond",
    "measure",
]

STANDARD_LENGTHS = (16, 24, 32, 40, 48, 56, 64, 80, 96, 128, 192, 256, 384, 512)
"""Lengths where nothing is known of the data."""

_TILES = {"cpu": 8, "gpu": 16, "tpu": 16}
"""Multiples that the matrix units of a platform are filled by; a TPU's lanes hold 128."""

_LANES = 128
_LONGEST = 2**30
MEASURED = 512
"""Number of items that are measured; more are judged by a sample of this size."""

_CHUNK = 64  # examples that are in memory at a time


class ShapeCost(NamedTuple):
    """What a batch shape costs: a rough model of a platform, for choosing a ladder.

    Attributes
    ----------
    compile : float
        Seconds to compile a step for one more shape.
    token : float
        Seconds per position of a batch, padding included.
    """

    compile: float
    token: float

    @classmethod
    def of(
        cls, platform: str, nb_parameters: int, *, train: bool, bfloat16: bool = False
    ) -> ShapeCost:
        r"""Return the cost of a transformer's shapes.

        Compiling takes :math:`a + b \sqrt{P}` seconds for :math:`P` million parameters, since
        wider layers cost nothing and deeper ones do; a position takes time in proportion to
        :math:`P`. The constants are those of ``benchmarks/shape_costs.py`` on two cores for a CPU,
        those of BERT-base on an H200 for a GPU, and an estimate for a TPU. They are rough: they
        decide how many shapes there are, never what is computed.

        Parameters
        ----------
        platform : str
            ``"cpu"``, ``"gpu"`` or ``"tpu"``; another one counts as a GPU.
        nb_parameters : int
            Number of parameters of the model.
        train : bool
            Whether the step trains or evaluates.
        bfloat16 : bool
            Whether it multiplies in bfloat16.

        Examples
        --------
        >>> ShapeCost.of("cpu", 22_700_000, train=True)
        ShapeCost(compile=4.0, token=0.00043)
        """
        base, slope, token, halved = _COSTS.get(platform, _COSTS["gpu"])
        millions = nb_parameters / 1e6
        compiling = base + slope * math.sqrt(millions)
        per_token = token * millions * (halved if bfloat16 else 1.0)
        if not train:
            compiling, per_token = compiling / 9, per_token / 3.7
        return cls(float(f"{compiling:.2g}"), float(f"{per_token:.2g}"))


# Platform: seconds to compile any training step, and more for the root of a million parameters;
# seconds per position and million parameters; the part of that with bfloat16.
_COSTS = {
    "cpu": (1.4, 0.55, 1.9e-5, 0.67),
    "gpu": (4.0, 1.8, 1.8e-7, 0.37),
    "tpu": (3.0, 1.5, 6e-8, 0.7),
}


class Passes(NamedTuple):
    """How often the items of a dataset are read, and how they are joined to batches.

    Attributes
    ----------
    nb_items : int
        Number of items.
    nb_epochs : int
        Number of passes over them.
    batch_size : int
        Rows of a batch.
    window : int
        Number of batches that are grouped by length together, 0 for batches of a uniform order.
    """

    nb_items: int
    nb_epochs: int
    batch_size: int
    window: int


def measure(source: ExampleSource, ladder: Ladder, nb_items: int) -> list[int]:
    """Return the lengths of the examples of a dataset, or of a sample that is always the same.

    Only the first of several processes measures. If the first example has no column that is padded,
    no other one is read.

    Parameters
    ----------
    source : ExampleSource
        Preprocesses the items.
    ladder : Ladder
        Names the columns that are padded.
    nb_items : int
        Number of items in the dataset.

    Returns
    -------
    list of int
        Lengths; [] if there is nothing to pad.
    """
    lengths: list[int] = []
    if jax.process_index() == 0:
        positions = fixed_sample(nb_items, MEASURED)
        for first in (0, *range(1, len(positions), _CHUNK)):
            chunk = positions[first : first + _CHUNK] if first else positions[:1]
            lengths += [ladder.length_of(each) for each in source.submit(1, chunk)()]
            if lengths[0] == 0:
                lengths = []
                break
    measured: list[int] = json.loads(distributed.first_of(json.dumps(lengths)))
    return measured


def fit_lengths(
    lengths: Sequence[int] | np.ndarray, passes: Passes, cost: ShapeCost, platform: str
) -> tuple[int, ...]:
    r"""Return the ladder that compiling plus computing takes the least time with.

    Among candidate lengths :math:`c_1 < \dots < c_m`, the largest of which fits all items, a
    shortest path chooses rungs :math:`r_1 < \dots < r_k = c_m` that minimise

    .. math:: k \, t_\text{compile} + t_\text{token} \sum_j n_j r_j

    where :math:`n_j` is the expected number of rows that are padded to :math:`r_j`. In batches
    grouped by length these are the items longer than :math:`r_{j-1}` and at most :math:`r_j`, and
    half a batch per window that is left over on the rung below. In a uniform order a batch of
    :math:`B` items is padded to its longest, so with the distribution :math:`F` of lengths a
    fraction :math:`F(r_j)^B - F(r_{j-1})^B` of all rows is.

    Parameters
    ----------
    lengths : sequence of int
        Lengths of items, a sample of `passes.nb_items` or all; at least one.
    passes : Passes
        What is computed with them.
    cost : ShapeCost
        Seconds for a shape and for a position.
    platform : str
        ``"cpu"``, ``"gpu"`` or ``"tpu"``, whose tiles the candidates follow.

    Examples
    --------
    >>> lengths = [10] * 900 + [60] * 100
    >>> cost = ShapeCost.of("cpu", 22_700_000, train=True)
    >>> fit_lengths(lengths, Passes(1_000, 3, 16, 100), cost, "cpu")
    (16, 64)
    >>> fit_lengths(lengths, Passes(20, 1, 16, 100), cost, "cpu")
    (64,)
    """
    sizes = np.asarray(lengths)
    rungs = np.array(_candidates(int(sizes.max()), platform))
    share = (sizes[:, None] <= rungs).mean(0)  # F at each candidate
    rows = passes.nb_items * passes.nb_epochs
    if passes.window:
        below, left_over = share * rows, passes.batch_size / 2 * _windows(passes)
    else:
        below, left_over = share**passes.batch_size * rows, 0.0
    # best[j]: the least time of a ladder that ends at candidate j, for the items that fit it.
    best = cost.compile + cost.token * below * rungs
    before = np.full(len(rungs), -1)
    for last in range(len(rungs)):
        moved = below[last] - below[:last] + left_over
        times = best[:last] + cost.compile + cost.token * moved * rungs[last]
        if last and times.min() < best[last]:
            before[last] = int(times.argmin())
            best[last] = times[before[last]]
    chosen, position = [], len(rungs) - 1
    while position >= 0:
        chosen.append(int(rungs[position]))
        position = int(before[position])
    return tuple(reversed(chosen))


def _windows(passes: Passes) -> int:
    """Return the number of windows in all epochs, each of which leaves items over."""
    per_window = passes.window * passes.batch_size
    return passes.nb_epochs * -(-passes.nb_items // per_window)


def _candidates(longest: int, platform: str) -> list[int]:
    """Return the lengths to choose from; the last is at least `longest`, at least 1."""
    lengths = [_TILES.get(platform, 16)]
    while lengths[-1] < longest:
        lengths.append(_next(lengths[-1], platform, 8))
    return lengths


def lengths_beyond(last: int, platform: str) -> tuple[int, ...]:
    """Return the lengths that continue a ladder for items that are longer than all its rungs.

    They are about a fifth apart, so there are few of them.

    Examples
    --------
    >>> lengths_beyond(128, "cpu")[:5]
    (160, 192, 224, 256, 320)
    """
    lengths = []
    while last < _LONGEST:
        last = _next(last, platform, 4)
        lengths.append(last)
    return tuple(lengths)


def _next(length: int, platform: str, per_octave: int) -> int:
    """Return the next candidate: a multiple of a tile, with at most so many in each octave."""
    tile = _TILES.get(platform, 16)
    if platform == "tpu":
        tile = _LANES if length >= _LANES else length  # 16, 32, 64, 128, 256, 384 ...
    octave: int = 1 << (length.bit_length() - 1)
    step = max(tile, octave // per_octave)
    return (length // step + 1) * step
