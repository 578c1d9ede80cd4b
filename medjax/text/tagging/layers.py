"""Several sequences of tags for one text, one for each label, so that entities may overlap."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from medjax.text.tagging.schemes import OUTSIDE, labels_of, tag_names

__all__ = ["layered_tag_names", "tag_layers"]

_OUTSIDE_OF = f"{OUTSIDE}-"


def layered_tag_names(labels: Iterable[str], scheme: str) -> tuple[str, ...]:
    """Return the tags of a scheme with a sequence for each label.

    Parameters
    ----------
    labels, scheme
        As for `tag_names`.

    Returns
    -------
    tuple of str
        For each label ``"O-"`` with the label, then its tags.

    Examples
    --------
    >>> layered_tag_names(["Drug", "Test"], "io")
    ('O-Drug', 'I-Drug', 'O-Test', 'I-Test')
    """
    labels = list(labels)
    tag_names(labels, scheme)  # checks them
    return tuple(
        tag for label in labels for tag in (_OUTSIDE_OF + label, *tag_names([label], scheme)[1:])
    )


def tag_layers(tags: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Return the tags of each sequence, in which ``"O"`` stands for all outside tags.

    Parameters
    ----------
    tags : sequence of str
        Names of all classes, from `tag_names` or `layered_tag_names`.

    Returns
    -------
    tuple of tuple of str
        One sequence with all tags, or one for each label.

    Raises
    ------
    ValueError
        If only some of the tags belong to the sequence of a label, or the sequences have different
        numbers of tags.

    Examples
    --------
    >>> tag_layers(("O", "I-Drug", "I-Test"))
    (('O', 'I-Drug', 'I-Test'),)
    >>> tag_layers(("O-Drug", "I-Drug", "O-Test", "I-Test"))
    (('O', 'I-Drug'), ('O', 'I-Test'))
    """
    if not any(tag.startswith(_OUTSIDE_OF) for tag in tags):
        return (tuple(tags),)
    layers: list[list[str]] = []
    for tag in tags:
        if tag.startswith(_OUTSIDE_OF):
            layers.append([OUTSIDE])
            label = tag.removeprefix(_OUTSIDE_OF)
        elif not layers or labels_of([tag]) != [label]:
            msg = f"found the tag {tag!r}; expected it after {_OUTSIDE_OF}{labels_of([tag])[0]}"
            raise ValueError(msg)
        else:
            layers[-1].append(tag)
    if len({len(layer) for layer in layers}) > 1 or len(layers[0]) < 2:
        msg = f"the tags are {list(tags)}; expected the same number for each label"
        raise ValueError(msg)
    return tuple(map(tuple, layers))
