"""Weights of a checkpoint folder: safetensors, whole or in shards, never pickles."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from medjax.models.conversion import convert
from medjax.models.families import FAMILIES, TensorName
from medjax.models.files import check_downloaded, check_ordinary, read_json

WEIGHTS_FILE = "model.safetensors"
SHARD_INDEX_FILE = "model.safetensors.index.json"

_ADAPTER = "adapter_model.safetensors"
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
    check_ordinary(folder)
    if (folder / WEIGHTS_FILE).is_file():
        return [folder / WEIGHTS_FILE]
    if (folder / SHARD_INDEX_FILE).is_file():
        return _shards(folder)
    if (folder / _ADAPTER).is_file():
        msg = (
            f"{folder} holds {_ADAPTER}, an adapter and no model; expected {WEIGHTS_FILE}: merge "
            "the adapter into its model with peft (merge_and_unload) and save the result"
        )
        raise ValueError(msg)
    if pickles := files_like(folder, _PICKLES):
        for path in pickles:
            check_downloaded(path)
        msg = f"{folder} holds {_names(pickles)} and no {WEIGHTS_FILE}. {convert(folder, folder)}"
        raise ValueError(msg)
    if others := files_like(folder, _OTHERS):
        msg = (
            f"{folder} holds {_names(others)}, weights of another framework; expected "
            f"{WEIGHTS_FILE}: take a checkpoint that has it, or write one with the program that "
            "made these"
        )
        raise ValueError(msg)
    found = _names(files_like(folder, ("*.safetensors",)))
    msg = (
        f"no {WEIGHTS_FILE} in {folder}{found and ', only ' + found}; expected the folder of a "
        "Hugging Face checkpoint"
    )
    raise ValueError(msg)


def files_like(folder: Path, patterns: Sequence[str] = _PICKLES) -> list[Path]:
    """Return the files of a folder that match patterns, by default pickled weights."""
    return sorted(path for pattern in patterns for path in folder.glob(pattern))


def _names(files: Sequence[Path]) -> str:
    return ", ".join(path.name for path in files)


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

    def __init__(
        self, files: Mapping[str, tuple[Any, str]], twice: Mapping[str, str], folder: Path
    ) -> None:
        self._files = files
        self._twice = twice  # stored name of a second tensor, where a plain name has two
        self._folder = folder

    @classmethod
    @contextlib.contextmanager
    def open(cls, folder: Path) -> Iterator[StoredTensors]:
        """Open the weights of a folder."""
        files: dict[str, tuple[Any, str]] = {}
        twice: dict[str, str] = {}
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
                    plain_name = _plain_name(name)
                    if plain_name in files:
                        twice[plain_name] = name
                    else:
                        files[plain_name] = (opened, name)
            yield cls(files, twice, folder)

    def shape_of(self, name: str) -> tuple[int, ...] | None:
        """Return the stored shape of a tensor, None if there is no such tensor."""
        if name not in self._files:
            return None
        opened, stored_name = self._files[name]
        return tuple(opened.get_slice(stored_name).get_shape())

    def nb_layers(self, layers: str) -> int:
        """Return how many layers are stored, whose tensors begin with ``<layers>.<number>.``."""
        names = [n.removeprefix(f"{layers}.") for n in self._files if n.startswith(f"{layers}.")]
        return len({name.partition(".")[0] for name in names})

    def check(self, tensor: TensorName, shape: tuple[int, ...]) -> None:
        """Refuse a tensor that is not there once, not of floats, or not of Flax's `shape`."""
        expected = list(reversed(shape)) if tensor.transposed else list(shape)
        if tensor.name not in self._files:
            msg = f"the checkpoint {self._folder} lacks tensor {tensor.name!r} of shape {expected}"
            raise ValueError(msg)
        opened, stored_name = self._files[tensor.name]
        if tensor.name in self._twice:
            msg = (
                f"the checkpoint {self._folder} has two tensors for {tensor.name!r}: "
                f"{stored_name!r} and {self._twice[tensor.name]!r}; expected one: save the model "
                "that you mean by itself"
            )
            raise ValueError(msg)
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
