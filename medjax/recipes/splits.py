"""What the parts of a run consist of, kept in its folder, so that it is resumed with the same."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medjax.checkpoint import last_checkpoint
from medjax.checkpoint.lock import FolderLock
from medjax.recipes.corpora import Parts
from medjax.text.writers._files import replacing

__all__ = ["SPLIT", "keep_split"]

SPLIT = "split.json"
"""File in the folder of a run with what its parts consist of."""

_CHECKPOINTS = "checkpoints"  # where the examples and `python -m medjax train` keep them

_LOGGER = logging.getLogger("medjax")


def keep_split(parts: Parts, seed: int, folder: str | Path, *, resume: bool) -> None:
    """Write what the parts of a run consist of, or make sure that a resumed run has the same.

    Otherwise texts that were trained on could be in the test part of the resumed run, whose scores
    would be too high. Call it before training.

    Parameters
    ----------
    parts : Parts
        What `split_parts` returns.
    seed : int
        What it was drawn with.
    folder : path
        Folder of the run, which has its checkpoints in ``checkpoints``; ``split.json`` in it gets
        the seed and, of each part, the number of items and a SHA-256 over their texts. Annotation
        may be corrected.
    resume : bool
        Whether the run goes on from the last checkpoint, if there is one.

    Raises
    ------
    ValueError
        If a part differs from that of the run which saved the last checkpoint, or the file is
        damaged.
    CheckpointError
        If another run writes to the folder.
    """
    folder = Path(folder)
    checkpoints = folder / _CHECKPOINTS
    checkpoints.mkdir(parents=True, exist_ok=True)
    lock = FolderLock(checkpoints)
    lock.acquire()  # the file belongs to the run that trains
    try:
        last = last_checkpoint(checkpoints)
        # A run that has saved no checkpoint yet leaves those of an earlier run, with other parts.
        earlier = [] if last is None else [r for r in _read(folder) if r["after"] != last.name][-1:]
        found = {
            "after": last and last.name,
            "seed": seed,
            "parts": {name: _described(part) for name, part in parts._asdict().items()},
        }
        if resume and earlier:
            _compare(earlier[0], found, folder)
            earlier, found = [], earlier[0]  # its checkpoints are the next ones
        elif resume and last is not None:
            _LOGGER.warning(
                f"{folder} has no {SPLIT} of the run that is resumed, so that its parts cannot be "
                "compared: with other --data or another --seed than before, the test part has "
                "texts that were trained on"
            )
        with replacing(folder / SPLIT) as file:
            json.dump([*earlier, found], file, indent=2)
    finally:
        lock.release()


def _described(items: Sequence[Any]) -> dict[str, Any]:
    digest = hashlib.sha256()
    for item in items:
        digest.update(f"{json.dumps(item.text)}\n".encode())
    return {"items": len(items), "sha256": digest.hexdigest()}


def _compare(before: dict[str, Any], now: dict[str, Any], folder: Path) -> None:
    names = [name for name in Parts._fields if before["parts"][name] != now["parts"][name]]
    if not names:
        return
    sizes = [
        " / ".join(str(record["parts"][name]["items"]) for name in Parts._fields)
        for record in (before, now)
    ]
    msg = (
        f"{folder} has a run on other texts: found {sizes[1]} items to train, to choose the best "
        f"epoch and to report on with seed {now['seed']}, expected the {sizes[0]} with seed "
        f"{before['seed']} that it began with ({', '.join(names)} differ); texts that it was "
        "trained on could be in test. Resume with the same --data and --seed and the same options "
        "of reading, or use another --output"
    )
    raise ValueError(msg)


def _read(folder: Path) -> list[dict[str, Any]]:
    """Return what the file has: of the run that saved the last checkpoint, and of a later one."""
    file = folder / SPLIT
    if not file.exists():
        return []
    try:
        records: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
        for record in records:
            _ = record["after"], record["seed"]
            _ = [record["parts"][name]["items"] for name in Parts._fields]
    except (ValueError, TypeError, KeyError) as error:
        msg = (
            f"{file} is damaged ({error!r}); remove it to resume without a comparison of the parts"
        )
        raise ValueError(msg) from error
    return records
