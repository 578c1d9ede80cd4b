"""Choose the tags of a tagger that is made from a checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from medjax.components.folders import check_order, warn_of_forms
from medjax.models import read_labels
from medjax.text.tagging import (
    TagError,
    labels_of,
    layered_tag_names,
    scheme_of,
    standard_tags,
    tag_layers,
    tag_names,
)

__all__ = ["choose_tags", "known_tags"]

_LOGGER = logging.getLogger("medjax")


def choose_tags(
    folder: Path, labels: Sequence[str] | None, scheme: str, *, overlapping: bool = False
) -> tuple[tuple[str, ...], str]:
    """Return the tags and the tagging scheme of a tagger that starts from a checkpoint.

    Parameters
    ----------
    folder : Path
        The checkpoint.
    labels : sequence of str or None
        Kinds of entities; None for those of the checkpoint.
    scheme : str
        Tagging scheme; ignored if `labels` is None.
    overlapping : bool
        Whether each label has a sequence of tags; ignored if `labels` is None.

    Raises
    ------
    ValueError
        If the labels cannot be used, or if `labels` is None and the checkpoint has no usable tags.
    """
    check_order(labels)
    if isinstance(labels, str) or (labels is not None and len(labels) == 0):
        msg = f"labels is {labels!r}; expected kinds of entities, ['Drug', ...], or None"
        raise ValueError(msg)
    if labels is None:
        return _readable_tags(folder)
    tags = (layered_tag_names if overlapping else tag_names)(labels, scheme)
    warn_of_forms(labels)
    known = known_tags(folder)
    if sorted(known) == sorted(tags):
        return known, scheme
    if known:
        _LOGGER.warning(
            f"the classifier of {folder}, for {', '.join(known)}, is replaced by a new one for the "
            f"labels {', '.join(labels)}"
        )
    return tags, scheme


def known_tags(folder: Path) -> tuple[str, ...]:
    """Return a checkpoint's classes, as standard tags if they are tags; () if it has none."""
    names = read_labels(folder) or ()
    if _is_layered(names):
        return names
    try:
        standard = standard_tags(names)
    except TagError:
        return names
    return tuple(standard[name] for name in names)


def _readable_tags(folder: Path) -> tuple[tuple[str, ...], str]:
    """Return the tags and the scheme of a checkpoint; raise ValueError if it has no usable ones."""
    names = read_labels(folder)
    if names is None:
        msg = (
            f"{folder} is not a token classifier with named tags: its weights have no token "
            "classifier (classifier.weight on the hidden states), or config.json is that of "
            "another task (architectures); pass labels=[...] to train a new classifier"
        )
        raise ValueError(msg)
    where = f"{folder / 'config.json'}: id2label"
    if _is_layered(names):
        return names, scheme_of(tag_layers(names)[0])
    advice = "name the classes there as tags, or pass labels=[...] to train a new classifier"
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


def _is_layered(names: Sequence[str]) -> bool:
    """Return whether there is a sequence of tags for each label."""
    try:
        layers = tag_layers(names)
    except ValueError:
        return False
    return len(names) > 0 and layers[0] != tuple(names)
