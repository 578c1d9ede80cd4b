"""Refusals of a checkpoint that holds other arrays than this run, in torch's terms."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medjax.checkpoint import CheckpointStore, MismatchError
from medjax_torch.conversion import ConvertedComponent
from medjax_torch.optimizers.groups import SWITCHES

_TRAINED, _FROZEN = ".params[{!r}]", ".collections['frozen'][{!r}]"
_NEW_RUN = (
    "or start a new run from the weights of the checkpoint: component.load(checkpoint), then "
    "train(resume=None)"
)
_MOST_NAMES = 3


@contextlib.contextmanager
def in_torchs_terms(
    store: CheckpointStore,
    resume: str | Path | None,
    converted: ConvertedComponent,
    current: dict[str, Any],
) -> Iterator[None]:
    """Say what of torch differs where a checkpoint is refused because its arrays differ.

    Parameters
    ----------
    store : CheckpointStore
        Has the checkpoint.
    resume : "auto", path or None
        See ``Trainer.train``.
    converted : ConvertedComponent
        The component that was to continue the run.
    current : dict
        From `torch_settings`.

    Raises
    ------
    MismatchError
        If the body raises it.
    """
    try:
        yield
    except MismatchError as error:
        checkpoint = store.find(resume) if error.leaves and resume is not None else None
        if checkpoint is None:
            raise
        former = checkpoint.record["progress"].get("settings", {})
        msg = _other_parameters(converted, checkpoint.record["spec"])
        msg = msg or _other_optimizer(former, current)
        if msg is None:
            raise
        raise MismatchError(f"{checkpoint.path}: {msg}", error.leaves) from error


def _other_parameters(converted: ConvertedComponent, spec: dict[str, Any]) -> str | None:
    trained = set(converted.trained)
    frozen = [n for n in converted.inventory.parameters if n not in trained]
    said = [
        f"requires_grad of {_listed(names)} was {not now} and is {now} now"
        for names, now in (
            ([n for n in frozen if _TRAINED.format(n) in spec], False),
            ([n for n in converted.trained if _FROZEN.format(n) in spec], True),
        )
        if names
    ]
    if not said:
        return None
    return (
        f"{' and '.join(said)}, so the saved run trained other parameters. Make the "
        "component with requires_grad as it was and change it in a callback, for instance in "
        f"on_epoch_begin, {_NEW_RUN}"
    )


def _other_optimizer(former: dict[str, Any], current: dict[str, Any]) -> str | None:
    before, after = former.get("torch optimizer") or [], current["torch optimizer"]
    kind = "torch optimizer class"
    if not before or not after:
        return None
    if former.get(kind, current[kind]) != current[kind]:
        said = f"the optimizer was {former[kind]} and is {current[kind]} now"
    elif len(before) != len(after):
        said = f"the number of parameter groups was {len(before)} and is {len(after)} now"
    else:
        changed = {
            name: f"{name} of the optimizer was {old[name]!r} and is {new[name]!r} now"
            for old, new in zip(before, after, strict=True)
            for name in ("momentum", *SWITCHES)
            if name in old and name in new and bool(old[name]) != bool(new[name])
        }
        said = ", ".join(changed.values())
    if not said:
        return None
    return (
        f"{said}, so its state has other moments or settings. Resume with what it was, {_NEW_RUN}"
    )


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:_MOST_NAMES])
    more = len(names) - _MOST_NAMES
    return f"{shown} and {more} more parameters" if more > 0 else shown
