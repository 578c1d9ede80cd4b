"""The matrices of a LoRA in a checkpoint, whose other files have them merged into the weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

__all__ = ["read_matrices", "write_matrices"]

_FILE, _SCALE = "lora.safetensors", "scale"


def write_matrices(folder: Path, matrices: Mapping[tuple[str, ...], Any], scale: float) -> None:
    """Write the matrices beside the merged weights.

    Parameters
    ----------
    folder : Path
        The checkpoint.
    matrices : mapping
        Arrays by path.
    scale : float
        Factor of their products.
    """
    if matrices:
        tensors = {
            "/".join(path): np.ascontiguousarray(np.asarray(values, np.float32))
            for path, values in matrices.items()
        }
        save_file(tensors, folder / _FILE, metadata={_SCALE: repr(float(scale))})


def read_matrices(
    folder: Path, expected: Mapping[tuple[str, ...], Any], scale: float
) -> dict[tuple[str, ...], np.ndarray] | None:
    """Return the matrices in a checkpoint; None if there are none of the same shapes and scale.

    Parameters
    ----------
    folder : Path
        The checkpoint.
    expected : mapping
        Arrays of the shapes that are wanted, by path.
    scale : float
        Factor of their products.

    Raises
    ------
    ValueError
        If the file cannot be read.
    """
    file = folder / _FILE
    if not file.is_file():
        return None
    try:
        with safe_open(file, framework="numpy") as opened:
            if (opened.metadata() or {}).get(_SCALE) != repr(float(scale)):
                return None
            names = opened.keys()
            found = {tuple(name.split("/")): opened.get_tensor(name) for name in names}
    except SafetensorError as error:
        msg = f"cannot read {file} ({error}); copy the checkpoint again"
        raise ValueError(msg) from error
    shapes = {path: np.shape(values) for path, values in expected.items()}
    return found if {path: v.shape for path, v in found.items()} == shapes else None
