"""The tags of a checkpoint's classifier, and those of a tagger made from it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from medjax.models import read_labels
from medjax.tagging import TagError, labels_of, scheme_of, standard_tags, tag_names

LOGGER = logging.getLogger("medjax")


def choose_tags(
    folder: Path, labels: Sequence[str] | None, scheme: str
) -> tuple[tuple[str, ...], str]:
    """Return tags and tagging scheme of a tagger for some labels.

    Parameters
    ----------
    folder : Path
        The checkpoint it starts from.
    labels : sequence of str or None
        Kinds of entities; None for those of the checkpoint.
    scheme : str
        Tagging scheme, where `labels` are given.

    Raises
    ------
    ValueError
        If the labels cannot be used, or None are given and the checkpoint names none.
    """
    if isinstance(labels, str) or (labels is not None and len(labels) == 0):
        msg = f"labels is {labels!r}; expected kinds of entities, ['Drug', ...], or None"
        raise ValueError(msg)
    if labels is None:
        return _readable_tags(folder)
    tags = tag_names(labels, scheme)
    known = known_tags(folder)
    if sorted(known) == sorted(tags):
        return known, scheme
    if known:
        LOGGER.warning(
            f"the classifier of {folder}, for {', '.join(known)}, is replaced by a new one for the "
            f"labels {', '.join(labels)}"
        )
    return tags, scheme


def known_tags(folder: Path) -> tuple[str, ...]:
    """Return the classes of a checkpoint, as standard tags where they are tags; () for none."""
    names = read_labels(folder) or ()
    try:
        standard = standard_tags(names)
    except TagError:
        return names
    return tuple(standard[name] for name in names)


def _readable_tags(folder: Path) -> tuple[tuple[str, ...], str]:
    """Return tags and scheme of a checkpoint; ValueError if it has none that can be read."""
    names = read_labels(folder)
    if names is None:
        msg = (
            f"{folder} is no token classifier with named tags: its weights have no classifier of "
            "tokens (classifier.weight on the hidden states), or config.json gives it to another "
            "task (architectures); give labels=[...] to train a new classifier"
        )
        raise ValueError(msg)
    where = f"{folder / 'config.json'}: id2label"
    advice = "name the classes there as tags, or give labels=[...] to train a new classifier"
    try:
        standard = standard_tags(names)
    except TagError as error:
        msg = f"{where} names class {names.index(error.tag)}: {error}; {advice}"
        raise ValueError(msg) from None
    tags = tuple(standard[name] for name in names)
    if len(set(tags)) < len(tags) or not labels_of(tags):
        msg = f"{where} is {list(names)}; expected a different tag for each class; {advice}"
        raise ValueError(msg)
    try:
        return tags, scheme_of(tags)
    except ValueError as error:
        raise ValueError(f"{where}: {error}; {advice}") from None
