"""Adapter: the matrices of a LoRA, read and written in the format of PEFT."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from medjax.models.config import EncoderConfig
from medjax.models.families import TensorName, family_of
from medjax.models.files import read_json
from medjax.models.tasks import TEXT_CLASSIFICATION, Task

__all__ = ["Adapter"]

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_ROOT = "base_model.model."
_MATRICES = {"a": "lora_A.weight", "b": "lora_B.weight"}

_CLASSES = "classes.json"
"""File that medjax adds, as PEFT's have no names of classes."""

_PLAIN_STARTS = (None, True, False, "gaussian", "eva", "orthogonal")
"""Values of init_lora_weights for which PEFT leaves the weights of the base model as they are."""


class Adapter(NamedTuple):
    """What a LoRA trains.

    Attributes
    ----------
    rank : int
        Rank of the changes.
    alpha : float
        Their scale, times the rank.
    matrices : mapping
        Arrays by the path of a module and ``"a"``, shape (inputs, rank), or ``"b"``, shape (rank,
        outputs).
    trained : mapping
        Parameters that were trained as a whole, by their path.
    classes : tuple of str, optional
        Names of the classes of the head, in the order of the logits; None if they are not known.
    """

    rank: int
    alpha: float
    matrices: Mapping[tuple[str, ...], Any]
    trained: Mapping[tuple[str, ...], Any]
    classes: tuple[str, ...] | None = None

    def write(self, folder: Path | str, config: EncoderConfig, task: Task, base: str = "") -> None:
        """Write a folder that ``PeftModel.from_pretrained`` adds to the base model.

        The names of the classes are in ``classes.json`` there, which PEFT does not read.
        With several processes, process 0 writes it.

        Parameters
        ----------
        folder : Path or str
            Where to write it; created if it does not exist.
        config : EncoderConfig
            Configuration of the base model.
        task : Task
            `TOKEN_CLASSIFICATION` or `TEXT_CLASSIFICATION`.
        base : str
            Folder or name of the base model, for PEFT.

        Raises
        ------
        ValueError
            If parameters outside of the head were trained as a whole.
        """
        head = {tensor.path for tensor in task.head_tensors(config)}
        if others := sorted("/".join(path) for path in self.trained.keys() - head):
            msg = (
                f"{others[0]} was trained as a whole, which this format has for heads only; write "
                "the merged model with the component's save"
            )
            raise ValueError(msg)
        if jax.process_index():
            return
        names = _modules(config, task)
        tensors = {}
        for (*module, which), values in self.matrices.items():
            name = f"{_ROOT}{names[tuple(module)]}.{_MATRICES[which]}"
            tensors[name] = np.ascontiguousarray(np.asarray(values, np.float32).T)
        whole = _trained_names(config, task)
        for path, values in self.trained.items():
            name, transposed = whole[path]
            values = np.asarray(values, np.float32)
            tensors[_ROOT + name] = np.ascontiguousarray(values.T if transposed else values)
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, folder / _WEIGHTS, metadata={"format": "pt"})
        content = {
            "peft_type": "LORA",
            "task_type": "SEQ_CLS" if task is TEXT_CLASSIFICATION else "TOKEN_CLS",
            "base_model_name_or_path": base,
            "r": self.rank,
            "lora_alpha": self.alpha,
            "lora_dropout": 0.0,
            "bias": "none",
            "target_modules": sorted({names[path[:-1]] for path in self.matrices}),
            "modules_to_save": sorted({_saved_module(whole[path][0]) for path in self.trained}),
            "inference_mode": True,
        }
        text = json.dumps(content, indent=2, sort_keys=True)
        (folder / _CONFIG).write_text(text + "\n", encoding="utf-8")
        (folder / _CLASSES).unlink(missing_ok=True)
        if self.classes is not None:
            names_of_classes = json.dumps({"classes": self.classes}, indent=2, ensure_ascii=False)
            (folder / _CLASSES).write_text(names_of_classes + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path | str, config: EncoderConfig, task: Task) -> Self:
        """Read a folder that PEFT or `write` has written.

        Parameters
        ----------
        folder : Path or str
            The folder.
        config, task
            As for `write`.

        Raises
        ------
        ValueError
            If it is no LoRA for such a model, or of a kind that is not plain: with biases, a rank
            of its own for some modules, rank-stabilised or weight-decomposed, or with a start that
            takes part of the weights of the base model, such as PiSSA.
        """
        folder = Path(folder)
        content = read_json(folder / _CONFIG)
        plain = {"peft_type": "LORA", "bias": "none", "fan_in_fan_out": False}
        plain |= {"use_rslora": False, "use_dora": False, "rank_pattern": {}, "alpha_pattern": {}}
        for name, expected in plain.items():
            if (content.get(name) or expected) != expected:
                msg = f"{folder / _CONFIG}: {name} is {content[name]!r}; expected {expected!r}"
                raise ValueError(msg)
        start = content.get("init_lora_weights")
        if start not in _PLAIN_STARTS:
            msg = (
                f"{folder / _CONFIG}: init_lora_weights is {start!r}, for which PEFT changes the "
                "weights of the base model, too; expected true, 'gaussian', 'eva' or 'orthogonal': "
                "save it as a plain LoRA with PEFT's save_pretrained(..., "
                "path_initial_model_for_weight_conversion=...)"
            )
            raise ValueError(msg)
        try:
            tensors = load_file(folder / _WEIGHTS)
        except (SafetensorError, FileNotFoundError) as error:
            msg = f"cannot read {folder / _WEIGHTS} ({error}); copy the adapter again"
            raise ValueError(msg) from error
        known: dict[str, tuple[str, tuple[str, ...], bool]] = {}
        for module, name in _modules(config, task).items():
            for which, suffix in _MATRICES.items():
                known[f"{name}.{suffix}"] = ("matrices", (*module, which), True)
        for path, (name, transposed) in _trained_names(config, task).items():
            known[name] = ("trained", path, transposed)
        found: dict[str, dict[tuple[str, ...], Any]] = {"matrices": {}, "trained": {}}
        for stored, values in tensors.items():
            name = stored.removeprefix(_ROOT)
            if name not in known:
                msg = f"{folder / _WEIGHTS} has {stored!r}, which a {config.model_type} has not"
                raise ValueError(msg)
            kind, path, transposed = known[name]
            array = np.asarray(values, np.float32)
            found[kind][path] = np.ascontiguousarray(array.T if transposed else array)
        sizes = int(content["r"]), float(content["lora_alpha"])
        return cls(*sizes, found["matrices"], found["trained"], _read_classes(folder))


def _read_classes(folder: Path) -> tuple[str, ...] | None:
    """Return the names of the classes that `Adapter.write` wrote; None if it did not."""
    file = folder / _CLASSES
    if not file.is_file():
        return None
    names = read_json(file).get("classes")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        msg = f"{file}: classes is {names!r:.80}; expected a list of names: copy the adapter again"
        raise ValueError(msg)
    return tuple(names)


def _full_name(tensor: TensorName, config: EncoderConfig) -> str:
    prefix = family_of(config).prefix
    return f"{prefix}.{tensor.name}" if tensor.is_of_encoder else tensor.name


def _modules(config: EncoderConfig, task: Task) -> dict[tuple[str, ...], str]:
    """Return the names of the modules with a matrix, by path."""
    return {
        tensor.path[:-1]: _full_name(tensor, config).removesuffix(".weight")
        for tensor in family_of(config).tensors(config) + task.head_tensors(config)
        if tensor.path[-1] == "kernel"
    }


def _trained_names(config: EncoderConfig, task: Task) -> dict[tuple[str, ...], tuple[str, bool]]:
    """Return name and transposition of all parameters, by path."""
    return {
        tensor.path: (_full_name(tensor, config), tensor.transposed)
        for tensor in family_of(config).tensors(config) + task.head_tensors(config)
    }


def _saved_module(name: str) -> str:
    """Return the module that PEFT saves as a whole for the parameter called `name`."""
    parts = name.split(".")
    return parts[-3] if parts[-2] in ("dense", "norm", "out_proj") else parts[-2]
