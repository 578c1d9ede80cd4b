"""Tests in torch whether a component computes the same from a padded batch."""

from __future__ import annotations

import contextlib
import itertools
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
from medjax_torch.verification.cropping import Axes, cuts_of, strip
from medjax_torch.verification.fewer_rows import fewer_rows
from medjax_torch.verification.moved_weights import moved
from medjax_torch.verification.padded_pair import (
    Harm,
    PaddingProof,
    Pair,
    followed,
    without_padding,
)
from medjax_torch.verification.reference import Outcome, Spread, reference
from medjax_torch.verification.trail import Operation, Trail, Tried, is_alike

_TOLERANCE = 1e-4
"""Largest relative difference: small, as torch computes both sides and padding is short."""

_DRAWS = 2
"""Number of other weights, each with another size, at which padding has to be harmless too."""

_SIDES = ("the padded batch", "the batch itself")

_COUNTED = ((1_000, 1_000_000), (1, 2))
"""By how much counters advance in turn: as far as in a long run, or else by a step or two."""


class _Equal(NamedTuple):
    """The results of a batch and of its padded version are equal.

    Attributes
    ----------
    axes, relative
        As in `PaddingProof`.
    trail : sequence of Operation
        What forward did for the padded batch.
    """

    axes: Axes
    relative: float
    trail: Sequence[Operation]


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
    vague : set of str
        Outputs that were equal only where ``attention_mask`` is not 0. A row's own padding attends
        to all of the padding in some encoders, such as DeBERTa, and no loss reads what it gets.
    """

    def __init__(
        self, call: Call, inventory: Inventory, batch: Mapping[str, Any], *, train: bool
    ) -> None:
        self._call, self._inventory, self._batch, self._train = call, inventory, batch, train
        self._expected: Outcome | None = None
        self._spread = Spread.RISING
        self.unpacks: bool | None = None
        self.vague: set[str] = set()
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
        if not isinstance(found, Harm):
            return found
        return f"{found.reason}{REMEDY if self._is_longest else ''}"

    def _proved(self, ragged: Ragged, known: Sequence[PaddingProof]) -> PaddingProof | Harm:
        self._spread = Spread.RISING
        base = self._base
        if self.unpacks and self._is_partial:
            # Its outputs would not show which of their axes grow in batches that are full.
            return Harm("the longest row of the first such batch is shorter than the batch")
        size = ragged.size(self._batch)
        others = [(proof, proof.ragged.rung(proof.ragged.size(self._batch))) for proof in known]
        taken = {(proof.ragged.size(self._batch), target) for proof, target in others}
        longer = next((rung for rung in ragged.ladder if rung > size), size + 1)
        while (size, longer) in taken:
            longer += 1
        longest = Pair(ragged, longer, others)
        first = self._compared(base, self._inventory, self._batch, longest)
        if isinstance(first, Harm) and not first.is_raised:
            return first
        done = [] if isinstance(first, Harm) else [(size, longer, first)]
        pairs = [(shorter, longest._replace(size=size)) for shorter in self._shorter(ragged, size)]
        pairs += [(size, longest)] * (_DRAWS * len(done))
        least, wanted = 0, len(done) + _DRAWS
        for shorter, judged in self._at_other_weights(pairs):
            if isinstance(judged, _Equal):
                done.append((shorter, longer if shorter == size else size, judged))
            elif judged.adds_zeros and shorter < size:
                least = max(least, shorter + 1)
            else:
                return judged
            if len(done) == wanted:
                break
        if not done:
            assert isinstance(first, Harm)
            return first
        tried = tuple(Tried(start, to, is_alike=False) for start, to, _ in done)
        relative = max(equal.relative for *_, equal in done)
        return PaddingProof(ragged, done[0][2].axes, tried, relative, least)

    def still_holds(self, known: Sequence[tuple[PaddingProof, int]]) -> str:
        """Return what padding the batch to the sizes in `known` changes, or "" if nothing.

        Only loss, outputs and state of a few rows are compared, at the component's own weights.
        """
        judged, _ = self._now(Pair(None, 0, known))
        return judged.reason if isinstance(judged, Harm) else ""

    def reached(self, known: Sequence[tuple[PaddingProof, int]]) -> list[Tried] | Harm:
        """Return what `still_holds` does, or up to which sizes each axis in `known` may be padded.

        What forward does for the beginning of the batch tells whether it decides by the size.
        """
        judged, batch = self._now(Pair(None, 0, known))
        if isinstance(judged, Harm):
            return judged
        ends = [to for _, to in known]
        sizes = [proof.ragged.size(batch) for proof, _ in known]
        for starts in ([min(2, size) for size in sizes], [size // 2 for size in sizes]):
            contents = [start - 1 for start in starts]
            trail = self._of_beginning(batch, known, contents, starts)
            # Loops over packed sequences run as often as there is content, others to the end.
            sides = zip([*ends, *sizes], [*starts, *contents], strict=True)
            if trail and is_alike(trail, judged.trail, [long - short for long, short in sides]):
                return [Tried(start, to, True) for start, to in zip(starts, ends, strict=True)]
        return [Tried(size, to, False) for size, to in zip(sizes, ends, strict=True)]

    def _of_beginning(
        self,
        batch: Any,
        known: Sequence[tuple[PaddingProof, int]],
        contents: Sequence[int],
        sizes: Sequence[int],
    ) -> Sequence[Operation]:
        """Return what forward does for a batch that is cut and padded; nothing if it raises.

        Without padding, forward may do without a mask.
        """
        axes = [proof.ragged for proof, _ in known]
        padded = resized_with_sizes if self.unpacks else resized
        if min(contents) < 1:
            return ()
        with contextlib.suppress(Exception):  # other columns may not fit a cut one
            cut = resized(batch, list(zip(axes, contents, strict=True)))
            longer = padded(cut, list(zip(axes, sizes, strict=True)))
            return self._run(self._inventory, longer, False).trail
        return ()

    def _now(self, pair: Pair) -> tuple[_Equal | Harm, Any]:
        """Compare a few rows at the component's own weights; returns them too."""
        self._spread = Spread.RISING
        batch, expected = self._few(self._inventory, self._batch, pair, train=False)
        return self._compared(expected, self._inventory, batch, pair, train=False), batch

    def _at_other_weights(
        self, pairs: Iterable[tuple[int, Pair]]
    ) -> Iterator[tuple[int, _Equal | Harm]]:
        """Compare a few rows that are cut to a size with the sizes to which they are padded.

        The size comes with each result. Each comparison has other weights and rows. A size that
        forward does not take is left out, unless it is that of the batch.
        """
        gradients, draws = dict(self._base.gradients), 0
        for size, pair in pairs:
            ragged = pair.ragged
            assert ragged is not None
            self._spread = (Spread.FALLING, Spread.RISING)[draws % 2]
            # A counter may also be a position, which must not lie far away, and the sign of a
            # weight may have to stay, as that of a rate of decay.
            passed = [count[draws % 2] for count in _COUNTED] if self._counters else []
            for count, turned in itertools.product([*passed, 0], (True, False)):
                counted = dict.fromkeys(self._counters, count) if count else {}
                problem = ""
                try:  # a counter of 8 bits does not hold so large a number
                    drawn = moved(self._inventory, gradients, draws, counted, turned=turned)
                    cut = resized(self._batch, [(ragged, size)])
                    batch, expected = self._few(drawn, cut, pair, turn=draws)
                except (
                    Exception
                ) as error:  # other columns, such as positions, may not fit a cut one
                    problem = f"forward raises {type(error).__name__} with other weights: {error}"
                else:
                    if expected.says_something:
                        break
                    problem = "forward returns no finite number with other weights"
            if not problem:
                yield size, self._compared(expected, drawn, batch, pair)
                gradients = _either(gradients, expected.gradients)
                draws += 1
            elif size == ragged.size(self._batch):
                yield size, Harm(f"{problem}, so it cannot be tested")

    def _few(
        self,
        inventory: Inventory,
        batch: Mapping[str, Any],
        pair: Pair,
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
                if of_few.is_telling:
                    return few, of_few
        outcome = self._run(inventory, batch, train)
        if of_few is not None and not outcome.is_telling:
            return few, of_few
        return batch, outcome

    @property
    def _counters(self) -> tuple[str, ...]:
        """Names of buffers that count: whole numbers, and single ones that forward changes."""
        after = self._base.state

        def counts(name: str, value: Tensor) -> bool:
            if value.dtype == torch.bool or not value.numel():
                return False
            is_one = value.numel() == 1  # of shape (1,) as well, as the pointer into a queue
            is_whole = not value.is_floating_point()
            if is_one and is_whole:
                return True
            changes = not np.array_equal(after[name], value.detach().cpu().numpy())
            return changes and (is_one or is_whole)

        return tuple(name for name, value in self._inventory.buffers.items() if counts(name, value))

    @property
    def _base(self) -> Outcome:
        if self._expected is None:
            self._expected = self._run(self._inventory, self._batch)
            self._is_partial = self._is_full is False
        return self._expected

    def _run(
        self,
        inventory: Inventory,
        batch: Mapping[str, Any],
        train: bool | None = None,
        shorter: Sequence[tuple[int, ...]] = (),
    ) -> Outcome:
        train = self._train if train is None else train
        # Either mode keeps `nn.TransformerEncoder` from its fast path, which drops padding.
        with Unpacking() as unpacked, Trail() as trail:
            outcome = reference(
                self._call,
                inventory,
                batch,
                train=train,
                spread=self._spread,
                shorter=shorter,
            )
        self._is_full = unpacked.is_full
        self._is_longest |= unpacked.is_full is not None
        if self.unpacks is None:
            self.unpacks = unpacked.is_full is True and jax.process_count() == 1
        return outcome._replace(trail=trail.operations)

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
        pair: Pair,
        train: bool | None = None,
    ) -> _Equal | Harm:
        try:
            padded = pair.padded(batch, bool(self.unpacks))
            longer = self._run(inventory, padded, train, expected.drawn)
        except Exception as error:
            reason = f"forward raises {type(error).__name__} on {_SIDES[0]}: {error}"
            return Harm(reason, is_raised=True)
        outputs = strip(longer.outputs, pair.cuts(batch))
        axes: Axes = {}
        if pair.ragged is not None:
            sizes = pair.ragged.size(batch), pair.size
            for name in expected.outputs.keys() & outputs.keys():
                shapes = expected.outputs[name].shape, outputs[name].shape
                kept = followed(*shapes, sizes)
                if kept is None:
                    return Harm(
                        f"output {name} has shape {shapes[1]} for {_SIDES[0]}, which is not "
                        f"{shapes[0]} with {sizes[0]} replaced by {sizes[1]}, so it cannot be "
                        "cropped"
                    )
                if kept:
                    axes[name] = kept
            outputs = strip(outputs, cuts_of(axes, sizes[0]))
        cropped = longer._replace(outputs=outputs)
        listing = differences(cropped, expected, _SIDES)
        vague: list[str] = []
        if listing[0].relative > _TOLERANCE:
            cropped, expected, vague = without_padding(
                cropped, expected, batch, {**pair.axes, **axes}
            )
            listing = differences(cropped, expected, _SIDES)
        wrong = [one for one in listing if one.relative > _TOLERANCE]
        if wrong:
            more = f" (and {len(wrong) - 1} more results differ)" if len(wrong) > 1 else ""
            zeros = (
                o.expected is None and o.actual is not None and not o.actual.any() for o in wrong
            )
            return Harm(f"padding changes {wrong[0]}{more}", adds_zeros=all(zeros))
        self.vague.update(vague)
        return _Equal(axes, listing[0].relative, longer.trail)


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
