"""What a checkpoint holds and whether it is sound, told from its files alone.

Nothing is changed, no pickle is opened, and neither the component nor a device is needed.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp

from medjax.checkpoint.arrays import ARRAYS, TreeSpec
from medjax.checkpoint.errors import CorruptCheckpointError, MismatchError
from medjax.checkpoint.manifest import MANIFEST, damages
from medjax.checkpoint.progress import read_progress
from medjax.checkpoint.records import RECORD, read_record
from medjax.checkpoint.restore import OWNED
from medjax.checkpoint.store import CONFIG

__all__ = ["ArrayGroup", "array_groups", "component_files", "is_without_state", "problems_of"]

_STEP = re.compile(r"\.(\w+)|\['([^']*)'\]|\[[^\]]*\]")
_OPTIMIZER = "opt_state"
_RANDOM_KEY = "key<"  # how the dtypes of keys begin


class ArrayGroup(NamedTuple):
    """Arrays that belong together.

    Attributes
    ----------
    name : str
        Field of the training state, or for the optimizer, ``opt_state`` and what it remembers.
    nb_arrays, nb_elements, nb_bytes : int
        Their number and sizes, over all devices together; the few bytes of random keys are left
        out.
    dtypes : tuple of str
        Their dtypes.
    largest : str
        Path and shape of the one with most elements.
    """

    name: str
    nb_arrays: int
    nb_elements: int
    nb_bytes: int
    dtypes: tuple[str, ...]
    largest: str


def array_groups(spec: TreeSpec) -> list[ArrayGroup]:
    """Summarize the arrays of a checkpoint.

    Parameters
    ----------
    spec : dict
        Shape and dtype of each by its path, as `medjax.checkpoint.arrays.tree_spec` returns it.

    Examples
    --------
    >>> spec = {
    ...     ".params['w']": [[2, 3], "float32"],
    ...     ".opt_state[0].mu['w']": [[2, 3], "bfloat16"],
    ... }
    >>> [(group.name, group.nb_bytes) for group in array_groups(spec)]
    [('params', 24), ('opt_state mu', 12)]
    """
    members: dict[str, TreeSpec] = {}
    for path, leaf in spec.items():
        members.setdefault(_group_of(path), {})[path] = leaf
    return [_summarized(name, leaves) for name, leaves in members.items()]


def _group_of(path: str) -> str:
    steps = list(_STEP.finditer(path))
    top = next((step[1] or step[2] for step in steps if step[1] or step[2]), path)
    if top != _OPTIMIZER:
        return top
    fields = [step[1] for step in steps if step[1]]
    return top if fields[-1] == top else f"{top} {fields[-1]}"


def _summarized(name: str, leaves: TreeSpec) -> ArrayGroup:
    sizes = {path: math.prod(shape) for path, (shape, _) in leaves.items()}
    largest = max(sizes, key=lambda path: sizes[path])
    return ArrayGroup(
        name,
        len(leaves),
        sum(sizes.values()),
        sum(sizes[path] * _itemsize(dtype) for path, (_, dtype) in leaves.items()),
        tuple(sorted({dtype for _, dtype in leaves.values()})),
        f"{largest} {tuple(leaves[largest][0])}",
    )


def _itemsize(dtype: str) -> int:
    return 0 if dtype.startswith(_RANDOM_KEY) else jnp.dtype(dtype).itemsize


def problems_of(checkpoint: Path) -> list[str]:
    """Return in words everything that is wrong with a checkpoint; [] if it can be resumed from.

    A checkpoint that a run deletes meanwhile, as a superseded one, has no problem.

    Parameters
    ----------
    checkpoint : Path
        Its folder.
    """
    found = []
    try:
        read_progress(read_record(checkpoint)["progress"])
    except (CorruptCheckpointError, MismatchError) as error:
        found.append(str(error))
    found += damages(checkpoint, OWNED)
    return found if checkpoint.is_dir() else []


def is_without_state(folder: Path) -> bool:
    """Return whether a folder is a checkpoint as medkit writes it, without training state."""
    has_more = any((folder / name).exists() for name in (RECORD, MANIFEST, ARRAYS))
    return (folder / CONFIG).is_file() and not has_more


def component_files(checkpoint: Path) -> dict[str, int]:
    """Return the sizes in bytes of the files that the component has saved, by name."""
    others = {CONFIG, RECORD, MANIFEST}
    sizes: dict[str, Any] = {}
    for path in sorted(checkpoint.rglob("*")):
        name = path.relative_to(checkpoint).as_posix()
        is_own = name not in others and not name.startswith(f"{ARRAYS}/")
        if is_own and path.is_file() and not path.is_symlink():
            sizes[name] = path.stat().st_size
    return sizes
