"""The arrays of a checkpoint: the only file that calls Orbax.

Orbax 0.12 casts dtypes silently, and of two leaves whose joined names collide it stores only one.
Both are checked here. It rejects arrays without elements, so these are left out of the files and
made again from their shapes, which the checkpoint records.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from orbax.checkpoint import v1 as ocp

from medjax.checkpoint.errors import CheckpointError, CorruptCheckpointError, MismatchError
from medjax.checkpoint.manifest import UNREADABLE

__all__ = [
    "ARRAYS",
    "TreeSpec",
    "check_spec",
    "check_storable",
    "load_arrays",
    "save_arrays",
    "tree_spec",
]

ARRAYS = "training_state"
"""Folder of the arrays within a checkpoint."""

TreeSpec = dict[str, list[Any]]
"""Maps the path of each leaf to its shape and dtype."""


def tree_spec(tree: Any) -> TreeSpec:
    """Return the shape and dtype of every leaf by its path in the tree, ready for JSON.

    Examples
    --------
    >>> import numpy as np
    >>> tree_spec({"bias": np.zeros(3, np.float32)})
    {"['bias']": [[3], 'float32']}
    """
    return {
        jax.tree_util.keystr(path): [list(leaf.shape), str(leaf.dtype)]
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def check_spec(saved: TreeSpec, wanted: TreeSpec, where: Path) -> None:
    """Raise MismatchError unless a checkpoint holds exactly the expected leaves.

    Parameters
    ----------
    saved, wanted : dict
        What the checkpoint holds and what is expected, from `tree_spec`.
    where : Path
        The checkpoint, for the message.
    """
    differing = [name for name in {**wanted, **saved} if saved.get(name) != wanted.get(name)]
    if differing:
        name = differing[0]
        msg = (
            f"{where} holds a different training state: {len(differing)} leaves differ, the first "
            f"is {name}: found {_shown(saved.get(name))}, expected {_shown(wanted.get(name))}. "
            "Resume with the model and optimizer it was saved with; for a new run, pass a "
            "different output_dir or resume=None"
        )
        raise MismatchError(msg, tuple(differing))


def _shown(leaf: list[Any] | None) -> str:
    return "nothing" if leaf is None else f"{leaf[1]} of shape {tuple(leaf[0])}"


def check_storable(tree: Any) -> None:
    """Raise CheckpointError if Orbax would lose a leaf of `tree`."""
    seen: dict[str, str] = {}
    for path, _ in jax.tree_util.tree_leaves_with_path(tree):
        shown = jax.tree_util.keystr(path)
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        if name in seen:
            msg = f"{seen[name]} and {shown} would both be stored as {name!r}; rename one"
            raise CheckpointError(msg)
        seen[name] = shown


def save_arrays(path: Path, tree: Any) -> Callable[[], None]:
    """Start writing `tree` and return a function that waits until all processes have written it.

    The arrays may be changed or donated as soon as this returns. They are not compressed: that
    takes as much memory again, for files that are 8 % (all weights trained) to 40 % (words that
    never occur have no moments in Adam) smaller.
    """
    context = ocp.Context()
    context.array_options.saving = ocp.options.ArrayOptions.Saving(use_compression=False)
    with context:
        response = ocp.save_async(path, _without_empty(tree))
    result: Callable[[], None] = response.result
    return result


def load_arrays(path: Path, tree: Any, shardings: Any) -> Any:
    """Read arrays with the structure, shapes and dtypes of `tree`, laid out by `shardings`.

    Orbax compares structure and shapes with the stored ones before it reads an array, so a damaged
    checkpoint cannot make it allocate more than `tree` takes.

    Raises
    ------
    CorruptCheckpointError
        If structure or shapes differ, or the arrays cannot be read.
    """
    wanted = jax.tree.map(
        lambda leaf, layout: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=layout),
        tree,
        shardings,
    )
    try:
        read = iter(jax.tree.leaves(ocp.load(path, _without_empty(wanted))))
    except (*UNREADABLE, AssertionError, NotImplementedError) as error:
        msg = f"the arrays of {path} cannot be read ({type(error).__name__}: {error})"
        raise CorruptCheckpointError(msg) from error
    return jax.tree.map(lambda leaf: _empty(leaf) if _is_empty(leaf) else next(read), wanted)


def _without_empty(tree: Any) -> Any:
    """Return a tree with None in place of arrays without elements."""
    return jax.tree.map(lambda leaf: None if _is_empty(leaf) else leaf, tree)


def _is_empty(leaf: Any) -> bool:
    return 0 in leaf.shape


def _empty(leaf: jax.ShapeDtypeStruct) -> jax.Array:
    make = jax.jit(lambda: jnp.empty(leaf.shape, leaf.dtype), out_shardings=leaf.sharding)
    made: jax.Array = make()
    return made
