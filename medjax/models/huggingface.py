"""Read and write Hugging Face checkpoint folders: config.json and safetensors weights.

Pickled weights (`pytorch_model.bin`) are never loaded, as unpickling a file runs any code in it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import save_file

from medjax.models.config import EncoderConfig
from medjax.models.config_json import CONFIG_FILE, class_names, read_config, write_config
from medjax.models.families import TensorName, family_of
from medjax.models.files import read_json
from medjax.models.tasks import TEXT_CLASSIFICATION, TOKEN_CLASSIFICATION, Task
from medjax.models.weights import WEIGHTS_FILE, StoredTensors

__all__ = ["check_params", "read_labels", "read_params", "write_checkpoint"]


def _parameter_shapes(
    config: EncoderConfig, num_labels: int, task: Task = TOKEN_CLASSIFICATION
) -> dict[Any, tuple[int, ...]]:
    """Return the shape of every parameter of a task's model, by path."""
    tokens = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    init = task.model(config, num_labels).init
    variables = jax.eval_shape(
        lambda key, ids: init(key, ids, ids, deterministic=True), jax.random.key(0), tokens
    )
    return {path: leaf.shape for path, leaf in flatten_dict(variables["params"]).items()}


def read_labels(folder: Path | str, task: Task = TOKEN_CLASSIFICATION) -> tuple[str, ...] | None:
    """Read the names of a classifier's classes, in the order of its logits.

    A checkpoint is a token classifier if its weights have the head of one, with a linear
    classifier of vectors of the hidden size. If they also have that of a text classifier, it may be
    either: then ``architectures`` in config.json decides, or, if that names no classifier, whether
    the classes look like tags. It is a text classifier if its weights have the head of one, and it
    is neither a token classifier nor named otherwise in ``architectures``.

    Parameters
    ----------
    folder : Path or str
        Folder of the checkpoint.
    task : Task
        What the classes are of: `TOKEN_CLASSIFICATION` or `TEXT_CLASSIFICATION`.

    Returns
    -------
    tuple of str or None
        The names; None if the checkpoint is not a classifier for the task, in which case
        `read_params` returns no classifier either.

    Raises
    ------
    ValueError
        If config.json or the weights cannot be read, or ``id2label`` does not number the classes
        of the weights from 0.

    Examples
    --------
    >>> import json, tempfile
    >>> config = {"model_type": "bert", "vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1,
    ...     "num_attention_heads": 2, "intermediate_size": 16,
    ...     "id2label": {"0": "O", "1": "I-Sign"}}
    >>> sizes = {"classifier.weight": (2, 8), "classifier.bias": (2,)}
    >>> tensors = {name: np.zeros(shape, np.float32) for name, shape in sizes.items()}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_file(tensors, Path(folder, WEIGHTS_FILE))
    ...     _ = Path(folder, CONFIG_FILE).write_text(json.dumps(config))
    ...     read_labels(folder)
    ('O', 'I-Sign')
    """
    file = Path(folder) / CONFIG_FILE
    content, config = read_json(file), read_config(folder)
    with StoredTensors.open(Path(folder)) as stored:
        shapes = [stored.shape_of(tensor.name) for tensor in task.head_tensors(config)]
        has_other = all(
            stored.shape_of(tensor.name) is not None
            for tensor in TEXT_CLASSIFICATION.head_tensors(config)
        )
    *_, kernel, _ = shapes
    if None in shapes or kernel is None or kernel[1:] != (config.hidden_size,):
        return None
    if task is TEXT_CLASSIFICATION:
        is_for_task = _is_text_classifier(content)
    else:
        is_for_task = not has_other or _is_token_classifier(content)
    return class_names(content, file, kernel[0]) if is_for_task else None


def _is_text_classifier(content: Mapping[str, Any]) -> bool:
    named = content.get("architectures")
    if isinstance(named, list) and named:
        return any(str(name).endswith(f"For{TEXT_CLASSIFICATION.name}") for name in named)
    return not _is_token_classifier(content)


_TEXT_TASKS = ("SequenceClassification", "MultipleChoice", "NextSentencePrediction")
_TAG = re.compile(r"O|[BIESLU][-_].+", re.IGNORECASE)


def _is_token_classifier(content: Mapping[str, Any]) -> bool:
    architectures, id2label = content.get("architectures"), content.get("id2label")
    named = [str(name) for name in architectures] if isinstance(architectures, list) else []
    if any(name.endswith("ForTokenClassification") for name in named):
        return True
    if any(name.endswith(_TEXT_TASKS) for name in named):
        return False
    names = [str(name) for name in id2label.values()] if isinstance(id2label, dict) else []
    return any(name in {"O", "o"} for name in names) or (
        bool(names) and all(_TAG.fullmatch(name) for name in names)
    )


def check_params(
    folder: Path | str, config: EncoderConfig, task: Task = TOKEN_CLASSIFICATION
) -> None:
    """Raise the errors of `read_params` without reading the values of the weights."""
    labels = read_labels(folder, task)
    with StoredTensors.open(Path(folder)) as stored:
        _check_layers(stored, config, folder)
        shapes = _parameter_shapes(config, len(labels or ("any",)), task)
        for tensor in _tensors(stored, config, labels, task):
            stored.check(tensor, shapes[tensor.path])


def _check_layers(stored: StoredTensors, config: EncoderConfig, folder: Path | str) -> None:
    """Raise ValueError if the weights have fewer layers, before as many are traced."""
    nb_layers = stored.nb_layers(family_of(config).layers)
    if config.num_hidden_layers > nb_layers:
        msg = (
            f"{Path(folder) / CONFIG_FILE}: num_hidden_layers is {config.num_hidden_layers:,}; the "
            f"weights have {nb_layers} layers: use config.json and weights from the same checkpoint"
        )
        raise ValueError(msg)


def _tensors(
    stored: StoredTensors, config: EncoderConfig, labels: tuple[str, ...] | None, task: Task
) -> list[TensorName]:
    """Return the tensors to read; without labels, no classifier, and the rest if it is there.

    So does transformers: for instance, ModernBERT's language model has the same head.
    """
    head = task.head_tensors(config)
    if not labels:
        head = [tensor for tensor in head if tensor.path[0] != "classifier"]
        if any(stored.shape_of(tensor.name) is None for tensor in head):
            head = []
    return family_of(config).tensors(config) + head


def read_params(
    folder: Path | str, config: EncoderConfig, task: Task = TOKEN_CLASSIFICATION
) -> dict[str, Any]:
    """Read a checkpoint's weights as parameters of the model for a task.

    The checkpoint may be a base model or a task model. Parts that the encoder does not use (a
    pooler, a language-model head, buffers) are ignored.

    Parameters
    ----------
    folder : Path or str
        Folder of the checkpoint.
    config : EncoderConfig
        Its configuration, from `read_config`.
    task : Task
        `TOKEN_CLASSIFICATION` or `TEXT_CLASSIFICATION`.

    Returns
    -------
    dict
        ``{"encoder": ...}``, with ``"classifier"`` if the checkpoint is a classifier for the task,
        whose classes `read_labels` returns, and with ``"head"`` if it has all or part of one. The
        leaves are float32 numpy arrays; float16 and bfloat16 are converted.

    Raises
    ------
    ValueError
        If the weights are missing, pickled or damaged, or a tensor is missing, has a shape that
        does not match `config`, or does not consist of floats.

    Examples
    --------
    The example of `write_checkpoint` reads the parameters that it has written.
    """
    folder = Path(folder)
    labels = read_labels(folder, task)
    with StoredTensors.open(folder) as stored:
        _check_layers(stored, config, folder)
        tensors = _tensors(stored, config, labels, task)
        shapes = _parameter_shapes(config, len(labels or ("any",)), task)
        flat = {tensor.path: stored.read(tensor, shapes[tensor.path]) for tensor in tensors}
    result: dict[str, Any] = unflatten_dict(flat)
    return result


def write_checkpoint(
    folder: Path | str,
    config: EncoderConfig,
    params: Mapping[str, Any],
    *,
    labels: Sequence[str],
    original_folder: Path | str | None = None,
    task: Task = TOKEN_CLASSIFICATION,
    more: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Write a classifier that `transformers` can load with ``from_pretrained``.

    Parameters
    ----------
    folder : Path or str
        Where to write config.json and model.safetensors; created if it does not exist.
    config : EncoderConfig
        The encoder's configuration.
    params : Mapping
        Parameters of the task's model, arrays of any float dtype; written as float32.
    labels : sequence of str
        Names of the classes, in the order of the logits.
    original_folder : Path or str, optional
        Checkpoint that training started from. Fields of its config.json that `EncoderConfig` does
        not have are copied.
    task : Task
        `TOKEN_CLASSIFICATION` or `TEXT_CLASSIFICATION`.
    more : mapping
        Further fields for config.json.

    Raises
    ------
    ValueError
        If a label occurs twice, or a parameter is missing or has a shape that does not match
        `config` and `labels`.

    Examples
    --------
    >>> import tempfile
    >>> from medjax.models import BertConfig, TokenClassifier
    >>> config = BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1,
    ...     num_attention_heads=2, intermediate_size=16)
    >>> ids = jnp.ones((1, 2), jnp.int32)
    >>> model = TokenClassifier(config, num_labels=3)
    >>> params = model.init(jax.random.key(0), ids, ids, deterministic=True)["params"]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_checkpoint(folder, config, params, labels=("O", "B-Sign", "I-Sign"))
    ...     read_labels(folder), sorted(read_params(folder, read_config(folder)))
    (('O', 'B-Sign', 'I-Sign'), ['classifier', 'encoder'])
    """
    if len(set(labels)) != len(labels):
        msg = f"labels are {list(labels)}; expected each name once"
        raise ValueError(msg)
    shapes = _parameter_shapes(config, len(labels), task)
    flat = flatten_dict(params)
    actual = {path: np.shape(leaf) for path, leaf in flat.items()}
    for path in sorted(shapes.keys() | actual.keys()):
        if actual.get(path) != shapes.get(path):
            msg = (
                f"parameter {'/'.join(path)} has shape {actual.get(path)}; the configuration and "
                f"{len(labels)} labels require {shapes.get(path)}"
            )
            raise ValueError(msg)

    family, tensors = family_of(config), {}
    for tensor in family.tensors(config) + task.head_tensors(config):
        values = np.asarray(flat[tensor.path], dtype=np.float32)
        name = f"{family.prefix}.{tensor.name}" if tensor.is_of_encoder else tensor.name
        tensors[name] = np.ascontiguousarray(values.T if tensor.transposed else values)

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # transformers refuses files without the name of a framework.
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    write_config(folder, config, labels, original_folder, task.name, more)
