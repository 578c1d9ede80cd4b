"""Tests in torch whether a component computes the same from a padded batch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import torch
from torch import Tensor

from medjax_torch.batches.padding import Ragged, resized, resized_with_sizes
from medjax_torch.component_state import Inventory
from medjax_torch.graph.joint import Call
from medjax_torch.graph.longest_row import REMEDY, Unpacking
from medjax_torch.verification.comparison import differences
from medjax_torch.verification.cropping import Axes, Cuts, cuts_of, strip
from medjax_torch.verification.fewer_rows import fewer_rows
from medjax_torch.verification.moved_weights import moved
from medjax_torch.verification.reference import Outcome, reference

_TOLERANCE = 1e-4
"""Largest relative difference: small, as torch computes both sides and padding is short."""

_DRAWS = 2
"""Number of other weights, each with another size, at which padding has to be harmless too."""

_SIDES = ("the padded batch", "the batch itself")


class PaddingProof(NamedTuple):
    """Evidence, from one batch, that padding changes nothing.

    Attributes
    ----------
    ragged : Ragged
        The padded axes.
    axes : dict of str to tuple of int
        The axes of each output, by path, that have the padded size. Outputs without such an axis
        are left out.
    size : int
        The largest size that was tried.
    relative : float
        The largest relative difference of a result.
    least : int
        Batches of a smaller size must not be padded: some parameters get no gradient from them,
        such as the transitions of a CRF from single tokens, and a gradient of 0 from padded ones.
    """

    ragged: Ragged
    axes: Axes
    size: int
    relative: float
    least: int = 0


class _Harm(NamedTuple):
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


class Prover:
    """Pads a batch in several ways and compares the results in torch.

    Dropout keeps everything on both sides, as masks of different shapes cannot be compared.

    Parameters
    ----------
    call : Call
        The component's forward, as in `graph.trace`.
    inventory : Inventory
        The component's tensors. They are not changed.
    batch : mapping of str to value
        The batch.
    train : bool
        Whether to compare gradients too.

    Attributes
    ----------
    unpacks : bool or None
        Whether forward unpacks sequences to the longest row and finds that as long as the batch,
        so that padded batches get the columns of `longest_row`. Decided by the batch if it is
        None; always False with several processes, whose rows differ.
    """

    def __init__(
        self, call: Call, inventory: Inventory, batch: Mapping[str, Any], *, train: bool
    ) -> None:
        self._call, self._inventory, self._batch, self._train = call, inventory, batch, train
        self._expected: Outcome | None = None
        self.unpacks: bool | None = None
        self._is_longest = False
        self._is_full: bool | None = None  # of the latest run; see `Unpacking`
        self._is_partial = False  # whether that of the batch itself was not

    def prove(self, ragged: Ragged, known: Sequence[PaddingProof] = ()) -> PaddingProof | str:
        """Compare the batch with padded versions, at the component's weights and at others.

        At other weights, a few rows are shortened, if forward accepts them, and padded, since the
        effect of padding may only show in little content: a maximum over many entries hides a
        padded one. Other weights have other rows; all rows are taken where few say nothing.

        Parameters
        ----------
        ragged : Ragged
            The axes to pad. Their size in the batch is 1 or more.
        known : sequence of PaddingProof
            Other axes that are padded as well.

        Returns
        -------
        PaddingProof or str
            The proof if loss, gradients, state and cropped outputs are equal; otherwise the
            reason why padding is not harmless.

        Raises
        ------
        Exception
            Any exception of forward on the batch itself.
        """
        found = self._proved(ragged, known)
        return (
            f"{found.reason}{REMEDY if self._is_longest else ''}"
            if isinstance(found, _Harm)
            else found
        )

    def _proved(self, ragged: Ragged, known: Sequence[PaddingProof]) -> PaddingProof | _Harm:
        base = self._base
        if self.unpacks and self._is_partial:
            # Its outputs would not show which of their axes grow in batches that are full.
            return _Harm("the longest row of the first such batch is shorter than the batch")
        size = ragged.size(self._batch)
        others = [(proof, proof.ragged.rung(proof.ragged.size(self._batch))) for proof in known]
        taken = {(proof.ragged.size(self._batch), target) for proof, target in others}
        longer = next((rung for rung in ragged.ladder if rung > size), size + 1)
        while (size, longer) in taken:
            longer += 1
        longest = _Pair(ragged, longer, others)
        first = self._compared(base, self._inventory, self._batch, longest)
        if isinstance(first, _Harm) and not first.is_raised:
            return first
        done = [first] if isinstance(first, PaddingProof) else []
        pairs = [(shorter, longest._replace(size=size)) for shorter in self._shorter(ragged, size)]
        pairs += [(size, longest)] * (_DRAWS * len(done))
        least, wanted = 0, len(done) + _DRAWS
        for shorter, judged in self._at_other_weights(pairs):
            if isinstance(judged, PaddingProof):
                done.append(judged)
            elif judged.adds_zeros and shorter < size:
                least = max(least, shorter + 1)
            else:
                return judged
            if len(done) == wanted:
                break
        if not done:
            assert isinstance(first, _Harm)
            return first
        largest = longer if done[0] is first else size
        relative = max(one.relative for one in done)
        return PaddingProof(ragged, done[0].axes, largest, relative, least)

    def still_holds(self, known: Sequence[tuple[PaddingProof, int]]) -> str:
        """Return what padding the batch to the sizes in `known` changes, or "" if nothing.

        Only loss, outputs and state of a few rows are compared, at the component's own weights.
        """
        pair = _Pair(None, 0, known)
        batch, expected = self._few(self._inventory, self._batch, pair, train=False)
        judged = self._compared(expected, self._inventory, batch, pair, train=False)
        return judged.reason if isinstance(judged, _Harm) else ""

    def _at_other_weights(
        self, pairs: Iterable[tuple[int, _Pair]]
    ) -> Iterator[tuple[int, PaddingProof | _Harm]]:
        """Compare a few rows that are cut to a size with the sizes to which they are padded.

        The size comes with each result. Each comparison has other weights and rows. A size that
        forward does not take is left out, unless it is that of the batch.
        """
        gradients, draws = dict(self._base.gradients), 0
        for size, pair in pairs:
            ragged = pair.ragged
            assert ragged is not None
            # A counter may also be a position, which must not lie far away.
            for counters in [self._counters, ()] if self._counters else [()]:
                drawn = moved(self._inventory, gradients, draws, counters)
                problem = ""
                try:
                    cut = resized(self._batch, [(ragged, size)])
                    batch, expected = self._few(drawn, cut, pair, turn=draws)
                except (
                    Exception
                ) as error:  # other columns, such as positions, may not fit a cut one
                    problem = f"forward raises {type(error).__name__} with other weights: {error}"
                else:
                    if _says_something(expected):
                        break
                    problem = "forward returns no finite number with other weights"
            if not problem:
                yield size, self._compared(expected, drawn, batch, pair)
                gradients = _either(gradients, expected.gradients)
                draws += 1
            elif size == ragged.size(self._batch):
                yield size, _Harm(f"{problem}, so it cannot be tested")

    def _few(
        self,
        inventory: Inventory,
        batch: Mapping[str, Any],
        pair: _Pair,
        turn: int = 0,
        train: bool | None = None,
    ) -> tuple[Any, Outcome]:
        """Return a few rows of a batch and their outcome; all rows if they say more."""
        axes = [proof.ragged for proof, _ in pair.known]
        few = fewer_rows(batch, axes if pair.ragged is None else [pair.ragged, *axes], turn)
        of_few = None
        if few is not batch:
            with contextlib.suppress(Exception):  # forward may need all of its rows
                of_few = self._run(inventory, few, train)
                if _is_telling(of_few):
                    return few, of_few
        outcome = self._run(inventory, batch, train)
        if of_few is not None and not _is_telling(outcome):
            return few, of_few
        return batch, outcome

    @property
    def _counters(self) -> tuple[str, ...]:
        """Names of buffers with a single number that is whole or that forward changes."""
        after = self._base.state
        return tuple(
            name
            for name, value in self._inventory.buffers.items()
            if value.ndim == 0
            and value.dtype != torch.bool
            and (not value.is_floating_point() or float(after[name]) != float(value))
        )

    @property
    def _base(self) -> Outcome:
        if self._expected is None:
            self._expected = self._run(self._inventory, self._batch)
            self._is_partial = self._is_full is False
        return self._expected

    def _run(
        self, inventory: Inventory, batch: Mapping[str, Any], train: bool | None = None
    ) -> Outcome:
        train = self._train if train is None else train
        with Unpacking() as unpacked:
            outcome = reference(self._call, inventory, batch, train=train, spread=False)
        self._is_full = unpacked.is_full
        self._is_longest |= unpacked.is_full is not None
        if self.unpacks is None:
            self.unpacks = unpacked.is_full is True and jax.process_count() == 1
        return outcome

    def _shorter(self, ragged: Ragged, size: int) -> list[int]:
        """Return shorter sizes to try in order: a medium one, small ones, and one just shorter."""
        mask = self._batch.get("attention_mask")

        def has_content(shorter: int) -> bool:
            # Rows with padding in front would have no real content left.
            if not isinstance(mask, Tensor) or ("attention_mask", 1) not in ragged.column_axes:
                return True
            return bool((mask[:, :shorter] != 0).flatten(1).any(1).all())

        sizes = dict.fromkeys((size // 2, 1, 2, size - 1))
        return [shorter for shorter in sizes if 0 < shorter < size and has_content(shorter)]

    def _compared(
        self,
        expected: Outcome,
        inventory: Inventory,
        batch: Mapping[str, Any],
        pair: _Pair,
        train: bool | None = None,
    ) -> PaddingProof | _Harm:
        try:
            longer = self._run(inventory, pair.padded(batch, bool(self.unpacks)), train)
        except Exception as error:
            reason = f"forward raises {type(error).__name__} on {_SIDES[0]}: {error}"
            return _Harm(reason, is_raised=True)
        outputs = strip(longer.outputs, pair.cuts(batch))
        axes: Axes = {}
        if pair.ragged is not None:
            sizes = pair.ragged.size(batch), pair.size
            for name in expected.outputs.keys() & outputs.keys():
                shapes = expected.outputs[name].shape, outputs[name].shape
                followed = _followed(*shapes, sizes)
                if followed is None:
                    return _Harm(
                        f"output {name} has shape {shapes[1]} for {_SIDES[0]}, which is not "
                        f"{shapes[0]} with {sizes[0]} replaced by {sizes[1]}, so it cannot be "
                        "cropped"
                    )
                if followed:
                    axes[name] = followed
            outputs = strip(outputs, cuts_of(axes, sizes[0]))
        return self._judged(longer._replace(outputs=outputs), expected, axes, pair)

    def _judged(
        self, cut: Outcome, expected: Outcome, axes: Axes, pair: _Pair
    ) -> PaddingProof | _Harm:
        listing = differences(cut, expected, _SIDES)
        wrong = [one for one in listing if one.relative > _TOLERANCE]
        if wrong:
            more = f" (and {len(wrong) - 1} more results differ)" if len(wrong) > 1 else ""
            zeros = (
                o.expected is None and o.actual is not None and not o.actual.any() for o in wrong
            )
            return _Harm(f"padding changes {wrong[0]}{more}", adds_zeros=all(zeros))
        ragged = pair.ragged or Ragged((), {}, ())
        return PaddingProof(ragged, axes, pair.size, listing[0].relative)


class _Pair(NamedTuple):
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
        own = [] if self.ragged is None else [(self.ragged, self.size)]
        sizes = [*own, *((proof.ragged, size) for proof, size in self.known)]
        return (resized_with_sizes if with_sizes else resized)(batch, sizes)

    def cuts(self, batch: Mapping[str, Any]) -> Cuts:
        cuts: Cuts = {}
        for proof, _ in self.known:
            for name, sizes in cuts_of(proof.axes, proof.ragged.size(batch)).items():
                cuts[name] = {**cuts.get(name, {}), **sizes}
        return cuts


def _followed(
    shape: tuple[int, ...], longer: tuple[int, ...], sizes: tuple[int, int]
) -> tuple[int, ...] | None:
    """Return the axes that became longer, or None if the shapes differ in any other way."""
    if len(shape) != len(longer):
        return None
    pairs = list(zip(shape, longer, strict=True))
    changed = tuple(axis for axis, (before, after) in enumerate(pairs) if before != after)
    return changed if all(pairs[axis] == sizes for axis in changed) else None


def _says_something(outcome: Outcome) -> bool:
    """Return whether any number is finite; at impossible weights, none is."""
    arrays = [outcome.loss, *outcome.gradients.values(), *outcome.outputs.values()]
    return any(array.size and np.isfinite(array).any() for array in arrays)


def _is_telling(outcome: Outcome) -> bool:
    """Return whether the loss is a number, and not 0, with gradients if they were asked for.

    If none of the rows has a label, it is 0 or no number.
    """
    told = [*outcome.gradients.values()] or [outcome.loss]
    return bool(np.isfinite(outcome.loss).all()) and any(array.any() for array in told)


def _either(
    gradients: Mapping[str, np.ndarray], others: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Return gradients that are nonzero wherever one of the two is."""
    return {
        name: np.where(gradients[name] != 0, gradients[name], others[name])
        if name in gradients and name in others
        else {**gradients, **others}[name]
        for name in gradients.keys() | others.keys()
    }
