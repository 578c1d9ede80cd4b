"""Rows with named columns: of Parquet, JSON lines and Hugging Face's datasets."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from medjax.text.readers._files import Texts
from medjax.text.readers._json import parse_json_lines

PARQUET = ".parquet"
JSON_LINES = (".jsonl", ".ndjson", ".json")


class Table(NamedTuple):
    """Rows with named columns.

    Attributes
    ----------
    name : str
        Where the rows come from, for messages.
    rows : iterable of (str, mapping)
        Where each row is, and its cells by the names of the columns.
    features : mapping
        What is known of the columns: the features of Hugging Face's ``datasets``, or their JSON.
    """

    name: str
    rows: Iterable[tuple[str, Mapping[str, Any]]]
    features: Mapping[str, Any]

    def class_names(self, column: str) -> list[str] | None:
        """Return the names that whole numbers in a column, or in its lists, stand for, if any."""
        feature = self.features.get(column)
        while feature is not None:
            names = _part(feature, "names")
            if names is not None:
                return list(names)
            feature = feature[0] if isinstance(feature, list) else _part(feature, "feature")
        return None


def open_table(source: Any, split: str | None, encoding: str) -> Table:
    """Return the rows of a source.

    Parameters
    ----------
    source : path or datasets.Dataset or datasets.DatasetDict
        A ``.parquet`` file, JSON lines, a folder that ``save_to_disk`` has written, or a dataset.
    split : str or None
        Name of the split, where there are several.
    encoding : str
        Encoding of JSON lines.

    Raises
    ------
    ValueError
        If the source is something else or damaged, or there is no such split.
    ImportError
        If it needs a package that is not installed.
    """
    if not isinstance(source, str | os.PathLike):
        return _dataset(source, split, type(source).__name__)
    path = Path(source)
    if path.is_dir():
        return _dataset(_loaded(path), split, str(path))
    if split is not None:
        raise ValueError(f"{path}: found a file, expected a folder of splits for split={split!r}")
    suffix = path.suffix.lower()
    if suffix == PARQUET:
        return read_parquet(path)
    if suffix not in JSON_LINES:
        msg = (
            f"{path}: found the ending {path.suffix!r}, expected "
            f"{', '.join((PARQUET, *JSON_LINES))} or a folder that save_to_disk has written"
        )
        raise ValueError(msg)
    with Texts(encoding) as texts:
        return Table(str(path), _objects(path, texts.read(path)), {})


def is_dataset_folder(folder: Path) -> bool:
    """Return whether a folder was written by ``save_to_disk`` of Hugging Face's ``datasets``."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def _objects(path: Path, text: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for where, row in parse_json_lines(text, path, "objects with named columns"):
        if not isinstance(row, dict):
            raise ValueError(f"{where}: found {row!r:.60}, expected an object with named columns")
        yield where, row


def _loaded(folder: Path) -> Any:
    if not is_dataset_folder(folder):
        msg = (
            f"{folder}: found neither dataset_dict.json nor state.json, expected the folder that "
            "save_to_disk has written; for other folders, pass a file from it"
        )
        raise ValueError(msg)
    try:
        from datasets import load_from_disk
    except ImportError as error:
        msg = (
            f"{folder} is a dataset of Hugging Face, read by datasets, which is not installed; "
            'pip install "medjax[datasets]"'
        )
        raise ImportError(msg) from error
    return load_from_disk(str(folder))


def _dataset(source: Any, split: str | None, name: str) -> Table:
    if isinstance(source, Mapping):
        if split is None and len(source) == 1:
            split = next(iter(source))
        if split not in source:
            msg = f"{name}: found the splits {[*source]}, expected one of them, not split={split!r}"
            raise ValueError(msg)
        return _dataset(source[split], None, f"{name}[{split!r}]")
    features = getattr(source, "features", None)
    if not isinstance(features, Mapping):
        msg = f"{name}: found no columns, expected a path, a datasets.Dataset or a DatasetDict"
        raise ValueError(msg)
    if split is not None:
        msg = (
            f"{name}: found a dataset without splits, expected some for split={split!r}; pass none"
        )
        raise ValueError(msg)
    rows = ((f"{name}, row {number}", row) for number, row in enumerate(source, start=1))
    return Table(name, rows, features)


def read_parquet(path: Path) -> Table:
    """Return the rows of a Parquet file; raise ValueError if it is damaged or needs pyarrow."""
    try:
        from pyarrow import ArrowInvalid, parquet
    except ImportError as error:
        msg = f'{path} is a Parquet file, which needs pyarrow: pip install "medjax[parquet]"'
        raise ValueError(msg) from error
    try:
        table = parquet.read_table(path)
    except ArrowInvalid as error:
        raise ValueError(f"{path}: {error}; expected a Parquet file") from error
    rows = ((f"{path}, row {number}", row) for number, row in enumerate(table.to_pylist(), start=1))
    try:
        features = json.loads((table.schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        features = {}  # not written by datasets
    return Table(str(path), rows, features if isinstance(features, Mapping) else {})


def _part(feature: Any, name: str) -> Any:
    """Return an attribute of a feature, which is an object or its JSON."""
    return feature.get(name) if isinstance(feature, Mapping) else getattr(feature, name, None)


def named(value: Any, names: Sequence[str] | None, where: str, column: str) -> str:
    """Return the name of a class that a cell has as a string or as a whole number.

    Raises
    ------
    ValueError
        If it is neither, or a number without a name, such as -1, which ``datasets`` writes for
        classes that are not known.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int):
        msg = f"{where}: found {value!r:.60} in {column!r}, expected names or whole numbers"
        raise ValueError(msg)
    if names is None:
        msg = (
            f"{where}: found the number {value} in {column!r}, expected a name, as the data have "
            "no names for numbers; pass them in their order, as in tag_names=['O', 'B-Drug']"
        )
        raise ValueError(msg)
    if not 0 <= value < len(names):
        msg = (
            f"{where}: found the number {value} in {column!r}, expected 0 to {len(names) - 1}, the "
            f"classes {[*names]!s:.120}; leave out rows without a class"
        )
        raise ValueError(msg)
    return names[value]
