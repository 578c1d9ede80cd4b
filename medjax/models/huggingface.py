"""Hugging Face checkpoint folders: config.json and safetensors weights, read and written.

Pickled weights (`pytorch_model.bin`) are never loaded: unpickling a file runs whatever code it
holds.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import save_file

from medjax.models.config import EncoderConfig
from medjax.models.config_json import CONFIG_FILE, class_names, write_config
from medjax.models.families import FAMILIES, TensorName, classifier_tensors, encoder_tensors
from medjax.models.files import read_json
from medjax.models.heads import TokenClassifier
from medjax.models.weights import WEIGHTS_FILE, StoredTensors


def _parameter_shapes(config: EncoderConfig, num_labels: int) -> dict[Any, tuple[int, ...]]:
    """Return the shape of every parameter of a `TokenClassifier`, by path."""
    tokens = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    init = TokenClassifier(config, num_labels).init
    variables = jax.eval_shape(
        lambda key, ids: init(key, ids, ids, deterministic=True), jax.random.key(0), tokens
    )
    return {path: leaf.shape for path, leaf in flatten_dict(variables["params"]).items()}


def read_labels(folder: Path | str) -> tuple[str, ...] | None:
    """Read the class names of a token classifier, in the order of its logits.

    A token classifier is told by its weights: a linear ``classifier`` on the hidden states and
    nothing between. Classifiers of whole texts have one as well, with a pooler before it, which
    old token classifiers kept too; there ``architectures`` decides, and where it names no
    classifier, whether the classes read as tags.

    Parameters
    ----------
    folder : Path or str
        Folder of the checkpoint.

    Returns
    -------
    tuple of str or None
        The names; None if the checkpoint is not a token classifier, in which case `read_params`
        returns no head either.

    Raises
    ------
    ValueError
        If config.json or the weights cannot be read, or ``id2label`` does not number the classes
        of the weights from 0.
    """
    file = Path(folder) / CONFIG_FILE
    content = read_json(file)
    with StoredTensors.open(Path(folder)) as stored:
        shape = stored.shape_of("classifier.weight")
        has_bias = stored.shape_of("classifier.bias") is not None
        embeddings = stored.shape_of("embeddings.word_embeddings.weight")
        has_pooler = stored.shape_of("pooler.dense.weight") is not None
        is_deeper = stored.shape_of("pre_classifier.weight") is not None
    if shape is None or len(shape) != 2 or is_deeper or not has_bias:
        return None
    if embeddings is not None and shape[1:] != embeddings[1:]:
        return None  # it takes something else than the hidden state of a token
    if has_pooler and not _says_token_classifier(content):
        return None
    return class_names(content, file, shape[0])


_TEXT_TASKS = ("SequenceClassification", "MultipleChoice", "NextSentencePrediction")
_TAG = re.compile(r"O|[BIESLU][-_].+", re.IGNORECASE)


def _says_token_classifier(content: Mapping[str, Any]) -> bool:
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


def check_params(folder: Path | str, config: EncoderConfig) -> None:
    """Refuse weights that `read_params` cannot read, without reading them.

    Raises
    ------
    ValueError
        As `read_params`.
    """
    labels = read_labels(folder)
    with StoredTensors.open(Path(folder)) as stored:
        _check_sizes(stored, config, folder)
        shapes = _parameter_shapes(config, len(labels or ("any",)))
        for tensor in _tensors(config, labels):
            stored.check(tensor, shapes[tensor.path])


def _check_sizes(stored: StoredTensors, config: EncoderConfig, folder: Path | str) -> None:
    """Refuse sizes that the weights do not have, before anything is made of these sizes."""
    found = stored.nb_layers(FAMILIES[config.model_type].layers)
    if config.num_hidden_layers > found:
        msg = (
            f"{Path(folder) / CONFIG_FILE}: num_hidden_layers is {config.num_hidden_layers:,}; the "
            f"weights have {found} layers: take config.json and weights from one checkpoint"
        )
        raise ValueError(msg)
    rows = {
        "word_embeddings": (config.vocab_size, config.hidden_size),
        "position_embeddings": (config.max_position_embeddings, config.hidden_size),
        "token_type_embeddings": (config.type_vocab_size, config.hidden_size),
        "intermediate": (config.hidden_size, config.intermediate_size),
    }
    for tensor in encoder_tensors(dataclasses.replace(config, num_hidden_layers=1)):
        if tensor.path[-2] in rows and tensor.path[-1] != "bias":
            stored.check(tensor, rows[tensor.path[-2]])


def _tensors(config: EncoderConfig, labels: tuple[str, ...] | None) -> list[TensorName]:
    return encoder_tensors(config) + (classifier_tensors() if labels else [])


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
    with StoredTensors.open(folder) as stored:
        _check_sizes(stored, config, folder)
        tensors = _tensors(config, labels)
        shapes = _parameter_shapes(config, len(labels or ("any",)))
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
