"""A batch and its padded version: what is known of the two, and how their results correspond."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from medjax_torch.batches.padding import Ragged, resized, resized_with_sizes
from medjax_torch.verification.cropping import Axes, Cuts, cuts_of
from medjax_torch.verification.reference import Outcome
from medjax_torch.verification.trail import Tried


class PaddingProof(NamedTuple):
    """Evidence, from one batch, that padding changes nothing.

    Attributes
    ----------
    ragged : Ragged
        The padded axes.
    axes : dict of str to tuple of int
        The axes of each output, by path, that have the padded size. Outputs without such an axis
        are left out.
    tried : tuple of Tried
        The sizes that were padded, and to which.
    relative : float
        The largest relative difference of a result.
    least : int
        Batches of a smaller size must not be padded: some parameters get no gradient from them,
        such as the transitions of a CRF from single tokens, and a gradient of 0 from padded ones.
    """

    ragged: Ragged
    axes: Axes
    tried: tuple[Tried, ...]
    relative: float
    least: int = 0


class Harm(NamedTuple):
    """Why padding is not harmless.

    Attributes
    ----------
    reason : str
        What padding changes.
    is_raised : bool
        Whether forward raises on the padded batch, for instance because that is too long.
    adds_zeros : bool
        Whether nothing changes except that parameters without a gradient get one of 0.
    """

    reason: str
    is_raised: bool = False
    adds_zeros: bool = False


class Pair(NamedTuple):
    """The sizes to which a batch is padded.

    Attributes
    ----------
    ragged : Ragged or None
        The axes to test.
    size : int
        Their size.
    known : sequence of (PaddingProof, int)
        Axes proved before, with their sizes.
    """

    ragged: Ragged | None
    size: int
    known: Sequence[tuple[PaddingProof, int]]

    def padded(self, batch: Mapping[str, Any], with_sizes: bool) -> Any:
        """Return the padded batch, if asked for with columns of the sizes before."""
        own = [] if self.ragged is None else [(self.ragged, self.size)]
        sizes = [*own, *((proof.ragged, size) for proof, size in self.known)]
        return (resized_with_sizes if with_sizes else resized)(batch, sizes)

    @property
    def axes(self) -> Axes:
        """The axes of the outputs that were padded before."""
        return {name: axes for proof, _ in self.known for name, axes in proof.axes.items()}

    def cuts(self, batch: Mapping[str, Any]) -> Cuts:
        """Return how outputs are cropped on the axes that were padded before."""
        cuts: Cuts = {}
        for proof, _ in self.known:
            for name, sizes in cuts_of(proof.axes, proof.ragged.size(batch)).items():
                cuts[name] = {**cuts.get(name, {}), **sizes}
        return cuts


def followed(
    shape: tuple[int, ...], longer: tuple[int, ...], sizes: tuple[int, int]
) -> tuple[int, ...] | None:
    """Return the axes that became longer, or None if the shapes differ in any other way."""
    if len(shape) != len(longer):
        return None
    pairs = list(zip(shape, longer, strict=True))
    changed = tuple(axis for axis, (before, after) in enumerate(pairs) if before != after)
    return changed if all(pairs[axis] == sizes for axis in changed) else None


def without_padding(
    actual: Outcome, expected: Outcome, batch: Mapping[str, Any], axes: Axes
) -> tuple[Outcome, Outcome, list[str]]:
    """Blank the outputs of both outcomes where ``attention_mask`` is 0, if they differ there.

    Returns
    -------
    Outcome, Outcome
        The two outcomes.
    list of str
        The outputs that differ there.
    """
    mask = batch.get("attention_mask")
    if not isinstance(mask, Tensor) or mask.ndim != 2:
        return actual, expected, []
    padding = mask.detach().cpu().numpy() == 0
    blank, differing = [{**actual.outputs}, {**expected.outputs}], []
    for name in [name for name, padded in axes.items() if 1 in padded]:
        one, other = (outputs[name] for outputs in blank)
        if one.shape != other.shape or one.shape[:2] != padding.shape:
            continue
        if not np.allclose(one[padding], other[padding], 1e-4, 1e-6, equal_nan=True):
            differing.append(name)
            for outputs in blank:
                outputs[name] = outputs[name].copy()
                outputs[name][padding] = 0
    return actual._replace(outputs=blank[0]), expected._replace(outputs=blank[1]), differing
