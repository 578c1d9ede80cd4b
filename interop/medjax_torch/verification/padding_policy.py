"""The choice of axes to pad in each batch, based on proofs in torch."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any

from medjax_torch.batches.guesses import Guesses
from medjax_torch.batches.mapping import rebuilt
from medjax_torch.batches.padding import ColumnAxis, Ragged, resized, resized_with_sizes
from medjax_torch.verification.cropping import Cuts, cuts_of, strip
from medjax_torch.verification.padded_pair import Harm, PaddingProof
from medjax_torch.verification.padding_kind import Kind, Proved, key_of, kind_of, names_of, sizes_of
from medjax_torch.verification.padding_proof import Prover

logger = logging.getLogger("medjax")

Target = tuple[Ragged, int]

_VAGUE = (
    "output %s differs from torch's where attention_mask is 0, because forward attends to padding "
    "there; loss and gradients do not depend on it, and neither should a metrics computer"
)

_TRIES = 24  # guesses tested at a time
_KEPT = 10_000  # shapes whose plan is cached


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
        self._kinds: dict[bool, dict[Hashable, Kind]] = {True: {}, False: {}}
        self._targets: dict[bool, dict[Hashable, tuple[Target, ...]]] = {True: {}, False: {}}
        self._reasons: dict[str, str] = {}
        self._vague: set[str] = set()  # outputs of which was told
        self._unpacks: bool | None = None  # see `Prover`; decided by the first batch
        self._tested: Any = None  # the last batch on which padding was tested

    def pad(self, batch: Any, *, train: bool) -> Any:
        """Pad the ragged axes of a batch, as far as that is harmless.

        Raises
        ------
        Exception
            Any exception of forward on a batch that has to be tested.
        """
        key = key_of(batch)
        targets = self._targets[train].get(key)
        if targets is None:
            began = time.perf_counter()
            targets = self._decide(batch, train)
            self.seconds += time.perf_counter() - began
            if len(self._targets[train]) == _KEPT:
                self._targets[train].clear()
            self._targets[train][key] = targets
        if not targets:
            return batch
        return (resized_with_sizes if self._unpacks else resized)(batch, targets)

    def still_harmless(self, batch: Any, *, train: bool) -> bool:
        """Test the padding of a batch for what forward computes by now.

        The proofs hold for the values that forward has read when they were made. Where padding is
        harmful now, such batches keep their exact shapes from here on.
        """
        targets = self._targets[train].get(key_of(batch), ())
        if not targets or batch is self._tested:
            return True
        kind = self._kinds[train][kind_of(batch)]
        known = [
            (one.proof, to)
            for one in kind.proved
            for ragged, to in targets
            if one.proof.ragged == ragged
        ]
        began = time.perf_counter()
        prover = self._prover_of(batch, train)
        reason = prover.still_holds(known)
        self._tell_of_vague(prover)
        self.seconds += time.perf_counter() - began
        self._tested = batch
        if not reason:
            return True
        column_axes = tuple(axis for proof, _ in known for axis in proof.ragged.column_axes)
        kind.proved = [
            p for p in kind.proved if {*column_axes}.isdisjoint(p.proof.ragged.column_axes)
        ]
        self._targets[train].clear()
        self._bar(kind, column_axes, reason, train=train)
        return False

    def unpad(self, outputs: Mapping[str, Any], batch: Any, *, train: bool) -> Any:
        """Crop the outputs of forward to those for the batch without padding."""
        cuts: Cuts = {}
        for proof in self._kinds[train][kind_of(batch)].ever:
            for path, sizes in cuts_of(proof.axes, proof.ragged.size(batch)).items():
                cuts.setdefault(path, {}).update(sizes)
        return rebuilt(batch, strip(outputs, cuts) if cuts else outputs)

    def reasons(self, columns: Iterable[str]) -> list[str]:
        """Return why columns are not padded, as far as is known."""
        return list(dict.fromkeys(self._reasons[name] for name in columns if name in self._reasons))

    def _prover_of(self, batch: Any, train: bool) -> Prover:
        prover = self._prover(batch, train)
        prover.unpacks = self._unpacks
        return prover

    def _decide(self, batch: Any, train: bool) -> tuple[Target, ...]:
        prover = self._prover_of(batch, train)
        kinds, name = self._kinds[train], kind_of(batch)
        nb_proved = len(kinds[name].ever) if name in kinds else 0
        if name in kinds:
            kind = kinds[name]
            self._part(kind, batch, train)
        else:
            kind = kinds[name] = Kind()
            if not self._follow(kind, name, train):
                self._find_length(kind, batch, prover, train)
        self._prove_pending(kind, batch, prover, train)
        new = kind.observe(batch)
        self._find_groups(kind, batch, prover, train)
        self._unpacks = prover.unpacks
        if len(kind.ever) > nb_proved:
            self._tested = batch
        targets = self._within_reach(kind, batch, prover, new)
        self._tell_of_vague(prover)
        return targets

    def _follow(self, kind: Kind, name: Hashable, train: bool) -> bool:
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

    def _find_length(self, kind: Kind, batch: Any, prover: Prover, train: bool) -> None:
        barred = set() if train else self._barred()
        guesses = list(itertools.islice(self._guesses[train].of_length(batch, barred), _TRIES))
        self._prove_any(guesses, kind, prover, train)

    def _find_groups(self, kind: Kind, batch: Any, prover: Prover, train: bool) -> None:
        for column_axes, is_rows in kind.varying(batch):
            if not train and not self._barred().isdisjoint(column_axes):
                continue
            guesses = list(
                itertools.islice(self._guesses[train].of_group(batch, column_axes), _TRIES)
            )
            if self._prove_any(guesses, kind, prover, train, is_rows=is_rows):
                self._targets[train].clear()  # the cached plans do not pad these axes
                logger.info("Batches are padded where the size of %s varies", names_of(column_axes))

    def _prove_pending(self, kind: Kind, batch: Any, prover: Prover, train: bool) -> None:
        pending, kind.pending = kind.pending, []
        for ragged in pending:
            if ragged.agrees(batch) and ragged.size(batch):
                self._prove_any([ragged], kind, prover, train)
            elif ragged.agrees(batch):
                kind.pending.append(ragged)

    def _part(self, kind: Kind, batch: Any, train: bool) -> None:
        """Schedule new proofs without the axes that had the same size only by coincidence."""
        sizes = sizes_of(batch)
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
        kind: Kind,
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
        level = logging.INFO if is_rows else logging.WARNING
        self._bar(kind, guesses[0].column_axes, reasons[0], train=train, level=level)
        return False

    def _bar(
        self,
        kind: Kind,
        column_axes: tuple[ColumnAxis, ...],
        harm: str,
        *,
        train: bool,
        level: int = logging.WARNING,
    ) -> None:
        """Do not pad axes any more, and say why."""
        kind.barred |= {*column_axes}
        if train:
            self._withdraw(column_axes)
        reason = f"padding {names_of(column_axes)} is not harmless, because {harm}"
        self._reasons |= dict.fromkeys((name for name, _ in column_axes), reason)
        logger.log(
            level,
            "Batches keep their exact shapes, each of which is traced and compiled: %s",
            reason,
        )

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
        self, kind: Kind, batch: Any, prover: Prover, new: set[tuple[ColumnAxis, int]]
    ) -> tuple[Target, ...]:
        """Return the sizes to pad a batch to, after testing sizes that nothing known covers."""
        if kind.is_harmed(batch):
            return ()
        sized = [(one, one.proof.ragged.size(batch), one.target(batch)) for one in kind.proved]
        aimed = [(one, size, to) for one, size, to in sized if to != size]
        untried = [(one, size, to) for one, size, to in aimed if not one.covers(size, to)]
        if aimed and (untried or new):
            found = prover.reached([(one.proof, to) for one, _, to in aimed])
            if isinstance(found, Harm):
                kind.note_harm(new)
                for one, _, to in untried:
                    one.end = to
                if found.is_raised or new:
                    logger.info("A batch keeps its exact shape: %s", found.reason)
                else:
                    self._warn_of_sizes(untried, found.reason)
                return ()
            self._tested = batch
            for (one, _, _), tried in zip(aimed, found, strict=True):
                one.tried.append(tried)
        return tuple((one.proof.ragged, to) for one, _, to in aimed)

    def _tell_of_vague(self, prover: Prover) -> None:
        if names := sorted(prover.vague - self._vague):
            self._vague.update(names)
            logger.warning(_VAGUE, " and ".join(names))

    def _warn_of_sizes(self, untried: list[tuple[Proved, int, int]], harm: str) -> None:
        """Say which sizes batches are not padded to any more, as forward decides by the size."""
        for one, size, to in untried:
            names = names_of(one.proof.ragged.column_axes)
            reason = f"padding {names} from {size} to {to} is not harmless, because {harm}"
            self._reasons |= {name: reason for name, _ in one.proof.ragged.column_axes}
            logger.warning(
                "Batches that would be padded to %d or more keep their exact shapes, each of which "
                "is traced and compiled: %s",
                to,
                reason,
            )
