"""Read the weights of a checkpoint folder from safetensors, in one file or in shards."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from medjax.models.conversion import conversion_advice
from medjax.models.families import FAMILIES, TensorName
from medjax.models.files import check_downloaded, check_ordinary, read_json

__all__ = ["SHARD_INDEX_FILE", "WEIGHTS_FILE", "StoredTensors", "files_like", "weight_files"]

WEIGHTS_FILE = "model.safetensors"
SHARD_INDEX_FILE = "model.safetensors.index.json"

_ADAPTER = "adapter_model.safetensors"
_PICKLES = ("pytorch_model*.bin",)
_OTHERS = ("tf_model*.h5", "flax_model*.msgpack", "*.onnx", "*.gguf", "*.ckpt*")

_FLOAT_DTYPES = frozenset({"F64", "F32", "F16", "BF16"})


def weight_files(folder: Path) -> list[Path]:
    """Return the files with a checkpoint's weights.

    Raises
    ------
    ValueError
        If there are none, the index of the shards is invalid, or the weights are in another format.
    """
    check_ordinary(folder)
    if (folder / WEIGHTS_FILE).is_file():
        return [folder / WEIGHTS_FILE]
    if (folder / SHARD_INDEX_FILE).is_file():
        return _shards(folder)
    if (folder / _ADAPTER).is_file():
        msg = (
            f"{folder} contains {_ADAPTER}, an adapter without its model; expected {WEIGHTS_FILE}: "
            "merge the adapter into its model with peft (merge_and_unload) and save the result"
        )
        raise ValueError(msg)
    if pickles := files_like(folder, _PICKLES):
        for path in pickles:
            check_downloaded(path)
        msg = (
            f"{folder} contains {_names(pickles)} and no {WEIGHTS_FILE}. "
            f"{conversion_advice(folder, folder)}"
        )
        raise ValueError(msg)
    if others := files_like(folder, _OTHERS):
        msg = (
            f"{folder} contains {_names(others)}, weights of another framework; expected "
            f"{WEIGHTS_FILE}: use a checkpoint that has it, or write one with the program that "
            "made these"
        )
        raise ValueError(msg)
    similar = _names(files_like(folder, ("*.safetensors",)))
    msg = (
        f"no {WEIGHTS_FILE} in {folder}{similar and ', only ' + similar}; expected the folder of a "
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
            "contain them: copy the index of the checkpoint again"
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
    """Strip the prefix of a task model, and replace old names of LayerNorm's parameters."""
    for prefix in {family.prefix for family in FAMILIES.values()}:
        name = name.removeprefix(f"{prefix}.")
    name = name.replace("LayerNorm.gamma", "LayerNorm.weight")
    return name.replace("LayerNorm.beta", "LayerNorm.bias")


class StoredTensors:
    """The tensors of a checkpoint by plain name, that is, without prefix; read one at a time."""

    def __init__(
        self, files: Mapping[str, tuple[Any, str]], duplicates: Mapping[str, str], folder: Path
    ) -> None:
        self._files = files
        self._duplicates = duplicates  # plain names of several tensors; stored name of the last
        self._folder = folder

    @classmethod
    @contextlib.contextmanager
    def open(cls, folder: Path) -> Iterator[StoredTensors]:
        """Open the weights of a folder, and close them at the end of a ``with`` statement."""
        files: dict[str, tuple[Any, str]] = {}
        duplicates: dict[str, str] = {}
        with contextlib.ExitStack() as stack:
            for path in weight_files(folder):
                check_downloaded(path)
                try:
                    # numpy supports bfloat16 because JAX imports ml_dtypes.
                    opened = stack.enter_context(safe_open(path, framework="np"))
                except (SafetensorError, FileNotFoundError) as error:
                    msg = f"cannot read {path} ({error}); download or copy the checkpoint again"
                    raise ValueError(msg) from error
                for name in opened.keys():  # noqa: SIM118, as it is not a mapping
                    plain_name = _plain_name(name)
                    if plain_name in files:
                        duplicates[plain_name] = name
                    else:
                        files[plain_name] = (opened, name)
            yield cls(files, duplicates, folder)

    def shape_of(self, name: str) -> tuple[int, ...] | None:
        """Return the stored shape of a tensor, or None if there is no such tensor."""
        if name not in self._files:
            return None
        opened, stored_name = self._files[name]
        return tuple(opened.get_slice(stored_name).get_shape())

    def nb_layers(self, layers: str) -> int:
        """Return the number of stored layers; their tensors begin with ``<layers>.<number>.``."""
        names = [n.removeprefix(f"{layers}.") for n in self._files if n.startswith(f"{layers}.")]
        return len({name.partition(".")[0] for name in names})

    def check(self, tensor: TensorName, shape: tuple[int, ...]) -> None:
        """Raise ValueError unless there is one such tensor, of floats and of the Flax `shape`."""
        expected = list(reversed(shape)) if tensor.transposed else list(shape)
        if tensor.name not in self._files:
            msg = f"the checkpoint {self._folder} lacks tensor {tensor.name!r} of shape {expected}"
            raise ValueError(msg)
        opened, stored_name = self._files[tensor.name]
        if tensor.name in self._duplicates:
            msg = (
                f"the checkpoint {self._folder} has two tensors for {tensor.name!r}: "
                f"{stored_name!r} and {self._duplicates[tensor.name]!r}; expected one: save the "
                "model that you want to use by itself"
            )
            raise ValueError(msg)
        stored = opened.get_slice(stored_name)
        if stored.get_shape() != expected:
            msg = (
                f"tensor {stored_name!r} of {self._folder} has shape {stored.get_shape()}; "
                f"its config.json requires {expected}"
            )
            raise ValueError(msg)
        if stored.get_dtype() not in _FLOAT_DTYPES:
            msg = (
                f"tensor {stored_name!r} of {self._folder} is {stored.get_dtype()}; expected one "
                f"of {', '.join(sorted(_FLOAT_DTYPES))}: use a checkpoint that is not quantised"
            )
            raise ValueError(msg)

    def read(self, tensor: TensorName, shape: tuple[int, ...]) -> np.ndarray:
        """Return the values of a tensor as float32, in the Flax shape `shape`."""
        self.check(tensor, shape)
        opened, stored_name = self._files[tensor.name]
        values = opened.get_tensor(stored_name)
        values = values.T if tensor.transposed else values
        return np.ascontiguousarray(values, dtype=np.float32)
