"""The tasks that can be trained and scored from the command line."""

from __future__ import annotations

from typing import Literal, NamedTuple

__all__ = ["ANNOTATIONS", "DEFAULTS", "MODEL", "Defaults", "Task"]

Task = Literal["entities", "documents", "relations"]

ANNOTATIONS: dict[Task, tuple[str, str]] = {
    "entities": ("entities", "entity"),
    "documents": ("labels", "label"),
    "relations": ("relations", "relation"),
}
"""The attribute of an item that is annotated, and what a message calls one of them."""


class Defaults(NamedTuple):
    """Settings of a run if nothing else is asked for.

    Attributes
    ----------
    learning_rate : float
        Rate before warm-up and decay.
    nb_epochs : int
        Number of epochs.
    """

    learning_rate: float
    nb_epochs: int


DEFAULTS: dict[Task, Defaults] = {
    "entities": Defaults(3e-4, 5),
    "documents": Defaults(1e-4, 4),
    "relations": Defaults(3e-4, 5),
}
"""Settings of each task, as in the examples."""

MODEL = "model"
"""Folder of the trained component within the output of a run."""
