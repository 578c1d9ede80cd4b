"""The choice of axes to pad in each batch, based on proofs in torch."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from medjax_torch.batches.guesses import Guesses
from medjax_torch.batches.mapping import rebuilt
from medjax_torch.batches.padding import ColumnAxis, Ragged, resized
from medjax_torch.verification.padding_proof import Cuts, PaddingProof, Prover, cuts_of, strip

logger = logging.getLogger("medjax")

Target = tuple[Ragged, int]

_TRIES = 24  # guesses tested at a time
_KEPT = 10_000  # shapes whose plan is cached


@dataclasses.dataclass
class _Proved:
    """Axes that are padded, and up to which size.

    Attributes
    ----------
    proof : PaddingProof
        The proof for these axes.
    reach : int
        The largest size tested to be harmless.
    end : int or None
        A size that forward cannot take; batches are padded only to smaller ones.
    """

    proof: PaddingProof
    reach: int
    end: int | None = None

    def target(self, batch: Mapping[str, Any]) -> int:
        """Return the size to pad a batch to; its own size means no padding."""
        size = self.proof.ragged.size(batch)
        rung = self.proof.ragged.rung(size)
        return size if self.end is not None and rung >= self.end else rung


class _Kind:
    """What is known about batches with a particular set of columns.

    Attributes
    ----------
    proved : list of _Proved
        The axes that are padded.
    ever : list of PaddingProof
        All axes that were ever padded, for outputs that arrive late.
    pending : list of Ragged
        Axes that training pads, still to be proved by a batch in which they are not empty.
    barred : set of (str, int)
        Axes that must not be padded, neither in training nor in evaluation.
    tried : set of frozenset of (str, int)
        Groups of axes that were tested together.
    """

    def __init__(self) -> None:
        self.proved: list[_Proved] = []
        self.ever: list[PaddingProof] = []
        self.pending: list[Ragged] = []
        self.barred: set[ColumnAxis] = set()
        self.tried: set[frozenset[ColumnAxis]] = set()
        self._seen: dict[ColumnAxis, list[int]] = {}
        self._groups: dict[ColumnAxis, int] = {}
        self._harmed: set[tuple[ColumnAxis, int]] = set()

    def add(self, proof: PaddingProof) -> None:
        """Pad the proof's axes in the following batches."""
        self.proved.append(_Proved(proof, proof.size))
        self.ever.append(proof)

    def observe(self, batch: Mapping[str, Any]) -> set[tuple[ColumnAxis, int]]:
        """Record the sizes of axes that are not padded, and return the new ones, except for rows.

        Nothing is new in the first batch.
        """
        taken = {column_axis for one in self.proved for column_axis in one.proof.ragged.column_axes}
        sizes = {
            column_axis: size
            for column_axis, size in _sizes(batch).items()
            if column_axis not in taken
        }
        numbers: dict[tuple[int, int], int] = {}
        before, self._groups = self._groups, {}
        for column_axis, size in sizes.items():
            self._groups[column_axis] = numbers.setdefault(
                (before.get(column_axis, 0), size), len(numbers)
            )
        rows = self._rows()
        new = set()
        for column_axis, size in sizes.items():
            seen = self._seen.setdefault(column_axis, [])
            if size not in seen:
                if seen and self._groups[column_axis] != rows:
                    new.add((column_axis, size))
                seen.append(size)
        return new

    def varying(self, batch: Mapping[str, Any]) -> list[tuple[tuple[ColumnAxis, ...], bool]]:
        """Return groups of axes that vary together between batches, each group only once.

        Each is returned with whether the axes are the rows of the batch.
        """
        groups: dict[int, list[ColumnAxis]] = defaultdict(list)
        for column_axis, number in self._groups.items():
            groups[number].append(column_axis)
        rows, sizes, result = self._rows(), _sizes(batch), []
        for number, column_axes in groups.items():
            seen, size = self._seen[column_axes[0]], sizes[column_axes[0]]
            # Fewer rows only mean the last batch of an epoch, unless there are several such sizes.
            varies = len(seen) > 1 and (number != rows or size > seen[0] or len(seen) > 2)
            if varies and size and frozenset(column_axes) not in self.tried:
                self.tried.add(frozenset(column_axes))
                result.append((tuple(column_axes), number == rows))
        return result

    def is_harmed(self, batch: Mapping[str, Any]) -> bool:
        """Return whether padding was harmful in a batch with such sizes of its other axes."""
        return bool(self._harmed) and not self._harmed.isdisjoint(_sizes(batch).items())

    def note_harm(self, sizes: set[tuple[ColumnAxis, int]]) -> None:
        """Do not pad batches with these sizes."""
        self._harmed |= sizes

    def _rows(self) -> int:
        """Return the group of the batch's rows: the one with the most first axes."""
        counts = Counter(number for (_, axis), number in self._groups.items() if axis == 0)
        return counts.most_common(1)[0][0] if counts else -1


class Padding:
    """Pads batches where a test in torch shows that this is harmless.

    For each set of columns, and separately in training and evaluation, the first batch decides
    which axes have the length of its texts; further axes are padded once they vary together.
    Evaluation does not pad axes for which padding is harmful in training.

    Parameters
    ----------
    prover : callable
        ``prover(batch, train)`` returns a `Prover`.
    padding : mapping of str to float or None
        `Options.padding`.
    lengths : mapping of bool to tuple of int
        The lengths to pad to in training (True) and in evaluation.

    Attributes
    ----------
    seconds : float
        Time spent on proofs so far.
    """

    def __init__(
        self,
        prover: Callable[[Any, bool], Prover],
        padding: Mapping[str, float | None],
        lengths: Mapping[bool, tuple[int, ...]],
    ) -> None:
        self.seconds = 0.0
        self._prover = prover
        self._lengths = lengths
        self._guesses = {train: Guesses(padding, ladder) for train, ladder in lengths.items()}
        self._kinds: dict[bool, dict[Hashable, _Kind]] = {True: {}, False: {}}
        self._targets: dict[bool, dict[Hashable, tuple[Target, ...]]] = {True: {}, False: {}}
        self._reasons: dict[str, str] = {}

    def pad(self, batch: Any, *, train: bool) -> Any:
        """Pad the ragged axes of a batch, as far as that is harmless.

        Raises
        ------
        Exception
            Any exception of forward on a batch that has to be tested.
        """
        key = _key(batch)
        targets = self._targets[train].get(key)
        if targets is None:
            began = time.perf_counter()
            targets = self._decide(batch, train)
            self.seconds += time.perf_counter() - began
            if len(self._targets[train]) == _KEPT:
                self._targets[train].clear()
            self._targets[train][key] = targets
        return resized(batch, targets) if targets else batch

    def unpad(self, outputs: Mapping[str, Any], batch: Any, *, train: bool) -> Any:
        """Crop the outputs of forward to those for the batch without padding."""
        cuts: Cuts = {}
        for proof in self._kinds[train][_kind(batch)].ever:
            for path, sizes in cuts_of(proof.axes, proof.ragged.size(batch)).items():
                cuts.setdefault(path, {}).update(sizes)
        return rebuilt(batch, strip(outputs, cuts) if cuts else outputs)

    def reasons(self, columns: Iterable[str]) -> list[str]:
        """Return why columns are not padded, as far as is known."""
        return list(dict.fromkeys(self._reasons[name] for name in columns if name in self._reasons))

    def _decide(self, batch: Any, train: bool) -> tuple[Target, ...]:
        prover = self._prover(batch, train)
        kinds, name = self._kinds[train], _kind(batch)
        if name in kinds:
            kind = kinds[name]
            self._part(kind, batch, train)
        else:
            kind = kinds[name] = _Kind()
            if not self._follow(kind, name, train):
                self._find_length(kind, batch, prover, train)
        self._prove_pending(kind, batch, prover, train)
        new = kind.observe(batch)
        self._find_groups(kind, batch, prover, train)
        return self._within_reach(kind, batch, prover, new)

    def _follow(self, kind: _Kind, name: Hashable, train: bool) -> bool:
        """Adopt for evaluation, subject to proof, what training pads with the same columns."""
        trained = None if train else self._kinds[True].get(name)
        if trained is None:
            return False
        ragged = [one.proof.ragged for one in trained.proved] + list(trained.pending)
        kind.pending = [self._in_evaluation(each) for each in ragged]
        return True

    def _in_evaluation(self, ragged: Ragged) -> Ragged:
        """Return axes with the lengths of evaluation instead of those of training."""
        if ragged.ladder != self._lengths[True]:
            return ragged
        return ragged._replace(ladder=self._lengths[False])

    def _find_length(self, kind: _Kind, batch: Any, prover: Prover, train: bool) -> None:
        barred = set() if train else self._barred()
        guesses = list(itertools.islice(self._guesses[train].of_length(batch, barred), _TRIES))
        self._prove_any(guesses, kind, prover, train)

    def _find_groups(self, kind: _Kind, batch: Any, prover: Prover, train: bool) -> None:
        for column_axes, is_rows in kind.varying(batch):
            if not train and not self._barred().isdisjoint(column_axes):
                continue
            guesses = list(
                itertools.islice(self._guesses[train].of_group(batch, column_axes), _TRIES)
            )
            if self._prove_any(guesses, kind, prover, train, is_rows=is_rows):
                self._targets[train].clear()  # the cached plans do not pad these axes
                logger.info("Batches are padded where the size of %s varies", _names(column_axes))

    def _prove_pending(self, kind: _Kind, batch: Any, prover: Prover, train: bool) -> None:
        pending, kind.pending = kind.pending, []
        for ragged in pending:
            if ragged.agrees(batch) and ragged.size(batch):
                self._prove_any([ragged], kind, prover, train)
            elif ragged.agrees(batch):
                kind.pending.append(ragged)

    def _part(self, kind: _Kind, batch: Any, train: bool) -> None:
        """Schedule new proofs without the axes that had the same size only by coincidence."""
        sizes = _sizes(batch)
        for one in [one for one in kind.proved if not one.proof.ragged.agrees(batch)]:
            kind.proved.remove(one)
            self._targets[train].clear()
            ragged = one.proof.ragged
            kept = tuple(
                column_axis
                for column_axis in ragged.column_axes
                if sizes[column_axis] == ragged.size(batch)
            )
            kind.pending.append(ragged._replace(column_axes=kept))

    def _prove_any(
        self,
        guesses: list[Ragged],
        kind: _Kind,
        prover: Prover,
        train: bool,
        *,
        is_rows: bool = False,
    ) -> bool:
        """Test guesses until one is harmless, and return whether one is."""
        reasons = []
        for ragged in guesses:
            kind.tried.add(frozenset(ragged.column_axes))
            proof = prover.prove(ragged, [one.proof for one in kind.proved])
            if isinstance(proof, PaddingProof):
                kind.add(proof)
                kind.barred |= {*guesses[0].column_axes} - {*ragged.column_axes}
                return True
            reasons.append(proof)
        if not reasons:
            return False
        column_axes = guesses[0].column_axes
        kind.barred |= {*column_axes}
        if train:
            self._withdraw(column_axes)
        names = _names(column_axes)
        reason = f"padding {names} is not harmless, because {reasons[0]}"
        self._reasons |= dict.fromkeys((name for name, _ in column_axes), reason)
        logger.log(
            logging.INFO if is_rows else logging.WARNING,
            "Batches keep their exact shapes, each of which is traced and compiled: %s",
            reason,
        )
        return False

    def _barred(self) -> set[ColumnAxis]:
        return {column_axis for kind in self._kinds[True].values() for column_axis in kind.barred}

    def _withdraw(self, column_axes: Iterable[ColumnAxis]) -> None:
        """Stop padding axes in evaluation because padding them is harmful in training."""
        for kind in self._kinds[False].values():
            kind.proved = [
                p for p in kind.proved if {*column_axes}.isdisjoint(p.proof.ragged.column_axes)
            ]
        self._targets[False].clear()

    def _within_reach(
        self, kind: _Kind, batch: Any, prover: Prover, new: set[tuple[ColumnAxis, int]]
    ) -> tuple[Target, ...]:
        """Return the sizes to pad a batch to, after testing sizes larger than before."""
        if kind.is_harmed(batch):
            return ()
        aimed = [(one, one.target(batch)) for one in kind.proved]
        aimed = [(one, to) for one, to in aimed if to != one.proof.ragged.size(batch)]
        farther = [(one, to) for one, to in aimed if to > one.reach]
        if aimed and (farther or new):
            reason = prover.still_holds([(one.proof, to) for one, to in aimed])
            if reason:
                kind.note_harm(new)
                for one, to in farther:
                    one.end = to
                logger.info("A batch keeps its exact shape: %s", reason)
                return ()
            for one, to in farther:
                one.reach = to
        return tuple((one.proof.ragged, to) for one, to in aimed)


def _key(batch: Mapping[str, Any]) -> Hashable:
    """Return the columns, shapes and dtypes of a batch."""
    return tuple([(name, c.shape, c.dtype) for name, c in batch.items() if _is_dense(c)])


def _kind(batch: Mapping[str, Any]) -> Hashable:
    """Return the columns, numbers of axes and dtypes of a batch."""
    return tuple((name, c.ndim, c.dtype) for name, c in batch.items() if _is_dense(c))


def _sizes(batch: Mapping[str, Any]) -> dict[ColumnAxis, int]:
    return {
        (name, axis): size
        for name, c in batch.items()
        if _is_dense(c)
        for axis, size in enumerate(c.shape)
    }


def _is_dense(column: Any) -> bool:
    return isinstance(column, Tensor) and not column.is_nested and column.layout == torch.strided


def _names(column_axes: Iterable[ColumnAxis]) -> str:
    return ", ".join(dict.fromkeys(name for name, _ in column_axes))
