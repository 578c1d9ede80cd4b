"""Export a trained component as StableHLO, which runs without medjax: with JAX and numpy alone."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import save_file

from medjax.component import Variables
from medjax.components import ReadyComponent, TextClassification, TokenClassification
from medjax.components.lora import check_merged
from medjax.models.vocabulary import TOKENIZER_FILE
from medjax.target import tracing_for

__all__ = ["PLATFORMS", "export_component"]

PLATFORMS = ("cpu", "cuda", "tpu")
"""Where an exported program runs, by the names of `jax.export`."""

_DESCRIPTION, _WEIGHTS = "export.json", "weights.safetensors"
_INPUTS = ("input_ids", "attention_mask")


def export_component(
    component: ReadyComponent,
    variables: Variables,
    folder: str | os.PathLike[str],
    *,
    platforms: Sequence[str] = PLATFORMS,
    lengths: Sequence[int] | None = None,
) -> None:
    """Write what computes the logits of a component, for processes without medjax.

    The folder gets ``model.stablehlo``, a program of `jax.export` that is called with the weights,
    ``input_ids`` and ``attention_mask`` (int32, any number of rows, any length up to that of a
    window) and returns float32 logits; ``weights.safetensors``; ``export.json`` with the classes
    and shapes; and the tokenizer, which neither truncates nor pads. See docs/predicting.md for how
    to call it. Rows are windows: reading long texts in windows, and entities from tags, is left to
    the caller.

    Parameters
    ----------
    component : TokenClassification, TextClassification or RelationClassification
        The component.
    variables : dict
        Its weights.
    folder : path
        Folder to write to, created if it is missing.
    platforms : sequence of {"cpu", "cuda", "tpu"}
        Where the program is to run.
    lengths : sequence of int, optional
        Export a program for each of these lengths, ``model-LENGTH.stablehlo``, instead of one for
        all, which attends in blocks of tokens wherever rows may be too long for one piece: local
        layers of ModernBERT in blocks of 32 tokens or its `reach`, whichever is more, and other
        layers in blocks of 512 if `max_length` is above that. Short rows are padded to a block
        there, at some cost; the logits of their real tokens are the same up to rounding.

    Raises
    ------
    ValueError
        If a platform or a length is unknown, or the variables are those of a `Lora`, not merged.

    Examples
    --------
    >>> from medjax.components import load_component
    >>> export_component(*load_component("checkpoint"), "exported")  # doctest: +SKIP
    """
    unknown = [name for name in platforms if name not in PLATFORMS]
    if unknown or not platforms:
        raise ValueError(f"platforms are {list(platforms)}; expected some of {list(PLATFORMS)}")
    longest = component.max_length
    if lengths is not None and not all(0 < length <= longest for length in lengths):
        raise ValueError(f"lengths are {list(lengths)}; expected 1 to {longest} for this component")
    check_merged(variables)
    flat = flatten_dict(variables["params"], sep="/")
    weights = {name: np.ascontiguousarray(leaf, np.float32) for name, leaf in flat.items()}
    made = {}
    for length in [None] if lengths is None else lengths:
        name = "model.stablehlo" if length is None else f"model-{length}.stablehlo"
        made[name] = (length, _exported(component, weights, platforms, length).serialize())
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)  # now that nothing is left to fail but the disk
    for name, (_, content) in made.items():
        (folder / name).write_bytes(content)
    programs = [{"file": name, "length": length} for name, (length, _) in made.items()]
    save_file(weights, folder / _WEIGHTS)
    _save_tokenizer(component, folder)
    description = {**_description(component), "platforms": list(platforms), "programs": programs}
    text = json.dumps(description, indent=2, ensure_ascii=False)
    (folder / _DESCRIPTION).write_text(f"{text}\n", encoding="utf-8")


def _save_tokenizer(component: ReadyComponent, folder: Path) -> None:
    """Write the tokenizer as the component uses it.

    The file of the checkpoint may truncate and pad: who opens it would lose the end of long notes,
    and pass padding as text.
    """
    component.tokenizer.save(folder)
    text = component.tokenizer.backend.to_str(pretty=True)
    (folder / TOKENIZER_FILE).write_text(text, encoding="utf-8")


def _logits_of(component: ReadyComponent) -> Callable[..., jax.Array]:
    def logits(weights: dict[str, Any], input_ids: Any, attention_mask: Any) -> jax.Array:
        params = unflatten_dict(weights, sep="/")
        with jax.default_matmul_precision("highest"), tracing_for("cpu"):
            result: Any = component.model.apply(
                {"params": params}, input_ids, attention_mask, deterministic=True
            )
        return jnp.asarray(result, jnp.float32)

    return logits


def _exported(
    component: ReadyComponent,
    weights: dict[str, np.ndarray],
    platforms: Sequence[str],
    length: int | None,
) -> jax.export.Exported:
    size: Any = "length" if length is None else length
    limits = [f"length <= {component.max_length}"] if length is None else []
    shape = jax.export.symbolic_shape(f"batch, {size}", constraints=limits)
    tokens = jax.ShapeDtypeStruct(shape, jnp.int32)
    abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), weights)
    make = jax.export.export(jax.jit(_logits_of(component)), platforms=tuple(platforms))
    return make(abstract, tokens, tokens)


def _description(component: ReadyComponent) -> dict[str, Any]:
    """Return what a caller has to know of a component."""
    is_tagger = isinstance(component, TokenClassification)
    description: dict[str, Any] = {
        "component": type(component).__name__,
        "inputs": [
            {"name": name, "dtype": "int32", "shape": ["batch", "length"]} for name in _INPUTS
        ],
        "output": {
            "name": "logits",
            "dtype": "float32",
            "shape": ["batch", "length", "classes"] if is_tagger else ["batch", "classes"],
        },
        "max_length": component.max_length,
        "pad_token_id": component.tokenizer.pad_token_id,
        "weights": _WEIGHTS,
        "jax_version": jax.__version__,
        "classes": component.classes,
    }
    if isinstance(component, TokenClassification):
        scheme, subtokens = component.tagging_scheme, component.tag_subtokens
        tags = {"tagging_scheme": scheme, "tag_subtokens": subtokens, "layers": component.layers}
        return {**description, **tags}
    if isinstance(component, TextClassification):
        problem, pooling = component.problem_type, component.pooling
        least = None if component.thresholds is None else dict(component.thresholds)
        texts = {"problem_type": problem, "pooling": pooling, "thresholds": least}
        return {**description, **texts}
    candidates = {"kinds": component.kinds, "reach": component.reach, "context": component.context}
    return {**description, **candidates, "marks": component.marks}
