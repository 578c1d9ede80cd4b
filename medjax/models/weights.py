"""Weights of a checkpoint folder: safetensors, whole or in shards, never pickles."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from medjax.models.families import FAMILIES, TensorName
from medjax.models.files import check_downloaded, read_json

WEIGHTS_FILE = "model.safetensors"
SHARD_INDEX_FILE = "model.safetensors.index.json"

_PICKLES = ("pytorch_model*.bin",)
_OTHERS = ("tf_model*.h5", "flax_model*.msgpack", "*.onnx", "*.gguf", "*.ckpt*")

_FLOAT_DTYPES = frozenset({"F64", "F32", "F16", "BF16"})


def weight_files(folder: Path) -> list[Path]:
    """Return the files that hold a checkpoint's weights.

    Raises
    ------
    ValueError
        If there are none, an index cannot be used, or the weights are of another format.
    """
    if (folder / WEIGHTS_FILE).is_file():
        return [folder / WEIGHTS_FILE]
    if (folder / SHARD_INDEX_FILE).is_file():
        return _shards(folder)
    if pickles := _named(folder, _PICKLES):
        raise ValueError(f"{folder} holds {pickles} and no {WEIGHTS_FILE}. {convert(folder)}")
    if others := _named(folder, _OTHERS):
        msg = (
            f"{folder} holds {others}, weights of another framework; expected {WEIGHTS_FILE}: take "
            "a checkpoint that has it, or write one with the program that made these"
        )
        raise ValueError(msg)
    msg = f"no {WEIGHTS_FILE} in {folder}; expected the folder of a Hugging Face checkpoint"
    raise ValueError(msg)


def _named(folder: Path, patterns: Sequence[str]) -> str:
    return ", ".join(sorted(path.name for p in patterns for path in folder.glob(p)))


def convert(source: Path | str, architecture: str | None = None) -> str:
    """Return how to turn a checkpoint without safetensors into one that has them."""
    name = architecture or _architecture(source) or "AutoModel"
    return (
        "Pickles are never loaded; convert the checkpoint once, where you trust it, with head and "
        "tokenizer, and give the new folder:\n"
        f"    from transformers import AutoTokenizer, {name}\n"
        f"    {name}.from_pretrained({str(source)!r}).save_pretrained('converted')\n"
        f"    AutoTokenizer.from_pretrained({str(source)!r}).save_pretrained('converted')"
    )


def _architecture(source: Path | str) -> str | None:
    """Return the class that a checkpoint's configuration names, if that can be read."""
    try:
        named = read_json(Path(source) / "config.json").get("architectures") or [None]
    except ValueError:
        return None
    return named[0] if isinstance(named[0], str) and named[0].isidentifier() else None


def _shards(folder: Path) -> list[Path]:
    file = folder / SHARD_INDEX_FILE
    weight_map = read_json(file).get("weight_map")
    if (
        not isinstance(weight_map, dict)
        or not weight_map
        or not all(isinstance(name, str) for name in weight_map.values())
    ):
        msg = (
            f"{file}: weight_map is {weight_map!r:.80}; expected tensor names and the files that "
            "hold them: copy the index of the checkpoint again"
        )
        raise ValueError(msg)
    names = sorted(set(weight_map.values()))
    for name in names:
        if PurePosixPath(name).name != name or "\\" in name:
            msg = f"{file}: weight_map names the file {name!r}; expected one in the same folder"
            raise ValueError(msg)
        if not (folder / name).is_file():
            msg = f"{file}: weight_map names {name}, which is not there; copy the missing file"
            raise ValueError(msg)
    return [folder / name for name in names]


def _plain_name(name: str) -> str:
    """Strip a task model's prefix, and give LayerNorm's parameters their present-day names."""
    for prefix in {family.prefix for family in FAMILIES.values()}:
        name = name.removeprefix(f"{prefix}.")
    name = name.replace("LayerNorm.gamma", "LayerNorm.weight")
    return name.replace("LayerNorm.beta", "LayerNorm.bias")


class StoredTensors:
    """The tensors of a checkpoint, by plain name, read one at a time."""

    def __init__(self, files: Mapping[str, tuple[Any, str]], folder: Path) -> None:
        self._files = files
        self._folder = folder

    @classmethod
    @contextlib.contextmanager
    def open(cls, folder: Path) -> Iterator[StoredTensors]:
        """Open the weights of a folder."""
        files: dict[str, tuple[Any, str]] = {}
        with contextlib.ExitStack() as stack:
            for path in weight_files(folder):
                check_downloaded(path)
                try:
                    # numpy knows bfloat16 because JAX imports ml_dtypes.
                    opened = stack.enter_context(safe_open(path, framework="np"))
                except (SafetensorError, FileNotFoundError) as error:
                    msg = f"cannot read {path} ({error}); download or copy the checkpoint again"
                    raise ValueError(msg) from error
                for name in opened.keys():  # noqa: SIM118, as it is no mapping
                    files[_plain_name(name)] = (opened, name)
            yield cls(files, folder)

    def shape_of(self, name: str) -> tuple[int, ...] | None:
        """Return the stored shape of a tensor, None if there is no such tensor."""
        if name not in self._files:
            return None
        opened, stored_name = self._files[name]
        return tuple(opened.get_slice(stored_name).get_shape())

    def check(self, tensor: TensorName, shape: tuple[int, ...]) -> None:
        """Refuse a tensor that is not there, not of floats, or not of the Flax shape `shape`."""
        expected = list(reversed(shape)) if tensor.transposed else list(shape)
        if tensor.name not in self._files:
            msg = f"the checkpoint {self._folder} lacks tensor {tensor.name!r} of shape {expected}"
            raise ValueError(msg)
        opened, stored_name = self._files[tensor.name]
        stored = opened.get_slice(stored_name)
        if stored.get_shape() != expected:
            msg = (
                f"tensor {stored_name!r} of {self._folder} has shape {stored.get_shape()}; "
                f"its config.json makes it {expected}"
            )
            raise ValueError(msg)
        if stored.get_dtype() not in _FLOAT_DTYPES:
            msg = (
                f"tensor {stored_name!r} of {self._folder} is {stored.get_dtype()}; expected one "
                f"of {', '.join(sorted(_FLOAT_DTYPES))}: use the unquantised checkpoint"
            )
            raise ValueError(msg)

    def read(self, tensor: TensorName, shape: tuple[int, ...]) -> np.ndarray:
        """Return a tensor as float32 of the Flax shape `shape`."""
        self.check(tensor, shape)
        opened, stored_name = self._files[tensor.name]
        values = opened.get_tensor(stored_name)
        values = values.T if tensor.transposed else values
        return np.ascontiguousarray(values, dtype=np.float32)
