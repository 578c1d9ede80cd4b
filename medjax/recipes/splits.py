"""What the parts of a run consist of, kept in its folder, so that it is resumed with the same."""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from medjax.checkpoint import last_checkpoint
from medjax.checkpoint.lock import FolderLock
from medjax.recipes.corpora import SPLITS, Parts, split_parts
from medjax.text.writers._files import replacing

__all__ = ["SPLIT", "keep_split", "redo_split", "refuse_trained_texts", "run_of"]

SPLIT = "split.json"
"""File in the folder of a run with what its parts consist of."""

_CHECKPOINTS = "checkpoints"  # where the examples and `python -m medjax train` keep them

_TEXTS = "texts"
_TOGETHER = [Parts._fields[:count] for count in (3, 2, 1)]  # parts that a file may consist of

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
        the seed and, of each part, the number of items and a SHA-256 over their texts, and the
        same of train with devel and test in any order. Annotation may be corrected.
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
            "parts": _described_parts(parts),
            _TEXTS: {
                ", ".join(names): _described(_sorted(getattr(parts, name) for name in names))
                for names in _TOGETHER
            },
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


def run_of(model: str | Path) -> Path | None:
    """Return the folder of the run that trained a model, if it has a ``split.json``.

    Parameters
    ----------
    model : path
        Folder of the component or of a checkpoint of the run; it may also be another model.
    """
    path = Path(model)
    folders = path.resolve().parents[:2] if path.is_dir() else ()
    return next((folder for folder in folders if (folder / SPLIT).is_file()), None)


def refuse_trained_texts(where: str, items: Sequence[Any], folder: Path) -> None:
    """Refuse to score a model on the whole corpus that it was trained on.

    A warning tells of a file that was given to train on.

    Parameters
    ----------
    where : str
        What the messages call the items.
    items : sequence
        Documents or labelled texts.
    folder : Path
        That of the run, with a ``split.json``.

    Raises
    ------
    ValueError
        If they are all that the run was given, test included.
    """
    for record in reversed(_read(folder)):
        found = _described(_sorted([items]))
        names = next((n for n, texts in record.get(_TEXTS, {}).items() if texts == found), None)
        if names is None and _split_of(record, items) is None:
            continue
        if names in (None, ", ".join(Parts._fields)):
            msg = (
                f"{where} is the corpus of the run in {folder}, of which the model was trained on "
                f"{record['parts']['train']['items']} of {len(items)} texts; expected the part to "
                "score on, such as --split test, which repeats the split of the run"
            )
            raise ValueError(msg)
        _LOGGER.warning(
            f"{where} has the texts that the model was trained on ({names} of {folder}): the "
            "scores are too high for other texts"
        )
        return


def redo_split(where: str, items: Sequence[Any], folder: Path, split: str) -> list[Any]:
    """Return a part of the corpus of a run, split as the run did.

    Parameters
    ----------
    where : str
        What the message calls the items.
    items : sequence
        All items of the corpus.
    folder : Path
        That of the run, with a ``split.json``.
    split : str
        Name of the part, one of those in ``SPLITS``.

    Raises
    ------
    ValueError
        If the items are not those of the run.
    """
    name = next(part for part, names in SPLITS.items() if split in names)
    for record in reversed(_read(folder)):
        if parts := _split_of(record, items):
            return list(getattr(parts, name))
    msg = (
        f"--split is {split!r}, but {where} has no such part, and split in three it does not give "
        f"the parts of the run in {folder}; expected the corpus that it has split, read with the "
        "same options (--group, --sentences), or the path of a part without --split"
    )
    raise ValueError(msg)


def _split_of(record: dict[str, Any], items: Sequence[Any]) -> Parts | None:
    """Return the parts of a run's corpus; None if these items are another."""
    if len(items) != sum(part["items"] for part in record["parts"].values()):
        return None
    try:
        parts = split_parts([items], record["seed"])
    except ValueError:  # there are too few groups
        return None
    return parts if _described_parts(parts) == record["parts"] else None


def _described_parts(parts: Parts) -> dict[str, dict[str, Any]]:
    return {name: _described(part) for name, part in parts._asdict().items()}


def _sorted(lists: Iterable[Sequence[Any]]) -> list[Any]:
    return sorted(itertools.chain.from_iterable(lists), key=lambda item: item.text)


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
