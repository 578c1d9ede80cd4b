"""What the files of a checkpoint or a run tell, ready for JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from medjax import distributed
from medjax.checkpoint import best_checkpoint, last_checkpoint
from medjax.checkpoint.errors import CheckpointError, CorruptCheckpointError, MismatchError
from medjax.checkpoint.lock import holder_of
from medjax.checkpoint.manifest import UNREADABLE
from medjax.checkpoint.progress import Progress, check_position, read_progress
from medjax.checkpoint.records import is_name, named, newest_first, read_record
from medjax.checkpoint.restore import CORRUPT, newest_intact
from medjax.checkpoint.saver import STAGING
from medjax.checkpoint.space import bytes_in
from medjax.checkpoint.store import CONFIG
from medjax.checkpoint.summary import (
    array_groups,
    component_files,
    is_without_state,
    problems_of,
)
from medjax.components import TokenClassification
from medjax.components.folders import WINDOW_LENGTH
from medjax.components.loading import component_kind
from medjax.config import Options, TrainerConfig
from medjax.loop.plan import Plan
from medjax.loop.resume import WITHIN_EPOCH
from medjax.models import TEXT_CLASSIFICATION, TOKEN_CLASSIFICATION, read_labels
from medjax.models.config_json import CONFIG_FILE
from medjax.models.files import read_json

__all__ = ["inspect"]

Found = dict[str, Any]

_TORCH = "torch optimizer"  # a setting that only runs of torch components have
_WITHIN_RUN = "checkpoints"  # where the examples and `train` keep those of a run


def inspect(path: Path) -> Found:
    """Return what is in a checkpoint, or in the output folder of a run.

    Parameters
    ----------
    path : Path
        The folder.

    Raises
    ------
    ValueError
        If it is neither.
    FileNotFoundError
        If it is not there.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such folder")
    if not path.is_dir():
        msg = (
            f"{path} is a file; expected the folder of a checkpoint, or the output folder of a run"
        )
        raise ValueError(msg)
    if is_name(path.name) or (path / CONFIG).is_file():
        auto = _choice(path.parent) if is_name(path.name) else None
        return _inspect_checkpoint(path, problems_of(path), auto)
    for folder in (path, path / _WITHIN_RUN):
        if folder.is_dir() and (any(named(folder)) or holder_of(folder)):
            return _inspect_run(folder)
    msg = (
        f"{path} has no {CONFIG} and no folder named like checkpoint_001_20260131T120000Z; "
        "expected a checkpoint, or the output folder of a run"
    )
    raise ValueError(msg)


def _inspect_checkpoint(path: Path, damage: list[str], auto: Found | None) -> Found:
    found: Found = {"kind": "checkpoint", "path": str(path), "bytes": bytes_in(path)}
    configuration = _configuration(path)
    if is_without_state(path):
        return {
            **found,
            "written by": "medkit, or save without a training state",
            "sound": True,
            "damage": [],
            "component": _component(path),
            "settings": configuration,
            "resume": {"problem": "it has weights only: training can start from them"},
        }
    found |= {"sound": not damage, "damage": damage, "component": _component(path)}
    try:
        record = read_record(path)
        progress = read_progress(record["progress"])
    except (CorruptCheckpointError, MismatchError) as error:
        return {**found, "settings": configuration, "resume": {"problem": str(error)}}
    settings = {**configuration, **progress.settings}
    return {
        **found,
        "written by": "medjax_torch" if _TORCH in settings else "medjax",
        "run": record["run"],
        "metric": {
            "name": record.get("metric_name"),
            "value": record["metric"],
            "minimize": record.get("minimize"),
        },
        "versions": record.get("versions", {}),
        "arrays": [group._asdict() for group in array_groups(record["spec"])],
        **{
            name: getattr(progress, name)
            for name in ("seed", "epoch", "batch", "data", "schedule", "history", "ladders")
        },
        "callbacks": sorted(progress.callbacks),
        "stop reason": progress.stop_reason,
        "settings": settings,
        "resume": {**_resume(record, progress, settings), "auto": auto},
    }


def _configuration(path: Path) -> Found:
    """Return the fields of `trainer_config.yml`, as far as it can be read."""
    try:
        content = yaml.safe_load((path / CONFIG).read_text(encoding="utf-8"))
        return dict(content)
    except (*UNREADABLE, yaml.YAMLError):
        return {}


def _component(path: Path) -> Found:
    found: Found = {"class": None, "files": component_files(path)}
    if not (path / CONFIG_FILE).is_file():
        return found
    try:
        content = read_json(path / CONFIG_FILE)
        found |= {name: content.get(name) for name in ("model_type", "architectures")}
        kind = component_kind(path)
        task = TOKEN_CLASSIFICATION if kind is TokenClassification else TEXT_CLASSIFICATION
        found |= {"class": kind.__name__, "classes": list(read_labels(path, task) or ())}
        found["max_length"] = content.get(WINDOW_LENGTH)
    except ValueError as error:
        found["problem"] = str(error)
    return found


def _resume(record: Found, progress: Progress, settings: Found) -> Found:
    """Return where a run would continue, and on what its equality to an unbroken run depends."""
    found: Found = {"epoch": progress.epoch, "batch": progress.batch}
    plan = _plan(progress, settings)
    if plan is not None:
        nb_batches, planned = plan
        found |= {"batches in an epoch": nb_batches, "epochs": planned.nb_epochs}
        found["finished"] = progress.epoch > planned.nb_epochs
        try:
            check_position(progress, nb_batches)
        except CorruptCheckpointError as error:
            found["problem"] = str(error)
    if progress.stop_reason is not None:
        found["stopped"] = progress.stop_reason
    if progress.batch:
        known = {**progress.data, **settings, "seed": progress.seed}
        found["must not change"] = {name: known[name] for name in WITHIN_EPOCH if name in known}
    now = distributed.versions()
    found["versions that differ"] = {
        name: {"saved": version, "now": now[name]}
        for name, version in record.get("versions", {}).items()
        if name in now and now[name] != version
    }
    return found


def _plan(progress: Progress, settings: Found) -> tuple[int, Plan] | None:
    """Return the number of batches of an epoch and how far the run was to go, if that was saved."""
    try:
        nb_batches = -(-progress.data["items"] // progress.data["batch_size"])
        config = TrainerConfig(
            output_dir="unused",
            nb_training_epochs=settings["nb_training_epochs"],
            gradient_accumulation_steps=settings["gradient_accumulation_steps"],
        )
        return nb_batches, Plan.of(nb_batches, config, Options(max_steps=settings.get("max_steps")))
    except UNREADABLE:
        return None


def _choice(folder: Path) -> Found:
    """Return which checkpoint ``resume="auto"`` takes in a folder, and which it sets aside."""
    try:
        chosen, damaged = newest_intact(folder)
    except CheckpointError as error:
        return {"chosen": None, "problem": str(error)}
    aside = [path.name for path in damaged]
    if chosen is None and damaged:
        return {"chosen": None, "problem": "every checkpoint is damaged"}
    return {"chosen": chosen and chosen.name, "set aside": aside}


def _inspect_run(folder: Path) -> Found:
    best, last = best_checkpoint(folder), last_checkpoint(folder)
    rows = []
    for path in newest_first(folder):
        row: Found = {"name": path.name, "bytes": bytes_in(path), "damage": problems_of(path)}
        try:
            record = read_record(path)
            progress = read_progress(record["progress"])
        except (CorruptCheckpointError, MismatchError):
            pass
        else:
            row |= {
                "run": record["run"],
                "metric": {"name": record.get("metric_name"), "value": record["metric"]},
                "epoch": progress.epoch,
                "batch": progress.batch,
                "best": path == best,
                "last": path == last,
            }
        if path.is_dir():  # a run that goes on may have deleted it
            rows.append(row)
    auto = _choice(folder)
    chosen = auto["chosen"] and folder / auto["chosen"]
    damage = [text for row in rows for text in row["damage"]]
    return {
        "kind": "run",
        "path": str(folder),
        "sound": not damage,
        "damage": damage,
        "locked by": holder_of(folder),
        "checkpoints": rows,
        "left over": sorted(
            path.name
            for path in folder.iterdir()
            if path.name.startswith((CORRUPT, STAGING)) and path.is_dir()
        ),
        "auto": auto,
        "chosen": chosen and _inspect_checkpoint(chosen, [], auto),
    }
