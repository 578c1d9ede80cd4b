"""Warn of what a reader assumes of the tags of a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from medjax.text.readers._dropped import LOGGER
from medjax.text.tagging import OUTSIDE, UNNAMED_LABEL
from medjax.text.tagging.notations import other_reading


def warn_of_tags(source: str | Path, standard: Mapping[str, str]) -> None:
    """Log a warning if tags lack a prefix or a label, or can be read in two ways.

    Parameters
    ----------
    source : str or Path
        Where the tags come from, for the messages.
    standard : mapping of str to str
        The tags and their standard form.
    """
    entities = {tag: name for tag, name in standard.items() if name != OUTSIDE}
    if any(name == f"I-{tag}" for tag, name in entities.items()):
        LOGGER.warning(
            "%s: the tags have no prefix (%s); adjacent tokens of one label are one entity",
            source,
            ", ".join(list(entities)[:3]),
        )
    if any(len(tag) == 1 and name.endswith(f"-{UNNAMED_LABEL}") for tag, name in entities.items()):
        LOGGER.warning("%s: the tags have no label; %r is used", source, UNNAMED_LABEL)
    for tag, name in list(other_reading(standard).items())[:1]:
        LOGGER.warning(
            "%s: the tag %r is read as %s, but could be %s; write the tags as in B-Drug if it is",
            source,
            tag,
            _described(tag, standard[tag]),
            _described(tag, name),
        )


def _described(tag: str, name: str) -> str:
    prefix, _, label = name.partition("-")
    return f"the label {label!r}" if label == tag else f"{prefix} with the label {label!r}"
