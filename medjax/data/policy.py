"""What data, cache and workers must satisfy, in medjax's loader and in that of torch components."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Hashable, Mapping, Sized
from typing import Any

__all__ = ["ShapeLimit", "check_cache", "check_picklable", "check_worker_caches", "nb_items_of"]


class ShapeLimit:
    """Counts the distinct shapes of batches, and ends a run that has too many.

    Parameters
    ----------
    limit : int
        Maximum number of shapes: `Options.max_shapes`.

    Examples
    --------
    >>> shapes = ShapeLimit(2)
    >>> [shapes.add((4, length), lambda: ("ids", "Pad them")) for length in (8, 8, 9)]
    [True, False, True]
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.seen: set[Any] = set()

    def __len__(self) -> int:
        """Return the number of distinct shapes so far."""
        return len(self.seen)

    def add(self, shape: Hashable, explain: Callable[[], tuple[str, str]], cost: str = "") -> bool:
        """Count a shape and return whether it is new.

        Parameters
        ----------
        shape : hashable
            The shape.
        explain : callable
            Returns what varies, and what to do about it.
        cost : str
            What the shapes so far have cost.

        Raises
        ------
        ValueError
            If it is new and the limit was already reached.
        """
        if shape in self.seen:
            return False
        if len(self.seen) == self.limit:
            varying, remedy = explain()
            raise ValueError(
                f"the batch has a new shape after {self.limit} others{cost}: {varying}. {remedy}, "
                f"or raise Options(max_shapes=...) above {self.limit}"
            )
        self.seen.add(shape)
        return True


def check_cache(*, is_random: bool) -> None:
    """Refuse to cache what `preprocess` draws at random.

    Raises
    ------
    ValueError
        If it draws.

    Examples
    --------
    >>> check_cache(is_random=False)
    """
    if is_random:
        msg = (
            "cache_preprocessed=True keeps the first result of preprocess, but this preprocess "
            "draws from rng=; set cache_preprocessed=False or remove the parameter"
        )
        raise ValueError(msg)


def check_worker_caches(*, caches: bool, nb_workers: int) -> None:
    """Refuse a cache in each worker process.

    Raises
    ------
    ValueError
        If both are asked for.

    Examples
    --------
    >>> check_worker_caches(caches=True, nb_workers=0)
    """
    if caches and nb_workers:
        msg = (
            f"cache_preprocessed=True conflicts with dataloader_nb_workers={nb_workers}, as each "
            "worker would fill its own cache; set cache_preprocessed=False or "
            "dataloader_nb_workers=0"
        )
        raise ValueError(msg)


def check_picklable(parts: Mapping[str, Any]) -> None:
    """Check that objects can be sent to worker processes.

    Parameters
    ----------
    parts : mapping of str to object
        The objects by what they are, such as ``"dataset"``.

    Raises
    ------
    ValueError
        Names the first that cannot, its type and the reason.

    Examples
    --------
    >>> check_picklable({"dataset": [1, 2]})
    """
    for name, part in parts.items():
        try:
            # Discarded rather than kept in memory, as a component may have a large model.
            with open(os.devnull, "wb") as sink:
                pickle.dump(part, sink)
        except Exception as error:
            msg = (
                f"the {name}, a {type(part).__name__}, cannot be sent to worker processes "
                f"({type(error).__name__}: {error}); define it at the top level of a module, "
                "without open files, lambdas or locks, or set dataloader_nb_workers=0"
            )
            raise ValueError(msg) from error


def nb_items_of(data: Sized) -> int:
    """Return the number of items in data that has a length.

    Raises
    ------
    ValueError
        If it has none.

    Examples
    --------
    >>> nb_items_of(["no fever", "mild cough"])
    2
    """
    nb_items = len(data)
    if nb_items == 0:
        raise ValueError(f"the data, a {type(data).__name__}, has no items; expected at least one")
    return nb_items
