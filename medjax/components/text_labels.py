"""What a classifier of texts takes over from a checkpoint: classes, kind of problem, pooling."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from medjax.metrics.thresholds import check_thresholds
from medjax.models import TEXT_CLASSIFICATION, read_labels
from medjax.models.config_json import CONFIG_FILE
from medjax.models.files import read_json

__all__ = ["POOLING", "THRESHOLDS", "choose_classes", "read_problem", "read_thresholds"]

POOLING = "window_pooling"
"""Field of config.json that medjax adds."""

THRESHOLDS = "label_thresholds"
"""Field of config.json that medjax adds: least probability of each class."""

_PROBLEMS = ("single_label_classification", "multi_label_classification")
_POOLINGS = ("mean", "max")

_LOGGER = logging.getLogger("medjax")


def choose_classes(folder: Path, labels: Sequence[str] | None) -> tuple[str, ...]:
    """Return the classes of a classifier that starts from a checkpoint, in its logits' order.

    Parameters
    ----------
    folder : Path
        The checkpoint.
    labels : sequence of str or None
        Names of the classes, in the order that is wanted; None for those of the checkpoint.

    Raises
    ------
    ValueError
        If the labels cannot be used, or if `labels` is None and the checkpoint is no classifier.
    """
    known = read_labels(folder, TEXT_CLASSIFICATION)
    if labels is None:
        if known is None:
            msg = (
                f"{folder} is not a classifier of texts: its weights lack the head of one, or "
                "config.json is that of another task (architectures); pass labels=[...] to train "
                "a new classifier"
            )
            raise ValueError(msg)
        return known
    if isinstance(labels, str) or not labels or len(set(labels)) < len(labels):
        msg = f"labels is {labels!r}; expected different names of classes, ['no', 'yes'], or None"
        raise ValueError(msg)
    if known is not None and sorted(known) != sorted(labels):
        _LOGGER.warning(
            f"the classifier of {folder}, for {', '.join(known)}, is replaced by a new one for "
            f"{', '.join(labels)}"
        )
    return tuple(labels)


def read_problem(
    folder: Path, problem: str | None, pooling: str | None, classes: Sequence[str]
) -> tuple[str, str]:
    """Return the kind of problem and the pooling, by default those of the checkpoint.

    Parameters
    ----------
    folder : Path
        The checkpoint.
    problem, pooling : str or None
        What is asked for.
    classes : sequence of str
        Names of the classes.

    Raises
    ------
    ValueError
        If one of them is unknown, or a single class is to be told from nothing.
    """
    content = read_json(folder / CONFIG_FILE)
    stored = content.get("problem_type")
    problem = problem or (stored if stored in _PROBLEMS else _PROBLEMS[0])
    pooling = pooling or content.get(POOLING) or _POOLINGS[0]
    for name, value, allowed in (
        ("problem_type", problem, _PROBLEMS),
        ("pooling", pooling, _POOLINGS),
    ):
        if value not in allowed:
            msg = f"{name} is {value!r}; expected {' or '.join(map(repr, allowed))}"
            raise ValueError(msg)
    if len(classes) < 2 and problem == _PROBLEMS[0]:
        msg = (
            f"labels are {list(classes)}; expected at least two classes, or "
            "problem_type='multi_label_classification', where a text may have none"
        )
        raise ValueError(msg)
    return problem, pooling


def read_thresholds(folder: Path, problem: str, classes: Sequence[str]) -> dict[str, float] | None:
    """Return the thresholds of the classes that a checkpoint was saved with, or None.

    Parameters
    ----------
    folder : Path
        The checkpoint.
    problem : str
        The kind of problem.
    classes : sequence of str
        Names of the classes, in any order; a checkpoint of others has no thresholds for them.

    Raises
    ------
    ValueError
        If they cannot be used.
    """
    stored = read_json(folder / CONFIG_FILE).get(THRESHOLDS)
    if stored is None or problem == _PROBLEMS[0]:
        return None
    if sorted(read_labels(folder, TEXT_CLASSIFICATION) or ()) != sorted(classes):
        return None
    numbers = (int, float)
    if not isinstance(stored, dict) or not all(type(v) in numbers for v in stored.values()):
        msg = f"found {stored!r:.80}, expected an object with a number for each class"
        raise ValueError(f"{folder / CONFIG_FILE}: {THRESHOLDS}: {msg}")
    try:
        check_thresholds(stored, classes)
    except ValueError as error:
        raise ValueError(f"{folder / CONFIG_FILE}: {THRESHOLDS}: {error}") from error
    return {name: float(stored[name]) for name in classes}
