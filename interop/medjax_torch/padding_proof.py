"""Whether a component computes the same from a longer, padded batch: asked of torch itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch.utils._pytree as pytree
from torch import Tensor

from medjax_torch.batches.padding import Ragged, resized
from medjax_torch.comparison import differences
from medjax_torch.graph.batches import flatten
from medjax_torch.graph.joint import Call
from medjax_torch.modules import Found
from medjax_torch.moved import moved
from medjax_torch.reference import Outcome, reference

_TOLERANCE = 1e-4
"""Largest relative difference: torch is on both sides, and a little padding makes a small one."""

_DRAWS = 2
"""At how many other weights, and other sizes, padding has to be harmless too."""

_SIDES = ("the padded batch", "the batch itself")

Axes = dict[str, tuple[int, ...]]
"""By the path of an output, which of its axes are as long as the batch was padded to."""


class PaddingProof(NamedTuple):
    """Padding changed nothing, on one batch.

    Attributes
    ----------
    ragged : Ragged
        What was padded.
    axes : dict of str to tuple of int
        By the path of an output, which of its axes are as long as the batch was padded to.
        Outputs without such an axis are left out.
    size : int
        The largest size that was tried.
    relative : float
        The largest relative difference of a result.
    """

    ragged: Ragged
    axes: Axes
    size: int
    relative: float


class _Harm(NamedTuple):
    """Why padding is not harmless.

    Attributes
    ----------
    reason : str
        What padding changes.
    is_raised : bool
        Whether forward raises on the padded batch, as it does on one that is too long for it.
    """

    reason: str
    is_raised: bool = False


class Prover:
    """Pads one batch in several ways and compares in torch what comes of it.

    Dropout keeps everything in both, as masks of different shapes cannot be compared.

    Parameters
    ----------
    call : Call
        The component's forward, as `graph.trace` takes it.
    found : Found
        The component's content. It is left as it was.
    batch : mapping of str to value
        The batch.
    train : bool
        Whether to compare gradients too.
    """

    def __init__(self, call: Call, found: Found, batch: Mapping[str, Any], *, train: bool) -> None:
        self._call, self._found, self._batch, self._train = call, found, batch, train
        self._expected: Outcome | None = None

    def prove(self, ragged: Ragged, known: Sequence[PaddingProof] = ()) -> PaddingProof | str:
        """Compare the batch with longer versions, at the given weights and at others.

        At other weights shorter versions are taken, where forward allows it, since what padding
        changes may show in short ones only: a maximum over many entries hides one that is padded.

        Parameters
        ----------
        ragged : Ragged
            What to pad. Its size in the batch is 1 or more.
        known : sequence of PaddingProof
            What is padded besides.

        Returns
        -------
        PaddingProof or str
            The proof if loss, gradients and state are equal, and outputs are once cut to size;
            otherwise why padding is not harmless.

        Raises
        ------
        Exception
            Whatever forward raises on the batch itself.
        """
        size = ragged.size(self._batch)
        others = [(proof, proof.ragged.rung(proof.ragged.size(self._batch))) for proof in known]
        taken = {(proof.ragged.size(self._batch), target) for proof, target in others}
        longer = next((rung for rung in ragged.ladder if rung > size), size + 1)
        while (size, longer) in taken:
            longer += 1
        pair = _Pair(ragged, longer, others)
        first = self._compared(self._base, self._found, self._batch, pair)
        if isinstance(first, _Harm) and not first.is_raised:
            return first.reason
        done = [first] if isinstance(first, PaddingProof) else []
        gradients = dict(self._base.gradients)
        draws = 0
        for shorter in self._shorter(ragged, size):
            if draws == _DRAWS:
                break
            batch = resized(self._batch, [(ragged, shorter)])
            drawn = moved(self._found, gradients, draws)
            try:
                expected = self._run(drawn, batch)
            except Exception:  # what other columns say, such as positions, need not fit a cut one
                continue
            if not _says_something(expected):
                continue
            judged = self._compared(expected, drawn, batch, _Pair(ragged, size, others))
            if isinstance(judged, _Harm):
                return judged.reason
            done.append(judged)
            gradients = _either(gradients, expected.gradients)
            draws += 1
        while isinstance(first, PaddingProof) and draws < _DRAWS:
            drawn = moved(self._found, gradients, draws)
            try:
                expected = self._run(drawn, self._batch)
            except Exception as error:
                return f"forward raises {type(error).__name__} at other weights: {error}"
            if not _says_something(expected):
                return "forward gives no finite number at other weights, so nothing can be told"
            judged = self._compared(expected, drawn, self._batch, pair)
            if isinstance(judged, _Harm):
                return judged.reason
            done.append(judged)
            draws += 1
        if not done:
            assert isinstance(first, _Harm)
            return first.reason
        return PaddingProof(
            ragged,
            done[0].axes,
            longer if done[0] is first else size,
            max(one.relative for one in done),
        )

    def still_holds(self, known: Sequence[tuple[PaddingProof, int]]) -> str:
        """Return what padding the batch to given sizes changes at the given weights, "" if nothing.

        Loss, outputs and state alone are compared.
        """
        expected = self._run(self._found, self._batch, train=False)
        judged = self._compared(
            expected, self._found, self._batch, _Pair(None, 0, known), train=False
        )
        return judged.reason if isinstance(judged, _Harm) else ""

    @property
    def _base(self) -> Outcome:
        if self._expected is None:
            self._expected = self._run(self._found, self._batch)
        return self._expected

    def _run(self, found: Found, batch: Mapping[str, Any], train: bool | None = None) -> Outcome:
        train = self._train if train is None else train
        return reference(self._call, found, batch, train=train, spread=False)

    def _shorter(self, ragged: Ragged, size: int) -> list[int]:
        """Return sizes to cut to: a medium one and a small one, others if forward raises there."""
        mask = self._batch.get("attention_mask")

        def has_content(shorter: int) -> bool:
            # Rows that are padded in front would be left with nothing that is real.
            if not isinstance(mask, Tensor) or ("attention_mask", 1) not in ragged.slots:
                return True
            return bool((mask[:, :shorter] != 0).flatten(1).any(1).all())

        sizes = dict.fromkeys((size // 2, 1, 2, size - 1))
        return [shorter for shorter in sizes if 0 < shorter < size and has_content(shorter)]

    def _compared(
        self,
        expected: Outcome,
        found: Found,
        batch: Mapping[str, Any],
        pair: _Pair,
        train: bool | None = None,
    ) -> PaddingProof | _Harm:
        try:
            longer = self._run(found, pair.padded(batch), train)
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
                        f"{shapes[0]} with {sizes[1]} in the place of {sizes[0]}, so it cannot be "
                        "cut back"
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
            return _Harm(f"padding changes {wrong[0]}{more}")
        ragged = pair.ragged or Ragged((), {}, ())
        return PaddingProof(ragged, axes, pair.size, listing[0].relative)


class _Pair(NamedTuple):
    """To which sizes a batch is padded.

    Attributes
    ----------
    ragged : Ragged or None
        What is to be proved.
    size : int
        Its size.
    known : sequence of (PaddingProof, int)
        What is proved, with its size.
    """

    ragged: Ragged | None
    size: int
    known: Sequence[tuple[PaddingProof, int]]

    def padded(self, batch: Mapping[str, Any]) -> Any:
        own = [] if self.ragged is None else [(self.ragged, self.size)]
        return resized(batch, [*own, *((proof.ragged, size) for proof, size in self.known)])

    def cuts(self, batch: Mapping[str, Any]) -> Cuts:
        cuts: Cuts = {}
        for proof, _ in self.known:
            for name, sizes in cuts_of(proof.axes, proof.ragged.size(batch)).items():
                cuts[name] = {**cuts.get(name, {}), **sizes}
        return cuts


Cuts = dict[str, dict[int, int]]
"""By the path of an output, axis to size."""


def cuts_of(axes: Axes, size: int) -> Cuts:
    """Return how to cut outputs whose `axes` follow what was of `size` before it was padded."""
    return {name: dict.fromkeys(followed, size) for name, followed in axes.items()}


def strip(outputs: Mapping[str, Any], cuts: Cuts) -> dict[str, Any]:
    """Cut what was computed for padding off the outputs of forward.

    Parameters
    ----------
    outputs : mapping of str to value
        Dicts, lists and tuples of torch tensors or numpy arrays.
    cuts : mapping of str to dict of int to int
        By the path of an output, axis to size.

    Returns
    -------
    dict
        Of the same structure; the tensors are views.
    """
    leaves, spec = flatten(outputs)
    cut = [_cut(leaf, cuts.get(name, {})) for name, leaf in leaves.items()]
    stripped: dict[str, Any] = pytree.tree_unflatten(cut, spec)
    return stripped


def _cut(leaf: Any, sizes: Mapping[int, int]) -> Any:
    if not sizes or not isinstance(leaf, Tensor | np.ndarray):
        return leaf
    return leaf[tuple(slice(sizes.get(axis)) for axis in range(leaf.ndim))]


def _followed(
    shape: tuple[int, ...], longer: tuple[int, ...], sizes: tuple[int, int]
) -> tuple[int, ...] | None:
    """Return the axes that became longer, None if any other change was made."""
    if len(shape) != len(longer):
        return None
    pairs = list(zip(shape, longer, strict=True))
    changed = tuple(axis for axis, (before, after) in enumerate(pairs) if before != after)
    return changed if all(pairs[axis] == sizes for axis in changed) else None


def _says_something(outcome: Outcome) -> bool:
    """Tell whether any number is finite, as none is where weights have become impossible."""
    arrays = [outcome.loss, *outcome.gradients.values(), *outcome.outputs.values()]
    return any(array.size and np.isfinite(array).any() for array in arrays)


def _either(
    gradients: Mapping[str, np.ndarray], others: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Return gradients that are not 0 where one of both is not."""
    return {
        name: np.where(gradients[name] != 0, gradients[name], others[name])
        if name in gradients and name in others
        else {**gradients, **others}[name]
        for name in gradients.keys() | others.keys()
    }
