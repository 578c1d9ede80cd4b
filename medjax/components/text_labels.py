"""What a classifier of texts takes over from a checkpoint: classes, kind of problem, pooling."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from medjax.components.folders import check_order, warn_of_forms
from medjax.metrics.thresholds import check_thresholds
from medjax.models import TEXT_CLASSIFICATION, read_labels
from medjax.models.config_json import CONFIG_FILE
from medjax.models.files import read_json

__all__ = [
    "POOLING",
    "THRESHOLDS",
    "choose_classes",
    "least_probabilities",
    "read_problem",
    "read_thresholds",
]

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
    check_order(labels)
    if isinstance(labels, str) or not labels or len(set(labels)) < len(labels):
        msg = f"labels is {labels!r}; expected different names of classes, ['no', 'yes'], or None"
        raise ValueError(msg)
    warn_of_forms(labels)
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
        If one of them is unknown, that of the checkpoint is and none is asked for, or a single
        class is to be told from nothing.
    """
    content = read_json(folder / CONFIG_FILE)
    stored = content.get("problem_type")
    if problem is None and stored not in (None, *_PROBLEMS):
        msg = (
            f"{folder / CONFIG_FILE}: problem_type is {stored!r}; expected "
            f"{' or '.join(map(repr, _PROBLEMS))}: pass problem_type=... to train a classifier"
        )
        raise ValueError(msg)
    problem = problem or stored or _PROBLEMS[0]
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


def least_probabilities(
    thresholds: float | Mapping[str, float] | None, classes: Sequence[str], *, multi_label: bool
) -> dict[str, float] | None:
    """Return the least probability of each class; None where a text has exactly one.

    Parameters
    ----------
    thresholds : float or mapping of str to float, optional
        One for all classes, or one for each by name; by default 0.5.
    classes : sequence of str
        Names of the classes.
    multi_label : bool
        Whether a text may have any number of classes.

    Raises
    ------
    ValueError
        If they are not those of the classes, or a text has exactly one.

    Examples
    --------
    >>> least_probabilities({"cough": 0.25, "fever": 0.75}, ["fever", "cough"], multi_label=True)
    {'fever': 0.75, 'cough': 0.25}
    """
    if not multi_label:
        if thresholds is None:
            return None
        msg = f"found thresholds={thresholds!r} for one class per text"
        raise ValueError(f"{msg}; they need problem_type='multi_label_classification'")
    numbers = check_thresholds(0.5 if thresholds is None else thresholds, classes)
    return dict(zip(classes, numbers.tolist(), strict=True))
