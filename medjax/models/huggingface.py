"""Hugging Face checkpoint folders: config.json and safetensors weights, read and written.

Weights come from `model.safetensors`, whole or in shards. Pickled weights (`pytorch_model.bin`)
are never loaded: unpickling a file runs whatever code it holds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from medjax.models.config import EncoderConfig
from medjax.models.config_json import read_json, read_labels, write_config
from medjax.models.families import FAMILIES, TensorName, classifier_tensors, encoder_tensors
from medjax.models.heads import TokenClassifier

WEIGHTS_FILE = "model.safetensors"
SHARD_INDEX_FILE = "model.safetensors.index.json"

_FLOAT_DTYPES = frozenset({"F64", "F32", "F16", "BF16"})


def _weight_files(folder: Path) -> list[Path]:
    if (folder / WEIGHTS_FILE).is_file():
        return [folder / WEIGHTS_FILE]
    if (folder / SHARD_INDEX_FILE).is_file():
        weight_map = read_json(folder / SHARD_INDEX_FILE)["weight_map"]
        return [folder / name for name in sorted(set(weight_map.values()))]
    if list(folder.glob("pytorch_model*.bin")):
        msg = (
            f"{folder} holds pickled weights (pytorch_model.bin) and no {WEIGHTS_FILE}. Pickles "
            "are never loaded; convert the folder once, where you trust it, with transformers: "
            f"AutoModel.from_pretrained({str(folder)!r}).save_pretrained(new_folder)"
        )
        raise ValueError(msg)
    msg = f"no {WEIGHTS_FILE} in {folder}; expected the folder of a Hugging Face checkpoint"
    raise ValueError(msg)


def _plain_name(name: str) -> str:
    """Strip a task model's prefix, and give LayerNorm's parameters their present-day names."""
    for prefix in {family.prefix for family in FAMILIES.values()}:
        name = name.removeprefix(f"{prefix}.")
    name = name.replace("LayerNorm.gamma", "LayerNorm.weight")
    return name.replace("LayerNorm.beta", "LayerNorm.bias")


class _StoredTensors:
    """The tensors of a checkpoint, by plain name, read one at a time."""

    def __init__(self, files: Mapping[str, tuple[Any, str]], folder: Path) -> None:
        self._files = files
        self._folder = folder

    @classmethod
    @contextlib.contextmanager
    def open(cls, folder: Path) -> Iterator[_StoredTensors]:
        files: dict[str, tuple[Any, str]] = {}
        with contextlib.ExitStack() as stack:
            for path in _weight_files(folder):
                try:
                    # numpy knows bfloat16 because JAX imports ml_dtypes.
                    opened = stack.enter_context(safe_open(path, framework="np"))
                except (SafetensorError, FileNotFoundError) as error:
                    msg = f"cannot read {path} ({error}); download or copy the checkpoint again"
                    raise ValueError(msg) from error
                for name in opened.keys():  # noqa: SIM118, as it is no mapping
                    files[_plain_name(name)] = (opened, name)
            yield cls(files, folder)

    def read(self, tensor: TensorName, shape: tuple[int, ...]) -> np.ndarray:
        """Return a tensor as float32 of the Flax shape `shape`."""
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
        values = opened.get_tensor(stored_name)
        values = values.T if tensor.transposed else values
        return np.ascontiguousarray(values, dtype=np.float32)


def _parameter_shapes(config: EncoderConfig, num_labels: int) -> dict[Any, tuple[int, ...]]:
    """Return the shape of every parameter of a `TokenClassifier`, by path."""
    tokens = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    init = TokenClassifier(config, num_labels).init
    variables = jax.eval_shape(
        lambda key, ids: init(key, ids, ids, deterministic=True), jax.random.key(0), tokens
    )
    return {path: leaf.shape for path, leaf in flatten_dict(variables["params"]).items()}


def read_params(folder: Path | str, config: EncoderConfig) -> dict[str, Any]:
    """Read a checkpoint's weights as parameters of `TokenClassifier`.

    Base models and task models are read alike. What the encoder has no use for (pooler,
    language-model head, buffers) is left aside.

    Parameters
    ----------
    folder : Path or str
        Folder of the checkpoint.
    config : EncoderConfig
        Its configuration, from `read_config`.

    Returns
    -------
    dict
        ``{"encoder": ...}``, and ``"classifier"`` too if the checkpoint is a token classifier,
        with the classes of `read_labels`. The leaves are float32 numpy arrays; float16 and
        bfloat16 checkpoints are widened.

    Raises
    ------
    ValueError
        If the weights are missing, pickled or damaged, or a tensor is missing, of another shape
        than `config` makes it, or not of floats.
    """
    folder = Path(folder)
    labels = read_labels(folder)
    tensors = encoder_tensors(config) + (classifier_tensors() if labels else [])
    shapes = _parameter_shapes(config, len(labels or ("any",)))
    with _StoredTensors.open(folder) as stored:
        flat = {tensor.path: stored.read(tensor, shapes[tensor.path]) for tensor in tensors}
    return unflatten_dict(flat)


def write_checkpoint(
    folder: Path | str,
    config: EncoderConfig,
    params: Mapping[str, Any],
    *,
    labels: Sequence[str],
    original_folder: Path | str | None = None,
) -> None:
    """Write a token classifier that `transformers` loads with ``from_pretrained``.

    Parameters
    ----------
    folder : Path or str
        Where to write config.json and model.safetensors; made if it does not exist.
    config : EncoderConfig
        The encoder's configuration.
    params : Mapping
        Parameters of a `TokenClassifier`, arrays of any float dtype; written as float32.
    labels : sequence of str
        Names of the classes, in the order of the logits.
    original_folder : Path or str, optional
        Checkpoint that training started from. What its config.json says beyond `EncoderConfig`
        is kept.

    Raises
    ------
    ValueError
        If a label stands twice, or a parameter is missing or of another shape than `config` and
        `labels` make it.
    """
    if len(set(labels)) != len(labels):
        msg = f"labels are {list(labels)}; expected each name once"
        raise ValueError(msg)
    shapes = _parameter_shapes(config, len(labels))
    flat = flatten_dict(params)
    found = {path: np.shape(leaf) for path, leaf in flat.items()}
    for path in sorted(shapes.keys() | found.keys()):
        if found.get(path) != shapes.get(path):
            msg = (
                f"parameter {'/'.join(path)} has shape {found.get(path)}; the configuration and "
                f"{len(labels)} labels make it {shapes.get(path)}"
            )
            raise ValueError(msg)

    prefix = FAMILIES[config.model_type].prefix
    tensors = {}
    for tensor in encoder_tensors(config) + classifier_tensors():
        values = np.asarray(flat[tensor.path], dtype=np.float32)
        name = tensor.name if tensor.path[0] == "classifier" else f"{prefix}.{tensor.name}"
        tensors[name] = np.ascontiguousarray(values.T if tensor.transposed else values)

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # transformers refuses a file that does not say which framework's layout it has.
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    write_config(folder, config, labels, original_folder)
