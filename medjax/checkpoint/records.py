"""The record of a checkpoint (everything but its arrays), and the checkpoints in a folder."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from medjax.checkpoint import retention
from medjax.checkpoint.errors import CorruptCheckpointError, MismatchError
from medjax.checkpoint.manifest import UNREADABLE, read_json, write_json
from medjax.checkpoint.metrics_json import array_to_json
from medjax.checkpoint.progress import EVAL_ITEMS, EVAL_SINCE
from medjax.checkpoint.retention import CheckpointEntry

__all__ = [
    "FORMAT",
    "RECORD",
    "best_checkpoint",
    "is_name",
    "last_checkpoint",
    "list_entries",
    "named",
    "newest_first",
    "read_record",
    "versions",
    "write_record",
]

FORMAT = 1
"""Version of the layout of a checkpoint folder; higher ones are refused."""

RECORD = "training_state.json"
"""Name of the record within a checkpoint."""

_NAME = re.compile(r"checkpoint_\d{3,}(_batch_\d+)?_\d{8}T\d{6}Z(-\d+)?")
_SERIALS = 2**31  # more saves than any folder sees
_NO_RECORD = 2**62  # serial of a checkpoint without a readable record: newer than all others
_FIELDS = {"serial": int, "run": str, "spec": dict, "progress": dict}


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Write the record of a checkpoint into its folder.

    Raises
    ------
    TypeError
        If it holds an object that JSON has no form for.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_record(Path(folder), {"metric": np.float32(0.5)})
    ...     read_json(Path(folder, RECORD))
    {'metric': 0.5}
    """
    write_json(folder / RECORD, json.dumps(record, indent=1, default=_plain))


def _plain(value: Any) -> Any:
    """Convert arrays and tensors, which callbacks often keep, to what JSON can hold."""
    if isinstance(value, np.generic | np.ndarray | jax.Array):
        return np.asarray(value).tolist()
    if hasattr(value, "tolist"):
        return array_to_json(value)
    msg = f"{value!r:.200} of type {type(value).__name__} cannot be stored as JSON"
    raise TypeError(msg)


def versions() -> dict[str, Any]:
    """Return what a checkpoint is written with, ready for JSON."""
    return {
        "jax": jax.__version__,
        "numpy": np.__version__,
        "devices": jax.device_count(),
        "processes": jax.process_count(),
        "platform": jax.default_backend(),
    }


def read_record(path: Path) -> dict[str, Any]:
    """Return the record of a checkpoint.

    Raises
    ------
    CorruptCheckpointError
        If it cannot be read.
    MismatchError
        If it was written by a newer version of medjax.
    """
    try:
        record = read_json(path / RECORD)
        written_in = int(record["format"])
        if written_in <= FORMAT:
            _check_fields(record)
    except UNREADABLE as error:
        msg = f"{path} has no readable {RECORD} ({type(error).__name__}: {error})"
        raise CorruptCheckpointError(msg) from error
    if written_in > FORMAT:
        msg = (
            f"{path} has format {written_in}, but this version of medjax reads up to {FORMAT}; "
            "install a newer version"
        )
        raise MismatchError(msg)
    return dict(record)


def _check_fields(record: dict[str, Any]) -> None:
    for name, kind in _FIELDS.items():
        if not isinstance(record[name], kind):
            raise TypeError(f"{name} is {record[name]!r:.60}")
    if not 0 <= record["serial"] < _SERIALS:
        raise ValueError(f"serial is {record['serial']}")
    for name, leaf in record["spec"].items():
        if not _is_leaf(leaf):
            raise TypeError(f"the leaf {name} is {leaf!r:.60}")
    record["metric"] = None if record["metric"] is None else float(record["metric"])


def _is_leaf(leaf: Any) -> bool:
    """Return whether `leaf` is a shape and a dtype, as in `TreeSpec`."""
    match leaf:
        case [list(shape), str()]:
            return all(isinstance(size, int) for size in shape)
    return False


def named(folder: Path) -> Iterator[Path]:
    """Yield the subfolders that are named like a checkpoint, intact or not."""
    for path in folder.iterdir():
        if is_name(path.name) and path.is_dir() and not path.is_symlink():
            yield path


def is_name(name: str) -> bool:
    """Return whether `name` is the name of a checkpoint.

    Examples
    --------
    >>> is_name("checkpoint_003_20260131T120000Z"), is_name("checkpoint_003")
    (True, False)
    """
    return _NAME.fullmatch(name) is not None


def list_entries(folder: Path, metric: str | None = None) -> list[CheckpointEntry]:
    """Return the checkpoints in a folder that have a readable record, of whatever run.

    They are in the order they were saved; a copy comes after its original.

    Parameters
    ----------
    folder : Path
        Output folder.
    metric : str, optional
        Name of the metric to compare them by; by default the one each was saved with. The value of
        a different metric is taken from the evaluation stored in the checkpoint.
    """
    entries = []
    for path in named(folder):
        try:
            record = read_record(path)
        except (CorruptCheckpointError, MismatchError):
            continue
        value = _value_of(record, metric)
        other = value is None and record["metric"] is not None
        copied = record.get("name", path.name) != path.name
        entry = CheckpointEntry(record["serial"], path, record["run"], value, other, copied)
        entries.append(entry._replace(evaluated_on=_evaluated_on(record)))
    return sorted(entries, key=lambda entry: (entry.serial, entry.copied, entry.path))


def _value_of(record: dict[str, Any], metric: str | None) -> float | None:
    """Return the value of a metric in the evaluation that preceded a checkpoint."""
    saved: float | None = record["metric"]
    if saved is None or metric is None or record.get("metric_name", metric) == metric:
        return saved
    try:
        return float(record["progress"]["history"][-1]["eval"][metric])
    except UNREADABLE:
        return None


def _evaluated_on(record: dict[str, Any]) -> tuple[Any, Any]:
    """Return `CheckpointEntry.evaluated_on`; checkpoints of older versions do not tell."""
    data = record["progress"].get("data")
    known = data if isinstance(data, dict) else {}
    return known.get(EVAL_SINCE, 0), known.get(EVAL_ITEMS)


def newest_first(folder: Path) -> list[Path]:
    """Return the checkpoint folders, intact or not; those without a readable record come first."""
    places = {entry.path: (entry.serial, not entry.copied) for entry in list_entries(folder)}
    unreadable = (_NO_RECORD, True)
    return sorted(
        named(folder), key=lambda path: (places.get(path, unreadable), path.name), reverse=True
    )


def best_checkpoint(output_dir: str | Path) -> Path | None:
    """Return the best checkpoint of the run that last saved to `output_dir`, or None.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as output_dir:
    ...     print(best_checkpoint(output_dir))
    None
    """
    folder = Path(output_dir)
    newest = retention.last(list_entries(folder))
    if newest is None:
        return None
    record = read_record(newest.path)
    minimize, metric = bool(record.get("minimize", True)), record.get("metric_name")
    entries = [e for e in list_entries(folder, metric) if e.run == newest.run]
    best = retention.best(retention.comparable(entries), minimize=minimize)
    return best and best.path


def last_checkpoint(output_dir: str | Path) -> Path | None:
    """Return the checkpoint that was saved last to `output_dir`, or None.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as output_dir:
    ...     print(last_checkpoint(output_dir))
    None
    """
    newest = retention.last(list_entries(Path(output_dir)))
    return newest and newest.path
